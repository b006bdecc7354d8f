package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/netlify"
	"netlify-supabase-kv/scripts/bench/report"
)

// CacheLoad is a mix of kv-get and kv-upsert.
type CacheLoad struct {
	Name      string  `json:"name"`
	Keys      int     `json:"keys"`      // how many keys are read and written
	Zipf      float64 `json:"zipf"`      // the exponent of the keys' popularity, above 1; 0: all are equally popular
	Writes    float64 `json:"writes"`    // share of the requests that write
	Requests  int     `json:"requests"`  // how many requests in all
	Instances int     `json:"instances"` // of kv-get, each with its own cache; requests go to a random one
	Seed      uint64  `json:"seed"`
	Results   int     `json:"results,omitempty"` // how many results a cache keeps; 0 means the default
}

// HotKeys is the load of a few keys that are read often.
const HotKeys = "hot keys"

// CacheLoads are the loads of `make bench`. Fewer requests use fewer keys, since each key has to be written first.
func CacheLoads(requests int, seed uint64) []CacheLoad {
	keys := min(10_000, requests/2)
	zipf := CacheLoad{Name: fmt.Sprintf("Zipf over %s keys", report.Thousands(keys)), Keys: keys, Zipf: 1.1, Writes: 0.05, Requests: requests, Instances: 2, Seed: seed}
	loads := []CacheLoad{zipf, {Name: HotKeys, Keys: 20, Writes: 0.05, Requests: requests, Instances: 2, Seed: seed}}
	for _, results := range []int{100, 1000, 10_000} {
		if results != kv.DefaultCache.Entries {
			load := zipf
			load.Results, load.Name = results, fmt.Sprintf("%s, KV_CACHE_ENTRIES=%d", zipf.Name, results)
			loads = append(loads, load)
		}
	}
	return loads
}

// CacheResult is the result of a load. Every read is sent twice, in random order: to an instance with a cache and to
// one without.
type CacheResult struct {
	Load      CacheLoad `json:"load"`
	HitRatio  float64   `json:"hit_ratio"`
	Cached    Latency   `json:"cached"`   // all reads with a cache
	Hits      Latency   `json:"hits"`     // those from memory
	Misses    Latency   `json:"misses"`   // those from the database
	Uncached  Latency   `json:"uncached"` // without a cache
	HitToMiss float64   `json:"hit_to_miss_p50"`
}

// Run writes the keys under the prefix and sends the load. It calls progress after each request.
func (l CacheLoad) Run(ctx context.Context, store *kv.Supabase, prefix string, progress func(done int)) (CacheResult, error) {
	random := rand.New(rand.NewPCG(l.Seed, 1))
	pick := func() int { return random.IntN(l.Keys) }
	if l.Zipf > 0 {
		zipf := rand.NewZipf(random, l.Zipf, 1, uint64(l.Keys-1))
		pick = func() int { return int(zipf.Uint64()) }
	}
	key := func(i int) string { return fmt.Sprintf("%s%06d", prefix, i) }
	upsert := newInstance(netlify.Upsert(store))
	write := func(i int) error {
		_, err := upsert.invoke(ctx, post(map[string]any{"key": key(i), "value": entryOf(random)}).event())
		return err
	}
	for i := range l.Keys {
		if err := write(i); err != nil {
			return CacheResult{}, fmt.Errorf("seed %s: %w", key(i), err)
		}
	}

	config := kv.DefaultCache
	config.MaxStale = netlify.GetCache.MaxStale
	if l.Results > 0 {
		config.Entries = l.Results
	}
	var cached []instance
	for range l.Instances {
		cached = append(cached, newInstance(netlify.Get(kv.NewCache(store, config))))
	}
	uncached := newInstance(netlify.Get(kv.Uncached(store)))
	var with, hits, misses, without []time.Duration
	for done := range l.Requests {
		progress(done)
		i := pick()
		if random.Float64() < l.Writes {
			if err := write(i); err != nil {
				return CacheResult{}, err
			}
			continue
		}
		event := get(map[string]string{"key": key(i)}).event()
		readers := []instance{cached[random.IntN(len(cached))], uncached}
		first := random.IntN(2)
		for _, which := range []int{first, 1 - first} {
			r, err := readers[which].invoke(ctx, event)
			if err != nil {
				return CacheResult{}, err
			}
			switch {
			case which == 1:
				without = append(without, r.took)
				continue
			case r.source == kv.SourceHit:
				hits = append(hits, r.took)
			default:
				misses = append(misses, r.took)
			}
			with = append(with, r.took)
		}
	}
	result := CacheResult{Load: l, Cached: summarize(with), Hits: summarize(hits), Misses: summarize(misses), Uncached: summarize(without)}
	result.HitRatio = ratio(float64(len(hits)), float64(len(with)))
	result.HitToMiss = ratio(result.Hits.P50, result.Misses.P50)
	return result, nil
}

// entryOf returns a value of about 300 bytes, like an app's session.
func entryOf(random *rand.Rand) map[string]any {
	return map[string]any{
		"user": fmt.Sprintf("user-%06d", random.IntN(1_000_000)), "score": random.IntN(1000), "active": true,
		"title": "What a session of an app keeps", "tags": []string{"draft", "mobile", "beta"},
		"body": "Some sentences of text, as people write them into a form, and a few more words to make up for a size that is usual.",
	}
}
