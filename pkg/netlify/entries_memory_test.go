package netlify

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"netlify-supabase-kv/pkg/kv"
)

// memoryEntries is a store for tests of what this package adds to it. Real stores have their own tests (kvtest,
// tests/e2e).
type memoryEntries struct {
	mu      sync.Mutex
	now     time.Time
	writes  int
	entries map[[2]string]kv.OperationResult // by store and key
	asked   entriesAsked
	err     error
}

// entriesAsked is what a store was asked for.
type entriesAsked struct {
	freshness kv.Freshness
	query     kv.EntryQuery
	batch     kv.Batch
	prefix    string
	confirm   int
}

func newMemoryEntries() *memoryEntries {
	return &memoryEntries{now: time.Date(2027, 1, 2, 3, 4, 5, 678e6, time.UTC), entries: map[[2]string]kv.OperationResult{}}
}

func (m *memoryEntries) GetEntry(_ context.Context, store, key string, f kv.Freshness) (kv.EntryResult, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked.freshness = f
	found, exists := m.entries[[2]string{store, key}]
	from := kv.ReadResult{Source: kv.SourceMiss, Database: time.Millisecond}
	switch {
	case m.err != nil:
		return kv.EntryResult{}, m.err
	case !exists:
		return kv.EntryResult{ReadResult: from}, &kv.Error{Code: kv.CodeNotFound, Message: "Key not found"}
	}
	return kv.EntryResult{EntryInfo: found.EntryInfo, Data: found.Data, ReadResult: from}, nil
}

func (m *memoryEntries) ListEntries(_ context.Context, q kv.EntryQuery, f kv.Freshness) (kv.ReadResult, error) {
	m.asked.query, m.asked.freshness = q, f
	return kv.ReadResult{Body: `{"entries":[],"prefixes":[],"count":0,"pagination":{"limit":1000,"hasMore":false,"nextCursor":null}}`, Tag: "tag", Source: kv.SourceMiss}, m.err
}

func (m *memoryEntries) ListStores(context.Context) ([]kv.StoreCount, error) {
	counts := map[string]int{}
	for at := range m.entries {
		counts[at[0]]++
	}
	var stores []kv.StoreCount
	for _, store := range slices.Sorted(maps.Keys(counts)) {
		stores = append(stores, kv.StoreCount{Store: store, Count: counts[store], More: counts[store] > 2})
	}
	return stores, m.err
}

func (m *memoryEntries) Clear(_ context.Context, store, prefix string, confirm int) (int, string, error) {
	m.asked.prefix, m.asked.confirm = prefix, confirm
	var found [][2]string
	for at := range m.entries {
		if at[0] == store && strings.HasPrefix(at[1], prefix) {
			found = append(found, at)
		}
	}
	if len(found) != confirm {
		return 0, "", &kv.Error{Code: kv.CodeConflict, Message: fmt.Sprintf("there are %d entries", len(found))}
	}
	for _, at := range found {
		delete(m.entries, at)
	}
	return len(found), "v9", m.err
}

func (m *memoryEntries) Apply(_ context.Context, b kv.Batch) (kv.BatchResult, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked.batch = b
	if m.err != nil {
		return kv.BatchResult{}, m.err
	}
	before, result := maps.Clone(m.entries), kv.BatchResult{Failed: -1, Version: "v1"}
	for i, o := range b.Operations {
		one := m.operate(o)
		if one.Err != nil && b.Atomic && result.Failed < 0 {
			result.Failed = i
		}
		result.Results = append(result.Results, one)
	}
	if result.Failed >= 0 {
		m.entries, result.Version = before, ""
		for i := range result.Results {
			if result.Results[i].Err == nil {
				result.Results[i] = kv.OperationResult{Err: &kv.Error{Code: kv.CodeNotApplied, Message: "not applied"}}
			}
		}
	}
	return result, nil
}

func (m *memoryEntries) operate(o kv.Operation) kv.OperationResult {
	at := [2]string{o.Store, o.Key}
	found, exists := m.entries[at]
	found.Existed = exists
	fails := func(code kv.Code) kv.OperationResult {
		return kv.OperationResult{Err: &kv.Error{Code: code, Message: "because " + string(code)}, EntryInfo: kv.EntryInfo{ETag: found.ETag}}
	}
	isJSON := utf8.Valid(o.Data) && json.Valid(o.Data)
	switch {
	case kv.ValidateKey(o.Key) != nil:
		return fails(kv.CodeInvalidInput)
	case o.Action == kv.ActionPut && o.Store == kv.DefaultStore && !isJSON:
		return fails(kv.CodeNotJSON)
	case o.IfMatch != nil && !(exists && hasTag(o.IfMatch, found.ETag)), o.IfNoneMatch != nil && exists && hasTag(o.IfNoneMatch, found.ETag):
		return fails(kv.CodeConditionFailed)
	}
	switch o.Action {
	case kv.ActionGet, kv.ActionTake:
		if !exists {
			return fails(kv.CodeNotFound)
		}
		if o.Action == kv.ActionTake {
			delete(m.entries, at)
		}
	case kv.ActionDelete:
		delete(m.entries, at)
	case kv.ActionPut:
		found = m.put(at, o, isJSON)
	case kv.ActionIncrement:
		n, err := strconv.Atoi(string(found.Data))
		if exists && err != nil {
			return fails(kv.CodeConflict)
		}
		by, _ := strconv.Atoi(o.By)
		if o.By == "" {
			by = 1
		}
		o.Data, o.ContentType = []byte(strconv.Itoa(n+by)), "application/json"
		found = m.put(at, o, true)
	}
	return found
}

func (m *memoryEntries) put(at [2]string, o kv.Operation, isJSON bool) kv.OperationResult {
	_, existed := m.entries[at]
	m.writes++
	contentType := o.ContentType
	if contentType == "" {
		contentType = "application/octet-stream"
	}
	expires := o.Expires
	if o.TTL != 0 {
		expires = m.now.Add(o.TTL)
	}
	m.entries[at] = kv.OperationResult{Existed: existed, Data: o.Data, IsJSON: isJSON, EntryInfo: kv.EntryInfo{
		ETag: "e" + strconv.Itoa(m.writes), Size: int64(len(o.Data)), ContentType: contentType, Metadata: o.Metadata, Updated: m.now, Expires: expires,
	}}
	return m.entries[at]
}
