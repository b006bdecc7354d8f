package doctor

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/scripts/kv/internal/redirects"
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
		require.Equal(t, test.want, match(redirects.Rule{From: test.from}, test.path), "%s on %s", test.from, test.path)
	}
}

// Netlify keeps the last of equal rules, which may then come after a catch-all that it was meant to precede.
func TestOfEqualRedirectsTheLastIsInForce(t *testing.T) {
	t.Parallel()
	ours, app := redirects.Rule{From: "/a", To: "/b", Status: 200}, redirects.Rule{From: "/*", To: "/index.html", Status: 200}
	require.Equal(t, []redirects.Rule{app, ours}, inForce([]redirects.Rule{ours, app}, []redirects.Rule{ours}))
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
