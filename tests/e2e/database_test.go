package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// relations returns the tables that a query of the catalog finds.
func relations(t *testing.T, db *pgx.Conn, query string) []string {
	t.Helper()
	rows, err := db.Query(t.Context(), query)
	require.NoError(t, err)
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.NotEmpty(t, found, "the schema has changed: this test finds no tables")
	return found
}

const (
	tablesQuery = `select format('%I.%I', schemaname, tablename) from pg_tables where schemaname = 'kv' or schemaname = 'public' and tablename like 'kv\_%' order by 1`
	// The tables that get a member when an entry gets an index.
	memberTablesQuery = `select format('%I.%I', table_schema, table_name) from information_schema.columns
		where table_schema = 'kv' and column_name = 'member' order by 1`
)

// TestFailureInTheMiddleLeavesNothing makes the database fail at one member, after the entry and other indexes are
// written. No table may then have anything of the upsert.
func TestFailureInTheMiddleLeavesNothing(t *testing.T) {
	db := database(t)
	tables := relations(t, db, tablesQuery)
	for _, table := range relations(t, db, memberTablesQuery) {
		t.Run(table, func(t *testing.T) {
			prefix := newPrefix()
			name := "e2e_fail_" + random()
			_, err := db.Exec(t.Context(), fmt.Sprintf(`
				create function public.%[1]s() returns trigger language plpgsql as $$
				begin
					if new.member = '%[1]s' then raise exception 'no room for this member'; end if;
					return new;
				end $$;
				create trigger %[1]s before insert on %[2]s for each row execute function public.%[1]s()`, name, table))
			require.NoError(t, err)
			t.Cleanup(func() {
				_, err := db.Exec(cleanupContext(t), fmt.Sprintf(`drop trigger %[1]s on %[2]s; drop function public.%[1]s()`, name, table))
				require.NoError(t, err)
			})
			fails := func(key string) {
				t.Helper()
				a := post(t, upsertPath, upsertBody(key, `{"new":true}`,
					index{prefix + "a", "m"}, index{prefix + "z", "m"}, index{prefix + "i", name}, index{prefix + "i", "zz"}))
				require.GreaterOrEqual(t, a.status, 500, "%v", a)
				require.NotContains(t, string(a.body), "no room for this member", "callers must not see the database's message")
			}

			t.Run("Create", func(t *testing.T) {
				fails(prefix + "new")
				absent(t, prefix+"new")
				require.Empty(t, keys(t, "prefix", prefix))
				for _, table := range tables {
					var left int
					require.NoError(t, db.QueryRow(t.Context(), fmt.Sprintf(`select count(*) from %s as r where r::text like $1`, table), "%"+prefix+"%").Scan(&left))
					require.Zero(t, left, "rows of the upsert in %s", table)
				}
			})
			t.Run("Update", func(t *testing.T) {
				upsert(t, prefix+"old", `{"old":1.0}`, index{prefix + "a", "before"})
				fails(prefix + "old")
				holds(t, prefix+"old", `{"old":1.0}`)
				holdsJSON(t, prefix+"a", `["before"]`)
				require.Equal(t, prefixed(prefix, "a", "old"), keys(t, "prefix", prefix))
				require.Equal(t, prefixed(prefix, "old"), keys(t, "index", prefix+"a:before"))
				require.Empty(t, keys(t, "index", prefix+"a:m"))
			})
			t.Run("TheInstanceGoesOn", func(t *testing.T) {
				for range 6 {
					upsert(t, prefix+"old", `{}`, index{prefix + "i", "ok"})
				}
				holdsJSON(t, prefix+"i", `["ok"]`)
			})
		})
	}
}

// heavy returns a connection and a prefix for entries that would take too long to write over HTTP. It first removes
// entries of an aborted run.
func heavy(t *testing.T) (db *pgx.Conn, prefix string) {
	t.Helper()
	db = database(t)
	clear := func() {
		_, err := db.Exec(cleanupContext(t), `delete from public.kv_store where key >= 'e2e-heavy/' and key < 'e2e-heavy0'`)
		require.NoError(t, err)
	}
	clear()
	t.Cleanup(clear)
	return db, "e2e-heavy/" + random() + "/"
}

