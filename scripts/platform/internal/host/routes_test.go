package host

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const testTOML = `
[build]
  publish = "public"
[[redirects]]
  from = "/api/kv/get"
  to = "/.netlify/functions/kv-get"
  status = 200
[[redirects]]
  from = "/api/kv/get/*"
  to = "/.netlify/functions/kv-get/:splat"
  status = 200
`

func TestRoute(t *testing.T) {
	t.Parallel()
	config, err := parseConfig([]byte(testTOML))
	require.NoError(t, err)
	require.Equal(t, "public", config.Publish)
	tests := []struct {
		name, path, function string
		ok                   bool
	}{
		{"Direct", "/.netlify/functions/kv-list", "kv-list", true},
		{"DirectWithMore", "/.netlify/functions/kv-get/a%2Fb/c", "kv-get", true},
		{"Rewrite", "/api/kv/get", "kv-get", true},
		{"RewriteWithSlash", "/api/kv/get/", "kv-get", true},
		{"Splat", "/api/kv/get/a%2Fb/c", "kv-get", true},
		{"LongerNameIsAnother", "/api/kv/getter", "", false},
		{"CaseMatters", "/API/kv/get", "", false},
		{"NoFunction", "/.netlify/functions/", "", false},
		{"Elsewhere", "/", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			name, ok := config.route(tt.path)
			require.Equal(t, tt.ok, ok)
			require.Equal(t, tt.function, name)
		})
	}
}

func TestSplat(t *testing.T) {
	t.Parallel()
	r := Redirect{From: "/api/*", To: "/.netlify/functions/f/:splat", Status: 200}
	for path, want := range map[string]string{
		"/api/a%2Fb/c": "/.netlify/functions/f/a%2Fb/c",
		"/api/":        "/.netlify/functions/f/",
		"/api":         "/.netlify/functions/f/",
	} {
		to, ok := r.match(path)
		require.True(t, ok, path)
		require.Equal(t, want, to)
	}
}

func TestPlaceholder(t *testing.T) {
	t.Parallel()
	r := Redirect{From: "/:region/api/*", To: "/.netlify/functions/f/:splat?in=:region", Status: 200}
	require.NoError(t, r.check())
	to, ok := r.match("/region:us-east-2/api/a%2Fb/c")
	require.True(t, ok)
	require.Equal(t, "/.netlify/functions/f/a%2Fb/c?in=region:us-east-2", to)
	for _, path := range []string{"/api/a", "//api/a", "/x/y/api/a", "/x/apis/a", "/x", ""} {
		_, ok := r.match(path)
		require.False(t, ok, path)
	}
}

// A redirect that the host would treat differently from Netlify is refused.
func TestConfigRefusesUnsupportedRedirects(t *testing.T) {
	t.Parallel()
	for name, redirect := range map[string]string{
		"StatusOtherThan200": `from = "/a"` + "\n" + `to = "/b"` + "\n" + `status = 301`,
		"StarInTheMiddle":    `from = "/a/*/b"` + "\n" + `to = "/b"` + "\n" + `status = 200`,
		"PartOfASegment":     `from = "/a/b:id"` + "\n" + `to = "/b"` + "\n" + `status = 200`,
		"OtherSite":          `from = "/a"` + "\n" + `to = "https://example.com"` + "\n" + `status = 200`,
		"NotTOML":            `from = `,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parseConfig([]byte("[[redirects]]\n" + redirect))
			require.ErrorContains(t, err, "netlify.toml")
		})
	}
}

func TestTheSitesOwnConfigIsSupported(t *testing.T) {
	t.Parallel()
	config, err := ReadConfig(filepath.Join("..", "..", "..", "..", "netlify.toml"))
	require.NoError(t, err)
	for _, name := range []string{"upsert", "list", "get", "query", "delete"} {
		got, ok := config.route("/api/kv/" + name)
		require.True(t, ok, name)
		require.Equal(t, "kv-"+name, got)
	}
	for path, want := range map[string]string{
		"/api/kv/blobs/site:s/k":                  "kv-blobs-api",
		"/region:us-east-2/api/kv/blobs/site:s/k": "kv-blobs-api",
		"/api/kv/storage/s/k":                     "kv-storage-api",
	} {
		got, ok := config.route(path)
		require.True(t, ok, path)
		require.Equal(t, want, got, path)
	}
}

func TestStatic(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "public", "sub"), 0o755))
	for _, name := range []string{"secret", "public/index.html", "public/a.txt"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	}
	public := filepath.Join(dir, "public")
	for path, want := range map[string]string{"/": "index.html", "/a.txt": "a.txt", "/../secret": "", "/sub": "", "/none": ""} {
		file, ok := static(public, path)
		require.Equal(t, want != "", ok, path)
		if ok {
			require.Equal(t, filepath.Join(public, want), file)
		}
	}
}
