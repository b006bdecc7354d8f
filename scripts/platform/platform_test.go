package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/scripts/platform/internal/bundle"
	"netlify-supabase-kv/scripts/platform/internal/envfile"
	"netlify-supabase-kv/scripts/platform/internal/layout"
	"netlify-supabase-kv/scripts/platform/internal/ports"
	"netlify-supabase-kv/scripts/platform/internal/proc"
	"netlify-supabase-kv/scripts/platform/internal/say"
	"netlify-supabase-kv/scripts/platform/internal/supervisor"
)

// TestMain lets the platform under test start this binary as its supervisor.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		main()
		return
	}
	os.Exit(m.Run())
}

// project is a checkout of its own with a small schema and one function, beside the real one's npm packages.
func project(t *testing.T) (*supervisor.Platform, *bytes.Buffer) {
	t.Helper()
	// These tests may run under `run`, whose variables name another platform.
	for _, name := range []string{"SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "GOFLAGS", "USE_SUPABASE_KV", "KV_API_TOKEN", "PORT_BASE"} {
		t.Setenv(name, "")
	}
	real, err := layout.Find(".")
	require.NoError(t, err)
	root := t.TempDir()
	for name, content := range map[string]string{
		"go.mod":            "module example.com/project\n\ngo 1.26\n",
		"netlify.toml":      "[build]\npublish = \"public\"\n[[redirects]]\nfrom = \"/api/hello\"\nto = \"/.netlify/functions/hello\"\nstatus = 200\n",
		"public/index.html": "a page\n",
		"supabase/migrations/20260101000000_create_note.sql": "create table public.note (id int primary key);\n",
	} {
		write(t, root, name, content)
	}
	lambda, err := os.ReadFile("internal/host/testdata/lambda/main.go")
	require.NoError(t, err)
	write(t, root, "functions/hello/main.go", string(lambda))
	sum, err := os.ReadFile(filepath.Join(real.Root, "go.sum"))
	require.NoError(t, err)
	write(t, root, "go.sum", string(sum))
	mod, err := os.ReadFile(filepath.Join(real.Root, "go.mod"))
	require.NoError(t, err)
	write(t, root, "go.mod", string(mod))
	require.NoError(t, os.CopyFS(filepath.Join(root, "scripts", "platform", "npm"), os.DirFS("npm")))
	require.NoError(t, os.MkdirAll(filepath.Join(root, ".local"), 0o755))
	_, err = packages.Install(t.Context(), real, say.New(os.Stderr))
	require.NoError(t, err)
	require.NoError(t, os.Symlink(filepath.Join(real.Local(), "npm"), filepath.Join(root, ".local", "npm")))
	out := &bytes.Buffer{}
	checkout, err := layout.Find(root)
	require.NoError(t, err)
	p := &supervisor.Platform{Checkout: checkout, Home: checkout.Main(), Out: say.Plain(out)}
	t.Cleanup(func() {
		require.NoError(t, p.Stop(context.Background()))
		require.NoError(t, p.Erase())
	})
	return p, out
}

func write(t *testing.T, root, name, content string) {
	t.Helper()
	file := filepath.Join(root, filepath.FromSlash(name))
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
}

func bringUp(t *testing.T, p *supervisor.Platform) supervisor.State {
	t.Helper()
	state, err := up(t.Context(), p, &options{postgres: "17", portBase: ports.Auto, instances: 2, timeout: time.Minute})
	require.NoError(t, err, "see the logs in %s", p.Home.Logs())
	require.True(t, state.Ready)
	return state
}

func variables(t *testing.T, p *supervisor.Platform) map[string]string {
	t.Helper()
	pairs, err := envfile.Read(p.Home.Env())
	require.NoError(t, err)
	values := map[string]string{}
	for _, pair := range pairs {
		values[pair.Key] = pair.Value
	}
	return values
}

func get(t *testing.T, address string, header map[string]string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	require.NoError(t, err)
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

func part(t *testing.T, p *supervisor.Platform, name string) supervisor.Part {
	t.Helper()
	state, running := p.Running()
	require.True(t, running)
	for _, part := range state.Parts {
		if part.Name == name {
			return part
		}
	}
	require.Fail(t, "no part "+name)
	return supervisor.Part{}
}

func query(t *testing.T, p *supervisor.Platform, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), variables(t, p)["DATABASE_URL"])
	require.NoError(t, err)
	defer conn.Close(context.Background())
	var answer string
	require.NoError(t, conn.QueryRow(t.Context(), sql).Scan(&answer))
	return answer
}

