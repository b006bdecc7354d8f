package kv

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// setting returns a number from the environment.
func setting(t testing.TB, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, name)
	return n
}

// seedOf returns a seed, which a failing test logs.
func seedOf(t testing.TB) uint64 {
	t.Helper()
	seed := uint64(setting(t, "CACHE_TEST_SEED", int(time.Now().UnixNano()&0x7fffffff)))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with CACHE_TEST_SEED=%d", seed)
		}
	})
	return seed
}

// world is a model of what is committed under a prefix: values by key, the members of the index entry in the order of
// their positions, and the entries that have the index.
type world struct {
	values  map[string]string
	indexed map[string]string // member by key
	members []string
}

func (w world) clone() world {
	return world{maps.Clone(w.values), maps.Clone(w.indexed), slices.Clone(w.members)}
}

// The next three methods return the results of the test's reads in this world. Keys have no prefix.

func (w world) get(key string) string {
	if key == "x" {
		text, _ := json.Marshal(w.members)
		return string(text)
	}
	return w.values[key]
}

func (w world) list(prefix string) string {
	keys := slices.Sorted(maps.Keys(w.values))
	var names, data []string
	for _, key := range keys {
		if strings.HasPrefix(key, "k") {
			names, data = append(names, `"`+prefix+key+`"`), append(data, `"`+prefix+key+`":`+w.values[key])
		}
	}
	return fmt.Sprintf(`{"keys":[%s],"count":%d,"data":{%s}}`, strings.Join(names, ","), len(names), strings.Join(data, ","))
}

func (w world) query(prefix string) string {
	var found []string
	for _, key := range slices.Sorted(maps.Keys(w.indexed)) {
		found = append(found, `{"key":"`+prefix+key+`"}`)
	}
	return `{"results":[` + strings.Join(found, ",") + `]`
}

// interleaving runs writers and readers one step at a time, in an order that depends on the seed.
type interleaving struct {
	t      *testing.T
	random *rand.Rand
	prefix string
	store  *Supabase
	clock  *handClock
	caches []*Cache
	stales []time.Duration

	writers  []*openWriter
	busy     map[string]bool // keys and members that an open transaction has changed
	worlds   []world         // every committed state, the current one last
	ends     []time.Time     // when each but the last ended
	acked    []ack
	counter  int
	sources  map[Source]int
	elements int // the number of members added so far
}

// openWriter is an open transaction and its effects.
type openWriter struct {
	conn    *pgx.Conn
	tx      pgx.Tx
	touched []string
	effects []func(*world)
	version string
}

// ack is an acknowledged write, and the first state that has it.
type ack struct {
	version string
	world   int
}

const stepKeys = 8

func (n *interleaving) key() string { return fmt.Sprint("k", n.random.IntN(stepKeys)) }

func (n *interleaving) current() world { return n.worlds[len(n.worlds)-1] }

// commit makes the effects the current state.
func (n *interleaving) commit(version string, effects ...func(*world)) {
	next := n.current().clone()
	for _, effect := range effects {
		effect(&next)
	}
	n.ends = append(n.ends, n.clock.now())
	n.worlds = append(n.worlds, next)
	if version != "" {
		n.acked = append(n.acked, ack{version, len(n.worlds) - 1})
	}
	if len(n.worlds) > 400 { // older ones are beyond every staleness
		drop := len(n.worlds) - 200
		n.worlds, n.ends = n.worlds[drop:], n.ends[drop:]
		n.acked = slices.DeleteFunc(n.acked, func(a ack) bool { return a.world < drop })
		for i := range n.acked {
			n.acked[i].world -= drop
		}
	}
}

