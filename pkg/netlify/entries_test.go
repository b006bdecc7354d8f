package netlify

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

// entryEvent is a request to kv-entries. Headers stand in pairs.
func entryEvent(t testing.TB, method, url string, body []byte, headers ...string) string {
	t.Helper()
	given := map[string]string{}
	for i := 0; i < len(headers); i += 2 {
		given[headers[i]] = headers[i+1]
	}
	path, query, _ := strings.Cut(url, "?")
	params := map[string][]string{}
	for pair := range strings.SplitSeq(query, "&") {
		if name, value, found := strings.Cut(pair, "="); found {
			params[name] = append(params[name], value)
		}
	}
	event, err := json.Marshal(map[string]any{
		"httpMethod": method, "path": path, "rawUrl": "https://site.example" + url, "headers": given, "multiValueQueryStringParameters": params,
		"body": base64.StdEncoding.EncodeToString(body), "isBase64Encoded": true,
	})
	require.NoError(t, err)
	return string(event)
}

func TestAnEntryComesBackAsItWasWritten(t *testing.T) {
	t.Parallel()
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for name, body := range map[string][]byte{
		"Empty": {}, "EveryByte": every, "NotUTF8": []byte("a\xffb"), "Text": []byte("häß \"\\\u2028\x00\n"), "BOM": []byte("\ufeff{}"),
		"JSON": []byte("{ \"b\":1.0, \"b\":\"\\u0000\" }\n"), "Surrogate": []byte("\xed\xa0\x80"), "Large": slices.Repeat([]byte("\"\x00"), 2_200_000),
	} {
		t.Run(name, func(t *testing.T) {
			endpoint := Entries(newMemoryEntries())
			put := invoke(t, endpoint, entryEvent(t, "PUT", "/api/kv/entries/files/a%2Fb/c", body,
				"content-type", "text/x-test; charset=utf-8", "x-kv-metadata", `{ "by": "Jörg 😀`+"\u007f"+`" }`, "x-kv-ttl", "1.5"))
			require.Equal(t, http.StatusCreated, put.StatusCode, put.Body)
			require.Regexp(t, `^\{"ok":true,"store":"files","key":"a/b/c","timestamp":"[^"]*"\}$`, put.Body)
			require.Equal(t, []string{`"e1"`, "v1", "2027-01-02T03:04:07.178Z"}, []string{put.Headers["ETag"], put.Headers["X-KV-Version"], put.Headers["X-KV-Expires"]})

			get := invoke(t, endpoint, entryEvent(t, "GET", "/.netlify/functions/kv-entries/files/a/b%2Fc", nil))
			require.Equal(t, http.StatusOK, get.StatusCode, get.Body)
			require.True(t, slices.Equal(body, get.bytes(t)), "the bytes must be those that were written")
			for header, want := range map[string]string{
				"Content-Type": "text/x-test; charset=utf-8", "ETag": `"e1"`, "Last-Modified": "Sat, 02 Jan 2027 03:04:05 GMT",
				"X-KV-Metadata": `{"by":"J\u00f6rg \ud83d\ude00\u007f"}`, "X-KV-Expires": "2027-01-02T03:04:07.178Z",
				"Cache-Control": "no-cache, no-transform", "X-KV-Cache": "miss", "Age": "0", "Content-Security-Policy": "default-src 'none'; sandbox",
			} {
				require.Equal(t, want, get.Headers[header], header)
				if header != "Cache-Control" && header != "Content-Security-Policy" {
					require.Contains(t, strings.Split(get.Headers["Access-Control-Expose-Headers"], ", "), header)
				}
			}

			head := invoke(t, endpoint, entryEvent(t, "HEAD", "/api/kv/entries/files/a/b/c", nil))
			require.Empty(t, head.Body)
			for _, changing := range []string{"Server-Timing", "Content-Length"} {
				delete(head.Headers, changing)
				delete(get.Headers, changing)
			}
			require.Equal(t, get.Headers, head.Headers)

			again := invoke(t, endpoint, entryEvent(t, "PUT", "/api/kv/entries/files/a/b/c", body))
			require.Equal(t, http.StatusOK, again.StatusCode, "replaced")
			require.NotContains(t, again.Headers, "X-KV-Expires", "what is absent is then absent")
			get = invoke(t, endpoint, entryEvent(t, "GET", "/api/kv/entries/files/a/b/c", nil))
			require.Equal(t, "application/octet-stream", get.Headers["Content-Type"])
			require.NotContains(t, get.Headers, "X-KV-Metadata")
		})
	}
}

