package migrate

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/blobs/blobstest"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/entries"
	"netlify-supabase-kv/pkg/migrate/sources"
	"netlify-supabase-kv/pkg/migrate/sources/sourcetest"
	"netlify-supabase-kv/pkg/mirror"
)

func TestEveryEntryArrivesAsItIs(t *testing.T) {
	m := newMigration(t)
	m.seed(350) // more than a page of the list, and several batches
	odd := map[string]string{
		"order":                      `{"b":1,"a":2,"b":3}`,
		"numbers":                    `{"a":1.0,"b":-0,"c":12345678901234567890,"d":1e400}`,
		"nul":                        `{"a":"\u0000"}`,
		"half":                       `["\ud800"]`,
		"spaces":                     " {\n \"a\" : 1 }\t",
		"a scalar":                   `"text"`,
		"null":                       `null`,
		"quotes \"' & <tag> | `tick": `{}`,
		"Ünïcödé/日本/😀":               `{"text":"日本 😀 \u2028"}`,
		strings.Repeat("k", 600):     `{}`,
		"__proto__":                  `{"__proto__":1}`,
		"a":                          `1`,
		"a/b":                        `2`,
		"large":                      `{"text":"` + strings.Repeat("0123456789", 110_000) + `"}`,
		"index:odd":                  `[ "a" , "a/b" ]`,
		"index:repeated":             `["null","null"]`,
		"index:empty":                `[]`,
		"index:no array":             `{"a":["b"]}`,
		"index:numbers":              `[1,2]`,
		"index:teams":                `["1",2]`,
		"team/1":                     `{"team":1}`,
		"team/2":                     `{"team":2}`,
		"index:strange":              `["","\ud800","nobody"]`,
	}
	for key, value := range odd {
		m.Set(key, value)
	}
	m.rules = append(rulesOf(t, "index:odd={member}", "index:repeated={member}", "index:numbers=team/{member}", "index:teams=team/{member}", "index:strange={member}"), seedRules...)
	result := m.run()
	require.Zero(t, result.Failed, result.Failures)
	require.Equal(t, 355+len(odd), result.Blobs)
	v := m.requireIdentical()
	require.Equal(t, result.Blobs, v.Entries)
	for key, value := range odd {
		require.Equal(t, value, m.value(key), key)
	}
	require.Equal(t, [][2]string{{"index:by2", "00007"}, {"index:by3", "00007"}}, m.indexesOf("sessions/00007"))
	require.Equal(t, [][2]string{{"index:odd", "a"}}, m.indexesOf("a"))
	require.Equal(t, [][2]string{{"index:repeated", "null"}}, m.indexesOf("null"))

	found, err := m.Supabase.List(t.Context(), kv.ListQuery{Indexes: []string{"index:by2:00007"}})
	require.NoError(t, err)
	require.Contains(t, found, `"keys":["sessions/00007"]`)
	report, err := WriteReport(m.dir)
	require.NoError(t, err)
	require.Equal(t, [][2]string{{"index:numbers", "\x011"}, {"index:teams", "1"}}, m.indexesOf("team/1"), "a number is a member, and another one than its text")
	require.Equal(t, [][2]string{{"index:numbers", "\x012"}, {"index:teams", "\x012"}}, m.indexesOf("team/2"))
	for _, spelled := range []string{"index:numbers:1", "index:teams:1"} {
		found, err := m.Supabase.List(t.Context(), kv.ListQuery{Indexes: []string{spelled}})
		require.NoError(t, err)
		require.Contains(t, found, `"keys":["team/1"]`, spelled)
	}
	require.Len(t, report.Run.Unresolved, 3)
	page, err := os.ReadFile(filepath.Join(m.dir, ReportMarkdown))
	require.NoError(t, err)
	for _, text := range []string{"| blobs | 378 (", "nobody", `\u0000`, "half of a surrogate pair", "Postgres' jsonb cannot hold", "1.0 MiB", "Keep the blobs until " + time.Now().Add(keepBlobs).UTC().Format(time.DateOnly)} {
		require.Contains(t, string(page), text)
	}
}

