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

// CacheDefaults are the defaults of a function's cache.
type CacheDefaults struct {
	MaxStale time.Duration // of KV_CACHE_MAX_STALE
	Warm     kv.WarmWith   // what KV_WARM_KEYS loads
}

// cacheFromEnv reads the cache's variables, and the configuration that they mean to a function with the defaults.
func cacheFromEnv(defaults CacheDefaults) (c config.Cache, cache kv.CacheConfig, err error) {
	err = config.Read(&c, os.Getenv)
	cache = kv.CacheConfig{Entries: c.Entries, MaxBytes: c.MaxBytes, TTL: c.TTL, MaxStale: defaults.MaxStale}
	if err != nil {
		return c, cache, badVariable(err)
	}
	if c.MaxStale != nil {
		cache.MaxStale, cache.KeepEmpty = *c.MaxStale, true // a deliberate choice, which covers empty results too
	}
	return c, cache, nil
}

// logWarmStart logs how a warm start ended.
func logWarmStart(err error) {
	log := newLog()
	if err != nil {
		log.LogAttrs(context.Background(), slog.LevelWarn, "warm start failed", slog.String("error", err.Error()))
		return
	}
	log.LogAttrs(context.Background(), slog.LevelInfo, "warm start")
}

// freshness returns what the request's headers ask of the cache. A max-age that cannot be understood counts as 0, as
// RFC 9111 advises (section 4.2.1).
func freshness(r *Request) kv.Freshness {
	f := kv.Freshness{After: r.Headers.KVAfter, Bypass: strings.EqualFold(strings.TrimSpace(r.Headers.KVCache), "bypass")}
	for directive := range strings.SplitSeq(r.Headers.CacheControl, ",") {
		switch name, value, _ := strings.Cut(strings.TrimSpace(directive), "="); strings.ToLower(name) {
		case "no-cache":
			f.Bypass = true
		case "max-age":
			seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 64)
			f.MaxAge = new(time.Duration(min(seconds, maxAgeSeconds)) * time.Second)
			f.Bypass = f.Bypass || err != nil || seconds == 0
		}
	}
	return f
}

// maxAgeSeconds is where a max-age is cut: 2^31 s, as RFC 9111 has it for one that is too large.
const maxAgeSeconds = 1 << 31

// cached adds the headers that describe a reader's result to the response that was made of it. If the caller has the
// content already, the response becomes 304.
func cached(r *Request, result kv.ReadResult, response *Response) *Response {
	header := described(result, response)
	if response.Status != http.StatusOK {
		return response
	}
	// Weak, because the timestamp differs each time.
	tag := `"` + result.Tag + `"`
	header["ETag"] = "W/" + tag
	if r.HTTPMethod == http.MethodGet && matches(r.Headers.IfNoneMatch, tag) {
		response.Status, response.Body = http.StatusNotModified, nil
	}
	return response
}

// described adds the headers that say where a reader's result came from, and returns all of them.
func described(result kv.ReadResult, response *Response) map[string]string {
	header := map[string]string{
		"X-KV-Cache": string(result.Source),
		"Age":        strconv.Itoa(int(result.Age.Seconds())),
	}
	if result.Compared != "" {
		header["X-KV-Compare"] = string(result.Compared)
	}
	maps.Copy(header, response.Header)
	response.Header, response.result = header, &result
	return header
}

// matches compares an entity tag, which has no comma, weakly with those of If-None-Match (RFC 9110, section 13.1.2).
func matches(ifNoneMatch, tag string) bool {
	for _, given := range strings.Split(ifNoneMatch, ",") {
		given = strings.TrimSpace(given)
		if given == "*" || strings.TrimPrefix(given, "W/") == tag {
			return true
		}
	}
	return false
}

// cacheStats returns the counters as a dictionary of structured fields (RFC 9651).
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

// milliseconds returns a duration for Server-Timing and the log.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// serverTiming returns the header that browsers' developer tools show.
func serverTiming(result *kv.ReadResult, total time.Duration) string {
	timing := make([]byte, 0, 80)
	if result != nil {
		timing = append(append(append(timing, "cache;desc="...), result.Source...), ", db;dur="...)
		timing = append(strconv.AppendFloat(timing, milliseconds(result.Database), 'f', 3, 64), ", "...)
	}
	return string(strconv.AppendFloat(append(timing, "total;dur="...), milliseconds(total), 'f', 3, 64))
}
