package netlify

import (
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

// oddBodies are texts in which JSON readers have differed.
var oddBodies = []string{
	``, ` `, `{}`, `null`, `[]`, `"text"`, `1`, `true`, `{"key":"a","value":{"b":1.0,"b":1e400,"c":-0}}`, `{"key":"a","key":"b","key":null}`,
	"\t{ \"key\" :\r\n\"a\" , \"value\" : { } }\n", `{"key":"\u0000\ud83d\ude00\ud800","value":["\udc00",{"\ud800":1}]}`, `{"\u006bey":"a","KEY":"b","Key":"c"}`,
	`{"\ud800":1,"\ud801":2,"\ufffd":3}`, `{"__proto__":{},"":1}`, `{"a":"<>&` + "\u2028" + `"}`, `{"value":12345678901234567890}`, `{"a":01}`, `{"a":+1}`, `{"a":.5}`,
	`{"a":1,}`, `{"a":1}{}`, `{"a" 1}`, `{a:1}`, `{"a":nul}`, `{"a":"` + "\x01" + `"}`, `{"a":"\x"}`, `{"a":"\u12"}`, "\ufeff{}", `{"a":NaN}`, `{"a":[[[[[[1]]]]]]}`,
	"{\"a\":\"\xff\"}", `{"a":"\`, `{"a`, `{"a":"\ud83d\u0041"}`, `{"a":1E+2,"b":1e,"c":2}`, `{"a":-}`,
}

// requireAsEver compares JSONBody with what encoding/json makes of the body: the fields, or that there are none, or that it is wrong.
func requireAsEver(t testing.TB, body string) {
	t.Helper()
	r := Request{}
	r.Body = body
	text, err := r.bodyText()
	fields, bodyErr := r.JSONBody()
	if err != nil {
		require.Equal(t, err, bodyErr)
		return
	}
	var want map[string]json.RawMessage
	switch err := json.Unmarshal(text, &want).(type) {
	case nil:
		require.NoError(t, bodyErr, "%q", body)
		require.Equal(t, want, fields, "%q", body)
	case *json.UnmarshalTypeError:
		require.NoError(t, bodyErr, "%q", body)
		require.Nil(t, fields, "%q", body)
	default:
		if bodyErr == nil {
			require.Empty(t, fields, "%q: %v", body, err) // an empty body
			return
		}
		require.NotEqual(t, kv.CodeInternal, kv.CodeOf(bodyErr), "%q", body)
	}
}

func TestABodyIsReadAsEver(t *testing.T) {
	t.Parallel()
	for _, body := range oddBodies {
		requireAsEver(t, body)
	}
	for _, depth := range []int{9_998, 9_999, 10_000, 10_001, 20_000} {
		nested := make([]byte, 0, 2*depth+8)
		nested = append(nested, `{"a":`...)
		for range depth {
			nested = append(nested, '[')
		}
		for range depth {
			nested = append(nested, ']')
		}
		requireAsEver(t, string(append(nested, '}')))
	}
}

func FuzzBody(f *testing.F) {
	for _, body := range oddBodies {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) { requireAsEver(t, body) })
}

// apiGatewayRequest is an event as AWS's own package reads it.
type apiGatewayRequest struct {
	events.APIGatewayProxyRequest
	RawURL string `json:"rawUrl"`
	Blobs  string `json:"blobs"`
}

func (r apiGatewayRequest) values(name string) (values []string) {
	for given, value := range r.Headers {
		if strings.EqualFold(given, name) {
			values = append(values, value)
		}
	}
	for given, list := range r.MultiValueHeaders {
		if strings.EqualFold(given, name) && len(list) > 0 && len(values) == 0 {
			values = append(values, list[0])
		}
	}
	return values
}

var eventFields = []string{"httpMethod", "path", "headers", "multiValueHeaders", "queryStringParameters", "multiValueQueryStringParameters", "body",
	"isBase64Encoded", "rawUrl", "blobs"}

// requireSameEvent compares what is read of an event with what encoding/json reads of it.
func requireSameEvent(t testing.TB, text []byte) {
	t.Helper()
	var (
		got  Request
		want apiGatewayRequest
	)
	var fields map[string]json.RawMessage
	if json.Unmarshal(text, &fields) != nil {
		return
	}
	for name := range fields { // encoding/json takes names in any case
		if slices.ContainsFunc(eventFields, func(known string) bool { return name != known && strings.EqualFold(name, known) }) {
			return
		}
	}
	var wrong *json.UnmarshalTypeError
	wantErr, gotErr := json.Unmarshal(text, &want), decodeEvent(text, &got)
	if errors.As(wantErr, &wrong) && strings.Contains(strings.ToLower(wrong.Field), "querystringparameters") &&
		wrong.Value != "array" && wrong.Value != "string" { // one or several values are welcome in either
		require.Error(t, gotErr, "%q", text)
	}
	if wantErr != nil {
		return
	}
	require.NoError(t, gotErr, "%q", text)
	require.Equal(t, []any{want.HTTPMethod, want.Path, want.Body, want.IsBase64Encoded, want.RawURL, want.Blobs},
		[]any{got.HTTPMethod, got.Path, got.Body, got.IsBase64Encoded, got.RawURL, got.Blobs}, "%q", text)
	names := []iter.Seq[string]{maps.Keys(want.QueryStringParameters), maps.Keys(want.MultiValueQueryStringParameters),
		maps.Keys(got.QueryStringParameters), maps.Keys(got.MultiValueQueryStringParameters)}
	for _, some := range names {
		for name := range some {
			values := want.MultiValueQueryStringParameters[name]
			if values == nil {
				values = []string{want.QueryStringParameters[name]}
			}
			require.Equal(t, withoutEmpty(values), got.Params(name), "%q of %q", name, text)
			require.Equal(t, withoutEmpty([]string{want.QueryStringParameters[name]}), withoutEmpty(got.QueryStringParameters[name]), "%q of %q", name, text)
		}
	}
	for which, name := range headerNames {
		if values := want.values(name); len(values) == 1 && values[0] != "" { // of several, any will do
			require.Equal(t, values[0], got.Header(header(which)), "%s of %q", name, text)
		}
	}
}

func withoutEmpty(values []string) (kept []string) {
	for _, value := range values {
		if value != "" {
			kept = append(kept, value)
		}
	}
	return kept
}

var oddEvents = append([]string{
	`{"httpMethod":"GET","headers":{"Authorization":"b","A":"c","a\u0075thorization":"d"},"queryStringParameters":null,"isBase64Encoded":true,"body":null}`,
	`{"multiValueHeaders":{"a":["b",null],"X-KV-AFTER":["v","w"],"cache-control":[],"if-none-match":null},"headers":null}`,
	`{"headers":{"x-\u006bv-after":"v"},"multiValueHeaders":{"x-kv-after":["w"],"x-nf-site-id":[null,"s"]}}`,
	`{"headers":{"x-kv-cache":"\ud800\u0000"},"path":"\ud800","queryStringParameters":{"a":"\udc00","a":"b"}}`,
	`{"HTTPMETHOD":"GET","Headers":{"x-kv-cache":"bypass"},"rawurl":"x","BLOBS":"y","multiValueQueryStringParameters":{"a":[]}}`,
	`{"queryStringParameters":{"a":"b","c":"d","e":"","f":null},"multiValueQueryStringParameters":{"a":["b","c",""],"e":null,"\u0063":["\ud83d\ude00"],"g":[null,"h"]}}`,
	`{"headers":{"AuthoriZAtion":"first","A\u0075thoriZAtion":"second"}}`, `{"queryStringParameters":{"a":1}}`, `{"queryStringParameters":{"a":"b"},"multiValueQueryStringParameters":{"a":[null]}}`,
	`{"queryStringParameters":{"a":"b"},"multiValueQueryStringParameters":{"a":[]}}`, `{"queryStringParameters":{"a":"b"},"queryStringParameters":null}`,
	`{"queryStringParameters":{"\ud800":"x"}}`, "{\"queryStringParameters\":{\"\xff\":\"x\"}}", `{"multiValueQueryStringParameters":{"limit":{}}}`, `{"queryStringParameters":[]}`, `{"multiValueQueryStringParameters":{"a":"b","c":[["d"]]}}`,
	`{"httpMethod":"GET","requestContext":{"authorizer":{"a":[1,{"b":null}]},"identity":{"sourceIp":"::1"},"requestTimeEpoch":1}}`,
	`{"httpMethod":"GET","body":"\ud800","isBase64Encoded":false,"httpMethod":"POST"}`, `{"headers":[]}`, `{"headers":{"x-kv-after":1}}`, `{"headers":{"a":{}}}`,
}, oddBodies...)

// What a caller asked for is not left out because it cannot be understood.
func TestParametersOfAWrongTypeAreRefused(t *testing.T) {
	t.Parallel()
	for _, field := range []string{"queryStringParameters", "multiValueQueryStringParameters"} {
		for _, value := range []string{`[]`, `"a"`, `1`, `{"a":1}`, `{"a":true}`, `{"a":{}}`, `{"a":["b",1]}`, `{"a":[["b"]]}`, `{"a":["b",{}]}`} {
			require.Error(t, decodeEvent([]byte(`{"`+field+`":`+value+`}`), &Request{}), "%s: %s", field, value)
		}
	}
}

func TestAnEventIsReadAsEver(t *testing.T) {
	t.Parallel()
	for _, text := range oddEvents {
		requireSameEvent(t, []byte(text))
	}
}

func TestEveryHeaderHasAName(t *testing.T) {
	t.Parallel()
	for which, name := range headerNames {
		require.NotEmpty(t, name, which)
		require.Equal(t, strings.ToLower(name), name)
	}
}

func FuzzEvent(f *testing.F) {
	for _, text := range oddEvents {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) { requireSameEvent(t, text) })
}
