package npm

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/scripts/platform/internal/console"
	"netlify-supabase-kv/scripts/platform/internal/layout"
)

func checkout(t *testing.T, manifest, lock string) layout.Checkout {
	t.Helper()
	c := layout.Checkout{Root: t.TempDir()}
	dir := c.NPMSource("none")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for name, content := range map[string]string{"package.json": manifest, "package-lock.json": lock, ".npmrc": ""} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	return c
}

const emptyManifest = `{"name":"none","version":"1.0.0","private":true}`

const emptyLock = `{"name":"none","version":"1.0.0","lockfileVersion":3,"packages":{"":{"name":"none","version":"1.0.0"}}}`

// The set has no packages, so npm runs without a registry.
func TestInstallOnceAndAgainWhenItWasCutOff(t *testing.T) {
	t.Parallel()
	c := checkout(t, emptyManifest, emptyLock)
	runs := 0
	set := Set{Name: "none", What: "nothing", After: func(string) error { runs++; return nil }}
	for range 2 {
		dir, err := set.Install(t.Context(), c, console.Plain(os.Stderr))
		require.NoError(t, err)
		require.Equal(t, c.NPM("none"), dir)
	}
	require.Equal(t, 1, runs)
	require.NoError(t, os.Remove(filepath.Join(c.NPM("none"), marker)))
	_, err := set.Install(t.Context(), c, console.Plain(os.Stderr))
	require.NoError(t, err)
	require.Equal(t, 2, runs)
	require.NoError(t, os.WriteFile(filepath.Join(c.NPMSource("none"), "package-lock.json"), []byte(emptyLock+"\n"), 0o644))
	_, err = set.Install(t.Context(), c, console.Plain(os.Stderr))
	require.NoError(t, err)
	require.Equal(t, 3, runs)
}

func TestASharedSetIsInstalledOnceForAllCheckouts(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	t.Setenv("HOME", cache) // for macOS, where the cache is in Library/Caches
	runs := 0
	set := Set{Name: "none", What: "nothing", After: func(string) error { runs++; return nil }, Shared: true}
	first, err := set.Install(t.Context(), checkout(t, emptyManifest, emptyLock), console.Plain(os.Stderr))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(first, cache), first)
	again, err := set.Install(t.Context(), checkout(t, emptyManifest, emptyLock), console.Plain(os.Stderr))
	require.NoError(t, err)
	require.Equal(t, first, again)
	require.Equal(t, 1, runs)

	long := time.Now().Add(-2 * unused)
	require.NoError(t, os.Chtimes(filepath.Join(first, marker), long, long))
	other, err := set.Install(t.Context(), checkout(t, emptyManifest, emptyLock+"\n"), console.Plain(os.Stderr))
	require.NoError(t, err)
	require.NotEqual(t, first, other)
	require.DirExists(t, other)
	require.NoDirExists(t, first, "no checkout has asked for it for long")
}

// npm refuses a lock file that lacks a package of the manifest, before it calls a registry.
func TestFailureShowsWhatNpmPrinted(t *testing.T) {
	t.Parallel()
	c := checkout(t, `{"name":"none","version":"1.0.0","private":true,"dependencies":{"left-pad":"1.3.0"}}`, emptyLock)
	_, err := Set{Name: "none", What: "nothing"}.Install(t.Context(), c, console.Plain(os.Stderr))
	require.ErrorContains(t, err, "npm ci failed (exit status 1):\nnpm error")
	require.ErrorContains(t, err, "left-pad@1.3.0")
	var hint *console.Hint
	require.ErrorAs(t, err, &hint)
	_, err = os.Stat(filepath.Join(c.NPM("none"), marker))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// The lock files must work with any registry, and contain exact versions.
func TestCommittedSetsArePinnedAndNameNoRegistry(t *testing.T) {
	t.Parallel()
	for _, set := range []string{"platform", "postgres15", "supabase", "netlify"} {
		dir := filepath.Join("..", "..", "npm", set)
		lock, err := os.ReadFile(filepath.Join(dir, "package-lock.json"))
		require.NoError(t, err)
		require.NotContains(t, string(lock), `"resolved"`)
		manifest, err := os.ReadFile(filepath.Join(dir, "package.json"))
		require.NoError(t, err)
		require.NotRegexp(t, regexp.MustCompile(`": "[\^~*>]`), string(manifest))
	}
}
