package redirects

import (
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/stretchr/testify/require"
)

func TestLinesOfAFile(t *testing.T) {
	t.Parallel()
	rules, err := OfFile("_redirects", []byte("# comment\n\n/a /b\n/c\t/d 200! # why\r\n/e x=:x https://example.com/:x 302\n/g/* /h 301 Country=de\n/i/* 404\nhttps://a.example/* /k\n"))
	require.NoError(t, err)
	require.Equal(t, []Rule{
		{From: "/a", To: "/b", Status: 301, File: "_redirects", Place: "line 3"},
		{From: "/c", To: "/d", Status: 200, File: "_redirects", Place: "line 4"},
		{From: "/e", To: "https://example.com/:x", Status: 302, Conditional: true, File: "_redirects", Place: "line 5"},
		{From: "/g/*", To: "/h", Status: 301, Conditional: true, File: "_redirects", Place: "line 6"},
		{From: "/i/*", Status: 404, File: "_redirects", Place: "line 7"},
		{From: "https://a.example/*", To: "/k", Status: 301, Conditional: true, File: "_redirects", Place: "line 8"},
	}, rules)
	for _, line := range []string{"/a", "/a b", "/a /b soon"} {
		rules, err := OfFile("_redirects", []byte(line+"\n/c /d\n"))
		require.ErrorContains(t, err, "_redirects, line 1: ", line)
		require.Len(t, rules, 1, "the line after %q counts", line)
	}
}

func TestTablesOfNetlifyTOML(t *testing.T) {
	t.Parallel()
	var config map[string]any
	require.NoError(t, toml.Unmarshal([]byte(`
		[[redirects]]
		from = "/a"
		to = "/b"
		force = true
		[[redirects]]
		origin = "/c"
		destination = "/d"
		status = "200!"
		query = {}
		[[redirects]]
		from = "https://a.example/*"
		to = "/e"
		status = 302
		[[redirects]]
		from = "/f"
		to = "/g"
		conditions = { Country = ["de"] }
	`), &config))
	rules, err := OfTOML("netlify.toml", config["redirects"])
	require.NoError(t, err)
	require.Equal(t, []Rule{
		{From: "/a", To: "/b", Status: 301, File: "netlify.toml", Place: "redirect 1"},
		{From: "/c", To: "/d", Status: 200, File: "netlify.toml", Place: "redirect 2"},
		{From: "https://a.example/*", To: "/e", Status: 302, Conditional: true, File: "netlify.toml", Place: "redirect 3"},
		{From: "/f", To: "/g", Status: 301, Conditional: true, File: "netlify.toml", Place: "redirect 4"},
	}, rules)
	require.Equal(t, "/a → /b (netlify.toml, redirect 1)", rules[0].String())
	for _, value := range []any{"/a /b", []any{"/a /b"}} {
		_, err := OfTOML("netlify.toml", value)
		require.EqualError(t, err, "netlify.toml: redirects must be a list of tables")
	}
	rules, err = OfTOML("netlify.toml", nil)
	require.NoError(t, err)
	require.Empty(t, rules)
}
