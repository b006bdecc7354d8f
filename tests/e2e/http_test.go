package e2e

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// endpoints are the functions, each with its methods.
var endpoints = []struct {
	name, path, methods string
	reads               bool
}{
	{"Upsert", upsertPath, "POST, OPTIONS", false},
	{"List", listPath, "GET, OPTIONS", true},
	{"Get", getPath, "GET, OPTIONS", true},
	{"Delete", deletePath, "DELETE, POST, OPTIONS", false},
	{"Query", queryPath, "GET, POST, OPTIONS", true},
	{"Entries", entriesPath + "/kv/some/key", "GET, PUT, DELETE, OPTIONS", true},
	{"Batch", batchPath, "POST, OPTIONS", false},
	{"Blobs", blobsPath + "/site:kv/some/key", "GET, PUT, DELETE, OPTIONS", true},
	{"Storage", storagePath + "/kv/some/key", "GET, PUT, DELETE, OPTIONS", true},
	{"RewrittenUpsert", "/api/kv/upsert", "POST, OPTIONS", false},
	{"RewrittenList", "/api/kv/list", "GET, OPTIONS", true},
	{"RewrittenGet", "/api/kv/get", "GET, OPTIONS", true},
	{"RewrittenGetByPath", "/api/kv/get/some/key", "GET, OPTIONS", true},
	{"RewrittenQuery", "/api/kv/query", "GET, POST, OPTIONS", true},
	{"RewrittenDelete", "/api/kv/delete", "DELETE, POST, OPTIONS", false},
	{"RewrittenEntries", "/api/kv/entries", "GET, PUT, DELETE, OPTIONS", true},
	{"RewrittenEntriesOfAStore", "/api/kv/entries/kv", "GET, PUT, DELETE, OPTIONS", true},
	{"RewrittenEntry", "/api/kv/entries/kv/some/key", "GET, PUT, DELETE, OPTIONS", true},
	{"RewrittenBatch", "/api/kv/batch", "POST, OPTIONS", false},
	{"RewrittenBlobs", "/api/kv/blobs", "GET, PUT, DELETE, OPTIONS", true},
	{"RewrittenBlob", "/api/kv/blobs/site:kv/some/key", "GET, PUT, DELETE, OPTIONS", true},
	{"RewrittenBlobInARegion", "/region:us-east-2/api/kv/blobs/site:kv/some/key", "GET, PUT, DELETE, OPTIONS", true},
	{"RewrittenStorage", "/api/kv/storage/kv/some/key", "GET, PUT, DELETE, OPTIONS", true},
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	for _, e := range endpoints {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			// A browser never sends its token with a preflight.
			a := call(t, http.MethodOptions, e.path, noToken,
				header("Origin", "https://app.example.com"), header("Access-Control-Request-Method", "POST"))
			require.Equal(t, http.StatusOK, a.status, "%v", a)
			require.Empty(t, a.body)
			require.Equal(t, e.methods, a.header.Get("Access-Control-Allow-Methods"))
			allowed := regexp.MustCompile(`\s*,\s*`).Split(strings.ToLower(a.header.Get("Access-Control-Allow-Headers")), -1)
			require.Contains(t, allowed, "content-type")
			require.Contains(t, allowed, "authorization", "functions accept a bearer token")
			require.Subset(t, allowed, []string{"traceparent", "tracestate", "baggage", "sentry-trace"}, "tracing libraries add these to requests")
			require.Equal(t, "7200", a.header.Get("Access-Control-Max-Age"), "browsers need not ask before every request")
			if e.reads {
				require.Contains(t, allowed, "x-kv-after", "reads accept X-KV-After")
				require.Contains(t, allowed, "cache-control", "reads accept Cache-Control: no-cache")
			}
		})
	}
}

func TestOtherMethods(t *testing.T) {
	t.Parallel()
	for _, e := range endpoints {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
				if strings.Contains(e.methods, method) {
					continue
				}
				a := call(t, method, e.path+"?key=k", body(`{"key":"k","value":{}}`), header("Content-Type", "application/json"))
				a.isExactError(t, http.StatusMethodNotAllowed, "Method Not Allowed")
			}
		})
	}
}

