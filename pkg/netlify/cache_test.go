package netlify

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

// fixedReader is a reader with a fixed result. It records the freshness that was asked for.
type fixedReader struct {
	answer kv.ReadResult
	err    error
	asked  *kv.Freshness
}

func (r fixedReader) read(f kv.Freshness) (kv.ReadResult, error) {
	if r.asked != nil {
		*r.asked = f
	}
	return r.answer, r.err
}
func (r fixedReader) Get(_ context.Context, _ string, f kv.Freshness) (kv.ReadResult, error) {
	return r.read(f)
}
func (r fixedReader) List(_ context.Context, _ kv.ListQuery, f kv.Freshness) (kv.ReadResult, error) {
	return r.read(f)
}
func (r fixedReader) Query(_ context.Context, _ kv.Query, f kv.Freshness) (kv.ReadResult, error) {
	return r.read(f)
}
func (r fixedReader) Stats() kv.CacheStats {
	return kv.CacheStats{Hits: 1, Misses: 2, Revalidations: 3, Bypasses: 4, Invalidations: 5, Resets: 6, Evictions: 7, Entries: 8, Bytes: 9}
}

const stats = "hits=1, misses=2, revalidations=3, bypasses=4, invalidations=5, resets=6, evictions=7, entries=8, bytes=9"

func TestCacheHeaders(t *testing.T) {
	t.Parallel()
	answer := kv.ReadResult{Body: noResults, Tag: "tag", Source: kv.SourceHit, Age: 1999 * time.Millisecond, Database: 1500 * time.Microsecond}
	for name, endpoint := range map[string]Endpoint{
		"get": Get(fixedReader{answer: answer}), "list": List(fixedReader{answer: answer}), "query": Query(fixedReader{answer: answer}, time.Second),
	} {
		r := invoke(t, endpoint, event("GET", `"path":"/api/kv/get/k"`))
		require.Equal(t, http.StatusOK, r.StatusCode, name)
		require.Equal(t, "hit", r.Headers["X-KV-Cache"], name)
		require.Equal(t, "1", r.Headers["Age"], name)
		require.Equal(t, `W/"tag"`, r.Headers["ETag"], name)
		require.Equal(t, stats, r.Headers["X-KV-Cache-Stats"], name)
		require.Regexp(t, `^cache;desc=hit, db;dur=1\.500, total;dur=\d+\.\d{3}$`, r.Headers["Server-Timing"], name)
		for _, header := range []string{"ETag", "Age", "Server-Timing", "X-KV-Cache", "X-KV-Cache-Stats", "X-KV-Version"} {
			require.Contains(t, strings.Split(r.Headers["Access-Control-Expose-Headers"], ", "), header, name)
		}
	}
	missing := fixedReader{answer: kv.ReadResult{Source: kv.SourceMiss}, err: &kv.Error{Code: kv.CodeNotFound}}
	r := invoke(t, Get(missing), event("GET", `"queryStringParameters":{"key":"k"}`))
	require.Equal(t, http.StatusNotFound, r.StatusCode)
	require.Equal(t, "miss", r.Headers["X-KV-Cache"])
	require.NotContains(t, r.Headers, "ETag")
	failed := fixedReader{err: &kv.Error{Code: kv.CodeDatabaseUnreachable, Message: "m"}}
	r = invoke(t, List(failed), event("GET", ""))
	require.Equal(t, http.StatusBadGateway, r.StatusCode)
	require.NotContains(t, r.Headers, "X-KV-Cache")
	require.Equal(t, stats, r.Headers["X-KV-Cache-Stats"])
	r = invoke(t, Upsert(memory{}), post(`{"key":"k","value":{}}`))
	require.Regexp(t, `^total;dur=\d+\.\d{3}$`, r.Headers["Server-Timing"])
	require.NotContains(t, r.Headers, "X-KV-Cache-Stats")
	require.NotContains(t, invoke(t, List(failed), event("OPTIONS", "")).Headers, "X-KV-Cache-Stats")
}

