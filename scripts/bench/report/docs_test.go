package report

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDocumentationWithoutAnEndIsLeftAsItIs(t *testing.T) {
	t.Parallel()
	for _, broken := range []string{"<!-- bench: machine -->\n", "<!-- bench: a\n<!-- /bench -->", "<!-- bench: a -->\n<!-- bench: b -->\n<!-- /bench -->"} {
		dir := t.TempDir()
		file := filepath.Join(dir, "BENCHMARKS.md")
		require.NoError(t, os.WriteFile(file, []byte(broken), 0o600))
		require.ErrorContains(t, WriteDocs(dir, map[string]string{"a": "new\n"}), "has no end", broken)
		kept, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, broken, string(kept))
	}
}

func TestNumbersAreWrittenForPeople(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"0", "999", "1,000", "1,000,000"}, []string{Thousands(0), Thousands(999), Thousands(1000), Thousands(1_000_000)})
	require.Equal(t, []string{"–", "0.0123", "1.23", "12.3"}, []string{Millis(0), Millis(0.01234), Millis(1.234), Millis(12.34)})
}
