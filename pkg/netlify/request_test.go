package netlify

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

// oddBodies are texts about which JSON parsers differ.
var oddBodies = []string{
	``, ` `, `{}`, `null`, `[]`, `"text"`, `1`, `true`, `{"key":"a","value":{"b":1.0,"b":1e400,"c":-0}}`, `{"key":"a","key":"b","key":null}`,
	"\t{ \"key\" :\r\n\"a\" , \"value\" : { } }\n", `{"key":"\u0000\ud83d\ude00\ud800","value":["\udc00",{"\ud800":1}]}`, `{"\u006bey":"a","KEY":"b","Key":"c"}`,
	`{"\ud800":1,"\ud801":2,"\ufffd":3}`, `{"__proto__":{},"":1}`, `{"a":"<>&` + "\u2028" + `"}`, `{"value":12345678901234567890}`, `{"a":01}`, `{"a":+1}`, `{"a":.5}`,
	`{"a":1,}`, `{"a":1}{}`, `{"a" 1}`, `{a:1}`, `{"a":nul}`, `{"a":"` + "\x01" + `"}`, `{"a":"\x"}`, `{"a":"\u12"}`, "\ufeff{}", `{"a":NaN}`, `{"a":[[[[[[1]]]]]]}`,
	"{\"a\":\"\xff\"}", `{"a":"\`, `{"a`, `{"a":"\ud83d\u0041"}`, `{"a":1E+2,"b":1e,"c":2}`, `{"a":-}`,
}

// requireLikeEncodingJSON compares JSONBody with encoding/json: the fields, no object, or an error.
func requireLikeEncodingJSON(t testing.TB, body string) {
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

func TestJSONBodyReadsLikeEncodingJSON(t *testing.T) {
	t.Parallel()
	for _, body := range oddBodies {
		requireLikeEncodingJSON(t, body)
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
		requireLikeEncodingJSON(t, string(append(nested, '}')))
	}
}

func FuzzBody(f *testing.F) {
	for _, body := range oddBodies {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) { requireLikeEncodingJSON(t, body) })
}

// apiGatewayRequest is an event in AWS's own package.
type apiGatewayRequest struct {
	events.APIGatewayProxyRequest
	RawURL string `json:"rawUrl"`
	Blobs  string `json:"blobs"`
}

// requireSameEvent compares a decoded event with encoding/json's.
func requireSameEvent(t testing.TB, text []byte) {
	t.Helper()
	var want apiGatewayRequest
	var fields map[string]json.RawMessage
	if json.Unmarshal(text, &want) != nil || json.Unmarshal(text, &fields) != nil || !jsontext.Value(text).IsValid(jsontext.AllowInvalidUTF8(true)) {
		return // wrong types have their own test; encoding/json merges duplicate objects
	}
	for name := range fields { // encoding/json takes names in any case
		if strings.ToLower(name) != name && !slices.Contains(eventFields, name) {
			return
		}
	}
	got := requestOf(t, string(text))
	got.Headers = Headers{} // see TestHeadersAndParametersOfAnEvent
	require.Equal(t, Request{
		HTTPMethod: want.HTTPMethod, Path: want.Path,
		QueryStringParameters: want.QueryStringParameters, MultiValueQueryStringParameters: want.MultiValueQueryStringParameters,
		Body: want.Body, IsBase64Encoded: want.IsBase64Encoded, RawURL: want.RawURL, Blobs: want.Blobs,
	}, *got, "%q", text)
}

var eventFields = []string{"httpMethod", "multiValueHeaders", "queryStringParameters", "multiValueQueryStringParameters", "isBase64Encoded", "rawUrl"}

func TestHeadersAndParametersOfAnEvent(t *testing.T) {
	t.Parallel()
	r := requestOf(t, `{"headers":{"AUTHORIZATION":"a","Cache-Control":"b","if-none-match":"c","X-KV-After":"d","x-kv-CACHE":"e",
		"IF-MATCH":"i","content-TYPE":"j","X-KV-TTL":"k","x-kv-expires":"l","X-Kv-Metadata":"m","Idempotency-Key":"n",
		"x-nf-request-id":"f","x-nf-site-id":"g","X_NF_SITE_ID":"spoofed","user-agent":"h","accept":null},
		"queryStringParameters":{"a":"1, 2","b":"3","c":"","d":null},"multiValueQueryStringParameters":{"a":["1","","2",null],"e":["4"],"f":[]}}`)
	require.Equal(t, Headers{Authorization: "a", CacheControl: "b", IfNoneMatch: "c", KVAfter: "d", KVCache: "e", RequestID: "f", SiteID: "g",
		IfMatch: "i", ContentType: "j", KVTTL: "k", KVExpires: "l", KVMetadata: "m", IdempotencyKey: "n"}, r.Headers)
	for name, want := range map[string][]string{"a": {"1", "2"}, "b": {"3"}, "c": nil, "d": nil, "e": {"4"}, "f": nil, "g": nil} {
		require.Equal(t, want, r.Params(name), name)
	}
	r = requestOf(t, `{"headers":null,"queryStringParameters":null,"multiValueQueryStringParameters":null,"body":null}`)
	require.Equal(t, Request{}, *r)
	r = requestOf(t, `{"path":"/a","path":"/b","headers":{"X-KV-After":"\ud800","x-kv-cache":"\ud83d\ude00"},"body":"`+"\xff"+`"}`)
	require.Equal(t, []string{"/b", "\ufffd", "😀", "\ufffd"}, []string{r.Path, r.Headers.KVAfter, r.Headers.KVCache, r.Body})
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

// A parameter that cannot be decoded must not be ignored.
func TestParametersOfAWrongType(t *testing.T) {
	t.Parallel()
	for _, field := range []string{"queryStringParameters", "multiValueQueryStringParameters"} {
		for _, value := range []string{`[]`, `"a"`, `1`, `{"a":1}`, `{"a":true}`, `{"a":{}}`, `{"a":["b",1]}`, `{"a":[["b"]]}`, `{"a":["b",{}]}`} {
			require.Error(t, decodeEvent([]byte(`{"`+field+`":`+value+`}`), &Request{}), "%s: %s", field, value)
		}
	}
}

func TestEventReadsLikeEncodingJSON(t *testing.T) {
	t.Parallel()
	for _, text := range oddEvents {
		requireSameEvent(t, []byte(text))
	}
}

func FuzzEvent(f *testing.F) {
	for _, text := range oddEvents {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) { requireSameEvent(t, text) })
}
