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
	// Entries is how many answers are kept at most; from 1 on.
	Entries int
	// MaxBytes bounds the memory that the answers take together, their requests included. An answer that is larger is
	// not kept.
	MaxBytes int64
	// TTL is how long an answer is kept after it was loaded, however often it proves to be current since.
	TTL time.Duration
	// MaxStale is how old the last look at the change feed may be for an answer to be given from memory without asking
	// the database. 0: every answer is as new as its request.
	MaxStale time.Duration
	// KeepNothing also keeps answers that found nothing: a Get without an entry, a Query without results. Programs look whether
	// there is something, write it, and look again at once, so without it these answers are only for the request that asked.
	KeepEmpty bool
}

// DefaultCache is the configuration where the environment says nothing.
var DefaultCache = CacheConfig{Entries: 1000, MaxBytes: 64 << 20, TTL: 5 * time.Minute}

// Cache is a [Reader] that keeps answers of a Supabase project in memory. It is safe for concurrent use.
//
// Every instance of every function has a cache of its own, and rows are edited by hand, so nobody tells a cache what changed: it asks. It
// keeps one cursor into the database's change feed. An answer in memory is as new as that cursor, or newer. It is given from memory while
// the last look at the feed is younger than the allowed staleness. After that the cache goes to the database: for a small answer it asks
// again and takes the feed along in the same round trip, for a large one it asks the feed alone. Either way the look is good for all
// answers: those that depend on a key that changed are dropped, and the rest are fresh again.
type Cache struct {
	store  *Supabase
	config CacheConfig
	now    func() time.Time
	large  int // from this size on, an answer is not asked for again just to see whether it still holds

	mu      sync.Mutex
	results *simplelru.LRU[string, *cachedResult]
	bytes   int64
	cursor  string    // everything in answers holds as of it; "" before the first look
	looked  time.Time // when the look that gave the cursor began
	warming bool      // StartWarm is loading: reads leave the cursor to it
	stats   CacheStats
}

// kept is an answer in memory.
type cachedResult struct {
	body   string
	tag    string
	scope  scope
	bytes  int64
	loaded time.Time
}

// CacheStats counts what a cache did since it was made, but for Entries and Bytes, which are what it holds now.
type CacheStats struct {
	Hits          int64 // answers from memory, without the database
	Misses        int64 // answers that the database had to give
	Revalidations int64 // answers in memory that the database confirmed
	Bypasses      int64 // answers that callers wanted from the database
	Invalidations int64 // answers dropped because something changed
	Resets        int64 // looks at the feed after which everything was dropped
	Evictions     int64 // answers dropped for room
	Entries       int64
	Bytes         int64
}

// Each calls what for every counter, in the order of the fields, by the name that it has in the log and in answers.
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

// largeAnswer is where loading an answer again costs more than a look at the feed alone and, if need be, another round trip.
const largeResult = 64 << 10

// answerOverhead is about what an answer takes beside its texts.
const resultOverhead = 512

// caches holds the caches of this process, in package scope so that they outlive every invocation of a warm instance.
var caches struct {
	sync.Mutex
	made map[cacheKey]*Cache
}

type cacheKey struct {
	url, key string
	config   CacheConfig
}

// SharedCache returns this process's cache of the project with the configuration; the first call makes it.
func SharedCache(store *Supabase, config CacheConfig) *Cache {
	caches.Lock()
	defer caches.Unlock()
	key := cacheKey{store.url, store.key, config}
	if caches.made[key] == nil {
		if caches.made == nil {
			caches.made = map[cacheKey]*Cache{}
		}
		caches.made[key] = NewCache(store, config)
	}
	return caches.made[key]
}

// NewCache returns an empty cache of the store's answers.
func NewCache(store *Supabase, config CacheConfig) *Cache {
	c := &Cache{store: store, config: config, now: time.Now, large: largeResult}
	answers, err := simplelru.NewLRU(max(config.Entries, 1), func(_ string, a *cachedResult) { c.bytes -= a.bytes })
	if err != nil {
		panic(err) // only for a size below 1
	}
	c.results = answers
	return c
}

// Get implements [Reader].
func (c *Cache) Get(ctx context.Context, key string, f Freshness) (ReadResult, error) {
	r, err := getRequest(key)
	if err != nil {
		return ReadResult{}, err
	}
	result, err := c.read(ctx, r, f)
	if err != nil {
		return ReadResult{}, err
	}
	return result, checkFound(result.Body)
}

