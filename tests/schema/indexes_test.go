package schema

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// indexesOf returns an entry's indexes and index_pairs as Postgres writes them.
func indexesOf(t *testing.T, q querier, key string) string {
	t.Helper()
	return one[string](t, q, "select indexes::text || ' ' || index_pairs::text from public.kv_store where key = $1", key)
}

// keysBy returns the keys that have an index, as kv_list does.
func keysBy(t *testing.T, q querier, index string) string {
	t.Helper()
	return kvList(t, q, false, byIndex([]string{index}, nil))
}

func TestUpsertLeavesClearsAndSetsIndexes(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	conn := d.connect(t)
	upsert(t, conn, "e", `{"v":1}`, pairs{{"i", "a"}, {"j", "b"}, {"i", "a"}})
	require.Equal(t, `{i:a,j:b} {{i,a},{j,b},{i,a}}`, indexesOf(t, conn, "e"))
	require.Equal(t, []string{"i/", "i/a", "j/", "j/b"}, all[string](t, conn, "select index_key || '/' || member from kv.posting order by 1"))

	upsert(t, conn, "e", `{"v":2}`, nil)
	require.Equal(t, `{i:a,j:b} {{i,a},{j,b},{i,a}}`, indexesOf(t, conn, "e"))
	requireConsistent(t, conn)

	upsert(t, conn, "e", `{"v":3}`, pairs{{"j", "c"}, {"k", "d"}})
	require.Equal(t, `{j:c,k:d} {{j,c},{k,d}}`, indexesOf(t, conn, "e"))
	require.Equal(t, `{"keys":[],"count":0}`, keysBy(t, conn, "i:a"))
	require.Equal(t, `{"keys":["e"],"count":1}`, keysBy(t, conn, "j:c"))
	require.Equal(t, `["a"]`, get(t, conn, "i"), "members are only ever added")
	require.Equal(t, `["b","c"]`, get(t, conn, "j"))
	requireConsistent(t, conn)

	upsert(t, conn, "e", `{"v":4}`, pairs{})
	require.Equal(t, `{} {}`, indexesOf(t, conn, "e"))
	require.Equal(t, 0, one[int](t, conn, "select count(*) from kv.posting"))
	require.Equal(t, `["b","c"]`, get(t, conn, "j"))

	// Without p_indexes, a new entry has none.
	upsert(t, conn, "new", `{}`, nil)
	require.Equal(t, `{} {}`, indexesOf(t, conn, "new"))
}

func TestPairsThatFormatAlike(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	upsert(t, conn, "left", `{}`, pairs{{"a:b", "c"}})
	upsert(t, conn, "right", `{}`, pairs{{"a", "b:c"}})
	upsert(t, conn, "both", `{}`, pairs{{"a", "b:c"}, {"a:b", "c"}})
	require.Equal(t, `{a:b:c} {{a:b,c}}`, indexesOf(t, conn, "left"))
	require.Equal(t, `{a:b:c} {{a,b:c}}`, indexesOf(t, conn, "right"))
	require.Equal(t, `{a:b:c} {{a,b:c},{a:b,c}}`, indexesOf(t, conn, "both"))
	require.Equal(t, `["b:c"]`, get(t, conn, "a"))
	require.Equal(t, `["c"]`, get(t, conn, "a:b"))
	require.Equal(t, `{"keys":["both","left","right"],"count":3}`, keysBy(t, conn, "a:b:c"))
	require.Equal(t, `{"keys":["both","right"],"count":2}`, kvList(t, conn, false, byIndex(nil, []string{"a"})))
	require.Equal(t, `{"keys":["both","left"],"count":2}`, kvList(t, conn, false, byIndex(nil, []string{"a:b"})))

	// A string that is written back by hand keeps its pairs; a new one is split at its last colon.
	exec(t, conn, "update public.kv_store set indexes = indexes || '{x:y}' where true")
	require.Equal(t, `{a:b:c,x:y} {{a:b,c},{x,y}}`, indexesOf(t, conn, "left"))
	require.Equal(t, `{a:b:c,x:y} {{a,b:c},{x,y}}`, indexesOf(t, conn, "right"))
	require.Equal(t, `{a:b:c,x:y} {{a,b:c},{a:b,c},{x,y}}`, indexesOf(t, conn, "both"))
	exec(t, conn, "insert into public.kv_store (key, value, indexes) values ('hand', '{}', '{a:b:c}')")
	require.Equal(t, `{a:b:c} {{a:b,c}}`, indexesOf(t, conn, "hand"))
}

