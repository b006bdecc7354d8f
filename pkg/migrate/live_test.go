package migrate

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/mirror"
)

// TestLiveWritersDuringRuns lets callers write, add members and delete through instances with the mirror on while runs follow one
// another; some are cut off. Nothing that was acknowledged is lost or undone, and both stores end identical.
func TestLiveWritersDuringRuns(t *testing.T) {
	m := newMigration(t)
	const keys, callers = 400, 4
	m.seed(keys)
	m.set("index:live", `["old 1","old 2"]`)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)

	stop := make(chan struct{})
	acknowledged := make([]map[string]string, callers) // by key; "" for a delete
	members := make([][]string, callers)
	var group sync.WaitGroup
	for number := range callers {
		acknowledged[number] = map[string]string{}
		store := mirror.BlobsFirst(&mirror.Pair{Supabase: m.supabase, Blobs: m.store(), Log: discard, Timeout: time.Minute})
		random := rand.New(rand.NewPCG(seed, uint64(number)))
		group.Go(func() {
			ctx := context.WithoutCancel(t.Context())
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprintf("sessions/%05d", random.IntN(keys/callers)*callers+number) // one caller a key: the last write is known
				if random.IntN(4) == 0 {
					if _, err := store.Delete(ctx, key); err != nil {
						t.Errorf("delete: %v", err)
						return
					}
					acknowledged[number][key] = ""
					continue
				}
				entry := kv.Entry{Key: key, Value: fmt.Sprintf(`{"caller":%d,"n":%d}`, number, n)}
				if member := fmt.Sprintf("c%d-%d", number, n); random.IntN(2) == 0 {
					entry.Indexes = []kv.Index{{Key: "index:live", Member: member}}
					members[number] = append(members[number], member)
				}
				if _, err := store.Upsert(ctx, entry); err != nil {
					t.Errorf("upsert: %v", err)
					return
				}
				acknowledged[number][key] = entry.Value
			}
		})
	}
	for i := range 6 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(200+300*i)*time.Millisecond)
		_, _ = Run(ctx, m.source(), m.target(), RunOptions{Options: m.o, Dir: m.dir, BatchSize: 10, Progress: silence{}})
		cancel()
	}
	m.run()
	close(stop)
	group.Wait()
	result := m.run()
	t.Logf("%v", result.Statuses)
	m.requireIdentical()

	written := 0
	for _, entries := range acknowledged {
		for key, value := range entries {
			require.Equal(t, value, m.value(key), "what was acknowledged last of %s", key)
			written++
		}
	}
	require.Greater(t, written, 30, "there was traffic")
	var live []string
	require.NoError(t, json.Unmarshal([]byte(m.value("index:live")), &live))
	require.Equal(t, []string{"old 1", "old 2"}, live[:2])
	for _, all := range members {
		for _, member := range all {
			require.Contains(t, live, member)
		}
	}
	require.False(t, strings.Contains(fmt.Sprint(result.Failures), "sessions"), result.Failures)
}