// List implements [Reader].
func (c *Cache) List(ctx context.Context, q ListQuery, f Freshness) (ReadResult, error) {
	r, err := listRequest(q)
	if err != nil {
		return ReadResult{}, err
	}
	return c.read(ctx, r, f)
}

// Query implements [Reader].
func (c *Cache) Query(ctx context.Context, q Query, f Freshness) (ReadResult, error) {
	r, err := queryRequest(q)
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
		if holds {
			c.count(SourceRevalidated)
			return ReadResult{Body: known.body, Tag: known.tag, Source: SourceRevalidated, Database: age(began, c.now())}, nil
		}
		known, cursor, since = nil, c.position(), false // the look is that of a moment ago
	}
	loaded, err := c.load(ctx, r, known, cursor, since)
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

// recall looks into memory: an answer that may be given, or else one that is there but has to be asked about, and the cursor as
// of which it holds.
func (c *Cache) recall(r readRequest, f Freshness) (known *cachedResult, cursor string, result *ReadResult) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	known, _ = c.results.Get(r.id())
	if known != nil && age(known.loaded, now) >= c.config.TTL {
		c.results.Remove(r.id())
		known = nil
	}
	unseen := age(c.looked, now)
	if known == nil || f.Bypass || unseen >= c.config.MaxStale || f.After != "" && !covers(c.cursor, f.After) {
		return known, c.cursor, nil
	}
	c.stats.Hits++
	return known, c.cursor, &ReadResult{Body: known.body, Tag: known.tag, Source: SourceHit, Age: unseen}
}

// looksWith reports whether loading an answer should take the feed along. That costs a part of a round trip, so it is done only where it
// can gain something: where something in memory may hold for longer, or where a caller's write should count as seen from now on. An answer
// that is loaded without the feed is newer than the cursor, so a later look can only drop it too often.
func (c *Cache) looksWith(known *cachedResult, f Freshness) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case f.Bypass:
		return false
	case c.cursor == "":
		return true
	case c.config.MaxStale == 0:
		return false
	case known != nil || f.After != "" && !covers(c.cursor, f.After):
		return true
	}
	return age(c.looked, c.now()) >= c.config.MaxStale
}

// stillHolds looks at the feed for an answer that holds as of the cursor.
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

// load asks the database for an answer, and keeps it. known is what memory has for the request as of the cursor; since also asks what
// changed since the cursor, which is good for all answers in memory.
func (c *Cache) load(ctx context.Context, r readRequest, known *cachedResult, cursor string, since bool) (ReadResult, error) {
	began := c.now()
	if warming := c.isWarming(); warming || !since {
		body, err := c.store.read(ctx, r)
		result := newReadResult(body, SourceMiss)
		if err == nil && !warming {
			c.keepAsOf(cursor, r, result, began)
		}
		return result, err
	}
	body, seen, err := c.store.readSince(ctx, r, cursor)
	if err != nil {
		return ReadResult{}, err
	}
	result := newReadResult(body, SourceMiss)
	if known != nil && !seen.touches(r.scope) {
		result.Source = SourceRevalidated
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.observe(cursor, seen, began) {
		c.keep(r, result, began)
	}
	return result, nil
}

// observe takes in what a look from the cursor found, dropping what it touches. It does nothing and is false where the
// cursor has moved since: what was found then is not about everything that is in memory now. The caller holds the lock.
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

// keepAsOf keeps an answer that was loaded after the cursor, unless the cursor has moved since: what that look found may concern it.
func (c *Cache) keepAsOf(cursor string, r readRequest, result ReadResult, loaded time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cursor == cursor {
		c.keep(r, result, loaded)
	}
}

// keep puts an answer that holds as of the cursor into memory. The caller holds the lock.
func (c *Cache) keep(r readRequest, result ReadResult, loaded time.Time) {
	id := r.id()
	// With no staleness allowed, a small answer is loaded again in any case.
	if r.foundNothing(result.Body) && !c.config.KeepEmpty || c.config.MaxStale == 0 && len(result.Body) < c.large {
		c.results.Remove(id)
		return
	}
	a := &cachedResult{
		body: strings.Clone(result.Body), // a part of a text that also holds the feed's answer
		tag:  result.Tag, scope: r.scope, loaded: loaded,
		bytes: int64(len(result.Body)+len(id)+len(r.scope.text)) + resultOverhead,
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

// id tells requests apart.
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

// age is the time that has passed, by the clock that saw more of it: the monotonic one may stop while an instance is
// frozen, the other may be set.
func age(then, now time.Time) time.Duration {
	return max(now.Sub(then), now.Round(0).Sub(then.Round(0)))
}
