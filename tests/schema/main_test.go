// Package schema tests supabase/migrations on a real Postgres: what is stored, who may read it, that locks lose
// nothing and never deadlock, that the change feed misses nothing, and that plans stay cheap.
//
// Environment:
//
//	DATABASE_URL                the schema's owner, not a superuser; this and the next two are required
//	DATABASE_AUTHENTICATOR_URL  the role that PostgREST logs in as
//	DATABASE_ADMIN_URL          a superuser, who creates and drops the databases of the tests
//	KV_SCHEMA_RACES             calls of each race test; default 500
//	KV_SCHEMA_SEED              the seed that a failed randomized test printed: repeats it
//	KV_SCHEMA_ENTRIES           entries and log rows for the tests of plans; default 10,000
//	KV_SCHEMA_MEGABYTES         the size of a list that is too large; default 60
//	KV_SCHEMA_GROWTH            set: compare costs at 10,000 entries and at KV_SCHEMA_ENTRIES (make scale)
//
// A run makes its own databases: one with all migrations, which each test copies. All are dropped at the end. They
// have the shape of a hosted project (see scripts/platform/internal/postgres) on Postgres 17, or on 15 with
// KV_LOCAL_POSTGRES=15. Text sorts by ICU's en-US there, so that a forgotten collate "C" shows.
package schema

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

// run is shared by the tests: three ways to log in, and the migrated database that they copy.
var run struct {
	server        *pgx.ConnConfig // a superuser
	owner         *pgx.ConnConfig
	authenticator *pgx.ConnConfig
	template      string
	copies        atomic.Int64
}

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if err := prepare(); err != nil {
			fmt.Fprintf(os.Stderr, "prepare the database of the schema tests: %v\n"+
				"`make test` runs these tests on a platform of its own; after `make up`, `. .local/env` has the addresses of the local one.\n", err)
			return 1
		}
		defer dropAll()
		return m.Run()
	}())
}

// prepare makes the database that every test copies.
func prepare() error {
	for name, config := range map[string]**pgx.ConnConfig{
		"DATABASE_ADMIN_URL": &run.server, "DATABASE_URL": &run.owner, "DATABASE_AUTHENTICATOR_URL": &run.authenticator,
	} {
		url := os.Getenv(name)
		if url == "" {
			return fmt.Errorf("%s is not set", name)
		}
		var err error
		if *config, err = pgx.ParseConfig(url); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	random := make([]byte, 6)
	if _, err := rand.Read(random); err != nil {
		return err
	}
	run.template = "kv_schema_" + hex.EncodeToString(random)

	ctx := context.Background()
	server, err := pgx.ConnectConfig(ctx, run.server)
	if err != nil {
		return err
	}
	defer func() { _ = server.Close(ctx) }()
	if err := sweep(ctx, server); err != nil {
		return err
	}
	if _, err := server.Exec(ctx, "create database "+run.template+" owner "+run.owner.User); err != nil {
		return err
	}
	if _, err := server.Exec(ctx, fmt.Sprintf("comment on database %s is 'schema tests, %d'", run.template, time.Now().Unix())); err != nil {
		return err
	}
	if err := migrate(ctx, run.template); err != nil {
		dropAll()
		return err
	}
	return nil
}

// sweep drops databases that a killed run left behind more than an hour ago.
func sweep(ctx context.Context, server *pgx.Conn) error {
	rows, err := server.Query(ctx, `
		with runs as (
			select datname, substr(datname, 1, 22) as run, substring(shobj_description(oid, 'pg_database') from '^schema tests, ([0-9]+)$') as at
			from pg_database where datname ~ '^kv_schema_[0-9a-f]{12}')
		select d.datname from runs as d join runs as t on t.datname = d.run
		where t.at::bigint < extract(epoch from now()) - 3600 order by length(d.datname) desc`)
	if err != nil {
		return err
	}
	old, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, name := range old {
		_, _ = server.Exec(ctx, "drop database if exists "+name+" with (force)") // another run may drop it, too
	}
	return nil
}

func dropAll() {
	ctx := context.Background()
	server, err := pgx.ConnectConfig(ctx, run.server)
	if err != nil {
		fmt.Fprintf(os.Stderr, "drop %s*: %v\n", run.template, err)
		return
	}
	defer func() { _ = server.Close(ctx) }()
	rows, err := server.Query(ctx, "select datname from pg_database where starts_with(datname, $1)", run.template)
	if err != nil {
		fmt.Fprintf(os.Stderr, "drop %s*: %v\n", run.template, err)
		return
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		fmt.Fprintf(os.Stderr, "drop %s*: %v\n", run.template, err)
	}
	for _, name := range names {
		if _, err := server.Exec(ctx, "drop database "+name+" with (force)"); err != nil {
			fmt.Fprintf(os.Stderr, "drop %s: %v\n", name, err)
		}
	}
}

const migrationsDir = "../../supabase/migrations"

// migrate applies every migration.
func migrate(ctx context.Context, database string) error {
	names, err := migrationNames()
	if err != nil {
		return err
	}
	return apply(ctx, database, names)
}

// migrationNames returns the files of supabase/migrations in order.
func migrationNames() (names []string, err error) {
	entries, err := os.ReadDir(migrationsDir)
	if err == nil && len(entries) == 0 {
		err = fmt.Errorf("no migrations in %s", migrationsDir)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, err
}

// apply applies migrations in order as the schema's owner, each in one transaction, as the Supabase CLI does.
func apply(ctx context.Context, database string, names []string) error {
	config := run.owner.Copy()
	config.Database = database
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(migrationsDir, name))
		if err != nil {
			return err
		}
		if _, err := conn.PgConn().Exec(ctx, "begin;"+string(text)+"\n;commit").ReadAll(); err != nil {
			return fmt.Errorf("apply %s: %w", name, err)
		}
	}
	return nil
}

