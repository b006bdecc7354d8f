package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/scripts/bench/internal/bench"
)

// runBench runs the program in this process.
func runBench(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	c := command()
	var out, progress bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&progress)
	c.SetArgs(args)
	err = c.ExecuteContext(t.Context())
	if t.Failed() || err != nil {
		t.Log(progress.String())
	}
	return out.String(), err
}

// ran is also true if a promise is broken, which means nothing with so few calls.
func ran(t *testing.T, err error) {
	t.Helper()
	if !bench.IsBroken(err) {
		require.NoError(t, err)
	}
}

// TestARun measures everything once in a long run, with few calls on a real platform, then prints, compares and writes the
// documentation.
func TestARun(t *testing.T) {
	if os.Getenv("LONG") == "" {
		t.Skip("LONG is not set: measuring everything takes minutes")
	}
	if os.Getenv("DATABASE_URL") == "" {
		t.Fatal("DATABASE_URL is not set: `make test` runs this test on a platform of its own;\nafter `make up`, `. .local/env` has the address of the local one")
	}
	dir := t.TempDir()
	file, docs := filepath.Join(dir, "results.json"), filepath.Join(dir, "BENCHMARKS.md")
	concurrency := []string{"1", "3"}
	_, err := runBench(t, "--entries", "1000", "--concurrency", strings.Join(concurrency, ","), "--rounds", "10", "--requests", "100", "--starts", "1", "--seed", "1", "--out", file)
	ran(t, err)
	r, err := bench.Read(file)
	require.NoError(t, err)
	require.Len(t, r.Operations, len(concurrency)*len(bench.Operations()))
	for _, o := range r.Operations {
		ways := []bench.Way{bench.WayFunction, bench.WayPostgREST, bench.WaySQL, bench.WayHost}
		if !strings.HasPrefix(o.Operation, "upsert") {
			ways = append(ways, bench.WayCache)
		}
		for _, way := range ways {
			require.Positive(t, o.Ways[way].P50, "%s of %s", way, o.Operation)
		}
	}
	require.Len(t, r.Alternatives, len(concurrency)*6)
	for _, o := range r.Alternatives {
		for _, way := range []bench.Way{bench.WayDefault, bench.WayPlain, bench.WayJavaScript} {
			require.Positive(t, o.Ways[way].P50, "%s of %s", way, o.Operation)
		}
	}
	require.Len(t, r.Entries, 2+len(concurrency)*5, "the client of Blobs is measured once")
	for _, o := range r.Entries {
		require.Len(t, o.Ways, 2, o.Operation)
		for way, l := range o.Ways {
			require.Positive(t, l.P50, "%s of %s", way, o.Operation)
		}
	}
	require.Len(t, r.Stores, 4)
	require.Len(t, r.Cache, 4)
	require.Len(t, r.Thousand, 1)
	for _, s := range r.Storage { // left out while another test has entries
		require.Positive(t, s.JSON) // the tables' sizes depend on earlier tests
	}
	require.Positive(t, r.Machine.CPUs)
	require.NotEmpty(t, r.Machine.Postgres)
	require.NotEmpty(t, r.Machine.PostgREST)
	if os.Getenv("KV_HOST_URL") != "" {
		require.GreaterOrEqual(t, len(r.Cold), 7)
	}

	require.NoError(t, os.WriteFile(docs, []byte("<!-- bench: targets -->\n<!-- /bench -->\n"), 0o600))
	out, err := runBench(t, "--from", file, "--compare", file, "--docs", dir)
	ran(t, err)
	require.Contains(t, out, "Compared with the results of")
	require.Contains(t, out, "What is promised")
	text, err := os.ReadFile(docs)
	require.NoError(t, err)
	require.Contains(t, string(text), "| upsert, mean | < 50 ms |")

	// Nothing stays in the database.
	conn, err := pgx.Connect(t.Context(), os.Getenv("DATABASE_URL"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	var left int
	require.NoError(t, conn.QueryRow(t.Context(), "select count(*) from public.kv_store where position('bench/' in key) > 0").Scan(&left))
	require.Zero(t, left)
}

func TestFlagsThatAskForNothing(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"--rounds":      {"--rounds", "3"},
		"--requests":    {"--requests", "10"},
		"--starts":      {"--starts", "0"},
		"--entries":     {"--entries", "10"},
		"--concurrency": {"--concurrency", "0"},
		"--parts":       {"--parts", "everything"},
		"--only":        {"--only", "("},
		"no such file":  {"--compare", filepath.Join(t.TempDir(), "none.json")},
	} {
		_, err := runBench(t, args...)
		require.ErrorContains(t, err, want)
		require.False(t, bench.IsBroken(err), "status 2: it could not run")
	}
}
