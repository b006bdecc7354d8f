package netlify

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

// TestMain removes the tokens and the access to Blobs of the shell. The tests set their own.
func TestMain(m *testing.M) {
	for _, name := range []string{"KV_API_TOKEN", "KV_READ_TOKEN", "KV_BLOBS_RATE", "NETLIFY_BLOBS_TOKEN", "NETLIFY_BLOBS_API_URL", "NETLIFY_SITE_ID", "SITE_ID"} {
		os.Unsetenv(name)
	}
	os.Exit(m.Run())
}

// memory is a store for tests of what this package adds. It validates its input like every store, and returns what the
// test sets. Real stores have their own tests (kvtest, tests/e2e).
type memory struct {
	value string
	err   error
	entry *kv.Entry
	query *kv.ListQuery
	key   *string
}

func (m memory) Upsert(_ context.Context, e kv.Entry) (kv.Written, error) {
	if m.entry != nil {
		*m.entry = e
	}
	return kv.Written{Version: "v1"}, errors.Join(e.Validate(), m.err)
}
func (m memory) Get(_ context.Context, key string) (string, error) {
	if m.key != nil {
		*m.key = key
	}
	return m.value, m.err
}
func (m memory) List(_ context.Context, q kv.ListQuery) (string, error) {
	if m.query != nil {
		*m.query = q
	}
	return m.value, errors.Join(q.Validate(), m.err)
}
func (m memory) Query(_ context.Context, q kv.Query) (string, error) {
	return m.value, errors.Join(q.Validate(), m.err)
}
func (m memory) Delete(_ context.Context, key string) (kv.Written, error) {
	if m.key != nil {
		*m.key = key
	}
	return kv.Written{Version: "v2", Existed: true}, m.err
}

// response is what a function returns to Netlify.
type response struct {
	StatusCode      int
	Headers         map[string]string
	Body            string
	IsBase64Encoded bool
}

// bytes returns the body as a client gets it.
func (r response) bytes(t testing.TB) []byte {
	t.Helper()
	if !r.IsBase64Encoded {
		return []byte(r.Body)
	}
	body, err := base64.StdEncoding.DecodeString(r.Body)
	require.NoError(t, err)
	return body
}

// invoke runs an endpoint like Lambda, without a log.
func invoke(t testing.TB, endpoint Endpoint, event string) response {
	t.Helper()
	h := Handle(endpoint)
	h.log = slog.New(slog.DiscardHandler)
	return invokeHandler(t, h, event)
}

func invokeHandler(t testing.TB, h *Handler, event string) response {
	t.Helper()
	raw, err := h.Invoke(t.Context(), []byte(event))
	require.NoError(t, err)
	var r response
	require.NoError(t, json.Unmarshal(raw, &r), "the response must be JSON: %s", raw)
	require.Equal(t, "*", r.Headers["Access-Control-Allow-Origin"])
	require.Equal(t, "nosniff", r.Headers["X-Content-Type-Options"])
	return r
}

func event(method string, fields string) string {
	if fields != "" {
		fields = "," + fields
	}
	return `{"httpMethod":"` + method + `"` + fields + `}`
}

func post(body string) string { return event("POST", `"body":`+string(kv.AppendString(nil, body))) }

func TestUpsertBody(t *testing.T) {
	index := func(pairs ...string) []kv.Index {
		indexes := []kv.Index{}
		for i := 0; i < len(pairs); i += 2 {
			indexes = append(indexes, kv.Index{Key: pairs[i], Member: kv.Member(pairs[i+1])})
		}
		return indexes
	}
	for name, c := range map[string]struct {
		body string
		want kv.Entry
	}{
		"Object":              {`{"key":"k","value":{"a":1}}`, kv.Entry{Key: "k", Value: `{"a":1}`}},
		"ValueKeepsItsText":   {"{\"key\":\"k\",\"value\" : \n{ \"b\":1.0,\"b\" : [\"\\u0000<&\u2028\"] }\n }", kv.Entry{Key: "k", Value: "{ \"b\":1.0,\"b\" : [\"\\u0000<&\u2028\"] }"}},
		"Null":                {`{"key":"k","value":null}`, kv.Entry{Key: "k", Value: `null`}},
		"ExtraFields":         {`{"sessionId":"s","key":"k","value":[],"Key":"x","VALUE":1}`, kv.Entry{Key: "k", Value: `[]`}},
		"LastOfDuplicates":    {`{"key":"a","value":{},"key":"b"}`, kv.Entry{Key: "b", Value: `{}`}},
		"EscapedFieldName":    {`{"k\u0065y":"k","value":{}}`, kv.Entry{Key: "k", Value: `{}`}},
		"SurrogatePairInKey":  {`{"key":"\ud83d\ude00\\ud800","value":{}}`, kv.Entry{Key: `😀\ud800`, Value: `{}`}},
		"NoIndexes":           {`{"key":"k","value":{},"indexes":[]}`, kv.Entry{Key: "k", Value: `{}`, Indexes: index()}},
		"IndexesNull":         {`{"key":"k","value":{},"indexes":null}`, kv.Entry{Key: "k", Value: `{}`}},
		"IndexesNoArray":      {`{"key":"k","value":{},"indexes":{"key":"i","member":"m"}}`, kv.Entry{Key: "k", Value: `{}`}},
		"IndexesThatLackSome": {`{"key":"k","value":{},"indexes":[{"key":"i"},{"key":"","member":"m"},{"key":"i","member":""},{"key":0,"member":"m"},{"key":"i","member":-0.0},{"key":"i","member":0e9},{"key":"i","member":1e-400},{"key":"i","member":null},{"key":"i","member":false},{"key":false,"member":true},{"key":{},"member":0},null,7,"i:m",{"Key":"i","member":"m"},{"key":"i","member":"m","x":1}]}`, kv.Entry{Key: "k", Value: `{}`, Indexes: index("i", "m")}},
		"NumbersAreMembers": {`{"key":"k","value":{},"indexes":[{"key":"i","member":5},{"key":"i","member": 5.0 },{"key":"i","member":"5"},{"key":"i","member":-1E+400},{"key":"i","member":"\u00015"},{"key":7.50,"member":"m"},{"key":"\u0001","member":1}]}`,
			kv.Entry{Key: "k", Value: `{}`, Indexes: index("i", "\x015", "i", "\x015.0", "i", "5", "i", "\x01-1E+400", "i", "\x01\x015", "7.50", "m", "\x01", "\x011")}},
	} {
		t.Run(name, func(t *testing.T) {
			var got kv.Entry
			r := invoke(t, Upsert(memory{entry: &got}), post(c.body))
			require.Equal(t, http.StatusOK, r.StatusCode, r.Body)
			require.Equal(t, c.want, got)
			require.Equal(t, "v1", r.Headers["X-KV-Version"])
		})
	}
}

