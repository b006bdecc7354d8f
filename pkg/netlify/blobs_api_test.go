package netlify

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
)

func TestBlobAddress(t *testing.T) {
	t.Parallel()
	const short, own = "/api/kv/blobs", "/.netlify/functions/kv-blobs-api"
	for path, want := range map[string]blobAddress{
		short:                                  {},
		short + "/":                            {},
		own:                                    {},
		"/region:us-east-2" + short:            {},
		short + "/site:s":                      {of: storeLevel, store: "s"},
		short + "/site:kv":                     {of: storeLevel, store: "kv"},
		short + "/site%3As":                    {of: storeLevel, store: "s"},
		short + "/site:a%20b%C3%BC":            {of: storeLevel, store: "a bü"},
		short + "/site:site:s":                 {of: storeLevel, store: "site:s"},
		short + "/deploy:1a":                   {of: storeLevel, store: "deploy:1a"},
		short + "/deploy:1a:s/k":               {of: keyLevel, store: "deploy:1a:s", key: "k"},
		short + "/site:s/k":                    {of: keyLevel, store: "s", key: "k"},
		own + "/site:s/k":                      {of: keyLevel, store: "s", key: "k"},
		"/region:auto" + short + "/site:s/k":   {of: keyLevel, store: "s", key: "k"},
		short + "/site:s/a/b//c/":              {of: keyLevel, store: "s", key: "a/b//c/"},
		short + "/site:s/a%2Fb%3F%23%25":       {of: keyLevel, store: "s", key: "a/b?#%"},
		short + "/site:s/100%":                 {of: keyLevel, store: "s", key: "100%"},
		short + "/site:s/50%x%41%4":            {of: keyLevel, store: "s", key: "50%xA%4"},
		short + "/site:s/region:us-east-1/%2e": {of: keyLevel, store: "s", key: "region:us-east-1/."},
	} {
		got, err := parseBlobAddress(path)
		require.NoError(t, err, path)
		require.Equal(t, want, got, path)
	}
	for path, says := range map[string]string{
		"":                          "siteID",
		"/api/kv/blobsy/site:s/k":   "siteID",
		"/region:us-east-2":         "siteID",
		short + "/s/k":              "site:<name>",
		short + "/site:/k":          "the store must have a name",
		short + "/site:deploy:1a/k": "stores of deploys",
		short + "/site:a%2Fb/k":     "must not contain slashes",
		short + "/site:s/":          "key must not be empty",
		short + "/site:s/%00":       "U+0000",
		short + "/site:s/%ff":       "UTF-8",
		short + "/site:s/%f%ff":     "UTF-8",
		short + "/site:" + strings.Repeat("s", 65): "64 bytes",
	} {
		_, err := parseBlobAddress(path)
		require.ErrorContains(t, err, says, path)
		require.Equal(t, kv.CodeInvalidInput, kv.CodeOf(err), path)
	}
}

// FuzzBlobAddresses checks that an address and its store's name survive a round trip, and that only a path without a
// slash after the store stands for the whole store.
func FuzzBlobAddresses(f *testing.F) {
	for _, seed := range []string{"/api/kv/blobs/site:s/k", "/region:auto/api/kv/blobs/deploy:1:x/a%2Fb", "/api/kv/blobs/site:s/", "/api/kv/blobs/site:%2F", "/api/kv/blobs/site:s/%f%41%", "//", "/region:"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		to, err := parseBlobAddress(path)
		if err != nil {
			require.Equal(t, kv.CodeInvalidInput, kv.CodeOf(err))
			return
		}
		switch to.of {
		case siteLevel:
			require.Empty(t, to.store+to.key)
		case storeLevel:
			require.NoError(t, kv.ValidateStore(to.store))
			require.Empty(t, to.key)
			require.False(t, strings.HasSuffix(path, "/"))
		case keyLevel:
			require.NoError(t, kv.ValidateStore(to.store))
			require.NoError(t, kv.ValidateKey(to.key))
		}
		if to.of == siteLevel {
			return
		}
		store, err := storeOfBlobs(blobStoreName(to.store))
		require.NoError(t, err)
		require.Equal(t, to.store, store)
		again := "/api/kv/blobs/" + url.PathEscape(blobStoreName(to.store))
		if to.of == keyLevel {
			again += "/" + url.PathEscape(to.key)
		}
		second, err := parseBlobAddress(again)
		require.NoError(t, err)
		require.Equal(t, to, second)
	})
}

