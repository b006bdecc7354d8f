package netlify

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/config"
	"netlify-supabase-kv/pkg/kv"
)

// FuzzRequests puts random parts into well-formed events.
func FuzzRequests(f *testing.F) {
	seedRequests(f)
	f.Fuzz(func(t *testing.T, method, path, query, headers string, body []byte, encoded bool) {
		store := memory{value: `{}`}
		reader := kv.Uncached(store)
		event := eventOf(t, method, path, query, headers, body, encoded)
		for _, endpoint := range []Endpoint{Upsert(store), List(reader), Get(reader), Delete(store), Query(kv.Uncached(&asked{answer: noResults}), time.Second)} {
			r := invoke(t, endpoint, event)
			requirePromises(t, method, r)
			require.NotContains(t, []int{500, 502, 503, 504}, r.StatusCode, r.Body)
		}
	})
}

// FuzzRequestsOnSupabase is [FuzzRequests] with the real database: no request makes it fail, and values round-trip.
func FuzzRequestsOnSupabase(f *testing.F) {
	if os.Getenv("SUPABASE_URL") == "" {
		f.Skip("SUPABASE_URL is not set: this asks a database: run `make test`, or `make up` and `set -a; . .local/env`")
	}
	database, err := kv.NewSupabase(os.Getenv("SUPABASE_URL"), os.Getenv("SUPABASE_SERVICE_ROLE_KEY"))
	require.NoError(f, err)
	if flag.Lookup("test.fuzzworker").Value.String() != "true" {
		f.Cleanup(func() { empty(f, database, "fuzz/") })
	}
	store := apart{database, fmt.Sprintf("fuzz/%d/", os.Getpid())}
	reader := kv.Uncached(store)
	seedRequests(f)
	f.Fuzz(func(t *testing.T, method, path, query, headers string, body []byte, encoded bool) {
		event := eventOf(t, method, path, query, headers, body, encoded)
		for _, endpoint := range []Endpoint{Upsert(store), List(reader), Get(reader), Delete(store), Query(reader, 5*time.Second)} {
			r := invoke(t, endpoint, event)
			requirePromises(t, method, r)
			require.NotContains(t, []int{500, 502, 503, 504}, r.StatusCode, r.Body)
			if endpoint.Name == "kv-upsert" && method == http.MethodPost && r.StatusCode == http.StatusOK {
				entry, err := upsertEntry(requestOf(t, event))
				require.NoError(t, err)
				value, err := store.Get(t.Context(), entry.Key)
				require.NoError(t, err)
				require.Equal(t, entry.Value, value)
			}
		}
	})
}

// apart is the part of a store under a prefix, so that random deletes hit no other entries.
type apart struct {
	kv.Store
	prefix string
}

func (a apart) Upsert(ctx context.Context, e kv.Entry) (kv.Written, error) {
	e.Key, e.Indexes = a.prefix+e.Key, slices.Clone(e.Indexes)
	for i := range e.Indexes {
		e.Indexes[i].Key = a.prefix + e.Indexes[i].Key
	}
	return a.Store.Upsert(ctx, e)
}

func (a apart) Get(ctx context.Context, key string) (string, error) {
	return a.Store.Get(ctx, a.prefix+key)
}

func (a apart) Delete(ctx context.Context, key string) (kv.Written, error) {
	return a.Store.Delete(ctx, a.prefix+key)
}

func (a apart) List(ctx context.Context, q kv.ListQuery) (string, error) {
	q.Prefix = a.prefix + q.Prefix
	return a.Store.List(ctx, q)
}

func (a apart) Query(ctx context.Context, q kv.Query) (string, error) {
	q.Prefix = a.prefix + q.Prefix
	return a.Store.Query(ctx, q)
}

// empty deletes the entries under a prefix.
func empty(f *testing.F, store kv.Store, prefix string) {
	limit, ctx := 1000, context.WithoutCancel(f.Context())
	for {
		text, err := store.List(ctx, kv.ListQuery{Prefix: prefix, Limit: &limit})
		require.NoError(f, err)
		var page struct{ Keys []string }
		require.NoError(f, json.Unmarshal([]byte(text), &page))
		if len(page.Keys) == 0 {
			return
		}
		for _, key := range page.Keys {
			_, err := store.Delete(ctx, key)
			require.NoError(f, err)
		}
	}
}