func TestOtherVersionsOfPostgresAreRefused(t *testing.T) {
	t.Parallel()
	o := &options{postgres: "16"}
	_, err := o.installPostgres(t.Context(), nil, "modules")
	require.EqualError(t, err, `--postgres (KV_LOCAL_POSTGRES) must be 17 or 15, got "16"`)
}

// TestLife is one platform from nothing to nothing, on real Postgres, PostgREST and bundler.
//
// The checkout is one that only its owner can enter: run by root, Postgres has to live elsewhere then.
func TestLife(t *testing.T) {
	p, out := project(t)
	require.NoError(t, os.Chmod(p.Checkout.Root, 0o700))
	state := bringUp(t, p)
	env := variables(t, p)
	service := map[string]string{"apikey": env["SUPABASE_SERVICE_ROLE_KEY"]}
	notes := env["SUPABASE_URL"] + "/rest/v1/note"

	t.Run("OutputNamesEachPartAndNoSecret", func(t *testing.T) {
		for _, text := range []string{"started    Postgres", "applied    1 migrations, up to 20260101000000_create_note.sql", "started    PostgREST", "started    the Blobs stand-in", "started    1 functions, 2 instances each"} {
			require.Contains(t, out.String(), text)
		}
		var addresses bytes.Buffer
		printAddresses(&addresses, p, state)
		for _, name := range []string{"SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_ANON_KEY", "SUPABASE_SERVICE_ROLE_JWT", "SUPABASE_JWT_SECRET", "NETLIFY_BLOBS_TOKEN"} {
			require.NotEmpty(t, env[name])
			require.NotContains(t, out.String()+addresses.String(), env[name])
			requireNotLogged(t, p, env[name])
		}
	})
	t.Run("RolesAreSupabases", func(t *testing.T) {
		require.Equal(t, "f", query(t, p, "select rolsuper::text from pg_roles where rolname = 'postgres'")[:1])
		require.Equal(t, "anon,authenticated,service_role", query(t, p, "select string_agg(grantee, ',' order by grantee) from information_schema.table_privileges where table_name = 'note' and privilege_type = 'INSERT' and grantee <> 'postgres'"))
		require.Equal(t, "i en-US", query(t, p, "select datlocprovider::text || ' ' || datlocale from pg_database where datname = current_database()"))
		require.Equal(t, "f", query(t, p, "select (datctype in ('C', 'POSIX'))::text from pg_database where datname = current_database()")[:1], "every letter beyond ASCII would be a word's")
		require.Equal(t, "{statement_timeout=8s,lock_timeout=8s}", query(t, p, "select setconfig::text from pg_db_role_setting where setrole = 'authenticator'::regrole"))
		require.Equal(t, "logical", query(t, p, "show wal_level"))
		status, body := get(t, notes, service)
		require.Equal(t, 200, status)
		require.Equal(t, "[]", body)
		status, _ = get(t, notes, nil)
		require.Equal(t, 401, status)
	})
	t.Run("FunctionsAndFilesAreServed", func(t *testing.T) {
		status, body := get(t, env["KV_BASE_URL"]+"/api/hello?do=env", nil)
		require.Equal(t, 200, status)
		require.Contains(t, body, "SUPABASE_URL="+env["SUPABASE_URL"]+"\n")
		require.Contains(t, body, "USE_SUPABASE_KV=true")
		status, body = get(t, env["KV_BASE_URL"]+"/", nil)
		require.Equal(t, 200, status)
		require.Equal(t, "a page\n", body)
	})
	t.Run("AgainChangesNothing", func(t *testing.T) {
		before := instanceNames(t, env)
		require.Equal(t, state.Supervisor, bringUp(t, p).Supervisor)
		require.Equal(t, before, instanceNames(t, env))
	})
	t.Run("OtherVariablesRestartTheFunctions", func(t *testing.T) {
		t.Setenv("KV_API_TOKEN", "t")
		require.Equal(t, state.Supervisor, bringUp(t, p).Supervisor)
		_, body := get(t, env["KV_BASE_URL"]+"/api/hello?do=env", nil)
		require.Contains(t, body, "KV_API_TOKEN=t")
		require.Equal(t, "t", variables(t, p)["KV_API_TOKEN"], "whoever sources the file can call the functions")
	})
	t.Run("ChangedSourceIsBuiltAndNewMigrationsAreApplied", func(t *testing.T) {
		source := filepath.Join(p.Checkout.Root, "functions", "hello", "main.go")
		content, err := os.ReadFile(source)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(source, []byte(strings.ReplaceAll(string(content), `"env"`, `"environment"`)), 0o644))
		write(t, p.Checkout.Root, "supabase/migrations/20260102000000_create_more.sql", "create table public.more (id int);\n")
		require.Equal(t, state.Supervisor, bringUp(t, p).Supervisor)
		_, body := get(t, env["KV_BASE_URL"]+"/api/hello?do=environment", nil)
		require.Contains(t, body, "USE_SUPABASE_KV=true")
		require.Eventually(t, func() bool {
			status, _ := get(t, env["SUPABASE_URL"]+"/rest/v1/more", service)
			return status == 200
		}, 20*time.Second, 20*time.Millisecond)
	})
	t.Run("MigrationThatFailsIsLocatedAndNothingOfItStays", func(t *testing.T) {
		file := "supabase/migrations/20260103000000_break.sql"
		write(t, p.Checkout.Root, file, "create table public.half (id int);\nselect nothing;\n")
		_, err := up(t.Context(), p, &options{postgres: "17", instances: 2, timeout: time.Minute})
		require.ErrorContains(t, err, file+`:2:8: column "nothing" does not exist`)
		require.Equal(t, "f", query(t, p, "select (to_regclass('public.half') is not null)::text")[:1])
		require.NoError(t, os.Remove(filepath.Join(p.Checkout.Root, filepath.FromSlash(file))))
	})
	for _, name := range []string{"postgres", "postgrest"} {
		t.Run("KilledIsStartedAgain/"+name, func(t *testing.T) {
			victim := part(t, p, name).Process
			require.True(t, victim.Alive())
			require.NoError(t, proc.Kill(victim.PID))
			require.Eventually(t, func() bool {
				status, _ := get(t, notes, service)
				return status == 200 && part(t, p, name).Process.PID != victim.PID
			}, 20*time.Second, 50*time.Millisecond)
		})
	}
	t.Run("KilledSupervisorLeavesNothingThatIsInTheWay", func(t *testing.T) {
		query(t, p, "with w as (insert into public.note values (7) returning id) select id::text from w")
		postgres := part(t, p, "postgres").Process
		require.NoError(t, proc.Kill(state.Supervisor.PID))
		again := bringUp(t, p)
		require.NotEqual(t, state.Supervisor, again.Supervisor)
		require.False(t, postgres.Alive())
		require.Equal(t, "7", query(t, p, "select string_agg(id::text, ',') from public.note"))
	})
	t.Run("DownEndsEverythingTwice", func(t *testing.T) {
		processes := everyProcess(t, p)
		require.Greater(t, len(processes), 4)
		require.NoError(t, p.Stop(t.Context()))
		for _, process := range processes {
			require.False(t, process.Alive())
		}
		require.NoFileExists(t, p.Home.Env())
		require.NoError(t, p.Stop(t.Context()))
	})
	t.Run("DataSurvivesDownAndNotErase", func(t *testing.T) {
		bringUp(t, p)
		require.Equal(t, "7", query(t, p, "select string_agg(id::text, ',') from public.note"))
		require.NoError(t, p.Stop(t.Context()))
		place, err := filepath.EvalSymlinks(p.Home.Postgres())
		require.NoError(t, err)
		if os.Geteuid() == 0 {
			require.True(t, strings.HasPrefix(place, "/var/tmp/"), place)
		}
		require.NoError(t, p.Erase())
		require.NoDirExists(t, place)
		file := "supabase/migrations/20260104000000_break.sql"
		write(t, p.Checkout.Root, file, "select 1;\n-- ä\nselect nothing;\n")
		_, err = up(t.Context(), p, &options{postgres: "17", portBase: ports.Auto, instances: 2, timeout: time.Minute})
		require.ErrorContains(t, err, file+`:3:8: column "nothing" does not exist`)
		_, running := p.Running()
		require.False(t, running)
		require.NoError(t, os.Remove(filepath.Join(p.Checkout.Root, filepath.FromSlash(file))))
		bringUp(t, p)
		require.Equal(t, "0", query(t, p, "select count(*)::text from public.note"))
	})
}