func TestInvalidUpsertBody(t *testing.T) {
	for name, c := range map[string]struct {
		event  string
		status int
		says   string
	}{
		"Empty":              {event("POST", ""), 400, "key and JSON value required"},
		"NotAnObject":        {post(`[1]`), 400, "key and JSON value required"},
		"NoKey":              {post(`{"value":{}}`), 400, "key and JSON value required"},
		"EmptyKey":           {post(`{"key":"","value":{}}`), 400, "key and JSON value required"},
		"KeyIsANumber":       {post(`{"key":1,"value":{}}`), 400, "key and JSON value required"},
		"NoValue":            {post(`{"key":"k"}`), 400, "key and JSON value required"},
		"ValueIsAString":     {post(`{"key":"k","value":"s"}`), 400, "key and JSON value required"},
		"ValueIsANumber":     {post(`{"key":"k","value":1}`), 400, "key and JSON value required"},
		"ValueIsTrue":        {post(`{"key":"k","value":true}`), 400, "key and JSON value required"},
		"WrongCase":          {post(`{"Key":"k","value":{}}`), 400, "key and JSON value required"},
		"NotJSON":            {post(`{"key":`), 400, "byte 7"},
		"TwoValues":          {post(`{"key":"k","value":{}} {}`), 400, "the body must be JSON"},
		"BOM":                {post("\uFEFF" + `{"key":"k","value":{}}`), 400, "the body must be JSON"},
		"NotBase64":          {event("POST", `"body":"{}","isBase64Encoded":true`), 400, "base64"},
		"NotUTF8":            {event("POST", `"body":"`+base64.StdEncoding.EncodeToString([]byte("{\"key\":\"\xff\"}"))+`","isBase64Encoded":true`), 400, "UTF-8"},
		"HalfAPairInKey":     {post(`{"key":"\ud800","value":{}}`), 400, "surrogate"},
		"HalfAPairThenText":  {post(`{"key":"\ud800ude00","value":{}}`), 400, "surrogate"},
		"PairTheWrongWay":    {post(`{"key":"\ude00\ud83d","value":{}}`), 400, "surrogate"},
		"HalfAPairInMember":  {post(`{"key":"k","value":{},"indexes":[{"key":"i","member":"a"},{"key":"i","member":"\udc00"}]}`), 400, "indexes[1]"},
		"MemberIsTrue":       {post(`{"key":"k","value":{},"indexes":[{"key":"i","member":1},{"key":"i","member":true}]}`), 400, "indexes[1].member must be a string or a number, got true"},
		"MemberIsAnObject":   {post(`{"key":"k","value":{},"indexes":[{"key":"i","member":{"a":1}}]}`), 400, `indexes[0].member must be a string or a number, got {"a":1}`},
		"MemberIsAnArray":    {post(`{"key":"k","value":{},"indexes":[{"key":"i","member":[]}]}`), 400, "indexes[0].member must be a string or a number, got []"},
		"IndexKeyIsTrue":     {post(`{"key":"k","value":{},"indexes":[{"key":true,"member":1}]}`), 400, "indexes[0].key must be a string or a number, got true"},
		"NULInMember":        {post(`{"key":"k","value":{},"indexes":[{"key":"i","member":"\u0000"}]}`), 400, "indexes[0].member must not contain U+0000"},
		"NULInKey":           {post(`{"key":"\u0000","value":{}}`), 400, "U+0000"},
		"NestedBeyondReason": {post(`{"key":"k","value":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`), 422, "nested"},
		"NestedTooDeeply":    {post(`{"key":"k","value":` + strings.Repeat("[", 2001) + strings.Repeat("]", 2001) + `}`), 422, "2000 levels"},
		"NoEvent":            {`[]`, 400, "the event must be"},
	} {
		t.Run(name, func(t *testing.T) {
			r := invoke(t, Upsert(memory{}), c.event)
			if name == "NoEvent" {
				r = invokeHandler(t, Handle(Upsert(memory{})), c.event)
			}
			require.Equal(t, c.status, r.StatusCode, r.Body)
			var body struct{ Error, Code, Timestamp string }
			require.NoError(t, json.Unmarshal([]byte(r.Body), &body))
			require.Contains(t, body.Error, c.says)
			require.NotEmpty(t, body.Code)
			_, err := time.Parse("2006-01-02T15:04:05.000Z", body.Timestamp)
			require.NoError(t, err)
		})
	}
}