// TestHEADIsGETWithoutTheBody: monitors use HEAD, and callers that only ask whether an entry exists or has changed.
func TestHEADIsGETWithoutTheBody(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	upsert(t, prefix+"k", `{"text":"é"}`)
	for _, row := range []struct {
		name, path string
		status     int
		supabase   bool
	}{
		{"Get", getPath + params("key", prefix+"k"), http.StatusOK, false},
		{"GetByPath", "/api/kv/get/" + prefix + "k", http.StatusOK, false},
		{"GetNotFound", getPath + params("key", prefix+"none"), http.StatusNotFound, false},
		{"GetWithoutKey", getPath, http.StatusBadRequest, false},
		{"List", listPath + params("prefix", prefix, "includeValues", "true"), http.StatusOK, false},
		{"ListLimit", "/api/kv/list" + params("limit", "ten"), http.StatusBadRequest, false},
		{"Query", queryPath + params("prefix", prefix), http.StatusOK, true},
		{"Export", "/api/kv/query" + params("prefix", prefix, "format", "ndjson"), http.StatusOK, true},
		{"Upsert", upsertPath, http.StatusMethodNotAllowed, false},
		{"Delete", deletePath + params("key", prefix+"k"), http.StatusMethodNotAllowed, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if row.supabase {
				needsSupabase(t)
			}
			get, head := call(t, http.MethodGet, row.path, fresh), call(t, http.MethodHead, row.path, fresh)
			require.Equal(t, row.status, get.status, "%v", get)
			require.Equal(t, row.status, head.status, "%v", head)
			for _, name := range []string{"Content-Type", "ETag", "Cache-Control", "X-KV-Cache", "X-KV-Has-More", "Allow"} {
				require.Equal(t, get.header.Get(name), head.header.Get(name), name)
			}
			if site.hostURL != "" { // a server in between may drop the header
				require.Equal(t, fmt.Sprint(len(get.body)), head.header.Get("Content-Length"))
			}
			if row.status == http.StatusOK {
				unchanged := call(t, http.MethodHead, row.path, fresh, header("If-None-Match", get.header.Get("ETag")))
				require.Equal(t, http.StatusNotModified, unchanged.status, "%v", unchanged)
			}
		})
	}
	holds(t, prefix+"k", `{"text":"é"}`)
}

// TestBrowsersCanReadThePlatformsErrors: a page of another site can also read an error that the platform itself sends.
func TestBrowsersCanReadThePlatformsErrors(t *testing.T) {
	needsHost(t)
	t.Parallel()
	for path, status := range map[string]int{"/.netlify/functions/kv-none": http.StatusNotFound, "/api/kv/none": http.StatusNotFound} {
		a, err := exchange(http.MethodGet, path, header("Origin", "https://app.example.com"))
		require.NoError(t, err)
		require.Equal(t, status, a.status, "%v", a)
		require.Equal(t, []string{"*"}, a.header.Values("Access-Control-Allow-Origin"), "%v", a)
	}
}

// TestHeaders checks the headers of successful responses; call checks those that every response must have.
func TestHeaders(t *testing.T) {
	t.Parallel()
	key := newPrefix() + "k"

	written := upsert(t, key, `{"a":1}`)
	require.NotEmpty(t, written.header.Get("X-KV-Version"), "an upsert answers with the version it wrote")

	for name, path := range map[string]string{
		"Get":         getPath + params("key", key),
		"GetNotFound": getPath + params("key", key+"none"),
		"List":        listPath + params("prefix", key),
		"ListValues":  listPath + params("prefix", key, "includeValues", "true"),
	} {
		t.Run(name, func(t *testing.T) {
			a := call(t, http.MethodGet, path, header("Origin", "https://app.example.com"))
			require.Contains(t, a.header.Get("Cache-Control"), "no-cache", "browsers must ask again every time")
		})
	}
}

