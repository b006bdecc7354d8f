// Package buildbot builds sites with the real @netlify/build, in the mode in which Netlify's machines run it.
//
// It needs Node (its packages require 22.12 or newer; 20 has worked) and the npm packages of
// scripts/platform/npm/netlify, which it installs once. The build is offline, without telemetry. It does not include
// the steps around Netlify's build: clone, installation of Go and Node, upload.
package buildbot

import (
	"context"
	_ "embed"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

//go:embed build.mjs
var script []byte

// Built is the result of a build.
type Built struct {
	Functions []Function
	Routes    map[string]*Route // by path; nil where no rule matches
	Log       string
}

// Function is one function of the manifest, which lists what Netlify deploys.
type Function struct {
	Name    string `json:"name"`
	Runtime string `json:"runtime"`
	Path    string `json:"path"`
}

// Route is the rule that matches a path.
type Route struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Status int    `json:"status"`
}

// Names returns the names of the functions, sorted.
func (b Built) Names() []string {
	names := make([]string, 0, len(b.Functions))
	for _, f := range b.Functions {
		names = append(names, f.Name)
	}
	slices.Sort(names)
	return names
}

// Site is the site to build.
type Site struct {
	Dir      string
	Env      []string // in addition to the environment
	Settings Settings
}

// Settings are the settings of a site that Netlify stores. netlify.toml overrides them.
type Settings struct {
	Publish   string `json:"publish,omitempty"`
	Functions string `json:"functions,omitempty"`
}

// Build builds a site, and finds the rule for each path.
func Build(t *testing.T, site Site, paths ...string) Built {
	t.Helper()
	out := t.TempDir()
	settings, err := json.Marshal(map[string]Settings{"build": site.Settings})
	require.NoError(t, err)
	program, result := filepath.Join(out, "build.mjs"), filepath.Join(out, "result.json")
	require.NoError(t, os.WriteFile(program, script, 0o600))
	cmd := exec.CommandContext(t.Context(), "node", append([]string{program, Modules(t), site.Dir, string(settings), result}, paths...)...)
	cmd.Dir = site.Dir
	cmd.Env = append(environment(), site.Env...)
	log, err := cmd.CombinedOutput()
	require.NoError(t, err, "@netlify/build failed on %s\n%s", site.Dir, log)
	content, err := os.ReadFile(result)
	require.NoError(t, err)
	built := Built{Log: string(log)}
	require.NoError(t, json.Unmarshal(content, &built))
	return built
}

// environment returns the environment without variables that the build would use: a site's, those of Go's coverage,
// and tokens.
func environment() []string {
	env := slices.DeleteFunc(os.Environ(), func(pair string) bool {
		return slices.ContainsFunc([]string{"NETLIFY", "GOFLAGS=", "GOCOVERDIR=", "GOWORK=", "CGO_ENABLED=", "SITE_ID=", "DEPLOY_ID=", "BUILD_ID=", "BUGSNAG_KEY="},
			func(prefix string) bool { return strings.HasPrefix(pair, prefix) })
	})
	return append(env, "BUILD_TELEMETRY_DISABLED=1", "NO_UPDATE_NOTIFIER=1", "DO_NOT_TRACK=1", "NO_COLOR=1", "CI=true")
}

// Modules returns the node_modules with @netlify/build. The first call installs it if necessary.
func Modules(t *testing.T) string {
	t.Helper()
	dir, err := modules()
	require.NoError(t, err, "install Netlify's npm packages: it takes Node, npm, and a registry the first time")
	return dir
}

var modules = sync.OnceValues(func() (string, error) {
	root, err := root()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(context.Background(), "go", "run", "./scripts/platform", "packages", "netlify")
	cmd.Dir, cmd.Stderr = root, os.Stderr
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false")
	dir, err := cmd.Output()
	return filepath.Join(strings.TrimSpace(string(dir)), "node_modules"), err
})

// Root returns this repository's folder.
func Root(t *testing.T) string {
	t.Helper()
	dir, err := root()
	require.NoError(t, err)
	return dir
}

func root() (string, error) {
	file, err := exec.Command("go", "env", "GOMOD").Output()
	return filepath.Dir(strings.TrimSpace(string(file))), err
}