func seedRequests(f *testing.F) {
	for _, seed := range []struct{ method, path, query, headers, body string }{
		{"POST", "/api/kv/upsert", "", "", `{"key":"k","value":{"a":1},"indexes":[{"key":"i","member":"m"}]}`},
		{"POST", "/api/kv/upsert", "", "", `{"key":"k","value":[5,"5"],"indexes":[{"key":"i","member":5.0},{"key":7,"member":"\u00015"},{"key":"i","member":-0},{"key":"i","member":1e400},{"key":"i","member":[]}]}`},
		{"POST", "/api/kv/upsert", "", "", `{"key":"\ud83d\ude00","value":["\ud800","\u0000",1e400,-0,{"a":1,"a":2}]}`},
		{"POST", "/api/kv/upsert", "", "", `{"key":"k'; drop table kv_store; --","value":null,"indexes":[]}`},
		{"GET", "/api/kv/get/a%2Fb%25", "", "If-None-Match: *\nX-KV-After: 1.2", ""},
		{"GET", "/.netlify/functions/kv-get/%ff", "key=k", "Cache-Control: no-cache", ""},
		{"GET", "/api/kv/list", "prefix=%25_&includeValues=true&limit=1&index=a:b&indexKey=c&sortBy=created&sortOrder=desc", "", ""},
		{"GET", "/api/kv/list", "cursor=WyJrZXkuYXNjIixudWxsLCJrIl0", "", ""},
		{"GET", "/api/kv/query", "q=a+or+%22b+c%22+-d*&range=s:1..2&index=a:b&match=any&select=key,value.a&sort=a:desc&format=csv", "", ""},
		{"GET", "/api/kv/query", "aggregate=count&aggregate=sum:a&groupBy=index:i&format=ndjson", "", ""},
		{"POST", "/api/kv/query", "", "", `{"where":[{"path":"/a~1b","op":"in","value":[1,"x",null,{}]},{"path":"a.0","op":"contains","value":{"b":[]}}],"limit":5}`},
		{"POST", "/api/kv/query", "", "", `{"indexes":{"any":["a:b",{"key":"c","member":"d"},{"key":"i","member":5}],"none":["e:f"]},"search":"x","sort":[{"path":"relevance"}]}`},
		{"POST", "/api/kv/query", "", "", `{"cursor":"WyIvYS5hc2MiLFswLDEuNV0sImsiXQ","sort":["/a"]}`},
		{"POST", "/api/kv/delete", "", "", `{"key":"k"}`}, {"DELETE", "/api/kv/delete", "key=i", "Authorization: Bearer x", ""},
		{"OPTIONS", "/", "", "Origin: https://app.example", ""}, {"HEAD", "/api/kv/get/k", "", "x-nf-request-id: \u2028", ""}, {"PATCH", "", "", "", "\xff"},
	} {
		f.Add(seed.method, seed.path, seed.query, seed.headers, []byte(seed.body), false)
		f.Add(seed.method, seed.path, seed.query, seed.headers, []byte(seed.body), true)
	}
}

// eventOf returns Netlify's event for a request. Except in base64 bodies, invalid UTF-8 is replaced.
func eventOf(t *testing.T, method, path, query, headers string, body []byte, encoded bool) string {
	params, _ := url.ParseQuery(query)
	header := map[string]string{}
	for line := range strings.Lines(headers) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), ":"); found {
			header[name] = strings.TrimSpace(value)
		}
	}
	text := string(body)
	if encoded {
		text = base64.StdEncoding.EncodeToString(body)
	}
	event, err := json.Marshal(map[string]any{
		"httpMethod": method, "path": path, "rawUrl": "https://site.example" + path, "headers": header,
		"multiValueQueryStringParameters": params, "body": text, "isBase64Encoded": encoded,
	})
	require.NoError(t, err)
	return string(event)
}

func requestOf(t testing.TB, event string) *Request {
	var r Request
	require.NoError(t, decodeEvent([]byte(event), &r))
	return &r
}

// requirePromises checks what holds for every response; invoke has checked the headers.
func requirePromises(t *testing.T, method string, r response) {
	t.Helper()
	body := r.Body
	if r.IsBase64Encoded {
		decoded, err := base64.StdEncoding.DecodeString(body)
		require.NoError(t, err)
		body = string(decoded)
	}
	require.True(t, utf8.ValidString(body))
	switch {
	case method == http.MethodOptions || method == http.MethodHead || r.StatusCode == http.StatusNotModified:
		require.Empty(t, body)
		return
	}
	if r.Headers["Content-Disposition"] != "" { // an export
		require.Equal(t, http.StatusOK, r.StatusCode)
		return
	}
	require.Equal(t, "application/json", r.Headers["Content-Type"])
	require.True(t, json.Valid([]byte(body)), "the body must be JSON: %s", body)
	if r.StatusCode >= 400 {
		var e struct{ Error, Code, Timestamp string }
		require.NoError(t, json.Unmarshal([]byte(body), &e))
		require.Equal(t, statusOf[kv.Code(e.Code)], r.StatusCode, body)
		require.NotEmpty(t, e.Error)
		require.NotEmpty(t, e.Timestamp)
	}
}

// FuzzTokens checks that exactly the valid tokens grant access.
func FuzzTokens(f *testing.F) {
	for _, seed := range [][3]string{{"a,b", "r", "Bearer a"}, {"", "r", "bearer  r"}, {",", "", "Bearer ,"}, {"a", "", "Bearer a,"}, {"é", " ", "Bearer\té"}, {"", "", ""}} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, all, reads, authorization string) {
		var variables config.Access
		require.NoError(t, config.Read(&variables, func(name string) string { return map[string]string{"KV_API_TOKEN": all, "KV_READ_TOKEN": reads}[name] }))
		a := accessFrom(variables)
		scheme, given, _ := strings.Cut(authorization, " ")
		has := func(tokens string) bool {
			return slices.ContainsFunc(strings.Split(config.Clean(tokens), ","), func(token string) bool {
				token = config.Clean(token)
				return token != "" && strings.EqualFold(scheme, "bearer") && token == strings.TrimSpace(given)
			})
		}
		open := all == "" && reads == ""
		require.Equal(t, open || has(all), a.check(authorization, false) == nil, "a write")
		require.Equal(t, open || has(all) || has(reads), a.check(authorization, true) == nil, "a read")
	})
}

// FuzzEventsBlobs checks that any blobs field in an event leaves requests to other stores alone.
func FuzzEventsBlobs(f *testing.F) {
	f.Add("", "site")
	f.Add(base64.StdEncoding.EncodeToString([]byte(`{"url_uncached":"https://edge.example","token":"t"}`)), "site")
	f.Add("e30=", "")
	f.Fuzz(func(t *testing.T, field, site string) {
		event, err := json.Marshal(map[string]any{"httpMethod": "GET", "path": "/api/kv/get/k", "blobs": field, "headers": map[string]string{"x-nf-site-id": site}})
		require.NoError(t, err)
		r := invoke(t, Get(kv.Uncached(memory{value: `{}`})), string(event))
		require.Equal(t, http.StatusOK, r.StatusCode, r.Body)
	})
}
