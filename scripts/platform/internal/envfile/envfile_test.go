package envfile

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var odd = []Pair{
	{"PLAIN", "http://127.0.0.1:9999/a?b=c"},
	{"EMPTY", ""},
	{"SPACED", "a b  c "},
	{"QUOTES", `it's "quoted" \ $HOME ` + "`id` $(id)"},
	{"STAR", "*"},
	{"HASH", "a#b"},
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "env")
	require.NoError(t, Write(name, "a comment", odd))
	got, err := Read(name)
	require.NoError(t, err)
	require.Equal(t, odd, got)
	info, err := os.Stat(name)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

// A shell and Read read the same values.
func TestShellReadsTheSame(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "env")
	require.NoError(t, Write(name, "a comment", odd))
	for _, p := range odd {
		out, err := exec.Command("sh", "-c", `. "$0"; printf '%s.' "$`+p.Key+`"`, name).Output()
		require.NoError(t, err)
		require.Equal(t, p.Value, strings.TrimSuffix(string(out), "."))
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "env")
	require.ErrorContains(t, Write(name, "", []Pair{{"A", "x\ny"}}), "line break")
	require.ErrorContains(t, Write(name, "", []Pair{{"A B", "x"}}), "not a valid variable name")
	_, err := os.Stat(name)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(name, []byte("no variable\n"), 0o600))
	_, err = Read(name)
	require.ErrorContains(t, err, "not KEY=value")
}
