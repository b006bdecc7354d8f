package main

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/config"
	"netlify-supabase-kv/scripts/platform/internal/bundle"
	"netlify-supabase-kv/scripts/platform/internal/console"
	"netlify-supabase-kv/scripts/platform/internal/envfile"
	"netlify-supabase-kv/scripts/platform/internal/layout"
	"netlify-supabase-kv/scripts/platform/internal/proc"
)

// TestMain lets the tests run this binary as the platform command.
func TestMain(m *testing.M) {
	if os.Getenv("PLATFORM_TEST_COMMAND") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// project is a checkout with a small schema and one function. It shares the npm packages of the real one.
type project struct {
	checkout layout.Checkout
	home     layout.Home
}

func newProject(t *testing.T) project {
	t.Helper()
	// These tests may run under `run`, whose variables name another platform.
	for _, name := range []string{"SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "GOFLAGS", "USE_SUPABASE_KV", "KV_API_TOKEN", "KV_LOCAL_PORT_BASE", "PORT_BASE"} {
		t.Setenv(name, "")
	}
	t.Setenv("PLATFORM_TEST_COMMAND", "1")
	real, err := layout.Find(".")
	require.NoError(t, err)
	root := t.TempDir()
	for name, content := range map[string]string{
		"netlify.toml":      "[build]\npublish = \"public\"\n[[redirects]]\nfrom = \"/api/hello\"\nto = \"/.netlify/functions/hello\"\nstatus = 200\n",
		"public/index.html": "a page\n",
		"supabase/migrations/20260101000000_create_note.sql": "create table public.note (id int primary key);\n",
	} {
		write(t, root, name, content)
	}
	for from, to := range map[string]string{"go.mod": "go.mod", "go.sum": "go.sum", "scripts/platform/internal/host/testdata/lambda/main.go": "functions/hello/main.go"} {
		content, err := os.ReadFile(filepath.Join(real.Root, from))
		require.NoError(t, err)
		write(t, root, to, string(content))
	}
	require.NoError(t, os.CopyFS(filepath.Join(root, "scripts", "platform", "npm"), os.DirFS("npm")))
	require.NoError(t, os.MkdirAll(filepath.Join(root, ".local"), 0o755))
	_, err = packages.Install(t.Context(), real, console.New(os.Stderr))
	require.NoError(t, err)
	require.NoError(t, os.Symlink(filepath.Join(real.Local(), "npm"), filepath.Join(root, ".local", "npm")))
	checkout, err := layout.Find(root)
	require.NoError(t, err)
	p := project{checkout, checkout.Main()}
	t.Cleanup(func() { p.run(t, "reset") })
	return p
}

// command returns a `platform` command in the project.
func (p project) command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Dir = p.checkout.Root
	cmd.Env = append(os.Environ(), "PWD="+cmd.Dir)
	return cmd
}

// run runs a command that must succeed.
func (p project) run(t *testing.T, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, progress bytes.Buffer
	cmd := p.command(args...)
	cmd.Stdout, cmd.Stderr = &out, &progress
	require.NoError(t, cmd.Run(), "%s; see the logs in %s", &progress, p.home.Logs())
	return out.String(), progress.String()
}

// fail runs a command that must fail.
func (p project) fail(t *testing.T, args ...string) (stderr string) {
	t.Helper()
	var progress bytes.Buffer
	cmd := p.command(args...)
	cmd.Stderr = &progress
	require.Equal(t, exitFailed, exitOf(t, cmd.Run()), &progress)
	return progress.String()
}

// up runs `platform up` on free ports.
func (p project) up(t *testing.T) (stdout, stderr string) {
	t.Helper()
	return p.run(t, "up", "--port-base", "auto")
}

