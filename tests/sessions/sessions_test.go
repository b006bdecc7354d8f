// Package sessions builds a small Nitro app, with the code for sessions that docs/CLIENTS.md shows, in front of the
// functions at KV_BASE_URL. In it somebody logs in, reloads, waits for the expiry and logs out. The driver for Astro that
// the page shows is called as Astro calls it, since Astro itself takes long to install.
package sessions

import (
	"cmp"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSessions(t *testing.T) {
	site := os.Getenv("KV_BASE_URL")
	require.NotEmpty(t, site, "KV_BASE_URL is not set: `make test-functions` runs this on a platform of its own; after `make up`, `. .local/env` has the address of the local one")
	token, _, _ := strings.Cut(os.Getenv("KV_API_TOKEN"), ",")
	store := "sessions-" + strings.ToLower(rand.Text()[:8])
	app := newApp(t, store)
	node := func(t *testing.T, arguments ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "node", arguments...)
		cmd.Env = append(os.Environ(), "SITE="+site, "KV_API_TOKEN="+cmp.Or(token, "any"), "APP="+app, "STORE="+store)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "node %s:\n%s", strings.Join(arguments, " "), out)
	}
	node(t, filepath.Join(app, "node_modules/nitropack/dist/cli/index.mjs"), "build", "--dir", app)
	t.Run("Nitro by HTTP", func(t *testing.T) {
		t.Parallel()
		node(t, "flow.mjs")
	})
	t.Run("Nitro in Chromium", func(t *testing.T) {
		if os.Getenv("LONG") == "" {
			t.Skip("LONG is not set")
		}
		t.Parallel()
		node(t, "flow.mjs", chromium(t))
	})
	t.Run("the driver for Astro", func(t *testing.T) {
		t.Parallel()
		node(t, "astro.mjs")
	})
}

// newApp returns a copy of the folder app, with the packages and the files from the documentation. Its sessions are in
// the given store.
func newApp(t *testing.T, store string) string {
	t.Helper()
	packages, err := exec.CommandContext(t.Context(), "go", "run", "netlify-supabase-kv/scripts/platform", "packages", "sessions").Output()
	require.NoError(t, err, "install the packages of scripts/platform/npm/sessions")
	app := t.TempDir()
	require.NoError(t, os.CopyFS(app, os.DirFS("app")))
	require.NoError(t, os.Symlink(filepath.Join(strings.TrimSpace(string(packages)), "node_modules"), filepath.Join(app, "node_modules")))
	page, err := os.ReadFile("../../docs/CLIENTS.md")
	require.NoError(t, err)
	files := documented.FindAllStringSubmatch(strings.ReplaceAll(string(page), "/storage/sessions`", "/storage/"+store+"`"), -1)
	require.Len(t, files, 3, "files in docs/CLIENTS.md")
	for _, file := range files {
		path := filepath.Join(app, file[2])
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(file[1]), 0o644))
	}
	return app
}

// documented finds the files that the documentation shows, and their paths.
var documented = regexp.MustCompile("(?ms)^(// (\\S+) of (?:Nitro|Astro).*?)^```$")

// chromium returns the browser that is installed.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium-headless-shell", "chromium", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("there is no Chromium here")
	return ""
}