// database is a test's own copy of the migrated database.
type database struct {
	name     string
	tampered bool // the test leaves it inconsistent on purpose
}

// newDatabase makes a database for the test. At the end of the test it must be consistent, and is dropped.
func newDatabase(t testing.TB) *database {
	t.Helper()
	ctx := context.Background()
	server, err := pgx.ConnectConfig(ctx, run.server)
	require.NoError(t, err)
	defer func() { _ = server.Close(ctx) }()
	d := &database{name: fmt.Sprintf("%s_%d", run.template, run.copies.Add(1))}
	for try := 0; ; try++ {
		_, err = server.Exec(ctx, "create database "+d.name+" template "+run.template+" owner "+run.owner.User)
		if code(err) != "55006" || try == 50 { // another test is copying it
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	require.NoError(t, err)
	// Deadlocks are detected after 50 ms. Only a superuser may set that.
	exec(t, server, "alter database "+d.name+" set deadlock_timeout = '50ms'")
	t.Cleanup(func() {
		if !t.Failed() && !d.tampered {
			requireConsistent(t, d.owner(t))
		}
		server, err := pgx.ConnectConfig(ctx, run.server)
		require.NoError(t, err)
		defer func() { _ = server.Close(ctx) }()
		_, err = server.Exec(ctx, "drop database "+d.name+" with (force)")
		require.NoError(t, err)
	})
	return d
}

// superuser connects as nobody can on Supabase, for what a test needs.
func (d *database) superuser(t testing.TB, options ...func(*pgx.ConnConfig)) *pgx.Conn {
	t.Helper()
	return d.login(t, run.server, options...)
}

// owner connects as the schema's owner, as migrations and the SQL editor do.
func (d *database) owner(t testing.TB, options ...func(*pgx.ConnConfig)) *pgx.Conn {
	t.Helper()
	return d.login(t, run.owner, options...)
}

// as connects as PostgREST does and sets a role. Supabase's limit of 8 s is off: tests write more than any request.
func (d *database) as(t testing.TB, role string, options ...func(*pgx.ConnConfig)) *pgx.Conn {
	t.Helper()
	conn := d.login(t, run.authenticator, append(options, watch(t))...)
	exec(t, conn, "set statement_timeout = 0; set lock_timeout = 0; set role "+role)
	return conn
}

// connect connects as the role that the functions use.
func (d *database) connect(t testing.TB) *pgx.Conn {
	t.Helper()
	return d.as(t, "service_role")
}

func (d *database) login(t testing.TB, who *pgx.ConnConfig, options ...func(*pgx.ConnConfig)) *pgx.Conn {
	t.Helper()
	config := who.Copy()
	config.Database = d.name
	for _, option := range options {
		option(config)
	}
	conn, err := pgx.ConnectConfig(context.Background(), config)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// querier is a connection or a transaction.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func exec(t testing.TB, q querier, sql string, args ...any) {
	t.Helper()
	_, err := q.Exec(context.Background(), sql, args...)
	require.NoError(t, err, sql)
}

// one returns the only column of the only row.
func one[T any](t testing.TB, q querier, sql string, args ...any) T {
	t.Helper()
	var value T
	require.NoError(t, q.QueryRow(context.Background(), sql, args...).Scan(&value), sql)
	return value
}

// all returns the only column of every row.
func all[T any](t testing.TB, q querier, sql string, args ...any) []T {
	t.Helper()
	rows, err := q.Query(context.Background(), sql, args...)
	require.NoError(t, err, sql)
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	require.NoError(t, err, sql)
	return values
}

// code returns the SQLSTATE of an error, "" for none.
func code(err error) string {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return "not from Postgres: " + err.Error()
}

// requireCode requires that a statement fails with the SQLSTATE.
func requireCode(t testing.TB, want string, q querier, sql string, args ...any) {
	t.Helper()
	_, err := q.Exec(context.Background(), sql, args...)
	require.Equal(t, want, code(err), "%s: %v", sql, err)
}

// pairs are index keys and members, the p_indexes of kv_upsert. nil keeps the indexes of an entry.
type pairs [][]string

func (p pairs) parameter() any {
	if p == nil {
		return nil
	}
	return [][]string(p)
}

func upsert(t testing.TB, q querier, key, value string, indexes pairs) {
	t.Helper()
	exec(t, q, "select public.kv_upsert($1, $2, $3)", key, value, indexes.parameter())
}

func get(t testing.TB, q querier, key string) string {
	t.Helper()
	return one[string](t, q, "select public.kv_get($1)", key)
}

func remove(t testing.TB, q querier, key string) {
	t.Helper()
	exec(t, q, "select public.kv_delete($1)", key)
}

// number returns a size from the environment.
func number(t testing.TB, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, name)
	return n
}

// random returns a source of random numbers. A failing test logs its seed.
func random(t testing.TB) *mrand.Rand {
	t.Helper()
	seed := uint64(number(t, "KV_SCHEMA_SEED", int(time.Now().UnixNano()&0x7fffffff)))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with KV_SCHEMA_SEED=%d", seed)
		}
	})
	return mrand.New(mrand.NewPCG(seed, 1))
}
