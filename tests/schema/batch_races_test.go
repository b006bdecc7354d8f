package schema

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// batch calls kv_batch with operations, JSON objects, and returns its response or error.
func batch(q querier, atomic bool, operations ...string) (response string, err error) {
	err = q.QueryRow(context.Background(), "select public.kv_batch($1::text::jsonb, $2)", "["+strings.Join(operations, ",")+"]", atomic).Scan(&response)
	return response, err
}

// begin begins a transaction that is rolled back at the end of the test, unless it has ended by then.
func begin(t *testing.T, conn *pgx.Conn) pgx.Tx {
	t.Helper()
	tx, err := conn.Begin(context.Background())
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return tx
}

// waitsFor runs work on a connection, and returns once it waits for a lock. result waits for its end.
func waitsFor(t *testing.T, d *database, conn *pgx.Conn, work func() (string, error)) (result func() (string, error)) {
	t.Helper()
	type outcome struct {
		response string
		err      error
	}
	outcomes := make(chan outcome, 1)
	go func() {
		response, err := work()
		outcomes <- outcome{response, err}
	}()
	watch := d.superuser(t)
	require.Eventually(t, func() bool {
		return one[bool](t, watch, "select cardinality(pg_blocking_pids($1)) > 0", conn.PgConn().PID())
	}, 30*time.Second, 5*time.Millisecond, "it waits for no lock")
	return func() (string, error) { o := <-outcomes; return o.response, o.err }
}

// Each of two batches checks that the other's key is absent. In any order, the second one finds it.
func TestBatchesThatCheckEachOthersAbsenceDoNotBothHold(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	d := newDatabase(t)
	one1, two := d.connect(t), d.connect(t)
	first := begin(t, one1)
	response, err := batch(first, true, `{"action":"check","key":"a","if_none_match":["*"]}`, `{"action":"put","key":"b","value":"1"}`)
	require.NoError(t, err)
	require.NotContains(t, response, "condition_failed")
	result := waitsFor(t, d, two, func() (string, error) {
		return batch(two, true, `{"action":"put","key":"a","value":"1"}`, `{"action":"check","key":"b","if_none_match":["*"]}`)
	})
	require.NoError(t, first.Commit(ctx))
	response, err = result()
	if code(err) == "55P03" { // callers repeat it
		response, err = batch(two, true, `{"action":"put","key":"a","value":"1"}`, `{"action":"check","key":"b","if_none_match":["*"]}`)
	}
	require.NoError(t, err)
	require.Contains(t, response, "condition_failed")
	require.Equal(t, "", get(t, two, "a"))
}

// A clear counts what is there once it has the locks, and removes just that.
func TestAClearDoesNotCountAnEntryThatItLeaves(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	one1, two := d.connect(t), d.connect(t)
	upsert(t, one1, "k/1", `1`, nil)
	upsert(t, one1, "k/2", `2`, nil)
	other := begin(t, one1)
	remove(t, other, "k/1")
	upsert(t, other, "k/9", `9`, nil)
	result := waitsFor(t, d, two, func() (response string, err error) {
		err = two.QueryRow(context.Background(), "select public.kv_clear('k/', 2, 1000, gen_random_uuid())").Scan(&response)
		return response, err
	})
	require.NoError(t, other.Commit(context.Background()))
	_, err := result()
	left := all[string](t, two, "select key from public.kv_store where starts_with(key, 'k/') order by key")
	if err == nil {
		require.Empty(t, left, "it said that it removed all")
	} else {
		require.Equal(t, "PT409", code(err))
		require.Equal(t, []string{"k/2", "k/9"}, left)
	}
}

// An upsert holds the members of an index entry while it waits for an entry behind it. A clear goes the same way.
func TestAClearLocksInTheOrderOfUpserts(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	d := newDatabase(t)
	one1, two := d.connect(t), d.connect(t)
	upsert(t, one1, "k/5", `{}`, pairs{{"k/1", "m"}})
	adds := begin(t, one1) // kv_upsert('k/5', …, '{{k/1,n}}'), step by step
	exec(t, adds, "select kv.lock_index('k/1', false)")
	result := waitsFor(t, d, two, func() (response string, err error) {
		err = two.QueryRow(ctx, "select public.kv_clear('k/', 2, 1000, gen_random_uuid())").Scan(&response)
		return response, err
	})
	upsert(t, adds, "k/5", `{"n":2}`, pairs{{"k/1", "n"}})
	require.NoError(t, adds.Commit(ctx))
	_, err := result()
	require.NoError(t, err)
	require.Zero(t, one[int](t, two, "select count(*) from public.kv_store"))
}

