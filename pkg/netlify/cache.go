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

	"netlify-supabase-kv/pkg/kv"
)

// CacheDefaults is what a function's cache does unless the environment says otherwise.
type CacheDefaults struct {
	MaxStale time.Duration // KV_CACHE_MAX_STALE
	Warm     kv.WarmWith   // what KV_WARM_KEYS means to the function
}

// cacheFromEnv reads KV_CACHE, KV_CACHE_ENTRIES, KV_CACHE_TTL, KV_CACHE_MAX_BYTES and KV_CACHE_MAX_STALE.
func cacheFromEnv(defaults CacheDefaults) (config kv.CacheConfig, on bool, err error) {
	config = kv.DefaultCache
	config.MaxStale = defaults.MaxStale
	switch strings.ToLower(envOr("KV_CACHE", "on")) {
	case "on", "true", "1":
	case "off", "false", "0":
		return config, false, nil
	default:
		return config, false, badVariable("KV_CACHE must be on or off")
	}
	if text := os.Getenv("KV_CACHE_ENTRIES"); text != "" {
		if config.Entries, err = strconv.Atoi(text); err != nil || config.Entries < 1 || config.Entries > 1_000_000 {
			return config, false, badVariable("KV_CACHE_ENTRIES must be a whole number from 1 to 1000000; KV_CACHE=off turns the cache off")
		}
	}
	if text := os.Getenv("KV_CACHE_MAX_BYTES"); text != "" {
		if config.MaxBytes, err = strconv.ParseInt(text, 10, 64); err != nil || config.MaxBytes < 1 {
			return config, false, badVariable("KV_CACHE_MAX_BYTES must be a number of bytes, as in 67108864; KV_CACHE=off turns the cache off")
		}
	}
	if text := os.Getenv("KV_CACHE_TTL"); text != "" {
		if config.TTL, err = parseDuration(text); err != nil || config.TTL <= 0 {
			return config, false, badVariable("KV_CACHE_TTL must be a time above 0, as in 5m or 30s; KV_CACHE=off turns the cache off")
		}
	}
	if text := os.Getenv("KV_CACHE_MAX_STALE"); text != "" {
		if config.MaxStale, err = parseDuration(text); err != nil || config.MaxStale < 0 {
			return config, false, badVariable("KV_CACHE_MAX_STALE must be a time, as in 1s or 500ms, or 0")
		}
	}
	return config, true, nil
}

func badVariable(message string) error {
	return &kv.Error{Code: kv.CodeNotConfigured, Message: message}
}

// parseDuration reads a time as Go writes it, or as a number of seconds.
func parseDuration(text string) (time.Duration, error) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		return time.ParseDuration(strconv.FormatFloat(seconds, 'f', -1, 64) + "s")
	}
	return time.ParseDuration(text)
}

// patternsOf takes the keys and prefixes of KV_WARM_KEYS apart, which have commas between them.
func patternsOf(text string) (patterns []string) {
	for _, pattern := range strings.Split(text, ",") {
		if pattern = strings.TrimSpace(pattern); pattern != "" {
			patterns = append(patterns, pattern)
		}
	}
	return patterns
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
	f := kv.Freshness{After: r.Header(headerAfter), Bypass: strings.EqualFold(strings.TrimSpace(r.Header(headerCache)), "bypass")}
	for _, directive := range strings.Split(r.Header(headerCacheControl), ",") {
		if strings.EqualFold(strings.TrimSpace(directive), "no-cache") {
			f.Bypass = true
		}
	}
	return f
}

// cached turns what an endpoint made of a reader's answer into one that says how it came about, and that is empty where
// the caller has the content already.
func cached(r *Request, read kv.Answer, answer *Answer) *Answer {
	header := map[string]string{
		"X-KV-Cache": string(read.Source),
		"Age":        strconv.Itoa(int(read.Age.Seconds())),
	}
	if read.Compared != "" {
		header["X-KV-Compare"] = string(read.Compared)
	}
	maps.Copy(header, answer.Header)
	answer.Header, answer.read = header, &read
	if answer.Status != http.StatusOK {
		return answer
	}
	// Weak: the same content comes with another timestamp each time.
	tag := `"` + read.Tag + `"`
	header["ETag"] = "W/" + tag
	if r.HTTPMethod == http.MethodGet && matches(r.Header(headerIfNoneMatch), tag) {
		answer.Status, answer.Body = http.StatusNotModified, nil
	}
	return answer
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
func serverTiming(read *kv.Answer, total time.Duration) string {
	timing := make([]byte, 0, 80)
	if read != nil {
		timing = append(append(append(timing, "cache;desc="...), read.Source...), ", db;dur="...)
		timing = append(strconv.AppendFloat(timing, milliseconds(read.Database), 'f', 3, 64), ", "...)
	}
	return string(strconv.AppendFloat(append(timing, "total;dur="...), milliseconds(total), 'f', 3, 64))
}