func write(t *testing.T, root, name, content string) {
	t.Helper()
	file := filepath.Join(root, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
}

func (p project) variables(t *testing.T) map[string]string {
	t.Helper()
	pairs, err := envfile.Read(p.home.Env())
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

// processes are the processes in the state file.
type processes struct {
	Supervisor proc.Identity
	Processes  map[string]proc.Identity
}

func (p project) processes(t *testing.T) (named processes) {
	t.Helper()
	content, err := os.ReadFile(p.home.State())
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(content, &named))
	return named
}

func (p project) query(t *testing.T, sql string) (answer string) {
	t.Helper()
	conn := connect(t, p.variables(t)["DATABASE_URL"])
	require.NoError(t, conn.QueryRow(t.Context(), sql).Scan(&answer))
	return answer
}

func TestOtherVersionsOfPostgresAreRefused(t *testing.T) {
	t.Parallel()
	o := &options{config.Platform{Postgres: "16"}}
	_, err := o.installPostgres(t.Context(), layout.Checkout{}, nil, "modules")
	require.EqualError(t, err, `--postgres (KV_LOCAL_POSTGRES) must be 17 or 15, got "16"`)
}

// TestLife is the life of a platform, with real Postgres, PostgREST and bundler.
//
// Only the owner can enter the checkout: if that is root, the data of Postgres has to be elsewhere.
func TestLife(t *testing.T) {
	p := newProject(t)
	require.NoError(t, os.Chmod(p.checkout.Root, 0o700))
	stdout, stderr := p.up(t)
	env := p.variables(t)
	service := map[string]string{"apikey": env["SUPABASE_SERVICE_ROLE_KEY"]}
	notes := func() string { return env["SUPABASE_URL"] + "/rest/v1/note" }
	upAgain := func(t *testing.T) {
		t.Helper()
		p.up(t)
		env = p.variables(t)
	}

	t.Run("OutputNamesEachPartAndNoSecret", func(t *testing.T) {
		for _, text := range []string{"started    Postgres", "applied    1 migrations, up to 20260101000000_create_note.sql", "started    PostgREST", "started    the Blobs stand-in", "started    1 functions, 2 instances each"} {
			require.Contains(t, stderr, text)
		}
		for _, name := range []string{"SUPABASE_URL", "NETLIFY_BLOBS_API_URL", "KV_BASE_URL", "PLATFORM_LOGS"} {
			require.Contains(t, stdout, strings.TrimSuffix(env[name], "/api/v1"), name)
		}
		require.Contains(t, stdout, p.home.Env())
		for _, name := range []string{"SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_ANON_KEY", "SUPABASE_SERVICE_ROLE_JWT", "SUPABASE_JWT_SECRET", "NETLIFY_BLOBS_TOKEN"} {
			require.NotEmpty(t, env[name])
			require.NotContains(t, stdout+stderr, env[name])
			requireNotLogged(t, p, env[name])
		}
	})
	t.Run("RolesAreSupabases", func(t *testing.T) {
		require.Equal(t, "f", p.query(t, "select rolsuper::text from pg_roles where rolname = 'postgres'")[:1])
		require.Equal(t, "anon,authenticated,service_role", p.query(t, "select string_agg(grantee, ',' order by grantee) from information_schema.table_privileges where table_name = 'note' and privilege_type = 'INSERT' and grantee <> 'postgres'"))
		require.Equal(t, "i en-US", p.query(t, "select datlocprovider::text || ' ' || datlocale from pg_database where datname = current_database()"))
		require.Equal(t, "f", p.query(t, "select (datctype in ('C', 'POSIX'))::text from pg_database where datname = current_database()")[:1], "every letter beyond ASCII would be a word's")
		require.Equal(t, "{statement_timeout=8s,lock_timeout=8s}", p.query(t, "select setconfig::text from pg_db_role_setting where setrole = 'authenticator'::regrole"))
		require.Equal(t, "logical", p.query(t, "show wal_level"))
		status, body := get(t, notes(), service)
		require.Equal(t, 200, status)
		require.Equal(t, "[]", body)
		status, _ = get(t, notes(), nil)
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
	t.Run("AgainStartsAnewWithWhatChanged", func(t *testing.T) {
		before := p.everyProcess(t)
		require.Greater(t, len(before), 4)
		p.query(t, "with w as (insert into public.note values (7) returning id) select id::text from w")
		t.Setenv("KV_API_TOKEN", "t")
		source := filepath.Join(p.checkout.Root, "functions", "hello", "main.go")
		content, err := os.ReadFile(source)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(source, []byte(strings.ReplaceAll(string(content), `"env"`, `"environment"`)), 0o644))
		write(t, p.checkout.Root, "supabase/migrations/20260102000000_create_more.sql", "create table public.more (id int);\n")
		upAgain(t)
		requireEnded(t, before)
		_, body := get(t, env["KV_BASE_URL"]+"/api/hello?do=environment", nil)
		require.Contains(t, body, "KV_API_TOKEN=t")
		require.Equal(t, "t", env["KV_API_TOKEN"], "callers need the token")
		status, _ := get(t, env["SUPABASE_URL"]+"/rest/v1/more", service)
		require.Equal(t, 200, status, "the keys are the same as before")
		require.Equal(t, "7", p.query(t, "select string_agg(id::text, ',') from public.note"))
	})
	for _, name := range []string{"postgres", "postgrest"} {
		t.Run("KilledIsStartedAgain/"+name, func(t *testing.T) {
			victim := p.processes(t).Processes[name]
			require.True(t, victim.Alive())
			require.NoError(t, proc.Kill(victim.PID))
			require.Eventually(t, func() bool {
				status, _ := get(t, notes(), service)
				now := p.processes(t).Processes[name]
				return status == 200 && now != victim && now.Alive()
			}, 2*time.Minute, 50*time.Millisecond)
		})
	}
	t.Run("KilledSupervisorLeavesNothingThatIsInTheWay", func(t *testing.T) {
		before := p.everyProcess(t)
		require.NoError(t, proc.Kill(p.processes(t).Supervisor.PID))
		upAgain(t)
		requireEnded(t, before)
		require.Equal(t, "7", p.query(t, "select string_agg(id::text, ',') from public.note"))
	})
	t.Run("DownEndsEverythingTwice", func(t *testing.T) {
		before := p.everyProcess(t)
		_, stderr := p.run(t, "down")
		require.Equal(t, "stopped\n", stderr)
		requireEnded(t, before)
		require.NoFileExists(t, p.home.Env())
		require.NoFileExists(t, p.home.State())
		_, stderr = p.run(t, "down")
		require.Equal(t, "nothing was running\n", stderr)
	})
	t.Run("MigrationThatFailsIsLocatedAndNothingOfItStays", func(t *testing.T) {
		file := "supabase/migrations/20260103000000_break.sql"
		write(t, p.checkout.Root, file, "create table public.half (id int);\n-- ä\nselect nothing;\n")
		stderr := p.fail(t, "up", "--port-base", "auto")
		require.Contains(t, stderr, "Error: "+file+`:3:8: column "nothing" does not exist`)
		require.NoFileExists(t, p.home.State(), "nothing runs")
		require.NoError(t, os.Remove(filepath.Join(p.checkout.Root, file)))
		upAgain(t)
		require.Equal(t, "f", p.query(t, "select (to_regclass('public.half') is not null)::text")[:1])
		require.Equal(t, "7", p.query(t, "select string_agg(id::text, ',') from public.note"))
	})
	t.Run("ResetStopsAndRemovesTheData", func(t *testing.T) {
		place, err := filepath.EvalSymlinks(p.home.Postgres())
		require.NoError(t, err)
		if os.Geteuid() == 0 {
			require.True(t, strings.HasPrefix(place, "/var/tmp/"), place)
		}
		before := p.everyProcess(t)
		p.run(t, "reset")
		requireEnded(t, before)
		require.NoDirExists(t, place)
		upAgain(t)
		require.Equal(t, "0", p.query(t, "select count(*)::text from public.note"))
	})
}

// requireEnded waits for processes that were killed: on a busy machine the kernel takes a while to remove one.
func requireEnded(t *testing.T, all []proc.Identity) {
	t.Helper()
	for _, process := range all {
		require.Eventually(t, func() bool { return !process.Alive() }, time.Minute, 10*time.Millisecond, "%v", process)
	}
}

// requireNotLogged checks that no log file contains a secret.
func requireNotLogged(t *testing.T, p project, secret string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(p.home.Logs(), "*"))
	require.NoError(t, err)
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NotContains(t, string(content), secret, file)
	}
}