// write makes one random change: through a function, through SQL, or in an open transaction.
func (n *interleaving) write() {
	t, ctx := n.t, n.t.Context()
	w := n.writers[n.random.IntN(len(n.writers))]
	key, other := n.key(), n.key()
	if n.busy[key] {
		return
	}
	n.counter++
	value := fmt.Sprintf(`{"n":%d}`, n.counter)
	full := n.prefix + key
	var (
		effect  func(*world)
		sql     string
		args    []any
		touched = []string{key}
		direct  func() Written
	)
	switch n.random.IntN(7) {
	case 0, 1:
		effect = func(w *world) { w.values[key] = value }
		sql, args = "select public.kv_upsert($1, $2)::json ->> 'version'", []any{full, value}
		direct = func() Written {
			written, err := n.store.Upsert(ctx, Entry{Key: full, Value: value})
			require.NoError(t, err)
			return written
		}
	case 2, 3:
		n.elements++
		member := fmt.Sprint("m", n.elements%40)
		if n.busy["member "+member] {
			return
		}
		touched = append(touched, "member "+member)
		effect = func(w *world) {
			w.values[key], w.indexed[key] = value, member
			if !slices.Contains(w.members, member) {
				w.members = append(w.members, member)
			}
		}
		sql, args = "select public.kv_upsert($1, $2, $3)::json ->> 'version'", []any{full, value, [][]string{{n.prefix + "x", member}}}
		direct = func() Written {
			written, err := n.store.Upsert(ctx, Entry{Key: full, Value: value, Indexes: []Index{{Key: n.prefix + "x", Member: TextMember(member)}}})
			require.NoError(t, err)
			return written
		}
	case 4:
		effect = func(w *world) { delete(w.values, key); delete(w.indexed, key) }
		sql, args = "select public.kv_delete($1)::json ->> 'version'", []any{full}
		direct = func() Written {
			written, err := n.store.Delete(ctx, full)
			require.NoError(t, err)
			return written
		}
	case 5:
		effect = func(w *world) {
			if _, there := w.values[key]; there {
				w.values[key] = value
			}
		}
		sql, args = "with w as (update public.kv_store set value = $2 where key = $1) select ''", []any{full, value}
	default: // a rename
		if key == other || n.busy[other] {
			return
		}
		touched = append(touched, other)
		effect = func(w *world) {
			_, there := w.values[key]
			_, taken := w.values[other]
			if !there || taken {
				return
			}
			w.values[other] = w.values[key]
			delete(w.values, key)
			if member, indexed := w.indexed[key]; indexed {
				w.indexed[other] = member
				delete(w.indexed, key)
			}
		}
		sql = "with w as (update public.kv_store set key = $2 where key = $1 and not exists (select from public.kv_store where key = $2)) select ''"
		args = []any{full, n.prefix + other}
	}
	if w.tx == nil && direct != nil && n.random.IntN(2) == 0 {
		n.commit(direct().Version, effect)
		return
	}
	var to interface {
		QueryRow(context.Context, string, ...any) pgx.Row
	} = w.conn
	if w.tx != nil {
		to = w.tx
	}
	var version string
	require.NoError(t, to.QueryRow(ctx, sql, args...).Scan(&version), sql)
	if w.tx == nil {
		n.commit(version, effect)
		return
	}
	w.effects, w.version, w.touched = append(w.effects, effect), version, append(w.touched, touched...)
	for _, name := range touched {
		n.busy[name] = true
	}
}

// transact begins a transaction or ends one.
func (n *interleaving) transact() {
	w := n.writers[n.random.IntN(len(n.writers))]
	if w.tx == nil {
		var err error
		w.tx, err = w.conn.Begin(n.t.Context())
		require.NoError(n.t, err)
		if n.random.IntN(2) == 0 { // its transaction id is older than the first write
			_, err = w.tx.Exec(n.t.Context(), "select pg_current_xact_id()")
			require.NoError(n.t, err)
		}
		return
	}
	if n.random.IntN(5) == 0 {
		require.NoError(n.t, w.tx.Rollback(n.t.Context()))
	} else {
		require.NoError(n.t, w.tx.Commit(n.t.Context()))
		n.commit(w.version, w.effects...)
	}
	for _, name := range w.touched {
		delete(n.busy, name)
	}
	w.tx, w.effects, w.touched, w.version = nil, nil, nil, ""
}

