package kv

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/upstream"
)

// handClock is a clock that the test moves.
type handClock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *handClock { return &handClock{at: time.Date(2026, 11, 27, 8, 0, 0, 0, time.UTC)} }

func (c *handClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *handClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// cacheTest is a cache of the real database, with requests that the test sees and a clock that it moves.
type cacheTest struct {
	*Cache
	t      *testing.T
	store  *Supabase
	road   *road
	clock  *handClock
	sql    *pgx.Conn
	prefix string
}

func newCacheTest(t *testing.T, change func(*CacheConfig)) *cacheTest {
	t.Helper()
	config := DefaultCache
	config.MaxStale = time.Second
	if change != nil {
		change(&config)
	}
	r := newRoad(t)
	c := &cacheTest{t: t, store: LiveStore(t), road: r, clock: newClock(), sql: liveSQL(t), prefix: newPrefix(t)}
	c.Cache = NewCache(storeAt(t, r.URL), config)
	c.Cache.now = c.clock.now
	return c
}

// put writes to the database past the cache.
func (c *cacheTest) put(key, value string, indexes ...Index) Written {
	c.t.Helper()
	written, err := c.store.Upsert(c.t.Context(), Entry{Key: c.prefix + key, Value: value, Indexes: indexes})
	require.NoError(c.t, err)
	return written
}

// requireGet requires the value of a key, its source, and the calls that it took.
func (c *cacheTest) requireGet(key, value string, source Source, calls ...string) ReadResult {
	c.t.Helper()
	return c.requireGetWith(Freshness{}, key, value, source, calls...)
}

func (c *cacheTest) requireGetWith(f Freshness, key, value string, source Source, calls ...string) ReadResult {
	c.t.Helper()
	answer, err := c.Get(c.t.Context(), c.prefix+key, f)
	if value == "" {
		require.Equal(c.t, CodeNotFound, CodeOf(err))
	} else {
		require.NoError(c.t, err)
	}
	c.requireAnswer(answer, value, source, calls...)
	return answer
}

func (c *cacheTest) requireAnswer(answer ReadResult, body string, source Source, calls ...string) {
	c.t.Helper()
	require.True(c.t, body == answer.Body, "got %.200s instead of %.200s", answer.Body, body)
	require.Equal(c.t, source, answer.Source)
	require.Equal(c.t, slices.Clone(calls), c.road.taken())
}

func (c *cacheTest) requireList(q ListQuery, source Source, calls ...string) ReadResult {
	c.t.Helper()
	q.Prefix = c.prefix + q.Prefix
	answer, err := c.List(c.t.Context(), q, Freshness{})
	require.NoError(c.t, err)
	want, err := c.store.List(c.t.Context(), q)
	require.NoError(c.t, err)
	c.requireAnswer(answer, want, source, calls...)
	return answer
}

func TestHitWithinTheStaleness(t *testing.T) {
	t.Parallel()
	c := newCacheTest(t, nil)
	c.put("a", `{"n":1}`)
	c.requireGet("a", `{"n":1}`, SourceMiss, "kv_get since")
	c.put("a", `{"n":2}`)
	c.clock.pass(999 * time.Millisecond)
	answer := c.requireGet("a", `{"n":1}`, SourceHit)
	require.Equal(t, 999*time.Millisecond, answer.Age)
	c.clock.pass(time.Millisecond)
	answer = c.requireGet("a", `{"n":2}`, SourceMiss, "kv_get since")
	require.Zero(t, answer.Age)
	c.clock.pass(time.Second)
	c.requireGet("a", `{"n":2}`, SourceRevalidated, "kv_get since")
	require.Equal(t, CacheStats{Hits: 1, Misses: 2, Revalidations: 1, Invalidations: 1, Entries: 1, Bytes: c.Stats().Bytes}, c.Stats())
}

// A caller that finds nothing often writes it, and reads again at once.
func TestEmptyResultsAreKeptOnlyWithKeepEmpty(t *testing.T) {
	t.Parallel()
	query := func(c *cacheTest) Query {
		return Query{Prefix: c.prefix + "none", Select: []Field{"key"}}
	}
	ask := func(c *cacheTest, source Source, found int) {
		t.Helper()
		answer, err := c.Query(t.Context(), query(c), Freshness{})
		require.NoError(t, err)
		require.Equal(t, source, answer.Source)
		require.Equal(t, found, strings.Count(answer.Body, `"key"`), answer.Body)
	}
	c := newCacheTest(t, nil)
	for _, call := range []string{"kv_get since", "kv_get"} {
		c.requireGet("none", ``, SourceMiss, call)
		ask(c, SourceMiss, 0)
		c.road.taken()
	}
	require.Zero(t, c.Stats().Entries)
	c.put("none", `{}`)
	c.requireGet("none", `{}`, SourceMiss, "kv_get")
	c.requireGet("none", `{}`, SourceHit)
	ask(c, SourceMiss, 1)
	ask(c, SourceHit, 1)
	c.road.taken()

	// A deletion is like any change: it shows after the staleness, and the empty result is not kept.
	_, err := c.store.Delete(t.Context(), c.prefix+"none")
	require.NoError(t, err)
	c.requireGet("none", `{}`, SourceHit)
	c.clock.pass(time.Second)
	c.requireGet("none", ``, SourceMiss, "kv_get since")
	c.requireGet("none", ``, SourceMiss, "kv_get")
	ask(c, SourceMiss, 0)
	require.Zero(t, c.Stats().Entries)

	// An empty list is kept: by default lists are as new as the request.
	c.requireList(ListQuery{}, SourceMiss, "kv_query", "kv_list")
	c.requireList(ListQuery{}, SourceHit)

	c = newCacheTest(t, func(config *CacheConfig) { config.KeepEmpty = true })
	c.requireGet("none", ``, SourceMiss, "kv_get since")
	c.requireGet("none", ``, SourceHit)
	ask(c, SourceMiss, 0)
	ask(c, SourceHit, 0)
	c.road.taken()
	c.put("none", `{}`)
	c.clock.pass(time.Second)
	c.requireGet("none", `{}`, SourceMiss, "kv_get since")
}

func TestOneLookCountsForAllResults(t *testing.T) {
	t.Parallel()
	c := newCacheTest(t, nil)
	x := Index{Key: c.prefix + "x", Member: "m"}
	c.put("a", `{"n":1}`, x)
	c.put("b/1", `{"n":1}`)
	c.put("c", `{"n":1}`)
	query := Query{Prefix: c.prefix, Indexes: &IndexFilter{Exact: x}, Select: []Field{"key"}}
	ask := func(source Source, calls ...string) {
		t.Helper()
		want, err := c.store.Query(t.Context(), query)
		require.NoError(t, err)
		answer, err := c.Query(t.Context(), query, Freshness{})
		require.NoError(t, err)
		c.requireAnswer(answer, want, source, calls...)
	}
	c.requireGet("a", `{"n":1}`, SourceMiss, "kv_get since")
	c.requireGet("x", `["m"]`, SourceMiss, "kv_get")
	c.requireList(ListQuery{Prefix: "b/"}, SourceMiss, "kv_list")
	c.requireList(ListQuery{Prefix: "b/", Values: true}, SourceMiss, "kv_list")
	ask(SourceMiss, "kv_query")
	c.requireGet("c", `{"n":1}`, SourceMiss, "kv_get")

	c.clock.pass(2 * time.Second)
	c.put("c", `{"n":2}`, Index{Key: c.prefix + "x", Member: "n"})
	c.requireGet("c", `{"n":2}`, SourceMiss, "kv_get since")
	c.requireGet("a", `{"n":1}`, SourceHit)
	c.requireGet("x", `["m","n"]`, SourceMiss, "kv_get") // the upsert of another entry added a member
	c.requireList(ListQuery{Prefix: "b/"}, SourceHit)
	c.requireList(ListQuery{Prefix: "b/", Values: true}, SourceHit)
	ask(SourceMiss, "kv_query") // it depends on its prefix
	ask(SourceHit)
}

// Not parallel: other tests do not expect a thousand changes at once.
func TestEveryKindOfChangeInvalidates(t *testing.T) {
	c := newCacheTest(t, func(config *CacheConfig) { config.MaxStale = 0 })
	exec := func(sql string, args ...any) {
		t.Helper()
		_, err := c.sql.Exec(t.Context(), sql, args...)
		require.NoError(t, err)
	}
	big := `["` + strings.Repeat("x", largeResult) + `"]`
	for name, change := range map[string]func(key string){
		"Upsert": func(key string) {
			_, err := c.store.Upsert(t.Context(), Entry{Key: key, Value: `{}`})
			require.NoError(t, err)
		},
		"Delete": func(key string) {
			_, err := c.store.Delete(t.Context(), key)
			require.NoError(t, err)
		},
		"SQLUpdate": func(key string) { exec("update public.kv_store set value = '3' where key = $1", key) },
		"SQLDelete": func(key string) { exec("delete from public.kv_store where key = $1", key) },
		"RenameFrom": func(key string) {
			exec("update public.kv_store set key = key || '/renamed' where key = $1", key)
		},
		"RenameTo": func(key string) {
			exec("delete from public.kv_store where key = $1", key)
			exec("insert into public.kv_store (key, value) values ($1 || '/other', '4')", key)
			exec("update public.kv_store set key = $1 where key = $1 || '/other'", key)
		},
		"MemberOfAnother": func(key string) {
			_, err := c.store.Upsert(t.Context(), Entry{Key: key + "/entry", Value: `{}`, Indexes: []Index{{Key: key, Member: "m"}}})
			require.NoError(t, err)
		},
		"ManyChanges": func(key string) {
			exec("insert into public.kv_store (key, value) select $1 || '/' || i, '0' from generate_series(1, 1001) as i", key)
			exec("update public.kv_store set value = '5' where key = $1", key)
		},
	} {
		key := c.prefix + "kind/" + name
		exec("insert into public.kv_store (key, value) values ($1, $2)", key, big)
		before, err := c.Get(t.Context(), key, Freshness{Bypass: true})
		require.NoError(t, err)
		require.Equal(t, big, before.Body)
		c.road.taken()
		change(key)
		want, err := c.store.Get(t.Context(), key)
		if CodeOf(err) != CodeNotFound {
			require.NoError(t, err)
		}
		after, err := c.Get(t.Context(), key, Freshness{})
		if CodeOf(err) != CodeNotFound {
			require.NoError(t, err)
		}
		require.True(t, want == after.Body, "%s: got %.40s instead of %.40s", name, after.Body, want)
		require.Equal(t, SourceMiss, after.Source, name)
		require.Equal(t, []string{"kv_changes", "kv_get"}, c.road.taken(), name)
	}
}

func TestLargeResultIsRevalidatedWithoutLoading(t *testing.T) {
	t.Parallel()
	c := newCacheTest(t, func(config *CacheConfig) { config.MaxStale = 0 })
	big := `["` + strings.Repeat("x", largeResult) + `"]`
	c.put("big", big)
	c.put("small", `{}`)
	c.requireGet("big", big, SourceMiss, "kv_get since")
	c.requireGet("small", `{}`, SourceMiss, "kv_get")
	c.requireGet("big", big, SourceRevalidated, "kv_changes")
	c.requireGet("small", `{}`, SourceMiss, "kv_get") // not kept: to revalidate it means to load it
	c.put("small", `[]`)
	c.requireGet("big", big, SourceRevalidated, "kv_changes")
	c.requireGet("small", `[]`, SourceMiss, "kv_get")
	c.requireList(ListQuery{Values: true}, SourceMiss, "kv_list")
	c.requireList(ListQuery{Values: true}, SourceRevalidated, "kv_changes")
	c.put("other", `[]`)
	c.requireList(ListQuery{Values: true}, SourceMiss, "kv_changes", "kv_list")
	c.requireGet("big", big, SourceRevalidated, "kv_changes")
	c.put("big", `{}`)
	c.requireGet("big", `{}`, SourceMiss, "kv_changes", "kv_get")
}

func TestTTL(t *testing.T) {
	t.Parallel()
	c := newCacheTest(t, func(config *CacheConfig) { config.MaxStale = time.Hour })
	big := `["` + strings.Repeat("x", largeResult) + `"]`
	c.put("big", big)
	c.requireGet("big", big, SourceMiss, "kv_get since")
	c.clock.pass(5*time.Minute - 1)
	c.requireGet("big", big, SourceHit)
	c.clock.pass(1)
	c.requireGet("big", big, SourceMiss, "kv_get")
}

// The monotonic clock may stop while an instance is frozen, and the wall clock may be set.
func TestAgeUsesTheClockThatSawMoreTime(t *testing.T) {
	then := time.Now()
	wall := then.Round(0)
	require.Equal(t, time.Minute, age(wall, wall.Add(time.Minute)), "only the wall clock went on")
	require.GreaterOrEqual(t, age(then, time.Now()), time.Duration(0), "neither")
	time.Sleep(2 * time.Millisecond)
	require.GreaterOrEqual(t, age(then, time.Now()), 2*time.Millisecond)
}

func TestFreshness(t *testing.T) {
	t.Parallel()
	c := newCacheTest(t, func(config *CacheConfig) { config.MaxStale, config.KeepEmpty = time.Hour, true })
	first := c.put("a", `{"n":1}`)
	c.requireGet("a", `{"n":1}`, SourceMiss, "kv_get since")
	c.requireGetWith(Freshness{After: first.Version}, "a", `{"n":1}`, SourceHit)
	second := c.put("a", `{"n":2}`)
	c.requireGet("a", `{"n":1}`, SourceHit)
	c.requireGetWith(Freshness{After: first.Version}, "a", `{"n":1}`, SourceHit)
	c.requireGetWith(Freshness{After: second.Version}, "a", `{"n":2}`, SourceMiss, "kv_get since")
	c.requireGetWith(Freshness{After: second.Version}, "a", `{"n":2}`, SourceHit)
	for _, odd := range []string{"x", ".", "01234567.1", second.Version + "0", strings.Split(second.Version, ".")[0] + ".-1"} {
		c.requireGetWith(Freshness{After: odd}, "a", `{"n":2}`, SourceRevalidated, "kv_get since")
	}
	third := c.put("a", `{"n":3}`)
	c.requireGetWith(Freshness{Bypass: true}, "a", `{"n":3}`, SourceBypass, "kv_get")
	c.requireGet("a", `{"n":3}`, SourceHit) // a later read shows nothing older
	c.requireGetWith(Freshness{After: third.Version}, "a", `{"n":3}`, SourceMiss, "kv_get since")
	c.requireGetWith(Freshness{After: third.Version}, "a", `{"n":3}`, SourceHit)

	// A write whose transaction was in progress at the cursor is not covered, though its id is smaller.
	tx, err := c.sql.Begin(t.Context())
	require.NoError(t, err)
	var open string
	require.NoError(t, tx.QueryRow(t.Context(), "select (public.kv_upsert($1, '{}')::json ->> 'version')", c.prefix+"b").Scan(&open))
	c.put("c", `{}`)
	c.requireGetWith(Freshness{After: "x"}, "b", ``, SourceMiss, "kv_get since")
	require.NoError(t, tx.Commit(t.Context()))
	c.requireGet("b", ``, SourceHit)
	c.requireGetWith(Freshness{After: open}, "b", `{}`, SourceMiss, "kv_get since")
}

func TestResultLoadedWhileTheCursorMovedIsNotKept(t *testing.T) {
	t.Parallel()
	t.Run("WithTheFeed", func(t *testing.T) { testLoadingWhileTheCursorMoves(t, false) })
	t.Run("Alone", func(t *testing.T) { testLoadingWhileTheCursorMoves(t, true) })
}

func testLoadingWhileTheCursorMoves(t *testing.T, looked bool) {
	c := newCacheTest(t, func(config *CacheConfig) { config.MaxStale = time.Hour })
	if looked { // then results are loaded without a look
		c.put("first", `{}`)
		c.requireGet("first", `{}`, SourceMiss, "kv_get since")
	}
	c.put("slow", `{"n":1}`)
	c.put("quick", `{"n":1}`)
	loaded, goOn := make(chan struct{}), make(chan struct{})
	c.road.block(func(w http.ResponseWriter, _ string, forward func()) {
		forward() // the database has answered
		c.road.block(nil)
		close(loaded)
		<-goOn // and the response is delayed
	})
	var slow ReadResult
	var wg sync.WaitGroup
	wg.Go(func() {
		var err error
		slow, err = c.Get(t.Context(), c.prefix+"slow", Freshness{})
		if err != nil {
			t.Error(err)
		}
	})
	<-loaded
	c.put("slow", `{"n":2}`)
	c.road.taken()
	c.requireGetWith(Freshness{After: "x"}, "quick", `{"n":1}`, SourceMiss, "kv_get since")
	close(goOn)
	wg.Wait()
	require.Equal(t, `{"n":1}`, slow.Body, "it is as new as its request")
	c.requireGet("slow", `{"n":2}`, SourceMiss, "kv_get")
}

// Another caller's look may move the cursor after a result was found in memory and before the look that revalidates
// it.
func TestLookConfirmsOnlyResultsAsOfItsCursor(t *testing.T) {
	t.Parallel()
	c := newCacheTest(t, func(config *CacheConfig) { config.MaxStale = time.Second })
	big := func(n int) string { return fmt.Sprintf(`["%d%s"]`, n, strings.Repeat("x", largeResult)) }
	c.put("big", big(1))
	c.put("other", `{}`)
	c.requireGet("big", big(1), SourceMiss, "kv_get since")
	c.clock.pass(time.Second)
	looked := make(chan struct{})
	c.road.block(func(_ http.ResponseWriter, function string, forward func()) {
		c.road.block(nil)
		if function == "kv_changes" { // delayed until everything else has happened
			c.put("big", big(2))
			_, err := c.Get(t.Context(), c.prefix+"other", Freshness{})
			if err != nil {
				t.Error(err)
			}
			close(looked)
		}
		forward()
	})
	answer, err := c.Get(t.Context(), c.prefix+"big", Freshness{})
	require.NoError(t, err)
	<-looked
	require.True(t, big(2) == answer.Body)
	c.road.taken()

	// The other order: the cursor moves before the look is sent.
	c.clock.pass(time.Second)
	known, cursor, _ := c.recall(mustGetRead(t, c.prefix+"big"), Freshness{})
	require.NotNil(t, known)
	c.put("big", big(3))
	_, err = c.Get(t.Context(), c.prefix+"other", Freshness{})
	require.NoError(t, err)
	holds, err := c.stillHolds(t.Context(), mustGetRead(t, c.prefix+"big"), cursor)
	require.NoError(t, err)
	require.False(t, holds)
}

func mustGetRead(t *testing.T, key string) readRequest {
	t.Helper()
	r, err := getRequest("", key)
	require.NoError(t, err)
	return r
}

func TestLookForALargeResultCountsForSmallOnes(t *testing.T) {
	t.Parallel()
	c := newCacheTest(t, nil)
	big := `["` + strings.Repeat("x", largeResult) + `"]`
	c.put("big", big)
	c.put("small", `{}`)
	c.requireGet("big", big, SourceMiss, "kv_get since")
	c.requireGet("small", `{}`, SourceMiss, "kv_get")
	c.clock.pass(time.Second)
	c.requireGet("big", big, SourceRevalidated, "kv_changes")
	c.requireGet("small", `{}`, SourceHit)
	c.requireGetWith(Freshness{Bypass: true}, "big", big, SourceBypass, "kv_get")
	almost := `["` + strings.Repeat("x", largeResult-5) + `"]`
	require.Len(t, almost, largeResult-1)
	c.put("almost", almost)
	c.requireGet("almost", almost, SourceMiss, "kv_get")
	c.clock.pass(time.Second)
	c.requireGet("almost", almost, SourceMiss, "kv_get since") // written after the last look and loaded without one, so dropped once too often
	c.clock.pass(time.Second)
	c.requireGet("almost", almost, SourceRevalidated, "kv_get since")
}

func TestNoStaleResultWhileTheFeedIsUnreachable(t *testing.T) {
	t.Parallel()
	c := newCacheTest(t, nil)
	big := `["` + strings.Repeat("x", largeResult) + `"]`
	c.put("a", `{}`)
	c.put("big", big)
	c.requireGet("a", `{}`, SourceMiss, "kv_get since")
	c.requireGet("big", big, SourceMiss, "kv_get")
	c.Cache.store.retry = upstream.Policy{FirstPause: time.Millisecond, MaxPause: time.Millisecond, Total: time.Millisecond, Unlimited: true}
	for name, fault := range map[string]func(w http.ResponseWriter){
		"Refused":  func(w http.ResponseWriter) { http.Error(w, "", http.StatusServiceUnavailable) },
		"Nonsense": func(w http.ResponseWriter) { w.Header().Set("Content-Type", responseType); fmt.Fprint(w, "{}\n{}") },
		"NoFeed": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", responseType)
			fmt.Fprint(w, `{"cursor":"x"}`+"\n{}")
		},
		"NoAnswer": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", responseType)
			fmt.Fprint(w, `{"cursor":"x","all":false}`)
		},
		"Empty": func(w http.ResponseWriter) { w.Header().Set("Content-Type", responseType) },
		"Cut": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", responseType)
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, `{"cursor":`)
		},
	} {
		c.road.block(func(w http.ResponseWriter, _ string, _ func()) { fault(w) })
		for _, key := range []string{"a", "big"} {
			_, err := c.Get(t.Context(), c.prefix+key, Freshness{})
			require.NoError(t, err, "%s: within the staleness", name)
		}
		c.clock.pass(time.Second)
		for _, key := range []string{"a", "big"} {
			answer, err := c.Get(t.Context(), c.prefix+key, Freshness{})
			require.Equal(t, CodeDatabaseUnreachable, CodeOf(err), "%s: %v", name, err)
			require.Zero(t, answer)
		}
		c.road.block(nil)
		c.road.taken()
		c.requireGet("a", `{}`, SourceRevalidated, "kv_get since")
	}
}

