// Command coverage prints the statements under functions/ and pkg/ that no test covers, and fails when less than a
// given share is covered.
//
// It reads profiles in the text format of `go tool covdata textfmt` and `go test -coverprofile`: those of unit tests
// and of the programs that the end-to-end tests called. A statement counts as covered if any profile covers it.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/tools/cover"
)

func main() {
	least := flag.Float64("least", 95, "percentage of statements that must be covered")
	var skip []string
	flag.Func("skip", "package to leave out: helpers of tests; may be repeated", func(name string) error {
		skip = append(skip, name)
		return nil
	})
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "Usage: coverage [-least 95] [-skip package]… profile…")
		flag.PrintDefaults()
	}
	flag.Parse()
	enough, err := report(flag.Args(), skip, *least)
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(2)
	}
	if !enough {
		os.Exit(1)
	}
}

// place is a block of statements in a file.
type place struct {
	file string
	cover.ProfileBlock
}

func report(files, skip []string, least float64) (enough bool, err error) {
	covered := map[place]bool{} // by block with Count 0, so that the same block of two profiles is one key
	for _, file := range files {
		profiles, err := cover.ParseProfiles(file)
		if err != nil {
			return false, fmt.Errorf("read %s: %w", file, err)
		}
		for _, profile := range profiles {
			in := path.Dir(profile.FileName)
			if slices.ContainsFunc(skip, func(name string) bool { return strings.HasSuffix(in, name) }) {
				continue
			}
			for _, block := range profile.Blocks {
				p := place{profile.FileName, block}
				p.Count = 0
				covered[p] = covered[p] || block.Count > 0
			}
		}
	}
	if len(covered) == 0 {
		return false, fmt.Errorf("no statements in %s", strings.Join(files, ", "))
	}
	return summarize(covered, least), nil
}

func summarize(covered map[place]bool, least float64) bool {
	type sum struct{ statements, covered int }
	packages, total := map[string]sum{}, sum{}
	var missing []place
	for p, hit := range covered {
		s := packages[path.Dir(p.file)]
		s.statements += p.NumStmt
		total.statements += p.NumStmt
		if hit {
			s.covered += p.NumStmt
			total.covered += p.NumStmt
		} else {
			missing = append(missing, p)
		}
		packages[path.Dir(p.file)] = s
	}
	percent := func(s sum) float64 { return 100 * float64(s.covered) / float64(s.statements) }
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		fmt.Printf("%6.1f %%  %s\n", percent(packages[name]), name)
	}
	slices.SortFunc(missing, func(a, b place) int {
		return cmp.Or(strings.Compare(a.file, b.file), cmp.Compare(a.StartLine, b.StartLine))
	})
	for _, p := range missing {
		fmt.Printf("not covered: %s:%d-%d\n", p.file, p.StartLine, p.EndLine)
	}
	fmt.Printf("%6.1f %%  of %d statements under functions/ and pkg/; at least %g %% are required\n", percent(total), total.statements, least)
	return percent(total) >= least
}
