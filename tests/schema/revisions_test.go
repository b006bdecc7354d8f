package schema

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// writer runs one statement at a time on its own connection. A statement that waits for another writer continues by
// itself.
type writer struct {
	conn *pgx.Conn
	pid  uint32
	done chan error // of the statement that is running; nil: none is
}

func newWriter(t *testing.T, d *database) *writer {
	conn := d.connect(t)
	return &writer{conn: conn, pid: conn.PgConn().PID()}
}

// expected are the errors of a second writer: an index entry is being replaced, or SQL by hand did not look first.
var expected = []string{"", "55P03", "23505"}

// start runs a statement until it ends or waits for a lock, and reports whether it has ended.
func (w *writer) start(t *testing.T, watch *pgx.Conn, sql string) (ended bool) {
	t.Helper()
	require.Nil(t, w.done, "the statement before is still running")
	w.done = make(chan error, 1)
	go func() {
		_, err := w.conn.Exec(context.Background(), sql)
		w.done <- err
	}()
	return w.settle(t, watch)
}

// settle waits until the running statement has ended or waits for a lock.
func (w *writer) settle(t *testing.T, watch *pgx.Conn) (ended bool) {
	t.Helper()
	for w.done != nil {
		select {
		case err := <-w.done:
			w.done = nil
			require.Contains(t, expected, code(err), "%v", err)
			return true
		case <-time.After(time.Millisecond):
		}
		if one[bool](t, watch, "select exists (select from pg_locks where pid = $1 and not granted)", w.pid) {
			return false
		}
	}
	return true
}

// orders returns all orders of the events in which the first of each pair comes before the second.
func orders(events []string, before [][2]string) (all [][]string) {
	if len(events) == 0 {
		return [][]string{nil}
	}
	for i, event := range events {
		if slices.ContainsFunc(before, func(pair [2]string) bool { return pair[1] == event && slices.Contains(events, pair[0]) }) {
			continue
		}
		rest := slices.Concat(events[:i], events[i+1:])
		for _, order := range orders(rest, before) {
			all = append(all, append([]string{event}, order...))
		}
	}
	return all
}

