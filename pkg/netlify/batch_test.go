package netlify

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

// batchOf returns the body of a batch.
func batchOf(operations ...string) string {
	return `{"operations":[` + strings.Join(operations, ",") + `]}`
}

// results are the results of a response, each as its text.
func results(t testing.TB, r response) (texts []string) {
	t.Helper()
	var body struct{ Results []json.RawMessage }
	require.NoError(t, json.Unmarshal(r.bytes(t), &body), r.Body)
	for _, text := range body.Results {
		texts = append(texts, string(text))
	}
	return texts
}

func TestOperationsOfABatch(t *testing.T) {
	t.Parallel()
	m := newMemoryEntries()
	put := func(at [2]string, o kv.Operation, isJSON bool) { m.put(at, o, isJSON) }
	put([2]string{"kv", "json"}, kv.Operation{Data: []byte(`{ "b":1.0,"b":"\u0000<" }`), ContentType: "application/json", Metadata: `{"a":"ä"}`, Expires: m.now}, true)
	put([2]string{"kv", "typed"}, kv.Operation{Data: []byte(`[1]`), ContentType: "text/plain"}, true)
	put([2]string{"s", "ld"}, kv.Operation{Data: []byte(`{}`), ContentType: "Application/LD+JSON; a=b"}, true)
	put([2]string{"s", "text"}, kv.Operation{Data: []byte(`{}`), ContentType: "text/plain"}, true)
	put([2]string{"s", "broken"}, kv.Operation{Data: []byte("\xff"), ContentType: "application/ld+json"}, false)
	put([2]string{"s", "n"}, kv.Operation{Data: []byte(`5`), ContentType: "application/json", Expires: m.now}, true)
	for _, c := range []struct{ name, operation, want string }{
		{"GetJSON", `{"op":"get","key":"json"}`, `{"status":200,"etag":"e1","value":{ "b":1.0,"b":"\u0000<" },"contentType":"application/json","updatedAt":"2027-01-02T03:04:05.678Z","metadata":{"a":"ä"},"expiresAt":"2027-01-02T03:04:05.678Z"}`},
		{"GetJSONOfTheStoreKV", `{"op":"get","key":"typed"}`, `{"status":200,"etag":"e2","value":[1],"contentType":"text/plain","updatedAt":"2027-01-02T03:04:05.678Z"}`},
		{"GetJSONByItsType", `{"op":"get","key":"ld","store":"s"}`, `{"status":200,"etag":"e3","value":{},"contentType":"Application/LD+JSON; a=b","updatedAt":"2027-01-02T03:04:05.678Z"}`},
		{"GetText", `{"op":"get","store":"s","key":"text"}`, `{"status":200,"etag":"e4","base64":"e30=","contentType":"text/plain","updatedAt":"2027-01-02T03:04:05.678Z"}`},
		{"GetBytesOfATypeOfJSON", `{"op":"get","store":"s","key":"broken"}`, `{"status":200,"etag":"e5","base64":"/w==","contentType":"application/ld+json","updatedAt":"2027-01-02T03:04:05.678Z"}`},
		{"GetNothing", `{"op":"get","store":"s","key":"json"}`, `{"status":404,"error":"because not_found","code":"not_found"}`},
		{"Increment", `{"op":"increment","store":"s","key":"n","by":2}`, `{"status":200,"etag":"e7","value":7}`},
		{"IncrementNothing", `{"op":"increment","key":"new","ttl":60}`, `{"status":201,"etag":"e8","value":1,"expiresAt":"2027-01-02T03:05:05.678Z"}`},
		{"IncrementNoNumber", `{"op":"increment","key":"json"}`, `{"status":409,"error":"because conflict","code":"conflict","etag":"e1"}`},
		{"Check", `{"op":"check","key":"json","ifMatch":"e1"}`, `{"status":200,"etag":"e1"}`},
		{"CheckFails", `{"op":"check","key":"json","ifMatch":"\"e2\", W/\"e3\""}`, `{"status":412,"error":"because condition_failed","code":"condition_failed","etag":"e1"}`},
		{"CheckNothingThere", `{"op":"check","key":"nowhere","ifNoneMatch":"*"}`, `{"status":200}`},
		{"CheckFailsWithoutAnEntry", `{"op":"check","key":"nowhere","ifMatch":"*"}`, `{"status":412,"error":"because condition_failed","code":"condition_failed"}`},
		{"Create", `{"op":"put","key":"c","value":null,"ifNoneMatch":"*","ttl":1.5}`, `{"status":201,"etag":"e9","expiresAt":"2027-01-02T03:04:07.178Z"}`},
		{"CreateAgain", `{"op":"put","key":"c","value":null,"ifNoneMatch":"*"}`, `{"status":412,"error":"because condition_failed","code":"condition_failed","etag":"e9"}`},
		{"Replace", `{"op":"put","key":"c","value":1,"ifMatch":"e9"}`, `{"status":200,"etag":"e10"}`},
		{"Take", `{"op":"take","key":"c"}`, `{"status":200,"etag":"e10","value":1,"contentType":"application/json","updatedAt":"2027-01-02T03:04:05.678Z"}`},
		{"TakeAgain", `{"op":"take","key":"c"}`, `{"status":404,"error":"because not_found","code":"not_found"}`},
		{"Delete", `{"op":"delete","key":"typed"}`, `{"status":200,"deleted":true}`},
		{"DeleteAgain", `{"op":"delete","key":"typed"}`, `{"status":200,"deleted":false}`},
		{"DeleteOther", `{"op":"delete","key":"json","ifMatch":"e2"}`, `{"status":412,"error":"because condition_failed","code":"condition_failed","etag":"e1"}`},
		{"NotJSON", `{"op":"put","key":"x","base64":"/w=="}`, `{"status":415,"error":"because not_json","code":"not_json"}`},
		{"KeyTooLong", `{"op":"get","key":"` + strings.Repeat("k", 1025) + `"}`, `{"status":400,"error":"because invalid_input","code":"invalid_input"}`},
	} { // in this order: one may need what another wrote
		r := invoke(t, Batch(m), post(batchOf(c.operation)))
		require.Equal(t, http.StatusOK, r.StatusCode, "%s: %s", c.name, r.Body)
		require.Equal(t, []string{c.want}, results(t, r), c.name)
		require.Regexp(t, `^\{"results":\[.*\],"timestamp":"[^"]*"\}$`, r.Body)
		require.Equal(t, "v1", r.Headers["X-KV-Version"])
	}
}

