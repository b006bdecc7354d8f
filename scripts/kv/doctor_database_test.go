package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	supabase "netlify-supabase-kv/supabase"
)

// supabaseDefaults is what a Supabase project grants before any migration runs: everything to everyone.
const supabaseDefaults = `
	grant usage on schema public to anon, authenticated, service_role;
	alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
	alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
	alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;`

// migrations returns the names of the files, and the text of each.
func migrations(t *testing.T) (names []string, texts map[string]string) {
	t.Helper()
	files, err := fs.Glob(supabase.Migrations, "migrations/*.sql")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	texts = map[string]string{}
	for _, file := range files {
		text, err := fs.ReadFile(supabase.Migrations, file)
		require.NoError(t, err)
		name := strings.TrimPrefix(file, "migrations/")
		names, texts[name] = append(names, name), string(text)
	}
	return names, texts
}

// upTo returns the text of the migrations before a version.
func upTo(t *testing.T, version string) string {
	names, texts := migrations(t)
	var all strings.Builder
	for _, name := range names {
		if name < version {
			all.WriteString(texts[name] + "\n;")
		}
	}
	return all.String()
}

// template is a database with every migration applied. It is made once.
var template struct {
	sync.Mutex
	name string
}

func migrated(t *testing.T) string {
	template.Lock()
	defer template.Unlock()
	if template.name == "" {
		name := "kv_doctor_" + strings.ToLower(rand.Text())
		createDatabase(t, name, "template0", upTo(t, "9"))
		template.name = name
	}
	return template.name
}

func dropTemplate() {
	if template.name == "" {
		return
	}
	conn, err := pgx.Connect(context.Background(), os.Getenv("DATABASE_ADMIN_URL"))
	if err == nil {
		_, err = conn.Exec(context.Background(), "drop database "+template.name+" with (force)")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "drop", template.name, err)
	}
}

// newDatabase makes a database for the test, runs a statement in it as a superuser, and returns its address for the
// schema's owner.
func newDatabase(t *testing.T, from, sql string) string {
	t.Helper()
	name := "kv_doctor_" + strings.ToLower(rand.Text())
	createDatabase(t, name, from, "")
	t.Cleanup(func() { execute(t, os.Getenv("DATABASE_ADMIN_URL"), "drop database "+name+" with (force)") })
	admin := os.Getenv("DATABASE_ADMIN_URL")
	if from == "template0" {
		admin = os.Getenv("DATABASE_URL")
	}
	execute(t, of(t, admin, name), sql)
	return of(t, os.Getenv("DATABASE_URL"), name)
}

// createDatabase copies a database, and runs sql in the copy as the schema's owner.
func createDatabase(t *testing.T, name, from, sql string) {
	t.Helper()
	execute(t, os.Getenv("DATABASE_ADMIN_URL"), "create database "+name+" owner postgres template "+from)
	if from == "template0" {
		execute(t, of(t, os.Getenv("DATABASE_URL"), name), supabaseDefaults+sql)
	}
}

// of returns the address of another database on the same server.
func of(t *testing.T, address, database string) string {
	u, err := url.Parse(address)
	require.NoError(t, err)
	u.Path = "/" + database
	return u.String()
}

func execute(t *testing.T, address, sql string) {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), address)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	_, err = conn.PgConn().Exec(context.Background(), sql).ReadAll()
	require.NoError(t, err)
}