// A reader of one key only sees growing revisions. Of four writers, one inserts and stays open, one updates, one
// deletes, and one inserts and is held back after it has taken its revision, in every order (without LONG, in those
// that delete meanwhile).
func TestARevisionNeverGoesBackwards(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	// This trigger is the last before the row is written. Where the test asks for it, it waits for a lock that the
	// test holds.
	exec(t, d.superuser(t), `
		create function public.zz_pause() returns trigger language plpgsql as $$
		begin
			if current_setting('test.pause', true) = 'on' then
				perform pg_advisory_xact_lock(42);
			end if;
			return new;
		end $$;
		grant execute on function public.zz_pause() to service_role;
		create trigger zz_pause before insert or update of key on public.kv_store for each row execute function public.zz_pause();`)
	for name, sql := range map[string]map[string]string{
		"BySQL": {
			"insert":  "insert into public.kv_store (key, value) values ('k', '{\"by\":\"insert\"}') on conflict (key) do update set value = excluded.value",
			"update":  "update public.kv_store set value = '{\"by\":\"update\"}' where key = 'k'",
			"delete":  "delete from public.kv_store where key = 'k'",
			"waiting": "insert into public.kv_store (key, value) values ('k', '{\"by\":\"waiting\"}') on conflict (key) do update set value = excluded.value",
		},
		"ByFunction": {
			"insert":  "select public.kv_upsert('k', '{\"by\":\"insert\"}')",
			"update":  "select public.kv_upsert('k', '{\"by\":\"update\"}')",
			"delete":  "select public.kv_delete('k')",
			"waiting": "select public.kv_upsert('k', '{\"by\":\"waiting\"}')",
		},
		"ByRename": {
			"insert":  "insert into public.kv_store (key, value) values ('k', '{}') on conflict (key) do update set value = '[]'",
			"update":  "update public.kv_store set value = '{\"by\":\"update\"}' where key = 'k'",
			"delete":  "update public.kv_store set key = 'away' || gen_random_uuid() where key = 'k'",
			"waiting": "update public.kv_store set key = 'k' where key = 'from' and not exists (select from public.kv_store where key = 'k')",
		},
		"AsAnIndex": {
			"insert":  "select public.kv_upsert('e1', '{}', '{{k,a}}')",
			"update":  "select public.kv_upsert('k', '[\"update\"]')",
			"delete":  "select public.kv_delete('k')",
			"waiting": "select public.kv_upsert('e2', '{}', '{{k,b}}')",
		},
	} {
		t.Run(name, func(t *testing.T) {
			watch, reader := d.superuser(t), d.connect(t)
			writers := map[string]*writer{}
			for kind := range sql {
				writers[kind] = newWriter(t, d)
			}
			exec(t, writers["waiting"].conn, "set test.pause = 'on'")
			waited := 0
			for _, order := range orders([]string{"insert", "commit", "update", "delete", "waiting", "go on"}, [][2]string{{"insert", "commit"}, {"waiting", "go on"}}) {
				at := func(event string) int { return slices.Index(order, event) }
				if meanwhile := at("waiting") < at("delete") && at("delete") < at("go on"); !meanwhile && os.Getenv("LONG") == "" {
					continue
				}
				exec(t, watch, "delete from public.kv_store")
				exec(t, watch, "select pg_advisory_lock(42)")
				exec(t, watch, "insert into public.kv_store (key, value) values ('from', '{}')")
				var seen []int64
				var history []string
				look := func(event string) {
					for _, revision := range all[int64](t, reader, "select revision from public.kv_store where key = 'k'") {
						history = append(history, fmt.Sprintf("%s: %d", event, revision))
						if len(seen) == 0 || seen[len(seen)-1] != revision {
							seen = append(seen, revision)
						}
					}
				}
				for _, event := range order {
					switch event {
					case "insert":
						exec(t, writers["insert"].conn, "begin")
						writers["insert"].start(t, watch, sql["insert"])
					case "commit":
						if !writers["insert"].settle(t, watch) { // it waits for a writer who waits for the test
							exec(t, watch, "select pg_advisory_unlock(42)")
							for !writers["insert"].settle(t, watch) {
							}
						}
						exec(t, writers["insert"].conn, "commit")
					case "go on":
						exec(t, watch, "select pg_advisory_unlock_all()")
					default:
						if !writers[event].start(t, watch, sql[event]) {
							waited++
						}
					}
					for _, w := range writers {
						w.settle(t, watch) // the writer it waited for may have ended
					}
					look(event)
				}
				for _, w := range writers {
					for !w.settle(t, watch) {
					}
				}
				look("the end")
				require.True(t, slices.IsSorted(seen), "%s\n%s", strings.Join(order, ", "), strings.Join(history, "\n"))
			}
			require.Greater(t, waited, 30, "the waiting writer waits for the test, or for another writer")
		})
	}
}

// A row that takes a new revision because of a delete elsewhere keeps everything else.
func TestARevisionTakenAgainChangesNothingElse(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	conn := d.superuser(t)
	// A delete between a row's trigger and its insert.
	exec(t, conn, `
		create function public.zz_delete() returns trigger language plpgsql as $$
		begin
			perform nextval('kv.delete_count');
			return new;
		end $$;
		create trigger zz_delete before insert or update of key on public.kv_store for each row execute function public.zz_delete();`)
	exec(t, conn, `insert into public.kv_store (key, value, indexes, created_at, updated_at) values ('k', '{"a":1.0}', '{i:m}', '2020-01-01', '2020-02-02')`)
	require.Equal(t, `{"a":1.0} {i:m} 2020-01-01 2020-02-02`, one[string](t, conn,
		"select concat_ws(' ', value, indexes, created_at::date, updated_at::date) from public.kv_store where key = 'k'"))
	before := one[int64](t, conn, "select revision from public.kv_store")
	exec(t, conn, "update public.kv_store set key = 'l'")
	require.Greater(t, one[int64](t, conn, "select revision from public.kv_store"), before)
	require.Equal(t, one[int64](t, conn, "select last_value from kv.revision"), one[int64](t, conn, "select revision >> 20 from public.kv_store"))
}