func TestConditionsOfEntries(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method, header, value string
		absent                bool
		status                int
	}{
		"CreateOnly":           {"PUT", "if-none-match", `*`, true, 201},
		"CreateOnlyThere":      {"PUT", "if-none-match", `*`, false, 412},
		"Match":                {"PUT", "if-match", `"e1"`, false, 200},
		"MatchWeak":            {"PUT", "if-match", `W/"e1"`, false, 200},
		"MatchBare":            {"PUT", "if-match", `e1`, false, 200},
		"MatchList":            {"PUT", "if-match", `"x", ,"e1"`, false, 200},
		"MatchAny":             {"PUT", "if-match", `*`, false, 200},
		"MatchAnyAbsent":       {"PUT", "if-match", `*`, true, 412},
		"MatchOther":           {"PUT", "if-match", `"e2"`, false, 412},
		"MatchAbsent":          {"PUT", "if-match", `"e1"`, true, 412},
		"NoneMatchOther":       {"PUT", "if-none-match", `"e2"`, false, 200},
		"NotATag":              {"PUT", "if-match", `"a b"`, false, 400},
		"QuotedStar":           {"PUT", "if-match", `"*"`, false, 400},
		"OpenQuote":            {"PUT", "if-none-match", `"e1`, false, 400},
		"OnlyCommas":           {"PUT", "if-match", ` , `, false, 400},
		"DeleteMatch":          {"DELETE", "if-match", `"e1"`, false, 200},
		"DeleteOther":          {"DELETE", "if-match", `"e2"`, false, 412},
		"DeleteAbsent":         {"DELETE", "if-match", `"e1"`, true, 412},
		"DeleteAny":            {"DELETE", "x-none", ``, true, 200},
		"GetNotModified":       {"GET", "if-none-match", `W/"e1"`, false, 304},
		"GetAnyNotModified":    {"GET", "if-none-match", `*`, false, 304},
		"GetModified":          {"GET", "if-none-match", `"e0"`, false, 200},
		"GetAbsentNotModified": {"GET", "if-none-match", `*`, true, 404},
		"GetMatch":             {"GET", "if-match", `"e1"`, false, 200},
		"GetOther":             {"GET", "if-match", `"e0"`, false, 412},
	} {
		t.Run(name, func(t *testing.T) {
			endpoint := Entries(newMemoryEntries())
			if !c.absent {
				require.Equal(t, 201, invoke(t, endpoint, entryEvent(t, "PUT", "/api/kv/entries/s/k", []byte("1"))).StatusCode)
			}
			r := invoke(t, endpoint, entryEvent(t, c.method, "/api/kv/entries/s/k", nil, c.header, c.value))
			require.Equal(t, c.status, r.StatusCode, r.Body)
			switch {
			case c.status == 412 && c.absent:
				require.NotContains(t, r.Headers, "ETag")
				require.Contains(t, r.Body, `"code":"condition_failed"`)
			case c.status == 412, c.status == 304:
				require.Equal(t, `"e1"`, r.Headers["ETag"], "the present one")
			case c.status == 400:
				require.Contains(t, strings.ToLower(r.Body), c.header)
			}
			if c.status == 304 {
				require.Empty(t, r.Body)
				require.Equal(t, "no-cache, no-transform", r.Headers["Cache-Control"])
			}
		})
	}
}

