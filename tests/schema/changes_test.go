package schema

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// feed is a response of kv_changes.
type feed struct {
	Cursor string
	All    bool
	Keys   []string
}

func changes(t testing.TB, q querier, cursor any) (f feed) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(one[string](t, q, "select public.kv_changes($1)", cursor)), &f))
	require.NotNil(t, f.Keys)
	return f
}

// requireChanges requires that these keys changed since the cursor, and returns the next cursor.
func requireChanges(t *testing.T, q querier, cursor string, want ...string) string {
	t.Helper()
	f := changes(t, q, cursor)
	require.False(t, f.All)
	if want == nil {
		want = []string{}
	}
	slices.Sort(want)
	slices.Sort(f.Keys)
	require.Equal(t, want, f.Keys)
	return f.Cursor
}

func TestEveryKindOfChangeIsNamed(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	conn := d.connect(t)
	f := changes(t, conn, nil)
	require.True(t, f.All, "without a cursor")
	require.Empty(t, f.Keys)
	c := requireChanges(t, conn, f.Cursor)

	upsert(t, conn, "a", `{}`, nil)
	c = requireChanges(t, conn, c, "a")
	c = requireChanges(t, conn, c)
	upsert(t, conn, "a", `{}`, pairs{{"i", "m"}, {"j", "n"}})
	c = requireChanges(t, conn, c, "a", "i", "j")
	upsert(t, conn, "b", `{}`, pairs{{"i", "m"}})
	c = requireChanges(t, conn, c, "b") // i has the member already
	upsert(t, conn, "b", `{}`, pairs{{"i", "new"}})
	c = requireChanges(t, conn, c, "b", "i")
	upsert(t, conn, "b", `{}`, pairs{})
	c = requireChanges(t, conn, c, "b")
	upsert(t, conn, "i", `{}`, nil)
	c = requireChanges(t, conn, c, "i")
	upsert(t, conn, "b", `{}`, pairs{{"i", "again"}})
	c = requireChanges(t, conn, c, "b", "i")
	remove(t, conn, "j")
	c = requireChanges(t, conn, c, "j")
	remove(t, conn, "none")
	c = requireChanges(t, conn, c)
	remove(t, conn, "b")
	c = requireChanges(t, conn, c, "b")

	// By hand.
	exec(t, conn, "insert into public.kv_store (key, value) values ('h1', '1'), ('h2', '2')")
	c = requireChanges(t, conn, c, "h1", "h2")
	exec(t, conn, "update public.kv_store set value = '3' where key = 'h1'")
	c = requireChanges(t, conn, c, "h1")
	exec(t, conn, "update public.kv_store set indexes = '{x:y}' where key = 'h1'")
	c = requireChanges(t, conn, c, "h1")
	exec(t, conn, "update public.kv_store set updated_at = now() where key = 'h2'")
	c = requireChanges(t, conn, c, "h2")
	exec(t, conn, "update public.kv_store set key = 'h3' where key = 'h2'")
	c = requireChanges(t, conn, c, "h2", "h3")
	exec(t, conn, "update public.kv_store set key = 'i2' where key = 'i'")
	c = requireChanges(t, conn, c, "i", "i2")
	exec(t, conn, "insert into kv.member (index_key, member) values ('i2', 'hand')")
	c = requireChanges(t, conn, c, "i2")
	exec(t, conn, "update kv.member set member = 'HAND' where member = 'hand'")
	c = requireChanges(t, conn, c, "i2")
	exec(t, conn, "delete from kv.member where member = 'HAND'")
	c = requireChanges(t, conn, c, "i2")
	exec(t, conn, `merge into public.kv_store using (values ('h1'), ('h4')) as v(key) on v.key = kv_store.key
		when matched then update set value = '4' when not matched then insert (key, value) values (v.key, '5')`)
	c = requireChanges(t, conn, c, "h1", "h4")
	_, err := conn.PgConn().CopyFrom(context.Background(), strings.NewReader("copied\t{}\n"), "copy public.kv_store (key, value) from stdin")
	require.NoError(t, err)
	c = requireChanges(t, conn, c, "copied")
	exec(t, conn, "delete from public.kv_store where key in ('h1', 'h3')")
	c = requireChanges(t, conn, c, "h1", "h3")

	// A rollback undoes a change.
	tx, err := conn.Begin(context.Background())
	require.NoError(t, err)
	upsert(t, tx, "kept", `{}`, nil)
	exec(t, tx, "savepoint s")
	upsert(t, tx, "undone", `{}`, nil)
	exec(t, tx, "rollback to s")
	exec(t, tx, "savepoint s2")
	upsert(t, tx, "kept2", `{}`, nil)
	require.NoError(t, tx.Commit(context.Background()))
	c = requireChanges(t, conn, c, "kept", "kept2")

	for _, sql := range []string{"truncate public.kv_store", "truncate kv.member"} {
		upsert(t, conn, "a", `{}`, pairs{{"i", "m"}})
		c = changes(t, conn, c).Cursor
		exec(t, conn, sql)
		f = changes(t, conn, c)
		require.True(t, f.All, sql)
		c = requireChanges(t, conn, f.Cursor)
	}
	require.Equal(t, `{"keys":["a","i"],"count":2,"data":{"a":{},"i":[]}}`, kvList(t, conn, true, ``))
}