func TestNotModified(t *testing.T) {
	t.Parallel()
	answer := kv.ReadResult{Body: noResults, Tag: "tag", Source: kv.SourceHit}
	for header, status := range map[string]int{
		`W/\"tag\"`: 304, `\"tag\"`: 304, `*`: 304, `\"a\", W/\"tag\"`: 304, ` W/\"tag\" `: 304,
		``: 200, `tag`: 200, `W/\"other\"`: 200, `\"tag`: 200, `w/\"tag\"`: 200,
	} {
		for name, endpoint := range map[string]Endpoint{
			"get": Get(fixedReader{answer: answer}), "list": List(fixedReader{answer: answer}), "query": Query(fixedReader{answer: answer}, time.Second),
		} {
			r := invoke(t, endpoint, event("GET", `"headers":{"if-none-match":"`+header+`"},"path":"/api/kv/get/k"`))
			require.Equal(t, status, r.StatusCode, "%s, If-None-Match: %s", name, header)
			require.Equal(t, `W/"tag"`, r.Headers["ETag"])
			require.Equal(t, "no-cache", r.Headers["Cache-Control"])
			require.Equal(t, status == 304, r.Body == "", name)
		}
	}
	r := invoke(t, Query(fixedReader{answer: answer}, time.Second), event("POST", `"headers":{"If-None-Match":"*"}`))
	require.Equal(t, http.StatusOK, r.StatusCode, "a POST is answered in full")
	missing := fixedReader{err: &kv.Error{Code: kv.CodeNotFound}}
	r = invoke(t, Get(missing), event("GET", `"headers":{"If-None-Match":"*"},"queryStringParameters":{"key":"k"}`))
	require.Equal(t, http.StatusNotFound, r.StatusCode)
}

func TestFreshnessHeaders(t *testing.T) {
	t.Parallel()
	for headers, want := range map[string]kv.Freshness{
		``:                                       {},
		`"Cache-Control":"no-cache"`:             {Bypass: true},
		`"cache-control":"No-Cache"`:             {Bypass: true},
		`"Cache-Control":"max-age=0"`:            {Bypass: true, MaxAge: new(time.Duration(0))},
		`"Cache-Control":"Max-Age=5"`:            {MaxAge: new(5 * time.Second)},
		`"Cache-Control":"a=1,max-age=60 , b"`:   {MaxAge: new(time.Minute)},
		`"Cache-Control":"no-cache, max-age=9"`:  {Bypass: true, MaxAge: new(9 * time.Second)},
		`"Cache-Control":"max-age=1.5"`:          {Bypass: true, MaxAge: new(time.Duration(0))},
		`"Cache-Control":"max-age=-1"`:           {Bypass: true, MaxAge: new(time.Duration(0))},
		`"Cache-Control":"max-age"`:              {Bypass: true, MaxAge: new(time.Duration(0))},
		`"Cache-Control":"max-age=99999999999"`:  {MaxAge: new(1 << 31 * time.Second)},
		`"Cache-Control":"s-max-age=5"`:          {},
		`"Cache-Control":"no-cached"`:            {},
		`"X-KV-Cache":"bypass"`:                  {Bypass: true},
		`"X-KV-Cache":"other"`:                   {},
		`"X-KV-After":"epoch.1"`:                 {After: "epoch.1"},
		`"Cache-Control":"a, no-cache"`:          {Bypass: true},
		`"X-KV-After":"v","x-kv-cache":"BYPASS"`: {After: "v", Bypass: true},
	} {
		var asked kv.Freshness
		reader := fixedReader{answer: kv.ReadResult{Body: noResults}, asked: &asked}
		for _, endpoint := range []Endpoint{Get(reader), List(reader), Query(reader, time.Second)} {
			asked = kv.Freshness{After: "not asked"}
			invoke(t, endpoint, event("GET", `"headers":{`+headers+`},"path":"/api/kv/get/k"`))
			require.Equal(t, want, asked, headers)
		}
	}
}

func TestLogOfARead(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	h := Handle(List(fixedReader{answer: kv.ReadResult{Body: noResults, Source: kv.SourceRevalidated, Age: time.Second, Database: time.Millisecond}}))
	h.log = slog.New(slog.NewJSONHandler(&log, nil))
	invokeHandler(t, h, event("GET", ""))
	var line struct {
		Cache       string
		StalenessMS float64       `json:"staleness_ms"`
		DatabaseMS  float64       `json:"database_ms"`
		CacheStats  kv.CacheStats `json:"cache_stats"`
	}
	require.NoError(t, json.Unmarshal(log.Bytes(), &line), log.String())
	require.Equal(t, "revalidated", line.Cache)
	require.EqualValues(t, 1000, line.StalenessMS)
	require.EqualValues(t, 1, line.DatabaseMS)
	require.Equal(t, fixedReader{}.Stats(), line.CacheStats)
}

func TestEveryCounterIsReported(t *testing.T) {
	t.Parallel()
	counted := map[string]int64{}
	fixedReader{}.Stats().Each(func(name string, n int64) { counted[name] = n })
	require.Len(t, counted, reflect.TypeFor[kv.CacheStats]().NumField())
	require.NotContains(t, slices.Collect(maps.Values(counted)), int64(0), "each of told's is another number")
}