func TestAddressesOfEntries(t *testing.T) {
	t.Parallel()
	for path, want := range map[string][2]string{
		"/api/kv/entries/s/k":                        {"s", "k"},
		"/.netlify/functions/kv-entries/s/k":         {"s", "k"},
		"/api/kv/entries/s/a/b%2fc":                  {"s", "a/b/c"},
		"/api/kv/entries/s//":                        {"s", "/"},
		"/api/kv/entries/s//a//b/":                   {"s", "/a//b/"},
		"/api/kv/entries/s/a/../b/./%2E%2E":          {"s", "a/../b/./.."},
		"/api/kv/entries/s/100%2525+%20":             {"s", "100%25+ "},
		"/api/kv/entries/%E2%82%AC%20x/%F0%9F%98%80": {"€ x", "😀"},
		"/api/kv/entries/s/api/kv/entries/t/k":       {"s", "api/kv/entries/t/k"},
		"/api/kv/entries/s/k%3Fa%23b":                {"s", "k?a#b"},
		"/api/kv/entries/kv/%0A":                     {"kv", "\n"},
		"/api/kv/entries/" + strings.Repeat("s", 64) + "/" + strings.Repeat("k", 1024): {strings.Repeat("s", 64), strings.Repeat("k", 1024)},
	} {
		m := newMemoryEntries()
		r := invoke(t, Entries(m), entryEvent(t, "PUT", path, []byte("1")))
		require.Equal(t, http.StatusCreated, r.StatusCode, "%s: %s", path, r.Body)
		require.Equal(t, [][2]string{want}, slices.Collect(maps.Keys(m.entries)), path)
	}
	for path, says := range map[string]string{
		"/api/kv/entries":                                   "needs a store and a key",
		"/api/kv/entries/":                                  "the store must have a name",
		"/api/kv/entries//k":                                "the store must have a name",
		"/api/kv/entries/s":                                 "needs a store and a key",
		"/api/kv/entries/s/":                                "key must not be empty",
		"/api/kv/entriesx/s/k":                              "the address must be",
		"/elsewhere/s/k":                                    "the address must be",
		"/api/kv/entries/s/%zz":                             "the key in the address must be URL-encoded",
		"/api/kv/entries/s/a%2":                             "the key in the address must be URL-encoded",
		"/api/kv/entries/%/k":                               "the store in the address must be URL-encoded",
		"/api/kv/entries/s/%00":                             "U+0000",
		"/api/kv/entries/s/%ff":                             "valid UTF-8",
		"/api/kv/entries/%ff/k":                             "valid UTF-8",
		"/api/kv/entries/a%2Fb/k":                           "slashes",
		"/api/kv/entries/a%0Ab/k":                           "control characters",
		"/api/kv/entries/a%C2%85/k":                         "control characters",
		"/api/kv/entries/" + strings.Repeat("s", 65) + "/k": "at most 64 bytes",
		"/api/kv/entries/s/" + strings.Repeat("k", 1025):    "at most 1024 bytes",
		"/api/kv/entries/s/k?ttl=5":                         `\"ttl\" is given as a parameter: headers describe an entry`,
	} {
		m := newMemoryEntries()
		r := invoke(t, Entries(m), entryEvent(t, "PUT", path, []byte("1")))
		require.Equal(t, http.StatusBadRequest, r.StatusCode, "%s: %s", path, r.Body)
		require.Contains(t, r.Body, says, path)
		require.Empty(t, m.entries, path)
	}
}