func TestASecondRunPicksUpOnlyWhatChanged(t *testing.T) {
	m := newMigration(t)
	m.seed(60)
	require.Equal(t, 65, m.run().Written)
	again := m.run()
	require.Zero(t, again.Read, "nothing had changed")

	m.Set("sessions/00001", `{"changed":true}`)
	m.Set("sessions/new", `{"new":true}`)
	m.Remove("sessions/00002")
	m.Set("index:by0", `["00000","new"]`)
	second := m.run()
	require.Less(t, second.Read, 60)
	require.Equal(t, `{"changed":true}`, m.value("sessions/00001"))
	require.Equal(t, `{"new":true}`, m.value("sessions/new"))
	require.Empty(t, m.value("sessions/00002"), "its blob is gone, and nobody but the migration wrote it")
	require.Equal(t, `["00000","new"]`, m.value("index:by0"))
	require.Equal(t, [][2]string{{"index:by0", "new"}}, m.indexesOf("sessions/new"))
	m.requireIdentical()
}

func TestWhatTheTargetLostComesAgain(t *testing.T) {
	m := newMigration(t)
	m.seed(20)
	m.run()
	m.exec("delete from public.kv_store where key = 'sessions/00003'")
	require.Equal(t, 1, m.run().Written)
	m.requireIdentical()
}

func TestANewerWriteIsLeftAlone(t *testing.T) {
	m := newMigration(t)
	m.seed(5)
	m.Set("index:live", `["00001","old"]`)
	_, err := m.Supabase.Upsert(t.Context(), kv.Entry{Key: "sessions/00001", Value: `{"live":1}`, Indexes: []kv.Index{{Key: "index:live", Member: "first"}}})
	require.NoError(t, err)
	result := m.run()
	require.Equal(t, 1, result.States[kv.ImportForeign])
	require.Equal(t, `{"live":1}`, m.value("sessions/00001"))
	require.Equal(t, `["00001","old","first"]`, m.value("index:live"), "imported members come before live ones")

	_, err = m.Supabase.Upsert(t.Context(), kv.Entry{Key: "sessions/00002", Value: `{"live":2}`, Indexes: []kv.Index{{Key: "index:live", Member: "second"}}})
	require.NoError(t, err)
	m.Set("sessions/00002", `{"blob":2}`)
	m.Set("index:live", `["old","00003"]`)
	m.run()
	require.Equal(t, `{"live":2}`, m.value("sessions/00002"), "somebody wrote it after the import")
	require.Equal(t, `["old","00003","first","second"]`, m.value("index:live"))

	_, err = m.Supabase.Upsert(t.Context(), kv.Entry{Key: "index:live", Value: `[]`})
	require.NoError(t, err)
	_, err = m.Supabase.Upsert(t.Context(), kv.Entry{Key: "sessions/00002", Value: `{}`, Indexes: []kv.Index{{Key: "index:live", Member: "third"}}})
	require.NoError(t, err)
	m.Set("index:live", `["old","00004"]`)
	m.run()
	require.Equal(t, `["third"]`, m.value("index:live"), "somebody emptied the index entry itself")
}

func TestAnIndexEntryThatIsMadeMeanwhileGetsItsImportedMembers(t *testing.T) {
	m := newMigration(t)
	m.Set("index:x", `["a","b"]`)
	live, err := pgx.ConnectConfig(t.Context(), m.SQL.Config())
	require.NoError(t, err)
	defer live.Close(context.Background())
	tx, err := live.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `select public.kv_upsert('new', '{}', '{{index:x,new}}')`)
	require.NoError(t, err)
	committed := make(chan error, 1)
	go func() {
		for waiting := 0; waiting == 0; time.Sleep(10 * time.Millisecond) { // for the import, which waits for this
			if err := m.SQL.QueryRow(t.Context(), "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'").Scan(&waiting); err != nil {
				committed <- errors.Join(err, tx.Rollback(context.Background()))
				return
			}
		}
		committed <- tx.Commit(context.Background())
	}()
	result, err := m.tryRun()
	require.NoError(t, <-committed)
	require.NoError(t, err)
	require.Equal(t, 1, result.States[kv.ImportImported])
	require.Equal(t, `["a","b","new"]`, m.value("index:x"))
}

