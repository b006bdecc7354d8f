package kv

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// CacheConfig bounds a [Cache].
type CacheConfig struct {
	// Entries is the number of results kept, at least 1.
	Entries int
	// MaxBytes bounds the memory of all results and their requests. A larger result is not kept.
	MaxBytes int64
	// TTL is how long a result is kept after it was loaded, however often it has been revalidated.
	TTL time.Duration
	// MaxStale is how long after a look at the change feed results may come from memory without asking the database.
	// 0: every result is as new as its request.
	MaxStale time.Duration
	// KeepEmpty also keeps a Get without an entry and a Query without results. It is off by default, because programs
	// check whether something exists, write it, and check again at once.
	KeepEmpty bool
}

// DefaultCache is the configuration without variables.
var DefaultCache = CacheConfig{Entries: 1000, MaxBytes: 64 << 20, TTL: 5 * time.Minute}

// Cache is a [Reader] that keeps results of a Supabase project in memory. It is safe for concurrent use.
//
// Every instance of every function has its own cache, and rows are also edited by hand. So nobody can tell a cache
// what changed. It asks the database's change feed instead, with one cursor as of which every result in memory is
// current. While the last look at the feed is younger than MaxStale, results come from memory. After that a read goes
// to the database: a small result is loaded again, together with the changes since the cursor; for a large one only
// the changes are read. Either look counts for all results. Those that depend on a changed key are dropped, and the
// others are fresh again.
type Cache struct {
	store  *Supabase
	config CacheConfig
	now    func() time.Time
	large  int // bytes; a result of at least this size is revalidated by a look alone

	mu      sync.Mutex
	results *simplelru.LRU[string, *cachedResult]
	bytes   int64
	cursor  string    // the position in the change feed as of which all results are current; "" before the first look
	looked  time.Time // when the look that returned the cursor began
	warming bool      // StartWarm is loading, and reads must not move the cursor
	stats   CacheStats
}

// cachedResult is a result in memory.
type cachedResult struct {
	body   string
	tag    string
	scope  scope
	bytes  int64
	loaded time.Time
	// lasts is how long after loaded it may be served: the TTL, or until something in it expires.
	lasts time.Duration
}

// CacheStats are a cache's counters since it was made. Entries and Bytes are what it holds now.
type CacheStats struct {
	Hits          int64 // reads from memory, without the database
	Misses        int64 // reads from the database
	Revalidations int64 // reads from memory that the database confirmed
	Bypasses      int64 // reads from the database, as the caller asked
	Invalidations int64 // results dropped because a key changed
	Resets        int64 // looks after which everything was dropped
	Evictions     int64 // results dropped for room
	Entries       int64
	Bytes         int64
}

// Each calls what for every counter, in the order of the fields, with its name in the log and in headers.
func (s CacheStats) Each(what func(name string, n int64)) {
	what("hits", s.Hits)
	what("misses", s.Misses)
	what("revalidations", s.Revalidations)
	what("bypasses", s.Bypasses)
	what("invalidations", s.Invalidations)
	what("resets", s.Resets)
	what("evictions", s.Evictions)
	what("entries", s.Entries)
	what("bytes", s.Bytes)
}

// LogValue implements [slog.LogValuer].
func (s CacheStats) LogValue() slog.Value {
	attributes := make([]slog.Attr, 0, 9)
	s.Each(func(name string, n int64) { attributes = append(attributes, slog.Int64(name, n)) })
	return slog.GroupValue(attributes...)
}

// largeResult is the size in bytes at which loading again costs more than a look, and another round trip if the
// result changed.
const largeResult = 64 << 10

// resultOverhead is roughly what a result takes beside its texts, in bytes.
const resultOverhead = 512

// caches are those of this process. They outlive the invocations of a warm instance.
var caches struct {
	sync.Mutex
	made map[cacheKey]*Cache
}

type cacheKey struct {
	url, key, namespace string
	config              CacheConfig
}

// SharedCache returns this process's cache for the project and the configuration, which the first call makes.
func SharedCache(store *Supabase, config CacheConfig) *Cache {
	caches.Lock()
	defer caches.Unlock()
	key := cacheKey{store.url, store.key, store.namespace, config}
	if caches.made[key] == nil {
		if caches.made == nil {
			caches.made = map[cacheKey]*Cache{}
		}
		caches.made[key] = NewCache(store, config)
	}
	return caches.made[key]
}

