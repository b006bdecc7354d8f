package netlify

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

// benchEvent returns a request from Netlify, with the headers that a browser and the platform add, each of them twice.
func benchEvent(b *testing.B, method string, params map[string]string, body string) []byte {
	b.Helper()
	header := map[string]string{
		"host": "site.netlify.app", "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
		"accept": "application/json, text/plain, */*", "accept-language": "en-US,en;q=0.5", "accept-encoding": "gzip, br",
		"content-type": "application/json", "origin": "https://site.netlify.app", "referer": "https://site.netlify.app/app",
		"x-forwarded-for": "203.0.113.7, 198.51.100.1", "x-forwarded-proto": "https", "x-language": "en", "x-country": "DE",
		"x-nf-client-connection-ip": "203.0.113.7", "x-nf-request-id": "01JD000000000000000000000A", "x-nf-deploy-id": "0",
		"x-nf-deploy-context": "production", "x-nf-account-id": "0", "x-nf-account-tier": "account_type_pro", "x-nf-site-id": "0", "via": "https/2 Netlify",
	}
	twice := func(single map[string]string) map[string][]string {
		lists := map[string][]string{}
		for name, value := range single {
			lists[name] = []string{value}
		}
		return lists
	}
	e := map[string]any{
		"httpMethod": method, "path": "/.netlify/functions/kv", "rawUrl": "https://site.netlify.app/.netlify/functions/kv?a=b", "rawQuery": "a=b",
		"headers": header, "multiValueHeaders": twice(header), "queryStringParameters": params, "multiValueQueryStringParameters": twice(params),
		"body": nil, "isBase64Encoded": true, "requestContext": map[string]any{},
	}
	if body != "" {
		e["body"], e["isBase64Encoded"] = body, false
	}
	raw, err := json.Marshal(e)
	require.NoError(b, err)
	return raw
}

// answering is a reader and a store with one result.
type answering string

func (a answering) answer() (kv.ReadResult, error) {
	return kv.ReadResult{Body: string(a), Tag: "tag", Source: kv.SourceHit, Age: 100 * time.Millisecond}, nil
}
func (a answering) Get(context.Context, string, kv.Freshness) (kv.ReadResult, error) {
	return a.answer()
}
func (a answering) List(context.Context, kv.ListQuery, kv.Freshness) (kv.ReadResult, error) {
	return a.answer()
}
func (a answering) Query(context.Context, kv.Query, kv.Freshness) (kv.ReadResult, error) {
	return a.answer()
}
func (a answering) Stats() kv.CacheStats { return kv.CacheStats{Hits: 1} }
func (a answering) Upsert(context.Context, kv.Entry) (kv.Written, error) {
	return kv.Written{Version: "01234567.12345"}, nil
}

const benchValue = `{"user":"user-0000123","score":123,"active":true,"title":"What a session of an app keeps","tags":["draft","mobile","beta"],` +
	`"body":"Some sentences of text, as people write them into a form, and a few more words to make up for a size that is usual."}`

// BenchmarkInvoke measures a function without its store: decoding the event, checking the request, writing the
// response.
func BenchmarkInvoke(b *testing.B) {
	var entries []string
	for i := range 100 {
		entries = append(entries, fmt.Sprintf(`"docs/%07d":%s`, i, benchValue))
	}
	list := `{"keys":[],"count":100,"data":{` + strings.Join(entries, ",") + `}}`
	results := `{"results":[{"key":"a","value":` + benchValue + `}],"count":1,"pagination":{"limit":100,"offset":0,"hasMore":false,"nextCursor":null}}`
	large := `{"key":"docs/1","value":{"text":"` + strings.Repeat("a line of a document; ", 46_000) + `"}}`
	for _, c := range []struct {
		name     string
		endpoint Endpoint
		method   string
		params   map[string]string
		body     string
	}{
		{"Get", Get(answering(benchValue)), http.MethodGet, map[string]string{"key": "docs/0000001"}, ""},
		{"ListOf100", List(answering(list)), http.MethodGet, map[string]string{"prefix": "docs/", "includeValues": "true", "limit": "100"}, ""},
		{"QueryByIndex", Query(answering(results), time.Second), http.MethodGet, map[string]string{"index": "type:document"}, ""},
		{"Upsert", Upsert(answering("")), http.MethodPost, nil,
			`{"key":"docs/0000001","value":` + benchValue + `,"indexes":[{"key":"type","member":"document"},{"key":"status","member":"draft"}]}`},
		{"UpsertOf1MB", Upsert(answering("")), http.MethodPost, nil, large},
	} {
		b.Run(c.name, func(b *testing.B) {
			event, h := benchEvent(b, c.method, c.params, c.body), HandleWithLog(c.endpoint, slog.New(slog.DiscardHandler))
			raw, err := h.Invoke(b.Context(), event)
			require.NoError(b, err)
			require.Contains(b, string(raw[:40]), `"statusCode":200`)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = h.Invoke(b.Context(), event)
			}
		})
	}
}

// BenchmarkParse measures decoding events and queries.
func BenchmarkParse(b *testing.B) {
	b.Run("Event", func(b *testing.B) {
		event := benchEvent(b, http.MethodGet, map[string]string{"key": "docs/0000001"}, "")
		b.ReportAllocs()
		for b.Loop() {
			var r Request
			if err := decodeEvent(event, &r); err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, r := range map[string]*Request{
		"QueryOfParams": request(b, benchEvent(b, http.MethodGet, map[string]string{"index": "type:document", "range": "score:10..20", "q": "some words", "sort": "score:desc"}, "")),
		"QueryOfBody": request(b, benchEvent(b, http.MethodPost, nil, `{"prefix":"docs/","indexes":{"all":["type:document"],"any":["status:active","status:draft"]},`+
			`"where":[{"path":"score","op":"gte","value":10},{"path":"stops.0.title","op":"eq","value":"tea"}],"search":"\"a phrase\" or -not","sort":[{"path":"score","order":"desc"}]}`)),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				document, err := queryDocument(r)
				if err != nil {
					b.Fatal(err)
				}
				if _, _, err := parseQuery(document); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func request(b *testing.B, event []byte) *Request {
	b.Helper()
	r := &Request{now: time.Now}
	require.NoError(b, decodeEvent(event, r))
	return r
}