// requireNotLogged looks for a secret in every log file.
func requireNotLogged(t *testing.T, p *supervisor.Platform, secret string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(p.Home.Logs(), "*"))
	require.NoError(t, err)
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NotContains(t, string(content), secret, file)
	}
}

type instance struct {
	Name string `json:"name"`
	PID  int    `json:"pid"`
}

func instances(t *testing.T, env map[string]string) []instance {
	t.Helper()
	_, body := get(t, env["KV_HOST_URL"]+"/_platform/instances", nil)
	var list struct{ Instances []instance }
	require.NoError(t, json.Unmarshal([]byte(body), &list))
	return list.Instances
}

func instanceNames(t *testing.T, env map[string]string) (names []string) {
	t.Helper()
	for _, in := range instances(t, env) {
		names = append(names, in.Name)
	}
	return names
}

// everyProcess lists the supervisor, its parts and the instances.
func everyProcess(t *testing.T, p *supervisor.Platform) (all []proc.Identity) {
	t.Helper()
	state, _ := p.Running()
	all = append(all, state.Supervisor)
	for _, part := range state.Parts {
		if part.Process.PID != 0 {
			all = append(all, part.Process)
		}
	}
	for _, in := range instances(t, variables(t, p)) {
		process, alive := proc.Identify(in.PID)
		require.True(t, alive)
		all = append(all, process)
	}
	return all
}