// What a put would have filed itself under stays as it is if the put fails.
func TestAPutThatFailsLeavesTheEntryUnderItsIndexKey(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	conn := d.connect(t)
	for name, operations := range map[string][]string{
		"ABefore": {`{"action":"put","key":"m","value":"1","if_match":["none"],"indexes":[["a","m"]]}`},
		"ZBehind": {`{"action":"put","key":"m","value":"1","if_match":["none"],"indexes":[["z","m"]]}`},
		"Written": {`{"action":"put","key":"a","value":"{\"kept\":true}"}`, `{"action":"put","key":"m","value":"1","if_match":["none"],"indexes":[["a","m"]]}`},
	} {
		upsert(t, conn, "a", `{"kept":true}`, pairs{})
		upsert(t, conn, "z", `{"kept":true}`, pairs{})
		response, err := batch(conn, false, operations...)
		require.NoError(t, err)
		require.Contains(t, response, "condition_failed")
		require.Equal(t, `{"kept":true}`, get(t, conn, "a"), name)
		require.Equal(t, `{"kept":true}`, get(t, conn, "z"), name)
	}
	response, err := batch(conn, false, `{"action":"put","key":"m","value":"1","indexes":[["a","m"]]}`, `{"action":"put","key":"n","value":"1","if_match":["none"],"indexes":[["a","n"]]}`)
	require.NoError(t, err)
	require.Contains(t, response, "condition_failed")
	require.Equal(t, `["m"]`, get(t, conn, "a"))
}

// An entry that has expired is none: its indexes and its age are gone with it, also if the index key that it has becomes an index entry.
func TestAnIndexEntryInPlaceOfAnExpiredEntryIsNew(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	_, err := batch(conn, false, `{"action":"put","key":"x","value":"[\"old\"]","ttl":1,"indexes":[["group","x"]]}`)
	require.NoError(t, err)
	exec(t, conn, "update public.kv_store set expires_at = clock_timestamp() - interval '1 second', created_at = '2020-01-01' where key = 'x'")
	upsert(t, conn, "e", `{}`, pairs{{"x", "m"}})
	require.Equal(t, `["m"]`, get(t, conn, "x"))
	require.Empty(t, all[string](t, conn, "select key from kv.posting where index_key = 'group'"))
	require.True(t, one[bool](t, conn, "select created_at > '2021-01-01' and auto_created from public.kv_store where key = 'x'"))
}

// A write that waited until the entry had expired creates one.
func TestAWriteThatWaitsPastAnExpiryCreates(t *testing.T) {
	t.Parallel()
	for name, holder := range map[string]string{
		"Written": "update public.kv_store set metadata = '{}' where key = 'k'",
		"Locked":  "select from public.kv_store where key = 'k' for no key update",
	} {
		for what, write := range map[string]func(q querier) (string, error){
			"Put": func(q querier) (string, error) { return batch(q, false, `{"action":"put","key":"k","value":"2"}`) },
			"Upsert": func(q querier) (string, error) {
				_, err := q.Exec(context.Background(), "select public.kv_upsert('k', '2')")
				return "", err
			},
		} {
			t.Run(what+name, func(t *testing.T) {
				t.Parallel()
				d := newDatabase(t)
				one1, two := d.connect(t), d.connect(t)
				_, err := batch(one1, false, `{"action":"put","key":"k","value":"1","ttl":3,"indexes":[["group","x"]]}`)
				require.NoError(t, err)
				holds := begin(t, one1)
				exec(t, holds, holder)
				result := waitsFor(t, d, two, func() (string, error) { return write(two) })
				exec(t, holds, "select pg_sleep(extract(epoch from expires_at - clock_timestamp()) + 0.1) from public.kv_store where key = 'k'")
				require.NoError(t, holds.Commit(context.Background()))
				response, err := result()
				require.NoError(t, err)
				require.Empty(t, all[string](t, two, "select key from kv.posting where index_key = 'group'"), "it has the indexes of the entry that had expired")
				if response != "" {
					require.Contains(t, response, `"existed":false`)
				}
			})
		}
	}
}

