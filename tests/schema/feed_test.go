package schema

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// After a restore, no earlier cursor may say that nothing changed.
func TestCursorsDoNotOutliveARestore(t *testing.T) {
	t.Parallel()
	for name, restore := range map[string]string{
		// pg_restore --clean creates tables, loads rows, and creates triggers last.
		"TriggersMadeAnew": `
			drop trigger kv_store_log on public.kv_store;
			update public.kv_store set value = '["restored"]';
			create trigger kv_store_log after insert or update or delete on public.kv_store for each row execute function kv.log_entry();
			alter table public.kv_store enable always trigger kv_store_log`,
		// pg_restore --data-only --disable-triggers.
		"TriggersSwitchedOff": `
			alter table public.kv_store disable trigger all;
			update public.kv_store set value = '["restored"]';
			alter table public.kv_store enable trigger all`,
		"MembersWithTriggersOff": `
			alter table kv.member disable trigger all;
			insert into kv.member (index_key, member) values ('i', 'restored');
			alter table kv.member enable trigger all`,
		"LogMadeAnew": `
			drop table kv.log;
			create table kv.log (transaction_id xid8 not null default pg_current_xact_id(), key text collate "C",
				missed boolean, request uuid default nullif(current_setting('kv.request', true), '')::uuid);
			grant all on kv.log to service_role;
			create index log_transaction_id on kv.log (transaction_id);
			create trigger log_truncate_log after truncate on kv.log for each statement execute function kv.log_truncate();
			alter table kv.log enable always trigger log_truncate_log`,
		"TableRewritten": `
			alter table kv.member alter column member type text collate "C" using member || ' restored'`,
		"LogEmptied": `
			update public.kv_store set value = '["restored"]';
			truncate kv.log`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			d.tampered = true
			conn, owner := d.connect(t), d.owner(t)
			upsert(t, conn, "a", `{}`, pairs{{"i", "m"}})
			before := changes(t, conn, nil).Cursor
			requireChanges(t, conn, before)
			for _, statement := range strings.Split(restore, ";") { // a transaction each, as pg_restore has it
				exec(t, owner, statement)
			}
			require.True(t, changes(t, conn, before).All, "a cursor from before")
			exec(t, owner, "select public.kv_enable_logging()")
			require.True(t, changes(t, conn, before).All, "a cursor from before, once the triggers are as they were")

			// From then on, nothing is missed.
			exec(t, owner, "select public.kv_enable_logging()")
			c := changes(t, conn, nil).Cursor
			exec(t, owner, "set session_replication_role = replica")
			exec(t, owner, "update public.kv_store set value = '[]' where key = 'a'")
			requireChanges(t, conn, c, "a")
		})
	}
}

// A copy of a database has other cursors: a change in one says nothing about the other.
func TestCursorsAreOfOneDatabase(t *testing.T) {
	t.Parallel()
	d, copied := newDatabase(t), newDatabase(t) // both are copies of one
	require.NotEqual(t, one[string](t, d.connect(t), "select kv.epoch()"), one[string](t, copied.connect(t), "select kv.epoch()"))
}

// Foreign triggers do not matter, and stay as they are.
func TestTriggersOfOthersDoNotMatterToTheFeed(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	conn, owner := d.connect(t), d.owner(t)
	exec(t, owner, `
		create function public.audit_login() returns trigger language plpgsql as 'begin return null; end';
		create trigger my_audit_log after insert on public.kv_store for each row execute function public.audit_login()`)
	requireChanges(t, conn, changes(t, conn, nil).Cursor)
	exec(t, owner, "select public.kv_enable_logging()")
	require.Equal(t, "O", one[string](t, owner, "select tgenabled::text from pg_trigger where tgname = 'my_audit_log'"))
}

