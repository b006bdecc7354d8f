package kv

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"time"
)

// Reader reads like a [Store], and says where each result came from. [Cache] implements it; [Uncached] makes one of
// any store. With [CodeNotFound], Get also returns a result without a body. With any other error the result is zero.
type Reader interface {
	Get(ctx context.Context, key string, f Freshness) (ReadResult, error)
	List(ctx context.Context, q ListQuery, f Freshness) (ReadResult, error)
	Query(ctx context.Context, q Query, f Freshness) (ReadResult, error)
	// Stats returns the cache's counters; all zero without a cache.
	Stats() CacheStats
}

// Freshness restricts what a cache may return for one read. The zero value adds no restriction.
type Freshness struct {
	// Bypass reads from the database.
	Bypass bool
	// MaxAge replaces [CacheConfig.MaxStale] for this read; nil leaves it.
	MaxAge *time.Duration
	// After is a [Written].Version: the result must not be older than that write. Any other text, or a version from
	// before a restart of the database, reads from the database.
	After string
}

// ReadResult is the result of a [Reader].
type ReadResult struct {
	// Body is the JSON text that the method of [Store] returns.
	Body string
	// Tag identifies Body, in every process.
	Tag    string
	Source Source
	// Age is how long ago the result was known to be current.
	Age time.Duration
	// Compared is the outcome of a comparison with the other store; "" without mirror.Compare.
	Compared Compared
	// Database is how long the read waited for the database.
	Database time.Duration
}

// Source is where a result came from.
type Source string

const (
	SourceHit         Source = "hit"         // from memory, within the allowed staleness
	SourceMiss        Source = "miss"        // from the database: not in memory, or changed since
	SourceRevalidated Source = "revalidated" // from memory, and just confirmed by the database
	SourceBypass      Source = "bypass"      // from the database, as the caller asked
	SourceOff         Source = "off"         // from the database: there is no cache
)

// Compared is the outcome of a comparison of the two stores.
type Compared string

const (
	ComparedMatch   Compared = "match"
	ComparedDiffers Compared = "differs"
	ComparedSkipped Compared = "skipped" // not in the sample, or the other store failed or was too slow
)

func newReadResult(body string, source Source) ReadResult {
	sum := sha256.Sum256([]byte(body))
	return ReadResult{Body: body, Tag: base64.RawURLEncoding.EncodeToString(sum[:16]), Source: source}
}

// Uncached returns a reader that reads from the store every time.
func Uncached(store Store) Reader { return uncached{store} }

type uncached struct{ store Store }

func (u uncached) Get(ctx context.Context, key string, _ Freshness) (ReadResult, error) {
	return readUncached(func() (string, error) { return u.store.Get(ctx, key) })
}

func (u uncached) List(ctx context.Context, q ListQuery, _ Freshness) (ReadResult, error) {
	return readUncached(func() (string, error) { return u.store.List(ctx, q) })
}

func (u uncached) Query(ctx context.Context, q Query, _ Freshness) (ReadResult, error) {
	return readUncached(func() (string, error) { return u.store.Query(ctx, q) })
}

func (u uncached) Stats() CacheStats { return CacheStats{} }

func readUncached(read func() (string, error)) (ReadResult, error) {
	began := time.Now()
	body, err := read()
	if err != nil && CodeOf(err) != CodeNotFound {
		return ReadResult{}, err
	}
	result := newReadResult(body, SourceOff)
	result.Database = time.Since(began)
	return result, err
}
