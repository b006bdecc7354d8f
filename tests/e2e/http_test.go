package e2e

import (
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// endpoints are the functions, each with the methods that it takes.
var endpoints = []struct {
	name, path, methods string
	reads               bool
}{
	{"Upsert", upsertPath, "POST, OPTIONS", false},
	{"List", listPath, "GET, OPTIONS", true},
	{"Get", getPath, "GET, OPTIONS", true},
	{"Delete", deletePath, "DELETE, POST, OPTIONS", false},
	{"Query", queryPath, "GET, POST, OPTIONS", true},
	{"RewrittenUpsert", "/api/kv/upsert", "POST, OPTIONS", false},
	{"RewrittenList", "/api/kv/list", "GET, OPTIONS", true},
	{"RewrittenGet", "/api/kv/get", "GET, OPTIONS", true},
	{"RewrittenGetByPath", "/api/kv/get/some/key", "GET, OPTIONS", true},
	{"RewrittenQuery", "/api/kv/query", "GET, POST, OPTIONS", true},
	{"RewrittenDelete", "/api/kv/delete", "DELETE, POST, OPTIONS", false},
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
			require.Contains(t, allowed, "authorization", "the function understands a bearer token")
			if e.reads {
				require.Contains(t, allowed, "x-kv-after", "reads understand X-KV-After")
				require.Contains(t, allowed, "cache-control", "reads understand Cache-Control: no-cache")
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

// TestHeaders looks at the headers of answers that went well; call checks those which every answer must have.
func TestHeaders(t *testing.T) {
	t.Parallel()
	key := newPrefix(t) + "k"

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

// TestReadYourWrites: a reader that sends back what an upsert answered sees that write, whichever instance it meets.
func TestReadYourWrites(t *testing.T) {
	t.Parallel()
	key := newPrefix(t) + "k"
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
	requests := map[string]func(testing.TB, ...option) *answer{
		"Upsert": func(t testing.TB, o ...option) *answer {
			return call(t, http.MethodPost, upsertPath, append(o, body(`{}`))...)
		},
		"List": func(t testing.TB, o ...option) *answer {
			return call(t, http.MethodGet, listPath+params("prefix", "e2e/none/", "limit", "1"), o...)
		},
		"Get": func(t testing.TB, o ...option) *answer { return call(t, http.MethodGet, getPath, o...) },
		"Delete": func(t testing.TB, o ...option) *answer {
			return call(t, http.MethodPost, deletePath, append(o, body(`{}`))...)
		},
		"Query": func(t testing.TB, o ...option) *answer {
			return call(t, http.MethodPost, queryPath, append(o, body(`{"prefix":"e2e/none/"}`))...)
		},
	}
	for name, request := range requests {
		t.Run(name, func(t *testing.T) {
			unknown, none := request(t, header("Authorization", "Bearer not-"+site.apiToken)), request(t, noToken)
			if site.apiToken == "" {
				require.NotEqual(t, http.StatusUnauthorized, unknown.status, "no token is configured, so any will do: %v", unknown)
				require.NotEqual(t, http.StatusUnauthorized, none.status, "no token is configured, so none is needed: %v", none)
				return
			}
			unknown.isError(t, http.StatusUnauthorized)
			none.isError(t, http.StatusUnauthorized)
			for _, almost := range []string{site.apiToken, "Basic " + site.apiToken, "Bearer", "Bearer ", "Bearer " + site.apiToken + "x"} {
				request(t, header("Authorization", almost)).isError(t, http.StatusUnauthorized)
			}
			require.NotEqual(t, http.StatusUnauthorized, request(t).status, "the token of KV_API_TOKEN must be let in")
		})
	}
}

// TestReadToken: KV_READ_TOKEN is good for the reads alone.
func TestReadToken(t *testing.T) {
	t.Parallel()
	token := firstOf(os.Getenv("KV_READ_TOKEN"))
	if token == "" {
		t.Skip("KV_READ_TOKEN is not set: make test runs this on a platform that has one")
	}
	reader := header("Authorization", "Bearer "+token)
	require.Equal(t, http.StatusOK, call(t, http.MethodGet, listPath+params("prefix", "e2e/none/", "limit", "1"), reader).status)
	require.Equal(t, http.StatusNotFound, call(t, http.MethodGet, getPath+params("key", "e2e/none/"), reader).status)
	require.Equal(t, http.StatusOK, call(t, http.MethodPost, queryPath, body(`{"prefix":"e2e/none/"}`), reader).status, "a POST that reads")
	call(t, http.MethodPost, upsertPath, body(`{"key":"e2e/none/","value":{}}`), reader).isExactError(t, http.StatusUnauthorized, "wrong token")
	call(t, http.MethodPost, deletePath, body(`{"key":"e2e/none/"}`), reader).isExactError(t, http.StatusUnauthorized, "wrong token")
}