func TestClosingAndDeletingDoNotWaitForEachOther(t *testing.T) {
	m := newMigration(t)
	m.Set("a", `{}`)
	m.run()
	connect := func() *pgx.Conn {
		c, err := pgx.ConnectConfig(t.Context(), m.SQL.Config())
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close(context.Background()) })
		return c
	}
	first, closing, second := connect(), connect(), connect()
	call := func(c *pgx.Conn, sql string) <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := c.Exec(context.Background(), sql)
			done <- err
		}()
		return done
	}
	// On a busy machine closing may give up (lock_timeout) before all of them wait for each other; then once more.
	for attempts := 0; ; attempts++ {
		require.Less(t, attempts, 20)
		tx, err := first.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), `select public.kv_delete('x')`)
		require.NoError(t, err)
		closed := call(closing, `select public.kv_migration_close()`)
		m.waitForLocks(1, closed)
		deleted := call(second, `select public.kv_delete('y')`)
		m.waitForLocks(2, closed)
		require.NoError(t, tx.Commit(t.Context()))
		closeErr := <-closed
		require.NoError(t, <-deleted)
		if closeErr == nil {
			return
		}
		var refused *pgconn.PgError
		require.ErrorAs(t, closeErr, &refused)
		require.Equal(t, "55P03", refused.Code, closeErr)
	}
}

// waitForLocks waits until so many sessions wait for kv_migration, or until the one that is closing it has ended.
func (m *migration) waitForLocks(n int, closed <-chan error) {
	m.t.Helper()
	for found := 0; found < n && len(closed) == 0; {
		time.Sleep(5 * time.Millisecond)
		require.NoError(m.t, m.SQL.QueryRow(m.t.Context(), "select count(*) from pg_locks where not granted and relation = 'kv.migration'::regclass and database = (select oid from pg_database where datname = current_database())").Scan(&found))
	}
}

func TestWhatCallersDeletedStaysDeleted(t *testing.T) {
	m := newMigration(t)
	m.seed(5)
	m.run()
	for _, key := range []string{"sessions/00001", "not there yet", "index:by1"} {
		_, err := m.Supabase.Delete(t.Context(), key)
		require.NoError(t, err)
	}
	m.Set("sessions/00001", `{"older":"than the delete, as far as anybody can tell"}`)
	m.Set("not there yet", `{}`)
	m.Set("index:by1", `["00000"]`)
	result := m.run()
	require.Equal(t, 3, result.States[kv.ImportDeleted])
	for _, key := range []string{"sessions/00001", "not there yet", "index:by1"} {
		require.Empty(t, m.value(key), key)
	}
	_, err := m.Supabase.Upsert(t.Context(), kv.Entry{Key: "sessions/00003", Value: `{}`, Indexes: []kv.Index{{Key: "index:by1", Member: "anew"}}})
	require.NoError(t, err)
	m.Set("index:by1", `["00000","00002"]`)
	m.run()
	require.Equal(t, `["anew"]`, m.value("index:by1"), "the members from before the delete do not come back")

	m.close()
	var marks int
	require.NoError(t, m.SQL.QueryRow(t.Context(), "select count(*) from kv.import").Scan(&marks))
	require.Zero(t, marks)
	_, err = m.Supabase.Delete(t.Context(), "sessions/00003")
	require.NoError(t, err)
	require.NoError(t, m.SQL.QueryRow(t.Context(), "select count(*) from kv.import").Scan(&marks))
	require.Zero(t, marks, "no migration is open")
}

func TestAnEntryThatWasWrittenMeanwhileGetsItsIndexes(t *testing.T) {
	m := newMigration(t)
	m.seed(5)
	pair := &mirror.Pair{Supabase: m.Supabase, Blobs: m.Store(), Log: discard}
	store := mirror.NewBlobsPrimary(pair)
	_, err := store.Upsert(t.Context(), kv.Entry{Key: "sessions/00001", Value: `{"hot":1}`}) // its indexes stay as they are
	require.NoError(t, err)
	_, err = store.Upsert(t.Context(), kv.Entry{Key: "sessions/00002", Value: `{"hot":2}`, Indexes: []kv.Index{}}) // and these go
	require.NoError(t, err)
	m.run()
	require.Equal(t, `{"hot":1}`, m.value("sessions/00001"))
	require.Len(t, m.indexesOf("sessions/00001"), 2)
	require.Empty(t, m.indexesOf("sessions/00002"))
	m.requireIdentical()
}

