package migrate

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/entries"
	"netlify-supabase-kv/pkg/migrate/sources"
)

// theirTable is the shape that the first public migration for such a store gave it.
const theirTable = `
	create schema before;
	create table before.kv_store (
		id uuid primary key default gen_random_uuid(), key text not null unique, value jsonb, indexes text[] default '{}',
		created_at timestamptz default now(), updated_at timestamptz default now());
	insert into before.kv_store (key, value, indexes, created_at, updated_at)
	select 'sessions/' || i, jsonb_build_object('n', i, 'text', repeat('words ', 20)),
		array['index:sessions:' || i, 'kind:a:' || i % 3], timestamptz '2024-01-01Z' + i * interval '1 second', timestamptz '2025-01-01Z'
	from generate_series(1, 1200) as i;
	insert into before.kv_store (key, value, indexes) values
		('index:sessions', '["kept"]', null), ('none', '{"a":1.50}', null), ('null', 'null', '{}'), ('Ünï/日本 "', '[1]', '{a:b:c,a:b:c}');
	update before.kv_store set created_at = 'infinity', updated_at = '0044-03-15 BC' where key = 'null'`

func tableMigration(t *testing.T, setUp string) (*database, *sources.Table) {
	t.Helper()
	d := newDatabase(t)
	_, err := d.SQL.Exec(t.Context(), setUp)
	require.NoError(t, err)
	source, err := sources.NewTable(t.Context(), d.OwnerURL, "before.kv_store")
	require.NoError(t, err)
	t.Cleanup(source.Close)
	return d, source
}

func TestATableOfAnotherStoreArrivesAsItIs(t *testing.T) {
	t.Parallel()
	d, source := tableMigration(t, theirTable)
	dir := filepath.Join(t.TempDir(), "migration")
	o := RunOptions{Options: entries.Options{IndexPrefix: entries.DefaultIndexPrefix}, Dir: dir, BatchSize: DefaultBatchSize, Progress: sources.NoProgress{}}
	result, err := Run(t.Context(), source, d.target(), o)
	require.NoError(t, err)
	require.True(t, result.Finished)
	require.Zero(t, result.Failed, result.Failures)

	verify := func() Verification {
		v, err := Verify(t.Context(), source, d.target(), VerifyOptions{Options: o.Options, Dir: dir, Progress: sources.NoProgress{}, rechecks: usualRechecks[:1]})
		require.NoError(t, err)
		return v
	}
	v := verify()
	require.True(t, v.Same(), v)
	require.Equal(t, 1204+2, v.Identical, "the rows, and the indexes a:b and kind:a, which have none")

	states, err := d.Supabase.States(t.Context(), []string{"sessions/7", "none", "null", `Ünï/日本 "`, "index:sessions", "kind:a"})
	require.NoError(t, err)
	require.Equal(t, [][2]string{{"index:sessions", "7"}, {"kind:a", "1"}}, states[0].Indexes)
	require.Equal(t, int64(1704067207000000), states[0].Created)
	require.Equal(t, int64(1735689600000000), states[0].Updated)
	require.Equal(t, `{"a": 1.50}`, states[1].Value, "as jsonb writes it")
	require.Equal(t, "null", states[2].Value)
	require.Equal(t, [][2]string{{"a:b", "c"}}, states[3].Indexes)
	require.JSONEq(t, `["kept"]`, states[4].Value, "the row that the index has")
	require.JSONEq(t, `["1","2","0"]`, states[5].Value, "in the order in which members came")
	found, err := d.Supabase.List(t.Context(), kv.ListQuery{Indexes: []string{"kind:a:1"}})
	require.NoError(t, err)
	var list struct{ Count int }
	require.NoError(t, json.Unmarshal([]byte(found), &list))
	require.Equal(t, 400, list.Count)

	// What changed in the table since comes with another run.
	_, err = d.SQL.Exec(t.Context(), `
		update before.kv_store set value = '{"changed":true}' where key = 'sessions/7';
		delete from before.kv_store where key = 'sessions/8';
		insert into before.kv_store (key, value, indexes) values ('late', '{}', '{new:m}')`)
	require.NoError(t, err)
	require.False(t, verify().Same())
	result, err = Run(t.Context(), source, d.target(), o)
	require.NoError(t, err)
	require.Less(t, result.Read, 10, "the others are not read again")
	require.True(t, verify().Same())
	_, err = d.Supabase.MigrationClose(t.Context())
	require.NoError(t, err)
}

func TestRowsThatAreNoEntriesAreNamed(t *testing.T) {
	t.Parallel()
	_, source := tableMigration(t, `
		create schema before;
		create table before.kv_store (key varchar(20) primary key, value text, indexes varchar[]);
		insert into before.kv_store values ('fine', '{"a":1}', '{i:m}'), ('sql null', null, null), ('text', 'hello', null), ('', '1', null),
			('no member', '1', '{i:}'), ('no colon', '1', '{i}'), ('null element', '1', array[null])`)
	result, err := Plan(t.Context(), source, nil, PlanOptions{Options: entries.Options{IndexPrefix: entries.DefaultIndexPrefix}, Progress: sources.NoProgress{}})
	require.NoError(t, err)
	reasons := map[string]string{}
	for _, problem := range result.Failures {
		reasons[problem.Key] = problem.Reason
	}
	require.Len(t, reasons, 5)
	require.Contains(t, reasons["sql null"], "NULL")
	require.Contains(t, reasons[""], "key")
	require.Contains(t, reasons["no member"], `"i:"`)
	require.Contains(t, reasons["no colon"], `"i"`)
	require.Contains(t, reasons["null element"], "NULL")
}

func TestTablesThatCannotBeASourceAreRefused(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	_, err := d.SQL.Exec(t.Context(), `
		create table public.no_value (key text primary key);
		create table public.number (key integer primary key, value jsonb);
		create table public.twice (key text, value jsonb);
		insert into public.twice values ('a', '1'), ('a', '2');
		create table public.list (key text primary key, value jsonb, indexes jsonb)`)
	require.NoError(t, err)
	for table, says := range map[string]string{
		"kv_store": "with its schema", "public.none": "there is no table", "public.kv_store": "own table", "public.no_value": "no column value",
		"public.number": "of the type integer", "public.twice": "1 rows", "public.list": "of the type jsonb", `public.x"; drop table y; --`: "there is no table",
	} {
		_, err := sources.NewTable(t.Context(), d.OwnerURL, table)
		require.ErrorContains(t, err, says, table)
	}
	_, err = sources.NewTable(t.Context(), "postgres://:secret@host:x/", "public.a")
	require.ErrorContains(t, err, "DATABASE_URL")
	require.NotContains(t, err.Error(), "secret")
}