// NewCache returns an empty cache of the store's results.
func NewCache(store *Supabase, config CacheConfig) *Cache {
	c := &Cache{store: store, config: config, now: time.Now, large: largeResult}
	results, err := simplelru.NewLRU(max(config.Entries, 1), func(_ string, a *cachedResult) { c.bytes -= a.bytes })
	if err != nil {
		panic(err) // only for a size below 1
	}
	c.results = results
	return c
}

// Get implements [Reader].
func (c *Cache) Get(ctx context.Context, key string, f Freshness) (ReadResult, error) {
	r, err := getRequest(c.store.space(DefaultStore), key)
	if err != nil {
		return ReadResult{}, err
	}
	return c.readKey(ctx, r, f)
}

// readKey reads one key, with [CodeNotFound] beside the result if nothing is there.
func (c *Cache) readKey(ctx context.Context, r readRequest, f Freshness) (ReadResult, error) {
	result, err := c.read(ctx, r, f)
	if err != nil {
		return ReadResult{}, err
	}
	return result, r.checkFound(readBody{text: result.Body})
}

// List implements [Reader].
func (c *Cache) List(ctx context.Context, q ListQuery, f Freshness) (ReadResult, error) {
	r, err := listRequest(c.store.space(DefaultStore), q)
	if err != nil {
		return ReadResult{}, err
	}
	return c.read(ctx, r, f)
}

// Query implements [Reader].
func (c *Cache) Query(ctx context.Context, q Query, f Freshness) (ReadResult, error) {
	r, err := queryRequest(c.store.namespace, q)
	if err != nil {
		return ReadResult{}, err
	}
	return c.read(ctx, r, f)
}

// Stats implements [Reader].
func (c *Cache) Stats() CacheStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	stats := c.stats
	stats.Entries, stats.Bytes = int64(c.results.Len()), c.bytes
	return stats
}

func (c *Cache) read(ctx context.Context, r readRequest, f Freshness) (ReadResult, error) {
	began := c.now()
	known, cursor, result := c.recall(r, f)
	if result != nil {
		return *result, nil
	}
	since := c.looksWith(known, f)
	if known != nil && !f.Bypass && len(known.body) >= c.large {
		holds, err := c.stillHolds(ctx, r, cursor)
		if err != nil {
			return ReadResult{}, err
		}
		if holds && !known.isOver(c.now()) {
			c.count(SourceRevalidated)
			return ReadResult{Body: known.body, Tag: known.tag, Source: SourceRevalidated, Database: age(began, c.now())}, nil
		}
		known, cursor, since = nil, c.position(), false // the look has just been made
	}
	loaded, err := c.load(ctx, r, known, cursor, since, c.allowed(f))
	if err != nil {
		return ReadResult{}, err
	}
	if f.Bypass {
		loaded.Source = SourceBypass
	}
	c.count(loaded.Source)
	loaded.Database = age(began, c.now())
	return loaded, nil
}

// recall looks into memory. It returns a result that may be served, or else the known one that must be revalidated,
// if any, and the cursor as of which that was current.
func (c *Cache) recall(r readRequest, f Freshness) (known *cachedResult, cursor string, result *ReadResult) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	known, _ = c.results.Get(r.id())
	if known != nil && known.isOver(now) {
		c.results.Remove(r.id())
		known = nil
	}
	unseen := age(c.looked, now)
	if known == nil || f.Bypass || unseen >= c.allowed(f) || f.After != "" && !covers(c.cursor, f.After) {
		return known, c.cursor, nil
	}
	c.stats.Hits++
	return known, c.cursor, &ReadResult{Body: known.body, Tag: known.tag, Source: SourceHit, Age: unseen}
}

// looksWith reports whether a load should also read the changes since the cursor. They cost a part of a round trip,
// and pay where a result in memory may be fresh for longer, or a caller's write should be covered from now on. A
// result loaded without them is newer than the cursor, so a later look can only drop it too often.
func (c *Cache) looksWith(known *cachedResult, f Freshness) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case f.Bypass:
		return false
	case c.cursor == "":
		return true
	case c.allowed(f) == 0:
		return false
	case known != nil || f.After != "" && !covers(c.cursor, f.After):
		return true
	}
	return age(c.looked, c.now()) >= c.allowed(f)
}

// allowed is how long after a look a result may come from memory for one read.
func (c *Cache) allowed(f Freshness) time.Duration {
	if f.MaxAge != nil {
		return *f.MaxAge
	}
	return c.config.MaxStale
}

// isOver reports whether a result must not be served any more.
func (a *cachedResult) isOver(now time.Time) bool { return age(a.loaded, now) >= a.lasts }

