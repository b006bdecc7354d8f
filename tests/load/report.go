package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// kinds are the kinds of requests, in the order of the table.
var kinds = []string{"kv-get", "kv-list", "kv-upsert", "kv-query"}

// seen is what came back.
type seen struct {
	site    *site
	began   time.Time
	total   *vegeta.Metrics
	kinds   map[string]*vegeta.Metrics
	windows []*vegeta.Metrics
	errors  int
	samples []string // of errors, no two alike
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
	window := int(r.Timestamp.Sub(s.began) / s.site.window)
	for len(s.windows) <= window {
		s.windows = append(s.windows, &vegeta.Metrics{})
	}
	s.windows[window].Add(r)
}

// wrong says what is wrong with an answer. Every request of this load can be answered with 200, and with what it asked for.
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

// latency is a line of a table; times are in milliseconds.
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

func (r results) print(out io.Writer) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, table := range []struct {
		of    string
		lines []latency
	}{{"requests", r.Kinds}, {"begun", r.Windows}} {
		fmt.Fprintf(t, "\n%s\tnumber\tp50 ms\tp90\tp95\tp99\tmax\t\n", table.of)
		for _, l := range table.lines {
			fmt.Fprintf(t, "%s\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t\n", l.Of, l.Requests, l.P50, l.P90, l.P95, l.P99, l.Max)
		}
		_ = t.Flush()
	}
	if len(r.Instances) > 0 {
		fmt.Fprint(t, "\ninstance\trequests\tMB at start\tmost\tat the end\t\n")
	}
	for _, in := range r.Instances {
		fmt.Fprintf(t, "%s\t%d\t%.1f\t%.1f\t%.1f\t\n", in.Name, in.Requests, in.Start, in.Most, in.End)
	}
	_ = t.Flush()
}
