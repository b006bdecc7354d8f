package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"

	"netlify-supabase-kv/scripts/bench/report"
)

// kinds are the kinds of requests, in the order of the table.
var kinds = []string{"kv-get", "kv-list", "kv-upsert", "kv-query"}

// seen are the results of all requests.
type seen struct {
	site    *site
	began   time.Time
	total   *vegeta.Metrics
	kinds   map[string]*vegeta.Metrics
	windows []*vegeta.Metrics
	errors  int
	samples []string // different errors
}

func newSeen(s *site, began time.Time) *seen {
	all := &seen{site: s, began: began, total: &vegeta.Metrics{}, kinds: map[string]*vegeta.Metrics{}}
	for _, kind := range kinds {
		all.kinds[kind] = &vegeta.Metrics{}
	}
	return all
}

// maxSamples bounds how many errors are printed.
const maxSamples = 10

func (s *seen) add(r *vegeta.Result) {
	at, err := url.Parse(r.URL)
	if err != nil { // it was sent
		panic(err)
	}
	kind := at.Path[strings.LastIndexByte(at.Path, '/')+1:]
	if problem := wrong(kind, at, r); problem != "" {
		s.errors++
		if len(s.samples) < maxSamples {
			s.samples = append(s.samples, fmt.Sprintf("%s after %s: %s", kind, r.Latency.Round(time.Millisecond), problem))
		}
	}
	s.total.Add(r)
	s.kinds[kind].Add(r)
	// A request that begins at the very end belongs to the last window.
	window := int(min(r.Timestamp.Sub(s.began), s.site.duration-1) / s.site.window)
	for len(s.windows) <= window {
		s.windows = append(s.windows, &vegeta.Metrics{})
	}
	s.windows[window].Add(r)
}

// wrong returns what is wrong with a response. Every request of this load should succeed with 200.
func wrong(kind string, at *url.URL, r *vegeta.Result) string {
	if r.Code != http.StatusOK {
		return fmt.Sprintf("%d %s %.200s", r.Code, r.Error, r.Body)
	}
	var a struct {
		OK, Exists bool
		Key        string
		Count      *int
		Keys       []string
		Data       map[string]json.RawMessage
		Results    []json.RawMessage
	}
	if err := json.Unmarshal(r.Body, &a); err != nil {
		return fmt.Sprintf("not JSON (%v): %.200q", err, r.Body)
	}
	right := false
	switch kind {
	case "kv-get":
		right = a.Exists && a.Key == at.Query().Get("key")
	case "kv-list":
		right = a.Count != nil && *a.Count == 100 && len(a.Keys) == 100 && len(a.Data) == 100 && strings.HasPrefix(a.Keys[0], at.Query().Get("prefix"))
	case "kv-upsert":
		right = a.OK && a.Key != ""
	case "kv-query":
		right = a.Count != nil && *a.Count == len(a.Results)
	}
	if !right {
		return fmt.Sprintf("not what was asked for: %.200s", bytes.TrimSpace(r.Body))
	}
	return ""
}

func (s *seen) broken() brokenPromises {
	if s.errors == 0 {
		return nil
	}
	return append(brokenPromises{fmt.Sprintf("%d of %d answers were not as they should be; the first:", s.errors, s.total.Requests)}, s.samples...)
}

// latency is a row of a table, in milliseconds.
type latency struct {
	Of       string  `json:"of"`
	Requests uint64  `json:"requests"`
	P50      float64 `json:"p50_ms"`
	P90      float64 `json:"p90_ms"`
	P95      float64 `json:"p95_ms"`
	P99      float64 `json:"p99_ms"`
	Max      float64 `json:"max_ms"`
}

func latencyOf(of string, m *vegeta.Metrics) latency {
	m.Close()
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	l := m.Latencies
	return latency{of, m.Requests, ms(l.P50), ms(l.P90), ms(l.P95), ms(l.P99), ms(l.Max)}
}

func (s *seen) kindLatencies() (lines []latency) {
	for _, kind := range kinds {
		lines = append(lines, latencyOf(kind, s.kinds[kind]))
	}
	return append(lines, latencyOf("all", s.total))
}

func (s *seen) windowLatencies(window time.Duration) (lines []latency) {
	for i, m := range s.windows {
		from := time.Duration(i) * window
		lines = append(lines, latencyOf(fmt.Sprintf("%s to %s", from, from+window), m))
	}
	return lines
}

// tables are printed. The documentation shows the first of them, and a plot of the second.
func (r results) tables() []report.Table {
	latencies := func(title string, lines []latency) report.Table {
		t := report.Table{Title: title, Texts: 1, Header: []string{"", "requests", "p50", "p90", "p95", "p99", "longest"}}
		for _, l := range lines {
			t.Rows = append(t.Rows, []string{l.Of, report.Thousands(int(l.Requests)), report.Millis(l.P50), report.Millis(l.P90), report.Millis(l.P95),
				report.Millis(l.P99), report.Millis(l.Max)})
		}
		return t
	}
	memory := report.Table{Title: "Memory of the instances, MB", Texts: 1, Header: []string{"", "requests", "at the start", "most", "at the end"}}
	mb := func(v float64) string { return fmt.Sprintf("%.1f", v) }
	for _, in := range r.Instances {
		memory.Rows = append(memory.Rows, []string{in.Name, report.Thousands(in.Requests), mb(in.Start), mb(in.Most), mb(in.End)})
	}
	return []report.Table{latencies("Requests, ms", r.Kinds), latencies("By when they began, ms", r.Windows), memory}
}

func (r results) print(out io.Writer) error {
	for _, t := range r.tables() {
		if len(t.Rows) == 0 {
			continue
		}
		if err := t.Print(out); err != nil {
			return err
		}
	}
	return nil
}

// writeDocs writes the results to BENCHMARKS.md in dir (see [report.WriteDocs]).
func (r results) writeDocs(dir string) error {
	const title = "Latency over time under load"
	svg, err := picture(title, "ms", r.draw)
	if err != nil {
		return err
	}
	file := filepath.Join("benchmarks", "load.svg") // beside the page
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, filepath.Dir(file)), 0o755), os.WriteFile(filepath.Join(dir, file), svg, 0o644)); err != nil {
		return err
	}
	text := fmt.Sprintf("%s users for %s, a request each every %s on average, %d CPUs, seed %d: %s requests, %.0f a second, %d errors.",
		report.Thousands(r.Users), seconds(r.Duration), seconds(r.Think), r.CPUs, r.Seed, report.Thousands(int(r.Requests)), r.Rate, r.Errors)
	if len(r.Instances) > 0 {
		largest := slices.MaxFunc(r.Instances, func(a, b instance) int { return cmp.Compare(a.Most, b.Most) })
		text += fmt.Sprintf(" No instance took more than %.1f MB.", largest.Most)
	}
	return report.WriteDocs(dir, map[string]string{
		"load": text + "\n\n" + report.Markdown(r.tables()[0]), "plot load": fmt.Sprintf("![%s](%s)\n", title, filepath.ToSlash(file)),
	})
}

func seconds(s float64) string { return time.Duration(s * float64(time.Second)).String() }