func TestAPutOfABatch(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		operation string
		want      kv.Operation
	}{
		"Value":       {`{"op":"put","key":"k","value": {"a" : "\ud800", "a":1e400}` + "\n}", kv.Operation{Data: []byte(`{"a" : "\ud800", "a":1e400}`), ContentType: "application/json"}},
		"Null":        {`{"value":null,"key":"k","op":"put","base64":null,"ttl":null,"metadata":null,"indexes":null,"ifMatch":null}`, kv.Operation{Data: []byte(`null`), ContentType: "application/json"}},
		"Text":        {`{"op":"put","key":"k","value":"text","contentType":"application/vnd.x+json"}`, kv.Operation{Data: []byte(`"text"`), ContentType: "application/vnd.x+json"}},
		"Bytes":       {`{"op":"put","key":"k","base64":"AP8="}`, kv.Operation{Data: []byte{0, 255}}},
		"NoBytes":     {`{"op":"put","key":"k","base64":"","contentType":""}`, kv.Operation{Data: []byte{}}},
		"All":         {`{"op":"put","store":"t","key":"k","base64":"AP8=","contentType":"image/png","metadata":{"a" : "<>"},"expiresAt":"2027-01-31T12:00:00Z","ifMatch":"W/\"a\", \"b\"","ifNoneMatch":"c","indexes":[{"key":"i","member":"m"},{"member":5.0,"key":"j"}]}`, kv.Operation{Store: "t", Data: []byte{0, 255}, ContentType: "image/png", Metadata: `{"a":"<>"}`, Expires: time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC), Precondition: kv.Precondition{IfMatch: []string{"a", "b"}, IfNoneMatch: []string{"c"}}, Indexes: []kv.Index{{Key: "i", Member: "m"}, {Key: "j", Member: "\x015.0"}}}},
		"TTLZero":     {`{"op":"put","key":"k","value":1,"ttl":0,"indexes":[]}`, kv.Operation{Data: []byte("1"), ContentType: "application/json", TTL: -1, Indexes: []kv.Index{}}},
		"KeyIsNoPath": {`{"op":"put","key":"\ud83d\ude00/../%41","value":1}`, kv.Operation{Key: "😀/../%41", Data: []byte("1"), ContentType: "application/json"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemoryEntries()
			r := invoke(t, Batch(m), post(`{"store":"s","atomic":false,"operations":[`+c.operation+`]}`))
			require.Equal(t, http.StatusOK, r.StatusCode, r.Body)
			c.want.Action = kv.ActionPut
			if c.want.Store == "" {
				c.want.Store = "s"
			}
			if c.want.Key == "" {
				c.want.Key = "k"
			}
			require.Equal(t, kv.Batch{Operations: []kv.Operation{c.want}}, m.asked.batch)
		})
	}
}

