package migrate

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"github.com/dustin/go-humanize"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/entries"
)

// Report is what the last commands with a directory found.
type Report struct {
	Plan         *Planned      `json:"plan,omitempty"`
	Run          *Result       `json:"run,omitempty"`
	Verification *Verification `json:"verification,omitempty"`
}

// The names under which results are kept in the directory.
const (
	ReportJSON       = "report.json"
	ReportMarkdown   = "report.md"
	planFile         = "plan.json"
	runFile          = "run.json"
	verificationFile = "verify.json"
)

// ErrNoReport: the directory has no results.
var ErrNoReport = errors.New("there is nothing to report: no plan, run or verify has been made with this --dir")

// ReadReport reads the results that are in a directory.
func ReadReport(dir string) (report Report, err error) {
	report = Report{&Planned{}, &Result{}, &Verification{}}
	read := func(name string, into any) bool {
		found, readErr := readJSON(filepath.Join(dir, name), into)
		err = errors.Join(err, readErr)
		return found
	}
	if !read(planFile, report.Plan) {
		report.Plan = nil
	}
	if !read(runFile, report.Run) {
		report.Run = nil
	}
	if !read(verificationFile, report.Verification) {
		report.Verification = nil
	}
	if err == nil && report == (Report{}) {
		err = ErrNoReport
	}
	return report, err
}

// WriteReport writes the report of a directory into it, as JSON and as a page of Markdown.
func WriteReport(dir string) (Report, error) {
	report, err := ReadReport(dir)
	if err != nil {
		return report, err
	}
	if err := writeJSON(filepath.Join(dir, ReportJSON), report); err != nil {
		return report, err
	}
	page, err := report.Markdown()
	if err != nil {
		return report, err
	}
	return report, writeFile(filepath.Join(dir, ReportMarkdown), []byte(page))
}

// Status is where a migration is: what the database remembers, whoever ran it, and what the directory has.
type Status struct {
	Database *kv.MigrationStatus `json:"database,omitempty"` // nil where no target was given
	Results  *Report             `json:"results,omitempty"`
}

// ReadStatus looks at the directory and, where target is not nil, at the database. It changes neither.
func ReadStatus(ctx context.Context, dir string, target *entries.Target) (s Status, err error) {
	if target != nil {
		status, err := target.Supabase.MigrationStatus(ctx)
		if err != nil {
			return s, fmt.Errorf("ask the target: %w", err)
		}
		s.Database = &status
	}
	report, err := ReadReport(dir)
	if errors.Is(err, ErrNoReport) {
		return s, nil
	}
	s.Results = &report
	return s, err
}

// maxShown is how many lines of a kind the page shows; the JSON has more.
const maxShown = 100

func shown[T any](all []T) []T { return all[:min(len(all), maxShown)] }

// Markdown is the report as a page.
func (r Report) Markdown() (string, error) {
	var page strings.Builder
	err := reportPage.Execute(&page, r)
	return page.String(), err
}

//go:embed report.md.tmpl
var reportText string

var reportPage = template.Must(template.New("report").Funcs(template.FuncMap{
	"bytes":  func(n int64) string { return humanize.IBytes(uint64(max(n, 0))) },
	"number": func(n int) string { return humanize.Comma(int64(n)) },
	"time":   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
	"day":    func(t time.Time) string { return t.UTC().Format("2006-01-02") },
	"lasted": func(seconds float64) string {
		return (time.Duration(seconds*1000) * time.Millisecond).Round(100 * time.Millisecond).String()
	},
	"rate":        func(r *Result) string { return humanize.Comma(int64(r.Rate())) },
	"code":        inCode,
	"problems":    shown[entries.Problem],
	"members":     shown[entries.Member],
	"names":       shown[string],
	"proposals":   shown[entries.ProposedIndex],
	"differences": shown[Difference],
	"cell":        cell,
	"more": func(n int) string {
		if n > maxShown {
			return fmt.Sprintf("\nThe first %d; report.json has more.\n", maxShown)
		}
		return ""
	},
	"state": func(r *Result, names ...string) (n int) {
		for _, name := range names {
			n += r.States[kv.ImportState(name)]
		}
		return n
	},
}).Parse(reportText))

// inCode shows a key in a table, whatever characters it has.
func inCode(key string) string {
	quoted := fmt.Sprintf("%q", key)
	if strings.ContainsAny(key, "`|") || strings.TrimSpace(key) != key || quoted != `"`+key+`"` {
		key = strings.NewReplacer("`", "ˋ", "|", `\|`).Replace(quoted)
	}
	return "`" + key + "`"
}

func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(text)
}
