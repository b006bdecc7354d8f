package schema

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The result of the migrations does not depend on the locale of the database, or on what a project grants by default.
func TestMigrationsApplyToAnotherDatabase(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	d := newDatabase(t)
	other := &database{name: d.name + "_again"}
	server := d.owner(t)
	exec(t, server, "create database "+other.name+" template template0 encoding 'UTF8' locale_provider libc locale 'C'")
	t.Cleanup(func() { exec(t, d.owner(t), "drop database "+other.name+" with (force)") })
	require.NoError(t, migrate(ctx, other.name))

	theirs := other.owner(t)
	exec(t, server, "set search_path = ''")
	exec(t, theirs, "set search_path = ''")
	for _, sql := range []string{schemaFileQuery, `
		select pg_get_functiondef(oid) from pg_proc where pronamespace in ('public'::regnamespace, 'kv'::regnamespace) order by oid::regprocedure::text collate "C"`} {
		require.Equal(t, all[string](t, server, sql), all[string](t, theirs, sql))
	}

	// Newer projects grant nothing by default, as this database.
	conn := other.connect(t)
	upsert(t, conn, "a", `{"a":1}`, pairs{{"i", "m"}})
	require.Equal(t, `{"a":1}`, get(t, conn, "a"))
	requireCode(t, "42501", other.as(t, "anon"), "select public.kv_get('a')")
}

// A call of a function that is not inlined takes a hundred times as long.
func TestWhatIsCalledForEachMemberIsInlined(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	for _, call := range []string{"kv.member_from_text(key)", "kv.member_from_json(value)", "kv.member_to_text(key)", "kv.member_to_json(key)"} {
		plan := strings.Join(all[string](t, conn, "explain (verbose, costs off) select "+call+" from public.kv_store"), "\n")
		require.NotContains(t, plan, "kv.member_from_text(", call)
		require.NotContains(t, plan, strings.SplitAfter(call, "(")[0], call)
	}
}

func TestFunctionsRunAsTheirCallerWithTheirOwnSearchPath(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).owner(t)
	require.Empty(t, all[string](t, conn, "select proname from pg_proc where pronamespace in ('public'::regnamespace, 'kv'::regnamespace) and prosecdef"),
		"security definer")

	// A function with settings is never inlined. These are, and name the schema of all they use. Their volatility is that of their bodies.
	require.Equal(t, []string{"bare_key sql i", "changes_line sql s", "deletes sql v", "expiry_line sql v", "import_state sql i", "is_live sql s", "list_cost sql s", "list_cost_at_most sql s", "list_value sql s",
		"member_from_json sql i", "member_from_text sql i", "member_to_json sql s", "member_to_text sql i", "number_at sql i", "pairs sql i", "postings_of sql i",
		"space_of sql i", "text_at sql i",
	}, all[string](t, conn, `
		select proname || ' ' || lanname || ' ' || provolatile::text from pg_proc join pg_language as l on l.oid = prolang
		where pronamespace in ('public'::regnamespace, 'kv'::regnamespace)
		and not coalesce(proconfig, '{}') && array['search_path=""', 'search_path=']
		order by proname::text collate "C"`))
	require.Empty(t, all[string](t, conn, `
		select proname::text from pg_proc where pronamespace in ('public'::regnamespace, 'kv'::regnamespace) and obj_description(oid, 'pg_proc') is null
		and prorettype <> 'trigger'::regtype`), "functions without a comment")
}

// `supabase db lint` warns of literals that an assignment converts to an array or to JSON in every call. It needs an
// extension that the local platform does not have (docs/SECURITY.md).
func TestLiteralsHaveTheTypeOfTheirVariable(t *testing.T) {
	t.Parallel()
	require.Empty(t, all[string](t, newDatabase(t).owner(t), `
		select proname || ': ' || found[1] from pg_proc, regexp_matches(prosrc, '(\w+\s+(?:\w+\[\]|jsonb?)\s*:=\s*''[^'']*'');', 'g') as found
		where pronamespace in ('public'::regnamespace, 'kv'::regnamespace)
		union all
		select proname || ': ' || found[1] from pg_proc, regexp_matches(prosrc, '(\yreturn\s+''[^'']*'');', 'g') as found
		where pronamespace in ('public'::regnamespace, 'kv'::regnamespace) and format_type(prorettype, null) ~ '\[\]|json'
			and prorettype <> 'public."application/vnd.kv+json"'::regtype`))
}

