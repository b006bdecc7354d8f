package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPromisesNameTestsThatExist: a promise of SECURITY.md is worth what its tests are.
func TestPromisesNameTestsThatExist(t *testing.T) {
	text, err := os.ReadFile("../../docs/SECURITY.md")
	require.NoError(t, err)
	there := map[string]bool{}
	for _, dir := range []string{"../../pkg", "../../scripts", "../../tests"} {
		require.NoError(t, filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(name, "_test.go") {
				return err
			}
			source, err := os.ReadFile(name)
			for _, found := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllSubmatch(source, -1) {
				there[string(found[1])] = true
			}
			return err
		}))
	}
	promises, _, found := strings.Cut(string(text), "## What is not promised")
	require.True(t, found)
	paragraphs := regexp.MustCompile(`(?m)^\*\*`).Split(promises, -1)[1:]
	require.Greater(t, len(paragraphs), 5)
	for _, paragraph := range paragraphs {
		named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(paragraph, -1)
		require.NotEmpty(t, named, "a promise without a test: %s", paragraph)
		for _, name := range named {
			require.True(t, there[name[1]], "%s is not a test", name[1])
		}
	}
}
