package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/scripts/internal/cli"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/scripts/kv/internal/doctor"
)

// TestMain lets the tests run this binary as kv.
func TestMain(m *testing.M) {
	if os.Getenv("KV_TEST_AS_KV") != "" {
		main()
		return
	}
	status := m.Run()
	dropTemplate()
	os.Exit(status)
}

// testSite is a site with everything that kv doctor checks: a folder, variables and an address.
type testSite struct {
	t    *testing.T
	dir  string
	env  map[string]string
	args []string
}

// healthy makes a site of the local platform and the files of this repository.
func healthy(t *testing.T) *testSite {
	t.Helper()
	p := &testSite{t: t, dir: t.TempDir(), env: map[string]string{"USE_SUPABASE_KV": "true"}}
	for _, name := range []string{"SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "DATABASE_URL", "KV_API_TOKEN", "KV_READ_TOKEN",
		"NETLIFY_SITE_ID", "NETLIFY_BLOBS_TOKEN", "NETLIFY_BLOBS_API_URL"} {
		p.env[name] = os.Getenv(name)
	}
	for _, name := range []string{"SUPABASE_URL", "DATABASE_URL", "NETLIFY_BLOBS_TOKEN", "KV_BASE_URL", "DATABASE_ADMIN_URL"} {
		require.NotEmpty(t, os.Getenv(name), "%s is not set: `make test` runs these tests on a platform of its own; after `make up`, `. .local/env` has the address of the local one", name)
	}
	p.args = []string{"--site", os.Getenv("KV_BASE_URL")}
	for _, name := range []string{"go.mod", "netlify.toml"} {
		text, err := os.ReadFile("../../" + name)
		require.NoError(t, err)
		p.write(name, string(text))
	}
	p.setGoVersion("1.26.10")
	mains, err := filepath.Glob("../../functions/*/main.go")
	require.NoError(t, err)
	for _, file := range mains {
		p.write("functions/"+filepath.Base(filepath.Dir(file))+"/main.go", "package main\n")
	}
	return p
}