func TestChangesOfARestoreAreNamed(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	conn, owner := d.connect(t), d.owner(t)
	upsert(t, conn, "e", `{}`, pairs{{"i", "m"}})
	c := changes(t, conn, nil).Cursor
	exec(t, owner, "set session_replication_role = replica")
	exec(t, owner, `insert into public.kv_store (key, value, bytes, document, search, revision) values ('r', '{}', 2, '{}', '', 1)`)
	c = requireChanges(t, conn, c, "r")
	exec(t, owner, `update public.kv_store set value = '[]', document = '[]' where key = 'r'`)
	c = requireChanges(t, conn, c, "r")
	exec(t, owner, `update public.kv_store set key = 's' where key = 'r'`)
	c = requireChanges(t, conn, c, "r", "s")
	exec(t, owner, `insert into kv.member (index_key, member) values ('i', 'n')`)
	c = requireChanges(t, conn, c, "i")
	exec(t, owner, `delete from kv.member where member = 'n'`)
	c = requireChanges(t, conn, c, "i")
	exec(t, owner, `delete from public.kv_store where key = 's'`)
	c = requireChanges(t, conn, c, "s")
	for _, table := range []string{"kv.member", "public.kv_store"} {
		exec(t, owner, "truncate "+table)
		f := changes(t, conn, c)
		require.True(t, f.All, table)
		c = f.Cursor
	}
	exec(t, owner, "truncate kv.posting")
}

func TestTransactionsThatCommitOutOfOrder(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	d := newDatabase(t)
	a, b, reader := d.connect(t), d.connect(t), d.connect(t)
	c := changes(t, reader, nil).Cursor

	first, err := a.Begin(ctx)
	require.NoError(t, err)
	upsert(t, first, "early", `{}`, pairs{{"i", "m"}})
	upsert(t, b, "late", `{}`, nil)
	c = requireChanges(t, reader, c, "late")
	require.Equal(t, ``, get(t, reader, "early"))
	c = requireChanges(t, reader, c)
	require.NoError(t, first.Commit(ctx))
	c = requireChanges(t, reader, c, "early", "i")
	c = requireChanges(t, reader, c)

	// A transaction id taken long before the write.
	first, err = a.Begin(ctx)
	require.NoError(t, err)
	one[string](t, first, "select pg_current_xact_id()::text")
	upsert(t, b, "b1", `{}`, nil)
	c = requireChanges(t, reader, c, "b1")
	upsert(t, first, "a1", `{}`, nil)
	upsert(t, b, "b2", `{}`, nil)
	c = requireChanges(t, reader, c, "b2")
	exec(t, first, "savepoint s")
	upsert(t, first, "a2", `{}`, nil)
	require.NoError(t, first.Commit(ctx))
	c = requireChanges(t, reader, c, "a1", "a2")

	// A rollback at the end.
	first, err = a.Begin(ctx)
	require.NoError(t, err)
	upsert(t, first, "never", `{}`, nil)
	upsert(t, b, "b3", `{}`, nil)
	c = requireChanges(t, reader, c, "b3")
	require.NoError(t, first.Rollback(ctx))
	requireChanges(t, reader, c)
}

