package kv

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"time"
)

// Reader answers reads and says how it came by the answers. [Cache] is one; [Uncached] makes one of any store. The
// arguments, answers and errors are those of [Store]. Where Get returns [CodeNotFound], its Answer tells how that was
// found out; with any other error the Answer is empty.
type Reader interface {
	Get(ctx context.Context, key string, f Freshness) (ReadResult, error)
	List(ctx context.Context, q ListQuery, f Freshness) (ReadResult, error)
	Query(ctx context.Context, q Query, f Freshness) (ReadResult, error)
	// Stats counts what the cache did since the process began; all zero without a cache.
	Stats() CacheStats
}

// Freshness is what a caller asks of one answer beyond what the cache is allowed anyway. The zero value asks for nothing.
type Freshness struct {
	// Bypass asks for an answer straight from the database.
	Bypass bool
	// After is a [Written].Version: the answer must not be older than that write. A text that is none, or the version of
	// a write that cannot be placed any more, gets an answer straight from the database, which is newer in any case.
	After string
}

// ReadResult is what a [Reader] gives.
type ReadResult struct {
	// Body is the JSON text that the method of [Store] returns.
	Body string
	// Tag is the same for the same Body, in every process, and another for another.
	Tag    string
	Source Source
	// Age is how long ago the answer was known to be current.
	Age time.Duration
	// Compared says what a comparison with the other store found; empty where none was asked for.
	Compared Compared
	// Database is how long the database was waited for.
	Database time.Duration
}

// Source is where an answer came from.
type Source string

const (
	SourceHit         Source = "hit"         // from memory, within the allowed staleness
	SourceMiss        Source = "miss"        // from the database: it was not in memory, or had changed
	SourceRevalidated Source = "revalidated" // in memory, and the database said just now that it holds
	SourceBypass      Source = "bypass"      // from the database, as the caller asked
	SourceOff         Source = "off"         // from the database: there is no cache
)

// Compared is what a comparison of the two stores found.
type Compared string

const (
	ComparedMatch   Compared = "match"
	ComparedDiffers Compared = "differs"
	ComparedSkipped Compared = "skipped" // this read was not among those compared, or the other store did not answer in time
)

func newReadResult(body string, source Source) ReadResult {
	sum := sha256.Sum256([]byte(body))
	return ReadResult{Body: body, Tag: base64.RawURLEncoding.EncodeToString(sum[:16]), Source: source}
}

// Uncached returns a reader that asks the store for every answer.
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
