package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// newStore returns the name of a store that nobody else uses. Its entries are deleted after the test.
func newStore(t testing.TB) string {
	t.Helper()
	needsSupabase(t)
	store := "e2e-" + uuid.NewString()
	t.Cleanup(func() {
		for range 10 { // a write in progress may land after a pass
			var list struct{ Count int }
			a, err := roundTrip(http.MethodGet, entriesPath+"/"+store)
			if err != nil || json.Unmarshal(a.body, &list) != nil || list.Count == 0 {
				return
			}
			_, _ = roundTrip(http.MethodDelete, entriesPath+"/"+store+params("confirm", fmt.Sprint(list.Count)))
		}
		t.Logf("not everything in the store %s could be removed", store)
	})
	return store
}

// result is that of one operation of a batch.
type result struct {
	Status            int
	ETag, Code, Error string
	Value             json.RawMessage
	Base64            *string
	Deleted           *bool
	ContentType       string
	ExpiresAt         string
	Metadata          json.RawMessage
}

// batchOf sends a batch.
func batchOf(fields string, options ...option) (a *response, results []result, err error) {
	if a, err = send(http.MethodPost, batchPath, append(options, body("{"+fields+"}"))...); err != nil {
		return nil, nil, err
	}
	var decoded struct{ Results []result }
	return a, decoded.Results, json.Unmarshal(a.body, &decoded)
}

func batch(t testing.TB, fields string, options ...option) (*response, []result) {
	t.Helper()
	skipIfStopped(t)
	a, results, err := batchOf(fields, options...)
	require.NoError(t, err)
	require.NotEmpty(t, results, "%v", a)
	return a, results
}

// TestEveryByteComesBack by each way of writing and reading.
func TestEveryByteComesBack(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for name, data := range map[string][]byte{
		"Empty": {}, "EveryByte": every, "NotUTF8": []byte("a\xff\xed\xa0\x80"), "Text": []byte("häß \"\\\u2028\x00\r\n"), "BOM": []byte("\ufeff{\"a\":1}"),
		"JSON": []byte(" {\"b\" : 1.0,\"b\":\"\\u0000\\ud800\", \"c\":1e400}\n"), "NearlyJSON": []byte(`{"a":1,}`), "Large": bytes.Repeat(every, 4_400_000/256),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			put, batched := entriesPath+"/"+store+"/put/"+name, entriesPath+"/"+store+"/batch/"+name
			require.Equal(t, http.StatusCreated, call(t, http.MethodPut, put, body(string(data)), header("Content-Type", "application/x-e2e")).status)
			operation := fmt.Sprintf(`{"op":"put","key":"batch/%s","base64":"%s"}`, name, base64.StdEncoding.EncodeToString(data))
			_, results := batch(t, `"store":"`+store+`","operations":[`+operation+`]`)
			require.Equal(t, http.StatusCreated, results[0].Status, "%+v", results[0])
			for path, contentType := range map[string]string{put: "application/x-e2e", batched: "application/octet-stream"} {
				a := call(t, http.MethodGet, path)
				require.Equal(t, http.StatusOK, a.status)
				require.True(t, bytes.Equal(data, a.body), "the bytes of %s came back as %d others", path, len(a.body))
				require.Equal(t, contentType, a.header.Get("Content-Type"))
				require.Equal(t, "no-cache, no-transform", a.header.Get("Cache-Control"))
				_, read := batch(t, `"store":"`+store+`","operations":[{"op":"get","key":`+quote(strings.TrimPrefix(path, entriesPath+"/"+store+"/"))+`}]`)
				require.Equal(t, http.StatusOK, read[0].Status)
				back, err := base64.StdEncoding.DecodeString(*read[0].Base64)
				require.NoError(t, err)
				require.True(t, bytes.Equal(data, back), "the bytes of %s by a batch", path)
			}
		})
	}
}