func TestALongTransactionElsewhereDoesNotHoldTheFeedBack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	d, elsewhere := newDatabase(t), newDatabase(t)
	long, err := elsewhere.connect(t).Begin(ctx)
	require.NoError(t, err)
	upsert(t, long, "k", `{}`, nil)

	conn := d.connect(t)
	c := changes(t, conn, nil).Cursor
	for i := range 20 {
		key := fmt.Sprint("k", i)
		upsert(t, conn, key, `{}`, nil)
		c = requireChanges(t, conn, c, key)
		c = requireChanges(t, conn, c)
	}
	require.NoError(t, long.Commit(ctx))
	requireChanges(t, conn, c)
}

// cursorParts takes a cursor apart: epoch, milliseconds, snapshot.
func cursorParts(t *testing.T, cursor string) (epoch string, ms int64, snapshot string) {
	t.Helper()
	parts := strings.Split(cursor, "/")
	require.Len(t, parts, 3)
	ms, err := strconv.ParseInt(parts[1], 10, 64)
	require.NoError(t, err)
	return parts[0], ms, parts[2]
}

// Pruning goes by a cursor's time, so it must not be later than its snapshot.
func TestACursorIsAsOldAsItsSnapshot(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	conn := newDatabase(t).connect(t)
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	require.NoError(t, err)
	taken := one[int64](t, tx, "select ceil(extract(epoch from clock_timestamp()) * 1000)::bigint")
	exec(t, tx, "select pg_sleep(0.05)")
	_, ms, _ := cursorParts(t, changes(t, tx, nil).Cursor)
	require.NoError(t, tx.Commit(ctx))
	require.LessOrEqual(t, ms, taken)
}

func TestCursorsThatTellNothingMeanEverything(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	upsert(t, conn, "a", `{}`, nil)
	epoch, ms, snapshot := cursorParts(t, changes(t, conn, nil).Cursor)
	join := func(epoch string, ms int64, snapshot string) string {
		return fmt.Sprintf("%s/%d/%s", epoch, ms, snapshot)
	}
	require.False(t, changes(t, conn, join(epoch, ms, snapshot)).All)
	xmax, err := strconv.ParseInt(strings.Split(snapshot, ":")[1], 10, 64)
	require.NoError(t, err)

	for name, cursor := range map[string]string{ // other tests in the cluster use transaction ids, too
		"Empty":               "",
		"Garbage":             "garbage",
		"Slashes":             "//",
		"OtherEpoch":          join("0123456789abcdef", ms, snapshot),
		"UpperCaseEpoch":      join(strings.ToUpper(epoch[:15])+"G", ms, snapshot),
		"TooOld":              join(epoch, ms-3_600_001, snapshot),
		"VeryOld":             join(epoch, 0, snapshot),
		"FromTheFuture":       join(epoch, ms, fmt.Sprintf("%d:%d:", xmax+1_000_000_000, xmax+1_000_000_000)),
		"FromTheFarFuture":    join(epoch, ms, "18446744073709551615:18446744073709551615:"),
		"NineteenNines":       join(epoch, ms, "9999999999999999999:9999999999999999999:"),
		"NoSnapshot":          join(epoch, ms, ""),
		"ZeroSnapshot":        join(epoch, ms, "0:0:"),
		"SnapshotBackwards":   join(epoch, ms, fmt.Sprintf("%d:%d:", xmax, xmax-1)),
		"SnapshotNotInOrder":  join(epoch, ms, fmt.Sprintf("%d:%d:%d,%d", xmax-3, xmax, xmax-1, xmax-2)),
		"SnapshotOutOfBounds": join(epoch, ms, fmt.Sprintf("%d:%d:%d", xmax-3, xmax-1, xmax+1)),
		"SnapshotOfCommas":    join(epoch, ms, fmt.Sprintf("%d:%d:,,", xmax-3, xmax)),
		"TwoLines":            join(epoch, ms, snapshot) + "\n" + join(epoch, ms, snapshot),
		"TrailingLine":        join(epoch, ms, snapshot) + "\n",
		"NegativeTime":        join(epoch, -1, snapshot),
		"Quote":               "'; truncate public.kv_store; --",
	} {
		t.Run(name, func(t *testing.T) {
			f := changes(t, conn, cursor)
			require.True(t, f.All, cursor)
			require.Empty(t, f.Keys)
			require.False(t, changes(t, conn, f.Cursor).All, "the new cursor is good")
		})
	}
	require.False(t, changes(t, conn, join(epoch, ms-3_500_000, snapshot)).All)
}

