package netlify

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

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
