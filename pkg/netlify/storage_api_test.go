package netlify

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

func TestStorageAddress(t *testing.T) {
	t.Parallel()
	const short, own = "/api/kv/storage/s", "/.netlify/functions/kv-storage-api/s"
	for path, want := range map[string]storageAddress{
		short + "/":               {"s", "", true},
		short + "/:":              {"s", "", true},
		own + "//:":               {"s", "", true},
		short + "/a":              {"s", "a", false},
		own + "/a/b":              {"s", "a:b", false},
		short + "/a/b/:":          {"s", "a:b:", true},
		short + "/a/b:":           {"s", "a:b:", true},
		short + "/a/":             {"s", "a:", true},
		short + "/a%2F":           {"s", "a:", true},
		short + "/a%3Ab%5Cc":      {"s", "a:b:c", false},
		short + "//a//b":          {"s", "a:b", false},
		short + "/:a::b":          {"s", "a:b", false},
		short + "/%3F%23%25%20":   {"s", "?#% ", false},
		short + "/a$":             {"s", "a$", false},
		short + "/...":            {"s", "...", false},
		"/api/kv/storage/a%20b/k": {"a b", "k", false},
	} {
		got, err := parseStorageAddress(path)
		require.NoError(t, err, path)
		require.Equal(t, want, got, path)
	}
	for path, says := range map[string]string{
		"":                                      "end in /",
		short:                                   "end in /",
		"/api/kv/storages/s/k":                  "end in /",
		"/api/kv/storage//k":                    "the store must have a name",
		short + "/..":                           "must not have .",
		short + "/a/./b":                        "must not have .",
		short + "/a%3A..%3A":                    "must not have .",
		short + "/%00":                          "U+0000",
		short + "/%ff/":                         "UTF-8",
		short + "/" + strings.Repeat("k", 1025): "1024 bytes",
	} {
		_, err := parseStorageAddress(path)
		require.ErrorContains(t, err, says, path)
		require.Equal(t, kv.CodeInvalidInput, kv.CodeOf(err), path)
	}
}

// FuzzStorageAddresses checks that every key is in the one form that getKeys lists and clear removes.
func FuzzStorageAddresses(f *testing.F) {
	for _, seed := range []string{"/api/kv/storage/s/a/b", "/api/kv/storage/s/a:", "/api/kv/storage/s/", "/api/kv/storage/%2F/x", "/api/kv/storage/s/%3A..%2f%", "/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		to, err := parseStorageAddress(path)
		if err != nil {
			require.Equal(t, kv.CodeInvalidInput, kv.CodeOf(err))
			return
		}
		require.NoError(t, kv.ValidateStore(to.store))
		if to.isBase {
			require.True(t, to.key == "" || strings.HasSuffix(to.key, ":"))
			require.True(t, isStorageKey(to.key+"k"), to.key)
			return
		}
		require.NoError(t, kv.ValidateKey(to.key))
		require.True(t, isStorageKey(to.key), to.key)
	})
}

// storageEvent returns the event of a request of the driver, whose path is below the store s.
func storageEvent(method, path string, headers map[string]string, body string) string {
	return strings.ReplaceAll(blobsEvent(method, "/S/"+path, headers, []byte(body)), "/api/kv/blobs/S/", "/api/kv/storage/s/")
}