// read reads from one cache, and compares the result with every state that it may show.
func (n *interleaving) read() {
	t, ctx := n.t, n.t.Context()
	i := n.random.IntN(len(n.caches))
	now, allowed := n.clock.now(), n.stales[i]
	var f Freshness
	oldest := 0
	switch n.random.IntN(6) {
	case 0:
		f.Bypass, allowed = true, 0
	case 1:
		if len(n.acked) > 0 {
			a := n.acked[max(0, len(n.acked)-1-n.random.IntN(5))]
			f.After, oldest = a.version, a.world
		}
	}
	for k, end := range n.ends {
		if !end.After(now.Add(-allowed)) {
			oldest = max(oldest, k+1)
		}
	}
	var (
		answer ReadResult
		err    error
		want   func(world) string
		body   func(string) string
	)
	switch n.random.IntN(5) {
	case 0, 1:
		key := n.key()
		answer, err = n.caches[i].Get(ctx, n.prefix+key, f)
		want = func(w world) string { return w.get(key) }
	case 2:
		answer, err = n.caches[i].Get(ctx, n.prefix+"x", f)
		want = func(w world) string { return w.get("x") }
		body = sortedMembers // the model does not follow positions, which are assigned when a statement runs
	case 3:
		answer, err = n.caches[i].List(ctx, ListQuery{Prefix: n.prefix + "k", Values: true}, f)
		want = func(w world) string { return w.list(n.prefix) }
	default:
		answer, err = n.caches[i].Query(ctx, Query{Prefix: n.prefix, Select: []Field{"key"},
			Indexes: &IndexFilter{Exact: Index{Key: n.prefix + "x"}}}, f)
		want = func(w world) string { return w.query(n.prefix) }
		body = func(text string) string { return text[:strings.Index(text, "]")+1] }
	}
	if CodeOf(err) != CodeNotFound {
		require.NoError(t, err)
	}
	n.sources[answer.Source]++
	if CodeOf(err) == CodeNotFound && !n.caches[i].config.KeepEmpty {
		require.Contains(t, []Source{SourceMiss, SourceBypass}, answer.Source, "an absent answer is for its own request")
	}
	got := answer.Body
	if body != nil {
		got = body(got)
	}
	for _, w := range n.worlds[oldest:] {
		expected := want(w)
		if body != nil && strings.HasPrefix(expected, "[") {
			expected = body(expected)
		}
		if got == expected {
			return
		}
	}
	require.Fail(t, "an answer that is older than allowed", "cache %d (%s), %+v, a %s:\ngot  %s\nnow  %s\nof %d states that it may tell of",
		i, n.stales[i], f, answer.Source, got, want(n.current()), len(n.worlds)-oldest)
}

func sortedMembers(text string) string {
	var members []string
	if json.Unmarshal([]byte(text), &members) != nil {
		return text
	}
	slices.Sort(members)
	sorted, _ := json.Marshal(members)
	return string(sorted)
}

// TestCacheAgainstAModel runs CACHE_TEST_ROUNDS random interleavings of writers (functions, SQL, overlapping
// transactions) and readers on several instances, and compares every result with a model. It is not parallel, because
// other tests do not expect its bursts of changes.
func TestCacheAgainstAModel(t *testing.T) {
	const stepsOfARound = 12
	rounds, seed := setting(t, "CACHE_TEST_ROUNDS", 400), seedOf(t)
	const workers = 4 // their transactions overlap, so that snapshots have transactions in progress
	var done atomic.Int64
	for worker := range workers {
		t.Run(fmt.Sprint("Writers", worker), func(t *testing.T) {
			t.Parallel()
			n := newInterleaving(t, rand.New(rand.NewPCG(seed, uint64(worker))))
			for range rounds / workers {
				for range stepsOfARound {
					n.step()
				}
				done.Add(1)
			}
			t.Logf("%d rounds of %d steps, answers: %v", rounds/workers, stepsOfARound, n.sources)
			n.requireStatsAddUp()
			if rounds >= 1000 {
				for _, source := range []Source{SourceHit, SourceMiss, SourceRevalidated, SourceBypass} {
					require.Greater(t, n.sources[source], rounds/100, "too few of %q to mean anything", source)
				}
			}
		})
	}
}