// TestReadYourWrites: a read with the version of an upsert sees that write, whichever instance answers.
func TestReadYourWrites(t *testing.T) {
	t.Parallel()
	key := newPrefix() + "k"
	for _, value := range []string{`[1]`, `[2]`, `[3]`, `[4]`, `[5]`, `[6]`, `[7]`, `[8]`} {
		version := upsert(t, key, value).header.Get("X-KV-Version")
		for range 3 {
			call(t, http.MethodGet, getPath+params("key", key), header("X-KV-After", version)).
				is(t, http.StatusOK, `{"key":`+quote(key)+`,"value":`+value+`,"exists":true,"timestamp":"now"}`)
			call(t, http.MethodGet, listPath+params("prefix", key, "includeValues", "true"), header("X-KV-After", version)).
				is(t, http.StatusOK, `{"keys":[`+quote(key)+`],"count":1,"data":{`+quote(key)+`:`+value+`}}`)
		}
	}
	for _, version := range []string{"x", "0", "-1", "9999999999999999999999", "%00", `"`, strings.Repeat("9", 3000)} {
		for _, path := range []string{getPath + params("key", key), listPath + params("prefix", key)} {
			a := call(t, http.MethodGet, path, header("X-KV-After", version))
			require.Contains(t, []int{http.StatusOK, http.StatusBadRequest}, a.status, "an X-KV-After of %q\n%v", version, a)
		}
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	requests := map[string]func(testing.TB, ...option) *response{
		"Upsert": func(t testing.TB, o ...option) *response {
			return call(t, http.MethodPost, upsertPath, append(o, body(`{}`))...)
		},
		"List": func(t testing.TB, o ...option) *response {
			return call(t, http.MethodGet, listPath+params("prefix", "e2e/none/", "limit", "1"), o...)
		},
		"Get": func(t testing.TB, o ...option) *response { return call(t, http.MethodGet, getPath, o...) },
		"Delete": func(t testing.TB, o ...option) *response {
			return call(t, http.MethodPost, deletePath, append(o, body(`{}`))...)
		},
		"Query": func(t testing.TB, o ...option) *response {
			return call(t, http.MethodPost, queryPath, append(o, body(`{"prefix":"e2e/none/"}`))...)
		},
		"Blob": func(t testing.TB, o ...option) *response {
			return call(t, http.MethodGet, blobsPath+"/site:kv/e2e/none", o...)
		},
		"RemovedBlob": func(t testing.TB, o ...option) *response {
			return call(t, http.MethodDelete, blobsPath+"/site:e2e-none/e2e/none", o...)
		},
		"Storage": func(t testing.TB, o ...option) *response {
			return call(t, http.MethodGet, storagePath+"/kv/e2e/none", o...)
		},
		"RemovedFromStorage": func(t testing.TB, o ...option) *response {
			return call(t, http.MethodDelete, storagePath+"/e2e-none/e2e/none", o...)
		},
	}
	reads := map[string]bool{"List": true, "Get": true, "Query": true, "Blob": true, "Storage": true}
	for name, request := range requests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			unknown, none := request(t, header("Authorization", "Bearer not-"+site.apiToken)), request(t, noToken)
			needed := site.writesNeedToken
			if reads[name] {
				needed = site.readsNeedToken
			}
			if !needed {
				require.NotEqual(t, http.StatusUnauthorized, unknown.status, "no token is needed, so any will do: %v", unknown)
				require.NotEqual(t, http.StatusUnauthorized, none.status, "no token is needed: %v", none)
				return
			}
			unknown.isError(t, http.StatusUnauthorized)
			none.isError(t, http.StatusUnauthorized)
			for _, almost := range []string{site.apiToken, "Basic " + site.apiToken, "Bearer", "Bearer ", "Bearer " + site.apiToken + "x"} {
				request(t, header("Authorization", almost)).isError(t, http.StatusUnauthorized)
			}
			require.NotEqual(t, http.StatusUnauthorized, request(t).status, "the token of KV_API_TOKEN must be accepted")
		})
	}
}

// TestReadToken: KV_READ_TOKEN allows only reads.
func TestReadToken(t *testing.T) {
	t.Parallel()
	token := firstOf(os.Getenv("KV_READ_TOKEN"))
	if token == "" || !site.readsNeedToken {
		t.Skip("KV_READ_TOKEN is not set, or the site needs no token: make test runs this on a platform that does")
	}
	reader := header("Authorization", "Bearer "+token)
	require.Equal(t, http.StatusOK, call(t, http.MethodGet, listPath+params("prefix", "e2e/none/", "limit", "1"), reader).status)
	require.Equal(t, http.StatusNotFound, call(t, http.MethodGet, getPath+params("key", "e2e/none/"), reader).status)
	require.Equal(t, http.StatusOK, call(t, http.MethodPost, queryPath, body(`{"prefix":"e2e/none/"}`), reader).status, "a POST that reads")
	require.Equal(t, http.StatusNotFound, call(t, http.MethodGet, blobsPath+"/site:kv/e2e/none", reader).status)
	require.Equal(t, http.StatusNotFound, call(t, http.MethodGet, storagePath+"/kv/e2e/none", reader).status)
	refused := call(t, http.MethodPut, blobsPath+"/site:kv/e2e/none", body("{}"), reader)
	refused.isExactError(t, http.StatusUnauthorized, "wrong token")
	require.Equal(t, "wrong token", refused.header.Get("X-Nf-Error"), "@netlify/blobs throws it")
	call(t, http.MethodDelete, storagePath+"/kv/e2e/", reader).isExactError(t, http.StatusUnauthorized, "wrong token")
	call(t, http.MethodPost, upsertPath, body(`{"key":"e2e/none/","value":{}}`), reader).isExactError(t, http.StatusUnauthorized, "wrong token")
	call(t, http.MethodPost, deletePath, body(`{"key":"e2e/none/"}`), reader).isExactError(t, http.StatusUnauthorized, "wrong token")
}