// FuzzPercentDecode compares with the strict decoder, and checks that the rest of a text stays as it is.
func FuzzPercentDecode(f *testing.F) {
	for _, seed := range []string{"", "%", "%4", "%41", "%4%41%", "a%2fb%zz%C3%BC", "%%41"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := percentDecode(text)
		if strict, err := url.PathUnescape(text); err == nil {
			require.Equal(t, strict, got)
		}
		require.Equal(t, text, percentDecode(url.PathEscape(text)))
		require.Equal(t, got+"%", percentDecode(text+"%"), "a % at the end is itself")
	})
}

// blobsEvent returns the event of a request of the client, whose path is below a store s.
func blobsEvent(method, path string, headers map[string]string, body []byte) string {
	fields := map[string]any{"httpMethod": method, "path": "/api/kv/blobs" + path, "headers": headers, "body": base64.StdEncoding.EncodeToString(body), "isBase64Encoded": true}
	before, query, found := strings.Cut(path, "?")
	if found {
		values, _ := url.ParseQuery(query)
		fields["path"], fields["multiValueQueryStringParameters"] = "/api/kv/blobs"+before, values
	}
	fields["rawUrl"] = "https://site.example/api/kv/blobs" + path
	event, err := json.Marshal(fields)
	if err != nil {
		panic(err) // strings always encode
	}
	return string(event)
}