func TestListParameters(t *testing.T) {
	number := func(n int) *int { return &n }
	for name, c := range map[string]struct {
		multi map[string][]string
		want  kv.ListQuery
	}{
		"None":          {nil, kv.ListQuery{Sort: kv.SortKey{Path: "key"}}},
		"All":           {map[string][]string{"prefix": {"p%"}, "includeValues": {"true"}, "limit": {"10"}, "offset": {"0"}, "sortBy": {"created"}, "sortOrder": {"desc"}, "index": {"a:b", "c:d,e"}, "indexKey": {"i"}}, kv.ListQuery{Prefix: "p%", Values: true, Limit: number(10), Offset: number(0), Sort: kv.SortKey{Path: "createdAt", Descending: true}, Indexes: []string{"a:b", "c:d,e"}, IndexKeys: []string{"i"}}},
		"EmptyIsAbsent": {map[string][]string{"limit": {""}, "offset": {""}, "cursor": {""}, "sortBy": {""}, "index": {""}}, kv.ListQuery{Sort: kv.SortKey{Path: "key"}}},
		"LastWins":      {map[string][]string{"limit": {"1", "2"}, "prefix": {"a", "b"}}, kv.ListQuery{Prefix: "b", Limit: number(2), Sort: kv.SortKey{Path: "key"}}},
		"OnlyTrueIs":    {map[string][]string{"includeValues": {"TRUE"}}, kv.ListQuery{Sort: kv.SortKey{Path: "key"}}},
	} {
		t.Run(name, func(t *testing.T) {
			multi, err := json.Marshal(c.multi)
			require.NoError(t, err)
			var got kv.ListQuery
			r := invoke(t, List(kv.Uncached(memory{value: "{}", query: &got})), event("GET", `"multiValueQueryStringParameters":`+string(multi)))
			require.Equal(t, http.StatusOK, r.StatusCode, r.Body)
			require.Equal(t, c.want, got)
			require.Equal(t, "no-cache", r.Headers["Cache-Control"])
		})
	}
	var got kv.ListQuery
	invoke(t, List(kv.Uncached(memory{query: &got})), event("GET", `"queryStringParameters":{"prefix":"single"}`))
	require.Equal(t, "single", got.Prefix, "where there is no multi-value map")
}

func TestInvalidListParameters(t *testing.T) {
	for parameter, values := range map[string][]string{
		"limit":  {"0", "10001", "-1", "+1", "1.5", " 1", "ten", "99999999999999999999", "0x10", "1e3"},
		"offset": {"-1", "2147483648", "x"},
		"cursor": {"x", "%%%"},
		"sortBy": {"size"}, "sortOrder": {"up"}, "index": {"abc", ":a"}, "prefix": {"\u0000"},
	} {
		for _, value := range values {
			text, err := json.Marshal(map[string]string{parameter: value})
			require.NoError(t, err)
			r := invoke(t, List(kv.Uncached(memory{})), event("GET", `"queryStringParameters":`+string(text)))
			require.Equal(t, http.StatusBadRequest, r.StatusCode, "%s=%s", parameter, value)
			require.Contains(t, r.Body, parameter)
		}
	}
}