func (p *testSite) write(name, text string) {
	p.t.Helper()
	file := filepath.Join(p.dir, filepath.FromSlash(name))
	require.NoError(p.t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(p.t, os.WriteFile(file, []byte(text), 0o644))
}

// edit replaces a text in a file of the site, which must contain it.
func (p *testSite) edit(name, old, with string) {
	p.t.Helper()
	text, err := os.ReadFile(filepath.Join(p.dir, filepath.FromSlash(name)))
	require.NoError(p.t, err)
	require.Contains(p.t, string(text), old)
	p.write(name, strings.Replace(string(text), old, with, 1))
}

// blobsFirst makes Netlify Blobs the primary, without a Supabase project.
func (p *testSite) blobsFirst() {
	p.env["USE_SUPABASE_KV"] = "false"
	p.env["SUPABASE_URL"], p.env["SUPABASE_SERVICE_ROLE_KEY"] = "", ""
	p.args = nil
}

func (p *testSite) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(p.t.Context(), os.Args[0], append([]string{"doctor", "--dir", p.dir}, args...)...)
	cmd.Env = []string{"KV_TEST_AS_KV=1", "GORACE=atexit_sleep_ms=0", "PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	for name, value := range p.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// run runs kv doctor.
func (p *testSite) run(args ...string) (status int, stdout, stderr string) {
	p.t.Helper()
	cmd := p.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	for _, name := range []string{"SUPABASE_SERVICE_ROLE_KEY", "KV_API_TOKEN", "KV_READ_TOKEN", "NETLIFY_BLOBS_TOKEN", "DATABASE_URL"} {
		if secret := p.env[name]; len(secret) > 8 {
			require.NotContains(p.t, out.String()+errs.String(), secret, "the output shows %s", name)
		}
	}
	if u, err := url.Parse(p.env["DATABASE_URL"]); err == nil && u.User != nil {
		password, _ := u.User.Password()
		require.NotContains(p.t, out.String()+errs.String(), password, "the output shows the database's password")
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// report runs kv doctor and decodes its report.
func (p *testSite) report() (int, doctor.Report) {
	p.t.Helper()
	status, stdout, stderr := p.run(append(p.args, "--json")...)
	var report doctor.Report
	require.NoError(p.t, json.Unmarshal([]byte(stdout), &report), "%s%s", stdout, stderr)
	require.Empty(p.t, stderr)
	return status, report
}

// levels returns the levels of the checks that are not ok.
func levels(report doctor.Report) map[string]doctor.Level {
	found := map[string]doctor.Level{}
	for _, check := range report.Checks {
		if check.Level != doctor.OK && check.ID != "site-distance" { // it depends on the speed of this machine
			found[check.ID] = check.Level
		}
	}
	return found
}

func TestDoctorOfAHealthySite(t *testing.T) {
	t.Parallel()
	p := healthy(t)
	status, report := p.report()
	// The test platform has no token, and only Supabase answers.
	require.Equal(t, map[string]doctor.Level{"tokens": doctor.Warn, "site-tokens": doctor.Warn, "blobs": doctor.Skip, "blobs-rate": doctor.Skip}, levels(report), "%+v", report)
	require.Equal(t, 0, status)
	require.Len(t, report.Checks, len(doctor.Checks))
	require.Equal(t, kv.Release, report.Release)

	status, stdout, stderr := p.run(p.args...)
	require.Equal(t, 0, status, stdout)
	require.Empty(t, stderr)
	for _, check := range doctor.Checks {
		require.Regexp(t, `(?m)^(ok|warn|skip) +`+check.ID+` `, stdout)
	}
	require.Contains(t, stdout, fmt.Sprintf("%d checks: ", len(doctor.Checks)))
	require.Contains(t, stdout, " 0 fail, 2 skip")

	p.blobsFirst()
	status, report = p.report()
	require.Equal(t, 0, status, "%+v", report)
	require.NotContains(t, levels(report), "blobs")

	// A folder linked with netlify link knows its site's ID; a deployed function always does.
	site := p.env["NETLIFY_SITE_ID"]
	p.env["NETLIFY_SITE_ID"] = ""
	_, report = p.report()
	require.Equal(t, doctor.Skip, levels(report)["blobs"])
	p.write(".netlify/state.json", `{"siteId":"`+site+`"}`)
	_, report = p.report()
	require.NotContains(t, levels(report), "blobs")
}

// TestDoctorUsesTheTokensOfASite: a healthy site with tokens passes. The proxy demands them as the functions do.
func TestDoctorUsesTheTokensOfASite(t *testing.T) {
	t.Parallel()
	p := healthy(t)
	const apiTokens, readToken = "0123456789abcdef-old,0123456789abcdef-new", "0123456789abcdef-read"
	site := through(t, os.Getenv("KV_BASE_URL"), func(r *http.Request) http.HandlerFunc {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		good := token != "" && slices.Contains(strings.Split(apiTokens, ","), token)
		if good || token == readToken && r.Method == http.MethodGet {
			return nil
		}
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-KV-Release", kv.Release)
			respond(http.StatusUnauthorized, "application/json", `{"error":"wrong token","code":"unauthorized"}`)(w, r)
		}
	}, nil)
	p.args = []string{"--site", site}
	p.env["KV_API_TOKEN"], p.env["KV_READ_TOKEN"] = apiTokens, readToken
	status, report := p.report()
	require.Equal(t, map[string]doctor.Level{"blobs": doctor.Skip, "blobs-rate": doctor.Skip}, levels(report), "%+v", report)
	require.Equal(t, 0, status)

	// Checks that need unknown tokens are skipped.
	p.file(map[string]string{"KV_API_TOKEN": "****************cdef", "KV_READ_TOKEN": "****************read"})
	p.args = append([]string{"--only", "tokens,site-functions,site-tokens,site-write,site-distance"}, p.args...)
	status, report = p.report()
	require.Equal(t, 0, status)
	require.Equal(t, map[string]doctor.Level{"tokens": doctor.Skip, "site-tokens": doctor.Skip, "site-write": doctor.Skip}, levels(report), "%+v", report)
}

// TestDoctorWithoutVariablesSkips: unknown settings are not faults.
func TestDoctorWithoutVariablesSkips(t *testing.T) {
	t.Parallel()
	p := healthy(t)
	p.env = map[string]string{}
	status, report := p.report()
	require.Equal(t, 0, status, "%+v", report)
	for _, id := range []string{"variables", "variables-size", "tokens", "supabase-url", "supabase-key", "project", "migrations", "blobs"} {
		require.Equal(t, doctor.Skip, levels(report)[id], id)
	}
	require.Equal(t, doctor.Warn, levels(report)["site-tokens"], "the site is open")
	require.NotContains(t, levels(report), "site-functions")
}

// TestDoctorOfASiteOnNetlifyBlobs: kv-query is unavailable there, which is a fault only if Supabase is the primary.
func TestDoctorOfASiteOnNetlifyBlobs(t *testing.T) {
	t.Parallel()
	p := healthy(t)
	p.site("site-functions,site-write", at("kv-query", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-KV-Release", kv.Release)
		respond(http.StatusServiceUnavailable, "application/json", `{"error":"kv-query needs Supabase, and Netlify Blobs answers here","code":"not_configured"}`)(w, r)
	}), header("X-KV-Version", ""))
	p.env["USE_SUPABASE_KV"] = "false"
	status, report := p.report()
	require.Equal(t, 0, status, "%+v", report)
	require.Empty(t, levels(report), "%+v", report)

	p.env["USE_SUPABASE_KV"] = "true"
	status, report = p.report()
	require.Equal(t, 1, status, "%+v", report)
	require.Equal(t, map[string]doctor.Level{"site-functions": doctor.Fail, "site-write": doctor.Fail}, levels(report), "%+v", report)
}

func TestReadOnlyDoctorWritesNothing(t *testing.T) {
	t.Parallel()
	p := healthy(t)
	writes := make(chan string, 100)
	p.site("site-functions,site-tokens,site-write,site-staleness,site-headers,site-distance", func(r *http.Request) http.HandlerFunc {
		if r.Method != http.MethodGet && r.ContentLength != 2 { // a body other than {}
			writes <- r.URL.Path
		}
		return nil
	}, nil)
	p.args = append(p.args, "--read-only")
	status, report := p.report()
	require.Equal(t, 0, status, "%+v", report)
	require.Equal(t, map[string]doctor.Level{"site-tokens": doctor.Warn, "site-write": doctor.Skip, "site-staleness": doctor.Skip, "site-headers": doctor.Skip}, levels(report))
	require.Empty(t, writes)
}

// TestInterruptedDoctorRemovesItsEntries ends the program after site-staleness has written, which then waits for longer
// than a second.
func TestInterruptedDoctorRemovesItsEntries(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		only   string
		writes int
		signal os.Signal // nil: nobody reads what site-write prints
		status int
		says   string
	}{
		"CtrlC":          {"site-staleness", 2, os.Interrupt, cli.ExitFailed, "Interrupted."},
		"ClosedTerminal": {"site-staleness", 2, syscall.SIGHUP, cli.ExitFailed, "Interrupted."},
		"ClosedPipe":     {"site-write,site-staleness", 3, nil, cli.ExitClosedPipe, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.signal == syscall.SIGHUP && signal.Ignored(syscall.SIGHUP) {
				t.Skip("under nohup, a closed terminal ends nothing")
			}
			p := healthy(t)
			var mu sync.Mutex
			writes, left := 0, map[string]bool{}
			written := make(chan struct{})
			site := through(t, os.Getenv("KV_BASE_URL"), func(r *http.Request) http.HandlerFunc {
				body, _ := io.ReadAll(r.Body)
				r.Body = io.NopCloser(bytes.NewReader(body))
				var entry struct{ Key string }
				_ = json.Unmarshal(body, &entry)
				switch {
				case strings.HasSuffix(r.URL.Path, "kv-upsert"):
					mu.Lock()
					defer mu.Unlock()
					left[entry.Key] = true
					if writes++; writes == c.writes {
						close(written)
					}
				case strings.HasSuffix(r.URL.Path, "kv-delete"):
					<-written // so that site-write prints nothing before
					mu.Lock()
					defer mu.Unlock()
					delete(left, entry.Key)
				}
				return nil
			}, nil)
			cmd := p.command("--site", site, "--only", c.only)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			unread, output, err := os.Pipe()
			require.NoError(t, err)
			require.NoError(t, unread.Close())
			cmd.Stdout = output
			require.NoError(t, cmd.Start())
			<-written
			if c.signal != nil {
				require.NoError(t, cmd.Process.Signal(c.signal))
			}
			_ = cmd.Wait()
			require.NoError(t, output.Close())
			require.Equal(t, c.status, cmd.ProcessState.ExitCode(), stderr.String())
			require.Contains(t, stderr.String(), c.says)
			mu.Lock()
			defer mu.Unlock()
			require.Empty(t, left, "these entries stay on the site")
		})
	}
}