func TestBlobsAPI(t *testing.T) {
	t.Parallel()
	endpoint := BlobsAPI(newPagedEntries())
	call := func(method, path string, headers map[string]string, body string) response {
		t.Helper()
		return invoke(t, endpoint, blobsEvent(method, path, headers, []byte(body)))
	}
	metadata := map[string]string{blobs.MetadataHeader: blobs.EncodeMetadata(`{"a":"ü"}`), "cache-control": "max-age=0, stale-while-revalidate=60"}
	put := call("PUT", "/site:s/k", metadata, "\x00\xff")
	require.Equal(t, http.StatusOK, put.StatusCode, "the client takes 201 for a failure")
	require.NotEmpty(t, put.Headers["ETag"])
	require.NotEmpty(t, put.Headers["X-KV-Version"])

	for _, method := range []string{"GET", "HEAD"} {
		got := call(method, "/site:s/k", nil, "")
		require.Equal(t, http.StatusOK, got.StatusCode)
		require.Equal(t, put.Headers["ETag"], got.Headers["ETag"])
		require.Equal(t, metadata[blobs.MetadataHeader], got.Headers[blobs.MetadataHeader])
		require.Equal(t, kv.ContentTypeBytes, got.Headers["Content-Type"])
		require.Equal(t, method == "GET", got.Body != "")
	}
	same := call("GET", "/site:s/k", map[string]string{"If-None-Match": put.Headers["ETag"]}, "")
	require.Equal(t, http.StatusNotModified, same.StatusCode)
	require.Equal(t, metadata[blobs.MetadataHeader], same.Headers[blobs.MetadataHeader], "the client reads metadata of a 304")

	for _, odd := range []string{"csv", "text/plain; a=1; a=2", "text/" + strings.Repeat("x", kv.MaxContentTypeBytes)} {
		put := call("PUT", "/site:s/odd", map[string]string{"If-None-Match": `"x"`, "Content-Type": odd}, "x")
		require.Equal(t, http.StatusOK, put.StatusCode, "a Blob may have any type, and the client takes a refused condition for a success: %s", put.Body)
		require.Equal(t, kv.ContentTypeBytes, call("GET", "/site:s/odd", nil, "").Headers["Content-Type"])
	}

	for name, c := range map[string]struct {
		method, path string
		headers      map[string]string
		status       int
		says         string
	}{
		"Missing":             {"GET", "/site:s/none", nil, 404, "Key not found"},
		"KeyWithAQuery":       {"PUT", "/site:s/q?x", nil, 400, "encodeURIComponent"},
		"RemovedWithAQuery":   {"DELETE", "/site:s?x", nil, 400, "nothing was removed"},
		"EmptyKey":            {"DELETE", "/site:s/", nil, 400, "key must not be empty"},
		"SetOfAStore":         {"PUT", "/site:s", nil, 400, "needs one"},
		"RemovedSite":         {"DELETE", "", nil, 400, "needs one"},
		"OtherMetadata":       {"PUT", "/site:s/k", map[string]string{blobs.MetadataHeader: `{"a":1}`}, 400, "b64;"},
		"MetadataNotJSON":     {"PUT", "/site:s/k", map[string]string{blobs.MetadataHeader: "b64;eA=="}, 400, "b64;"},
		"MetadataOfAnother":   {"PUT", "/site:s/k", map[string]string{blobs.MetadataHeader: blobs.EncodeMetadata("[1]")}, 400, "object"},
		"TagThatIsNone":       {"PUT", "/site:s/k", map[string]string{"If-Match": `"a" "b"`}, 400, "If-Match"},
		"ConditionFails":      {"PUT", "/site:s/k", map[string]string{"If-None-Match": "*"}, 412, "condition"},
		"UnknownParameter":    {"GET", "/site:s?limit=1", nil, 400, "limit"},
		"CursorOfAnotherKind": {"GET", "/site:s?cursor=x", nil, 400, "cursor"},
		"AnotherMethod":       {"POST", "/site:s/k", nil, 405, "Method Not Allowed"},
		"NotJSONInKV":         {"PUT", "/site:kv/k", nil, 415, "JSON"},
	} {
		r := call(c.method, c.path, c.headers, "x")
		require.Equal(t, c.status, r.StatusCode, "%s: %s", name, r.Body)
		require.Contains(t, r.Body, c.says, name)
		require.Contains(t, r.Headers["X-Nf-Error"], c.says, "%s: the text of the error that the client throws", name)
		require.Empty(t, r.Headers["ETag"], "%s: a conditional set that failed can be told by it", name)
	}
	require.Equal(t, http.StatusOK, call("DELETE", "/site:s/none", nil, "").StatusCode)
}

func TestBlobsAPILists(t *testing.T) {
	t.Parallel()
	entries := newPagedEntries()
	endpoint := BlobsAPI(entries)
	set := func(path string) {
		t.Helper()
		require.Equal(t, 200, invoke(t, endpoint, blobsEvent("PUT", path, nil, []byte("xy"))).StatusCode)
	}
	for i := range 2100 {
		set(fmt.Sprintf("/site:many/%04d/k", i))
	}
	set("/deploy:1a/k")
	set("/site:s/ü")

	require.JSONEq(t, `{"stores":["deploy:1a","site:many","site:s"]}`, invoke(t, endpoint, blobsEvent("GET", "", nil, nil)).Body)
	require.JSONEq(t, `{"stores":["site:many","site:s"]}`, invoke(t, endpoint, blobsEvent("GET", "?prefix=site:", nil, nil)).Body)
	require.JSONEq(t, `{"blobs":[],"directories":[]}`, invoke(t, endpoint, blobsEvent("GET", "/site:none", nil, nil)).Body)

	for _, directories := range []bool{false, true} {
		seen, pages, cursor := []string{}, 0, ""
		for {
			r := invoke(t, endpoint, blobsEvent("GET", fmt.Sprintf("/site:many?directories=%v&cursor=%s", directories, cursor), nil, nil))
			var page struct {
				Blobs       []struct{ Key, ETag, Last_modified string }
				Directories []string
				Next_cursor string
			}
			require.NoError(t, json.Unmarshal([]byte(r.Body), &page), r.Body)
			require.LessOrEqual(t, len(page.Blobs)+len(page.Directories), 1000)
			for _, blob := range page.Blobs {
				require.Regexp(t, `^"[^"]+"$`, blob.ETag, "as in the header, since the client hands it on")
				seen = append(seen, strings.TrimSuffix(blob.Key, "/k"))
			}
			seen = append(seen, page.Directories...)
			pages++
			if cursor = page.Next_cursor; cursor == "" {
				break
			}
		}
		require.Equal(t, 3, pages)
		require.Len(t, seen, 2100)
		require.IsIncreasing(t, seen)
	}
}

