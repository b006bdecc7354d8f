package netlify

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

// FuzzAddress reads any address. What it reads must be a store and a key that can be, and they must come back from the
// address that is made of them.
func FuzzAddress(f *testing.F) {
	for _, seed := range []string{"", "/", "/s", "/s/", "/s/k", "//", "/s//k/", "/s/%2F", "/s/%", "/%2F/k", "/s/../k", "/s/%2E%2e", "/s/%00", "/s/\xff", "/%C2%85/k", "/s/k?a#b", "x/s/k", "/s/a+b c", "/s/%e2%82%ac"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, rest string) {
		for _, raw := range []string{"", "https://site.example/api/kv/entries" + rest} {
			at, err := resourceOf(&Request{Path: "/api/kv/entries" + rest, RawURL: raw})
			if err != nil {
				require.Equal(t, kv.CodeInvalidInput, kv.CodeOf(err))
				continue
			}
			if at.hasStore {
				require.NoError(t, kv.ValidateStore(at.store))
			}
			if at.hasKey {
				require.NoError(t, kv.ValidateKey(at.key))
				again, err := resourceOf(&Request{RawURL: "https://site.example/.netlify/functions/kv-entries/" + url.PathEscape(at.store) + "/" + url.PathEscape(at.key)})
				require.NoError(t, err)
				require.Equal(t, at, again)
			}
		}
	})
}

// FuzzEntryHeaders writes an entry with any headers. What is accepted must come back in headers that can be sent.
func FuzzEntryHeaders(f *testing.F) {
	f.Add("text/plain; charset=utf-8", `{"a":"ä😀"}`, "1.5", "", "", "*")
	f.Add("a/b; c=\"\x01\"", `{"a":"\ud800"}`, "1e400", "2027-01-31T12:00:00.123456789+14:00", `W/"a", b`, ``)
	f.Add("application/json", "{\"a\":\n1}", "-0", "9999-12-31T23:59:59Z", `"`, `"*"`)
	f.Add("multipart/form-data; boundary=x", "{\"\u007f\":1}", "", "1970-01-01T00:00:00Z", ",", `"a"`)
	f.Fuzz(func(t *testing.T, contentType, metadata, ttl, expires, ifMatch, ifNoneMatch string) {
		m := newMemoryEntries()
		r := invoke(t, Entries(m), entryEvent(t, "PUT", "/api/kv/entries/s/k", []byte("{}"), "Content-Type", contentType, "X-KV-Metadata", metadata,
			"X-KV-TTL", ttl, "X-KV-Expires", expires, "If-Match", ifMatch, "If-None-Match", ifNoneMatch))
		require.Contains(t, []int{201, 400, 412}, r.StatusCode, r.Body)
		if r.StatusCode != http.StatusCreated {
			return
		}
		operation := m.asked.batch.Operations[0]
		require.Nil(t, operation.IfMatch, "there was no entry")
		require.Equal(t, strings.Trim(ttl, jsonSpace) != "", operation.TTL != 0, "a time to live is not ignored")
		require.Equal(t, strings.Trim(expires, jsonSpace) != "", !operation.Expires.IsZero(), "an expiry is not ignored")
		get := invoke(t, Entries(m), entryEvent(t, "GET", "/api/kv/entries/s/k", nil))
		require.Equal(t, http.StatusOK, get.StatusCode)
		for name, value := range get.Headers {
			require.False(t, strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c > '~' }), "%s: %q", name, value)
		}
		if metadata = strings.ToValidUTF8(metadata, "\ufffd"); strings.Trim(metadata, jsonSpace) != "" {
			require.JSONEq(t, metadata, get.Headers["X-KV-Metadata"])
		}
		if at := get.Headers["X-KV-Expires"]; at != "" {
			_, err := time.Parse(time.RFC3339, at)
			require.NoError(t, err)
		}
	})
}

// FuzzBatch sends any body. A batch that is accepted has a result for each operation, and puts keep their bytes.
func FuzzBatch(f *testing.F) {
	for _, body := range []string{
		batchOf(`{"op":"put","key":"k","value":{"a":1.0,"a":"\ud800"},"metadata":{"b":"\u0000"},"ttl":1}`, `{"op":"get","key":"k"}`, `{"op":"take","key":"k"}`),
		batchOf(`{"op":"increment","key":"n","by":2}`, `{"op":"check","key":"n","ifMatch":"e1"}`, `{"op":"delete","key":"n","ifMatch":"W/\"e1\""}`),
		`{"atomic":true,"store":"s","operations":[{"op":"put","key":"k","base64":"AP8=","contentType":"a/b","indexes":[{"key":"i","member":5}]},{"op":"get","key":"x"}]}`,
		batchOf(`{"op":"put","key":"","value":1}`), `{"operations":[[]]}`, `{"operations":null,"store":null}`,
	} {
		f.Add(body)
	}
	for _, body := range oddBodies {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		m := newMemoryEntries()
		r := invoke(t, Batch(m), post(body))
		require.Less(t, r.StatusCode, 500, r.Body)
		requirePromises(t, http.MethodPost, r)
		if m.asked.batch.Operations == nil {
			require.Contains(t, []int{400, 422}, r.StatusCode, r.Body)
			return
		}
		require.Len(t, results(t, r), len(m.asked.batch.Operations))
		for _, o := range m.asked.batch.Operations {
			if o.ContentType == "application/json" && o.Action == kv.ActionPut {
				require.Contains(t, strings.ToValidUTF8(body, "\ufffd"), string(o.Data), "the text of a value")
				require.True(t, json.Valid(o.Data) || o.Store != kv.DefaultStore)
			}
		}
	})
}
