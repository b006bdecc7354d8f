package host

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEvent(t *testing.T) {
	t.Parallel()
	text := func(s string) *string { return &s }
	tests := []struct {
		name    string
		method  string
		target  string
		headers [][2]string
		body    string

		path     string
		rawURL   string
		rawQuery string
		query    map[string]string
		queries  map[string][]string
		wantBody *string
		base64   bool
	}{
		{name: "GetHasNoBodyAndSaysBase64", method: "GET", target: "/api/kv/get?key=a",
			path: "/api/kv/get", rawURL: "http://example.com/api/kv/get?key=a", rawQuery: "key=a",
			query: map[string]string{"key": "a"}, queries: map[string][]string{"key": {"a"}}, base64: true},
		{name: "PathStaysEncoded", method: "GET", target: "/api/kv/get/a%2Fb%20c/d",
			path: "/api/kv/get/a%2Fb%20c/d", rawURL: "http://example.com/api/kv/get/a%2Fb%20c/d",
			query: map[string]string{}, queries: map[string][]string{}, base64: true},
		{name: "RepeatsAreKeptAndJoined", method: "GET", target: "/x?index=a:1&index=b:2&q=",
			path: "/x", rawURL: "http://example.com/x?index=a:1&index=b:2&q=", rawQuery: "index=a:1&index=b:2&q=",
			query: map[string]string{"index": "a:1, b:2", "q": ""}, queries: map[string][]string{"index": {"a:1", "b:2"}, "q": {""}}, base64: true},
		{name: "QueryIsDecodedLikeABrowserDoes", method: "GET", target: "/x?a+b=c%2Bd+e&bad=%zz%41&%ff=1&semi=a;b",
			path: "/x", rawURL: "http://example.com/x?a+b=c%2Bd+e&bad=%zz%41&%ff=1&semi=a;b", rawQuery: "a+b=c%2Bd+e&bad=%zz%41&%ff=1&semi=a;b",
			query:   map[string]string{"a b": "c+d e", "bad": "%zzA", "\ufffd": "1", "semi": "a;b"},
			queries: map[string][]string{"a b": {"c+d e"}, "bad": {"%zzA"}, "\ufffd": {"1"}, "semi": {"a;b"}}, base64: true},
		{name: "JSONIsText", method: "POST", target: "/x", headers: [][2]string{{"Content-Type", "Application/JSON; charset=utf-8"}}, body: `{"a":"<&>"}`,
			path: "/x", rawURL: "http://example.com/x", query: map[string]string{}, queries: map[string][]string{}, wantBody: text(`{"a":"<&>"}`)},
		{name: "BrokenTextIsRepaired", method: "POST", target: "/x", headers: [][2]string{{"Content-Type", "text/plain"}}, body: "\xef\xbb\xbfa\xffb",
			path: "/x", rawURL: "http://example.com/x", query: map[string]string{}, queries: map[string][]string{}, wantBody: text("a\ufffdb")},
		{name: "BinaryIsBase64", method: "POST", target: "/x", headers: [][2]string{{"Content-Type", "application/octet-stream"}}, body: "\x00\x01\xff",
			path: "/x", rawURL: "http://example.com/x", query: map[string]string{}, queries: map[string][]string{}, wantBody: text("AAH/"), base64: true},
		{name: "WithoutATypeIsBase64", method: "POST", target: "/x", body: "{}",
			path: "/x", rawURL: "http://example.com/x", query: map[string]string{}, queries: map[string][]string{}, wantBody: text("e30="), base64: true},
		{name: "VendorJSONIsText", method: "POST", target: "/x", headers: [][2]string{{"Content-Type", "application/vnd.kv+json"}}, body: "{}",
			path: "/x", rawURL: "http://example.com/x", query: map[string]string{}, queries: map[string][]string{}, wantBody: text("{}")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(tt.method, tt.target, strings.NewReader(tt.body))
			for _, h := range tt.headers {
				r.Header.Add(h[0], h[1])
			}
			e := newEvent(r, []byte(tt.body), Site{ID: "site", Context: "dev", Blobs: "e30="}, "request")
			require.Equal(t, tt.method, e.HTTPMethod)
			require.Equal(t, tt.path, e.Path)
			require.Equal(t, tt.rawURL, e.RawURL)
			require.Equal(t, tt.rawQuery, e.RawQuery)
			require.Equal(t, tt.query, e.QueryStringParameters)
			require.Equal(t, tt.queries, e.MultiValueQueryStringParameters)
			require.Equal(t, tt.wantBody, e.Body)
			require.Equal(t, tt.base64, e.IsBase64Encoded)
			require.Equal(t, "e30=", e.Blobs)
		})
	}
}

func TestEventHeaders(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("GET", "/x", nil)
	r.RemoteAddr = "192.0.2.7:1234"
	r.Header.Add("X-Foo", "a")
	r.Header.Add("X-Foo", "b")
	r.Header.Set("X-Nf-Site-Id", "forged")
	r.Header.Set("X-Forwarded-For", "203.0.113.9")
	e := newEvent(r, nil, Site{ID: "site", Context: "dev"}, "request")
	require.Equal(t, map[string][]string{
		"x-foo": {"a", "b"}, "host": {"example.com"}, "client-ip": {"192.0.2.7"}, "x-nf-client-connection-ip": {"192.0.2.7"},
		"x-forwarded-for": {"203.0.113.9, 192.0.2.7"}, "x-forwarded-proto": {"http"}, "x-nf-request-id": {"request"}, "x-nf-site-id": {"site"},
		"x-nf-deploy-context": {"dev"}, "x-nf-account-id": {""},
	}, e.MultiValueHeaders)
	require.Equal(t, "a, b", e.Headers["x-foo"])
}

// The size of a value counts against the limit as on Netlify.
func TestEventIsWrittenWithoutNeedlessEscapes(t *testing.T) {
	t.Parallel()
	body := `<>&`
	e := event{Body: &body}
	payload, err := e.marshal()
	require.NoError(t, err)
	require.Contains(t, string(payload), `"body":"<>&"`)
	require.True(t, json.Valid(payload))
	require.Contains(t, string(payload), `"requestContext":{}`)
}