// TestAnInterruptionCutsNoWriteOff, since what is cut off may be applied after the entry was removed.
func TestAnInterruptionCutsNoWriteOff(t *testing.T) {
	t.Parallel()
	p := healthy(t)
	writing, release, cut := make(chan struct{}), make(chan struct{}), make(chan struct{}, 1)
	site := through(t, os.Getenv("KV_BASE_URL"), func(r *http.Request) http.HandlerFunc {
		if !strings.HasSuffix(r.URL.Path, "kv-upsert") {
			return nil
		}
		body, _ := io.ReadAll(r.Body) // the server notices a closed connection only after it has read the body
		r.Body = io.NopCloser(bytes.NewReader(body))
		close(writing)
		select {
		case <-r.Context().Done():
			cut <- struct{}{}
		case <-release:
		}
		return nil
	}, nil)
	cmd := p.command("--site", site, "--only", "site-write")
	require.NoError(t, cmd.Start())
	<-writing
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	time.Sleep(500 * time.Millisecond) // in which the program would cut it off
	close(release)
	_ = cmd.Wait()
	require.Empty(t, cut)
}

func TestDoctorUsageErrors(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"NoFolder":        {[]string{"--dir", "nowhere"}, "--dir nowhere is not a folder"},
		"NoAddress":       {[]string{"--site", "your-site.netlify.app"}, "--site must be an address that begins with https://"},
		"NoFile":          {[]string{"--env-file", "nowhere.json"}, "nowhere.json"},
		"NoSuchCheck":     {[]string{"--only", "nothing"}, `"nothing", which is not a check`},
		"NoSuchFlag":      {[]string{"--nothing"}, "unknown flag"},
		"AnArgument":      {[]string{"site"}, "unknown command"},
		"FileOfSomething": {[]string{"--env-file", "doctor_test.go"}, "is not KEY=value"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, stdout, stderr := healthy(t).run(test.args...)
			require.Equal(t, cli.ExitFailed, status)
			require.Empty(t, stdout)
			require.Contains(t, stderr, test.says)
			require.Contains(t, stderr, "Try: ")
		})
	}
	status, stdout, _ := healthy(t).run("--list")
	require.Equal(t, 0, status)
	require.Equal(t, len(doctor.Checks), strings.Count(stdout, "\n"))
}

// TestDoctorsJSONIsStable: other programs read it.
func TestDoctorsJSONIsStable(t *testing.T) {
	t.Parallel()
	p := healthy(t)
	p.setGoVersion("1.26")
	status, stdout, _ := p.run("--only", "go-version,row-cap", "--json")
	require.Equal(t, cli.ExitProblems, status)
	require.JSONEq(t, `{"release":"`+kv.Release+`","counts":{"ok":1,"skip":0,"warn":0,"fail":1},"checks":[
		{"id":"go-version","level":"fail","findings":[{"level":"fail",
			"text":"the Go version is \"1.26\" (netlify.toml): Netlify installs only exact versions, as in 1.26.10, and otherwise uses the Go in its image",
			"mend":"set GO_VERSION = \"1.26.10\" under [build.environment] in netlify.toml"}]},
		{"id":"row-cap","level":"ok","findings":[{"level":"ok","text":"the API returns one row, and every response of the functions is one row"}]}]}`, stdout)
}

// fault is one planted fault and the expected finding.
type fault struct {
	plant func(p *testSite)
	check string
	level doctor.Level // Fail if empty
	says  string       // a part of the finding
	mend  string       // a part of what to do
	also  []string     // other checks that the fault makes fail
}

