package bench

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/scripts/bench/report"
)

func TestPercentilesAreOfTheNearestRank(t *testing.T) {
	t.Parallel()
	var calls []time.Duration
	for i := range 100 {
		calls = append(calls, time.Duration(100-i)*time.Millisecond)
	}
	require.Equal(t, Latency{Calls: 100, Mean: 50.5, P50: 50, P95: 95, P99: 99}, summarize(calls))
	require.Equal(t, Latency{Calls: 1, Mean: 0.0123, P50: 0.0123, P95: 0.0123, P99: 0.0123}, summarize([]time.Duration{12_345}))
	require.Equal(t, Latency{Calls: 2, Mean: 1.5, P50: 1, P95: 2, P99: 2}, summarize([]time.Duration{2 * time.Millisecond, time.Millisecond}))
	require.Zero(t, summarize(nil))
}

// result returns an operation with the given duration in the function and in other ways.
func result(name string, entries, concurrency int, p50 float64, others map[Way]float64) OperationResult {
	r := OperationResult{Operation: name, Entries: entries, Concurrency: concurrency, Ways: map[Way]Latency{WayFunction: latency(p50)}}
	for way, p50 := range others {
		r.Ways[way] = latency(p50)
	}
	return r
}

func latency(p50 float64) Latency {
	return Latency{Calls: 10, Mean: p50, P50: p50, P95: 2 * p50, P99: 3 * p50}
}

func sample() Results {
	return Results{
		At: time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC), Seed: 7,
		Machine: Machine{CPUs: 2, MemoryGB: 8, System: "linux/amd64", Go: "go1.26", Postgres: "17.1", PostgREST: "12.0.2"},
		Operations: []OperationResult{
			result(OpUpsert, 10_000, 1, 4, map[Way]float64{WayPostgREST: 3.8, WaySQL: 2, WayTable: 2, WayHost: 5}),
			result(OpGet, 10_000, 1, 1.1, map[Way]float64{WayPostgREST: 1, WaySQL: 0.25, WayCache: 1.2, WayHost: 2}),
			result(OpUpsert, 10_000, 10, 8, nil), result(OpUpsert, 100_000, 1, 5, map[Way]float64{WayPostgREST: 5}),
		},
		Thousand: []Thousand{{Entries: 10_000, Operations: 500, Seconds: 2}},
		Stores:   []OperationResult{{Operation: OpGet, Entries: 1000, Concurrency: 1, Ways: map[Way]Latency{WayBlobs: latency(4), WaySupabase: latency(2)}}},
		Alternatives: []OperationResult{{Operation: OpGet, Entries: 10_000, Concurrency: 10,
			Ways: map[Way]Latency{WayDefault: latency(1.2), WayPlain: latency(1), WayJavaScript: latency(2)}}},
		Entries: []OperationResult{{Operation: "batch of 100 puts", Entries: 10_000, Concurrency: 1, Ways: map[Way]Latency{WayDefault: latency(12), WaySingle: latency(100)}},
			{Operation: "set by @netlify/blobs", Entries: 10_000, Concurrency: 1, Ways: map[Way]Latency{WayBlobsAPI: latency(3), WayBlobsServer: latency(2)}}},
		Cold:    []ColdResult{{Function: "kv-get", Bytes: 7_700_000, Ready: latency(3), Response: latency(16)}},
		Cache:   []CacheResult{{Load: CacheLoad{Name: HotKeys, Keys: 20}, HitRatio: 0.9, Hits: latency(0.05), Misses: latency(2), HitToMiss: 0.025}},
		Storage: []StorageResult{{Entries: 100, JSON: 30_000, Rows: 100_000, Indexes: 20_000, Postings: 25_000, Members: 1_000, Log: 4_000}},
	}
}