// TestJSONOfTheStoreKV: kv-entries and the old functions read and write the same entries.
func TestJSONOfTheStoreKV(t *testing.T) {
	t.Parallel()
	needsSupabase(t)
	prefix := newPrefix()
	const text = `{"b":1.0,"b":"\ud800","c":1e400}`
	address := entriesPath + "/kv/" + url.PathEscape(prefix+"k")
	require.Equal(t, http.StatusCreated, call(t, http.MethodPut, address, body(text)).status)
	require.Equal(t, text, string(get(t, prefix+"k").fields(t)["value"]))
	upsert(t, prefix+"k", `[1]`)
	require.Equal(t, `[1]`, string(call(t, http.MethodGet, address).body))
	for _, value := range []string{`"text"`, `1`, `true`, `null`} {
		require.Equal(t, http.StatusOK, call(t, http.MethodPut, address, body(value), header("Content-Type", "application/json")).status)
		require.Equal(t, value, string(call(t, http.MethodGet, address).body))
	}
	for _, other := range []string{"", "text", "\ufeff{}", "{\"a\":\"\xff\"}"} {
		call(t, http.MethodPut, address, body(other)).isError(t, http.StatusUnsupportedMediaType, "kv takes JSON only")
	}
	call(t, http.MethodPut, address, body(strings.Repeat("[", 2001)+strings.Repeat("]", 2001))).isError(t, http.StatusUnprocessableEntity, "nested")
}

func TestEntryHeadersAndConditions(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	path := entriesPath + "/" + store + "/a%2Fb"
	created := call(t, http.MethodPut, path, body("1"), header("If-None-Match", "*"), header("X-KV-TTL", "3600.5"), header("X-KV-Metadata", `{"by":"J\u00f6rg"}`))
	require.Equal(t, http.StatusCreated, created.status)
	require.NotEmpty(t, created.header.Get("X-KV-Version"))
	first := created.header.Get("ETag")
	require.Regexp(t, `^"[!#-~]+"$`, first, "a strong ETag")

	read := call(t, http.MethodGet, entriesPath+"/"+store+"/a/b")
	require.Equal(t, []string{first, `{"by":"J\u00f6rg"}`, "application/octet-stream"}, []string{read.header.Get("ETag"), read.header.Get("X-KV-Metadata"), read.header.Get("Content-Type")})
	expires, err := time.Parse(time.RFC3339, read.header.Get("X-KV-Expires"))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(time.Hour), expires, 5*time.Minute)
	_, err = http.ParseTime(read.header.Get("Last-Modified"))
	require.NoError(t, err)
	require.Equal(t, http.StatusNotModified, call(t, http.MethodGet, path, header("If-None-Match", "W/"+first)).status)
	require.Empty(t, call(t, http.MethodHead, path).body)

	for _, condition := range [][2]string{{"If-None-Match", "*"}, {"If-Match", `"other"`}, {"If-None-Match", first}} {
		a := call(t, http.MethodPut, path, body("2"), header(condition[0], condition[1]))
		a.isError(t, http.StatusPreconditionFailed)
		require.Equal(t, first, a.header.Get("ETag"), "the present one")
	}
	replaced := call(t, http.MethodPut, path, body("2"), header("If-Match", first))
	require.Equal(t, http.StatusOK, replaced.status)
	require.NotEqual(t, first, replaced.header.Get("ETag"))
	read = call(t, http.MethodGet, path)
	for _, absent := range []string{"X-KV-Metadata", "X-KV-Expires"} {
		require.Empty(t, read.header.Get(absent), "what the second PUT did not give is absent")
	}

	call(t, http.MethodDelete, path, header("If-Match", first)).isError(t, http.StatusPreconditionFailed)
	require.Equal(t, "true", string(call(t, http.MethodDelete, path, header("If-Match", replaced.header.Get("ETag"))).fields(t)["deleted"]))
	gone := call(t, http.MethodPut, path, body("3"), header("If-Match", "*"))
	gone.isError(t, http.StatusPreconditionFailed)
	require.Empty(t, gone.header.Get("ETag"))
	call(t, http.MethodGet, path).isError(t, http.StatusNotFound)
	again := call(t, http.MethodPut, path, body("1"))
	require.Equal(t, http.StatusCreated, again.status)
	require.NotContains(t, []string{first, replaced.header.Get("ETag")}, again.header.Get("ETag"), "an ETag never comes again for a key")

	for name, value := range map[string]string{
		"X-KV-TTL": "0.5", "X-Kv-Ttl": "315360001", "X-KV-Expires": "tomorrow", "X-KV-Metadata": `{"a":"` + strings.Repeat("x", 2048) + `"}`, "If-Match": `"a b"`, "Content-Type": "text",
		"Idempotency-Key": "1",
	} {
		call(t, http.MethodPut, path, body("4"), header(name, value)).isError(t, http.StatusBadRequest)
	}
	call(t, http.MethodPut, path, body("{"), header("Content-Type", "application/json")).isError(t, http.StatusBadRequest, "JSON")
}