// between is a source that does something after a blob was read, and before it is handed out.
type between struct {
	*sources.Blobs
	key string
	do  func() // once
}

func (s *between) Read(ctx context.Context, list iter.Seq2[blobs.Listed, error]) iter.Seq2[sources.Item, error] {
	return func(yield func(sources.Item, error) bool) {
		for item, err := range s.Blobs.Read(ctx, list) {
			if item.Key == s.key {
				s.do()
			}
			if !yield(item, err) {
				return
			}
		}
	}
}

func TestIndexesThatWereTakenAwayMeanwhileStayAway(t *testing.T) {
	for name, first := range map[string]func(*mirror.Pair) kv.Store{"BlobsFirst": mirror.NewBlobsPrimary, "SupabaseFirst": mirror.NewSupabasePrimary} {
		t.Run(name, func(t *testing.T) {
			m := newMigration(t)
			m.Set("doc:1", `{"a":1}`)
			m.Set("index:active", `["1"]`)
			m.rules = rulesOf(t, "index:active=doc:{member}")
			store := first(&mirror.Pair{Supabase: m.Supabase, Blobs: m.Store(), Log: discard})
			source := &between{m.Source(), "doc:1", sync.OnceFunc(func() { // the same value, other indexes
				_, err := store.Upsert(t.Context(), kv.Entry{Key: "doc:1", Value: `{"a":1}`, Indexes: []kv.Index{{Key: "index:archived", Member: "1"}}})
				require.NoError(t, err)
			})}
			_, err := Run(t.Context(), source, m.target(), RunOptions{Options: m.o, Rules: m.rules, lease: testLease, Dir: m.dir, BatchSize: DefaultBatchSize, Progress: sources.NoProgress{}})
			require.NoError(t, err)
			require.Equal(t, [][2]string{{"index:archived", "1"}}, m.indexesOf("doc:1"))
			m.requireIdentical()
		})
	}
}

func TestABadEntryDoesNotHoldUpTheOthers(t *testing.T) {
	m := newMigration(t)
	m.seed(150)
	m.Set("deep", strings.Repeat("[", 9000)+strings.Repeat("]", 9000))
	m.alter("alter table public.kv_store add constraint picky check (value::text not like '%\"n\":77,%')")
	result := m.run()
	require.Equal(t, 1, result.Failed, result.Failures)
	require.Equal(t, "sessions/00077", result.Failures[0].Key)
	require.Equal(t, entries.CodeRefused, result.Failures[0].Code)
	v := m.look(false)
	require.Equal(t, 1, v.Missing)
	require.Equal(t, v.Blobs-1, v.Identical)

	m.alter("alter table public.kv_store drop constraint picky")
	require.Equal(t, 1, m.run().Written, "what failed is tried again")
	m.requireIdentical()
}

func TestBlobsThatAreNotJSON(t *testing.T) {
	m := newMigration(t)
	m.Set("json", `{}`)
	bytes := map[string]string{"empty": "", "text": "hello", "binary": "\xff\x00", "deep": strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001)}
	for key, value := range bytes {
		m.Set(key, value)
	}
	result := m.run()
	require.Zero(t, result.Failed, result.Failures)
	require.Equal(t, len(bytes), result.Noted)
	require.Equal(t, entries.CodeNotJSON, result.Notes[0].Code)
	m.requireIdentical()
	for key, value := range bytes {
		entry, err := m.Supabase.GetEntry(t.Context(), kv.DefaultStore, key, kv.Freshness{})
		require.NoError(t, err, key)
		require.Equal(t, value, string(entry.Data), key)
		_, err = m.Supabase.Get(t.Context(), key)
		require.Equal(t, kv.CodeNotJSON, kv.CodeOf(err), key)
		require.ErrorContains(t, err, `"`+key+`" is not JSON`)
		_, err = m.Store().Get(t.Context(), key)
		require.Equal(t, kv.CodeNotJSON, kv.CodeOf(err), "as Blobs answers")
	}
	list := func(q kv.ListQuery) (string, error) { return m.Supabase.List(t.Context(), q) }
	for _, q := range []kv.ListQuery{{Values: true}, {Values: true, Sort: kv.SortKey{Path: "updatedAt"}}} {
		_, err := list(q)
		require.Equal(t, kv.CodeNotJSON, kv.CodeOf(err), q)
	}
	found, err := list(kv.ListQuery{})
	require.NoError(t, err)
	require.Contains(t, found, `"keys":["binary","deep","empty","json","text"]`)

	_, err = m.Supabase.Upsert(t.Context(), kv.Entry{Key: "binary", Value: `{"now":1}`})
	require.NoError(t, err)
	require.Equal(t, `{"now":1}`, m.value("binary"))
	m.Set("text", `{"now":2}`)
	m.Set("json", "not any more")
	m.run()
	require.Equal(t, `{"now":2}`, m.value("text"))
	v := m.look(true)
	require.Equal(t, []int{0, 1}, []int{v.Different, v.Repaired}, "the bytes of the blob come back, over the caller's JSON")
	m.requireIdentical()

	m.Empty(t)
	m.o = entries.Options{IndexPrefix: "index:", SkipNonJSON: true}
	result = m.run()
	require.Zero(t, result.Failed)
	require.Equal(t, 4, result.States[entries.CodeSkipped])
	v = m.requireIdentical()
	require.Equal(t, 4, v.Skipped)
}