// A condition that held is still true of what is written, also if the entry expires between the two.
func TestAConditionThatHeldOfAnEntryIsOfTheOneThatIsReplaced(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	upsert(t, conn, "k", `1`, pairs{})
	exec(t, conn, `
		do $$
		declare
			v_operation kv.operation := jsonb_populate_record(null::kv.operation, '{"action":"put","key":"k","value":"2","if_match":["*"]}');
			v_outcome   kv.outcome;
			v_delay     double precision := 1; -- milliseconds, near which the entry expires just when it is looked at: on any machine
			v_held      integer := 0;
		begin
			for i in 1 .. 1000 loop
				update public.kv_store set expires_at = clock_timestamp() + v_delay * interval '1 millisecond' where key = 'k';
				v_outcome := kv.apply_operation(v_operation, false, false, 1000000);
				if v_outcome.code is null and not v_outcome.existed then
					raise exception 'the condition held, but there was no entry (try %)', i;
				end if;
				if v_outcome.code is null then
					v_held := v_held + 1;
					v_delay := v_delay * 0.95;
				else
					v_delay := v_delay * 1.05;
					perform public.kv_upsert('k', '1');
				end if;
			end loop;
			if v_held in (0, 1000) then
				raise exception 'no entry expired close to its put: % of 1000 held', v_held;
			end if;
		end
		$$`)
}

// What a caller replaced by an entry that expires is not imported again once that is gone.
func TestAnImportDoesNotBringBackWhatExpired(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	session := one[string](t, conn, "select gen_random_uuid()")
	exec(t, conn, "select public.kv_migration_open('a source', '{}', '{}', $1, 'a test', 600, null, false)", session)
	exec(t, conn, importOf("{k}", `{1}`, "{f}"), session)
	_, err := batch(conn, false, `{"action":"put","key":"k","value":"2","ttl":1}`)
	require.NoError(t, err)
	exec(t, conn, "update public.kv_store set expires_at = clock_timestamp() - interval '1 second' where key = 'k'")
	exec(t, conn, "select kv.remove_expired(100)")
	exec(t, conn, importOf("{k}", `{1}`, "{f}"), session)
	require.Equal(t, "", get(t, conn, "k"))
}

// The ETag of an index entry tells that an import gave it other members.
func TestAnImportOfOtherMembersChangesTheETag(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	session := one[string](t, conn, "select gen_random_uuid()")
	exec(t, conn, "select public.kv_migration_open('a source', '{}', '{}', $1, 'a test', 600, null, false)", session)
	const etag = "select kv.etag(e) || ' ' || kv.row_revision(key) from kv.entry as e where key = 'i'"
	seen := map[string]string{}
	for _, list := range []string{`["a","b"]`, `["a","c"]`, `["c","a"]`, `["c"]`, `["b"]`, `["a","b"]`} {
		exec(t, conn, importOf("{i}", `{"`+strings.ReplaceAll(list, `"`, `\"`)+`"}`, "{t}"), session)
		require.Equal(t, list, get(t, conn, "i"))
		tag := one[string](t, conn, etag)
		require.Empty(t, seen[tag], fmt.Sprintf("%s has the ETag of another list", list))
		seen[tag] = list
	}
}

// A time that no answer can show would make every list that has the entry fail.
func TestATimeOfAnEntryIsOneThatAnswersCanShow(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	for _, column := range []string{"created_at", "updated_at", "expires_at"} {
		for _, at := range []string{"infinity", "-infinity", "10000-01-01 00:00+00", "0001-12-31 23:59:59+00 BC"} {
			requireCode(t, "23514", conn, fmt.Sprintf("insert into public.kv_store (key, value, %s) values ('k', '1', $1::text::timestamptz)", column), at)
		}
	}
	exec(t, conn, "insert into public.kv_store (key, value, expires_at) values ('k', '1', '9999-12-31 23:59:59.999999+00')")
	require.Contains(t, one[string](t, conn, "select public.kv_entry('k')"), `"expiresAt":"9999-12-31T23:59:59.999Z"`)
}

// A delete of what is only in the other store is one there, as that of kv_delete: else it would come back.
func TestADeleteInABatchThatFindsNothingIsOneOfTheOtherStore(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	session := one[string](t, conn, "select gen_random_uuid()")
	exec(t, conn, "select public.kv_migration_open('a source', '{}', '{}', $1, 'a test', 600, null, false)", session)
	_, err := batch(conn, false, `{"action":"delete","key":"a"}`)
	require.NoError(t, err)
	_, err = batch(conn, true, `{"action":"delete","key":"b"}`, `{"action":"put","key":"c","value":"1"}`)
	require.NoError(t, err)
	require.Equal(t, `["deleted","deleted"]`, one[string](t, conn, importOf("{a,b}", `{1,2}`, "{f,f}"), session))

	response := one[string](t, conn, `select public.kv_batch('[{"action":"delete","key":"d"},{"action":"take","key":"e"}]', false, gen_random_uuid(), null, true)`)
	require.Equal(t, []string{"d"}, all[string](t, conn, "select key from kv.outbox"))
	require.Contains(t, response, `"key" : "d"`)
}

