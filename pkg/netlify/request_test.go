package netlify

import (
	"encoding/json"
	"testing"

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

// FuzzEvent compares what is read of an event with what encoding/json reads of it.
func FuzzEvent(f *testing.F) {
	for _, text := range append(oddBodies,
		`{"httpMethod":"GET","headers":{"a":"b","A":"c"},"multiValueHeaders":{"a":["b",null]},"queryStringParameters":null,"isBase64Encoded":true,"body":null}`,
		`{"HTTPMETHOD":"GET","Headers":null,"rawurl":"x","BLOBS":"y","multiValueQueryStringParameters":{"a":[]}}`,
		`{"httpMethod":"GET","requestContext":{"authorizer":{"a":[1,{"b":null}]},"identity":{"sourceIp":"::1"},"requestTimeEpoch":1}}`,
		`{"httpMethod":"GET","body":"\ud800","isBase64Encoded":false,"httpMethod":"POST"}`) {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var got, want Request
		if json.Unmarshal(text, &want) == nil && decodeEvent(text, &got) == nil {
			require.Equal(t, want, got, "%q", text)
		}
	})
}