func TestTargetsAreMetOrNot(t *testing.T) {
	t.Parallel()
	require.Equal(t, []Target{
		{"upsert, mean", "< 50 ms", "4.00 ms", true},
		{"upsert, p50 over that of the same call to PostgREST", "≤ 1.10", "1.053", true},
		{"get, p50 over that of the same call to PostgREST", "≤ 1.10", "1.100", true},
		{"upsert, mean", "< 50 ms", "5.00 ms", true},
		{"upsert, p50 over that of the same call to PostgREST", "≤ 1.10", "1.000", true},
		{"upsert, p50 at 100,000 entries over that at 10,000", "≤ 1.20", "1.250", false},
		{"get, p50 over that of a plain table", "≤ 1.15", "1.200", false},
		{"get, p50 over that of a JavaScript function", "≤ 1.00", "0.600", true},
		{"batch of 100 puts, p50 over that of the 100 single puts", "≤ 0.10", "0.120", false},
		{"1,000 operations, one after the other", "< 10 s", "4.00 s", true},
		{"hot keys, served from memory", "> 80 %", "90.0 %", true},
		{"hot keys, p50 from memory over that from the database", "≤ 0.03", "0.025", true},
		{"size of a binary", "< 12 MB", "7.7 MB", true},
		{"p50 from the start of a process to its first response", "< 15 ms", "16.0 ms", false},
		{"storage of values of 300 bytes with two indexes, times the JSON", "≤ 8.0", "5.00", true},
	}, sample().Targets())
	require.Equal(t, [][]string{
		{"upsert, mean", "< 50 ms", "4.00 ms, 5.00 ms", "yes"},
		{"upsert, p50 over that of the same call to PostgREST", "≤ 1.10", "1.053, 1.000", "yes"},
	}, sample().TargetsTable().Rows[:2], "one row for both numbers of entries")
}

func TestTablesForATerminalAndForMarkdown(t *testing.T) {
	t.Parallel()
	table := sample().WaysTable(10_000)
	var out bytes.Buffer
	require.NoError(t, table.Print(&out))
	require.Equal(t, `
Where the time goes at 10,000 entries, p50 in ms

           SQL  PostgREST  function  PostgREST adds  function adds  host adds
  upsert  2.00       3.80      4.00            1.80           0.20       1.00
  get     0.25       1.00      1.10            0.75           0.10       0.80
`, out.String())
	require.Equal(t, `**Where the time goes at 10,000 entries, p50 in ms**

|  | SQL | PostgREST | function | PostgREST adds | function adds | host adds |
| --- | --: | --: | --: | --: | --: | --: |
| upsert | 2.00 | 3.80 | 4.00 | 1.80 | 0.20 | 1.00 |
| get | 0.25 | 1.00 | 1.10 | 0.75 | 0.10 | 0.80 |
`, table.Markdown())
	require.Len(t, sample().Tables(), 12)
	require.Empty(t, Results{}.Tables())
}

func TestResultsAreComparedWithOlderOnes(t *testing.T) {
	t.Parallel()
	older, newer := sample(), sample()
	newer.Operations[0] = result(OpUpsert, 10_000, 1, 2, map[Way]float64{WayPostgREST: 1.9})
	newer.Operations = append(newer.Operations, result("new", 10_000, 1, 1, nil))
	newer.Cold[0].Response = latency(8)
	newer.Machine.CPUs = 4
	table := Compare(older, newer)
	require.Equal(t, [][]string{
		{OpUpsert, "10,000", "1", "4.00", "2.00", "0.50", "0.50", "0.50", "1.00"},
		{OpGet, "10,000", "1", "1.10", "1.10", "1.00", "1.00", "1.00", "1.00"},
		{OpUpsert, "10,000", "10", "8.00", "8.00", "1.00", "1.00", "1.00", "–"},
		{OpUpsert, "100,000", "1", "5.00", "5.00", "1.00", "1.00", "1.00", "1.00"},
		{"get on Blobs", "1,000", "1", "4.00", "4.00", "1.00", "1.00", "1.00", "–"},
		{"get as deployed", "1,000", "1", "2.00", "2.00", "1.00", "1.00", "1.00", "–"},
		{"kv-get, first response", "–", "1", "16.0", "8.00", "0.50", "0.50", "0.50", "–"},
		{"from memory, hot keys", "20", "1", "0.0500", "0.0500", "1.00", "1.00", "1.00", "–"},
		{"from the database, hot keys", "20", "1", "2.00", "2.00", "1.00", "1.00", "1.00", "–"},
	}, table.Rows)
	require.Len(t, table.Notes, 1, "the machines differ")
	require.Empty(t, Compare(older, older).Notes)
}

func TestResultsAreWrittenAndRead(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "folder", "results.json")
	require.NoError(t, report.WriteJSON(file, sample()))
	read, err := Read(file)
	require.NoError(t, err)
	require.Equal(t, sample(), read)
	_, err = Read(file + ".none")
	require.Error(t, err)
	require.NoError(t, os.WriteFile(file, []byte("{"), 0o600))
	_, err = Read(file)
	require.ErrorContains(t, err, file)
}

