package migrate

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"github.com/dustin/go-humanize"

	"netlify-supabase-kv/pkg/kv"
)

// Report is what is known of a migration: what its directory has.
type Report struct {
	Plan         *Result       `json:"plan,omitempty"`
	Run          *Result       `json:"run,omitempty"`
	Verification *Verification `json:"verification,omitempty"`
}

// The names under which [WriteReport] writes.
const (
	ReportJSON     = "report.json"
	ReportMarkdown = "report.md"
)

// ErrNoReport: the directory has no results.
var ErrNoReport = errors.New("there is nothing to report: no plan, run or verify has been made with this --dir")

// ReadReport reads the results that are in a directory.
func ReadReport(dir string) (Report, error) {
	var report Report
	var plan, run Result
	var verification Verification
	for _, part := range []struct {
		path string
		into any
		keep func()
	}{
		{planPath(dir), &plan, func() { report.Plan = &plan }},
		{resultPath(dir), &run, func() { report.Run = &run }},
		{verificationPath(dir), &verification, func() { report.Verification = &verification }},
	} {
		found, err := readJSON(part.path, part.into)
		if err != nil {
			return report, err
		}
		if found {
			part.keep()
		}
	}
	if report.Plan == nil && report.Run == nil && report.Verification == nil {
		return report, ErrNoReport
	}
	return report, nil
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

// maxShown is how many lines of a kind the page shows; the JSON has more.
const maxShown = 100

func shown[T any](all []T) []T { return all[:min(len(all), maxShown)] }

// Markdown is the report as a page.
func (r Report) Markdown() (string, error) {
	var page strings.Builder
	err := reportPage.Execute(&page, r)
	return page.String(), err
}

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
	"codes":       func(keys []string) string { return joinCodes(keys) },
	"problems":    shown[Problem],
	"members":     shown[Member],
	"kinds":       shown[Kind],
	"differences": shown[Difference],
	"cell":        cell,
	"more": func(n int) string {
		if n > maxShown {
			return fmt.Sprintf("\nThe first %d; report.json has more.\n", maxShown)
		}
		return ""
	},
	"status": func(r *Result, names ...string) (n int) {
		for _, name := range names {
			n += r.Statuses[kv.Imported(name)]
		}
		return n
	},
}).Parse(`# Migration report
{{with .Run}}
From {{.Source}} to Supabase at {{.Target}}.

## The run of {{time .At}}: {{if .Finished}}finished{{else}}stopped{{end}}
{{if .Stopped}}
It stopped: {{.Stopped}}. Run again: it goes on where it was.
{{end}}
| | |
|---|---:|
| blobs | {{number .Blobs}} ({{bytes .Bytes}}) |
| migrated, as they were imported | {{number (status . "written" "same")}} |
| left alone: a newer write had come to Supabase | {{number (status . "live")}} |
| left alone: a caller had deleted them | {{number (status . "deleted")}} |
| removed again, since their blobs are gone | {{number (status . "removed")}} |
| gone before they were migrated | {{number (status . "absent")}} |
| skipped, since they are not JSON | {{number (status . "skipped")}} |
| **failed** | **{{number .Failed}}** |
| left for the next run | {{number (status . "importing" "pending")}} |
| read by this run | {{number .Read}} in {{lasted .Seconds}}, {{rate .}} a second |
| written by this run | {{number .Written}} |
| removed by this run | {{number .Removed}} |
| requests to Netlify's API | {{number .Requests}} |
{{if .Finished}}
Keep the blobs until {{day .KeepBlobsUntil}} at least: until then the way back is one variable. Nothing here deletes them.
{{end}}{{template "findings" .}}{{else}}{{with .Plan}}
From {{.Source}}{{if .Target}} to Supabase at {{.Target}}{{end}}.

## The plan of {{time .At}}

| | |
|---|---:|
| blobs | {{number .Blobs}} ({{bytes .Bytes}}) |
| would be migrated | {{number (status . "planned")}} |
| would be skipped, since they are not JSON | {{number (status . "skipped")}} |
| gone while the others were read | {{number (status . "absent")}} |
| **would fail** | **{{number .Failed}}** |
| larger than the 6 MB of an answer: the functions cannot give them out | {{number .Unanswerable}} |
| reading all of them took | {{lasted .Seconds}} |
| requests to Netlify's API | {{number .Requests}} |
| a run and a verification may take | {{lasted .EstimatedSeconds}} |
{{template "findings" .}}{{end}}{{end}}{{with .Verification}}
## The verification of {{time .At}}: {{if .Same}}identical{{else}}differences{{end}}

| | |
|---|---:|
| blobs | {{number .Blobs}} |
| entries in Supabase | {{number .Entries}} |
| keys of either | {{number .Keys}} |
| identical by SHA-256, with their indexes | {{number .Identical}} |
| missing in Supabase | {{number .Missing}} |
| extra in Supabase | {{number .Extra}} |
| different | {{number .Different}} |
| blobs that no entry can be made of | {{number (len .Left)}} |
| gone before they were compared | {{number .Gone}} |
| members of identical index entries, in their order | {{number .Members}} |
| postings that belong to no entry's indexes | {{number .Stray}} |
| repaired | {{number .Repaired}} |
| requests to Netlify's API | {{number .Requests}} |
| took | {{lasted .Seconds}} |
{{if .Found}}
| key | |
|---|---|
{{range differences .Found}}| {{code .Key}} | {{.How}}{{if .What}}: {{.What}}{{end}} |
{{end}}{{more (len .Found)}}
What to do: run again, then verify. What still differs, ` + "`verify --repair --first blobs`" + ` makes what the blobs are; only while Blobs answers.
{{end}}{{end}}
{{- define "findings"}}{{if .Failures}}
### What failed

| key | why | what to do |
|---|---|---|
{{range problems .Failures}}| {{code .Key}} | {{cell .Reason}} | {{cell .Advice}} |
{{end}}{{more .Failed}}{{end}}
### Indexes

{{number .IndexEntries}} index entries with {{number .Members}} different members; {{number .Resolved}} of these name an entry.
{{if .MixedCount}}
Some indexes name entries of more than one kind. A member stays when its entry is deleted, and then fits any other entry that ends in
it: look whether all of these are meant. If not, say which with a rule.

| index | entries | members |
|---|---|---:|
{{range kinds .Mixed}}| {{code .Index}} | {{code .Entries}} | {{number .Members}} |
{{end}}{{more .MixedCount}}{{end}}{{if .AmbiguousCount}}
{{number .AmbiguousCount}} members may name several entries, and none of these has the index. Name the right one with a rule, as in
` + "`--index-rule 'index:sessions=session:{member}'`" + `.

| index | member | entries |
|---|---|---|
{{range members .Ambiguous}}| {{code .Index}} | {{code .Member}} | {{codes .Entries}} |
{{end}}{{more .AmbiguousCount}}{{end}}{{if .UnresolvedCount}}
{{number .UnresolvedCount}} members name no entry. They are in their index entries as before; queries by index find nothing for them.

| index | member | why |
|---|---|---|
{{range members .Unresolved}}| {{code .Index}} | {{code .Member}} | {{cell .Reason}} |
{{end}}{{more .UnresolvedCount}}{{end}}{{if .Notes}}
### What to know of some entries

| key | | |
|---|---|---|
{{range problems .Notes}}| {{code .Key}} | {{cell .Reason}} | {{cell .Advice}} |
{{end}}{{more .Noted}}{{end}}
### The largest

| key | size |
|---|---:|
{{range .Largest}}| {{code .Key}} | {{bytes .Bytes}} |
{{end}}{{end}}`))

// inCode shows a key in a table, whatever characters it has.
func inCode(key string) string {
	quoted := fmt.Sprintf("%q", key)
	if strings.ContainsAny(key, "`|") || strings.TrimSpace(key) != key || quoted != `"`+key+`"` {
		key = strings.NewReplacer("`", "ˋ", "|", `\|`).Replace(quoted)
	}
	return "`" + key + "`"
}

func joinCodes(keys []string) string {
	shown := make([]string, len(keys))
	for i, key := range keys {
		shown[i] = inCode(key)
	}
	return strings.Join(shown, ", ")
}

func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(text)
}