// TestAnEntryThatHasExpiredCountsAsAbsent: nobody sees it. One that a caller wrote while the migration was open counts as deleted.
func TestAnEntryThatHasExpiredCountsAsAbsent(t *testing.T) {
	m := newMigration(t)
	m.Set("from the beginning", `{"n":1}`)
	m.Set("later", `{"n":2}`)
	m.Set("gone", `{"n":3}`)
	expired := func(keys ...string) {
		t.Helper()
		for _, key := range keys {
			_, err := m.Supabase.Upsert(t.Context(), kv.Entry{Key: key, Value: `{"expired":true}`, Indexes: []kv.Index{}})
			require.NoError(t, err)
			m.exec("update public.kv_store set expires_at = clock_timestamp() - interval '1 s' where key = $1", key)
		}
	}
	expired("from the beginning", "only here")
	result := m.run()
	require.Equal(t, map[kv.ImportState]int{kv.ImportImported: 3}, result.States)
	require.Equal(t, 3, m.requireIdentical().Entries)

	expired("later", "gone")
	m.Remove("gone")
	require.Equal(t, 1, m.verify().Missing)
	for range 2 {
		result = m.run()
		require.Zero(t, result.Written)
		require.Equal(t, map[kv.ImportState]int{kv.ImportImported: 1, kv.ImportDeleted: 2}, result.States)
		require.Empty(t, m.value("later"), "live writes win, for good")
	}
	v := m.look(true)
	require.Equal(t, []int{0, 1}, []int{v.Missing, v.Repaired})
	require.Equal(t, `{"n":2}`, m.value("later"))
}

func TestAFaultyNetworkOnlyTakesLonger(t *testing.T) {
	m := newMigration(t)
	m.seed(80)
	m.Faults(&blobstest.Faults{Seed: 1, ServerError: 0.05, CutOff: 0.05, LostAnswer: 0.05, ExpiredURL: 0.05, Delayed: 0.05, DelayMS: 50, RateLimited: 0.02, RetryAfterSeconds: 1})
	result := m.run()
	require.Zero(t, result.Failed, result.Failures)
	m.requireIdentical()
	counts := m.Faults(nil)
	for _, fault := range []string{"server_error", "cut_off", "lost_answer", "expired_url", "rate_limited"} {
		require.NotZero(t, counts[fault], fault)
	}
}