func TestLeastRecentlyUsedIsEvictedFirst(t *testing.T) {
	t.Parallel()
	c := newCacheTest(t, func(config *CacheConfig) { config.Entries, config.MaxStale = 3, time.Hour })
	call := "kv_get since"
	for _, key := range []string{"a", "b", "c"} {
		c.put(key, `{}`)
		c.requireGet(key, `{}`, SourceMiss, call)
		call = "kv_get" // while the last look is recent enough
	}
	c.requireGet("a", `{}`, SourceHit)
	c.put("d", `{}`)
	c.requireGet("d", `{}`, SourceMiss, call)
	c.requireGet("a", `{}`, SourceHit)
	c.requireGet("b", `{}`, SourceMiss, call)
	require.EqualValues(t, 2, c.Stats().Evictions)
	require.EqualValues(t, 3, c.Stats().Entries)
}

// Not parallel: it measures the heap.
func TestMaxBytes(t *testing.T) {
	const megabyte = 1 << 20
	c := newCacheTest(t, func(config *CacheConfig) { config.MaxBytes, config.MaxStale = 10*megabyte, time.Hour })
	value := func(i int) string { return fmt.Sprintf(`["%d%s"]`, i, strings.Repeat("x", megabyte)) }
	for i := range 14 {
		c.put(fmt.Sprint("v", i), value(i))
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for range 2 {
		for i := range 14 {
			answer, err := c.Get(t.Context(), fmt.Sprint(c.prefix, "v", i), Freshness{})
			require.NoError(t, err)
			require.True(t, answer.Body == value(i))
			require.LessOrEqual(t, c.Stats().Bytes, int64(10*megabyte))
		}
	}
	require.EqualValues(t, 9, c.Stats().Entries, "what fits is kept")
	require.Less(t, int64(heap())-int64(before), int64(13*megabyte), "and takes no more memory than that")

	larger := NewCache(c.store, CacheConfig{Entries: 10, MaxBytes: megabyte, TTL: time.Hour, MaxStale: time.Hour})
	for range 2 {
		answer, err := larger.Get(t.Context(), c.prefix+"v1", Freshness{})
		require.NoError(t, err)
		require.Equal(t, SourceMiss, answer.Source, "what is larger than the bound is not kept")
	}
	require.Zero(t, larger.Stats().Bytes)
}

func TestBytesReturnToZero(t *testing.T) {
	t.Parallel()
	c := newCacheTest(t, func(config *CacheConfig) { config.Entries = 2 })
	for _, key := range []string{"a", "b", "a", "c"} {
		c.requireGet(key, ``, SourceMiss, "kv_get since")
		c.clock.pass(time.Second)
		c.put(key, `{}`)
		c.put(key, `{}`)
		_, err := c.Get(t.Context(), c.prefix+key, Freshness{Bypass: true})
		require.NoError(t, err)
		_, err = c.store.Delete(t.Context(), c.prefix+key)
		require.NoError(t, err)
		c.clock.pass(time.Second)
		c.road.taken()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.results.Purge()
	require.Zero(t, c.bytes)
}

func TestWarmStartLoadsEntries(t *testing.T) {
	t.Parallel()
	c := newCacheTest(t, func(config *CacheConfig) { config.Entries, config.MaxStale, config.KeepEmpty = 4, time.Hour, true })
	for _, key := range []string{"p/1", "p/2", "p/3", "p/4", "q"} {
		c.put(key, `{"k":"`+key+`\u0000"}`, Index{Key: c.prefix + "x", Member: TextMember(key)})
	}
	c.warmUp(WarmEntries, "q", "x", "none", "p/*", "not*\x00")
	require.Equal(t, []string{"kv_warm_get"}, c.road.taken())
	c.requireGet("q", `{"k":"q\u0000"}`, SourceHit)
	c.requireGet("x", `["p/1","p/2","p/3","p/4","q"]`, SourceHit)
	c.requireGet("none", ``, SourceHit)
	c.requireGet("p/1", `{"k":"p/1\u0000"}`, SourceHit)
	c.requireGet("p/2", `{"k":"p/2\u0000"}`, SourceMiss, "kv_get") // no room
	require.Zero(t, c.Stats().Resets)
}

func (c *cacheTest) warmUp(with WarmWith, patterns ...string) {
	c.t.Helper()
	for i, pattern := range patterns {
		patterns[i] = strings.ReplaceAll(c.prefix+pattern, "\x00", "")
	}
	done := make(chan error, 1)
	c.StartWarm(c.t.Context(), with, patterns, func(err error) { done <- err })
	require.NoError(c.t, <-done)
}

func TestWarmStartLoadsLists(t *testing.T) {
	t.Parallel()
	c := newCacheTest(t, func(config *CacheConfig) { config.MaxStale = time.Hour })
	c.put("p/1", `{"a":"\ud800"}`)
	c.put("p/2", `[]`)
	_, err := c.sql.Exec(t.Context(), "insert into public.kv_store (key, value) values ($1, to_json(repeat('x', 7000000)))", c.prefix+"huge/1")
	require.NoError(t, err)
	c.warmUp(WarmLists, "huge/*", "p/*", "a key is no list", "none/*")
	require.Equal(t, []string{"kv_warm_list"}, c.road.taken())
	c.requireList(ListQuery{Prefix: "p/"}, SourceHit)
	c.requireList(ListQuery{Prefix: "p/", Values: true}, SourceHit)
	c.requireList(ListQuery{Prefix: "none/"}, SourceHit)
	c.requireList(ListQuery{Prefix: "huge/"}, SourceHit)
	require.EqualValues(t, 5, c.Stats().Entries)
}

func TestReadsDuringAWarmStart(t *testing.T) {
	t.Parallel()
	c := newCacheTest(t, nil)
	c.put("a", `{}`)
	arrived, goOn := make(chan struct{}), make(chan struct{})
	arrives := sync.OnceFunc(func() { close(arrived) })
	c.road.block(func(w http.ResponseWriter, function string, forward func()) {
		if function == "kv_warm_get" {
			arrives()
			<-goOn
			http.Error(w, "not today", http.StatusTeapot)
			return
		}
		forward()
	})
	done := make(chan error, 1)
	c.StartWarm(t.Context(), WarmEntries, []string{c.prefix + "a"}, func(err error) { done <- err })
	<-arrived
	c.requireGet("a", `{}`, SourceMiss, "kv_warm_get", "kv_get")
	c.requireGet("a", `{}`, SourceMiss, "kv_get") // nothing is kept before the warm start has ended
	close(goOn)
	require.Error(t, <-done)
	c.requireGet("a", `{}`, SourceMiss, "kv_get since")
	c.requireGet("a", `{}`, SourceHit)
}

func TestSharedCache(t *testing.T) {
	t.Parallel()
	store := LiveStore(t)
	require.Same(t, SharedCache(store, DefaultCache), SharedCache(LiveStore(t), DefaultCache))
	other := DefaultCache
	other.Entries++
	require.NotSame(t, SharedCache(store, DefaultCache), SharedCache(store, other))
}

func TestUncachedReader(t *testing.T) {
	t.Parallel()
	c := newCacheTest(t, nil)
	c.put("a", `{}`)
	reader := Uncached(c.Cache.store)
	for range 2 {
		answer, err := reader.Get(t.Context(), c.prefix+"a", Freshness{})
		require.NoError(t, err)
		c.requireAnswer(answer, `{}`, SourceOff, "kv_get")
	}
	answer, err := reader.Get(t.Context(), c.prefix+"none", Freshness{})
	require.Equal(t, CodeNotFound, CodeOf(err))
	c.requireAnswer(answer, ``, SourceOff, "kv_get")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	answer, err = reader.List(ctx, ListQuery{}, Freshness{})
	require.Error(t, err)
	require.Zero(t, answer)
	require.Zero(t, reader.Stats())
}

func TestTagIdentifiesTheBody(t *testing.T) {
	a, b := newReadResult("{}", SourceHit), newReadResult("{}", SourceMiss)
	require.Equal(t, a.Tag, b.Tag)
	require.NotEqual(t, a.Tag, newReadResult("{} ", SourceHit).Tag)
}

func TestChangesTouch(t *testing.T) {
	keys := changes{Keys: []string{"a/1", "a/2", "b", "é"}}
	for name, c := range map[string]struct {
		changes changes
		scope   scope
		want    bool
	}{
		"TheKey":           {keys, scope{"b", true}, true},
		"AnotherKey":       {keys, scope{"a", true}, false},
		"KeyAfterAll":      {keys, scope{"z", true}, false},
		"UnderThePrefix":   {keys, scope{"a/", false}, true},
		"ThePrefixItself":  {keys, scope{"b", false}, true},
		"OnlyLongerPrefix": {keys, scope{"a/1/", false}, false},
		"EveryKey":         {keys, scope{"", false}, true},
		"NoKey":            {changes{}, scope{"", false}, false},
		"Everything":       {changes{All: true}, scope{"z", true}, true},
		"HalfACharacter":   {keys, scope{"\xc3", false}, true},
	} {
		require.Equal(t, c.want, c.changes.touches(c.scope), name)
	}
}

func TestCovers(t *testing.T) {
	const epoch = "0123456789abcdef"
	cursor := epoch + "/1700000000000/100:110:103,105"
	const boot = "01234567"
	for version, want := range map[string]bool{
		boot + ".99": true, boot + ".100": true, boot + ".103": false, boot + ".104": true, boot + ".105": false,
		boot + ".109": true, boot + ".110": false, boot + ".111": false, "fedcba98.99": false, "0123456.99": false, epoch + ".99": false,
		"": false, boot: false, boot + ".": false, boot + ".x": false, boot + ".0103": false, boot + ".-1": false, ".99": false,
	} {
		require.Equal(t, want, covers(cursor, version), version)
	}
	require.True(t, covers(epoch+"/0/100:100:", boot+".99"))
	for _, cursor := range []string{"", "/", "//", epoch + "/0/100", epoch + "/0/1:x:", epoch + "/0/1:2:3:4"} {
		require.False(t, covers(cursor, boot+".0"), cursor)
	}
}