func TestOddIndexesAndMembers(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	odd := []string{",", `"`, "{", "}", `\`, ":", "::", "a:", ":a", "NULL", "null", " ", " x ", "\n", "\t", "\u0001", "%", "_", "*", "'", "$1",
		"😀", "é", "日本", "__proto__", "", `{"a"}`, `a","b`, "\ud7ff\ue000\U0010ffff", strings.Repeat("m", 700)}
	var indexes pairs
	want := map[string][]string{}
	for i, member := range odd {
		if index := fmt.Sprint("i", i%3); member != "" {
			indexes = append(indexes, []string{index, one[string](t, conn, "select kv.member_from_text($1)", member)})
			want[index] = append(want[index], member)
		}
	}
	upsert(t, conn, "e", `{}`, indexes)
	listed := map[string][]string{}
	for index, all := range want {
		var members []string
		require.NoError(t, json.Unmarshal([]byte(get(t, conn, index)), &members))
		listed[index] = members
		for _, member := range all {
			require.Equal(t, `{"keys":["e"],"count":1}`, keysBy(t, conn, index+":"+member), "%s %q", index, member)
		}
	}
	require.Equal(t, want, listed)

	// As index keys.
	for i, key := range odd {
		if key == "" {
			continue
		}
		entry := fmt.Sprint("by", i)
		upsert(t, conn, entry, `{}`, pairs{{key, "m"}})
		require.Equal(t, `{"keys":["`+entry+`"],"count":1}`, keysBy(t, conn, key+":m"), "%q", key)
		require.Equal(t, `["m"]`, get(t, conn, key))
	}
}

func TestMembersAreListedInTheOrderFirstAdded(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	upsert(t, conn, "1", `{}`, pairs{{"i", "z"}, {"i", "a"}, {"i", "M"}, {"i", "z"}})
	upsert(t, conn, "2", `{}`, pairs{{"i", "b"}, {"i", "a"}, {"i", "0"}})
	upsert(t, conn, "3", `{}`, pairs{{"i", "z"}})
	require.Equal(t, `["z","a","M","b","0"]`, get(t, conn, "i"))

	// As many as an upsert may bring, in another order than kv_upsert inserts them.
	var many pairs
	for i := range 1000 {
		many = append(many, []string{"many", fmt.Sprint((i * 7919) % 1000)})
	}
	upsert(t, conn, "4", `{}`, many)
	upsert(t, conn, "5", `{}`, pairs{{"many", "last"}})
	var want []string
	for _, pair := range many {
		want = append(want, pair[1])
	}
	var got []string
	require.NoError(t, json.Unmarshal([]byte(get(t, conn, "many")), &got))
	require.Equal(t, append(want, "last"), got)
}

func TestAnIndexOntoAPlainEntry(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	for _, c := range []struct{ name, plain, want string }{
		{"Array", `["x",1,{"y": 2}]`, `["x",1,{"y": 2},"m","n"]`},
		{"EmptyArray", `[]`, `["m","n"]`},
		{"EmptyArrayWithSpace", "[ \n]", `["m","n"]`},
		{"ArrayTextIsKept", " [ 1.0 , 1e2,\n\t\"\\u00e9\" ] \n", " [ 1.0 , 1e2,\n\t\"\\u00e9\"" + `,"m","n"]`},
		{"ArrayThatHasTheMember", `["a","m"]`, `["a","m","n"]`},
		{"ArrayThatHasBoth", `["n","m"]`, `["n","m"]`},
		{"ArrayThatHasTheMemberEscaped", `["\u006d"]`, `["\u006d","n"]`},
		{"ArrayWithTheMemberDeeper", `[["m"],{"m":"n"}]`, `[["m"],{"m":"n"},"m","n"]`},
		{"ArrayThatJsonbCannotHold", `["\u0000","m"]`, `["\u0000","m","n"]`},
		{"ArrayEndingInABracket", `["]","["]`, `["]","[","m","n"]`},
		{"NestedArrayLast", `[1,[2]]`, `[1,[2],"m","n"]`},
		{"Object", `{"a":["m"]}`, `["m","n"]`},
		{"Null", `null`, `["m","n"]`},
		{"Text", `"m"`, `["m","n"]`},
		{"Number", `1`, `["m","n"]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			i, e, f := c.name+"/i", c.name+"/e", c.name+"/f"
			upsert(t, conn, i, c.plain, pairs{{"own", "index"}})
			upsert(t, conn, e, `{}`, pairs{{i, "m"}})
			upsert(t, conn, f, `{}`, pairs{{i, "n"}, {i, "m"}})
			require.Equal(t, c.want, get(t, conn, i))
			require.True(t, json.Valid([]byte(c.want)))
			require.Equal(t, `{own:index} {{own,index}}`, indexesOf(t, conn, i), "an index entry keeps the indexes it had")
			require.Equal(t, `{"keys":["`+i+`"],"count":1,"data":{"`+i+`":`+c.want+`}}`, kvList(t, conn, true, `"prefix":"`+i+`"`))
			requireConsistent(t, conn)

			// Replaced by a plain value, and indexed again.
			upsert(t, conn, i, c.plain, nil)
			require.Equal(t, c.plain, get(t, conn, i))
			require.Equal(t, 0, one[int](t, conn, "select count(*) from kv.member where index_key = $1", i))
			require.False(t, one[bool](t, conn, "select is_index from public.kv_store where key = $1", i))
			upsert(t, conn, e, `{}`, pairs{{i, "m"}, {i, "n"}})
			require.Equal(t, c.want, get(t, conn, i))
		})
	}
}

