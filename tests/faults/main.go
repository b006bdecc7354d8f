// Command faults breaks the local platform in many ways, one after the other, while clients read and write. It checks
// that a correct store could have produced the history that the clients saw. `make faults` starts a platform for it.
// It knows the HTTP contract, and how to reach the parts of the platform.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"netlify-supabase-kv/scripts/bench/report"
)

// The exit statuses: 1 when a promise was broken, 2 when it could not run.
const (
	exitBroken = 1
	exitFailed = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "Error:", err)
	if errors.Is(err, errBroken) {
		os.Exit(exitBroken)
	}
	fmt.Fprintln(os.Stderr, "Try:   make faults, which starts a platform of its own")
	os.Exit(exitFailed)
}

// errBroken is returned after broken promises were printed.
var errBroken = errors.New("promises were broken")

type flags struct {
	settings
	seconds float64
	only    []string
	list    bool
	again   string
	out     string
	docs    string
}

func command() *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use:   "faults",
		Short: "Break the platform under load, and check what the clients saw",
		Long: `Breaks the platform in one way after the other, while clients read and write a few entries through the functions, and checks
the history of their operations:

  - It is linearizable: there is one order of all operations on an entry in which each took effect between its request and
    its response. A write without a response may have taken effect, or may at any later time. Reads with Cache-Control: no-cache
    and kv-list see the last write. Other reads may be a second old, but not older than a write that they name in X-KV-After.
    So no acknowledged write is lost, none is applied twice, and no read is too old.
  - The same holds of create-only writes, compare-and-set loops, increments and takes (kv-entries and kv-batch), and their conditions
    hold exactly. Clients repeat these with the same Idempotency-Key until there is a response, and then it is that of the first.
  - Two numbers that atomic batches increment, in either order, are always the same.
  - No entry mixes two writes, and an entry, its indexes and their members are always those of one write.
  - Errors are 502 database_unreachable, 503 unavailable or 504 deadline_exceeded, and nobody waits longer than a minute.
  - Everything works again within --recover-within of the end of the fault.
  - Where writes are mirrored (make faults MIRROR=true), "migrate-kv-store repair" makes the copies that are missing in Blobs, and
    both stores are the same afterwards.

Random choices depend on --seed, and --only repeats one fault. A seed repeats the load, but not its exact timing. The history of a
fault that broke a promise is saved beside --out.`,
		Example: `  make faults ARGS='--only kill-postgres,drop-reply --seed 42'
  make faults ARGS='--list'`,
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c.Context(), c.OutOrStdout()) },
	}
	s := c.Flags()
	s.Uint64Var(&f.seed, "seed", uint64(time.Now().UnixNano()&0x7fffffff), "of the random choices")
	s.StringSliceVar(&f.only, "only", nil, "the `faults` to run, with commas between them (default: all)")
	s.Float64Var(&f.seconds, "seconds", 5, "how long a fault lasts")
	s.IntVar(&f.clients, "clients", 16, "clients at the same time; each sends about ten requests a second")
	s.IntVar(&f.entries, "entries", 6, "entries that they share")
	s.DurationVar(&f.recoverWithin, "recover-within", 20*time.Second, "time limit until everything works again")
	s.BoolVar(&f.list, "list", false, "list the faults and exit")
	s.StringVar(&f.again, "check", "", "only check this saved history again")
	s.StringVar(&f.out, "out", "", "a file for the results as JSON")
	s.StringVar(&f.docs, "docs", "", "folder whose BENCHMARKS.md gets the table")
	return c
}

// results is the JSON document of a run.
type results struct {
	At      time.Time  `json:"at"`
	Seed    uint64     `json:"seed"`
	Clients int        `json:"clients"`
	Hold    float64    `json:"hold_s"`
	Faults  []*outcome `json:"faults"`
}

// writeDocs writes the results to BENCHMARKS.md in dir (see [report.WriteDocs]).
func (r results) writeDocs(dir string) error {
	t := report.Table{Title: "What was broken, under load", Texts: 2,
		Header: []string{"fault", "errors that callers got", "requests", "acknowledged writes", "slowest, s", "recovery, s", "broken promises"}}
	for _, o := range r.Faults {
		t.Rows = append(t.Rows, []string{o.Fault, o.errorTexts(), report.Thousands(o.Requests), report.Thousands(o.Writes), fmt.Sprintf("%.1f", o.Slowest),
			fmt.Sprintf("%.2f", o.Recovery), fmt.Sprint(len(o.Violations))})
	}
	name := "faults"
	if mirrored() {
		name = "faults mirrored"
		t.Header = append(t.Header, "copies repaired")
		for i, o := range r.Faults {
			t.Rows[i] = append(t.Rows[i], fmt.Sprint(o.Repaired))
		}
	}
	text := fmt.Sprintf("%d clients, each fault for %g s, seed %d.\n\n", r.Clients, r.Hold, r.Seed)
	return report.WriteDocs(dir, map[string]string{name: text + report.Markdown(t)})
}