// everyProcess returns the supervisor, its parts and the instances.
func (p project) everyProcess(t *testing.T) (all []proc.Identity) {
	t.Helper()
	named := p.processes(t)
	all = append(slices.Collect(maps.Values(named.Processes)), named.Supervisor)
	_, body := get(t, p.variables(t)["KV_HOST_URL"]+"/_platform/instances", nil)
	var told struct{ Instances []struct{ PID int } }
	require.NoError(t, json.Unmarshal([]byte(body), &told))
	for _, instance := range told.Instances {
		process, alive := proc.Identify(instance.PID)
		require.True(t, alive)
		all = append(all, process)
	}
	return all
}

// An interrupted `up` leaves no process behind.
func TestInterruptedUpLeavesNothing(t *testing.T) {
	p := newProject(t)
	var progress bytes.Buffer
	cmd := p.command("up", "--port-base", "auto")
	cmd.Stderr = &progress
	require.NoError(t, cmd.Start())
	var started processes
	require.Eventually(t, func() bool { // as soon as Postgres runs
		content, err := os.ReadFile(p.home.State())
		return err == nil && json.Unmarshal(content, &started) == nil && started.Processes["postgres"].PID != 0
	}, 10*time.Minute, time.Millisecond)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.Equal(t, exitFailed, exitOf(t, cmd.Wait()))
	require.Contains(t, progress.String(), "Error: interrupted; what had been started is stopped\n")
	requireEnded(t, []proc.Identity{started.Processes["postgres"], started.Supervisor})
	require.NoFileExists(t, p.home.State())
}