func TestOnlyOneRunAtATime(t *testing.T) {
	m := newMigration(t)
	m.seed(3)
	m.run()
	open := func(session, own uuid.UUID, lease time.Duration) error {
		return m.Supabase.MigrationOpen(t.Context(), kv.Opening{Source: m.Source().Name(), Options: m.o, Session: session, Own: own, Holder: "another machine", Lease: lease})
	}
	session := uuid.New()
	require.NoError(t, open(session, uuid.Nil, 3*time.Second))
	alive, stop := context.WithCancel(t.Context())
	var renewing sync.WaitGroup
	renewing.Go(func() {
		for alive.Err() == nil {
			_, _ = m.Supabase.MigrationRenew(alive, kv.Renewal{Session: session, Lease: 3 * time.Second})
			time.Sleep(100 * time.Millisecond)
		}
	})
	var held *kv.MigrationHeld
	_, err := m.tryRun()
	require.ErrorAs(t, err, &held, "a run from elsewhere")
	require.Equal(t, "another machine", held.Holder)
	_, err = m.Supabase.MigrationClose(t.Context())
	require.ErrorIs(t, err, kv.ErrImportAtWork)
	stop()
	renewing.Wait()

	m.run() // waits until the lease is over, as of a run that was killed
	_, err = m.Supabase.Import(t.Context(), session, []kv.ImportEntry{{State: kv.State{Key: "late", Value: "{}"}}})
	require.ErrorIs(t, err, kv.ErrImportTaken, "a batch of the run from before")
	_, err = m.Supabase.MigrationRenew(t.Context(), kv.Renewal{Session: session})
	require.ErrorIs(t, err, kv.ErrImportTaken)
	require.NoError(t, open(session, uuid.Nil, time.Minute))
	require.NoError(t, open(uuid.New(), session, 0), "the same run, in its next pass")
	_, err = m.Supabase.Import(t.Context(), session, []kv.ImportEntry{{State: kv.State{Key: "late", Value: "{}"}}})
	require.ErrorIs(t, err, kv.ErrImportTaken, "a batch of the pass before")
	m.requireIdentical()
}

func TestWhatAnEarlierPassSentIsRefusedWhenItIsLate(t *testing.T) {
	m := newMigration(t)
	m.Set("a", `1`)
	var sessions []uuid.UUID
	source := &between{Blobs: m.Source(), key: "a"}
	var reading func()
	reading = func() {
		var session uuid.UUID
		require.NoError(t, m.SQL.QueryRow(t.Context(), "select session from kv.migration").Scan(&session))
		sessions = append(sessions, session)
		if len(sessions) == 1 {
			source.do = reading
			m.Set("a", `2`)
			return
		}
		_, err := m.Supabase.Import(t.Context(), sessions[0], []kv.ImportEntry{{State: kv.State{Key: "a", Value: `1`}}})
		require.ErrorIs(t, err, kv.ErrImportTaken)
	}
	source.do = reading
	_, err := Run(t.Context(), source, m.target(), RunOptions{Options: m.o, Rules: m.rules, lease: testLease, Dir: m.dir, BatchSize: 1, Progress: sources.NoProgress{}})
	require.NoError(t, err)
	require.Len(t, sessions, 2)
	require.Equal(t, `2`, m.value("a"))
}

func TestAClosedMigrationIsNotGoneOnWith(t *testing.T) {
	m := newMigration(t)
	m.seed(3)
	m.run()
	m.close()
	_, err := m.Supabase.Delete(t.Context(), "sessions/00001")
	require.NoError(t, err)
	m.dir = t.TempDir()
	_, err = m.tryRun()
	var closed *kv.MigrationClosed
	require.ErrorAs(t, err, &closed)
	require.Empty(t, m.value("sessions/00001"))
	m.anew = true
	m.run()
	m.requireIdentical()
}

func TestWhatIsAnotherMigrationIsSaid(t *testing.T) {
	m := newMigration(t)
	m.seed(3)
	m.run()
	other := sourcetest.NewSite(t)
	other.Set("a", "{}")
	_, err := Run(t.Context(), other.Source(), m.target(), RunOptions{Options: m.o, Rules: m.rules, lease: testLease, BatchSize: 1, Progress: sources.NoProgress{}})
	require.ErrorContains(t, err, "is another one: from "+m.Source().Name())
	m.o.SkipNonJSON = true
	_, err = m.tryRun()
	require.ErrorContains(t, err, `with the options {"index_prefix":"index:"}`)
}

func TestARowThatWasMadeAnewIsForeign(t *testing.T) {
	m := newMigration(t)
	m.seed(3)
	m.run()
	m.exec("create table public.kv_store_new (like public.kv_store including all); insert into public.kv_store_new select * from public.kv_store")
	m.exec("update public.kv_store set revision = 0 where key = 'sessions/00001'") // as a restore would
	m.Set("sessions/00001", `{"n":"newer"}`)
	require.Equal(t, 1, m.run().States[kv.ImportForeign])
}