func TestHeadersOfAPut(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		headers []string
		want    kv.Operation
		says    string // of a 400
	}{
		"None":              {nil, kv.Operation{}, ""},
		"TTL":               {[]string{"x-kv-ttl", " 1.25 "}, kv.Operation{TTL: 1250 * time.Millisecond}, ""},
		"TTLExponent":       {[]string{"x-kv-ttl", "3e2"}, kv.Operation{TTL: 5 * time.Minute}, ""},
		"TTLMost":           {[]string{"x-kv-ttl", "315360000"}, kv.Operation{TTL: kv.MaxTTL}, ""},
		"TTLTooLarge":       {[]string{"x-kv-ttl", "1e999"}, kv.Operation{TTL: kv.MaxTTL + time.Second}, ""}, // Validate refuses it, and
		"TTLZero":           {[]string{"x-kv-ttl", "0"}, kv.Operation{TTL: -1}, ""},                          // these
		"TTLNegative":       {[]string{"x-kv-ttl", "-5"}, kv.Operation{TTL: -time.Second}, ""},
		"TTLTiny":           {[]string{"x-kv-ttl", "1e-300"}, kv.Operation{TTL: -1}, ""},
		"TTLWord":           {[]string{"x-kv-ttl", "Inf"}, kv.Operation{}, "X-KV-TTL must be a number of seconds"},
		"TTLUnit":           {[]string{"x-kv-ttl", "5s"}, kv.Operation{}, "X-KV-TTL must be a number of seconds"},
		"TTLPlus":           {[]string{"x-kv-ttl", "+5"}, kv.Operation{}, "X-KV-TTL must be a number of seconds"},
		"TTLTwo":            {[]string{"x-kv-ttl", "5, 6"}, kv.Operation{}, "X-KV-TTL must be a number of seconds"},
		"TTLText":           {[]string{"x-kv-ttl", `"5"`}, kv.Operation{}, "X-KV-TTL must be a number of seconds"},
		"Expires":           {[]string{"x-kv-expires", "2027-01-31T12:00:00.5+02:00"}, kv.Operation{Expires: time.Date(2027, 1, 31, 10, 0, 0, 5e8, time.UTC)}, ""},
		"ExpiresDate":       {[]string{"x-kv-expires", "2027-01-31"}, kv.Operation{}, "X-KV-Expires must be a time like"},
		"ExpiresZero":       {[]string{"x-kv-expires", "0001-01-01T00:00:00Z"}, kv.Operation{}, "X-KV-Expires must be a time like"},
		"ExpiresHTTP":       {[]string{"x-kv-expires", "Sat, 02 Jan 2027 03:04:05 GMT"}, kv.Operation{}, "X-KV-Expires must be a time like"},
		"Both":              {[]string{"x-kv-expires", "2027-01-31T12:00:00Z", "x-kv-ttl", "5"}, kv.Operation{}, "both say when"},
		"Metadata":          {[]string{"x-kv-metadata", ` {"a" : [1.0, "\u00e9"] , "a":null} `}, kv.Operation{Metadata: `{"a":[1.0,"\u00e9"],"a":null}`}, ""},
		"MetadataSurrogate": {[]string{"x-kv-metadata", `{"a":"\ud800","b":"\u0000"}`}, kv.Operation{Metadata: `{"a":"\ud800","b":"\u0000"}`}, ""},
		"MetadataArray":     {[]string{"x-kv-metadata", `[1]`}, kv.Operation{}, "X-KV-Metadata must be a JSON object"},
		"MetadataNotJSON":   {[]string{"x-kv-metadata", `{a:1}`}, kv.Operation{}, "X-KV-Metadata must be a JSON object"},
		"MetadataTwo":       {[]string{"x-kv-metadata", `{}, {}`}, kv.Operation{}, "X-KV-Metadata must be a JSON object"},
		"ContentType":       {[]string{"Content-Type", "image/svg+xml; a=b"}, kv.Operation{ContentType: "image/svg+xml; a=b"}, ""},
		"ContentTypeWord":   {[]string{"Content-Type", "text"}, kv.Operation{}, "Content-Type must be a media type"},
		"ContentTypeBreak":  {[]string{"Content-Type", "text/plain;a=\"\r\nX: y\""}, kv.Operation{}, "Content-Type must be a media type"},
		"ContentTypeÄ":      {[]string{"Content-Type", "text/plain; a=\"ä\""}, kv.Operation{}, "Content-Type must be a media type"},
		"IdempotencyKey":    {[]string{"Idempotency-Key", "1"}, kv.Operation{}, "Idempotency-Key must be a UUID"},
		"IdempotencyURN":    {[]string{"Idempotency-Key", "urn:uuid:6f1c1c0e-2b1d-4a53-9d0e-0c6a3b0f7a11"}, kv.Operation{}, "Idempotency-Key must be a UUID"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemoryEntries()
			r := invoke(t, Entries(m), entryEvent(t, "PUT", "/api/kv/entries/s/k", []byte("1"), c.headers...))
			if c.says != "" {
				require.Equal(t, http.StatusBadRequest, r.StatusCode, r.Body)
				require.Contains(t, r.Body, c.says)
				require.Empty(t, m.entries)
				return
			}
			require.Equal(t, http.StatusCreated, r.StatusCode, r.Body)
			c.want.Action, c.want.Store, c.want.Key, c.want.Data = kv.ActionPut, "s", "k", []byte("1")
			require.Equal(t, []kv.Operation{c.want}, m.asked.batch.Operations)
		})
	}
}