// stillHolds looks at the feed, and reports whether the result of the request, current as of the cursor, still is.
func (c *Cache) stillHolds(ctx context.Context, r readRequest, cursor string) (bool, error) {
	began := c.now()
	seen, err := c.store.look(ctx, cursor)
	if err != nil {
		r.rewordError(err)
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.observe(cursor, seen, began)
	return !seen.touches(r.scope), nil
}

// load reads from the database, and keeps the result. known is the result in memory as of the cursor. With since it
// also reads what changed since the cursor, which revalidates everything in memory.
func (c *Cache) load(ctx context.Context, r readRequest, known *cachedResult, cursor string, since bool, allowed time.Duration) (ReadResult, error) {
	began := c.now()
	if warming := c.isWarming(); warming || !since {
		body, err := c.store.read(ctx, r)
		result := newReadResult(body.text, SourceMiss)
		if err == nil && !warming {
			c.keepAsOf(cursor, r, body, result, began, allowed)
		}
		return result, err
	}
	body, seen, err := c.store.readSince(ctx, r, cursor)
	if err != nil {
		return ReadResult{}, err
	}
	result := newReadResult(body.text, SourceMiss)
	if known != nil && !seen.touches(r.scope) {
		result.Source = SourceRevalidated
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.observe(cursor, seen, began) {
		c.keep(r, body, result, began, allowed)
	}
	return result, nil
}

// observe applies a look that began at the cursor: it drops what changed and moves the cursor. If the cursor has
// moved meanwhile it does nothing and returns false, since the look may miss changes to newer results. The caller
// holds the lock.
func (c *Cache) observe(cursor string, seen changes, began time.Time) bool {
	if c.cursor != cursor {
		return false
	}
	c.cursor, c.looked = seen.Cursor, began
	if seen.All {
		if c.results.Len() > 0 {
			c.stats.Resets++
		}
		c.results.Purge()
		return true
	}
	if len(seen.Keys) == 0 {
		return true
	}
	for _, id := range c.results.Keys() {
		if a, _ := c.results.Peek(id); seen.touches(a.scope) {
			c.results.Remove(id)
			c.stats.Invalidations++
		}
	}
	return true
}

// keepAsOf keeps a result that was loaded after the cursor was read, unless the cursor has moved: that look may have
// dropped it.
func (c *Cache) keepAsOf(cursor string, r readRequest, body readBody, result ReadResult, loaded time.Time, allowed time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cursor == cursor {
		c.keep(r, body, result, loaded, allowed)
	}
}

// keep puts a result that is current as of the cursor into memory, until something in it expires. That time counts from
// before the request, so it ends no later than in the database. The caller holds the lock.
func (c *Cache) keep(r readRequest, body readBody, result ReadResult, loaded time.Time, allowed time.Duration) {
	id := r.id()
	// Without allowed staleness, a small result is loaded again in any case.
	if r.foundNothing(result.Body) && !c.config.KeepEmpty || allowed == 0 && len(result.Body) < c.large {
		c.results.Remove(id)
		return
	}
	a := &cachedResult{
		body: strings.Clone(result.Body), // not the whole response that it is a part of
		tag:  result.Tag, scope: r.scope, loaded: loaded, lasts: c.config.TTL,
		bytes: int64(len(result.Body)+len(id)+len(r.scope.text)) + resultOverhead,
	}
	if body.expires > 0 {
		a.lasts = min(a.lasts, body.expires)
	}
	c.results.Remove(id)
	if a.bytes > c.config.MaxBytes {
		return
	}
	c.bytes += a.bytes
	if c.results.Add(id, a) {
		c.stats.Evictions++
	}
	for c.bytes > c.config.MaxBytes && c.results.Len() > 0 {
		c.results.RemoveOldest()
		c.stats.Evictions++
	}
}

// id identifies the request.
func (r readRequest) id() string { return r.function + r.args }

func (c *Cache) position() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cursor
}

func (c *Cache) isWarming() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.warming
}

func (c *Cache) count(source Source) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch source {
	case SourceMiss:
		c.stats.Misses++
	case SourceRevalidated:
		c.stats.Revalidations++
	case SourceBypass:
		c.stats.Bypasses++
	}
}

// age is the time that has passed, by the monotonic clock or the wall clock, whichever saw more of it: the first may
// stop while an instance is frozen, and the second may be set back.
func age(then, now time.Time) time.Duration {
	return max(now.Sub(then), now.Round(0).Sub(then.Round(0)))
}