// TestALaterRunWithARuleAddsWhatItSays: without a rule the members stay in the index entry, and no entry gets the index.
func TestALaterRunWithARuleAddsWhatItSays(t *testing.T) {
	m := newMigration(t)
	m.rules = nil
	m.seed(20)
	result := m.run()
	require.Equal(t, []int{5, 40, 0}, []int{result.WithoutRule, result.Unruled, result.Named})
	m.requireIdentical()
	require.Empty(t, m.indexesOf("sessions/00007"))
	require.Contains(t, m.value("index:by2"), `"00007"`)
	store := mirror.NewBlobsPrimary(&mirror.Pair{Supabase: m.Supabase, Blobs: m.Store(), Log: discard})
	_, err := store.Upsert(t.Context(), kv.Entry{Key: "sessions/00008", Value: `{"hot":1}`}) // foreign, and its indexes stay as they are
	require.NoError(t, err)

	m.rules = seedRules[:1]
	result = m.run()
	require.Equal(t, []int{20, 40}, []int{result.Written, result.Named})
	require.Equal(t, [][2]string{{"index:by2", "00007"}, {"index:by3", "00007"}}, m.indexesOf("sessions/00007"))
	require.Equal(t, [][2]string{{"index:by3", "00008"}, {"index:by4", "00008"}}, m.indexesOf("sessions/00008"))
	m.requireIdentical()
	require.Zero(t, m.run().Read)
	migration, err := m.Supabase.Migration(t.Context())
	require.NoError(t, err)
	require.Equal(t, m.rules.Strings(), migration.Rules)

	m.rules = rulesOf(t, "index:by2=sessions/{member}")
	m.run()
	require.Equal(t, [][2]string{{"index:by2", "00007"}}, m.indexesOf("sessions/00007"), "a rule that was wrong is taken back")
}

func TestAnEmptySourceIsNoMigration(t *testing.T) {
	m := newMigration(t)
	_, err := m.tryRun()
	require.ErrorIs(t, err, sources.ErrEmpty)
	_, err = Plan(t.Context(), m.Source(), nil, PlanOptions{Options: m.o, Progress: sources.NoProgress{}})
	require.ErrorIs(t, err, sources.ErrEmpty)
}

func TestAnEmptyStoreRemovesNothing(t *testing.T) {
	m := newMigration(t)
	m.seed(20)
	m.run()
	entries := func() int {
		status, err := m.Supabase.MigrationStatus(t.Context())
		require.NoError(t, err)
		return status.Entries
	}
	before := entries()
	elsewhere := m.Access
	elsewhere.SiteID = "another-site"
	other := sources.NewBlobs(elsewhere, "kv", 16, sourcetest.Unlimited())
	_, err := Run(t.Context(), other, m.target(), RunOptions{Options: m.o, Rules: m.rules, lease: testLease, Dir: m.dir, BatchSize: 1, Progress: sources.NoProgress{}})
	require.ErrorContains(t, err, "is another one")
	_, err = Verify(t.Context(), other, m.target(), VerifyOptions{Options: m.o, Rules: m.rules, Dir: m.dir, Repair: true, Progress: sources.NoProgress{}})
	require.ErrorContains(t, err, "is another one")

	l, err := sources.List(t.Context(), m.Source(), "", sources.NoProgress{})
	require.NoError(t, err)
	for blob := range l.All() { // the same store, as when the token has lost its access: the service answers 404
		m.Remove(blob.Key)
	}
	_, err = m.tryRun()
	require.ErrorIs(t, err, sources.ErrEmpty)
	_, err = Verify(t.Context(), m.Source(), m.target(), VerifyOptions{Options: m.o, Rules: m.rules, Repair: true, Progress: sources.NoProgress{}})
	require.ErrorIs(t, err, sources.ErrEmpty)
	require.Equal(t, before, entries())
}

func TestAWrongTokenEndsAtOnce(t *testing.T) {
	m := newMigration(t)
	m.Set("a", "{}")
	m.Access.APIToken = "wrong"
	start := time.Now()
	_, err := m.tryRun()
	require.ErrorContains(t, err, "NETLIFY_BLOBS_TOKEN must be a personal access token with access to the site")
	require.NotContains(t, err.Error(), "wrong")
	require.Less(t, time.Since(start), 20*time.Second)
}

