package netlify

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"netlify-supabase-kv/pkg/config"
	"netlify-supabase-kv/pkg/kv"
)

// CacheDefaults is what a function's cache does unless the environment says otherwise.
type CacheDefaults struct {
	MaxStale time.Duration // KV_CACHE_MAX_STALE
	Warm     kv.WarmWith   // what KV_WARM_KEYS means to the function
}

// cacheFromEnv reads the variables of the cache, and says what they mean to a function with these defaults.
func cacheFromEnv(defaults CacheDefaults) (c config.Cache, cache kv.CacheConfig, err error) {
	err = config.Read(&c, os.Getenv)
	cache = kv.CacheConfig{Entries: c.Entries, MaxBytes: c.MaxBytes, TTL: c.TTL, MaxStale: defaults.MaxStale}
	if err != nil {
		return c, cache, badVariable(err)
	}
	if c.MaxStale != nil {
		cache.MaxStale, cache.KeepEmpty = *c.MaxStale, true // who sets it has thought of that
	}
	return c, cache, nil
}

// logWarmStart tells how a warm start ended, in a line of its own: it belongs to no request.
func logWarmStart(err error) {
	log := newLog()
	if err != nil {
		log.LogAttrs(context.Background(), slog.LevelWarn, "warm start failed", slog.String("error", err.Error()))
		return
	}
	log.LogAttrs(context.Background(), slog.LevelInfo, "warm start")
}

// freshness is what the request's headers ask of the cache.
func freshness(r *Request) kv.Freshness {
	f := kv.Freshness{After: r.Headers.KVAfter, Bypass: strings.EqualFold(strings.TrimSpace(r.Headers.KVCache), "bypass")}
	for _, directive := range strings.Split(r.Headers.CacheControl, ",") {
		if strings.EqualFold(strings.TrimSpace(directive), "no-cache") {
			f.Bypass = true
		}
	}
	return f
}

// cached turns what an endpoint made of a reader's answer into one that says how it came about, and that is empty where
// the caller has the content already.
func cached(r *Request, result kv.ReadResult, response *Response) *Response {
	header := map[string]string{
		"X-KV-Cache": string(result.Source),
		"Age":        strconv.Itoa(int(result.Age.Seconds())),
	}
	if result.Compared != "" {
		header["X-KV-Compare"] = string(result.Compared)
	}
	maps.Copy(header, response.Header)
	response.Header, response.result = header, &result
	if response.Status != http.StatusOK {
		return response
	}
	// Weak: the same content comes with another timestamp each time.
	tag := `"` + result.Tag + `"`
	header["ETag"] = "W/" + tag
	if r.HTTPMethod == http.MethodGet && matches(r.Headers.IfNoneMatch, tag) {
		response.Status, response.Body = http.StatusNotModified, nil
	}
	return response
}

// matches compares an entity tag with those of If-None-Match, weakly (RFC 9110, section 13.1.2). Ours hold no comma.
func matches(ifNoneMatch, tag string) bool {
	for _, given := range strings.Split(ifNoneMatch, ",") {
		given = strings.TrimSpace(given)
		if given == "*" || strings.TrimPrefix(given, "W/") == tag {
			return true
		}
	}
	return false
}

// cacheStats are the counters as a dictionary of structured fields (RFC 9651).
func cacheStats(s kv.CacheStats) string {
	text := make([]byte, 0, 160)
	s.Each(func(name string, n int64) {
		if len(text) > 0 {
			text = append(text, ", "...)
		}
		text = strconv.AppendInt(append(append(text, name...), '='), n, 10)
	})
	return string(text)
}

// milliseconds is a time for Server-Timing and the log.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// serverTiming says where the time went, for the browser's developer tools.
func serverTiming(result *kv.ReadResult, total time.Duration) string {
	timing := make([]byte, 0, 80)
	if result != nil {
		timing = append(append(append(timing, "cache;desc="...), result.Source...), ", db;dur="...)
		timing = append(strconv.AppendFloat(timing, milliseconds(result.Database), 'f', 3, 64), ", "...)
	}
	return string(strconv.AppendFloat(append(timing, "total;dur="...), milliseconds(total), 'f', 3, 64))
}
