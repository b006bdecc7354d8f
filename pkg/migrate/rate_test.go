package migrate

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/blobs/blobstest"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/backup"
	"netlify-supabase-kv/pkg/migrate/sources"
)

// TestAMigrationEndsAndNoReadFailsWithinOneLimit has a plan, a run and a verification go on beside two instances that read twice a
// second each, with one token. A minute of the service takes a second here, for the rates and for the readers, too.
func TestAMigrationEndsAndNoReadFailsWithinOneLimit(t *testing.T) {
	m := newMigration(t)
	m.seed(200)
	const minute = time.Second
	m.Faults(&blobstest.Faults{Limit: 500, WindowMS: int(minute.Milliseconds())})
	source := sources.NewBlobs(m.Access, "kv", 16, blobs.NewBackgroundLimiter(blobs.DefaultBackgroundRate, minute))

	done := make(chan struct{})
	var readers sync.WaitGroup
	var reads, failed atomic.Int64
	for range 2 {
		client := blobs.NewClient("kv").WithDefault(m.Access).WithLimiter(blobs.NewLimiter(blobs.DefaultRate, minute))
		store := blobs.NewStore(client, client)
		readers.Go(func() {
			for tick := time.NewTicker(minute / 120); ; {
				select {
				case <-tick.C:
				case <-done:
					return
				}
				reads.Add(1)
				if _, err := store.Get(t.Context(), "sessions/00001"); err != nil {
					failed.Add(1)
					t.Log(err)
				}
			}
		})
	}
	target := m.target()
	_, err := Plan(t.Context(), source, &target, PlanOptions{Options: m.o, Progress: sources.NoProgress{}})
	require.NoError(t, err)
	result, err := Run(t.Context(), source, target, RunOptions{Options: m.o, Rules: m.rules, lease: testLease, Dir: m.dir, BatchSize: DefaultBatchSize, Progress: sources.NoProgress{}})
	require.NoError(t, err)
	require.True(t, result.Finished)
	v, err := Verify(t.Context(), source, target, VerifyOptions{Options: m.o, Rules: m.rules, Progress: sources.NoProgress{}})
	require.NoError(t, err)
	require.True(t, v.Same(), v.Found)
	close(done)
	readers.Wait()
	counts := m.Faults(nil)
	require.Zero(t, failed.Load(), "of %d reads", reads.Load())
	require.NotZero(t, reads.Load())
	require.Zero(t, counts["over_limit"], "of %d requests", counts["asked"])
}

func TestBlobsThatNoFunctionCouldAnswerWithAreCounted(t *testing.T) {
	m := newMigration(t)
	m.Set("large", `["`+strings.Repeat("x", kv.MaxResponseBytes)+`"]`)
	m.Set("small", `[]`)
	target := m.target()
	plan, err := Plan(t.Context(), m.Source(), &target, PlanOptions{Options: m.o, Dir: m.dir, Progress: sources.NoProgress{}})
	require.NoError(t, err)
	require.Equal(t, 1, plan.Unanswerable)
	report, err := WriteReport(m.dir)
	require.NoError(t, err)
	page, err := report.Markdown()
	require.NoError(t, err)
	require.Contains(t, page, "| larger than the 6 MB of an answer: the functions cannot give them out | 1 |")
}

// TestTheRunbookSaysWhatAMigrationCosts counts requests, and holds the runbook's table against them.
func TestTheRunbookSaysWhatAMigrationCosts(t *testing.T) {
	m := newMigration(t)
	const entries, indexes, pages = 310, 5, 2 // 315 blobs, listed 300 at a time
	m.seed(entries)
	text, err := os.ReadFile("../../docs/MIGRATION.md")
	require.NoError(t, err)
	var source *sources.Blobs
	target := m.target()
	for _, phase := range []struct {
		name string
		do   func() error
	}{
		{"`plan`", func() error {
			_, err := Plan(t.Context(), source, &target, PlanOptions{Options: m.o, Progress: sources.NoProgress{}})
			return err
		}},
		{"`backup`", func() error {
			_, err := backup.Blobs(t.Context(), source, t.TempDir()+"/b.gz", backup.Options{})
			return err
		}},
		{"`run`, the first", func() error {
			_, err := Run(t.Context(), source, target, RunOptions{Options: m.o, Rules: m.rules, lease: testLease, Dir: m.dir, BatchSize: DefaultBatchSize, Progress: sources.NoProgress{}})
			return err
		}},
		{"`run`, again", func() error {
			_, err := Run(t.Context(), source, target, RunOptions{Options: m.o, Rules: m.rules, lease: testLease, Dir: m.dir, BatchSize: DefaultBatchSize, Progress: sources.NoProgress{}})
			return err
		}},
		{"`verify`", func() error {
			_, err := Verify(t.Context(), source, target, VerifyOptions{Options: m.o, Rules: m.rules, Progress: sources.NoProgress{}})
			return err
		}},
	} {
		source = m.Source()
		require.NoError(t, phase.do(), phase.name)
		row := regexp.MustCompile(fmt.Sprintf(`(?m)^\| %s \| (\d+) \| (\d+) \| (\d+) \|`, regexp.QuoteMeta(phase.name))).FindStringSubmatch(string(text))
		t.Log(phase.name, source.Requests())
		if !assertRow(t, row, phase.name) {
			continue
		}
		number := func(i int) int { n, _ := strconv.Atoi(row[i]); return n }
		require.Equal(t, number(1)*pages+number(2)*(entries+indexes)+number(3)*indexes, source.Requests(), "%s asks %d times", phase.name, source.Requests())
	}
}

func assertRow(t *testing.T, row []string, name string) bool {
	if row == nil {
		t.Errorf("docs/MIGRATION.md has no row for %s", name)
	}
	return row != nil
}
