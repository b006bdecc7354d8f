package schema

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// Change capture (Realtime, Debezium, ETL services) publishes all tables. Postgres then refuses updates and deletes of
// a table without a replica identity.
func TestAPublicationForAllTablesStopsNothing(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	exec(t, d.superuser(t), "create publication everything for all tables") // Supabase lets postgres do it
	conn := d.connect(t)
	const session = "00000000-0000-4000-8000-000000000002"
	exec(t, conn, "select public.kv_migration_open('a source', '{}', '{}', $1, 'a test', 60, null, false)", session)
	exec(t, conn, importOf("{x,y}", "{1,2}", "{f,f}"), session)
	for i := range 5 {
		exec(t, conn, "select public.kv_upsert('a', $1, '{{i,m},{j,n}}', $2, true)", `{"n":1}`, requestID(3*i+1))
		exec(t, conn, "select public.kv_upsert('a', $1, '{{i,o}}', $2, true)", `{"n":2}`, requestID(3*i+2))
		upsert(t, conn, "i", `["plain"]`, nil)
		exec(t, conn, "select public.kv_delete('a', $1, true)", requestID(3*i+3))
		remove(t, conn, "i")
	}
	exec(t, conn, "update public.kv_store set key = 'z', indexes = '{k:l}' where key = 'y'")
	remove(t, conn, "x")
	exec(t, conn, "select public.kv_mirror_forget((select array_agg(id) from kv.outbox))")
	exec(t, conn, "select public.kv_migration_renew($1, 0, null, null)", session)
	exec(t, conn, "select public.kv_migration_close()")
	require.Equal(t, `{"keys":["j","z"],"count":2}`, kvList(t, conn, false, ``))
	exec(t, d.owner(t), "create table public.without_one (); grant all on public.without_one to service_role")
	requireCode(t, "55000", conn, "delete from public.without_one where false") // checked before any row is looked for
	exec(t, d.owner(t), "drop table public.without_one")
	for _, table := range all[string](t, conn, `
		select c.oid::regclass::text from pg_class as c join pg_namespace as n on n.oid = relnamespace
		where nspname in ('public', 'kv') and relkind in ('r', 'p')`) {
		exec(t, conn, "delete from "+table+" where false")
	}
}

// longAgo adds ten changes of a transaction that ended two hours ago.
const longAgo = `
	insert into kv.log (transaction_id, key) select '3', 'old/' || i from generate_series(1, 10) as i;
	insert into kv.log_mark (at, horizon) values (clock_timestamp() - interval '2 hours', '4')`

func TestTheLogIsPrunedUnderAPublication(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	exec(t, d.superuser(t), "create publication everything for all tables")
	conn := d.connect(t)
	exec(t, conn, longAgo)
	require.Equal(t, 10, prune(t, conn))
}

// Some writes prune the log. Where that fails, for any reason, the write succeeds.
func TestPruningThatFailsFailsNoWrite(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	conn := d.connect(t)
	exec(t, d.owner(t), `
		create function public.no() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
		create trigger no before delete on kv.log for each row execute function public.no()`)
	exec(t, conn, longAgo)
	require.Zero(t, prune(t, conn), "what was pruned")
	for range 300 { // one in a hundred prunes
		upsert(t, conn, "a", `{"a":2}`, nil)
	}
	require.Equal(t, `{"a":2}`, get(t, conn, "a"))
	require.Equal(t, 10, one[int](t, conn, "select count(*) from kv.log where starts_with(key, 'old/')"), "each attempt failed")
}

// importOf calls kv_import for a session, $1, with arrays of keys, values and whether they are index entries, as
// Postgres writes them.
func importOf(keys, values, isIndex string) string {
	none := "array_fill(null::%[1]s, array[cardinality('" + keys + "'::text[])])"
	texts, numbers := fmt.Sprintf(none, "text"), fmt.Sprintf(none, "bigint")
	return fmt.Sprintf("select public.kv_import($1, '%[1]s', '%[2]s', %[4]s, %[4]s, '%[3]s', '%[3]s', %[5]s, %[5]s, %[4]s, %[4]s, %[4]s)", keys, values, isIndex, texts, numbers)
}
