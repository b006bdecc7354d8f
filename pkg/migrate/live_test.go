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
	"netlify-supabase-kv/pkg/migrate/migratetest"
	"netlify-supabase-kv/pkg/mirror"
)

// TestLiveWritersDuringRuns lets callers write, add members and delete through instances with the mirror on while runs follow one
// another; MIGRATE_TEST_CUTS of them are cut off. Nothing that was acknowledged is lost or undone, and both stores end identical.
func TestLiveWritersDuringRuns(t *testing.T) {
	m := newMigration(t)
	const keys, callers = 200, 4
	m.seed(keys)
	m.Set("index:live", `["old 1","old 2"]`)
	cuts, seed := migratetest.Share(t, "MIGRATE_TEST_CUTS", 2), migratetest.Seed(t, "MIGRATE_TEST_SEED")

	stop := make(chan struct{})
	acknowledged := make([]map[string]string, callers) // by key; "" for a delete
	members := make([][]string, callers)
	var group sync.WaitGroup
	for number := range callers {
		acknowledged[number] = map[string]string{}
		store := mirror.NewBlobsPrimary(&mirror.Pair{Supabase: m.Supabase, Blobs: m.Store(), Log: discard, Timeout: time.Minute})
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
					entry.Indexes = []kv.Index{{Key: "index:live", Member: kv.TextMember(member)}}
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
	for i := range cuts {
		ctx, cancel := context.WithCancel(t.Context())
		_, _ = Run(ctx, m.Source(), m.target(), RunOptions{Options: m.o, Rules: m.rules, lease: testLease, Dir: m.dir, BatchSize: 10, Progress: &cancelAfter{n: 25 * (1 + i), cancel: cancel}})
		cancel()
	}
	m.run()
	close(stop)
	group.Wait()
	result := m.run()
	t.Logf("%v", result.States)
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

// TestAMemberWhoseEntryLeftNamesNoOther: the member stays in its index when the entry that it names is deleted, or leaves the index. It
// names no other entry by that, whatever the keys of others end in.
func TestAMemberWhoseEntryLeftNamesNoOther(t *testing.T) {
	m := newMigration(t)
	ctx := t.Context()
	store := mirror.NewBlobsPrimary(&mirror.Pair{Supabase: m.Supabase, Blobs: m.Store(), Log: discard})
	upsert := func(key string, members ...string) {
		indexes := []kv.Index{}
		for _, member := range members {
			indexes = append(indexes, kv.Index{Key: "index:sessions", Member: kv.TextMember(member)})
		}
		_, err := store.Upsert(ctx, kv.Entry{Key: key, Value: `{}`, Indexes: indexes})
		require.NoError(t, err)
	}
	for _, name := range []string{"ada", "bob", "cy", "dee"} {
		m.Set("profile/"+name, `{}`)
	}
	m.Set("sessions/dee", `{}`)
	m.Set("index:sessions", `["cy","dee"]`)
	upsert("sessions/ada", "ada")
	upsert("sessions/bob", "bob")
	m.rules = rulesOf(t, "index:sessions=sessions/{member}")
	m.run()
	m.requireIdentical()
	_, err := store.Delete(ctx, "sessions/ada")
	require.NoError(t, err)
	upsert("sessions/bob")
	upsert("sessions/cy")
	_, err = store.Upsert(ctx, kv.Entry{Key: "sessions/dee", Value: `{"n":1}`}) // which leaves its indexes as they are
	require.NoError(t, err)
	upsert("sessions/ada") // made anew, and in no index
	for range 2 {
		m.requireIdentical()
		for _, key := range []string{"profile/ada", "profile/bob", "profile/cy", "profile/dee", "sessions/ada", "sessions/bob", "sessions/cy"} {
			require.Empty(t, m.indexesOf(key), key)
		}
		require.Equal(t, [][2]string{{"index:sessions", "dee"}}, m.indexesOf("sessions/dee"))
		m.run()
	}
}