func newInterleaving(t *testing.T, random *rand.Rand) *interleaving {
	t.Helper()
	n := &interleaving{
		t: t, random: random, prefix: newPrefix(t), store: LiveStore(t), clock: newClock(), busy: map[string]bool{}, sources: map[Source]int{},
		worlds: []world{{map[string]string{}, map[string]string{}, []string{"m"}}},
	}
	_, err := n.store.Upsert(t.Context(), Entry{Key: n.prefix + "y", Value: `{}`, Indexes: []Index{{Key: n.prefix + "x", Member: "m"}}})
	require.NoError(t, err)
	_, err = n.store.Upsert(t.Context(), Entry{Key: n.prefix + "y", Value: `{}`, Indexes: []Index{}})
	require.NoError(t, err)
	for i, stale := range []time.Duration{0, 0, time.Second, time.Second, 5 * time.Second} {
		cache := NewCache(n.store, CacheConfig{Entries: 6 + random.IntN(10), MaxBytes: 1 << 20, TTL: 20 * time.Second, MaxStale: stale, KeepEmpty: random.IntN(2) == 0})
		cache.now = n.clock.now
		if i%2 == 1 {
			cache.large = 1 // this one revalidates every result by a look
		}
		n.caches, n.stales = append(n.caches, cache), append(n.stales, stale)
	}
	for range 3 {
		n.writers = append(n.writers, &openWriter{conn: liveSQL(t)})
	}
	t.Cleanup(func() {
		for _, w := range n.writers {
			if w.tx != nil {
				_ = w.tx.Rollback(context.WithoutCancel(t.Context()))
			}
		}
	})
	return n
}

func (n *interleaving) step() {
	switch n.random.IntN(12) {
	case 0, 1, 2:
		n.write()
	case 3, 4:
		n.transact()
	case 5:
		n.clock.pass(time.Duration(n.random.IntN(900)) * time.Millisecond)
		switch n.random.IntN(100) {
		case 0:
			n.burst()
		case 1:
			cache := n.caches[n.random.IntN(len(n.caches))]
			require.NoError(n.t, cache.warm(n.t.Context(), WarmEntries, []string{n.prefix + "k*", n.prefix + "x"}))
		}
	default:
		n.read()
	}
}

// requireStatsAddUp compares the caches' counters with the results that they returned, and with what they hold.
func (n *interleaving) requireStatsAddUp() {
	n.t.Helper()
	counted := map[Source]int{}
	for _, cache := range n.caches {
		stats := cache.Stats()
		for source, answers := range map[Source]int64{SourceHit: stats.Hits, SourceMiss: stats.Misses, SourceRevalidated: stats.Revalidations, SourceBypass: stats.Bypasses} {
			if answers > 0 {
				counted[source] += int(answers)
			}
		}
		bytes := int64(0)
		for _, answer := range cache.results.Values() {
			bytes += answer.bytes
		}
		require.Equal(n.t, []int64{int64(len(cache.results.Keys())), bytes}, []int64{stats.Entries, stats.Bytes})
	}
	require.Equal(n.t, n.sources, counted)
}

// burst makes more changes than one look returns.
func (n *interleaving) burst() {
	for _, sql := range []string{
		"insert into public.kv_store (key, value) select $1 || 'burst/' || i, '0' from generate_series(1, 1100) as i",
		"delete from public.kv_store where starts_with(key, $1 || 'burst/')",
	} {
		_, err := n.writers[0].conn.Exec(n.t.Context(), sql, n.prefix)
		require.NoError(n.t, err, sql)
	}
}