func TestCacheFromEnv(t *testing.T) {
	defaults := CacheDefaults{MaxStale: time.Second}
	with := func(change func(*kv.CacheConfig)) kv.CacheConfig {
		config := kv.DefaultCache
		config.MaxStale = time.Second
		change(&config)
		return config
	}
	for name, c := range map[string]struct {
		variable, value string
		want            kv.CacheConfig
	}{
		"Nothing":       {"KV_CACHE", "", with(func(*kv.CacheConfig) {})},
		"SetToTheSame":  {"KV_CACHE_MAX_STALE", "1s", with(func(c *kv.CacheConfig) { c.KeepEmpty = true })},
		"On":            {"KV_CACHE", "On", with(func(*kv.CacheConfig) {})},
		"Entries":       {"KV_CACHE_ENTRIES", "7", with(func(c *kv.CacheConfig) { c.Entries = 7 })},
		"Bytes":         {"KV_CACHE_MAX_BYTES", "1000000", with(func(c *kv.CacheConfig) { c.MaxBytes = 1_000_000 })},
		"TTL":           {"KV_CACHE_TTL", "90s", with(func(c *kv.CacheConfig) { c.TTL = 90 * time.Second })},
		"TTLInSeconds":  {"KV_CACHE_TTL", "90", with(func(c *kv.CacheConfig) { c.TTL = 90 * time.Second })},
		"Stale":         {"KV_CACHE_MAX_STALE", "250ms", with(func(c *kv.CacheConfig) { c.KeepEmpty, c.MaxStale = true, 250*time.Millisecond })},
		"StaleFraction": {"KV_CACHE_MAX_STALE", "0.25", with(func(c *kv.CacheConfig) { c.KeepEmpty, c.MaxStale = true, 250*time.Millisecond })},
		"NeverStale":    {"KV_CACHE_MAX_STALE", "0", with(func(c *kv.CacheConfig) { c.KeepEmpty, c.MaxStale = true, 0 })},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(c.variable, c.value)
			variables, cache, err := cacheFromEnv(defaults)
			require.NoError(t, err)
			require.True(t, variables.On)
			require.Equal(t, c.want, cache)
		})
	}
	for _, off := range []string{"off", "false", "0", "OFF"} {
		t.Setenv("KV_CACHE", off)
		variables, _, err := cacheFromEnv(defaults)
		require.NoError(t, err)
		require.False(t, variables.On, off)
	}
	t.Setenv("KV_CACHE", "")
	t.Setenv("USE_SUPABASE_KV", "true")
	t.Setenv("SUPABASE_URL", "https://x.supabase.co")
	t.Setenv("SUPABASE_SERVICE_ROLE_KEY", "k")
	for variable, values := range map[string][]string{
		"KV_CACHE": {"perhaps"}, "KV_CACHE_ENTRIES": {"0", "-1", "many", "1.5", "1000001"}, "KV_CACHE_MAX_BYTES": {"0", "64MB", "-1"},
		"KV_CACHE_TTL": {"0", "-1s", "soon", "NaN"}, "KV_CACHE_MAX_STALE": {"-1s", "soon", "Inf", "1e300"},
	} {
		for _, value := range values {
			t.Setenv(variable, value)
			r := invoke(t, List(ReaderFromEnv(ListCache)), event("GET", ""))
			require.Equal(t, http.StatusServiceUnavailable, r.StatusCode, "%s=%s", variable, value)
			require.Contains(t, r.Body, variable+" must be")
			require.Equal(t, http.StatusServiceUnavailable, invoke(t, Get(ReaderFromEnv(GetCache)), event("GET", `"path":"/api/kv/get/k"`)).StatusCode)
		}
		t.Setenv(variable, "")
	}
	require.IsType(t, &kv.Cache{}, ReaderFromEnv(GetCache))
	require.Same(t, ReaderFromEnv(GetCache), ReaderFromEnv(GetCache), "it outlives an invocation")
	t.Setenv("KV_CACHE", "off")
	require.Equal(t, kv.Uncached(StoreFromEnv()).Stats(), ReaderFromEnv(GetCache).Stats())
	require.NotEqual(t, &kv.Cache{}, ReaderFromEnv(GetCache))
}

func TestCompareHeader(t *testing.T) {
	t.Parallel()
	r := invoke(t, Get(fixedReader{answer: kv.ReadResult{Body: `{}`, Compared: kv.ComparedDiffers}}), event("GET", `"path":"/api/kv/get/k"`))
	require.Equal(t, "differs", r.Headers["X-KV-Compare"])
	require.Contains(t, r.Headers["Access-Control-Expose-Headers"], "X-KV-Compare")
	r = invoke(t, Get(fixedReader{answer: kv.ReadResult{Body: `{}`}}), event("GET", `"path":"/api/kv/get/k"`))
	require.NotContains(t, r.Headers, "X-KV-Compare")
}