func TestReplacingAndDeletingAnIndexEntry(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	start := func() {
		upsert(t, conn, "i", `{"start":"over"}`, pairs{})
		upsert(t, conn, "e", `{}`, pairs{{"i", "m"}, {"i", "n"}})
		require.Equal(t, `["m","n"]`, get(t, conn, "i"))
	}
	members := func() int { return one[int](t, conn, "select count(*) from kv.member where index_key = 'i'") }
	document := func() string {
		return one[string](t, conn, "select is_index || ' ' || coalesce(document::text, 'none') from public.kv_store where key = 'i'")
	}

	start()
	require.Equal(t, "true none", document())
	upsert(t, conn, "i", `{"plain":true}`, nil)
	require.Equal(t, `{"plain":true}`, get(t, conn, "i"))
	require.Equal(t, `false {"plain": true}`, document())
	require.Zero(t, members())

	// The value [] is stored already, and still ends the members.
	start()
	upsert(t, conn, "i", `[]`, nil)
	require.Equal(t, `[]`, get(t, conn, "i"))
	require.Equal(t, `false []`, document())
	require.Zero(t, members())
	requireConsistent(t, conn)

	// By hand.
	start()
	exec(t, conn, `update public.kv_store set value = '["by hand"]' where key = 'i'`)
	require.Equal(t, `["by hand"]`, get(t, conn, "i"))
	require.Equal(t, `false ["by hand"]`, document())
	require.Zero(t, members())

	// The entry still has the index. When it is upserted with it, the index entry comes back.
	require.Equal(t, `{"keys":["e"],"count":1}`, keysBy(t, conn, "i:m"))
	upsert(t, conn, "e", `{}`, pairs{{"i", "n"}})
	require.Equal(t, `["by hand","n"]`, get(t, conn, "i"))

	start()
	remove(t, conn, "i")
	require.Equal(t, ``, get(t, conn, "i"))
	require.Zero(t, members())
	requireConsistent(t, conn)
	upsert(t, conn, "e", `{}`, pairs{{"i", "later"}})
	require.Equal(t, `["later"]`, get(t, conn, "i"), "deleted members do not come back")

	start()
	exec(t, conn, "delete from public.kv_store where key = 'i'")
	require.Zero(t, members())

	start()
	remove(t, conn, "e")
	require.Equal(t, `["m","n"]`, get(t, conn, "i"), "deleting an entry takes no member away")
	require.Zero(t, one[int](t, conn, "select count(*) from kv.posting"))
}

