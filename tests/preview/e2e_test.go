// Package preview tests how deploy previews are tested: the workflow, and the end-to-end suite as a program that runs
// against a remote site.
package preview

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// site returns the local platform as a remote site, of which only the address of the functions is known. Tests of it take
// minutes, so that only a long run has them.
func site(t *testing.T) (base *url.URL, db *pgx.Conn) {
	t.Helper()
	if os.Getenv("LONG") == "" {
		t.Skip("LONG is not set")
	}
	if os.Getenv("KV_BASE_URL") == "" || os.Getenv("DATABASE_URL") == "" || os.Getenv("KV_HOST_URL") == "" {
		t.Skip("KV_BASE_URL, DATABASE_URL and KV_HOST_URL are not all set: this is for the local platform (make test, or make up)")
	}
	if os.Getenv("USE_SUPABASE_KV") == "false" || os.Getenv("KV_MIRROR_WRITES") == "true" || os.Getenv("KV_API_TOKEN") != "" {
		t.Skip("these tests are for a platform without tokens whose functions use Supabase alone")
	}
	base, err := url.Parse(os.Getenv("KV_BASE_URL"))
	require.NoError(t, err)
	db, err = pgx.Connect(t.Context(), os.Getenv("DATABASE_URL"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close(context.WithoutCancel(t.Context())) })
	return base, db
}

// built is the path of the suite's program, after the first use.
var built string

// suite returns the suite's program, which is built once.
var suite = sync.OnceValues(func() (program string, err error) {
	if built, err = os.MkdirTemp("", "preview-test-"); err != nil {
		return "", err
	}
	program = filepath.Join(built, "e2e")
	if out, err := exec.Command("go", "test", "-c", "-o", program, "../e2e").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build tests/e2e: %w\n%s", err, out)
	}
	return program, nil
})

func TestMain(m *testing.M) {
	status := m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(status)
}

// remote is the environment of a person who knows only the site's address.
func remote(base, id string) []string {
	env := []string{"KV_BASE_URL=" + base, "E2E_RUN=" + id}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "GOCACHE", "GOMODCACHE", "GOPATH", "GOPROXY", "GOFLAGS", "GOTOOLCHAIN"} {
		if value, set := os.LookupEnv(name); set {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// runSuite starts the suite. wait returns its output and exit status.
func runSuite(t *testing.T, base, id string, args ...string) (cmd *exec.Cmd, wait func() (output string, status int)) {
	t.Helper()
	program, err := suite()
	require.NoError(t, err)
	cmd = exec.Command(program, args...)
	cmd.Dir = "../e2e"
	return start(t, cmd, remote(base, id))
}

func start(t *testing.T, cmd *exec.Cmd, env []string) (*exec.Cmd, func() (string, int)) {
	t.Helper()
	var output bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	waited := false
	wait := func() (string, int) {
		waited = true
		_ = cmd.Wait() // the status is in ProcessState
		return output.String(), cmd.ProcessState.ExitCode()
	}
	t.Cleanup(func() {
		if !waited {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			_ = cmd.Wait()
		}
	})
	return cmd, wait
}

func runID(what string) string {
	return time.Now().UTC().Format("20060102T150405") + "-" + what
}

// written counts the entries of a run in the store.
func written(t *testing.T, db *pgx.Conn, id string) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRow(t.Context(), `select count(*) from public.kv_store where key like 'e2e/' || $1 || '/%' or key like 'e2e/warm/' || $1 || '/%'`, id).Scan(&n))
	return n
}

func waitUntilItWrites(t *testing.T, db *pgx.Conn, id string) {
	t.Helper()
	require.Eventually(t, func() bool { return written(t, db, id) > 5 }, 2*time.Minute, 20*time.Millisecond, "the suite writes nothing")
}

// busy are tests that write much and run long enough to be interrupted.
const busy = "-test.run=TestTwoThousandFiveHundredKeys|TestKeys|TestSort|TestCursor|TestPrefixIsLiteral"

// far is the round-trip time of a remote site.
const far = 75 * time.Millisecond

func TestARunThatIsInterruptedRemovesWhatItWrote(t *testing.T) {
	t.Parallel()
	base, db := site(t)
	line := "http://" + newLine(t, base.Host, far)
	for _, row := range []struct {
		name   string
		signal syscall.Signal
		start  func(t *testing.T, id string) (*exec.Cmd, func() (string, int))
	}{
		{"CtrlC", syscall.SIGINT, func(t *testing.T, id string) (*exec.Cmd, func() (string, int)) {
			cmd := exec.Command("make", "--no-print-directory", "-C", "../..", "e2e", "ARGS='"+busy+"'")
			return start(t, cmd, remote(line, id))
		}},
		{"Terminate", syscall.SIGTERM, func(t *testing.T, id string) (*exec.Cmd, func() (string, int)) {
			return runSuite(t, line, id, busy)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			id := runID(row.name)
			cmd, wait := row.start(t, id)
			waitUntilItWrites(t, db, id)
			require.NoError(t, syscall.Kill(-cmd.Process.Pid, row.signal)) // to the group, as a terminal does
			output, status := wait()
			require.NotZero(t, status, "%s", output)
			require.Contains(t, output, "The run was stopped: "+row.signal.String())
			require.Contains(t, output, "nothing is under e2e/"+id+"/ now")
			require.Zero(t, written(t, db, id), "%s", output)
		})
	}
}