func TestGetKey(t *testing.T) {
	for name, c := range map[string]struct{ event, want string }{
		"Query":             {`"queryStringParameters":{"key":"a b"},"path":"/api/kv/get/other"`, "a b"},
		"FunctionPath":      {`"path":"/.netlify/functions/kv-get/a%2Fb/c%20d+e"`, "a/b/c d+e"},
		"RewrittenPath":     {`"path":"/api/kv/get/a/b"`, "a/b"},
		"RawURLBeforePath":  {`"path":"/api/kv/get/a/b","rawUrl":"https://x.example/api/kv/get/a%2Fb?q=1"`, "a/b"},
		"DecodedOnce":       {`"rawUrl":"https://x.example/api/kv/get/100%2525"`, "100%25"},
		"PrefixWithinAKey":  {`"path":"/api/kv/get//api/kv/get/x"`, "/api/kv/get/x"},
		"EmptyQueryAndPath": {`"queryStringParameters":{"key":""},"path":"/api/kv/get/x"`, "x"},
	} {
		t.Run(name, func(t *testing.T) {
			var got string
			r := invoke(t, Get(kv.Uncached(memory{value: `{"v":"<\u0000>"}`, key: &got})), event("GET", c.event))
			require.Equal(t, http.StatusOK, r.StatusCode, r.Body)
			require.Equal(t, c.want, got)
			require.Contains(t, r.Body, `"value":{"v":"<\u0000>"},"exists":true,"timestamp":"`)
		})
	}
	for name, fields := range map[string]string{
		"None": `"path":"/.netlify/functions/kv-get"`, "OnlyASlash": `"path":"/api/kv/get/"`, "Elsewhere": `"path":"/elsewhere/x"`,
		"BadEncoding": `"path":"/api/kv/get/%zz"`, "NUL": `"path":"/api/kv/get/%00"`, "NotUTF8": `"path":"/api/kv/get/%ff"`,
		"Long": `"path":"/api/kv/get/` + strings.Repeat("k", 1025) + `"`,
	} {
		r := invoke(t, Get(kv.Uncached(memory{})), event("GET", fields))
		require.Equal(t, http.StatusBadRequest, r.StatusCode, name)
	}
	r := invoke(t, Get(kv.Uncached(memory{err: &kv.Error{Code: kv.CodeNotFound}})), event("GET", `"path":"/api/kv/get/x"`))
	require.Equal(t, http.StatusNotFound, r.StatusCode)
	require.Contains(t, r.Body, `"error":"Key not found","code":"not_found","key":"x","exists":false`)
}

func TestDeleteKey(t *testing.T) {
	for _, e := range []string{event("DELETE", `"queryStringParameters":{"key":"k"}`), post(`{"key":"k"}`)} {
		var got string
		r := invoke(t, Delete(memory{key: &got}), e)
		require.Equal(t, http.StatusOK, r.StatusCode, r.Body)
		require.Equal(t, "k", got)
		require.Contains(t, r.Body, `{"ok":true,"key":"k","deleted":true,"timestamp":"`)
		require.Equal(t, "v2", r.Headers["X-KV-Version"])
	}
	for _, e := range []string{event("DELETE", ""), post(``), post(`[]`), post(`{"key":7}`), post(`{"key":""}`), post(`{`), post(`{"key":"\ud800"}`), event("DELETE", `"body":"{\"key\":\"k\"}"`)} {
		require.Equal(t, http.StatusBadRequest, invoke(t, Delete(memory{}), e).StatusCode, e)
	}
	require.Equal(t, http.StatusBadGateway, invoke(t, Delete(memory{err: &kv.Error{Code: kv.CodeDatabaseUnreachable}}), post(`{"key":"k"}`)).StatusCode)
	for e, want := range map[string]string{
		event("DELETE", `"queryStringParameters":{"key":"k","sessionId":"1"}`):              `"sessionId" is not a parameter of kv-delete: did you mean key?`,
		event("DELETE", `"multiValueQueryStringParameters":{"key":["a","b"]}`):              "key must be given once, got 2",
		event("DELETE", `"queryStringParameters":{"key":"k"},"body":"{\"key\":\"other\"}"`): `a DELETE is read from its parameters alone, and this one has a body, {"key":"other"}: send the body with POST`,
		post(`{"key":"k","prefix":"a"}`):                                                    `"prefix" is not a field of kv-delete: did you mean key?`,
		post(`{"key":"k","key":"l"}`):                                                       `"key" is given twice`,
		event("POST", `"body":"{\"key\":\"k\"}","queryStringParameters":{"key":"other"}`):   `"key" is given as a parameter: a POST is read from its body alone`,
	} {
		var got string
		r := invoke(t, Delete(memory{key: &got}), e)
		require.Equal(t, http.StatusBadRequest, r.StatusCode, e)
		var body struct{ Error string }
		require.NoError(t, json.Unmarshal([]byte(r.Body), &body))
		require.Equal(t, want, body.Error)
		require.Empty(t, got, "nothing is deleted")
	}
}

func TestRetryAfterHeader(t *testing.T) {
	limited := &kv.Error{Code: kv.CodeRateLimited, Message: "m", RetryAfter: 1500 * time.Millisecond}
	r := invoke(t, Delete(memory{err: limited}), post(`{"key":"k"}`))
	require.Equal(t, http.StatusServiceUnavailable, r.StatusCode)
	require.Equal(t, "2", r.Headers["Retry-After"], "whole seconds, and not too early")
	require.Contains(t, r.Headers["Access-Control-Expose-Headers"], "Retry-After")
	require.Contains(t, r.Body, `"error":"m","code":"rate_limited"`)
	limited.RetryAfter = 0
	require.NotContains(t, invoke(t, Delete(memory{err: limited}), post(`{"key":"k"}`)).Headers, "Retry-After")
}