func TestDoctorNamesEachPlantedFault(t *testing.T) {
	t.Parallel()
	for _, faults := range []map[string]fault{fileFaults, variableFaults, projectFaults(), databaseFaults, blobsFaults, siteFaults} {
		for name, f := range faults {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				p := healthy(t)
				f.plant(p)
				f.level = cmp.Or(f.level, doctor.Fail)
				status, report := p.report()
				found := false
				for _, check := range report.Checks {
					if check.ID == f.check {
						require.Equal(t, f.level, check.Level, "%+v", check)
						found = slices.ContainsFunc(check.Findings, func(finding doctor.Finding) bool {
							return finding.Level == f.level && strings.Contains(finding.Text, f.says) && strings.Contains(finding.Mend, f.mend) && finding.Mend != ""
						})
						require.True(t, found, "want %q and %q, got %+v", f.says, f.mend, check.Findings)
					} else if check.Level == doctor.Fail {
						require.Contains(t, f.also, check.ID, "%+v", check)
					}
				}
				require.True(t, found, "there is no check %s", f.check)
				require.Equal(t, map[bool]int{true: cli.ExitProblems, false: 0}[f.level == doctor.Fail], status)
			})
		}
	}
}

var fileFaults = map[string]fault{
	"GoVersionThatIsNotExact": {func(p *testSite) { p.noSite(); p.setGoVersion("1.26") }, "go-version", "", `the Go version is "1.26"`, `GO_VERSION = "1.26.`, nil},
	"NoGoVersion": {func(p *testSite) {
		p.noSite()
		p.edit("netlify.toml", "GO_VERSION", "OTHER")
	}, "go-version", "", "no Go version is set", "[build.environment]", nil},
	"GoVersionInAFile":        {func(p *testSite) { p.noSite(); p.write(".go-version", "go1.26\n") }, "go-version", "", `"go1.26" (.go-version)`, "write 1.26.10 into .go-version", nil},
	"GoTooOldForGoMod":        {func(p *testSite) { p.noSite(); p.setGoVersion("1.19.13") }, "go-version", "", "cannot read go.mod", "set GO_VERSION", nil},
	"GoOlderThanGoMod":        {func(p *testSite) { p.noSite(); p.setGoVersion("1.22.1") }, "go-version", doctor.Warn, "downloads the newer one", "set GO_VERSION", nil},
	"TOMLThatCannotBeRead":    {func(p *testSite) { p.noSite(); p.write("netlify.toml", "[build\n") }, "go-version", "", "netlify.toml, line 1", "fix netlify.toml", nil},
	"FunctionsSomewhereElse":  {func(p *testSite) { p.noSite(); p.edit("netlify.toml", "directory = \"functions\"", "") }, "functions-directory", "", "in netlify/functions, which lacks kv-upsert", "the functions are in functions: move them to netlify/functions", nil},
	"AFunctionIsMissing":      {func(p *testSite) { p.noSite(); _ = os.RemoveAll(filepath.Join(p.dir, "functions/kv-query")) }, "functions-directory", "", "in functions, which lacks kv-query", "kv add", nil},
	"JavaScriptOfTheSameName": {func(p *testSite) { p.noSite(); p.write("functions/kv-get.mjs", "") }, "functions-directory", doctor.Warn, "functions/kv-get.mjs have the same name", "remove functions/kv-get.mjs", nil},
	"CatchAllInFront": {func(p *testSite) {
		p.noSite()
		p.write("public/_redirects", "# an app of one page\n/*  /index.html  200\n")
	},
		"redirects", "", "/* → /index.html (_redirects, line 2) comes first, and does not lead to the functions from /api/kv/batch, /api/kv/blobs, ", "in front of it in _redirects", nil},
	"CatchAllForSome": {func(p *testSite) { p.noSite(); p.write("public/_redirects", "/*  /de/:splat  200  Language=de\n") },
		"redirects", doctor.Warn, "comes first for some requests", "in front of it", nil},
	"RedirectWithoutStatus": {func(p *testSite) {
		p.noSite()
		p.edit("netlify.toml", "to = \"/.netlify/functions/kv-upsert\"\n  status = 200", "to = \"/.netlify/functions/kv-upsert\"")
	}, "redirects", "", "has status 301", "status 200", nil},
	"NoRedirect": {func(p *testSite) { p.noSite(); p.edit("netlify.toml", `from = "/api/kv/query"`, `from = "/api/q"`) },
		"redirects", "", "no rule leads to the functions from /api/kv/query", "kv add", nil},
	"RedirectLineThatCannotBeRead": {func(p *testSite) { p.noSite(); p.write("public/_redirects", "/a b\n") }, "redirects", "", "_redirects, line 1", "fix the line", nil},
}

// noSite restricts the checks to files and variables.
func (p *testSite) noSite() {
	p.args = []string{"--only", "go-version,functions-directory,redirects,variables,variables-size,tokens,supabase-url,supabase-key"}
}

func (p *testSite) setGoVersion(version string) {
	text, err := os.ReadFile(filepath.Join(p.dir, "netlify.toml"))
	require.NoError(p.t, err)
	p.write("netlify.toml", regexp.MustCompile(`GO_VERSION = ".*"`).ReplaceAllString(string(text), `GO_VERSION = "`+version+`"`))
}

// set plants a fault in one variable.
func set(name, value string) func(*testSite) {
	return func(p *testSite) { p.noSite(); p.env[name] = value }
}

