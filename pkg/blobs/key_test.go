package blobs

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs/blobstest"
)

// oddKeys are valid keys.
var oddKeys = []string{
	"a", "a/b", "a/", "a//b", " a b ", "a+b", "100%", "a%zz", "a%2", "a%", `"quoted"`, "it's", "<&>", "*", "new\nline\ttab\r", "\x01\x7f",
	"emoji 😀/é/e\u0301", "\ufeffbom", "CON", ".hidden", "...", "a/...", "..a/b..", "[x]{y}|^`~", "!$&'()*+,;=:@-._~", "A", "site:x",
	"region:y/z", "api/v1/blobs", strings.Repeat("k", 600), strings.Repeat("é", 300), strings.Repeat("😀", 150),
}

func TestValidateKey(t *testing.T) {
	t.Parallel()
	for _, key := range oddKeys {
		require.NoError(t, ValidateKey(key), "%q", key)
	}
	for key, want := range map[string]string{
		"":                       "the key must not be empty",
		strings.Repeat("k", 601): "the key must be at most 600 bytes of UTF-8, got 601",
		strings.Repeat("é", 301): "the key must be at most 600 bytes of UTF-8, got 602",
		"a\xff":                  "the key must be valid UTF-8",
		"a\xed\xa0\x80":          "the key must be valid UTF-8",
		"/":                      "the key must not start with a slash",
		"/a":                     "the key must not start with a slash",
		"%2Fa":                   "the key must not start with a slash",
		"%2f":                    "the key must not start with a slash",
		"q?x":                    "the key must not contain '?'",
		"h#y":                    "the key must not contain '#'",
		`back\slash`:             `the key must not contain '\\'`,
		"nul\x00":                `the key must not contain '\x00'`,
		"a%2Fb":                  `the key must not contain a % followed by two hexadecimal digits, got "%2F"`,
		"100%aF":                 `the key must not contain a % followed by two hexadecimal digits, got "%aF"`,
		".":                      `the key must not have "." between slashes`,
		"..":                     `the key must not have ".." between slashes`,
		"a/../b":                 `the key must not have ".." between slashes`,
		"a/.":                    `the key must not have "." between slashes`,
	} {
		require.EqualError(t, ValidateKey(key), want, "%q", key)
	}
}

func TestEveryKeyIsAnotherBlob(t *testing.T) {
	t.Parallel()
	eachWay(t, blobstest.Options{PageSize: 10}, func(t *testing.T, _ *standIn, c *Client) {
		for _, key := range oddKeys {
			_, err := c.Set(t.Context(), key, []byte("value of "+key), SetOptions{IfNew: true})
			require.NoError(t, err, "%q", key)
		}
		for _, key := range oddKeys {
			got, err := c.Get(t.Context(), key)
			require.NoError(t, err, "%q", key)
			require.Equal(t, "value of "+key, string(got.Value))
			_, err = c.Head(t.Context(), key)
			require.NoError(t, err, "%q", key)
			require.Contains(t, keys(t, c, key), key)
		}
		require.ElementsMatch(t, oddKeys, keys(t, c, ""))
		for _, key := range oddKeys {
			require.NoError(t, c.Delete(t.Context(), key), "%q", key)
		}
		require.Empty(t, keys(t, c, ""))
	})
}

// FuzzValidKeysRoundTrip writes and reads every valid key on the stand-in, through the edge and the API.
func FuzzValidKeysRoundTrip(f *testing.F) {
	for _, key := range append(oddKeys, "", "/a", "a%2Fb", "q?x", "a/../b", "\xff") {
		f.Add(key)
	}
	s := newStandIn(f, blobstest.Options{})
	edge, api := clientOf(s.edge(f)), clientOf(s.api())
	f.Fuzz(func(t *testing.T, key string) {
		if ValidateKey(key) != nil {
			return
		}
		require.True(t, utf8.ValidString(key) && len(key) <= MaxKeyBytes)
		etag, err := edge.Set(t.Context(), key, []byte(key), SetOptions{})
		require.NoError(t, err)
		got, err := api.Get(t.Context(), key)
		require.NoError(t, err)
		require.Equal(t, key, string(got.Value))
		require.Equal(t, etag, got.ETag)
		require.Contains(t, keys(t, edge, key), key)
		require.NoError(t, api.Delete(t.Context(), key))
		require.NotContains(t, keys(t, api, key), key)
	})
}