func TestMoreChangesThanAskedForMeanEverything(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	c := changes(t, conn, nil).Cursor
	for i := range 5 {
		upsert(t, conn, fmt.Sprint("k", i), `{}`, nil)
	}
	ask := func(limit int) (f feed) {
		require.NoError(t, json.Unmarshal([]byte(one[string](t, conn, "select public.kv_changes($1, $2)", c, limit)), &f))
		return f
	}
	require.False(t, ask(5).All)
	require.Len(t, ask(5).Keys, 5)
	require.True(t, ask(4).All)
	require.Empty(t, ask(4).Keys)
	require.True(t, ask(0).All)
	exec(t, conn, "insert into public.kv_store (key, value) select 'many' || i, '0' from generate_series(1, 1000) as i")
	require.True(t, changes(t, conn, c).All)
	require.False(t, changes(t, conn, changes(t, conn, c).Cursor).All)
}

// The feed names every key that differs between two snapshots, whatever writers do.
func TestNoChangeIsMissed(t *testing.T) {
	ctx := context.Background()
	source := random(t)
	d := newDatabase(t)
	const writers, readers, duration = 8, 3, 2500 * time.Millisecond
	seeds := make([]uint64, writers)
	for i := range seeds {
		seeds[i] = source.Uint64()
	}
	var committed, compared, named, everything atomic.Int64
	// A slow machine takes longer to have something to compare.
	end, longest := time.Now().Add(duration), time.Now().Add(time.Minute)
	over := func() bool {
		return time.Now().After(end) && (committed.Load() > 50 && compared.Load() > 40 || time.Now().After(longest))
	}
	together(t, d, writers+readers, func(worker int, conn *pgx.Conn) error {
		if worker >= writers {
			return readFeed(ctx, conn, over, &compared, &named, &everything)
		}
		r := rand.New(rand.NewPCG(seeds[worker], 7))
		for !over() {
			tx, err := conn.Begin(ctx)
			if err != nil {
				return err
			}
			// Each writer has its own keys, and all indexes sort after every key: no deadlocks by design.
			for i := range 1 + r.IntN(3) {
				key := fmt.Sprintf("w%d.%d", worker, r.IntN(4))
				savepoint := r.IntN(4) == 0
				if savepoint {
					if _, err := tx.Exec(ctx, "savepoint s"); err != nil {
						return err
					}
				}
				switch r.IntN(6) {
				case 0:
					_, err = tx.Exec(ctx, "select public.kv_delete($1)", key)
				case 1:
					_, err = tx.Exec(ctx, "update public.kv_store set key = key || '+' where key = $1 and not exists (select from public.kv_store where key = $1 || '+')", key)
				default:
					_, err = tx.Exec(ctx, "select public.kv_upsert($1, $2, $3)", key, fmt.Sprintf(`{"n":%d}`, r.IntN(1000)),
						[][]string{{"x-index" + strconv.Itoa(worker), fmt.Sprint(r.IntN(100000), i)}})
				}
				if err != nil {
					return err
				}
				if savepoint && r.IntN(2) == 0 {
					if _, err := tx.Exec(ctx, "rollback to s"); err != nil {
						return err
					}
				}
				if r.IntN(3) == 0 {
					time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
				}
			}
			if r.IntN(6) == 0 {
				err = tx.Rollback(ctx)
			} else if err = tx.Commit(ctx); err == nil {
				committed.Add(1)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	t.Logf("%d transactions committed; %d snapshots compared, %d keys named, %d times everything",
		committed.Load(), compared.Load(), named.Load(), everything.Load())
	require.Greater(t, committed.Load(), int64(50))
	require.Greater(t, compared.Load(), int64(20))
	require.Less(t, everything.Load()*10, compared.Load(), "everything was said to have changed far too often")
}

// readFeed compares each snapshot with the one before, and the difference with what the feed names.
func readFeed(ctx context.Context, conn *pgx.Conn, over func() bool, compared, named, everything *atomic.Int64) error {
	var cursor *string
	seen := map[string]string{}
	for last := false; !last; {
		last = over()
		tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
		if err != nil {
			return err
		}
		var text string
		if err := tx.QueryRow(ctx, "select public.kv_changes($1)", cursor).Scan(&text); err != nil {
			return err
		}
		var f feed
		if err := json.Unmarshal([]byte(text), &f); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, "select key, public.kv_get(key) || indexes::text from public.kv_store")
		if err != nil {
			return err
		}
		now := map[string]string{}
		var key, value string
		if _, err := pgx.ForEachRow(rows, []any{&key, &value}, func() error { now[key] = value; return nil }); err != nil {
			return err
		}
		if err := tx.Commit(ctx); err != nil {
			return err
		}
		if f.All {
			everything.Add(1)
		} else {
			for key, value := range now {
				if before, known := seen[key]; (!known || before != value) && !slices.Contains(f.Keys, key) {
					return fmt.Errorf("%s changed from %q to %q, and the feed named only %q (%s to %s)", key, before, value, f.Keys, *cursor, f.Cursor)
				}
			}
			for key := range seen {
				if _, still := now[key]; !still && !slices.Contains(f.Keys, key) {
					return fmt.Errorf("%s was removed, and the feed named only %q (%s to %s)", key, f.Keys, *cursor, f.Cursor)
				}
			}
		}
		compared.Add(1)
		named.Add(int64(len(f.Keys)))
		seen, cursor = now, &f.Cursor
		time.Sleep(3 * time.Millisecond)
	}
	return nil
}

// passTime makes the marks of the log and the given cursors older.
func passTime(t *testing.T, q querier, by time.Duration, cursors ...*string) {
	t.Helper()
	exec(t, q, "update kv.log_mark set at = at - $1::text::interval where true", fmt.Sprintf("%d milliseconds", by.Milliseconds()))
	for _, cursor := range cursors {
		epoch, ms, snapshot := cursorParts(t, *cursor)
		*cursor = fmt.Sprintf("%s/%d/%s", epoch, ms-by.Milliseconds(), snapshot)
	}
}

func prune(t *testing.T, q querier) int {
	t.Helper()
	return one[int](t, q, "select public.kv_prune_log()")
}

// waitForOlderTransactions waits until every transaction of the cluster that began before the last change has ended.
// Only then can a mark say that the change is over.
func waitForOlderTransactions(t *testing.T, q querier) {
	t.Helper()
	require.Eventually(t, func() bool {
		return one[bool](t, q, "select pg_snapshot_xmin(pg_current_snapshot()) > (select max(transaction_id) from kv.log)")
	}, 2*time.Minute, 20*time.Millisecond, "a transaction has been open all the time, perhaps in another database")
}

func TestPruningRemovesWhatIsOver(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	count := func() int { return one[int](t, conn, "select count(*) from kv.log") }
	exec(t, conn, "insert into public.kv_store (key, value) select 'k' || i, '0' from generate_series(1, 5000) as i")
	waitForOlderTransactions(t, conn)
	require.Zero(t, prune(t, conn))
	require.Equal(t, 1, one[int](t, conn, "select count(*) from kv.log_mark"))
	require.Zero(t, prune(t, conn))
	require.Equal(t, 1, one[int](t, conn, "select count(*) from kv.log_mark"), "one mark a minute")
	passTime(t, conn, 59*time.Minute)
	require.Zero(t, prune(t, conn))
	passTime(t, conn, 2*time.Minute)
	require.Equal(t, 2000, prune(t, conn))
	require.Equal(t, 2000, prune(t, conn))
	exec(t, conn, "insert into public.kv_store (key, value) values ('fresh', '0')") // an upsert may prune by itself
	require.Equal(t, 1000, prune(t, conn))
	require.Zero(t, prune(t, conn))
	require.Equal(t, 1, count())
	require.LessOrEqual(t, one[int](t, conn, "select count(*) from kv.log_mark"), 3)
}

// The time of the commit counts, not that of the write.
func TestPruningKeepsWhatALateCommitWrote(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	d := newDatabase(t)
	conn := d.connect(t)
	prune(t, conn)
	late, err := d.connect(t).Begin(ctx)
	require.NoError(t, err)
	upsert(t, late, "late", `{}`, nil)
	upsert(t, conn, "other", `{}`, nil)
	for range 4 {
		passTime(t, conn, 50*time.Minute)
		prune(t, conn)
	}
	c := changes(t, conn, nil).Cursor
	passTime(t, conn, 10*time.Minute, &c)
	prune(t, conn)
	require.NoError(t, late.Commit(ctx))
	for range 5 {
		passTime(t, conn, 9*time.Minute, &c)
		prune(t, conn)
	}
	requireChanges(t, conn, c, "late")
}

// A dump may bring marks of another cluster, whose transaction ids mean nothing here.
func TestMarksOfAnotherClusterDoNotCount(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	exec(t, conn, `
		insert into kv.log_mark (at, horizon)
		select clock_timestamp() - age, (pg_current_xact_id()::text::bigint + ahead)::text::xid8
		from unnest('{2 hours,3 minutes}'::interval[]) as age, unnest('{3,1000000000}'::bigint[]) as ahead`)
	exec(t, conn, "update kv.log_mark set epoch = 'another' where true")
	c := changes(t, conn, nil).Cursor
	first := one[string](t, conn, upsertAs, "a", `{}`, nil, requestID(1))
	for i := range 5 {
		upsert(t, conn, fmt.Sprint("b", i), `{}`, nil)
	}
	require.Zero(t, prune(t, conn))
	require.Equal(t, first, one[string](t, conn, upsertAs, "a", `{}`, nil, requestID(1)))
	requireChanges(t, conn, c, "a", "b0", "b1", "b2", "b3", "b4")
}

// A cursor of the last hour misses nothing, with random writers that commit late, passing time and pruning.
func TestPruningNeverRemovesWhatAValidCursorHasNotSeen(t *testing.T) {
	// Not parallel: an open transaction of another test, in any database, would keep the log from being pruned.
	ctx := context.Background()
	r := random(t)
	d := newDatabase(t)
	conn := d.connect(t)
	type writer struct {
		conn *pgx.Conn
		tx   pgx.Tx
		keys []string
	}
	type reader struct {
		cursor string
		age    time.Duration
		unseen map[string]bool // committed since
	}
	writers := make([]*writer, 4)
	for i := range writers {
		writers[i] = &writer{conn: d.connect(t)}
	}
	var readers []*reader
	names, pruned, valid := 0, 0, 0
	for range 700 {
		switch r.IntN(8) {
		case 0, 1, 2:
			w := writers[r.IntN(len(writers))]
			if w.tx == nil {
				var err error
				w.tx, err = w.conn.Begin(ctx)
				require.NoError(t, err)
			}
			names++
			w.keys = append(w.keys, fmt.Sprint("k", names))
			exec(t, w.tx, "insert into public.kv_store (key, value) values ($1, '0')", w.keys[len(w.keys)-1])
		case 3, 4:
			w := writers[r.IntN(len(writers))]
			if w.tx == nil {
				continue
			}
			if r.IntN(5) == 0 {
				require.NoError(t, w.tx.Rollback(ctx))
			} else {
				require.NoError(t, w.tx.Commit(ctx))
				for _, known := range readers {
					for _, key := range w.keys {
						known.unseen[key] = true
					}
				}
			}
			w.tx, w.keys = nil, nil
		case 5:
			readers = append(readers, &reader{cursor: changes(t, conn, nil).Cursor, unseen: map[string]bool{}})
		case 6:
			by := time.Duration(r.IntN(25)) * time.Minute
			cursors := make([]*string, len(readers))
			for i, known := range readers {
				known.age += by
				cursors[i] = &known.cursor
			}
			passTime(t, conn, by, cursors...)
		case 7:
			pruned += prune(t, conn)
			for _, known := range readers {
				f := changes(t, conn, known.cursor)
				if known.age < 59*time.Minute {
					require.False(t, f.All)
				}
				if f.All {
					continue
				}
				valid++
				require.Len(t, f.Keys, len(known.unseen))
				for _, key := range f.Keys {
					require.True(t, known.unseen[key], key)
				}
			}
			readers = slices.DeleteFunc(readers, func(known *reader) bool { return known.age > 70*time.Minute || r.IntN(8) == 0 })
		}
	}
	t.Logf("%d reads with cursors of the last hour, %d changes pruned", valid, pruned)
	require.Greater(t, valid, 50)
	require.Positive(t, pruned)
}
