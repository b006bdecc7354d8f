package migrate

import (
	"context"
	"fmt"
	"iter"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/entries"
	"netlify-supabase-kv/pkg/migrate/migratetest"
	"netlify-supabase-kv/pkg/migrate/sources"
	"netlify-supabase-kv/pkg/stream"
)

// madeUp is a source of any number of entries, each a member of two of 20 indexes, that takes no memory. It lists them in no order.
type madeUp struct {
	entries int
	peak    atomic.Uint64 // of the heap in use, as far as it was looked at
	system  atomic.Uint64 // of the memory that the process had from the system
	looked  atomic.Int64
}

const madeUpIndexes = 20

func (m *madeUp) Name() string      { return "made up" }
func (m *madeUp) StoreName() string { return kv.DefaultStore }

func (m *madeUp) List(context.Context) iter.Seq2[blobs.Listed, error] {
	return func(yield func(blobs.Listed, error) bool) {
		for i := range m.entries {
			key := fmt.Sprintf("sessions/%08d", (i*7919)%m.entries) // a prime that is in no number of entries
			if !yield(blobs.Listed{Key: key, ETag: "e", Size: 300}, nil) {
				return
			}
		}
		for i := range madeUpIndexes {
			if !yield(blobs.Listed{Key: fmt.Sprintf("index:%02d", i), ETag: "e", Size: int64(m.entries)}, nil) {
				return
			}
		}
	}
}

func (m *madeUp) Read(ctx context.Context, list iter.Seq2[blobs.Listed, error]) iter.Seq2[sources.Item, error] {
	return stream.Ordered(ctx, 4, list, func(l blobs.Listed) int64 { return l.Size }, func(_ context.Context, l blobs.Listed) sources.Item {
		if m.looked.Add(1)%2000 == 0 {
			m.look()
		}
		return sources.Item{Listed: l, Blob: blobs.Blob{Value: m.value(l.Key), ETag: "e"}}
	})
}

// look keeps how much of the heap is in use.
func (m *madeUp) look() {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	atLeast(&m.peak, stats.HeapAlloc)
	atLeast(&m.system, stats.Sys-stats.HeapReleased)
}

func atLeast(n *atomic.Uint64, value uint64) {
	for {
		now := n.Load()
		if value <= now || n.CompareAndSwap(now, value) {
			return
		}
	}
}

func (m *madeUp) value(key string) []byte {
	var index int
	if _, err := fmt.Sscanf(key, "index:%d", &index); err != nil {
		return fmt.Appendf(nil, `{"key":"%s","text":"%s"}`, key, strings.Repeat("words of a text ", 16))
	}
	out := []byte{'['}
	for i := range m.entries {
		if i%madeUpIndexes == index || (i+1)%madeUpIndexes == index {
			out = fmt.Appendf(out, `"%08d",`, i)
		}
	}
	out[len(out)-1] = ']'
	return out
}

// TestMemoryDoesNotGrowWithTheNumberOfEntries plans, runs and verifies MIGRATE_TEST_MEMORY entries, and holds the heap against that of a tenth
// of them. A million: make migrate-scale.
func TestMemoryDoesNotGrowWithTheNumberOfEntries(t *testing.T) {
	many := migratetest.Share(t, "MIGRATE_TEST_MEMORY", 50_000)
	few := many / 10
	peaks := map[int]uint64{}
	for _, n := range []int{few, many} {
		d := newDatabase(t)
		source := &madeUp{entries: n}
		dir := t.TempDir()
		p, err := Plan(t.Context(), source, ptr(d.target()), PlanOptions{Options: defaults, Dir: dir, Progress: sources.NoProgress{}})
		require.NoError(t, err)
		require.Equal(t, n+madeUpIndexes, p.Migratable)
		rules, err := entries.ReadRules(filepath.Join(dir, entries.RulesFile))
		require.NoError(t, err)
		require.Len(t, rules, madeUpIndexes)
		result, err := Run(t.Context(), source, d.target(), RunOptions{Options: defaults, Rules: rules, Dir: dir, BatchSize: 500, Progress: sources.NoProgress{}})
		require.NoError(t, err)
		require.Equal(t, []int{n + madeUpIndexes, 2 * n}, []int{result.States[kv.ImportImported], result.Named})
		v, err := Verify(t.Context(), source, d.target(), VerifyOptions{Options: defaults, Rules: rules, Dir: dir, Progress: sources.NoProgress{}})
		require.NoError(t, err)
		require.True(t, v.Same(), v.Found)
		require.Equal(t, n+madeUpIndexes, v.Identical)
		peaks[n] = source.peak.Load() >> 10
		t.Logf("%d entries: at most %d KiB of heap, %d MB of memory; run %.1f s, verify %.1f s, together %.0f entries a second",
			n, peaks[n], source.system.Load()>>20, result.Seconds, v.Seconds, float64(n)/(result.Seconds+v.Seconds))
		require.Less(t, source.system.Load()>>20, uint64(200), "MB")
	}
	// What does grow is a single index entry: its array has to be read at once.
	grown := int64(peaks[many]) - int64(peaks[few])
	indexEntries := int64(many) * 2 / madeUpIndexes * 200 >> 10 // parsed
	require.Less(t, grown, 16<<10+indexEntries, "KiB")
}