// PostgREST 12.0.2 repeats a call that fails with 40001 for ever.
func TestNothingRaisesSerializationFailure(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).owner(t)
	require.Empty(t, all[string](t, conn, `
		select proname::text from pg_proc
		where pronamespace in ('public'::regnamespace, 'kv'::regnamespace) and prosrc ~* '40001|serialization_failure|transaction_rollback'`))
}

// An exception block is a subtransaction, which a parallel worker cannot start before Postgres 17.
func TestFunctionsThatCatchErrorsAreNotParallelSafe(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	conn := d.owner(t)
	require.Empty(t, all[string](t, conn, `
		select proname::text from pg_proc
		where pronamespace in ('public'::regnamespace, 'kv'::regnamespace) and proparallel <> 'u' and prosrc ~* '\yexception\s+when\y'`))

	exec(t, conn, "insert into public.kv_store (key, value) select 'k' || i, '{\"a\":1}' from generate_series(1, 2000) as i")
	exec(t, conn, "analyze public.kv_store")
	exec(t, conn, "set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0")
	require.Equal(t, 2000, one[int](t, conn, `
		select count(*) from public.kv_store
		where kv.to_document(value) is not null and kv.search_vector(document, bytes) is not null`))
}

func TestOnlyServiceRoleGetsIn(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	owner := d.owner(t)
	upsert(t, d.connect(t), "a", `{"a":1}`, pairs{{"i", "m"}})

	require.Empty(t, all[string](t, owner, `
		select relname::text from pg_class
		where relnamespace in ('public'::regnamespace, 'kv'::regnamespace) and relkind in ('r', 'p') and not relrowsecurity`), "tables without row security")
	require.Empty(t, all[string](t, owner, "select polname::text from pg_policy"), "policies")
	require.Empty(t, all[string](t, owner, `
		select relname::text from pg_class where relnamespace in ('public'::regnamespace, 'kv'::regnamespace) and relkind in ('v', 'm', 'f') and not coalesce('security_invoker=true' = any (reloptions), false)`),
		"a view would read as its owner, past row security")

	for _, role := range []string{"public", "anon", "authenticated"} {
		require.Empty(t, all[string](t, owner, `
			select c.relname || ' ' || a.privilege_type
			from pg_class as c, aclexplode(c.relacl) as a
			where c.relnamespace in ('public'::regnamespace, 'kv'::regnamespace) and a.grantee = coalesce((select oid from pg_roles where rolname = $1), 0)`, role),
			"relations: privileges of %s", role)
		require.Empty(t, all[string](t, owner, `
			select c.relname || '.' || attname || ' ' || a.privilege_type
			from pg_attribute join pg_class as c on c.oid = attrelid, aclexplode(attacl) as a
			where c.relnamespace in ('public'::regnamespace, 'kv'::regnamespace) and a.grantee = coalesce((select oid from pg_roles where rolname = $1), 0)`, role),
			"columns: privileges of %s", role)
		require.Empty(t, all[string](t, owner, `
			select p.proname || ' ' || a.privilege_type
			from pg_proc as p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
			where p.pronamespace = 'public'::regnamespace and a.grantee = coalesce((select oid from pg_roles where rolname = $1), 0)`, role),
			"functions: privileges of %s", role)
		require.Empty(t, all[string](t, owner, `
			select a.privilege_type from pg_namespace, aclexplode(nspacl) as a
			where nspname = 'kv' and a.grantee = coalesce((select oid from pg_roles where rolname = $1), 0)`, role), "schema kv: privileges of %s", role)
	}

	// The same from their side.
	for _, role := range []string{"anon", "authenticated"} {
		conn := d.as(t, role)
		for _, table := range []string{"public.kv_store", "kv.posting", "kv.member", "kv.log", "kv.log_mark", "kv.outbox"} {
			requireCode(t, "42501", conn, "select from "+table)
			requireCode(t, "42501", conn, "delete from "+table+" where true")
			requireCode(t, "42501", conn, "truncate "+table)
			requireCode(t, "42501", conn, "insert into "+table+" default values")
		}
		requireCode(t, "42501", conn, "select nextval('kv.member_position')")
		for _, call := range []string{
			"public.kv_upsert('a', '{}')", "public.kv_get('a')", "public.kv_list('{}', false, '')", "public.kv_query('{}', '')", "public.kv_delete('a')", "public.kv_changes()",
			"public.kv_get('a', '')", "public.kv_mirror_states('{a}')", "public.kv_mirror_outbox(0, 1)", "public.kv_prune_log()", "kv.epoch()",
			"kv.lock_index('a', false)", "kv.prefix_end('a')", "kv.response_limit()", "kv.to_document('{}')",
		} {
			requireCode(t, "42501", conn, "select "+call)
		}
	}
	require.Equal(t, `{"a":1}`, get(t, owner, "a"))
}