func TestRenamingByHand(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	upsert(t, conn, "e", `{}`, pairs{{"i", "m"}, {"j", "n"}})
	exec(t, conn, "update public.kv_store set key = 'f' where key = 'e'")
	require.Equal(t, `{"keys":["f"],"count":1}`, keysBy(t, conn, "i:m"))
	requireConsistent(t, conn)

	exec(t, conn, "update public.kv_store set key = 'g', indexes = '{j:n,k:o}' where key = 'f'")
	require.Equal(t, `{"keys":[],"count":0}`, keysBy(t, conn, "i:m"))
	require.Equal(t, `{"keys":["g"],"count":1}`, keysBy(t, conn, "k:o"))
	requireConsistent(t, conn)

	// The members move with an index entry.
	exec(t, conn, "update public.kv_store set key = 'i2' where key = 'i'")
	require.Equal(t, `["m"]`, get(t, conn, "i2"))
	requireConsistent(t, conn)
	upsert(t, conn, "h", `{}`, pairs{{"i2", "p"}, {"i", "q"}})
	require.Equal(t, `["m","p"]`, get(t, conn, "i2"))
	require.Equal(t, `["q"]`, get(t, conn, "i"))

	// Renamed and replaced in one statement.
	exec(t, conn, `update public.kv_store set key = 'i3', value = '{}' where key = 'i2'`)
	require.Equal(t, `{}`, get(t, conn, "i3"))
	require.Zero(t, one[int](t, conn, "select count(*) from kv.member where index_key in ('i2', 'i3')"))
	requireConsistent(t, conn)

	// Many at once, index entries and plain ones.
	exec(t, conn, "update public.kv_store set key = 'all/' || key where true")
	requireConsistent(t, conn)
	require.Equal(t, `["q"]`, get(t, conn, "all/i"))
}

func TestEditingIndexesByHand(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	for _, c := range []struct{ indexes, want string }{
		{`{a:b}`, `{a:b} {{a,b}}`},
		{`{a:b:c}`, `{a:b:c} {{a:b,c}}`},
		{`{"a,b:c\"d"}`, `{"a,b:c\"d"} {{"a,b","c\"d"}}`},
		{`{a:b,a:b,c:d}`, `{a:b,c:d} {{a,b},{a,b},{c,d}}`},
		{`{a::}`, `{a::} {{a,:}}`},
		{`{::b}`, `{::b} {{:,b}}`},
		{"{\"a\nb:c\nd\"}", "{\"a\nb:c\nd\"} {{\"a\nb\",\"c\nd\"}}"},
		{`{}`, `{} {}`},
	} {
		exec(t, conn, "insert into public.kv_store (key, value, indexes) values ('e', '{}', $1::text::text[])", c.indexes)
		require.Equal(t, c.want, indexesOf(t, conn, "e"), c.indexes)
		exec(t, conn, "update public.kv_store set indexes = '{q:r}' where true")
		exec(t, conn, "update public.kv_store set indexes = $1::text::text[] where true", c.indexes)
		require.Equal(t, c.want, indexesOf(t, conn, "e"), c.indexes)
		requireConsistent(t, conn)
		exec(t, conn, "delete from public.kv_store where true")
	}
	upsert(t, conn, "e", `{}`, nil)
	for _, indexes := range []string{`{a}`, `{:a}`, `{a:}`, `{:}`, `{""}`, `{NULL}`, `{a:b,c}`} {
		requireCode(t, "23514", conn, "update public.kv_store set indexes = $1::text::text[] where true", indexes)
		requireCode(t, "23514", conn, "insert into public.kv_store (key, value, indexes) values ('f', '{}', $1::text::text[])", indexes)
	}
	// Of both forms, the exact one counts.
	exec(t, conn, "update public.kv_store set indexes = '{x:y}', index_pairs = '{{p,q}}' where true")
	require.Equal(t, `{p:q} {{p,q}}`, indexesOf(t, conn, "e"))
	exec(t, conn, "update public.kv_store set indexes = '{}' where true")
	require.Equal(t, `{} {}`, indexesOf(t, conn, "e"))
}

