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

// TestPromisesNameTests: every promise in SECURITY.md names the tests that keep it.
func TestPromisesNameTests(t *testing.T) {
	text, err := os.ReadFile("../../docs/SECURITY.md")
	require.NoError(t, err)
	promises, _, found := strings.Cut(string(text), "## What is not promised")
	require.True(t, found)
	paragraphs := regexp.MustCompile(`(?m)^\*\*`).Split(promises, -1)[1:]
	require.Greater(t, len(paragraphs), 5)
	for _, paragraph := range paragraphs {
		require.Regexp(t, named, paragraph, "a promise without a test")
	}
}

var named = regexp.MustCompile("`((?:Test|Fuzz)\\w+)`")

// TestNamedTestsExist checks that every test that a page names exists. SECURITY.md and CONTRIBUTING.md name most.
func TestNamedTestsExist(t *testing.T) {
	exists := map[string]bool{}
	for _, dir := range []string{"../../pkg", "../../scripts", "../../tests"} {
		require.NoError(t, filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(name, "_test.go") {
				return err
			}
			source, err := os.ReadFile(name)
			for _, found := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllSubmatch(source, -1) {
				exists[string(found[1])] = true
			}
			return err
		}))
	}
	pages, err := filepath.Glob("../../docs/*.md")
	require.NoError(t, err)
	for _, page := range pages {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, found := range named.FindAllStringSubmatch(string(text), -1) {
			require.True(t, exists[found[1]], "%s: the test %s does not exist", page, found[1])
		}
	}
}