func TestInvalidBatches(t *testing.T) {
	t.Parallel()
	get := `{"op":"get","key":"k"}`
	for name, c := range map[string]struct{ body, says string }{
		"Empty":            {``, "operations must be an array, got nothing"},
		"NoObject":         {`[]`, "operations must be an array, got nothing"},
		"NoArray":          {`{"operations":{}}`, "operations must be an array, got {}"},
		"NoOperations":     {`{"operations":[]}`, "operations must be 1 to 1000, got 0"},
		"TooMany":          {batchOf(strings.Split(strings.Repeat(get+" ", 1001)[:1001*len(get)+1000], " ")...), "operations must be 1 to 1000, got 1001"},
		"UnknownField":     {`{"operation":[]}`, `"operation" is not a field of kv-batch: did you mean operations?`},
		"FieldTwice":       {`{"operations":[` + get + `],"operations":[` + get + `]}`, `"operations" is given twice`},
		"Atomic":           {`{"atomic":"true","operations":[` + get + `]}`, `atomic must be true or false, got "true"`},
		"Store":            {`{"store":"a/b","operations":[` + get + `]}`, "the store's name must not contain slashes"},
		"StoreNumber":      {`{"store":1,"operations":[` + get + `]}`, "store must be a string"},
		"OperationText":    {batchOf(get, `"get"`), `operations[1] must be an object with op and key, got "get"`},
		"NoOp":             {batchOf(`{"key":"k"}`), "operations[0].op must be a string"},
		"UnknownOp":        {batchOf(get, get, `{"op":"set","key":"k"}`), `operations[2].op must be one of get, put, delete, take, increment, check, got "set"`},
		"NoKey":            {batchOf(`{"op":"get"}`), "operations[0].key must be a string of whole characters, got nothing"},
		"KeyNumber":        {batchOf(`{"op":"get","key":1}`), "operations[0].key must be a string of whole characters, got 1"},
		"KeyHalf":          {batchOf(`{"op":"get","key":"\ud800"}`), "operations[0].key must be a string of whole characters"},
		"UnknownOfOne":     {batchOf(`{"op":"put","key":"k","vaule":1}`), `operations[0]: "vaule" is not a field of an operation: did you mean value?`},
		"FieldOfOneTwice":  {batchOf(`{"op":"get","key":"k","key":"l"}`), "operations[0] has key twice"},
		"FieldOfAnother":   {batchOf(`{"op":"get","key":"k","value":null}`), "operations[0]: value is not for get, which has op, store, key"},
		"FieldOfADelete":   {batchOf(`{"op":"delete","key":"k","ifNoneMatch":"*"}`), "operations[0]: ifNoneMatch is not for delete, which has op, store, key, ifMatch"},
		"ValueAndBase64":   {batchOf(`{"op":"put","key":"k","value":null,"base64":""}`), "operations[0]: a put has either value, which is JSON, or base64"},
		"NoValue":          {batchOf(`{"op":"put","key":"k"}`), "operations[0]: a put has either value, which is JSON, or base64"},
		"Base64":           {batchOf(`{"op":"put","key":"k","base64":"a"}`), "operations[0].base64 must be base64"},
		"Base64URL":        {batchOf(`{"op":"put","key":"k","base64":"-_8="}`), "operations[0].base64 must be base64"},
		"Base64Number":     {batchOf(`{"op":"put","key":"k","base64":1}`), "operations[0].base64 must be a string"},
		"TTLAndExpiresAt":  {batchOf(`{"op":"put","key":"k","value":1,"ttl":1,"expiresAt":"2027-01-31T12:00:00Z"}`), "operations[0]: ttl and expiresAt both say"},
		"TTLText":          {batchOf(`{"op":"put","key":"k","value":1,"ttl":"60"}`), `operations[0].ttl must be a number of seconds, as in 60 or 0.5e3, got "60"`},
		"ExpiresAt":        {batchOf(`{"op":"put","key":"k","value":1,"expiresAt":"tomorrow"}`), "operations[0].expiresAt must be a time like"},
		"ExpiresAtNumber":  {batchOf(`{"op":"put","key":"k","value":1,"expiresAt":1}`), "operations[0].expiresAt must be a string"},
		"Metadata":         {batchOf(`{"op":"put","key":"k","value":1,"metadata":[]}`), "operations[0].metadata must be a JSON object"},
		"ContentType":      {batchOf(`{"op":"put","key":"k","value":1,"contentType":"a/b\r\nX: y"}`), "operations[0].contentType must be a media type"},
		"By":               {batchOf(`{"op":"increment","key":"k","by":"1"}`), `operations[0].by must be a number, got "1"`},
		"IfMatch":          {batchOf(`{"op":"delete","key":"k","ifMatch":" "}`), "operations[0].ifMatch must be * or an ETag"},
		"IfMatchTag":       {batchOf(`{"op":"delete","key":"k","ifMatch":"\"a"}`), "operations[0].ifMatch must be * or ETags"},
		"IfMatchArray":     {batchOf(`{"op":"delete","key":"k","ifMatch":["a"]}`), "operations[0].ifMatch must be a string"},
		"CheckNothing":     {batchOf(`{"op":"check","key":"k"}`), "operations[0]: a check needs ifMatch or ifNoneMatch"},
		"Indexes":          {batchOf(`{"op":"put","key":"k","value":1,"indexes":{}}`), "operations[0].indexes must be an array"},
		"IndexMember":      {batchOf(`{"op":"put","key":"k","value":1,"indexes":[{"key":"i","member":true}]}`), "operations[0].indexes[0].member must be a string or a number, got true"},
		"IndexField":       {batchOf(`{"op":"put","key":"k","value":1,"indexes":[{"key":"i","members":[]}]}`), "operations[0].indexes[0] must have no other fields than key, member"},
		"NotJSON":          {`{"operations":[`, "the body must be JSON"},
		"FirstErrorCounts": {batchOf(`{"op":"get","key":1}`, `{"op":"get"}`), "operations[0].key"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemoryEntries()
			r := invoke(t, Batch(m), post(c.body))
			require.Equal(t, http.StatusBadRequest, r.StatusCode, r.Body)
			var body struct{ Error string }
			require.NoError(t, json.Unmarshal([]byte(r.Body), &body))
			require.Contains(t, body.Error, c.says)
			require.Empty(t, m.asked.batch.Operations, "the store is not asked")
		})
	}
	r := invoke(t, Batch(newMemoryEntries()), event("POST", `"body":"{}","queryStringParameters":{"store":"s"}`))
	require.Contains(t, r.Body, "a POST is read from its body alone")
	require.Equal(t, http.StatusMethodNotAllowed, invoke(t, Batch(newMemoryEntries()), event("GET", "")).StatusCode)
}