// Other arrays than lists of pairs would be formatted wrongly, or posted under no key.
func TestIndexPairsThatAreNotPairsAreRefused(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	upsert(t, conn, "e", `{}`, nil)
	for _, pairs := range []string{`{a,b}`, `{{a}}`, `{{a,NULL}}`, `{{NULL,b}}`, `{{{a,b}}}`, `{{a,b,c}}`, `{{"",b}}`, `{{a,""}}`} {
		for _, sql := range []string{
			"update public.kv_store set index_pairs = $1::text::text[] where true",
			"select public.kv_upsert('e', '{}', $1::text::text[])",
			"select public.kv_upsert('new', '{}', $1::text::text[])",
		} {
			_, err := conn.Exec(context.Background(), sql, pairs)
			require.Error(t, err, "%s: %s", sql, pairs)
			require.Contains(t, []string{"23502", "23514", "PT400"}, code(err), "%s: %s: %v", sql, pairs, err)
		}
	}
}

// A statement may truncate several tables, in any order.
func TestTruncateOfSeveralTables(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	for _, tables := range []string{
		"public.kv_store", "public.kv_store, kv.posting, kv.member", "kv.member, kv.posting, public.kv_store", "public.kv_store, kv.posting",
		"public.kv_store, kv.member", "public.kv_store, kv.posting, kv.member, kv.log, kv.outbox, kv.import, kv.migration, kv.log_mark",
		"public.kv_store cascade",
	} {
		upsert(t, conn, "e", `{"a":1.0}`, pairs{{"i", "m"}, {"j", "n"}})
		exec(t, conn, "truncate "+tables)
		require.Equal(t, `{"keys":[],"count":0}`, kvList(t, conn, false, ``), tables)
		require.Zero(t, one[int](t, conn, "select (select count(*) from kv.posting) + (select count(*) from kv.member)"), tables)
		requireConsistent(t, conn)
	}
	upsert(t, conn, "e", `{}`, pairs{{"i", "m"}})
	require.Equal(t, `["m"]`, get(t, conn, "i"), "the tables still work")
}

// A number and the string with the same text are two members.
func TestNumbersAreMembers(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	upsert(t, conn, "e", `{}`, pairs{{"i", "\x015"}, {"i", "5"}, {"i", "\x015.0"}, {"i", "\x01\x015"}, {"i", "\x01-1E+400"}})
	require.Equal(t, `[5,"5",5.0,"\u00015",-1E+400]`, get(t, conn, "i"))
	require.Equal(t, int64(len(`5,"5",5.0,"\u00015",-1E+400,`)), one[int64](t, conn, "select kv.member_bytes('i')"))
	require.Equal(t, "{i:5,i:5.0,i:\x015,i:-1E+400}", one[string](t, conn, "select indexes::text from public.kv_store where key = 'e'"))
	for filter, want := range map[string]string{"i:5": `["e"]`, "i:5.0": `["e"]`, "i:-1E+400": `["e"]`, "i:5.00": `[]`, "i:05": `[]`, "i:\x015": `["e"]`, "i:\x01\x015": `[]`} {
		require.Contains(t, keysBy(t, conn, filter), `{"keys":`+want+`,`, "%q", filter)
	}

	// Edited by hand, a known number stays one, and a new member is a string.
	exec(t, conn, "update public.kv_store set indexes = array['i:5', 'i:7', 'j:5', E'j:\\x015'] where key = 'e'")
	require.Equal(t, "{{i,\x015},{i,5},{i,7},{j,5},{j,\x01\x015}}", one[string](t, conn, "select index_pairs::text from public.kv_store where key = 'e'"))

	// An array that was stored before.
	upsert(t, conn, "a", `[1, "2", 3.0, {"x":1}, "\u0000", null]`, nil)
	upsert(t, conn, "f", `{}`, pairs{{"a", "\x011"}, {"a", "1"}, {"a", "2"}, {"a", "\x012"}, {"a", "\x013.0"}, {"a", "\x013"}})
	require.Equal(t, `[1, "2", 3.0, {"x":1}, "\u0000", null,"1",2,3]`, get(t, conn, "a"))

	// Only some arrays read as members.
	for text, want := range map[string]string{
		`[1,"1",1.0,-2e5]`: "{\x011,1,\x011.0,\x01-2e5}", `["\u00011"]`: "{\x01\x011}", `[]`: "{}", `[1,1]`: "", `[1, 2]`: "", `[1,true]`: "", `[1,""]`: "", `[1,"\u0000"]`: "",
		`[1,null]`: "", `["1","1"]`: "", `{"a":1}`: "",
	} {
		require.Equal(t, want, one[string](t, conn, "select coalesce(kv.parse_members($1)::text, '')", text), text)
	}
}