// Batches of every kind, beside upserts, deletes, clears and imports of the same few keys, which are entries and index keys.
func TestRacingBatchesNeverDeadlock(t *testing.T) {
	t.Parallel()
	const workers = 12
	rounds := number(t, "KV_SCHEMA_RACES", 500) / workers
	source := random(t)
	d := newDatabase(t)
	seeds := make([]uint64, workers)
	for i := range seeds {
		seeds[i] = source.Uint64()
	}
	session := one[string](t, d.connect(t), "select gen_random_uuid()")
	exec(t, d.connect(t), "select public.kv_migration_open('a source', '{}', '{}', $1, 'a test', 600, null, false)", session)
	var mutex sync.Mutex
	codes, counted := map[string]int{}, 0
	together(t, d, workers, func(worker int, conn *pgx.Conn) error {
		r := rand.New(rand.NewPCG(seeds[worker], uint64(worker)))
		key := func() string { return fmt.Sprint("k", r.IntN(12)) }
		operation := func(key string) string {
			o := fmt.Sprintf(`"key":%q`, key)
			switch r.IntN(8) {
			case 0, 1, 2:
				o += fmt.Sprintf(`,"action":"put","value":"[%d]"`, worker)
				if r.IntN(2) == 0 {
					o += `,"indexes":[`
					for i := range 1 + r.IntN(3) {
						index := fmt.Sprint("k", r.IntN(12))
						for index == key {
							index = fmt.Sprint("k", r.IntN(12))
						}
						o += fmt.Sprintf(`%s[%q,"m%d"]`, ","[:min(i, 1)], index, r.IntN(5))
					}
					o += "]"
				}
				o += []string{"", `,"if_none_match":["*"]`, `,"if_match":["*"]`, `,"ttl":0.01`}[r.IntN(4)]
			case 3:
				o += `,"action":"delete"`
			case 4:
				o += `,"action":"take"`
			case 5:
				o += `,"action":"get"`
			case 6:
				o += `,"action":"check","if_none_match":["*"]`
			default:
				o += `,"action":"increment","delta":1`
			}
			return "{" + o + "}"
		}
		for range rounds {
			var err error
			var response string
			var operations []string
			switch r.IntN(8) {
			case 0:
				var n int
				if err = conn.QueryRow(context.Background(), "select kv.count_entries('k', 'l', 100)").Scan(&n); err == nil {
					_, err = conn.Exec(context.Background(), "select public.kv_clear('k', $1, 1000, gen_random_uuid())", n)
				}
			case 1:
				a, b := r.IntN(12), r.IntN(11)
				if b >= a {
					b++
				}
				_, err = conn.Exec(context.Background(), "select public.kv_upsert($1, '{}', $2)", fmt.Sprint("k", a), [][]string{{fmt.Sprint("k", b), fmt.Sprint("m", r.IntN(5))}})
			case 2:
				_, err = conn.Exec(context.Background(), "select public.kv_delete($1)", key())
			case 3:
				_, err = conn.Exec(context.Background(), importOf("{k3,k1,k2}", `{1,"[\"m\"]",2}`, "{f,t,f}"), session)
			case 4:
				_, err = conn.Exec(context.Background(), "select kv.remove_expired(100)")
			default:
				atomic := r.IntN(2) == 0
				for _, n := range r.Perm(12)[:1+r.IntN(6)] {
					operations = append(operations, operation(fmt.Sprint("k", n)))
				}
				if atomic {
					operations = append(operations, `{"key":"count","action":"increment","delta":1}`)
				}
				if response, err = batch(conn, atomic, operations...); err == nil && atomic && !strings.Contains(response, `"failed"`) {
					mutex.Lock()
					counted++
					mutex.Unlock()
				}
			}
			mutex.Lock()
			codes[code(err)]++
			mutex.Unlock()
			if c := code(err); c != "" && c != "55P03" && c != "PT409" {
				return fmt.Errorf("worker %d, %v: %w", worker, operations, err)
			}
		}
		return nil
	})
	t.Logf("%v, %d atomic batches", codes, counted)
	require.Equal(t, fmt.Sprint(counted), get(t, d.connect(t), "count"), "atomic batches that were applied")
}