// TestCacheStalenessInRealTime runs writers and readers for CACHE_TEST_SECONDS. Each writer counts up its own keys,
// and no reader may see a count that is older than its cache's staleness.
func TestCacheStalenessInRealTime(t *testing.T) {
	t.Parallel()
	seconds, seed := setting(t, "CACHE_TEST_SECONDS", 2), seedOf(t)
	const writers, keysEach = 3, 3
	prefix, store := newPrefix(t), LiveStore(t)
	var counts [writers * keysEach]acknowledged
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	var group sync.WaitGroup
	var reads, hits atomic.Int64
	for w := range writers {
		conn := liveSQL(t)
		random := rand.New(rand.NewPCG(seed, uint64(w)))
		group.Go(func() {
			for n := 1; time.Now().Before(end) && !t.Failed(); n++ {
				k := w*keysEach + random.IntN(keysEach)
				version, err := countUp(t.Context(), random, store, conn, fmt.Sprint(prefix, k), n)
				if err != nil {
					t.Errorf("write: %v", err)
					return
				}
				counts[k].add(n, version)
				time.Sleep(time.Duration(random.IntN(8)) * time.Millisecond)
			}
		})
	}
	for r, stale := range []time.Duration{0, 0, 30 * time.Millisecond, time.Second} {
		cache := NewCache(store, CacheConfig{Entries: 100, MaxBytes: 1 << 20, TTL: time.Minute, MaxStale: stale})
		if r%2 == 1 {
			cache.large = 1
		}
		random := rand.New(rand.NewPCG(seed, uint64(100+r)))
		for range 2 { // two callers of each cache
			source := rand.New(rand.NewPCG(random.Uint64(), 0))
			group.Go(func() {
				// A slow machine may need longer for a hit.
				for (time.Now().Before(end) || hits.Load() == 0 && time.Since(end) < time.Minute) && !t.Failed() {
					k := source.IntN(len(counts))
					var f Freshness
					least, _ := counts[k].by(time.Now().Add(-stale))
					if source.IntN(4) == 0 {
						least, f.After = counts[k].by(time.Now())
					}
					answer, err := cache.Get(t.Context(), fmt.Sprint(prefix, k), f)
					if err != nil && CodeOf(err) != CodeNotFound {
						t.Errorf("read: %v", err)
						return
					}
					var value struct{ N int }
					if answer.Body != "" && json.Unmarshal([]byte(answer.Body), &value) != nil || value.N < least {
						t.Errorf("key %d: %d was acknowledged before, and a %s of a cache with staleness %s, %+v, answered %q", k, least, answer.Source, stale, f, answer.Body)
					}
					reads.Add(1)
					if answer.Source == SourceHit {
						hits.Add(1)
					}
				}
			})
		}
	}
	group.Wait()
	t.Logf("%d reads, %d of them hits", reads.Load(), hits.Load())
	require.Positive(t, hits.Load())
}

// countUp writes a number through the store, or through SQL in a transaction that stays open for a while.
func countUp(ctx context.Context, random *rand.Rand, store *Supabase, conn *pgx.Conn, key string, n int) (version string, err error) {
	value := fmt.Sprintf(`{"n":%d}`, n)
	if random.IntN(2) == 0 {
		written, err := store.Upsert(ctx, Entry{Key: key, Value: value})
		return written.Version, err
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return "", err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if err := tx.QueryRow(ctx, "select public.kv_upsert($1, $2)::json ->> 'version'", key, value).Scan(&version); err != nil {
		return "", err
	}
	time.Sleep(time.Duration(random.IntN(10)) * time.Millisecond)
	return version, tx.Commit(ctx)
}

// acknowledged has the counts of one key, and when they were acknowledged.
type acknowledged struct {
	mu  sync.Mutex
	all []acknowledgement
}

type acknowledgement struct {
	at      time.Time
	n       int
	version string
}

func (a *acknowledged) add(n int, version string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, acknowledgement{time.Now(), n, version})
	if len(a.all) > 4000 {
		a.all = slices.Clone(a.all[2000:])
	}
}

// by returns the last count acknowledged at the time, and its version.
func (a *acknowledged) by(at time.Time) (int, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := len(a.all) - 1; i >= 0; i-- {
		if !a.all[i].at.After(at) {
			return a.all[i].n, a.all[i].version
		}
	}
	return 0, ""
}
