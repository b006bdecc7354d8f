package doctor

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRedirectsMatchAsNetlifyMatches(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		from, path string
		want       bool
	}{
		{"/api/kv/get", "/api/kv/get", true},
		{"/api/kv/get/", "/api/kv/get", true},
		{"/api/kv/get", "/api/kv/get/a", false},
		{"/api/kv/get/*", "/api/kv/get/a/b", true},
		{"/api/kv/get/*", "/api/kv/get", true},
		{"/api/kv/get/*", "/api/kv/getter", false},
		{"/*", "/api/kv/get", true},
		{"/:any/kv/:what", "/api/kv/get", true},
		{"/:any/kv/:what", "/api/kv/get/a", false},
		{"/", "/api", false},
	} {
		require.Equal(t, test.want, redirect{From: test.from}.match(test.path), "%s on %s", test.from, test.path)
	}
}

// Netlify keeps the last of equal rules, which may then come after a catch-all that it was meant to precede.
func TestOfEqualRedirectsTheLastIsInForce(t *testing.T) {
	t.Parallel()
	ours, app := redirect{From: "/a", To: "/b", Status: 200}, redirect{From: "/*", To: "/index.html", Status: 200}
	require.Equal(t, []redirect{app, ours}, inForce([]redirect{ours, app}, []redirect{ours}))
}

func TestRedirectsFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "_redirects")
	require.NoError(t, os.WriteFile(file, []byte("# comment\n\n/a /b\n/c id=:id /d/:id 302! # why\n/e https://example.com/e 200 Country=de\n/f 404\nhttps://a.example/* /g\n"), 0o600))
	rules, err := readRedirectsFile(file)
	require.NoError(t, err)
	for i := range rules {
		require.Contains(t, rules[i].Place, "_redirects, line ")
		rules[i].Place = ""
	}
	require.Equal(t, []redirect{
		{From: "/a", To: "/b", Status: 301},
		{From: "/c", To: "/d/:id", Status: 302, Conditional: true},
		{From: "/e", To: "https://example.com/e", Status: 200, Conditional: true},
		{From: "/f", Status: 404},
		{From: "https://a.example/*", To: "/g", Status: 301, Conditional: true},
	}, rules)
	for _, line := range []string{"/a", "/a b", "/a /b soon"} {
		require.NoError(t, os.WriteFile(file, []byte(line), 0o600))
		_, err := readRedirectsFile(file)
		require.ErrorContains(t, err, "_redirects, line 1", line)
	}
	rules, err = readRedirectsFile(file + ".none")
	require.NoError(t, err)
	require.Empty(t, rules)
}

func TestVariablesOfAFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "variables")
	for text, want := range map[string]map[string]string{
		`{"A":"1","B":"\"x\""}`:                                {"A": "1", "B": `"x"`},
		"# a comment\nA=1\nexport B='it'\\''s'\nC=\"x y\"\nD=": {"A": "1", "B": "it's", "C": "x y", "D": ""},
		"A=a=b\r\n": {"A": "a=b"},
	} {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		got, err := ReadVariables(file)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, text := range []string{`{"A":1}`, "A=1\nsecret-without-a-name\n", "A B=secret"} {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		_, err := ReadVariables(file)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "secret")
	}
}