var variableFaults = map[string]fault{
	"AddressOfAnotherAPI":   {set("SUPABASE_URL", "https://abc.supabase.co/auth/v1/"), "supabase-url", "", "remove /auth/v1/", "https://<project>.supabase.co", nil},
	"AddressWithOneQuote":   {set("SUPABASE_URL", `"https://abc.supabase.co`), "supabase-url", "", "has a quotation mark at one end", "https://<project>.supabase.co", nil},
	"AddressWithASpace":     {set("SUPABASE_URL", "https://abc .supabase.co"), "supabase-url", "", "contains a space", "https://<project>.supabase.co", nil},
	"AddressOfTheDashboard": {set("SUPABASE_URL", "https://supabase.com/dashboard/project/abc"), "supabase-url", "", "of the dashboard", "https://<project>.supabase.co", nil},
	"AddressOfTheDatabase":  {set("SUPABASE_URL", "postgresql://db.abc.supabase.co:5432/postgres"), "supabase-url", "", "begins with https://", "https://<project>.supabase.co", nil},
	"NoAddress":             {set("SUPABASE_URL", ""), "supabase-url", "", "is not set, and Supabase answers", "https://<project>.supabase.co", nil},
	"KeyOfBrowsers": {func(p *testSite) { p.noSite(); p.env["SUPABASE_SERVICE_ROLE_KEY"] = os.Getenv("SUPABASE_ANON_KEY") },
		"supabase-key", "", `the role "anon"`, "secret key (sb_secret_…)", nil},
	"PublishableKey": {set("SUPABASE_SERVICE_ROLE_KEY", "sb_publishable_abc"), "supabase-key", "", "publishable key", "secret key (sb_secret_…)", nil},
	"TokenOfTheCLI":  {set("SUPABASE_SERVICE_ROLE_KEY", "sbp_0123456789abcdef"), "supabase-key", "", "personal access token", "secret key", nil},
	"HalfAKey":       {set("SUPABASE_SERVICE_ROLE_KEY", "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoi"), "supabase-key", "", "a part may be missing", "secret key", nil},
	"KeyInTwoQuotes": {set("SUPABASE_SERVICE_ROLE_KEY", "''sb_secret_0123456789''"), "supabase-key", "", "has a quotation mark at one end", "secret key", nil},
	"NoKey":          {set("SUPABASE_SERVICE_ROLE_KEY", ""), "supabase-key", "", "is not set", "secret key", nil},
	"KeyThatExpired": {set("SUPABASE_SERVICE_ROLE_KEY", signed(jwt.MapClaims{"role": "service_role", "exp": 1_700_000_000})), "supabase-key", "", "expired on 2023-11-14", "secret key", nil},
	"KeyOfAnotherProject": {func(p *testSite) {
		p.noSite()
		p.env["SUPABASE_URL"], p.env["SUPABASE_SERVICE_ROLE_KEY"] = "https://abc.supabase.co", signed(jwt.MapClaims{"role": "service_role", "ref": "xyz"})
	}, "supabase-key", "", "to the project xyz, and SUPABASE_URL to abc", "the same project", nil},
	"InvalidBoolean":      {set("USE_SUPABASE_KV", "perhaps"), "variables", "", "USE_SUPABASE_KV must be true or false", "until then the functions answer 503", nil},
	"InvalidRate":         {set("KV_BLOBS_RATE", "many"), "variables", "", "KV_BLOBS_RATE must be a whole number of requests a minute", "correct it", nil},
	"InvalidTime":         {set("KV_QUERY_TIMEOUT", "soon"), "variables", "", "KV_QUERY_TIMEOUT must be a time", "correct it", nil},
	"TokenWithoutContent": {set("KV_API_TOKEN", " , "), "tokens", "", "holds no token", "openssl rand -hex 32", nil},
	"TokenWithOneQuote":   {set("KV_READ_TOKEN", `0123456789abcdef0123"`), "tokens", "", "KV_READ_TOKEN has a quotation mark at one end", "enter it again", nil},
	"TokenThatIsShort":    {set("KV_API_TOKEN", "secret"), "tokens", doctor.Warn, "has 6 characters", "openssl rand -hex 32", nil},
	"TokenThatIsEmpty":    {func(p *testSite) { p.noSite(); p.file(map[string]string{"KV_API_TOKEN": ""}) }, "tokens", "", "KV_API_TOKEN is set but empty", "openssl rand -hex 32", nil},
	"VariablesTooLarge": {func(p *testSite) { p.noSite(); p.file(map[string]string{"FIREBASE_KEY": strings.Repeat("x", 4000)}) },
		"variables-size", "", "the deploy fails", "FIREBASE_KEY (4012)", nil},
}

// file passes the variables, and more, in a file as the Netlify CLI prints it. The file replaces the environment's
// variables.
func (p *testSite) file(more map[string]string) {
	variables := map[string]string{}
	for name, value := range p.env {
		if value != "" {
			variables[name] = value
		}
	}
	maps.Copy(variables, more)
	text, err := json.MarshalIndent(variables, "", "  ")
	require.NoError(p.t, err)
	p.write("variables.json", string(text))
	p.env = map[string]string{"SUPABASE_URL": "https://not-this.supabase.co", "KV_CACHE": "nonsense"}
	p.args = append(p.args, "--env-file", filepath.Join(p.dir, "variables.json"))
}

func signed(claims jwt.MapClaims) string {
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte("a secret of nobody's that is long enough"))
	if err != nil {
		panic(err)
	}
	return token
}