func TestMethodsAndPreflights(t *testing.T) {
	t.Setenv("KV_API_TOKEN", "token")
	for methods, endpoint := range map[string]Endpoint{
		"POST, OPTIONS": Upsert(memory{}), "GET, OPTIONS": Get(kv.Uncached(memory{})), "DELETE, POST, OPTIONS": Delete(memory{}),
		"GET, POST, OPTIONS": Query(kv.Uncached(memory{}), time.Second),
	} {
		r := invoke(t, endpoint, event("OPTIONS", ""))
		require.Equal(t, http.StatusOK, r.StatusCode)
		require.Empty(t, r.Body)
		require.Equal(t, methods, r.Headers["Access-Control-Allow-Methods"])
		allowed := strings.Split(r.Headers["Access-Control-Allow-Headers"], ", ")
		require.Subset(t, allowed, []string{"Content-Type", "Authorization", "traceparent", "tracestate", "baggage", "sentry-trace"})
		require.Equal(t, "7200", r.Headers["Access-Control-Max-Age"])
		r = invoke(t, endpoint, event("PATCH", ""))
		require.Equal(t, http.StatusMethodNotAllowed, r.StatusCode)
		require.Contains(t, r.Body, `"error":"Method Not Allowed"`)
		require.Equal(t, strings.Replace(methods, "GET", "GET, HEAD", 1), r.Headers["Allow"])
		require.NotContains(t, r.Headers, "Access-Control-Max-Age", "preflights alone may be kept")
	}
}

// TestHEAD checks that HEAD has the status and the headers of GET, errors included, and its Content-Length.
func TestHEAD(t *testing.T) {
	t.Setenv("KV_API_TOKEN", "token")
	const authorized = `"headers":{"authorization":"Bearer token"}`
	large := memory{value: `["` + strings.Repeat(`\"`, 2_500_000) + `"]`}
	found, missing := kv.Uncached(memory{value: `{"a":"é"}`}), kv.Uncached(memory{err: &kv.Error{Code: kv.CodeNotFound}})
	for name, c := range map[string]struct {
		endpoint Endpoint
		fields   string
		status   int
	}{
		"Get":         {Get(found), authorized + `,"path":"/api/kv/get/k"`, 200},
		"List":        {List(found), authorized, 200},
		"Query":       {Query(kv.Uncached(&asked{answer: noResults}), time.Second), authorized, 200},
		"Export":      {Query(kv.Uncached(&asked{answer: noResults}), time.Second), authorized + `,"queryStringParameters":{"format":"csv","select":"key"}`, 200},
		"NotModified": {Get(found), `"headers":{"authorization":"Bearer token","if-none-match":"*"},"path":"/api/kv/get/k"`, 304},
		"NotFound":    {Get(missing), authorized + `,"path":"/api/kv/get/k"`, 404},
		"NoKey":       {Get(found), authorized, 400},
		"NoToken":     {Get(found), `"path":"/api/kv/get/k"`, 401},
		"TooLarge":    {Get(kv.Uncached(large)), authorized + `,"path":"/api/kv/get/k"`, 413},
		"NoGET":       {Upsert(memory{}), authorized, 405},
	} {
		t.Run(name, func(t *testing.T) {
			get, head := invoke(t, c.endpoint, event("GET", c.fields)), invoke(t, c.endpoint, event("HEAD", c.fields))
			require.Equal(t, c.status, head.StatusCode)
			require.Empty(t, head.Body)
			require.False(t, head.IsBase64Encoded)
			length, told := head.Headers["Content-Length"]
			require.Equal(t, c.status != http.StatusNotModified, told)
			if told {
				require.Equal(t, strconv.Itoa(len(get.Body)), length)
			}
			for _, r := range []response{get, head} {
				require.Equal(t, c.status, r.StatusCode)
				delete(r.Headers, "Server-Timing")
				delete(r.Headers, "Content-Length")
			}
			require.Equal(t, get.Headers, head.Headers)
		})
	}
}

// TestLogNamesTheRequest checks Netlify's request id and the method.
func TestLogNamesTheRequest(t *testing.T) {
	var log bytes.Buffer
	h := HandleWithLog(Get(kv.Uncached(memory{value: `{}`})), slog.New(slog.NewJSONHandler(&log, nil)))
	line := func(event string) (fields struct {
		Method    string
		RequestID *string `json:"request_id"`
	}) {
		log.Reset()
		invokeHandler(t, h, event)
		require.NoError(t, json.Unmarshal(log.Bytes(), &fields), "one line of JSON: %s", log.String())
		return fields
	}
	got := line(event("HEAD", `"headers":{"x-nf-request-id":"01KE5Y8Q4T0Z7N3V5R9W2M6B1C"},"path":"/api/kv/get/k"`))
	require.Equal(t, "01KE5Y8Q4T0Z7N3V5R9W2M6B1C", *got.RequestID)
	require.Equal(t, "HEAD", got.Method)
	require.Equal(t, "01KE5Y8Q4T0Z7N3V5R9W2M6B1C", *line(event("PATCH", `"headers":{"x-nf-request-id":"01KE5Y8Q4T0Z7N3V5R9W2M6B1C"}`)).RequestID, "of a refused request, too")
	require.Len(t, *line(event("GET", `"headers":{"x-nf-request-id":"`+strings.Repeat("x", 5000)+`"}`)).RequestID, maxRequestID)
	require.Nil(t, line(event("GET", "")).RequestID, "where there is none")
}

