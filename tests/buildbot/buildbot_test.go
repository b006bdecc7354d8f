package buildbot

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/stretchr/testify/require"
)

// config has the fields of netlify.toml that these tests check.
type config struct {
	Build struct {
		Command     string
		Environment map[string]string
	}
	Functions struct{ Directory string }
	Redirects []struct{ From, To string }
}

func read(t *testing.T) config {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(Root(t), "netlify.toml"))
	require.NoError(t, err)
	var c config
	require.NoError(t, toml.Unmarshal(content, &c))
	return c
}

// goMod returns the contents of go.mod as Go reads them.
func goMod(t *testing.T) (mod struct{ Go, Toolchain string }) {
	t.Helper()
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = Root(t)
	out, err := cmd.Output()
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(out, &mod))
	return mod
}

func TestGoVersionIsTheToolchainOfGoMod(t *testing.T) {
	t.Parallel()
	version := read(t).Build.Environment["GO_VERSION"]
	require.Regexp(t, regexp.MustCompile(`^1\.\d+\.\d+$`), version, "GO_VERSION in netlify.toml must name a file of go.dev to the last number")
	require.Equal(t, goMod(t).Toolchain, "go"+version, "GO_VERSION in netlify.toml must be the toolchain of go.mod")
}

// TestBuildCommandFillsTheCacheThatTheBundlerReads: with other flags, the bundler would compile everything again.
func TestBuildCommandFillsTheCacheThatTheBundlerReads(t *testing.T) {
	t.Parallel()
	bundler, err := os.ReadFile(filepath.Join(Modules(t), "@netlify", "zip-it-and-ship-it", "dist", "runtimes", "go", "builder.js"))
	require.NoError(t, err)
	command := read(t).Build.Command
	tags := regexp.MustCompile(`'-tags', '([^']+)'`).FindSubmatch(bundler)
	require.NotNil(t, tags, "the bundler names no -tags any more")
	require.Contains(t, command, " -tags "+string(tags[1])+" ")
	variables := regexp.MustCompile(`(CGO_ENABLED|GO[A-Z]+): '([^']+)'`).FindAllSubmatch(bundler, -1)
	require.NotEmpty(t, variables, "the bundler sets no variables any more")
	for _, v := range variables {
		require.Contains(t, command, string(v[1])+"="+string(v[2])+" ")
	}
	// Its other flags are for the linker, whose output is not cached.
	args := regexp.MustCompile(`const args = \[(.*)\];`).FindSubmatch(bundler)
	require.Equal(t, `'build', '-o', destPath, '-ldflags', '-s -w', '-tags', 'lambda.norpc'`, string(args[1]))
}

// clone returns a clone of this repository, as Netlify makes one: the last commit, without ignored files.
func clone(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "repo")
	out, err := exec.Command("git", "clone", "--quiet", "file://"+Root(t), dir).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return dir
}

// requireComplete checks that a build of a clone has every function and routes every short address to one.
func requireComplete(t *testing.T, dir string, env ...string) {
	t.Helper()
	var paths []string
	rules := read(t).Redirects
	for _, rule := range rules {
		paths = append(paths, strings.Replace(rule.From, "*", "some/key", 1))
	}
	built := Build(t, Site{Dir: dir, Env: env}, paths...)
	entries, err := os.ReadDir(filepath.Join(dir, "functions"))
	require.NoError(t, err)
	var want []string
	for _, e := range entries {
		want = append(want, e.Name())
	}
	require.Contains(t, want, "kv-get")
	require.Equal(t, want, built.Names(), "the functions that Netlify would deploy\n%s", built.Log)
	for _, f := range built.Functions {
		require.Equal(t, "go", f.Runtime, f.Name)
	}
	for i, path := range paths {
		require.NotNil(t, built.Routes[path], "no rule answers %s", path)
		require.Equal(t, rules[i].From, built.Routes[path].From)
	}
}

func TestCleanCloneBuildsAsOnNetlify(t *testing.T) {
	t.Parallel()
	requireComplete(t, clone(t), "GOFLAGS=-trimpath")
}

// olderGo is a Go that is older than go.mod's, but can download go.mod's by itself.
const olderGo = "golang.org/toolchain@v0.0.1-go1.21.13.linux-amd64"

// TestCleanCloneBuildsFromNothing is the first build of a new site, with empty caches and an older Go. It takes
// minutes, and downloads a toolchain twice.
func TestCleanCloneBuildsFromNothing(t *testing.T) {
	if os.Getenv("LONG") == "" {
		t.Skip("LONG is not set: a build from empty caches takes minutes")
	}
	out, err := exec.Command("go", "mod", "download", "-json", olderGo).Output()
	require.NoError(t, err)
	var older struct{ Dir string }
	require.NoError(t, json.Unmarshal(out, &older))
	caches := t.TempDir()
	// Go makes downloads read-only, which would make the removal of the test's folder fail.
	t.Cleanup(func() {
		cmd := exec.Command("go", "clean", "-modcache")
		cmd.Env = append(os.Environ(), "GOMODCACHE="+filepath.Join(caches, "mod"), "GOFLAGS=")
		require.NoError(t, cmd.Run())
	})
	requireComplete(t, clone(t), "GOTOOLCHAIN=auto", "GOMODCACHE="+filepath.Join(caches, "mod"), "GOCACHE="+filepath.Join(caches, "build"),
		"PATH="+filepath.Join(older.Dir, "bin")+string(os.PathListSeparator)+os.Getenv("PATH"))
	fetched, err := filepath.Glob(filepath.Join(caches, "mod", "golang.org", "toolchain@v0.0.1-"+goMod(t).Toolchain+".*"))
	require.NoError(t, err)
	require.Len(t, fetched, 1, "the older Go fetches go.mod's toolchain")
}