func TestBlobsAPIRemovesAStoreInSteps(t *testing.T) {
	t.Parallel()
	entries := newPagedEntries()
	h := HandleWithLog(BlobsAPI(entries), slog.New(slog.DiscardHandler))
	clock := time.Now()
	h.now = func() time.Time { clock = clock.Add(time.Second); return clock } // a page takes a second
	for i := range 8*kv.DefaultEntryLimit + 1 {
		entries.put("s", fmt.Sprintf("%05d", i))
	}
	entries.put("other", "k")
	remove := func() string { t.Helper(); return invokeHandler(t, h, blobsEvent("DELETE", "/site:s", nil, nil)).Body }
	require.JSONEq(t, `{"blobs_deleted":5000,"has_more":true}`, remove())
	require.JSONEq(t, `{"blobs_deleted":3001,"has_more":false}`, remove())
	require.JSONEq(t, `{"blobs_deleted":0,"has_more":false}`, remove())
	require.Len(t, entries.entries, 1)
}

// The client repeats what failed with a 5xx, when the header says so.
func TestBlobsAPISaysWhenToTryAgain(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_800_000_000_500)
	for _, c := range []struct {
		err  error
		want string
	}{
		{&kv.Error{Code: kv.CodeRateLimited, Message: "wait", RetryAfter: 7 * time.Second}, "1800000008"},
		{&kv.Error{Code: kv.CodeDatabaseUnreachable, Message: "ü\n\"a\""}, "1800000001"},
		{&kv.Error{Code: kv.CodeInvalidInput, Message: "bad"}, ""},
		{fmt.Errorf("secret"), "1800000001"},
	} {
		entries := newPagedEntries()
		entries.err = c.err
		h := HandleWithLog(BlobsAPI(entries), slog.New(slog.DiscardHandler))
		h.now = func() time.Time { return now }
		r := invokeHandler(t, h, blobsEvent("GET", "/site:s/k", nil, nil))
		require.Equal(t, c.want, r.Headers["X-RateLimit-Reset"])
		require.NotContains(t, r.Headers["X-Nf-Error"], "secret")
	}
	require.Equal(t, `\u00fc\n"a"`, asciiText("ü\n\"a\""))
}

func TestKeptType(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ sent, data, want string }{
		{"", `{"a":1}`, ""},
		{kv.ContentTypeBytes, `{"a":1}`, kv.ContentTypeBytes},
		{"text/plain;charset=UTF-8", `{"a":1}`, "application/json"},
		{"text/plain", "plain", plainText},
		{"text/plain", "", plainText},
		{"text/plain", "\uFEFF{}", plainText},
		{"text/plain", "\xff", kv.ContentTypeBytes},
		{"application/json", "12", "application/json"},
		{"application/json", "not JSON", plainText},
		{"Application/JSON; charset=utf-8", "\xff", kv.ContentTypeBytes},
		{"text/html", "{}", "text/html"},
		{"image/svg+xml", "<svg/>", "image/svg+xml"},
	} {
		require.Equal(t, c.want, keptType(c.sent, []byte(c.data)), "%s %q", c.sent, c.data)
	}
}