func TestTokens(t *testing.T) {
	for name, c := range map[string]struct {
		api, read, authorization string
		reads, writes            int
	}{
		"NoneConfigured":     {"", "", "", 200, 200},
		"NoneSent":           {"a", "", "", 401, 401},
		"Right":              {"a", "", "Bearer a", 200, 200},
		"SchemeInAnyCase":    {"a", "", "bearer a", 200, 200},
		"Wrong":              {"a", "", "Bearer b", 401, 401},
		"AnotherScheme":      {"a", "", "Basic a", 401, 401},
		"NoToken":            {"a", "", "Bearer ", 401, 401},
		"SecondOfTwo":        {"a, b", "", "Bearer b", 200, 200},
		"BothAsOne":          {"a,b", "", "Bearer a,b", 401, 401},
		"ReadTokenReads":     {"a", "r", "Bearer r", 200, 401},
		"APITokenReads":      {"a", "r", "Bearer a", 200, 200},
		"OnlyReadConfigured": {"", "r", "Bearer r", 200, 401},
		"OnlyReadNoneSent":   {"", "r", "", 401, 401},
		"OnlyCommas":         {",", "", "Bearer ,", 401, 401},
		"OnlySpace":          {" ", "", "", 401, 401},
		"OnlyQuotes":         {`""`, "", "", 401, 401},
		"InQuotes":           {`"a"`, "", "Bearer a", 200, 200},
		"TwoInQuotes":        {`"a, b"`, "", "Bearer b", 200, 200},
		"EachInQuotes":       {`"a","b"`, "", "Bearer b", 200, 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("KV_API_TOKEN", c.api)
			t.Setenv("KV_READ_TOKEN", c.read)
			header := `"headers":{"AUTHORIZATION":"` + c.authorization + `"}`
			require.Equal(t, c.reads, invoke(t, Get(kv.Uncached(memory{})), event("GET", header+`,"queryStringParameters":{"key":"k"}`)).StatusCode)
			require.Equal(t, c.writes, invoke(t, Delete(memory{}), event("DELETE", header+`,"queryStringParameters":{"key":"k"}`)).StatusCode)
			header = `"headers":{"authorization":"` + c.authorization + `"}`
			require.Equal(t, c.reads, invoke(t, List(kv.Uncached(memory{})), event("GET", header)).StatusCode)
			require.Equal(t, c.reads, invoke(t, Query(kv.Uncached(memory{value: noResults}), time.Second), event("POST", header)).StatusCode, "a POST that reads")
		})
	}
}

func TestEveryCodeHasAStatus(t *testing.T) {
	for _, code := range kv.Codes {
		r := invoke(t, Get(kv.Uncached(memory{err: &kv.Error{Code: code, Message: "m"}})), event("GET", `"path":"/api/kv/get/k"`))
		require.GreaterOrEqual(t, r.StatusCode, 400, code)
	}
	require.Len(t, statusOf, len(kv.Codes))
}

func TestInternalErrorIsOnlyInTheLog(t *testing.T) {
	for name, endpoint := range map[string]Endpoint{
		"Error": Get(kv.Uncached(memory{err: errors.New("cause at db.example")})),
		"Panic": {Reads: []string{"GET"}, Run: func(context.Context, *Request) (*Response, error) { panic("cause at db.example") }},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			h := Handle(endpoint)
			h.log = slog.New(slog.NewJSONHandler(&log, nil))
			r := invokeHandler(t, h, event("GET", `"path":"/api/kv/get/the-key"`))
			require.Equal(t, http.StatusInternalServerError, r.StatusCode)
			require.Contains(t, r.Body, `"code":"internal"`)
			require.NotContains(t, r.Body, "example")
			require.Contains(t, log.String(), "cause at db.example")
			require.True(t, json.Valid(log.Bytes()), "one line of JSON: %s", log.String())
		})
	}
}

func TestLogHoldsNoKeyValueOrToken(t *testing.T) {
	t.Setenv("KV_API_TOKEN", "the-token")
	var log bytes.Buffer
	h := Handle(Upsert(memory{}))
	h.log = slog.New(slog.NewJSONHandler(&log, nil))
	invokeHandler(t, h, `{"httpMethod":"POST","headers":{"authorization":"Bearer the-token"},"body":"{\"key\":\"the-key\",\"value\":[\"the-value\"]}"}`)
	require.Contains(t, log.String(), `"status":200`)
	require.NotContains(t, log.String(), "the-")

	log.Reset()
	h.endpoint.Run = func(context.Context, *Request) (*Response, error) {
		return nil, &kv.Error{Code: kv.CodeDatabaseUnreachable, Op: "store.List", Err: errors.New("it is not JSON"), Message: "the entry the-key is not JSON"}
	}
	invokeHandler(t, h, `{"httpMethod":"POST","headers":{"authorization":"Bearer the-token"},"body":"{}"}`)
	require.Contains(t, log.String(), `"error":"store.List: it is not JSON"`)
	require.NotContains(t, log.String(), "the-", "a caller's message may name a key, and is not logged")
}