// With an existing project, no database is started.
func TestGivenProjectIsUsed(t *testing.T) {
	p := newProject(t)
	t.Setenv("SUPABASE_URL", "http://127.0.0.1:1")
	t.Setenv("SUPABASE_SERVICE_ROLE_KEY", "given")
	_, stderr := p.up(t)
	require.NotContains(t, stderr, "started    Post")
	require.Empty(t, p.processes(t).Processes)
	env := p.variables(t)
	require.Equal(t, "http://127.0.0.1:1", env["SUPABASE_URL"])
	require.Empty(t, env["DATABASE_URL"])
	_, body := get(t, env["KV_BASE_URL"]+"/api/hello?do=env", nil)
	require.Contains(t, body, "SUPABASE_SERVICE_ROLE_KEY=given")
	t.Setenv("SUPABASE_SERVICE_ROLE_KEY", "")
	require.Contains(t, p.fail(t, "up"), "SUPABASE_SERVICE_ROLE_KEY is not")
}

// TestRun: the platform of run is empty and is removed afterwards. Its functions are restarted for each mode.
func TestRun(t *testing.T) {
	p := newProject(t)
	t.Setenv("KV_API_TOKEN", "of a real site")
	show := `curl -fsS "$KV_BASE_URL/api/hello?do=env" | grep -E "^KV_(X|Y|API)" | sort; echo "$KV_X $KV_Y."; echo "$PLATFORM_STATE" >&2; test "$KV_Y" != fails`
	var out, progress bytes.Buffer
	cmd := p.command("run", "--name", "a", "--env", "KV_X=1", "--mode", "KV_Y=fails KV_X=2", "--mode", "KV_Y=3", "--", "sh", "-c", show)
	cmd.Stdout, cmd.Stderr = &out, &progress
	require.Equal(t, 1, exitOf(t, cmd.Run()), "the status of the command that failed: %s", &progress)
	require.Equal(t, "KV_X=1\n1 .\n"+"KV_X=2\nKV_Y=fails\n2 fails.\n"+"KV_X=1\nKV_Y=3\n1 3.\n", out.String(), "it goes on after a failure")
	require.Contains(t, progress.String(), "failed     mode KV_Y=fails KV_X=2: the command ended with status 1\n")
	home := p.checkout.Test("a")
	require.Contains(t, progress.String(), home.State())
	require.NoFileExists(t, home.State())
	require.NoDirExists(t, home.Postgres())
	require.NoDirExists(t, home.Blobs())

	stderr := p.fail(t, "run", "--name", "a", "--functions=false", "--", os.Args[0], "run", "--name", "a", "--", "true")
	require.Contains(t, stderr, "another run named a is going on in this checkout")
}

func TestRunKeepsToAFolderOfItsOwn(t *testing.T) {
	t.Parallel()
	checkout := layout.Checkout{Root: t.TempDir()}
	require.NoError(t, os.MkdirAll(checkout.Main().Blobs(), 0o755))
	for _, name := range []string{"", ".", "..", "../other", "a/b", "-a"} {
		err := run(t.Context(), checkout, &options{config.Platform{Postgres: "none"}}, runOptions{name: name})
		require.ErrorContains(t, err, "--name must have", name)
	}
	require.DirExists(t, checkout.Main().Blobs(), "the data of up")
}

// Tests must not reach a store that the variables of the shell name.
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

// The platform runs the programs of Netlify's bundler.
func TestBuildIsTheBundlers(t *testing.T) {
	p := newProject(t)
	out := console.Plain(os.Stderr)
	modules, err := packages.Install(t.Context(), p.checkout, out)
	require.NoError(t, err)
	dir, err := bundle.Build(t.Context(), p.checkout, modules, out)
	require.NoError(t, err)
	functions, err := bundle.Functions(dir)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"hello": filepath.Join(dir, "hello", "bootstrap")}, functions)
	info, err := os.Stat(functions["hello"])
	require.NoError(t, err)
	require.NotZero(t, info.Mode()&0o111)
	again, err := bundle.Build(t.Context(), p.checkout, modules, out)
	require.NoError(t, err)
	require.Equal(t, dir, again)
	write(t, p.checkout.Root, "functions/hello/main.go", "package main\n\nfunc main() { broken }\n")
	_, err = bundle.Build(t.Context(), p.checkout, modules, out)
	require.ErrorContains(t, err, "undefined: broken")
}