// An import inserts new entries many at once, but locks no key before a lower one.
func TestAnImportLocksInTheOrderOfUpserts(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	d := newDatabase(t)
	one1, two := d.connect(t), d.connect(t)
	session := one[string](t, one1, "select gen_random_uuid()")
	exec(t, one1, "select public.kv_migration_open('a source', '{}', '{}', $1, 'a test', 600, null, false)", session)
	writes := begin(t, one1) // a batch, step by step
	upsert(t, writes, "k/2", `{}`, nil)
	result := waitsFor(t, d, two, func() (response string, err error) {
		err = two.QueryRow(ctx, importOf("{k/3,k/2,k/1,k/4}", `{3,"[\"m\"]",1,4}`, "{f,t,f,f}"), session).Scan(&response)
		return response, err
	})
	upsert(t, writes, "k/3", `{}`, nil)
	require.NoError(t, writes.Commit(ctx))
	response, err := result()
	require.NoError(t, err)
	require.Equal(t, `["foreign","foreign","written","written"]`, response)
	require.Equal(t, []string{"foreign", "foreign", "imported", "imported"}, all[string](t, one1, "select state from kv.import order by state, key"))
	require.Equal(t, `["same","same"]`, one[string](t, one1, importOf("{k/4,k/1}", `{4,1}`, "{f,f}"), session), "it knows its own rows")
}

// An entry that another call creates while an import waits for a lower key is locked before higher ones, like all others.
func TestAnImportHoldsNoKeyBehindAnEntryThatAnotherCallCreated(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	d := newDatabase(t)
	maker, imports, writes := d.connect(t), d.connect(t), d.connect(t)
	session := one[string](t, maker, "select gen_random_uuid()")
	exec(t, maker, "select public.kv_migration_open('a source', '{}', '{}', $1, 'a test', 600, null, false)", session)
	makes := begin(t, maker)
	upsert(t, makes, "k/1", `{}`, nil)
	imported := waitsFor(t, d, imports, func() (response string, err error) {
		err = imports.QueryRow(ctx, importOf("{k/1,k/2,k/3}", `{1,2,3}`, "{f,f,f}"), session).Scan(&response)
		return response, err
	})
	upsert(t, writes, "k/2", `{}`, nil)
	later := begin(t, writes)
	exec(t, later, "select from public.kv_store where key = 'k/2' for no key update") // as kv_batch does before it looks at a condition
	require.NoError(t, makes.Commit(ctx))
	watch := d.superuser(t)
	require.Eventually(t, func() bool {
		return one[bool](t, watch, "select $2 = any (pg_blocking_pids($1))", imports.PgConn().PID(), writes.PgConn().PID())
	}, 30*time.Second, 5*time.Millisecond, "the import does not wait for k/2")
	upsert(t, later, "k/3", `{}`, nil)
	require.NoError(t, later.Commit(ctx))
	response, err := imported()
	require.NoError(t, err)
	require.Equal(t, `["foreign","foreign","foreign"]`, response)
	require.Equal(t, `{}`, get(t, maker, "k/3"))
}

// An entry that was deleted and created again while a clear waited, and has expired since, is not locked: to wait for it could be a deadlock.
func TestAClearRemovesOnlyWhatItHasLocked(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	d := newDatabase(t)
	first, clears, second := d.connect(t), d.connect(t), d.connect(t)
	for _, key := range []string{"k/1", "k/2", "k/3"} {
		upsert(t, first, key, `1`, nil)
	}
	exec(t, first, "update public.kv_store set expires_at = clock_timestamp() - interval '1 second' where key = 'k/2'")
	exec(t, clears, "set lock_timeout = '5s'")
	holds := begin(t, first)
	exec(t, holds, "select from public.kv_store where key = 'k/1' for update")
	cleared := waitsFor(t, d, clears, func() (response string, err error) {
		err = clears.QueryRow(ctx, "select public.kv_clear('k/', 2, 1000, gen_random_uuid())").Scan(&response)
		return response, err
	})
	exec(t, second, "delete from public.kv_store where key = 'k/2'")
	exec(t, second, "insert into public.kv_store (key, value, expires_at) values ('k/2', '2', clock_timestamp() - interval '1 second')")
	writes := begin(t, second)
	exec(t, writes, "select from public.kv_store where key = 'k/2' for update")
	require.NoError(t, holds.Commit(ctx))
	_, err := cleared()
	require.NoError(t, err)
	require.NoError(t, writes.Commit(ctx))
	require.Equal(t, []string{"k/2"}, all[string](t, first, "select key from public.kv_store"))
}