func TestEntryAddresses(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	for path, key := range map[string]string{
		"a/b": "a/b", "a%2fb%2F": "a/b/", "%2Fa": "/a", "100%2525": "100%25", "a%3Fb%23c+d%20e": "a?b#c+d e", "%F0%9F%98%80": "😀", "%2E%2E%2Fx": "../x", "x%0Ay": "x\ny",
	} {
		require.Equal(t, http.StatusCreated, call(t, http.MethodPut, "/api/kv/entries/"+store+"/"+path, body(path)).status, path)
		_, results := batch(t, `"operations":[{"op":"get","store":"`+store+`","key":`+quote(key)+`}]`)
		require.Equal(t, base64.StdEncoding.EncodeToString([]byte(path)), *results[0].Base64, path)
	}
	for _, path := range []string{"/", "//k", "/" + store + "/", "/" + strings.Repeat("s", 65) + "/k", "/a%2Fb/k", "/a%0Ab/k", "/" + store + "/%ff", "/" + store + "/%00", "/" + store + "/" + strings.Repeat("k", 1025)} {
		call(t, http.MethodPut, entriesPath+path, body("1")).isError(t, http.StatusBadRequest)
	}
}

func TestListAndClearAStore(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	path := entriesPath + "/" + store
	var operations []string
	for _, key := range []string{"a", "b/1", "b/2", "b/c/3", "B", "b/%_"} {
		operations = append(operations, fmt.Sprintf(`{"op":"put","key":%q,"value":1,"metadata":{"k":%q}}`, key, key))
	}
	_, results := batch(t, `"store":"`+store+`","operations":[`+strings.Join(operations, ",")+`]`)
	require.Len(t, results, 6)

	type page struct {
		Entries []struct {
			Key, ETag, ContentType, UpdatedAt string
			Size                              int
			Metadata                          json.RawMessage
		}
		Prefixes   []string
		Count      int
		Pagination struct {
			HasMore    bool
			NextCursor *string
		}
	}
	pages := func(query ...string) (keys, prefixes []string) {
		cursor := ""
		for {
			var p page
			a := call(t, http.MethodGet, path+params(append(query, "cursor", cursor)...))
			require.NoError(t, json.Unmarshal(a.body, &p), "%v", a)
			require.Len(t, p.Entries, p.Count)
			for _, e := range p.Entries {
				require.Equal(t, []any{1, "application/json"}, []any{e.Size, e.ContentType})
				keys = append(keys, e.Key)
			}
			prefixes = append(prefixes, p.Prefixes...)
			require.Equal(t, p.Pagination.HasMore, p.Pagination.NextCursor != nil)
			if !p.Pagination.HasMore {
				return keys, prefixes
			}
			cursor = *p.Pagination.NextCursor
		}
	}
	for _, limit := range []string{"", "1", "2", "1000"} {
		keys, prefixes := pages("limit", limit)
		require.Equal(t, []string{"B", "a", "b/%_", "b/1", "b/2", "b/c/3"}, keys)
		require.Empty(t, prefixes)
		keys, prefixes = pages("limit", limit, "delimiter", "/")
		require.Equal(t, [][]string{{"B", "a"}, {"b/"}}, [][]string{keys, prefixes})
		keys, prefixes = pages("limit", limit, "delimiter", "/", "prefix", "b/")
		require.Equal(t, [][]string{{"b/%_", "b/1", "b/2"}, {"b/c/"}}, [][]string{keys, prefixes})
	}
	require.Contains(t, string(call(t, http.MethodGet, path+params("metadata", "true", "prefix", "a")).body), `"metadata":{"k":"a"}`)
	require.NotContains(t, string(call(t, http.MethodGet, path).body), "metadata")
	require.Contains(t, string(call(t, http.MethodGet, entriesPath).body), `{"store":"`+store+`","count":6,"more":false}`)
	call(t, http.MethodGet, path+params("starts", "a")).isError(t, http.StatusBadRequest, "did you mean")

	for _, confirm := range []string{"", "3", "5", "100000"} {
		call(t, http.MethodDelete, path+params("prefix", "b/", "confirm", confirm)).isError(t, http.StatusConflict)
	}
	a := call(t, http.MethodDelete, path+params("prefix", "b/"))
	require.Contains(t, a.errorText(t), "4", "how many there are")
	require.Equal(t, "4", string(call(t, http.MethodDelete, path+params("prefix", "b/", "confirm", "4")).fields(t)["deleted"]))
	keys, _ := pages()
	require.Equal(t, []string{"B", "a"}, keys)
}