// TestAnAtomicBatchThatFails has the status of the first operation that failed, and every operation its own.
func TestAnAtomicBatchThatFails(t *testing.T) {
	t.Parallel()
	m := newMemoryEntries()
	m.put([2]string{"kv", "there"}, kv.Operation{Data: []byte(`{}`)}, true)
	operations := []string{`{"op":"put","key":"a","value":1}`, `{"op":"put","key":"there","value":1,"ifNoneMatch":"*"}`, `{"op":"increment","key":"there2"}`, `{"op":"get","key":"nowhere"}`}
	r := invoke(t, Batch(m), post(`{"atomic":true,"operations":[`+strings.Join(operations, ",")+`]}`))
	require.Equal(t, http.StatusPreconditionFailed, r.StatusCode, r.Body)
	var body struct{ Error, Code, Timestamp string }
	require.NoError(t, json.Unmarshal([]byte(r.Body), &body))
	require.Equal(t, "nothing was applied, because operations[1] failed: because condition_failed", body.Error)
	require.Equal(t, "condition_failed", body.Code)
	require.NotEmpty(t, body.Timestamp)
	require.Equal(t, []string{
		`{"status":424,"error":"not applied","code":"not_applied"}`, `{"status":412,"error":"because condition_failed","code":"condition_failed","etag":"e1"}`,
		`{"status":424,"error":"not applied","code":"not_applied"}`, `{"status":404,"error":"because not_found","code":"not_found"}`,
	}, results(t, r))
	require.NotContains(t, r.Headers, "X-KV-Version")
	require.Len(t, m.entries, 1)

	r = invoke(t, Batch(m), post(`{"operations":[`+strings.Join(operations, ",")+`]}`))
	require.Equal(t, http.StatusOK, r.StatusCode)
	for i, status := range []int{201, 412, 201, 404} {
		require.Contains(t, results(t, r)[i], fmt.Sprintf(`{"status":%d`, status))
	}
	require.True(t, func() bool {
		invoke(t, Batch(m), post(`{"atomic":true,"operations":[`+operations[0]+`]}`))
		return m.asked.batch.Atomic
	}())
}