// through puts a proxy in front of an address. ask may change a request, or return a handler that answers it; answer
// may change a response.
func through(t *testing.T, address string, ask func(r *http.Request) http.HandlerFunc, answer func(*http.Response) error) string {
	target, err := url.Parse(address)
	require.NoError(t, err)
	proxy := &httputil.ReverseProxy{ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), ModifyResponse: answer, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.URL.RawQuery = r.In.URL.RawQuery }}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ask != nil {
			if instead := ask(r); instead != nil {
				instead(w, r)
				return
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// project puts a proxy in front of the Supabase project.
func (p *testSite) project(ask func(r *http.Request) http.HandlerFunc, answer func(*http.Response) error) {
	p.args, p.env["DATABASE_URL"] = nil, ""
	p.env["SUPABASE_URL"] = through(p.t, p.env["SUPABASE_URL"], ask, answer)
}

// respond answers with a status and a body.
func respond(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

// projectFaults are faults in how the project answers. Faults behind PostgREST change the request, so that PostgREST
// itself answers as it would with the fault. Responses of a gateway are imitated.
func projectFaults() map[string]fault {
	faults := map[string]fault{
		"KeyOfNobody": {func(p *testSite) {
			p.args, p.env["DATABASE_URL"], p.env["SUPABASE_SERVICE_ROLE_KEY"] = nil, "", signed(jwt.MapClaims{"role": "service_role"})
		}, "project", "", "refuses the key", "secret key", nil},
		"NobodyListens": {func(p *testSite) {
			p.args, p.env["DATABASE_URL"], p.env["SUPABASE_URL"] = nil, "", "http://127.0.0.1:1"
		},
			"project", "", "no connection: connection refused", "check SUPABASE_URL", nil},
		"PublicNotExposed": {func(p *testSite) {
			p.project(func(r *http.Request) http.HandlerFunc {
				r.Header.Set("Content-Profile", "hidden") // a schema that is not exposed
				return nil
			}, nil)
		}, "exposed-schema", "", "does not expose the schema public", "add public to the exposed schemas", nil},
		"MigrationsNotApplied": {func(p *testSite) {
			p.project(func(r *http.Request) http.HandlerFunc {
				r.URL.Path = strings.NewReplacer("kv_health", "kv_nothing", "kv_store", "kv_nothing").Replace(r.URL.Path)
				return nil
			}, nil)
		}, "migrations", "", "the function kv_health is missing", "apply supabase/migrations", nil},
		"TableOfSomebodyElse": {func(p *testSite) {
			p.project(func(r *http.Request) http.HandlerFunc {
				r.URL.Path = strings.Replace(r.URL.Path, "kv_health", "kv_nothing", 1)
				r.URL.RawQuery = strings.Replace(r.URL.RawQuery, "index_pairs", "index_pears", 1) // no table has this column
				return nil
			}, nil)
		}, "kv-store", "", "that is not ours", "set schema before", []string{"migrations"}},
		"NoRowGetsThrough": {func(p *testSite) {
			p.project(func(r *http.Request) http.HandlerFunc {
				r.URL.RawQuery = "limit=0" // does to one request what Max rows does to all
				return nil
			}, nil)
		}, "row-cap", "", "returns no rows", "Max rows", nil},
		"RoleThatMayNotCall": {func(p *testSite) {
			p.project(func(r *http.Request) http.HandlerFunc {
				r.Header.Set("Authorization", "Bearer "+os.Getenv("SUPABASE_ANON_KEY")) // a role other than the key's
				return nil
			}, nil)
		}, "grants", "", "may not call kv_health", "grant usage on schema public", nil},
		"ClockOfTheDatabase": {func(p *testSite) { p.project(nil, replaceInBody(`"now" ?: ?"[^"]*"`, `"now":"2026-01-01T00:00:00Z"`)) },
			"clock", "", "the database's clock", "restart", nil},
		"DatabaseURLOfAnother": {func(p *testSite) { p.args = nil; p.env["DATABASE_URL"] = newDatabase(p.t, migrated(p.t), "") },
			"database-url", "", "another database", "the same project", nil},
		"DatabaseURLOfNothing": {func(p *testSite) {
			p.args = nil
			p.env["DATABASE_URL"] = "postgresql://postgres:wrong-password@127.0.0.1:1/postgres"
		},
			"database-url", "", "leads to no database", "Session pooler", nil},
	}
	page := "<html><body>no</body></html>"
	for name, g := range map[string]struct {
		status     int
		body       string
		says, mend string
	}{
		"Restricted":         {402, `{"message":"exceeded"}`, "restricted", "Usage and Billing"},
		"Blocked":            {403, page, "blocked before it reached the project", "another network"},
		"NotAnAPI":           {404, page, "no Supabase API", "https://<project>.supabase.co"},
		"Elsewhere":          {200, page, "not a Supabase project", "https://<project>.supabase.co"},
		"OriginUnreachable":  {522, page, "does not answer its gateway", "status.supabase.com"},
		"OriginWithoutName":  {530, page, "does not answer its gateway", "status.supabase.com"},
		"Paused":             {540, page, "the project is paused", "Resume project"},
		"GatewayTimeout":     {544, `{"message":"timeout"}`, "does not answer its gateway", "status.supabase.com"},
		"NoConnectionFree":   {504, `{"code":"PGRST003","message":"Timed out acquiring connection"}`, "does not answer its gateway", "home page"},
		"DatabaseIsStarting": {503, `{"code":"PGRST002","message":"Could not query the database for the schema cache"}`, "cannot reach its database", "home page"},
		"DiskFull":           {500, `{"code":"53100","message":"could not extend file"}`, "disk is full", "Compute and Disk"},
	} {
		faults[name] = fault{func(p *testSite) {
			p.project(func(*http.Request) http.HandlerFunc {
				contentType := "application/json"
				if g.body == page {
					contentType = "text/html"
				}
				return respond(g.status, contentType, g.body)
			}, nil)
		}, "project", "", g.says, g.mend, nil}
	}
	return faults
}

// replaceInBody changes a response's body.
func replaceInBody(pattern, with string) func(*http.Response) error {
	expression := regexp.MustCompile(pattern)
	return func(response *http.Response) error {
		var body bytes.Buffer
		if _, err := body.ReadFrom(response.Body); err != nil {
			return err
		}
		text := expression.ReplaceAll(body.Bytes(), []byte(with))
		response.Body, response.ContentLength = readCloser{bytes.NewReader(text)}, int64(len(text))
		response.Header.Del("Content-Length")
		return nil
	}
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

// inDatabase plants a fault with a statement in a copy of a healthy database, which DATABASE_URL names.
func inDatabase(sql string) func(p *testSite) {
	return func(p *testSite) {
		p.blobsFirst()
		p.env["DATABASE_URL"] = newDatabase(p.t, migrated(p.t), sql)
	}
}

var databaseFaults = map[string]fault{
	"NoMigration": {func(p *testSite) { p.blobsFirst(); p.env["DATABASE_URL"] = newDatabase(p.t, "template0", "") }, "migrations", "", "no migration is applied", "apply supabase/migrations", nil},
	"OwnTable": {func(p *testSite) {
		p.blobsFirst()
		p.env["DATABASE_URL"] = newDatabase(p.t, "template0", `create table public.kv_store (id uuid primary key default gen_random_uuid(),
			key text unique, value jsonb, indexes text[], created_at timestamptz, updated_at timestamptz); alter table public.kv_store enable row level security`)
	}, "kv-store", "", "a table kv_store that is not ours", "alter table public.kv_store set schema before", []string{"migrations"}},
	"LastMigrationsMissing": {func(p *testSite) {
		p.blobsFirst()
		p.env["DATABASE_URL"] = newDatabase(p.t, "template0", upTo(p.t, "20261201100000"))
	}, "migrations", "", "not applied, or only partly: 202612011", "apply supabase/migrations", nil},
	"HalfAMigration":    {inDatabase("drop function public.kv_migration_status(text)"), "migrations", "", "function public.kv_migration_status", "apply supabase/migrations", nil},
	"TriggerDisabled":   {inDatabase("alter table public.kv_store disable trigger kv_store_log"), "migrations", "", "trigger public.kv_store.kv_store_log", "apply supabase/migrations", nil},
	"IndexMissing":      {inDatabase("drop index kv.log_transaction_id"), "migrations", "", "index kv.log_transaction_id", "apply supabase/migrations", nil},
	"ColumnMissing":     {inDatabase("alter table kv.log drop column missed"), "migrations", "", "column kv.log.missed", "apply supabase/migrations", nil},
	"FunctionChanged":   {inDatabase("create or replace function kv.schema_version() returns text language sql immutable as $$ select '20261130000000' /* mine */ $$"), "migrations", "", "not as any migration defines it: function kv.schema_version", "restore the definition", nil},
	"NewerRelease":      {inDatabase("create or replace function kv.schema_version() returns text language sql immutable as $$ select '20991231000000' $$"), "migrations", "", "of a newer release", "deploy the functions of that release", nil},
	"FunctionOfNobody":  {inDatabase("create function public.kv_mine() returns int language sql as 'select 1'; revoke all on function public.kv_mine() from public, anon, authenticated"), "migrations", doctor.Warn, "function public.kv_mine", "keep it if it is yours", nil},
	"ServiceRoleMayNot": {inDatabase("revoke insert on public.kv_store from service_role; revoke execute on function public.kv_get(text, text) from service_role"), "grants", "", "service_role may not execute public.kv_get, insert public.kv_store", "grant it", nil},
	"AnonMayRead":       {inDatabase("grant select on public.kv_store to anon"), "grants", "", "anon select public.kv_store", "revoke it", nil},
	"PublicMayCall":     {inDatabase("grant execute on function public.kv_get(text, text) to public"), "grants", "", "anon execute public.kv_get, authenticated execute public.kv_get", "revoke it", nil},
	"NoRowSecurity":     {inDatabase("alter table kv.member disable row level security"), "grants", "", "without row security: kv.member", "enable row level security", nil},
	"APolicy":           {inDatabase("create policy mine on public.kv_store for select using (true)"), "grants", doctor.Warn, "mine on public.kv_store", "drop it", nil},
	"Publication":       {inDatabase("alter table kv.log replica identity nothing; create publication everything for all tables"), "publication", "", "kv.log in everything", "replica identity full", nil},
	"PublicationOfOne":  {inDatabase("alter table public.kv_store replica identity nothing; create publication one for table public.kv_store"), "publication", "", "public.kv_store in one", "replica identity full", nil},
}

var blobsFaults = map[string]fault{
	"NoTokenForBlobs":   {func(p *testSite) { p.blobsFirst(); p.env["NETLIFY_BLOBS_TOKEN"] = "" }, "blobs", "", "NETLIFY_BLOBS_TOKEN is not set", "personal access token", nil},
	"SpaceInTheToken":   {func(p *testSite) { p.blobsFirst(); p.env["NETLIFY_BLOBS_TOKEN"] += "\nx" }, "blobs", "", "NETLIFY_BLOBS_TOKEN contains a space, a line break", "personal access token", []string{"variables"}},
	"WrongTokenOfBlobs": {func(p *testSite) { p.blobsFirst(); p.env["NETLIFY_BLOBS_TOKEN"] = "nfp_not-a-token-of-anybody" }, "blobs", "", "refuses the token", "personal access token", nil},
	"WrongSiteOfBlobs":  {func(p *testSite) { p.blobsFirst(); p.env["NETLIFY_SITE_ID"] = "00000000-0000-0000-0000-000000000000" }, "blobs", "", "no such site", "Project ID", nil},
	"RateUsedUp": {func(p *testSite) {
		p.blobsFirst()
		p.env["NETLIFY_BLOBS_API_URL"] = through(p.t, p.env["NETLIFY_BLOBS_API_URL"], func(*http.Request) http.HandlerFunc { return respond(429, "application/json", "{}") }, nil)
	}, "blobs-rate", "", "no requests are left", "a separate token", nil},
	"RateNearlyUsedUp": {func(p *testSite) {
		p.blobsFirst()
		p.env["NETLIFY_BLOBS_API_URL"] = through(p.t, p.env["NETLIFY_BLOBS_API_URL"], nil, func(r *http.Response) error {
			r.Header.Set("X-RateLimit-Limit", "500")
			r.Header.Set("X-RateLimit-Remaining", "37")
			return nil
		})
	}, "blobs-rate", doctor.Warn, "37 of 500", "a separate token", nil},
}

// site puts a proxy in front of the site.
func (p *testSite) site(only string, ask func(r *http.Request) http.HandlerFunc, answer func(*http.Response) error) {
	p.args = []string{"--site", through(p.t, os.Getenv("KV_BASE_URL"), ask, answer), "--only", only}
}

// at answers in place of one function at each of its addresses.
func at(function string, instead http.HandlerFunc) func(r *http.Request) http.HandlerFunc {
	return func(r *http.Request) http.HandlerFunc {
		if strings.HasSuffix(r.URL.Path, "/"+function) || strings.HasSuffix(r.URL.Path, "/kv/"+strings.TrimPrefix(function, "kv-")) {
			return instead
		}
		return nil
	}
}

// header changes one header of every response; "" removes it.
func header(name, value string) func(*http.Response) error {
	return func(r *http.Response) error {
		r.Header.Del(name)
		if value != "" {
			r.Header.Set(name, value)
		}
		return nil
	}
}

var index = respond(200, "text/html; charset=utf-8", "<!doctype html><title>An app</title>")

var siteFaults = map[string]fault{
	"FunctionNotDeployed": {func(p *testSite) { p.site("site-functions", at("kv-query", index), nil) }, "site-functions", "", "/.netlify/functions/kv-query answers with a page", "functions-directory", nil},
	"ShortAddressShadowed": {func(p *testSite) {
		p.site("site-functions", func(r *http.Request) http.HandlerFunc {
			if strings.HasPrefix(r.URL.Path, "/api/") {
				return index
			}
			return nil
		}, nil)
	}, "site-functions", "", "/api/kv/delete answers with a page", "redirects", nil},
	"JavaScriptAnswers":   {func(p *testSite) { p.site("site-functions", nil, header("X-KV-Release", "")) }, "site-functions", "", "kv-list is not served by a function of this project", "deploy this release", nil},
	"OlderReleaseAnswers": {func(p *testSite) { p.site("site-functions", nil, header("X-KV-Release", "0.9.0")) }, "site-functions", "", "is of release 0.9.0", "deploy this release", nil},
	"FunctionNotConfigured": {func(p *testSite) {
		p.site("site-functions", at("kv-get", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-KV-Release", kv.Release)
			respond(503, "application/json", `{"error":"SUPABASE_URL is not set","code":"not_configured"}`)(w, r)
		}), nil)
	}, "site-functions", "", "status 503: SUPABASE_URL is not set", "do what the message says", nil},
	"SiteDown": {func(p *testSite) { p.args = []string{"--only", "site-functions", "--site", "http://127.0.0.1:1"} }, "site-functions", "", "the site does not answer", "check the address", nil},
	"SiteIsOpen": {func(p *testSite) {
		p.site("site-tokens", nil, nil)
		p.env["KV_API_TOKEN"] = "0123456789abcdef,another-good-token"
	}, "site-tokens", "", "a write without a token is allowed", "set the tokens on the site too", nil},
	"OtherTokens": {func(p *testSite) {
		p.site("site-tokens", func(r *http.Request) http.HandlerFunc {
			return respond(401, "application/json", `{"error":"wrong token, `+r.Header.Get("Authorization")+`","code":"unauthorized"}`) // the message quotes the token
		}, nil)
		p.env["KV_API_TOKEN"] = "0123456789abcdef"
	}, "site-tokens", "", "a read with token 1 of KV_API_TOKEN is refused: wrong token", "the same tokens on the site", nil},
	"WritesAreLost": {func(p *testSite) {
		p.site("site-write", at("kv-upsert", respond(200, "application/json", `{"ok":true}`)), nil)
	}, "site-write", "", "the written entry is not read back", "the same variables", nil},
	"CDNCachesResponses": {func(p *testSite) { p.site("site-staleness", keeping(p.t, os.Getenv("KV_BASE_URL")), nil) }, "site-staleness", "", "(X-KV-After) does not see the write", "CDN", nil},
	"ETagIsLost":         {func(p *testSite) { p.site("site-headers", nil, header("ETag", "")) }, "site-headers", "", "the header ETag of a read does not arrive", "_headers", nil},
	"VersionIsLost":      {func(p *testSite) { p.site("site-headers", nil, header("X-KV-Version", "")) }, "site-headers", "", "the header X-KV-Version of a write", "_headers", nil},
	"CacheControlOfTheSite": {func(p *testSite) { p.site("site-headers", nil, header("Cache-Control", "public, max-age=600")) },
		"site-headers", "", `Cache-Control: "public, max-age=600"`, "_headers", nil},
	"DatabaseFarAway": {func(p *testSite) {
		p.site("site-distance", nil, header("Server-Timing", "cache;desc=bypass, db;dur=87.500, total;dur=88"))
	},
		"site-distance", doctor.Warn, "wait 87.5ms", "us-east-2", nil},
}

// keeping repeats the first response to each read of kv-get, like a CDN that caches everything.
func keeping(t *testing.T, site string) func(r *http.Request) http.HandlerFunc {
	kept := make(chan map[string][]byte, 1)
	kept <- map[string][]byte{}
	return func(r *http.Request) http.HandlerFunc {
		if !strings.Contains(r.URL.Path, "kv-get") {
			return nil
		}
		all := <-kept
		defer func() { kept <- all }()
		if _, known := all[r.URL.String()]; !known {
			response, err := http.Get(site + r.URL.String())
			if err != nil {
				return respond(502, "text/plain", err.Error())
			}
			defer response.Body.Close()
			var body bytes.Buffer
			_, _ = body.ReadFrom(response.Body)
			all[r.URL.String()] = body.Bytes()
		}
		return respond(200, "application/json", string(all[r.URL.String()]))
	}
}
