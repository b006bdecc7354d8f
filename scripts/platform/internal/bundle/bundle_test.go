package bundle

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/scripts/platform/internal/layout"
)

func checkout(t *testing.T, files map[string]string) layout.Checkout {
	t.Helper()
	c := layout.Checkout{Root: t.TempDir()}
	for name, content := range files {
		write(t, c, name, content)
	}
	return c
}

func write(t *testing.T, c layout.Checkout, name, content string) {
	t.Helper()
	file := filepath.Join(c.Root, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
}

func TestFingerprintFollowsWhatABuildDependsOn(t *testing.T) {
	c := checkout(t, map[string]string{"go.mod": "module m", "functions/f/main.go": "package main", "pkg/p/p.go": "package p", "pkg/p/p.sql": "select 1"})
	print := func() string {
		key, err := fingerprint(c)
		require.NoError(t, err)
		return key
	}
	first := print()
	write(t, c, "pkg/p/p_test.go", "package p")
	write(t, c, "README.md", "x")
	require.Equal(t, first, print())
	seen := map[string]bool{first: true}
	for name, content := range map[string]string{"go.mod": "module m // x", "functions/f/main.go": "package main // x", "pkg/p/p.sql": "select 2", "pkg/p/q.go": "package p"} {
		write(t, c, name, content)
		require.False(t, seen[print()], name)
		seen[print()] = true
	}
	t.Setenv("GOFLAGS", "-cover")
	require.False(t, seen[print()])
}

func TestSourcesAreWhatTheBundlerTakes(t *testing.T) {
	t.Parallel()
	c := checkout(t, map[string]string{"functions/a/main.go": "", "functions/b/b.go": "", "functions/c/other.go": "", "functions/README.md": ""})
	names, err := Sources(c)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, names)
	names, err = Sources(checkout(t, nil))
	require.NoError(t, err)
	require.Empty(t, names)
}

func TestPruneKeepsTheLatestAndTheCurrent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	current := filepath.Join(dir, "current")
	for _, name := range []string{"current", "1", "2", "3", "4", "5", "6", "7"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "lock"), nil, 0o644))
	prune(dir, current)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, kept+1) // and the lock
	require.DirExists(t, current)
}
