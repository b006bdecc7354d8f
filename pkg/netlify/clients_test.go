package netlify

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
)

// pagedEntries are [memoryEntries] that expire, and that can be listed in pages with folded prefixes.
type pagedEntries struct {
	*memoryEntries
	clock func() time.Time
}

func newPagedEntries() pagedEntries {
	m := newMemoryEntries()
	return pagedEntries{m, func() time.Time { return m.now }}
}

// put creates an entry without a request.
func (p pagedEntries) put(store, key string) {
	p.operate(kv.Operation{Action: kv.ActionPut, Store: store, Key: key})
}

func (p pagedEntries) Apply(ctx context.Context, b kv.Batch) (kv.BatchResult, error) {
	for _, operation := range b.Operations {
		if err := operation.Validate(); err != nil {
			return kv.BatchResult{}, err
		}
	}
	return p.memoryEntries.Apply(ctx, b)
}

func (p pagedEntries) GetEntry(ctx context.Context, store, key string, f kv.Freshness) (kv.EntryResult, error) {
	result, err := p.memoryEntries.GetEntry(ctx, store, key, f)
	if err == nil && !result.Expires.IsZero() && !p.clock().Before(result.Expires) {
		return kv.EntryResult{}, &kv.Error{Code: kv.CodeNotFound, Message: "Key not found"}
	}
	return result, err
}

func (p pagedEntries) ListEntries(_ context.Context, q kv.EntryQuery, _ kv.Freshness) (kv.ReadResult, error) {
	type listed struct {
		Key       string `json:"key"`
		ETag      string `json:"etag"`
		Size      int64  `json:"size"`
		UpdatedAt string `json:"updatedAt"`
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var keys []string
	for at := range maps.Keys(p.entries) {
		if at[0] == q.Store && strings.HasPrefix(at[1], q.Prefix) {
			keys = append(keys, at[1])
		}
	}
	slices.Sort(keys)
	entries, prefixes, last, cursor := []listed{}, []string{}, "", (*string)(nil)
	for _, key := range keys {
		name, folded := key, false
		if at := strings.Index(key[len(q.Prefix):], q.Delimiter); q.Delimiter != "" && at >= 0 {
			name, folded = key[:len(q.Prefix)+at+len(q.Delimiter)], true
		}
		if q.After != nil && name <= q.After.Key || folded && slices.Contains(prefixes, name) {
			continue
		}
		if len(entries)+len(prefixes) == cmp.Or(q.Limit, kv.DefaultEntryLimit) {
			text := kv.Cursor{Key: last, Position: []byte("null")}.String()
			cursor = &text
			break
		}
		last = name
		if folded {
			prefixes = append(prefixes, name)
			continue
		}
		e := p.entries[[2]string{q.Store, key}]
		entries = append(entries, listed{key, e.ETag, e.Size, timestamp(e.Updated)})
	}
	body, err := json.Marshal(map[string]any{"entries": entries, "prefixes": prefixes, "pagination": map[string]any{"hasMore": cursor != nil, "nextCursor": cursor}})
	return kv.ReadResult{Body: string(body)}, cmp.Or(p.err, err)
}

// The tables of docs/CLIENTS.md, which tests/clients writes, must have every status that a function may send. 424 is
// only inside a response of kv-batch.
func TestTheDocumentationHasEveryStatus(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/CLIENTS.md")
	require.NoError(t, err)
	_, tables, found := strings.Cut(string(page), "<!-- statuses: begin -->")
	require.True(t, found)
	for code, status := range statusOf {
		if status != http.StatusFailedDependency {
			require.Equal(t, 3, strings.Count(tables, strconv.Itoa(status)), "%d, as for %s: add it to statuses in tests/clients", status, code)
		}
	}
}

// FuzzClients sends random requests of both protocols: what was written comes back byte for byte, with its metadata,
// and no request makes a function fail.
func FuzzClients(f *testing.F) {
	f.Add("PUT", "site:s/k", "text/plain", "b64;eyJhIjoxfQ==", "", "60", []byte(`{"a":1}`))
	f.Add("PUT", "s/a/b", kv.ContentTypeBytes, "b64;W10=", "*", "0", []byte("\xff"))
	f.Add("GET", "site:s/%", "image/png", "x", `"e1", W/"e2"`, "1e300", []byte(nil))
	f.Add("DELETE", "s/a/", "application/json", "b64;e30", "", "", []byte("not JSON"))
	f.Add("DELETE", "deploy:1:x", "", "b64;eyJ4IjoiXHVkODAwIn0=", "", "-1", []byte("\ufeff"))
	f.Add("HEAD", "kv/x?y", "x", "", "", "", []byte("1"))
	f.Fuzz(func(t *testing.T, method, path, contentType, metadata, ifNoneMatch, ttl string, body []byte) {
		headers := map[string]string{"content-type": contentType, blobs.MetadataHeader: metadata, "if-none-match": ifNoneMatch, "x-ttl": ttl}
		for prefix, endpoint := range map[string]Endpoint{"/api/kv/blobs/": BlobsAPI(newPagedEntries()), "/api/kv/storage/": StorageAPI(newPagedEntries())} {
			url := prefix + path
			r := invoke(t, endpoint, entryEvent(t, method, url, body, pairsOf(headers)...))
			require.Less(t, r.StatusCode, 500, r.Body)
			if method != http.MethodPut || r.StatusCode != http.StatusOK {
				continue
			}
			got := invoke(t, endpoint, entryEvent(t, http.MethodGet, url, nil, "accept", kv.ContentTypeBytes))
			require.Equal(t, http.StatusOK, got.StatusCode, got.Body)
			require.Equal(t, string(body), string(got.bytes(t)))
			require.Equal(t, r.Headers["ETag"], got.Headers["ETag"])
			if prefix == "/api/kv/blobs/" && metadata != "" {
				sent, err := blobs.DecodeMetadata(metadata)
				require.NoError(t, err)
				back, err := blobs.DecodeMetadata(got.Headers[blobs.MetadataHeader])
				require.NoError(t, err)
				require.JSONEq(t, sent, back)
			}
		}
	})
}

func pairsOf(headers map[string]string) (pairs []string) {
	for name, value := range headers {
		pairs = append(pairs, name, value)
	}
	return pairs
}