func TestDeleteAnEntry(t *testing.T) {
	t.Parallel()
	endpoint := Entries(newMemoryEntries())
	invoke(t, endpoint, entryEvent(t, "PUT", "/api/kv/entries/s/k", nil))
	for _, deleted := range []string{"true", "false"} {
		r := invoke(t, endpoint, entryEvent(t, "DELETE", "/api/kv/entries/s/k", nil))
		require.Equal(t, http.StatusOK, r.StatusCode)
		require.Contains(t, r.Body, `{"ok":true,"store":"s","key":"k","deleted":`+deleted+`,"timestamp":"`)
		require.Equal(t, "v1", r.Headers["X-KV-Version"])
	}
	r := invoke(t, endpoint, entryEvent(t, "DELETE", "/api/kv/entries/s/k", []byte(`{"key":"other"}`)))
	require.Equal(t, http.StatusBadRequest, r.StatusCode, "a body is not ignored")
}

func TestListOfAStore(t *testing.T) {
	t.Parallel()
	cursor := kv.Cursor{Question: "q", Key: "k"}
	for url, want := range map[string]kv.EntryQuery{
		"/api/kv/entries/s": {Store: "s"},
		"/api/kv/entries/%C3%A4?prefix=a/&limit=7&delimiter=--&metadata=true": {Store: "ä", Prefix: "a/", Limit: 7, Delimiter: "--", Metadata: true},
		"/api/kv/entries/s?limit=&metadata=false&cursor=" + cursor.String():   {Store: "s", After: &cursor},
	} {
		m := newMemoryEntries()
		r := invoke(t, Entries(m), entryEvent(t, "GET", url, nil, "cache-control", "max-age=3"))
		require.Equal(t, http.StatusOK, r.StatusCode, r.Body)
		require.Equal(t, want.Store, m.asked.query.Store)
		if want.After != nil {
			require.Equal(t, want.After.Key, m.asked.query.After.Key)
			want.After = m.asked.query.After
		}
		require.Equal(t, want, m.asked.query, url)
		require.Equal(t, kv.Freshness{MaxAge: new(3 * time.Second)}, m.asked.freshness)
		require.Equal(t, []string{"no-cache", `W/"tag"`}, []string{r.Headers["Cache-Control"], r.Headers["ETag"]})
	}
	for query, says := range map[string]string{
		"Prefix=a": `\"Prefix\" is not a parameter of a list: did you mean prefix?`, "starts_with=a": "did you mean prefix?", "page=2": "did you mean cursor?",
		"limit=0": "limit", "limit=1001": "limit must be a whole number from 1 to 1000", "metadata=1": "metadata must be one of false, true", "cursor=x": "cursor",
		"prefix=a&prefix=b": "prefix must be given once, got 2", "confirm=1": "did you mean",
	} {
		r := invoke(t, Entries(newMemoryEntries()), entryEvent(t, "GET", "/api/kv/entries/s?"+query, nil))
		require.Equal(t, http.StatusBadRequest, r.StatusCode, query)
		require.Contains(t, r.Body, says, query)
	}
}