func TestAtomicBatches(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	with := `"store":"` + store + `","atomic":true,"operations":[`
	a, results := batch(t, with+`{"op":"put","key":"a","value":1},{"op":"increment","key":"n"},{"op":"check","key":"c","ifNoneMatch":"*"}]`)
	require.Equal(t, http.StatusOK, a.status, "%v", a)
	require.Equal(t, []int{201, 201, 200}, []int{results[0].Status, results[1].Status, results[2].Status})
	for _, row := range []struct {
		operation string
		status    int
	}{
		{`{"op":"put","key":"c","value":2,"ifMatch":"x"}`, 412}, {`{"op":"get","key":"c"}`, 404}, {`{"op":"take","key":"c"}`, 404},
		{`{"op":"put","store":"kv","key":"c","base64":"/w=="}`, 415}, {`{"op":"put","key":"` + strings.Repeat("k", 1025) + `","value":1}`, 400},
		{`{"op":"put","key":"c","value":1,"ttl":0}`, 400}, {`{"op":"increment","key":"text"}`, 409},
	} {
		batch(t, `"store":"`+store+`","operations":[{"op":"put","key":"text","value":"t"}]`)
		a, results = batch(t, with+`{"op":"increment","key":"n"},`+row.operation+`,{"op":"delete","key":"a"}]`)
		require.Equal(t, row.status, a.status, "%v", a)
		require.Equal(t, []int{424, row.status, 424}, []int{results[0].Status, results[1].Status, results[2].Status}, "%v", a)
		_, now := batch(t, `"store":"`+store+`","operations":[{"op":"get","key":"n"},{"op":"get","key":"a"}]`)
		require.Equal(t, []string{"1", "1"}, []string{string(now[0].Value), string(now[1].Value)}, "nothing was applied: %s", row.operation)
	}
	for _, fields := range []string{
		with + `{"op":"get","key":"a"},{"op":"delete","key":"a"}]`, with + `]`, `"operations":[{"op":"set","key":"a"}]`, `"operations":[{"op":"put","key":"a","value":1,"base64":""}]`,
		`"operations":[` + strings.Repeat(`{"op":"get","key":"a"},`, 1000) + `{"op":"get","key":"a"}]`,
	} {
		call(t, http.MethodPost, batchPath, body("{"+fields+"}")).isError(t, http.StatusBadRequest, "operations")
	}
}

// TestARepeatedBatchAppliesOnce by its Idempotency-Key.
func TestARepeatedBatchAppliesOnce(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	key, fields := header("Idempotency-Key", uuid.NewString()), `"store":"`+store+`","operations":[{"op":"increment","key":"n"}]`
	require.NoError(t, inParallel(10, 20, func(int) error {
		_, results, err := batchOf(fields, key)
		if err == nil && string(results[0].Value) != "1" {
			err = fmt.Errorf("the increment was applied again: %s", results[0].Value)
		}
		return err
	}))
	call(t, http.MethodPost, batchPath, key, body(`{"store":"`+store+`","operations":[{"op":"increment","key":"m"}]}`)).isError(t, http.StatusUnprocessableEntity, "Idempotency-Key")
}