func TestTruncateAndCopies(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	conn := d.connect(t)
	upsert(t, conn, "e", `{"a":1.0}`, pairs{{"i", "m"}, {"j", "n"}})
	upsert(t, conn, "f", `["\u0000"]`, pairs{{"f2", "x"}})
	upsert(t, conn, "p", `["stored"]`, nil)
	upsert(t, conn, "g", `{}`, pairs{{"p", "appended"}})

	// A dump with every column into an emptied table, with triggers, and the members last.
	exec(t, conn, "create temporary table entries as table public.kv_store")
	exec(t, conn, "create temporary table members as table kv.member")
	before := kvList(t, conn, true, ``)
	exec(t, conn, "truncate public.kv_store")
	require.Equal(t, `{"keys":[],"count":0}`, kvList(t, conn, false, ``))
	require.Zero(t, one[int](t, conn, "select (select count(*) from kv.posting) + (select count(*) from kv.member)"))
	exec(t, conn, "insert into public.kv_store select * from entries")
	exec(t, conn, "insert into kv.member select * from members")
	require.Equal(t, before, kvList(t, conn, true, ``))
	requireConsistent(t, conn)

	// A copy of the columns that people write, under other keys.
	exec(t, conn, `
		insert into public.kv_store (key, value, indexes)
		select 'copy/' || key, value, indexes from public.kv_store where not is_index`)
	require.Equal(t, `{"keys":["copy/e","e"],"count":2}`, keysBy(t, conn, "i:m"))
	requireConsistent(t, conn)

	// A restore in replica mode, into a database that never had the rows.
	source, other := d.owner(t), newDatabase(t)
	owner := other.owner(t)
	exec(t, owner, "set session_replication_role = replica")
	for _, table := range []string{"public.kv_store", "kv.posting", "kv.member"} {
		var text bytes.Buffer
		_, err := source.PgConn().CopyTo(context.Background(), &text, "copy "+table+" to stdout")
		require.NoError(t, err)
		_, err = owner.PgConn().CopyFrom(context.Background(), &text, "copy "+table+" from stdin")
		require.NoError(t, err)
	}
	exec(t, owner, "reset session_replication_role")
	require.Equal(t, kvList(t, conn, true, ``), kvList(t, owner, true, ``))
	requireConsistent(t, owner)
	require.True(t, one[bool](t, owner, `
		select not exists (select key from public.kv_store except select key from kv.log)`), "a restore is logged")
	upsert(t, other.connect(t), "e", `{}`, pairs{{"i", "new"}, {"k", "new"}})
	require.Equal(t, `["m","new"]`, get(t, owner, "i"))
}

// New members do not rewrite the row of an index entry: 50 upserts would queue behind each other.
func TestAddingMembersDoesNotRewriteTheIndexEntry(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	upsert(t, conn, "e", `{}`, pairs{{"i", "m"}})
	before := one[string](t, conn, "select ctid::text || updated_at from public.kv_store where key = 'i'")
	upsert(t, conn, "f", `{}`, pairs{{"i", "n"}})
	require.Equal(t, before, one[string](t, conn, "select ctid::text || updated_at from public.kv_store where key = 'i'"))
}

// An index may have been a large array, as in Blobs. A call parses the stored array once, not once for each member.
func TestManyMembersOntoALargeStoredArray(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	exec(t, conn, "insert into public.kv_store (key, value) select 'i', json_agg('stored' || n) from generate_series(1, 10000) as n")
	var indexes pairs
	for i := range 200 {
		indexes = append(indexes, []string{"i", fmt.Sprint("stored", i*100)}, []string{"i", fmt.Sprint("new", i)})
	}
	begin := time.Now()
	upsert(t, conn, "e", `{}`, indexes)
	took := time.Since(begin)
	t.Logf("400 members onto 10,000: %v", took.Round(time.Millisecond))
	require.Less(t, took, 10*time.Second)
	require.Len(t, members(t, conn, "i"), 10_000+300) // stored0, and stored10100 and up, are new
}