func TestClearAStore(t *testing.T) {
	t.Parallel()
	m := newMemoryEntries()
	endpoint := Entries(m)
	for _, key := range []string{"a/1", "a/2", "b"} {
		invoke(t, endpoint, entryEvent(t, "PUT", "/api/kv/entries/s/"+key, nil))
	}
	for query, status := range map[string]int{"": 409, "?prefix=a/": 409, "?prefix=a/&confirm=3": 409, "?confirm=2": 409, "?confirm=-1": 400, "?confirm=all": 400, "?confirms=3": 400} {
		r := invoke(t, endpoint, entryEvent(t, "DELETE", "/api/kv/entries/s"+query, nil))
		require.Equal(t, status, r.StatusCode, query)
		require.Len(t, m.entries, 3, "nothing is deleted: %s", query)
	}
	require.Equal(t, 400, invoke(t, endpoint, entryEvent(t, "DELETE", "/api/kv/entries/s?confirm=3", nil, "If-Match", "*")).StatusCode)
	invoke(t, endpoint, entryEvent(t, "DELETE", "/api/kv/entries/s", nil))
	require.Equal(t, -1, m.asked.confirm, "which never matches")
	r := invoke(t, endpoint, entryEvent(t, "DELETE", "/api/kv/entries/s?prefix=a/&confirm=2", nil))
	require.Equal(t, 200, r.StatusCode, r.Body)
	require.Contains(t, r.Body, `{"ok":true,"store":"s","prefix":"a/","deleted":2,"timestamp":"`)
	require.Equal(t, "v9", r.Headers["X-KV-Version"])
	require.Len(t, m.entries, 1)
	require.Equal(t, 400, invoke(t, endpoint, entryEvent(t, "DELETE", "/api/kv/entries", nil)).StatusCode, "all stores at once")
}

func TestListOfStores(t *testing.T) {
	t.Parallel()
	m := newMemoryEntries()
	require.Regexp(t, `^\{"stores":\[\],"timestamp":"[^"]*"\}$`, invoke(t, Entries(m), entryEvent(t, "GET", "/api/kv/entries", nil)).Body)
	for _, path := range []string{"a%22/1", "b/1", "b/2", "b/3"} {
		invoke(t, Entries(m), entryEvent(t, "PUT", "/api/kv/entries/"+path, nil))
	}
	r := invoke(t, Entries(m), entryEvent(t, "GET", "/.netlify/functions/kv-entries", nil))
	require.Regexp(t, `^\{"stores":\[\{"store":"a\\"","count":1,"more":false\},\{"store":"b","count":3,"more":true\}\],"timestamp":"[^"]*"\}$`, r.Body)
	require.Equal(t, 400, invoke(t, Entries(m), entryEvent(t, "GET", "/api/kv/entries?prefix=a", nil)).StatusCode)
}

// TestReadTokenReadsEntries: whether a request only reads depends on its method.
func TestReadTokenReadsEntries(t *testing.T) {
	t.Setenv("KV_API_TOKEN", "all")
	t.Setenv("KV_READ_TOKEN", "read")
	m := newMemoryEntries()
	for _, path := range []string{"/api/kv/entries", "/api/kv/entries/s", "/api/kv/entries/s/k"} {
		for _, method := range []string{"GET", "HEAD", "PUT", "DELETE"} {
			for token, may := range map[string]bool{"": false, "other": false, "read": method == "GET" || method == "HEAD", "all": true} {
				r := invoke(t, Entries(m), entryEvent(t, method, path, nil, "authorization", "Bearer "+token))
				require.Equal(t, !may, r.StatusCode == http.StatusUnauthorized, "%s %s with %q: %d", method, path, token, r.StatusCode)
			}
		}
	}
	batch := `"headers":{"authorization":"Bearer read"},"body":"{\"operations\":[{\"op\":\"get\",\"key\":\"k\"}]}"`
	require.Equal(t, http.StatusUnauthorized, invoke(t, Batch(m), event("POST", batch)).StatusCode)
}

