package schema

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	osexec "os/exec"
	"regexp"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

// emptyDatabase makes a database without migrations, as a new project has.
func emptyDatabase(t *testing.T) *database {
	t.Helper()
	server, err := pgx.ConnectConfig(t.Context(), run.server)
	require.NoError(t, err)
	d := &database{name: fmt.Sprintf("%s_%d", run.template, run.copies.Add(1))}
	exec(t, server, "create database "+d.name+" owner "+run.owner.User)
	t.Cleanup(func() {
		exec(t, server, "drop database "+d.name+" with (force)")
		require.NoError(t, server.Close(context.Background()))
	})
	return d
}

const (
	// objects counts tables, indexes and functions.
	objects = `select (select count(*) from pg_proc where pronamespace in (to_regnamespace('public'), to_regnamespace('kv')))
		+ (select count(*) from pg_class where relnamespace in (to_regnamespace('public'), to_regnamespace('kv')))`
	// theirs is a table that a site may have: the first public version of such a store.
	theirs = `
		create table public.kv_store (
			id uuid primary key default gen_random_uuid(), key text not null unique, value jsonb, indexes text[] default '{}',
			created_at timestamptz default now(), updated_at timestamptz default now());
		create index kv_store_created_at on public.kv_store (created_at);
		insert into public.kv_store (key, value) values ('a', '1'), ('b', '2')`
)

func TestWhatIsForeignIsRefusedBeforeAnythingIsChanged(t *testing.T) {
	t.Parallel()
	for name, made := range map[string]string{
		"TheFirstPublicShape": theirs,
		"AView":               "create view public.kv_store as select 1 as key",
		"AnotherShape":        "create table public.kv_store (k bytea, v bytea)",
		"ASchema":             "create schema kv; create table kv.log (line text)",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := emptyDatabase(t)
			exec(t, d.owner(t), made)
			before := one[int](t, d.owner(t), objects)
			err := migrate(t.Context(), d.name)
			refusal, _ := errors.AsType[*pgconn.PgError](err)
			if name == "ASchema" {
				require.Equal(t, "42P06", code(err), "%v", err)
				require.Equal(t, "There is a schema kv that is not of this project. Nothing was changed.", refusal.Message)
			} else {
				require.Equal(t, "42P07", code(err), "%v", err)
				require.Equal(t, "There is a table public.kv_store that is not of this project. Nothing was changed.", refusal.Message)
			}
			require.Equal(t, before, one[int](t, d.owner(t), objects))
			way := regexp.MustCompile(`\((create schema before; .*?|alter schema .*?)\)`).FindStringSubmatch(refusal.Hint)
			require.NotNil(t, way, refusal.Hint)
			if name == "AView" {
				return
			}
			exec(t, d.owner(t), way[1])
			require.NoError(t, migrate(t.Context(), d.name), "what the hint says")
			upsert(t, d.connect(t), "a", "{}", nil)
			err = migrate(t.Context(), d.name)
			refusal, _ = errors.AsType[*pgconn.PgError](err)
			require.Contains(t, refusal.Message, "were applied before", "our own table is not called foreign")
		})
	}
}

// psqlCommand returns the line of README.md that applies the migrations without the Supabase CLI.
func psqlCommand(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	line := regexp.MustCompile(`(?m)^ *(psql "\$DATABASE_URL".*)$`).FindStringSubmatch(string(page))
	require.NotNil(t, line, "README.md names psql")
	return line[1]
}

func TestPsqlAppliesAllOrNothing(t *testing.T) {
	t.Parallel()
	if _, err := osexec.LookPath("psql"); err != nil {
		t.Skip("there is no psql on PATH")
	}
	apply := func(shell string, d *database) (ok bool, out string) {
		cmd := osexec.CommandContext(t.Context(), shell, "-c", psqlCommand(t))
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), "DATABASE_URL="+d.address(t))
		printed, err := cmd.CombinedOutput()
		return err == nil, string(printed)
	}
	for _, shell := range []string{"sh", "bash"} {
		d := emptyDatabase(t)
		ok, out := apply(shell, d)
		require.True(t, ok, out)
		upsert(t, d.connect(t), "a", "{}", nil)
		all := one[int](t, d.owner(t), objects)
		ok, out = apply(shell, d)
		require.False(t, ok, out)
		require.Contains(t, out, "were applied before")
		require.Equal(t, all, one[int](t, d.owner(t), objects))
	}
	for says, made := range map[string]string{
		"not of this project": theirs,
		"already exists":      "create function public.kv_upsert(text, text, text[], uuid, boolean) returns int language sql as 'select 1'", // which a file in the middle creates
	} {
		d := emptyDatabase(t)
		exec(t, d.owner(t), made)
		before := one[int](t, d.owner(t), objects)
		ok, out := apply("sh", d)
		require.False(t, ok, out)
		require.Contains(t, out, says)
		require.Equal(t, before, one[int](t, d.owner(t), objects), "nothing half")
	}
}

// address returns the address of the database for the schema's owner.
func (d *database) address(t *testing.T) string {
	t.Helper()
	u, err := url.Parse(os.Getenv("DATABASE_URL"))
	require.NoError(t, err)
	u.Path = "/" + d.name
	return u.String()
}