// TestManyLargeValues: a list that cannot be sent is refused at once, not when memory runs out. E2E_MEGABYTES sets the
// number of values of 1 MB.
func TestManyLargeValues(t *testing.T) {
	db, prefix := heavy(t)
	n := setting(t, "E2E_MEGABYTES", 30)
	start := time.Now()
	// Random text, because Postgres writes compressible text more slowly, and \u0000, which keeps the value out of
	// jsonb.
	_, err := db.Exec(t.Context(), `insert into public.kv_store (key, value)
		select $1 || lpad(i::text, 4, '0'), ('["\u0000' || t.noise || i || '"]')::json
		from (select string_agg(translate(encode(sha512(random()::text::bytea), 'base64'), E'\n', ''), '') as noise
			from generate_series(1, 12000)) as t, generate_series(1, $2::int) as i`, prefix, n)
	require.NoError(t, err)
	t.Logf("%d values of 1 MB were written in %s", n, time.Since(start).Round(time.Millisecond))

	for _, row := range []struct {
		name  string
		query []string
	}{
		{"Unpaged", nil},
		{"UnpagedBackwards", []string{"sortOrder", "desc"}},
		{"UnpagedByTime", []string{"sortBy", "updated"}},
	} {
		t.Run("Err"+row.name, func(t *testing.T) {
			start := time.Now()
			list(t, append(row.query, "prefix", prefix, "includeValues", "true")...).isError(t, http.StatusRequestEntityTooLarge, "limit")
			took := time.Since(start)
			t.Logf("refused in %s", took.Round(time.Millisecond))
			require.Less(t, took, 3*time.Second, "a list that is too large is refused before it is built")
		})
	}
	t.Run("KeysAlone", func(t *testing.T) { require.Len(t, keys(t, "prefix", prefix), n) })
	t.Run("PagesEndEarly", func(t *testing.T) {
		for _, query := range [][]string{{"limit", "10000"}, {"offset", "3"}} {
			start := time.Now()
			p := list(t, append(query, "prefix", prefix, "includeValues", "true")...).page(t)
			require.True(t, p.Pagination.HasMore)
			require.Greater(t, p.Count, 1, "a page has as many entries as fit")
			require.Less(t, p.Count, 7)
			require.Len(t, p.Data, p.Count)
			require.Less(t, time.Since(start), 15*time.Second)
		}
	})
	t.Run("WalkYieldsEverything", func(t *testing.T) {
		upper := prefix + "002"
		got := walk(t, func(p page) { require.Len(t, p.Data, p.Count) }, "prefix", upper, "limit", "10", "includeValues", "true")
		require.Len(t, got, 10)
		require.Equal(t, keys(t, "prefix", upper), got)
	})
	t.Run("OneFitsUnpaged", func(t *testing.T) {
		p := list(t, "prefix", prefix+"0001", "includeValues", "true").page(t)
		require.Len(t, p.Data[prefix+"0001"], 12000*88+len(`["\u00001"]`))
	})
}

// TestKeysOverTheLimit: keys alone can be too many for one response.
func TestKeysOverTheLimit(t *testing.T) {
	db, prefix := heavy(t)
	const n = 6000 // 8 MB as JSON
	_, err := db.Exec(t.Context(), `insert into public.kv_store (key, value)
		select $1 || lpad(i::text, 5, '0') || repeat('"\<é', 180), '[]' from generate_series(1, $2::int) as i`, prefix, n)
	require.NoError(t, err)

	start := time.Now()
	list(t, "prefix", prefix).isError(t, http.StatusRequestEntityTooLarge, "limit")
	require.Less(t, time.Since(start), 15*time.Second)

	for _, query := range [][]string{{"limit", "10000"}, {"limit", "10000", "sortOrder", "desc", "sortBy", "created"}, {"limit", "2000", "includeValues", "true"}} {
		pages := 0
		got := walk(t, func(p page) {
			if pages++; pages == 1 {
				require.True(t, p.Pagination.HasMore, "the first page ends early")
			}
		}, append(query, "prefix", prefix)...)
		require.Greater(t, pages, 1)
		require.Len(t, got, n, "the cursor leads through everything, query %q", query)
		seen := make(map[string]bool)
		for _, key := range got {
			seen[key] = true
		}
		require.Len(t, seen, n, "and nothing comes twice, query %q", query)
	}
}

// TestValuesThatCannotBeSent: rows written with SQL may be larger than any response.
func TestValuesThatCannotBeSent(t *testing.T) {
	db, prefix := heavy(t)
	_, err := db.Exec(t.Context(), `insert into public.kv_store (key, value)
		values ($1 || 'a', '[1]'), ($1 || 'b', ('["' || repeat('0123456789', 800000) || '"]')::json), ($1 || 'c', '[3]')`, prefix)
	require.NoError(t, err)

	get(t, prefix+"b").isError(t, http.StatusRequestEntityTooLarge)
	list(t, "prefix", prefix, "includeValues", "true").isError(t, http.StatusRequestEntityTooLarge)
	list(t, "prefix", prefix+"b", "includeValues", "true", "limit", "1").isError(t, http.StatusRequestEntityTooLarge)
	p := list(t, "prefix", prefix, "includeValues", "true", "limit", "3").page(t)
	require.Equal(t, []string{prefix + "a"}, p.Keys, "the page ends before the entry that does not fit")
	require.True(t, p.Pagination.HasMore)
	require.Equal(t, prefixed(prefix, "a", "b", "c"), keys(t, "prefix", prefix), "the keys can still be listed")
	remove(t, prefix+"b", true)
}