func TestIdempotencyKeyOfABatch(t *testing.T) {
	t.Parallel()
	digest := func(body string) string {
		m := newMemoryEntries()
		r := invoke(t, Batch(m), event("POST", `"headers":{"IDEMPOTENCY-KEY":" 6f1c1c0e-2b1d-4a53-9d0e-0c6a3b0f7a11 "},"body":`+string(kv.AppendString(nil, body))))
		require.Equal(t, http.StatusOK, r.StatusCode, r.Body)
		require.Equal(t, uuid.MustParse("6f1c1c0e-2b1d-4a53-9d0e-0c6a3b0f7a11"), m.asked.batch.Idempotency)
		return m.asked.batch.Digest
	}
	first := digest(batchOf(`{"op":"increment","key":"k"}`))
	require.Regexp(t, `^[0-9a-f]{64}$`, first)
	require.Equal(t, first, digest(` {"store":"kv", "operations":[{"key":"k","op":"increment"}],"atomic":false}`), "the same, spelled otherwise")
	for _, other := range []string{batchOf(`{"op":"increment","key":"l"}`), batchOf(`{"op":"increment","key":"k","by":2}`), `{"store":"s","operations":[{"op":"increment","key":"k"}]}`,
		`{"atomic":true,"operations":[{"op":"increment","key":"k"}]}`, batchOf(`{"op":"increment","key":"k"}`, `{"op":"get","key":"k"}`)} {
		require.NotEqual(t, first, digest(other), other)
	}
	for _, wrong := range []string{"1", "6f1c1c0e2b1d4a539d0e0c6a3b0f7a11", "{6f1c1c0e-2b1d-4a53-9d0e-0c6a3b0f7a11}", "00000000-0000-0000-0000-000000000000"} {
		r := invoke(t, Batch(newMemoryEntries()), event("POST", `"headers":{"Idempotency-Key":"`+wrong+`"},"body":`+string(kv.AppendString(nil, batchOf(`{"op":"get","key":"k"}`)))))
		require.Equal(t, http.StatusBadRequest, r.StatusCode, wrong)
		require.Contains(t, r.Body, "Idempotency-Key must be a UUID", wrong)
	}
}

// TestTheLargestEntryOfABatchFits: 4.5 MB of bytes beside what else may stand in a response.
func TestTheLargestEntryOfABatchFits(t *testing.T) {
	t.Parallel()
	m := newMemoryEntries()
	m.put([2]string{"s", "bytes"}, kv.Operation{Data: make([]byte, kv.MaxDataBytes), Metadata: `{"a":"` + strings.Repeat(`\"`, 1000) + `"}`}, false)
	m.put([2]string{"kv", "text"}, kv.Operation{Data: []byte(`"` + strings.Repeat(`\"`, kv.MaxDataBytes/2-1) + `"`)}, true)
	for _, operation := range []string{`{"op":"get","store":"s","key":"bytes"}`, `{"op":"get","key":"text"}`} {
		r := invoke(t, Batch(m), post(batchOf(operation, `{"op":"put","key":"k","value":1}`)))
		require.Equal(t, http.StatusOK, r.StatusCode)
		var got struct{ Base64 string }
		require.NoError(t, json.Unmarshal([]byte(results(t, r)[0]), &got))
		if got.Base64 != "" {
			require.Equal(t, kv.MaxDataBytes, base64.StdEncoding.DecodedLen(len(got.Base64)))
		}
	}
}