// While changes may go unlogged, no cursor is valid.
func TestTheFeedKnowsNothingWhileItsTriggersAreOff(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	conn, owner := d.connect(t), d.owner(t)
	upsert(t, conn, "a", `{}`, nil)
	for _, trigger := range []string{"public.kv_store kv_store_log", "public.kv_store kv_store_log_truncate", "kv.member member_log_insert",
		"kv.member member_log_update", "kv.member member_log_delete", "kv.member member_log_truncate", "kv.log log_truncate_log"} {
		table, name, _ := strings.Cut(trigger, " ")
		for _, state := range []string{"disable", "enable", "enable replica"} {
			exec(t, owner, "alter table "+table+" "+state+" trigger "+name)
			require.True(t, changes(t, conn, changes(t, conn, nil).Cursor).All, "%s: %s", trigger, state)
		}
		requireCode(t, "42501", conn, "select public.kv_enable_logging()")
		exec(t, owner, "select public.kv_enable_logging()")
		require.False(t, changes(t, conn, changes(t, conn, nil).Cursor).All, trigger)
	}
}

// A read with p_since and its changes come from one snapshot.
func TestAReadAndItsFeedAreOfOneSnapshot(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	conn, writer := d.connect(t), d.connect(t)
	upsert(t, conn, "a", `{"n":0}`, pairs{{"i", "m"}})
	cursor := changes(t, conn, nil).Cursor
	for _, call := range []string{
		"select public.kv_get('a', $1)", "select public.kv_list('" + aList(t, "") + "', true, 'q', $1)", "select public.kv_query('" + aQuery(t, "") + "', 'q', $1)",
	} {
		response := one[string](t, conn, call, cursor)
		feed, body, found := strings.Cut(response, "\n")
		require.True(t, found, response)
		require.Contains(t, feed, `"all" : false, "keys" : []`)
		require.NotEmpty(t, body)
		require.NotContains(t, body, "\n")
	}
	upsert(t, writer, "a", `{"n":1}`, nil)
	require.Regexp(t, `^\{"cursor" : ".+", "all" : false, "keys" : \["a"\]\}\n\{"n":1\}$`, one[string](t, conn, "select public.kv_get('a', $1)", cursor))
	require.Regexp(t, `^\{"cursor" : ".+", "all" : true, "keys" : \[\]\}\n$`, one[string](t, conn, "select public.kv_get('none', '')"))
	for _, volatility := range all[string](t, d.owner(t), `
		select provolatile::text from pg_proc where pronamespace = 'public'::regnamespace and ('p_since' = any (proargnames) or proname ~ '^kv_warm_')`) {
		require.Equal(t, "s", volatility, "only a STABLE function sees a single snapshot")
	}
}

func TestWarmEntriesComeInTheOrderTheyWereNamed(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	conn := d.connect(t)
	for _, key := range []string{"a/1", "a/2", "b/1", "c"} {
		upsert(t, conn, key, `{"k":"`+key+`"}`, pairs{{"i", key}})
	}
	ask := func(keys, prefixes []string, entries, bytes int) string {
		_, body, _ := strings.Cut(one[string](t, conn, "select public.kv_warm_get($1, $2, $3, $4)", keys, prefixes, entries, bytes), "\n")
		return body
	}
	none := []string{}
	require.Equal(t, `[]`, ask(none, none, 10, 1000))
	require.Equal(t, `[["none", ""], ["c", "{\"k\":\"c\"}"], ["i", "[\"a/1\",\"a/2\",\"b/1\",\"c\"]"]]`, ask([]string{"none", "c", "i"}, none, 10, 1000))
	require.Equal(t, `[["c", "{\"k\":\"c\"}"], ["b/1", "{\"k\":\"b/1\"}"], ["a/1", "{\"k\":\"a/1\"}"]]`, ask([]string{"c"}, []string{"b/", "a/"}, 3, 1000))
	require.Equal(t, `[["a/1", "{\"k\":\"a/1\"}"], ["a/2", "{\"k\":\"a/2\"}"]]`, ask(none, []string{"a/", "a/1"}, 10, 1000), "each key once")
	require.Equal(t, `[["a/1", "{\"k\":\"a/1\"}"]]`, ask(none, []string{"a/"}, 10, 20), "as many bytes as allowed")
}