// An `up` that is interrupted while it starts leaves nothing that runs.
func TestInterruptedUpLeavesNothing(t *testing.T) {
	p, _ := project(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { // as soon as Postgres runs
		for ctx.Err() == nil {
			if state, running := p.Running(); running && len(state.Parts) > 0 && state.Parts[0].Process.PID != 0 {
				cancel()
			}
			time.Sleep(time.Millisecond)
		}
	}()
	_, err := up(ctx, p, &options{postgres: "17", portBase: ports.Auto, instances: 1, timeout: time.Minute})
	require.ErrorIs(t, err, context.Canceled)
	_, running := p.Running()
	require.False(t, running)
	require.NoFileExists(t, p.Home.State())
}

// A project that exists already is used as it is: no database starts here.
func TestGivenProjectIsUsed(t *testing.T) {
	p, _ := project(t)
	t.Setenv("SUPABASE_URL", "http://127.0.0.1:1")
	t.Setenv("SUPABASE_SERVICE_ROLE_KEY", "given")
	state := bringUp(t, p)
	for _, part := range state.Parts {
		require.NotContains(t, []string{"postgres", "postgrest", "migrations"}, part.Name)
	}
	env := variables(t, p)
	require.Equal(t, "http://127.0.0.1:1", env["SUPABASE_URL"])
	require.Empty(t, env["DATABASE_URL"])
	_, body := get(t, env["KV_BASE_URL"]+"/api/hello?do=env", nil)
	require.Contains(t, body, "SUPABASE_SERVICE_ROLE_KEY=given")
	t.Setenv("SUPABASE_SERVICE_ROLE_KEY", "")
	_, err := up(t.Context(), p, &options{postgres: "17", instances: 1})
	require.ErrorContains(t, err, "SUPABASE_SERVICE_ROLE_KEY is not")
}

// Tests must not reach a store that the shell they were started from knows.
func TestRunLeavesTheEnvironmentsStoresAlone(t *testing.T) {
	for _, name := range []string{"SUPABASE_URL", "DATABASE_URL", "KV_API_TOKEN", "KV_BASE_URL", "USE_SUPABASE_KV", "NETLIFY_BLOBS_TOKEN"} {
		t.Setenv(name, "of a real site")
	}
	t.Setenv("KV_READ_TOKEN", "")
	t.Setenv("KV_SCHEMA_SEED", "7")
	require.NoError(t, isolate([]string{"KV_READ_TOKEN=a=b"}))
	for _, name := range []string{"SUPABASE_URL", "DATABASE_URL", "KV_API_TOKEN", "KV_BASE_URL", "USE_SUPABASE_KV", "NETLIFY_BLOBS_TOKEN"} {
		require.Empty(t, os.Getenv(name), name)
	}
	require.Equal(t, "a=b", os.Getenv("KV_READ_TOKEN"))
	require.Equal(t, "7", os.Getenv("KV_SCHEMA_SEED"))
	require.ErrorContains(t, isolate([]string{"KV_READ_TOKEN"}), "NAME=VALUE")
}

// What runs here is what Netlify's bundler makes.
func TestBuildIsTheBundlers(t *testing.T) {
	p, _ := project(t)
	modules, err := packages.Install(t.Context(), p.Checkout, p.Out)
	require.NoError(t, err)
	dir, err := bundle.Build(t.Context(), p.Checkout, modules, p.Out)
	require.NoError(t, err)
	functions, err := bundle.Functions(dir)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"hello": filepath.Join(dir, "hello", "bootstrap")}, functions)
	if runtime.GOOS == "linux" {
		info, err := os.Stat(functions["hello"])
		require.NoError(t, err)
		require.NotZero(t, info.Mode()&0o111)
	}
	again, err := bundle.Build(t.Context(), p.Checkout, modules, p.Out)
	require.NoError(t, err)
	require.Equal(t, dir, again)
	write(t, p.Checkout.Root, "functions/hello/main.go", "package main\n\nfunc main() { broken }\n")
	_, err = bundle.Build(t.Context(), p.Checkout, modules, p.Out)
	require.ErrorContains(t, err, "undefined: broken")
}
