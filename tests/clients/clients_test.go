// Package clients runs the packages from npm whose protocols kv-blobs-api and kv-storage-api speak, unchanged, against
// the functions at KV_BASE_URL. The suites are JavaScript, for Node's own test runner.
package clients

import (
	"context"
	"crypto/rand"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// modules returns the node_modules of scripts/platform/npm/clients, which it installs once.
var modules = sync.OnceValues(func() (string, error) {
	out, err := exec.CommandContext(context.Background(), "go", "run", "netlify-supabase-kv/scripts/platform", "packages", "clients").Output()
	return filepath.Join(strings.TrimSpace(string(out)), "node_modules"), err
})

// node runs a suite for one package, and fails the test with what the suite printed.
func node(t *testing.T, suite, release string, more ...string) {
	t.Helper()
	dir, err := modules()
	require.NoError(t, err, "install the packages of scripts/platform/npm/clients")
	cmd := exec.CommandContext(t.Context(), "node", "--test", "--test-reporter=spec", suite)
	cmd.Env = append(os.Environ(), "NODE_ENV=test", "NETLIFY_BLOBS_CONTEXT=", "KV_CLIENTS_MODULES="+dir, "KV_CLIENTS_RELEASE="+release,
		"KV_CLIENTS_RUN="+strings.ToLower(rand.Text()[:8]), "KV_CLIENTS_TOKEN="+token())
	many := "1100"
	if os.Getenv("LONG") != "" {
		many = "50000"
	}
	cmd.Env = append(cmd.Env, "KV_CLIENTS_MANY="+many)
	if token() == openToken {
		cmd.Env = append(cmd.Env, "KV_CLIENTS_OPEN=true")
	}
	cmd.Env = append(cmd.Env, more...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s with %s:\n%s", suite, release, out)
}

// openToken is for functions that need none. @netlify/blobs does not work without.
const openToken = "any"

func token() string {
	if all := os.Getenv("KV_API_TOKEN"); all != "" {
		first, _, _ := strings.Cut(all, ",")
		return first
	}
	return openToken
}

func needSite(t *testing.T) {
	t.Helper()
	if os.Getenv("KV_BASE_URL") == "" {
		t.Fatal("KV_BASE_URL is not set: `make test-functions` runs this on a platform of its own; after `make up`, `. .local/env` has the address of the local one")
	}
}

// statuses are those that kv-blobs-api and kv-storage-api send for failures.
const statuses = "400,401,404,405,409,412,413,415,422,500,502,503,504"

// The tables in docs/CLIENTS.md say what each client makes of each status, which changes with the clients alone.
// `LONG=true go test ./tests/clients -run Statuses -update` writes them.
func TestStatusesInTheDocumentation(t *testing.T) {
	if os.Getenv("LONG") == "" {
		t.Skip("LONG is not set")
	}
	t.Parallel()
	const file = "../../docs/CLIENTS.md"
	out := filepath.Join(t.TempDir(), "tables.md")
	node(t, "statuses.test.mjs", "all", "KV_CLIENTS_STATUSES="+statuses, "KV_CLIENTS_TABLE="+out)
	tables, err := os.ReadFile(out)
	require.NoError(t, err)
	page, err := os.ReadFile(file)
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(page), begin)
	require.True(t, found)
	_, after, found := strings.Cut(rest, end)
	require.True(t, found)
	want := before + begin + "\n" + string(tables) + end + after
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(want), 0o644))
		return
	}
	require.Equal(t, want, string(page), "docs/CLIENTS.md is outdated: LONG=true go test ./tests/clients -run Statuses -update")
}

const begin, end = "<!-- statuses: begin -->", "<!-- statuses: end -->"

var update = flag.Bool("update", false, "write the tables of docs/CLIENTS.md")

func TestKeyv(t *testing.T) {
	t.Parallel()
	needSite(t)
	node(t, "keyv.test.mjs", "keyv")
}

func TestMigrateAStore(t *testing.T) {
	t.Parallel()
	needSite(t)
	program := filepath.Join(t.TempDir(), "kv")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "netlify-supabase-kv/scripts/kv").CombinedOutput()
	require.NoError(t, err, string(out))
	node(t, "migrate.test.mjs", "@netlify/blobs", "KV_CLIENTS_KV="+program)
}

// The releases of @netlify/blobs: the newest, the oldest in wide use, and in the long run one between them.
func TestNetlifyBlobs(t *testing.T) {
	t.Parallel()
	needSite(t)
	releases := []string{"@netlify/blobs", "blobs-8"}
	if os.Getenv("LONG") != "" {
		releases = append(releases, "blobs-10")
	}
	for _, release := range releases {
		t.Run(strings.ReplaceAll(release, "/", "-"), func(t *testing.T) { node(t, "blobs.test.mjs", release) })
	}
}

// The stable release of unstorage and the beta of the next one.
func TestUnstorage(t *testing.T) {
	t.Parallel()
	needSite(t)
	for _, release := range []string{"unstorage-1", "unstorage-2"} {
		t.Run(release, func(t *testing.T) { node(t, "unstorage.test.mjs", release) })
	}
}
