package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/scripts/platform/internal/console"
	"netlify-supabase-kv/scripts/platform/internal/layout"
	"netlify-supabase-kv/scripts/platform/internal/npm"
)

// supabaseCLI is the tool with which README.md applies the migrations.
var supabaseCLI = npm.Set{Name: "supabase", What: "the Supabase CLI (large)"}

// cli is the Supabase CLI in a copy of the supabase folder, so that its files do not end up in the checkout.
type cli struct {
	t        *testing.T
	program  string
	dir      string
	checkout layout.Checkout
}

func newCLI(t *testing.T) *cli {
	t.Helper()
	if os.Getenv("ROAD") == "" {
		t.Skip("ROAD is not set: this installs the Supabase CLI, 142 MB (make road)")
	}
	checkout, err := layout.Find(".")
	require.NoError(t, err)
	modules, err := supabaseCLI.Install(t.Context(), checkout, console.New(os.Stderr))
	require.NoError(t, err)
	c := &cli{t: t, dir: t.TempDir(), checkout: checkout}
	c.program = filepath.Join(modules, "node_modules", "@supabase", "cli-"+runtime.GOOS+"-x64", "bin", "supabase")
	if _, err := os.Stat(c.program); err != nil {
		c.program, err = exec.LookPath("supabase")
		require.NoError(t, err, "npm has no Supabase CLI for this system: put version 3 on PATH")
	}
	require.NoError(t, os.CopyFS(filepath.Join(c.dir, "supabase"), os.DirFS(filepath.Join(checkout.Root, "supabase"))))
	return c
}

// run returns the exit status, standard output, and the complete output.
func (c *cli) run(args ...string) (status int, stdout, printed string) {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), c.program, args...)
	cmd.Dir = c.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir, "NO_COLOR=1", "SUPABASE_TELEMETRY_DISABLED=1"}
	var out, all bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &all
	return exitOf(c.t, cmd.Run()), out.String(), out.String() + all.String()
}

func exitOf(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	require.NoError(t, err)
	return 0
}

// emptyDatabase creates a database on the running platform, in the state of a project before the first migration. The
// address is for its owner.
func emptyDatabase(t *testing.T) (address string, conn *pgx.Conn) {
	t.Helper()
	admin, err := pgx.Connect(t.Context(), os.Getenv("DATABASE_ADMIN_URL"))
	require.NoError(t, err, "this test needs a platform that runs: make road")
	name := "cli_" + strings.ToLower(rand.Text())
	_, err = admin.Exec(t.Context(), "create database "+name+" owner postgres")
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := admin.Exec(context.Background(), "drop database "+name+" with (force)")
		require.NoError(t, err)
		require.NoError(t, admin.Close(context.Background()))
	})
	owner, err := url.Parse(os.Getenv("DATABASE_URL"))
	require.NoError(t, err)
	owner.Path = "/" + name
	conn, err = pgx.Connect(t.Context(), owner.String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	require.False(t, value[bool](t, conn, "select rolsuper from pg_roles where rolname = current_user"))
	return owner.String(), conn
}

func value[T any](t *testing.T, conn *pgx.Conn, sql string) (v T) {
	t.Helper()
	require.NoError(t, conn.QueryRow(t.Context(), sql).Scan(&v), sql)
	return v
}

// ours counts the objects of the migrations in public.
const ours = `select (select count(*) from pg_proc where pronamespace = 'public'::regnamespace)
	+ (select count(*) from pg_class where relnamespace = 'public'::regnamespace and relname like 'kv\_%')`

// works checks that the role of PostgREST can write and read an entry.
func works(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	_, err := conn.Exec(t.Context(), "set role service_role")
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), `select public.kv_upsert('a', '{"n":1.0}', '{{i,m}}')`)
	require.NoError(t, err)
	require.Equal(t, `{"n":1.0}`, value[string](t, conn, "select public.kv_get('a')"))
	_, err = conn.Exec(t.Context(), "reset role")
	require.NoError(t, err)
}