func TestLargeResponseIsBase64OrRefused(t *testing.T) {
	read := func(value string) response {
		return invoke(t, Get(kv.Uncached(memory{value: value})), event("GET", `"path":"/api/kv/get/k"`))
	}
	quotes := func(n int) string { return `["` + strings.Repeat(`\"`, n/2) + `"]` }

	r := read(`["` + strings.Repeat("x", 6_000_000) + `"]`)
	require.Equal(t, http.StatusOK, r.StatusCode)
	require.False(t, r.IsBase64Encoded)

	value := quotes(4_000_000) // twice as long when escaped
	r = read(value)
	require.Equal(t, http.StatusOK, r.StatusCode)
	require.True(t, r.IsBase64Encoded)
	body, err := base64.StdEncoding.DecodeString(r.Body)
	require.NoError(t, err)
	require.True(t, bytes.Contains(body, []byte(value)), "the value must come through whole")

	r = read(quotes(5_000_000))
	require.Equal(t, http.StatusRequestEntityTooLarge, r.StatusCode)
	require.Contains(t, r.Body, "too_large")
}

func TestJSONStrings(t *testing.T) {
	text := "\"\\/\b\f\n\r\t\x00\x1f\x7f<>&\u2028é😀"
	got := string(kv.AppendString(nil, text))
	require.Equal(t, `"\"\\/\b\f\n\r\t\u0000\u001f`+"\x7f<>&\u2028é😀\"", got)
	var back string
	require.NoError(t, json.Unmarshal([]byte(got), &back))
	require.Equal(t, text, back)
}

func TestDeadlineLeavesTimeForTheResponse(t *testing.T) {
	endpoint := Endpoint{Reads: []string{"GET"}, Run: func(ctx context.Context, _ *Request) (*Response, error) {
		<-ctx.Done()
		return nil, &kv.Error{Code: kv.CodeDeadlineExceeded, Message: "m"}
	}}
	ctx, cancel := context.WithTimeout(t.Context(), responseReserve+100*time.Millisecond)
	defer cancel()
	raw, err := Handle(endpoint).Invoke(ctx, []byte(event("GET", "")))
	require.NoError(t, err)
	require.Contains(t, string(raw), `"statusCode":504`)
	require.NoError(t, ctx.Err(), "the invocation's own deadline must not have passed")
}