func TestErrorsOfTheStoreOfEntries(t *testing.T) {
	t.Parallel()
	m := newMemoryEntries()
	m.err = &kv.Error{Code: kv.CodeRateLimited, Message: "m", RetryAfter: time.Second}
	for _, request := range [][2]string{{"GET", "/s/k"}, {"PUT", "/s/k"}, {"DELETE", "/s/k"}, {"GET", "/s"}, {"DELETE", "/s?confirm=0"}, {"GET", ""}} {
		r := invoke(t, Entries(m), entryEvent(t, request[0], "/api/kv/entries"+request[1], nil))
		require.Equal(t, http.StatusServiceUnavailable, r.StatusCode, request)
		require.Equal(t, "1", r.Headers["Retry-After"], request)
	}
}

// TestEntriesNeedSupabase: with Netlify Blobs as the primary store, there are no stores of entries.
func TestEntriesNeedSupabase(t *testing.T) {
	for variable, value := range map[string]string{"USE_SUPABASE_KV": "false", "KV_CACHE": "sometimes"} {
		t.Setenv("USE_SUPABASE_KV", "true")
		t.Setenv("SUPABASE_URL", "https://project.example")
		t.Setenv("SUPABASE_SERVICE_ROLE_KEY", "key")
		t.Setenv("KV_CACHE", "on")
		t.Setenv(variable, value)
		store := EntriesFromEnv()
		for _, request := range [][2]string{{"GET", "/s/k"}, {"PUT", "/s/k"}, {"DELETE", "/s/k"}, {"GET", "/s"}, {"DELETE", "/s?confirm=0"}, {"GET", ""}} {
			r := invoke(t, Entries(store), entryEvent(t, request[0], "/api/kv/entries"+request[1], nil))
			require.Equal(t, http.StatusServiceUnavailable, r.StatusCode, request)
			require.Contains(t, r.Body, `"code":"not_configured"`)
			require.Contains(t, r.Body, variable)
		}
		require.Equal(t, http.StatusServiceUnavailable, invoke(t, Batch(store), post(`{"operations":[{"op":"get","key":"k"}]}`)).StatusCode)
	}
}

// TestIdempotencyKeyOfAPut: the same request has the same digest, and any other has another.
func TestIdempotencyKeyOfAPut(t *testing.T) {
	t.Parallel()
	const key = "6F1C1C0E-2b1d-4a53-9d0e-0c6a3b0f7a11"
	digest := func(method, path, body string, headers ...string) string {
		m := newMemoryEntries()
		invoke(t, Entries(m), entryEvent(t, method, path, []byte(body), append(headers, "Idempotency-Key", key)...))
		require.Equal(t, uuid.MustParse(key), m.asked.batch.Idempotency)
		return m.asked.batch.Digest
	}
	first := digest("PUT", "/api/kv/entries/s/a%2Fb", "1")
	require.Equal(t, first, digest("PUT", "/.netlify/functions/kv-entries/s/a/b", "1"))
	seen := map[string]bool{first: true}
	for _, other := range []string{
		digest("PUT", "/api/kv/entries/s/a", "1"), digest("PUT", "/api/kv/entries/t/a/b", "1"), digest("PUT", "/api/kv/entries/s/a/b", "2"), digest("DELETE", "/api/kv/entries/s/a/b", ""),
		digest("PUT", "/api/kv/entries/s/a/b", "1", "X-KV-TTL", "1"), digest("PUT", "/api/kv/entries/s/a/b", "1", "X-KV-Expires", "2027-01-31T12:00:00Z"),
		digest("PUT", "/api/kv/entries/s/a/b", "1", "X-KV-Metadata", "{}"), digest("PUT", "/api/kv/entries/s/a/b", "1", "Content-Type", "a/b"),
		digest("PUT", "/api/kv/entries/s/a/b", "1", "If-Match", "*"), digest("PUT", "/api/kv/entries/s/a/b", "1", "If-None-Match", "*"),
	} {
		require.False(t, seen[other])
		seen[other] = true
	}
}