func TestARunWaitsForMirroredWritesThatAreUnderWay(t *testing.T) {
	m := newMigration(t)
	m.Set("a", "{}")
	_, traces, err := m.Supabase.DeleteMirrored(t.Context(), "a") // its copy, the removal of the blob, is not there yet
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		for asked := false; !asked; time.Sleep(5 * time.Millisecond) { // for it, which prolongs the run's hold
			if err := m.SQL.QueryRow(t.Context(), "select exists (select from kv.migration where lease_until > opened_at + interval '1.001 s')").Scan(&asked); err != nil {
				done <- err
				return
			}
		}
		done <- errors.Join(m.Client.Delete(context.Background(), "a"), m.Supabase.RemoveOutboxEntries(context.Background(), traces))
	}()
	m.Set("b", "{}")
	m.run()
	require.NoError(t, <-done)
	require.Empty(t, m.value("a"))
	require.Equal(t, "{}", m.value("b"))
}

func TestAnInterruptedRunGoesOn(t *testing.T) {
	m := newMigration(t)
	m.seed(300)
	ctx, cancel := context.WithCancel(t.Context())
	progress := &cancelAfter{n: 60, cancel: cancel}
	result, err := Run(ctx, m.Source(), m.target(), RunOptions{Options: m.o, Rules: m.rules, lease: testLease, Dir: m.dir, BatchSize: 20, Progress: progress})
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, result.Finished)
	require.Less(t, result.Read, 305)
	next := m.run()
	require.Less(t, next.Read, 305, "what the database remembers is not read again")
	m.requireIdentical()
}

// cancelAfter ends a run in the middle.
type cancelAfter struct {
	n      int
	cancel func()
	name   string
}

func (c *cancelAfter) Stage(name string, _ int) { c.name = name }
func (c *cancelAfter) Done(n, _ int) {
	if c.name == "migrating" {
		if c.n -= n; c.n < 0 {
			c.cancel()
		}
	}
}

func TestAPlanTouchesNothing(t *testing.T) {
	m := newMigration(t)
	m.seed(50)
	m.Set("text", "hello")
	target := m.target()
	result, err := Plan(t.Context(), m.Source(), &target, PlanOptions{Options: m.o, Dir: m.dir, Progress: sources.NoProgress{}})
	require.NoError(t, err)
	require.Equal(t, []int{56, 0}, []int{result.Migratable, result.Failed})
	require.Len(t, result.Indexes, 5)
	status, err := m.Supabase.MigrationStatus(t.Context())
	require.NoError(t, err)
	require.Zero(t, status.Entries)
	require.Nil(t, status.Migration)
	l, err := sources.List(t.Context(), m.Source(), "", sources.NoProgress{})
	require.NoError(t, err)
	require.Equal(t, 56, l.Blobs)
	for blob := range l.All() {
		got, err := m.Client.Get(t.Context(), blob.Key)
		require.NoError(t, err)
		require.Empty(t, got.Metadata, blob.Key)
	}
}

func TestLiveEntriesOfTheSameNameChangeNobodysIndexes(t *testing.T) {
	m := newMigration(t)
	m.Set("users/42", `{"name":"ada"}`)
	m.Set("user:6", `{"name":"bob"}`)
	m.Set("index:users", `["42"]`)
	m.rules = rulesOf(t, "index:users=users/{member}")
	m.run()
	store := mirror.NewBlobsPrimary(&mirror.Pair{Supabase: m.Supabase, Blobs: m.Store(), Log: discard})
	for _, entry := range []kv.Entry{
		{Key: "orders/42", Value: `{}`, Indexes: []kv.Index{{Key: "index:orders", Member: "42"}}}, // ends as users/42 does
		{Key: "session:78", Value: `{}`, Indexes: []kv.Index{{Key: "index:by", Member: "6"}}},     // a member that user:6 ends in
	} {
		_, err := store.Upsert(t.Context(), entry)
		require.NoError(t, err)
	}
	for range 2 {
		m.requireIdentical()
		m.run()
		require.Equal(t, [][2]string{{"index:users", "42"}}, m.indexesOf("users/42"))
		require.Equal(t, [][2]string{{"index:orders", "42"}}, m.indexesOf("orders/42"))
		require.Empty(t, m.indexesOf("user:6"))
	}
}