func TestStoreFromEnv(t *testing.T) {
	for name, c := range map[string]struct {
		use, url, key   string
		variable, value string // one more variable
		says            string
	}{
		"Nothing":       {says: "NETLIFY_BLOBS_TOKEN"},
		"False":         {use: "false", url: "https://x.supabase.co", key: "k", says: "NETLIFY_BLOBS_TOKEN"},
		"NeitherOfTwo":  {use: "perhaps", url: "https://x.supabase.co", key: "k", says: "true or false"},
		"NoURL":         {use: "true", says: "SUPABASE_URL"},
		"BadURL":        {use: "true", url: "x.supabase.co", key: "k", says: "SUPABASE_URL"},
		"NoKey":         {use: "true", url: "https://x.supabase.co", says: "SUPABASE_SERVICE_ROLE_KEY"},
		"BadMirror":     {use: "true", url: "https://x.supabase.co", key: "k", variable: "KV_MIRROR_WRITES", value: "some", says: "KV_MIRROR_WRITES must be"},
		"MirrorNowhere": {use: "false", variable: "KV_MIRROR_WRITES", value: "true", says: "SUPABASE_URL"},
		"BadShare":      {use: "true", url: "https://x.supabase.co", key: "k", variable: "KV_COMPARE_READS", value: "2", says: "KV_COMPARE_READS must be"},
		"NoShare":       {use: "true", url: "https://x.supabase.co", key: "k", variable: "KV_COMPARE_READS", value: "NaN", says: "KV_COMPARE_READS must be"},
		"BadRate":       {use: "true", url: "https://x.supabase.co", key: "k", variable: "KV_BLOBS_RATE", value: "many", says: "KV_BLOBS_RATE must be"},
		"NoRate":        {use: "false", variable: "KV_BLOBS_RATE", value: "0", says: "KV_BLOBS_RATE must be"},
		"NoBoolean":     {use: "true false", url: "https://x.supabase.co", key: "k", says: "USE_SUPABASE_KV must be true or false"},
		"OnlySpace":     {use: " true ", url: " \n", key: "k", says: "SUPABASE_URL is not set"},
		"OnlyQuotes":    {use: "true", url: "https://x.supabase.co", key: `""`, says: "SUPABASE_SERVICE_ROLE_KEY is not set"},
		"Dashboard":     {use: "true", url: "https://supabase.com/dashboard/project/x", key: "k", says: "SUPABASE_URL must be"},
		"AnotherAPI":    {use: "true", url: "https://x.supabase.co/auth/v1", key: "k", says: "SUPABASE_URL must be"},
		"WithQuery":     {use: "true", url: "https://x.supabase.co/rest/v1?apikey=k", key: "k", says: "SUPABASE_URL must be"},
		"Database":      {use: "true", url: "postgresql://postgres:p@db.x.supabase.co:5432/postgres", key: "k", says: "SUPABASE_URL must be"},
		"KeyOfTwoLines": {use: "true", url: "https://x.supabase.co", key: "a\nb", says: "SUPABASE_SERVICE_ROLE_KEY holds"},
		"BadBlobsURL":   {use: "false", variable: "NETLIFY_BLOBS_API_URL", value: "api.netlify.com", says: "NETLIFY_BLOBS_API_URL must be an address"},
		"BadBlobsToken": {use: "false", variable: "NETLIFY_BLOBS_TOKEN", value: "a b", says: "NETLIFY_BLOBS_TOKEN holds characters"},
		"BadSite":       {use: "false", variable: "NETLIFY_SITE_ID", value: "a\nb", says: "NETLIFY_SITE_ID holds characters"},
		"BadTimeout":    {use: "true", url: "https://x.supabase.co", key: "k", variable: "KV_COMPARE_TIMEOUT", value: "0", says: "KV_COMPARE_TIMEOUT must be"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.variable != "" {
				t.Setenv(c.variable, c.value)
			}
			t.Setenv("USE_SUPABASE_KV", c.use)
			t.Setenv("SUPABASE_URL", c.url)
			t.Setenv("SUPABASE_SERVICE_ROLE_KEY", c.key)
			store, reader := StoreFromEnv(), ReaderFromEnv(GetCache)
			for _, r := range []response{
				invoke(t, Upsert(store), post(`{"key":"k","value":{}}`)), invoke(t, List(reader), event("GET", "")),
				invoke(t, Get(reader), event("GET", `"path":"/api/kv/get/k"`)), invoke(t, Delete(store), post(`{"key":"k"}`)),
			} {
				require.Equal(t, http.StatusServiceUnavailable, r.StatusCode)
				require.Contains(t, r.Body, c.says)
				require.NotContains(t, r.Body, "x.supabase.co")
			}
			require.Equal(t, http.StatusServiceUnavailable, invoke(t, Query(reader, time.Second), post("")).StatusCode)
		})
	}
	for use, url := range map[string]string{
		"TRUE": "https://x.supabase.co", "true ": "https://x.supabase.co/", " \"true\"": "https://x.supabase.co/rest/v1", "1": "\"https://x.supabase.co/rest/v1/\"\n",
		"yes": " 'HTTPS://x.supabase.co'", "On": "https://x.supabase.co//",
	} {
		t.Setenv("USE_SUPABASE_KV", use)
		t.Setenv("SUPABASE_URL", url)
		t.Setenv("SUPABASE_SERVICE_ROLE_KEY", " \"k\"\n")
		require.IsType(t, &kv.Supabase{}, StoreFromEnv(), "%q %q", use, url)
		require.Equal(t, "https://x.supabase.co", StoreFromEnv().(*kv.Supabase).URL(), "%q", url)
		require.IsType(t, &kv.Cache{}, ReaderFromEnv(GetCache))
	}
	t.Setenv("SUPABASE_URL", "http://localhost:8000/supabase/rest/v1/")
	require.Equal(t, "http://localhost:8000/supabase", StoreFromEnv().(*kv.Supabase).URL(), "where somebody runs it himself")
}

func FuzzHandler(f *testing.F) {
	for _, seed := range []string{
		post(`{"key":"k","value":{"a":1},"indexes":[{"key":"i","member":"m"}]}`), post(`{"key":"\ud800","value":null}`),
		event("GET", `"path":"/api/kv/get/a%2Fb","rawUrl":"https://x/api/kv/get/a%2Fb"`), event("OPTIONS", ""), event("PUT", ""), `{`, `null`,
		event("GET", `"multiValueQueryStringParameters":{"index":["a:b"],"limit":["1"],"cursor":["WyJrZXkuYXNjIixudWxsLCJrIl0"]}`),
		event("DELETE", `"queryStringParameters":{"key":"k"}`), event("POST", `"body":"e30=","isBase64Encoded":true`),
		post(`{"where":[{"path":"a","op":"eq","value":1}],"format":"csv"}`), event("GET", `"multiValueQueryStringParameters":{"range":["a:1..2"],"q":["x"]}`),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, event string) {
		store := memory{value: `{}`}
		reader := kv.Uncached(store)
		for _, endpoint := range []Endpoint{Upsert(store), List(reader), Get(reader), Delete(store), Query(kv.Uncached(&asked{answer: noResults}), time.Second)} {
			r := invoke(t, endpoint, event)
			require.NotEqual(t, http.StatusInternalServerError, r.StatusCode, r.Body)
			if r.Headers["Content-Disposition"] != "" {
				continue // an export
			}
			require.True(t, r.Body == "" || json.Valid([]byte(r.Body)), "the body must be JSON: %s", r.Body)
			require.Equal(t, "application/json", r.Headers["Content-Type"])
		}
	})
}