// TestRacesOfEntries: of many requests at once, as many succeed as may.
func TestRacesOfEntries(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	path := entriesPath + "/" + store

	t.Run("CreateOnly", func(t *testing.T) {
		t.Parallel()
		var created atomic.Int32
		require.NoError(t, inParallel(50, 100, func(i int) error {
			a, err := send(http.MethodPut, path+"/create", body(fmt.Sprint(i)), header("If-None-Match", "*"))
			switch {
			case err != nil:
				return err
			case a.status == http.StatusCreated:
				created.Add(1)
			case a.status != http.StatusPreconditionFailed:
				return fmt.Errorf("%v", a)
			}
			return nil
		}))
		require.EqualValues(t, 1, created.Load(), "creates that succeeded")
	})
	t.Run("RateLimit", func(t *testing.T) {
		t.Parallel()
		var passed atomic.Int32
		require.NoError(t, inParallel(50, 200, func(int) error {
			_, results, err := batchOf(`"store":"` + store + `","operations":[{"op":"increment","key":"limit","ttl":600}]`)
			var n int
			if err == nil {
				err = json.Unmarshal(results[0].Value, &n)
			}
			if n <= 5 {
				passed.Add(1)
			}
			return err
		}))
		require.EqualValues(t, 5, passed.Load(), "requests under a limit of 5")
	})
	t.Run("Take", func(t *testing.T) {
		t.Parallel()
		batch(t, `"store":"`+store+`","operations":[{"op":"put","key":"take","value":1}]`)
		var taken atomic.Int32
		require.NoError(t, inParallel(50, 100, func(int) error {
			_, results, err := batchOf(`"store":"` + store + `","operations":[{"op":"take","key":"take"}]`)
			if err == nil && results[0].Status == http.StatusOK {
				taken.Add(1)
			}
			return err
		}))
		require.EqualValues(t, 1, taken.Load(), "takes that got the entry")
	})
	t.Run("CompareAndSet", func(t *testing.T) {
		t.Parallel()
		require.Equal(t, http.StatusCreated, call(t, http.MethodPut, path+"/cas", body("0")).status)
		callers, writes := 8, 40 // each write makes all other callers try again
		if os.Getenv("LONG") != "" {
			callers, writes = 20, 100
		}
		require.NoError(t, inParallel(callers, writes, func(int) error {
			for {
				a, err := send(http.MethodGet, path+"/cas")
				if err != nil {
					return err
				}
				var n int
				if err := json.Unmarshal(a.body, &n); err != nil {
					return err
				}
				a, err = send(http.MethodPut, path+"/cas", body(fmt.Sprint(n+1)), header("If-Match", a.header.Get("ETag")))
				if err != nil || a.status == http.StatusOK {
					return err
				}
			}
		}))
		require.Equal(t, fmt.Sprint(writes), string(call(t, http.MethodGet, path+"/cas").body), "no write was lost")
	})
	t.Run("CrossingAtomicBatches", func(t *testing.T) {
		t.Parallel()
		require.NoError(t, inParallel(20, 100, func(i int) error {
			keys := []string{"x", "y", "z"}
			if i%2 == 0 {
				keys[0], keys[2] = keys[2], keys[0]
			}
			var operations []string
			for _, key := range keys {
				operations = append(operations, `{"op":"increment","key":"`+key+`"}`)
			}
			a, results, err := batchOf(`"store":"` + store + `","atomic":true,"operations":[` + strings.Join(operations, ",") + `]`)
			if err == nil && (a.status != http.StatusOK || string(results[0].Value) != string(results[1].Value) || string(results[1].Value) != string(results[2].Value)) {
				err = fmt.Errorf("the counters differ within a batch: %v", a)
			}
			return err
		}))
	})
}

// TestEntriesNeedSupabase: with Netlify Blobs as the primary, the error says so.
func TestEntriesNeedSupabase(t *testing.T) {
	t.Parallel()
	if !site.blobs {
		t.Skip("Supabase answers")
	}
	for _, path := range []string{entriesPath + "/s/k", blobsPath + "/site:s/k", storagePath + "/s/k"} {
		call(t, http.MethodGet, path).isError(t, http.StatusServiceUnavailable, "needs Supabase")
	}
	call(t, http.MethodPost, batchPath, body(`{"operations":[{"op":"get","key":"k"}]}`)).isError(t, http.StatusServiceUnavailable, "needs Supabase")
}