func TestStorageAPI(t *testing.T) {
	t.Parallel()
	now := time.Date(2027, 1, 2, 3, 4, 5, 678e6, time.UTC)
	entries := newPagedEntries()
	entries.clock = func() time.Time { return now }
	entries.now = now
	h := HandleWithLog(StorageAPI(entries), slog.New(slog.DiscardHandler))
	h.now = entries.clock
	call := func(method, path string, headers map[string]string, body string) response {
		t.Helper()
		return invokeHandler(t, h, storageEvent(method, path, headers, body))
	}
	raw := map[string]string{"accept": kv.ContentTypeBytes}
	put := call("PUT", "a/b", map[string]string{"content-type": "application/json", "x-ttl": "10"}, `{"n":1.0}`)
	require.Equal(t, http.StatusOK, put.StatusCode, put.Body)
	require.Equal(t, "OK", put.Body)
	require.NotEmpty(t, put.Headers["ETag"])

	got := call("GET", "a/b", nil, "")
	require.Equal(t, `{"n":1.0}`, got.Body)
	require.Equal(t, plainText, got.Headers["Content-Type"], "unstorage parses it, and the driver must not before")
	require.Equal(t, "10", got.Headers["X-TTL"])
	require.Equal(t, "Sat, 02 Jan 2027 03:04:05 GMT", got.Headers["Last-Modified"])
	require.Equal(t, "no-cache, no-transform", got.Headers["Cache-Control"])
	require.Equal(t, "application/json", call("GET", "a/b", raw, "").Headers["Content-Type"])
	head := call("HEAD", "a/b", nil, "")
	require.Equal(t, []string{"9", "10", ""}, []string{head.Headers["Content-Length"], head.Headers["X-TTL"], head.Body})
	now = now.Add(9999 * time.Millisecond)
	require.Equal(t, "1", call("GET", "a/b", nil, "").Headers["X-TTL"])
	now = now.Add(time.Millisecond)
	require.Equal(t, http.StatusNotFound, call("HEAD", "a/b", nil, "").StatusCode)

	require.Equal(t, 200, call("PUT", "bytes", map[string]string{"content-type": kv.ContentTypeBytes}, "\xff\x00").StatusCode)
	bytes := call("GET", "bytes", nil, "")
	require.True(t, bytes.IsBase64Encoded)
	require.Equal(t, kv.ContentTypeBytes, bytes.Headers["Content-Type"])
	require.Empty(t, bytes.Headers["X-TTL"])

	for _, key := range []string{"a/b", "a/c", "a/c$", "ab", "A"} {
		require.Equal(t, 200, call("PUT", key, nil, "x").StatusCode)
	}
	for _, key := range []string{"a:/x", "a::x", "a:..:x"} {
		entries.put("s", key)
	}
	require.JSONEq(t, `["A","a/b","a/c","ab","bytes"]`, call("GET", ":", nil, "").Body)
	require.JSONEq(t, `["a/b","a/c"]`, call("GET", "a/:", nil, "").Body)
	require.JSONEq(t, `[]`, call("GET", "none/:", nil, "").Body)
	require.Equal(t, "OK", call("DELETE", "a/:", nil, "").Body)
	require.JSONEq(t, `["A","ab","bytes"]`, call("GET", ":", nil, "").Body)
	_, err := entries.GetEntry(t.Context(), "s", "a:c$", kv.Freshness{})
	require.Equal(t, kv.CodeNotFound, kv.CodeOf(err), "what setMeta wrote goes with its key")
	for _, key := range []string{"a:/x", "a::x", "a:..:x"} {
		_, err := entries.GetEntry(t.Context(), "s", key, kv.Freshness{})
		require.NoError(t, err, "%s is not the driver's", key)
	}
	require.Equal(t, "OK", call("DELETE", "none", nil, "").Body)

	for name, c := range map[string]struct {
		method, path string
		headers      map[string]string
		status       int
		says         string
	}{
		"SetOfABase":     {"PUT", "a/", nil, 400, "needs a key"},
		"Query":          {"GET", "a?b", nil, 400, "query"},
		"BadTTL":         {"PUT", "a", map[string]string{"x-ttl": "soon"}, 400, "x-ttl"},
		"ConditionFails": {"PUT", "ab", map[string]string{"if-none-match": "*"}, 412, "condition"},
		"RemoveFails":    {"DELETE", "ab", map[string]string{"if-match": `"x"`}, 412, "condition"},
		"Missing":        {"GET", "none", nil, 404, "Key not found"},
		"AnotherMethod":  {"POST", "a", nil, 405, "Method Not Allowed"},
	} {
		r := call(c.method, c.path, c.headers, "x")
		require.Equal(t, c.status, r.StatusCode, "%s: %s", name, r.Body)
		require.Contains(t, r.Body, c.says, name)
	}
	require.Equal(t, 400, call("HEAD", "a:", nil, "").StatusCode)
}

func TestStorageAPIPagesThroughAStore(t *testing.T) {
	t.Parallel()
	entries := newPagedEntries()
	endpoint := StorageAPI(entries)
	for i := range 2500 {
		entries.put("s", fmt.Sprintf("base:%04d", i))
	}
	require.Equal(t, 2500, strings.Count(invoke(t, endpoint, storageEvent("GET", ":", nil, "")).Body, `"base/`))
	require.Equal(t, "OK", invoke(t, endpoint, storageEvent("DELETE", "base/:", nil, "")).Body)
	require.Empty(t, entries.entries)
}

func TestStorageAPIRefusesMoreKeysThanFit(t *testing.T) {
	t.Parallel()
	entries := newPagedEntries()
	for i := range 7000 {
		entries.put("s", strings.Repeat("k", 1000)+fmt.Sprint(i))
	}
	r := invoke(t, StorageAPI(entries), storageEvent("GET", ":", nil, ""))
	require.Equal(t, http.StatusRequestEntityTooLarge, r.StatusCode)
	require.Contains(t, r.Body, "longer base")
}