func TestARunAtItsTimeLimitRemovesWhatItWrote(t *testing.T) {
	t.Parallel()
	base, db := site(t)
	id := runID("limit")
	_, wait := runSuite(t, "http://"+newLine(t, base.Host, far), id, "-test.run=TestCursorAfterOddKeys", "-test.timeout=10s") // takes 15 s
	waitUntilItWrites(t, db, id)
	output, status := wait()
	require.NotZero(t, status, "%s", output)
	require.Contains(t, output, "The run was stopped: its limit of 10s (-timeout) was near", "before Go's own limit ends the process on the spot")
	require.Zero(t, written(t, db, id), "%s", output)
}

// TestAFailingRunRemovesWhatItWrote: a proxy breaks a promise of every upsert's response, so that all tests fail in
// the middle.
func TestAFailingRunRemovesWhatItWrote(t *testing.T) {
	t.Parallel()
	base, db := site(t)
	proxy := httputil.NewSingleHostReverseProxy(base)
	upserts := 0
	var mu sync.Mutex
	proxy.ModifyResponse = func(r *http.Response) error {
		if strings.HasSuffix(r.Request.URL.Path, "upsert") {
			mu.Lock()
			defer mu.Unlock()
			if upserts++; upserts%5 == 0 {
				r.Header.Del("X-Content-Type-Options")
			}
		}
		return nil
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	id := runID("failing")
	_, wait := runSuite(t, server.URL, id, busy)
	output, status := wait()
	require.Equal(t, 1, status, "%s", output)
	require.Contains(t, output, "--- FAIL: TestKeys")
	require.Zero(t, written(t, db, id), "%s", output)
}

// TestTheNextRunRemovesWhatAKilledRunLeft, unless that may still be running.
func TestTheNextRunRemovesWhatAKilledRunLeft(t *testing.T) {
	base, db := site(t)
	old, young := "20200101T000000-killed", runID("killed")
	for _, id := range []string{old, young} {
		cmd, wait := runSuite(t, base.String(), id, busy)
		waitUntilItWrites(t, db, id)
		require.NoError(t, cmd.Process.Kill())
		wait()
		require.NotZero(t, written(t, db, id))
	}
	nothing := "-test.run=^$"
	_, wait := runSuite(t, base.String(), runID("next"), nothing)
	output, status := wait()
	require.Zero(t, status, "%s", output)
	require.Zero(t, written(t, db, old), "%s", output)
	require.NotZero(t, written(t, db, young), "%s", output)

	_, wait = runSuite(t, base.String(), young, nothing) // as the workflow does after a cancelled run
	output, status = wait()
	require.Zero(t, status, "%s", output)
	require.Zero(t, written(t, db, young), "%s", output)
}

// TestTheSuiteReportsWhyASiteCannotBeTested, before it writes anything.
func TestTheSuiteReportsWhyASiteCannotBeTested(t *testing.T) {
	if os.Getenv("LONG") == "" {
		t.Skip("LONG is not set")
	}
	t.Parallel()
	for _, row := range []struct {
		name  string
		site  http.HandlerFunc // the name says what it stands in for
		token string
		says  []string
	}{
		{"AnotherSite", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<!doctype html>")) }, "",
			[]string{"cannot be tested", "the site does not have the functions", "answered 200 <!doctype html>"}},
		{"NeedsAToken", unauthorized, "", []string{"cannot be tested", "the site needs a token", "KV_API_TOKEN="}},
		{"NeedsAnotherToken", unauthorized, "wrong-token-of-mine", []string{"cannot be tested", "refuses the token in KV_API_TOKEN"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(row.site)
			t.Cleanup(server.Close)
			program, err := suite()
			require.NoError(t, err)
			_, wait := start(t, exec.Command(program), append(remote(server.URL, runID("refused")), "KV_API_TOKEN="+row.token))
			output, status := wait()
			require.Equal(t, 1, status, "%s", output)
			for _, text := range append(row.says, server.URL) {
				require.Contains(t, output, text)
			}
			require.NotContains(t, output, "wrong-token-of-mine")
		})
	}
}

func unauthorized(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = w.Write([]byte(`{"error":"wrong token","code":"unauthorized"}`))
}

// TestTheCompleteSuiteFarAway takes minutes, so it only runs with PREVIEW_FAR=1 (make road).
func TestTheCompleteSuiteFarAway(t *testing.T) {
	base, db := site(t)
	if os.Getenv("PREVIEW_FAR") != "1" {
		t.Skip("PREVIEW_FAR is not 1: the complete suite with a high latency takes minutes (make road)")
	}
	id := runID("far")
	began := time.Now()
	_, wait := runSuite(t, "http://"+newLine(t, base.Host, far), id, "-test.timeout=15m") // as in make e2e
	output, status := wait()
	require.Zero(t, status, "%s", output)
	require.Zero(t, written(t, db, id))
	t.Logf("at a distance of %s the suite took %s\n%s", 2*far, time.Since(began).Round(time.Second), output)
}
