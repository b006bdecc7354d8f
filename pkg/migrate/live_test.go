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

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
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
	m.set("index:live", `["old 1","old 2"]`)
	cuts, seed := migratetest.Share(t, "MIGRATE_TEST_CUTS", 2), migratetest.Seed(t, "MIGRATE_TEST_SEED")

	stop := make(chan struct{})
	acknowledged := make([]map[string]string, callers) // by key; "" for a delete
	members := make([][]string, callers)
	var group sync.WaitGroup
	for number := range callers {
		acknowledged[number] = map[string]string{}
		store := mirror.NewBlobsPrimary(&mirror.Pair{Supabase: m.supabase, Blobs: m.store(), Log: discard, Timeout: time.Minute})
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
		_, _ = Run(ctx, m.source(), m.target(), RunOptions{Options: m.o, Dir: m.dir, BatchSize: 10, Progress: &cancelAfter{n: 25 * (1 + i), cancel: cancel}})
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

// TestAMemberThatWasLeftNamesNoOther: the member stays in its index when the entry that it names is deleted, or leaves the index. Nothing
// in the blobs then tells that it did not name another entry that ends in it.
func TestAMemberThatWasLeftNamesNoOther(t *testing.T) {
	m := newMigration(t)
	ctx := t.Context()
	store := mirror.NewBlobsPrimary(&mirror.Pair{Supabase: m.supabase, Blobs: m.store(), Log: discard})
	upsert := func(key string, members ...string) {
		indexes := []kv.Index{}
		for _, member := range members {
			indexes = append(indexes, kv.Index{Key: "index:sessions", Member: kv.TextMember(member)})
		}
		_, err := store.Upsert(ctx, kv.Entry{Key: key, Value: `{}`, Indexes: indexes})
		require.NoError(t, err)
	}
	for _, name := range []string{"ada", "bob", "cy"} {
		m.set("profile/"+name, `{}`)
	}
	m.set("index:sessions", `["cy","dee"]`)
	m.set("profile/dee", `{}`)
	upsert("sessions/ada", "ada")
	upsert("sessions/bob", "bob")
	m.run()
	m.requireIdentical()
	indexesOf := func(key string) [][2]string {
		states, err := m.supabase.States(ctx, []string{key})
		require.NoError(t, err)
		return states[0].Indexes
	}
	require.Equal(t, [][2]string{{"index:sessions", "cy"}}, indexesOf("profile/cy"))

	_, err := store.Delete(ctx, "sessions/ada")
	require.NoError(t, err)
	upsert("sessions/bob")
	upsert("sessions/cy", "cy") // the profile has the member, too, and keeps it
	upsert("sessions/cy")
	for range 2 {
		m.requireIdentical()
		for _, key := range []string{"profile/ada", "profile/bob"} {
			require.Empty(t, indexesOf(key), key)
		}
		for key, member := range map[string]string{"profile/cy": "cy", "profile/dee": "dee"} {
			require.Equal(t, [][2]string{{"index:sessions", member}}, indexesOf(key))
		}
		m.run()
	}
	require.NoError(t, m.supabase.ImportClose(ctx))
	left, err := m.supabase.ImportLeft(ctx, [2]string{}, 10)
	require.NoError(t, err)
	require.Empty(t, left, "a closed migration keeps nothing")
}

// TestEntriesThatLeaveAnIndexAtOnceAreBothRemembered: neither transaction sees that the other one leaves, too.
func TestEntriesThatLeaveAnIndexAtOnceAreBothRemembered(t *testing.T) {
	m := newMigration(t)
	ctx := t.Context()
	for _, key := range []string{"a/x", "b/x"} {
		_, err := m.supabase.Upsert(ctx, kv.Entry{Key: key, Value: `{}`, Indexes: []kv.Index{{Key: "index:i", Member: "x"}}})
		require.NoError(t, err)
	}
	require.NoError(t, m.supabase.ImportOpen(ctx, uuid.New(), uuid.New()))
	begin := func() pgx.Tx {
		c, err := pgx.ConnectConfig(ctx, m.sql.Config())
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close(context.Background()) })
		tx, err := c.Begin(ctx)
		require.NoError(t, err)
		return tx
	}
	first, second := begin(), begin()
	_, err := first.Exec(ctx, `select public.kv_delete('a/x', gen_random_uuid())`)
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		_, err := second.Exec(ctx, `select public.kv_upsert('b/x', '{}', '{}', gen_random_uuid())`)
		done <- err
	}()
	for waiting := 0; waiting == 0 && len(done) == 0; time.Sleep(5 * time.Millisecond) { // it may wait for the first
		require.NoError(t, m.sql.QueryRow(ctx, "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'").Scan(&waiting))
	}
	require.NoError(t, first.Commit(ctx))
	require.NoError(t, <-done)
	require.NoError(t, second.Commit(ctx))
	left, err := m.supabase.ImportLeft(ctx, [2]string{}, 10)
	require.NoError(t, err)
	require.Equal(t, [][2]string{{"index:i", "x"}}, left)
}