func TestTheSupabaseCLIAppliesTheMigrations(t *testing.T) {
	c := newCLI(t)
	address, conn := emptyDatabase(t)
	status, _, printed := c.run("db", "push", "--remote="+address, "--yes")
	require.Zero(t, status, printed)
	files, err := filepath.Glob(filepath.Join(c.checkout.Migrations(), "*.sql"))
	require.NoError(t, err)
	require.Equal(t, len(files), value[int](t, conn, "select count(*) from supabase_migrations.schema_migrations"))
	works(t, conn)

	status, _, printed = c.run("db", "push", "--remote="+address, "--yes")
	require.Zero(t, status, printed)
	require.Contains(t, printed, "up to date")
	works(t, conn)

	t.Run("WhatTheAdvisorsSayIsExplained", func(t *testing.T) { c.requireExplained(t, address) })
	t.Run("LintFindsNothing", func(t *testing.T) {
		if !value[bool](t, conn, "select exists (select from pg_available_extensions where name = 'plpgsql_check')") {
			t.Skip("this Postgres lacks plpgsql_check, with which `supabase db lint` looks into functions; Supabase has it")
		}
		status, _, printed := c.run("db", "lint", "--remote="+address, "--level", "warning", "--fail-on", "warning")
		require.Zero(t, status, printed)
	})
}

// ofWarning matches the functions that SECURITY.md lists for the only accepted warning.
var ofWarning = regexp.MustCompile("(?m)^\\| `function_search_path_mutable` \\(warning\\) \\| ([^|]*) \\|")

// requireExplained requires that SECURITY.md explains each kind of finding, and that no finding is a security problem.
func (c *cli) requireExplained(t *testing.T, address string) {
	status, stdout, printed := c.run("db", "advisors", "--remote="+address, "--level", "info", "--output-format", "json")
	require.Zero(t, status, printed)
	var told struct {
		Results []struct {
			Name, Level, Detail string
			Metadata            struct{ Name string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &told), printed)
	require.NotEmpty(t, told.Results, "row security without policies is said at least")
	page, err := os.ReadFile(filepath.Join(c.checkout.Root, "docs", "SECURITY.md"))
	require.NoError(t, err)
	var warned []string
	for _, found := range told.Results {
		require.Contains(t, string(page), "`"+found.Name+"`", "%s %s: docs/SECURITY.md does not explain it", found.Level, found.Detail)
		if found.Level != "INFO" {
			require.Equal(t, "function_search_path_mutable", found.Name, found.Detail)
			warned = append(warned, found.Metadata.Name)
		}
	}
	slices.Sort(warned)
	named := ofWarning.FindSubmatch(page)
	require.NotNil(t, named)
	require.Equal(t, string(named[1]), "`"+strings.Join(warned, "`, `")+"`")
}

// theirs is a table that a site may already have: the first published schema of such a store.
const theirs = `
	create table public.kv_store (
		id uuid primary key default gen_random_uuid(), key text not null unique, value jsonb, indexes text[] default '{}',
		created_at timestamptz default now(), updated_at timestamptz default now());
	create index kv_store_created_at on public.kv_store (created_at);
	insert into public.kv_store (key, value) values ('a', '1'), ('b', '2')`

// moveAside matches the command in the refusal.
var moveAside = regexp.MustCompile(`create schema before; alter table public\.kv_store set schema before`)

func TestAForeignTableIsLeftAlone(t *testing.T) {
	c := newCLI(t)
	address, conn := emptyDatabase(t)
	_, err := conn.Exec(t.Context(), theirs)
	require.NoError(t, err)
	before := value[int](t, conn, ours)
	for range 2 {
		status, _, printed := c.run("db", "push", "--remote="+address, "--yes")
		require.NotZero(t, status, printed)
		require.Contains(t, printed, "There is a table public.kv_store that is not of this project. Nothing was changed.")
		require.Regexp(t, moveAside, printed, "the way on")
		require.Equal(t, before, value[int](t, conn, ours))
		require.Equal(t, "a1b2", value[string](t, conn, "select string_agg(key || value, '' order by key) from public.kv_store"))
		require.Zero(t, value[int](t, conn, "select count(*) from supabase_migrations.schema_migrations"))
	}
	_, err = conn.Exec(t.Context(), "create schema before; alter table public.kv_store set schema before")
	require.NoError(t, err)
	status, _, printed := c.run("db", "push", "--remote="+address, "--yes")
	require.Zero(t, status, printed)
	works(t, conn)
	require.Equal(t, 2, value[int](t, conn, "select count(*) from before.kv_store"))
}