// PostgREST connects as authenticator, which has only its roles.
func TestServiceRoleCanDoWhatItNeeds(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	conn := d.login(t, run.authenticator)
	requireCode(t, "42501", conn, "select public.kv_list('{}', false, '')")
	exec(t, conn, "set role service_role")
	upsert(t, conn, "a", `{"a":1}`, pairs{{"i", "m"}, {"j", "m"}})
	upsert(t, conn, "a", `{"a":2}`, pairs{{"j", "n"}})
	upsert(t, conn, "j", `["plain"]`, nil)
	upsert(t, conn, "a", `{"a":3}`, pairs{{"j", "o"}})
	require.Equal(t, `["plain","o"]`, get(t, conn, "j"))
	require.Equal(t, `{"keys":["a","i","j"],"count":3,"data":{"a":{"a":3},"i":["m"],"j":["plain","o"]}}`,
		kvList(t, conn, true, ``))
	exec(t, conn, "select public.kv_changes()")
	exec(t, conn, "select public.kv_prune_log()")
	exec(t, conn, "update public.kv_store set key = 'b', indexes = '{k:l}' where key = 'a'")
	remove(t, conn, "b")
	for _, name := range all[string](t, conn, `
		select oid::regprocedure::text from pg_proc where pronamespace in ('public'::regnamespace, 'kv'::regnamespace)`) {
		require.True(t, one[bool](t, conn, "select has_function_privilege($1, 'execute')", name), name)
	}
	exec(t, conn, "truncate public.kv_store")
}

// Tables and functions of the same names in another schema must not be used.
func TestSearchPathOfTheCallerDoesNotMatter(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	owner := d.owner(t)
	exec(t, owner, `
		create schema trap;
		grant usage on schema trap to service_role;
		create table trap.kv_store (key text);
		create table trap.posting (key text);
		create table trap.member (key text);
		create table trap.log (key text);
		create function trap.length(text) returns integer language sql as 'select 0';
		create function trap.substr(text, integer, integer) returns text language sql as 'select null::text';
		create function trap.left(text, integer) returns text language sql as 'select null::text';
		create function trap.clock_timestamp() returns timestamptz language sql as 'select null::timestamptz';
		create function trap.octet_length(text) returns integer language sql as 'select 0';
		create function trap.never(text, text) returns boolean language sql as 'select false';
		create operator trap.= (leftarg = text, rightarg = text, function = trap.never);
		create operator trap.|| (leftarg = text, rightarg = text, function = trap.never)`)
	conn := d.connect(t)
	for _, path := range []string{"trap, pg_catalog, public", "trap", "''"} {
		exec(t, conn, "set search_path = "+path)
		upsert(t, conn, "a", `{"a":1}`, pairs{{"i", "m:n"}})
		require.Equal(t, `{"keys":["a"],"count":1}`, kvList(t, conn, false, byIndex([]string{"i:m:n"}, nil)))
		require.Equal(t, `{"keys":["a"],"count":1}`, kvList(t, conn, false, byIndex(nil, []string{"i"})))
		require.Equal(t, `["m:n"]`, get(t, conn, "i"))
		exec(t, conn, "select public.kv_changes()")
		upsert(t, conn, "a", `{"a":2}`, pairs{})
		remove(t, conn, "i")
		remove(t, conn, "a")
	}
}