func TestTheDocumentationKeepsWhatPeopleWrote(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.ErrorContains(t, sample().WriteDocs(dir), "must be there")
	file := filepath.Join(dir, "BENCHMARKS.md")
	text := "# Title\n\n<!-- bench: machine -->\nold\n<!-- /bench -->\n\nWords.\n\n<!-- bench: cold -->\n<!-- /bench -->\n<!-- bench: unknown -->\nkept\n<!-- /bench -->\nend\n"
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	want := "# Title\n\n<!-- bench: machine -->\n\nMeasured on 2026-11-27: 2 CPUs, 8 GB, linux/amd64, go1.26, Postgres 17.1, PostgREST 12.0.2. Seed 7.\n\n<!-- /bench -->\n\nWords.\n\n" +
		"<!-- bench: cold -->\n\n" + sample().ColdTable().Markdown() + "\n<!-- /bench -->\n" +
		"<!-- bench: unknown -->\nkept\n<!-- /bench -->\nend\n"
	for range 2 { // the second run replaces what the first wrote
		require.NoError(t, sample().WriteDocs(dir))
		got, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
}

func TestNumbersOfEntriesThatCannotBeFilled(t *testing.T) {
	t.Parallel()
	for n, ok := range map[int]bool{0: false, 999: false, 1000: true, 1001: false, 10_000: true, 1_000_000: true, 10_000_000: false} {
		require.Equal(t, ok, CheckEntries(n) == nil, n)
	}
}

func TestRoundsGoAllWaysAndTheFirstAreNotCounted(t *testing.T) {
	t.Parallel()
	var made atomic.Int64
	quick := func(context.Context, int) (time.Duration, error) {
		made.Add(1)
		return time.Millisecond, nil
	}
	rounds := make([]map[Way]call, 12)
	for i := range rounds {
		rounds[i] = map[Way]call{WayFunction: quick, WaySQL: quick}
	}
	latencies, err := inTurns(t.Context(), rounds, 2, 3, 1)
	require.NoError(t, err)
	require.EqualValues(t, 24, made.Load())
	require.Equal(t, map[Way]Latency{WayFunction: {Calls: 10, Mean: 1, P50: 1, P95: 1, P99: 1}, WaySQL: {Calls: 10, Mean: 1, P50: 1, P95: 1, P99: 1}}, latencies)

	broken := errors.New("broken")
	rounds[5][WaySQL] = func(context.Context, int) (time.Duration, error) { return 0, broken }
	_, err = inTurns(t.Context(), rounds, 2, 3, 1)
	require.ErrorIs(t, err, broken)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = inTurns(ended, rounds, 2, 3, 1)
	require.ErrorIs(t, err, context.Canceled)
}

// The recorded call is the one that the function makes.
func TestTheRecorderWritesDownWhatAFunctionAsks(t *testing.T) {
	t.Parallel()
	r, err := newRecorder()
	require.NoError(t, err)
	t.Cleanup(r.server.Close)
	d := Data{Prefix: "bench/1/", Entries: 1000}
	random := rand.New(rand.NewPCG(1, 1))
	for _, op := range Operations() {
		recorded, err := r.call(t.Context(), op.Function, op.request(d, random, "bench/1/new").event())
		require.NoError(t, err, op.Name)
		require.Equal(t, strings.ReplaceAll(op.Function, "-", "_"), recorded.function, op.Name)
	}
	recorded, err := r.call(t.Context(), "kv-get", get(map[string]string{"key": "a"}).event())
	require.NoError(t, err)
	require.JSONEq(t, `{"p_key":"a"}`, string(recorded.args))
	_, err = r.call(t.Context(), "kv-get", get(map[string]string{}).event())
	require.ErrorContains(t, err, "asked nothing")
}

func TestACallBecomesAStatement(t *testing.T) {
	t.Parallel()
	p := Project{types: map[string]map[string]string{"kv_f": {"p_a": "text", "p_b": "boolean", "p_c": "integer", "p_d": "text[]", "p_e": "text[]", "p_f": "jsonb", "p_g": "text", "p_h": "text[]"}}}
	sql, args, err := p.statement(rpc{"kv_f", []byte(`{"p_a":"x","p_b":true,"p_c":7,"p_d":["y"],"p_e":[["k","m"]],"p_f":{"z":1},"p_g":null,"p_h":[]}`)})
	require.NoError(t, err)
	require.Equal(t, "select public.kv_f(p_a => $1::text, p_b => $2::boolean, p_c => $3::integer, p_d => $4::text[], p_e => $5::text[], p_f => $6::jsonb, p_g => $7::text, p_h => $8::text[])", sql)
	require.Equal(t, []any{"x", true, int64(7), []string{"y"}, [][]string{{"k", "m"}}, `{"z":1}`, nil, []string{}}, args)
	_, _, err = p.statement(rpc{"kv_f", []byte(`{"p_z":1}`)})
	require.ErrorContains(t, err, "p_z of kv_f")
}