// TestEscapingCounts: the platform's limit of 6 MB applies after the response is escaped as a JSON string, which
// doubles quotes and backslashes. The function refuses a response over the limit, so that the platform never has to.
func TestEscapingCounts(t *testing.T) {
	needsHost(t)
	db, prefix := heavy(t)
	_, err := db.Exec(t.Context(), `insert into public.kv_store (key, value)
		select $1 || lpad(i::text, 3, '0'), ('["' || repeat('\"', 24000) || '"]')::json from generate_series(1, 200) as i`, prefix)
	require.NoError(t, err)
	for _, n := range []int{60, 90, 95, 100, 130} {
		// Lists of growing size, each under a separate prefix, cross every possible limit.
		_, err := db.Exec(t.Context(), `insert into public.kv_store (key, value)
			select $1 || 'n' || $2::text || '/' || i::text, ('["' || repeat('\"', 24000) || '"]')::json from generate_series(1, $2::int) as i`, prefix, n)
		require.NoError(t, err)
		a := list(t, "prefix", fmt.Sprintf("%sn%d/", prefix, n), "includeValues", "true")
		if a.status == http.StatusOK {
			require.Len(t, a.page(t).Data, n)
		} else {
			a.isError(t, http.StatusRequestEntityTooLarge, "limit")
		}
		t.Logf("%d values of 48 kB: %d", n, a.status)
	}
	require.Len(t, walk(t, func(p page) { require.Len(t, p.Data, p.Count) }, "prefix", prefix+"0", "includeValues", "true", "limit", "1000"), 99)
	require.Len(t, walk(t, nil, "prefix", prefix+"1", "includeValues", "true", "limit", "1000"), 100)
}

// TestIndexesOfNewEntriesAreFast: Postgres' planner expects no entries where all are newer than its statistics.
// Finding them by index must not take quadratic time.
func TestIndexesOfNewEntriesAreFast(t *testing.T) {
	needsHost(t)
	db, prefix := heavy(t)
	insert := `insert into public.kv_store (key, value, indexes)
		select $1 || lpad(i::text, 5, '0'), '{}', array[$1 || 'type:even' , $1 || 'all:yes', $1 || 'mod:' || i % 7] from generate_series(1, $2::int) as i`
	_, err := db.Exec(t.Context(), insert, prefix+"old/", 1000)
	require.NoError(t, err)
	_, err = db.Exec(t.Context(), `analyze public.kv_store, kv.posting`)
	require.NoError(t, err)
	p := prefix + "new/"
	_, err = db.Exec(t.Context(), insert, p, 3000)
	require.NoError(t, err)

	for _, row := range []struct {
		name  string
		count int
		query []string
	}{
		{"OneIndex", 3000, []string{"index", p + "type:even"}},
		{"OneIndexKey", 3000, []string{"indexKey", p + "type"}},
		{"OneIndexUnderAPrefix", 3000, []string{"prefix", p, "index", p + "type:even"}},
		{"TwoIndexesUnderAPrefix", 3000, []string{"prefix", p, "index", p + "type:even", "index", p + "all:yes"}},
		{"OneRareIndex", 429, []string{"prefix", p, "index", p + "type:even", "index", p + "mod:3"}},
		{"TwoThatShareNothing", 0, []string{"prefix", p, "index", p + "mod:2", "index", p + "mod:3"}},
		{"WithValues", 3000, []string{"prefix", p, "index", p + "type:even", "includeValues", "true"}},
		{"FirstPage", 100, []string{"prefix", p, "index", p + "type:even", "limit", "100"}},
		{"LastPage", 100, []string{"prefix", p, "index", p + "type:even", "limit", "100", "offset", "2900"}},
		{"ByTime", 3000, []string{"prefix", p, "index", p + "type:even", "sortBy", "updated"}},
		{"Backwards", 3000, []string{"prefix", p, "index", p + "type:even", "sortOrder", "desc"}},
		{"NoIndex", 3000, []string{"prefix", p}},
		{"NoIndexByTime", 3000, []string{"prefix", p, "sortBy", "created"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			start := time.Now()
			got := keys(t, row.query...)
			took := time.Since(start)
			require.Len(t, got, row.count)
			t.Logf("%d keys in %s", len(got), took.Round(time.Millisecond))
			require.Less(t, took, 5*time.Second)
		})
	}
}