func (f *flags) run(ctx context.Context, out io.Writer) error {
	if f.list {
		t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, fault := range faults {
			fmt.Fprintf(t, "%s\t%s\n", fault.Name, fault.What)
		}
		return t.Flush()
	}
	if f.again != "" {
		return checkAgain(f.again, out)
	}
	list, err := chosen(f.only)
	if err != nil {
		return err
	}
	if f.seconds <= 0 || f.clients < 1 || f.entries < 1 {
		return errors.New("--seconds, --clients and --entries must be over 0")
	}
	if f.docs != "" && len(list) < len(faults) {
		return errors.New("--docs is for a run of all faults: leave --only out")
	}
	f.hold = time.Duration(f.seconds * float64(time.Second))
	p, err := newPlatform()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "faults     %d, each for about %s under %d clients, seed %d\n\n", len(list), f.hold, f.clients, f.seed)
	r := results{At: time.Now().UTC(), Seed: f.seed, Clients: f.clients, Hold: f.seconds}
	fmt.Fprintf(out, "%-17s %8s %7s %7s %6s %7s %6s %6s %9s %9s  %s\n", "fault", "requests", "writes", "unknown", "reads", "bounded", "after", "lists", "slowest s", "recovery", "errors")
	broken := 0
	for _, fault := range list {
		if fault.Lacks != nil && fault.Lacks() != "" {
			fmt.Fprintf(out, "%-17s not done: it needs %s\n", fault.Name, fault.Lacks())
			continue
		}
		o, err := run(ctx, p, fault, f.settings)
		if err != nil {
			return errors.Join(err, report.WriteJSON(f.out, r))
		}
		r.Faults = append(r.Faults, o)
		fmt.Fprintf(out, "%-17s %8d %7d %7d %6d %7d %6d %6d %9.1f %7.2f s  %s%s\n", o.Fault, o.Requests, o.Writes, o.Unknown, o.Reads["now"], o.Reads["bounded"],
			o.Reads["after"], o.Snapshots, o.Slowest, o.Recovery, o.errors(), o.copies())
		broken += len(o.Violations)
		if err := f.report(out, o); err != nil {
			return err
		}
	}
	if err := report.WriteJSON(f.out, r); err != nil {
		return err
	}
	if f.docs != "" {
		if err := r.writeDocs(f.docs); err != nil {
			return err
		}
	}
	if broken > 0 {
		return fmt.Errorf("%w: %d times; again with --seed %d", errBroken, broken, f.seed)
	}
	fmt.Fprintf(out, "\nEvery history is linearizable; no acknowledged write was lost, no entry torn, no index half applied.\n")
	return nil
}

// checkAgain checks a history that report has saved.
func checkAgain(file string, out io.Writer) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var h history
	if err := json.Unmarshal(text, &h); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	found := h.check()
	for _, v := range found {
		fmt.Fprintln(out, v)
	}
	if len(found) > 0 {
		return fmt.Errorf("%w: %d times", errBroken, len(found))
	}
	fmt.Fprintf(out, "%d operations and %d lists: no promise is broken\n", len(h.Ops), len(h.Snapshots))
	return nil
}

// errors lists the errors of a line.
func (o *outcome) errors() string {
	if len(o.Errors) == 0 {
		return o.errorTexts()
	}
	return fmt.Sprintf("%s (the soonest after %.1f s)", o.errorTexts(), o.Soonest)
}

// copies returns how many copies repair had to make, where writes are mirrored.
func (o *outcome) copies() string {
	if !mirrored() {
		return ""
	}
	return fmt.Sprintf("; %d copies repaired", o.Repaired)
}

// errorTexts returns the number of each error that callers got.
func (o *outcome) errorTexts() string {
	if len(o.Errors) == 0 {
		return "no error"
	}
	var parts []string
	for _, what := range sortedKeys(o.Errors) {
		parts = append(parts, fmt.Sprintf("%d x %s", o.Errors[what], what))
	}
	return strings.Join(parts, ", ")
}

// maxPrinted bounds how many violations of a fault are printed. The file has all.
const maxPrinted = 10

// report prints the violations and saves the history if there are any.
func (f *flags) report(out io.Writer, o *outcome) error {
	for i, v := range o.Violations {
		if i == maxPrinted {
			fmt.Fprintf(out, "    … and %d more\n", len(o.Violations)-i)
			break
		}
		fmt.Fprintf(out, "    %s\n", v)
	}
	if len(o.Violations) == 0 || f.out == "" {
		return nil
	}
	file := strings.TrimSuffix(f.out, filepath.Ext(f.out)) + "-" + o.Fault + ".json"
	slices.SortFunc(o.history.Ops, func(a, b op) int { return int(a.Call - b.Call) })
	fmt.Fprintf(out, "    the history: %s\n", file)
	return report.WriteJSON(file, o.history)
}
