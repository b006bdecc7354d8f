package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// allowedStaleness returns KV_CACHE_MAX_STALE of the functions under test.
func allowedStaleness(t *testing.T, otherwise time.Duration) time.Duration {
	t.Helper()
	if !site.caches {
		return 0
	}
	text := os.Getenv("KV_CACHE_MAX_STALE")
	if text == "" {
		return otherwise
	}
	if text == "0" {
		return 0
	}
	stale, err := time.ParseDuration(text)
	require.NoError(t, err, "KV_CACHE_MAX_STALE")
	return stale
}

// reads returns a request for each reading function that reads N of an entry {"n":N}.
var reads = []struct {
	name      string
	staleness time.Duration
	address   func(key string) string
}{
	{"kv-get", time.Second, func(key string) string { return getPath + params("key", key) }},
	{"kv-list", 0, func(key string) string { return listPath + params("prefix", key, "includeValues", "true") }},
	{"kv-query", time.Second, func(key string) string { return queryPath + params("prefix", key, "select", "value.n") }},
}

var count = regexp.MustCompile(`"(?:value\.)?n":(\d+)`)

func readCount(t *testing.T, address string, options ...option) int {
	t.Helper()
	a := call(t, http.MethodGet, address, options...)
	require.Equal(t, http.StatusOK, a.status, "%v", a)
	found := count.FindSubmatch(a.body)
	require.NotNil(t, found, "%v", a)
	n, err := strconv.Atoi(string(found[1]))
	require.NoError(t, err)
	return n
}

// TestAnUpdateIsSeenByEveryInstanceInTime: two instances of each function have cached the old value.
func TestAnUpdateIsSeenByEveryInstanceInTime(t *testing.T) {
	needsHost(t)
	db, prefix := database(t), newPrefix()
	for round, write := range []func(key string, n int){
		func(key string, n int) { upsert(t, key, fmt.Sprintf(`{"n":%d}`, n)) },
		func(key string, n int) {
			_, err := db.Exec(t.Context(), `update public.kv_store set value = $2 where key = $1`, key, fmt.Sprintf(`{"n":%d}`, n))
			require.NoError(t, err)
		},
	} {
		for _, read := range reads {
			key := fmt.Sprint(prefix, read.name, round)
			address := read.address(key)
			upsert(t, key, `{"n":0}`)
			for n := 1; n <= 3; n++ {
				for range 4 { // every instance caches the old value
					readCount(t, address)
				}
				write(key, n)
				acknowledged := time.Now()
				within := allowedStaleness(t, read.staleness)
				for late := 0; late < 4; {
					began := time.Now()
					got := readCount(t, address)
					if began.Sub(acknowledged) >= within {
						require.Equal(t, n, got, "%s, %s after the write", read.name, began.Sub(acknowledged))
						late++
					}
					time.Sleep(20 * time.Millisecond)
				}
			}
		}
	}
}

// TestACallerSeesItsOwnWritesAtOnce, whichever instance answers: with the write's version, or with no-cache.
func TestACallerSeesItsOwnWritesAtOnce(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	for _, read := range reads {
		if read.name == "kv-query" && site.blobs {
			continue // Netlify Blobs does not support it
		}
		key := prefix + read.name
		address := read.address(key)
		for n := range 20 {
			version := upsert(t, key, fmt.Sprintf(`{"n":%d}`, n)).header.Get("X-KV-Version")
			require.NotEmpty(t, version)
			require.Equal(t, n, readCount(t, address, header("X-KV-After", version)), "%s with X-KV-After", read.name)
			require.Equal(t, n, readCount(t, address, []option{fresh, header("X-KV-Cache", "bypass")}[n%2]), "%s past the cache", read.name)
			require.Equal(t, n, readCount(t, address, header("X-KV-After", version)), "%s with X-KV-After", read.name)
		}
	}
}

func TestUnchangedResponsesAreNotSentAgain(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	for _, read := range reads {
		if read.name == "kv-query" && site.blobs {
			continue // Netlify Blobs does not support it
		}
		key := prefix + read.name
		address := read.address(key)
		upsert(t, key, `{"n":1}`)
		first := call(t, http.MethodGet, address, fresh)
		tag := first.header.Get("ETag")
		require.Regexp(t, `^W/"[\w-]+"$`, tag)
		for range 3 {
			again := call(t, http.MethodGet, address, fresh)
			require.Equal(t, tag, again.header.Get("ETag"), "the content is the same")
			unchanged := call(t, http.MethodGet, address, header("If-None-Match", `"other", `+tag), header("X-KV-Cache", "bypass"))
			require.Equal(t, http.StatusNotModified, unchanged.status, "%v", unchanged)
			require.Equal(t, tag, unchanged.header.Get("ETag"))
			require.Equal(t, "no-cache", unchanged.header.Get("Cache-Control"))
		}
		upsert(t, key, `{"n":2}`)
		changed := call(t, http.MethodGet, address, header("If-None-Match", tag), fresh)
		require.Equal(t, http.StatusOK, changed.status)
		require.NotEqual(t, tag, changed.header.Get("ETag"))
	}
}

func TestReadsReportTheirCache(t *testing.T) {
	needsHost(t)
	prefix := newPrefix()
	upsert(t, prefix+"k", `{"n":1}`)
	perFunction := 0
	all, err := control(http.MethodGet, "instances")
	require.NoError(t, err)
	for _, in := range all {
		if in.Function == "kv-get" {
			perFunction++
		}
	}
	known := map[string]bool{}
	for range 3 * perFunction {
		a := call(t, http.MethodGet, getPath+params("key", prefix+"k"))
		instance, source := a.header.Get("X-KV-Instance"), a.header.Get("X-KV-Cache")
		switch {
		case !site.caches:
			require.Equal(t, "off", source)
		case !known[instance]:
			require.Equal(t, "miss", source)
		case allowedStaleness(t, time.Second) == 0: // then small responses are not cached
			require.Equal(t, "miss", source)
		default: // a miss if the instance has read the feed since the upsert
			require.Contains(t, []string{"hit", "revalidated", "miss"}, source)
		}
		known[instance] = true
		require.Regexp(t, `^\d+$`, a.header.Get("Age"))
		require.Regexp(t, `^cache;desc=\w+, db;dur=[\d.]+, total;dur=[\d.]+$`, a.header.Get("Server-Timing"))
		require.Regexp(t, `^hits=\d+, misses=\d+, .*bytes=\d+$`, a.header.Get("X-KV-Cache-Stats"))
	}
	a := call(t, http.MethodGet, getPath+params("key", prefix+"k"), fresh)
	require.Equal(t, map[bool]string{true: "bypass", false: "off"}[site.caches], a.header.Get("X-KV-Cache"))
}

// TestTimestampsAreThoseOfTheResponse, not of the cached entry.
func TestTimestampsAreThoseOfTheResponse(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	upsert(t, prefix+"k", `{}`)
	var last string
	for range 6 {
		time.Sleep(2 * time.Millisecond)
		var text string
		require.NoError(t, json.Unmarshal(call(t, http.MethodGet, getPath+params("key", prefix+"k")).fields(t)["timestamp"], &text))
		require.Greater(t, text, last)
		last = text
	}
}

// TestANewInstanceWarmsItsKeys needs KV_WARM_KEYS with "e2e/warm/*".
func TestANewInstanceWarmsItsKeys(t *testing.T) {
	needsHost(t)
	if !strings.Contains(os.Getenv("KV_WARM_KEYS"), "e2e/warm/*") || !site.caches {
		t.Skip("KV_WARM_KEYS does not contain e2e/warm/*")
	}
	prefix := newPrefixUnder(parents[1])
	large := `["` + strings.Repeat("x", 100_000) + `"]` // large values stay cached until they change
	upsert(t, prefix+"k", large)
	for _, read := range []struct{ function, address, other string }{
		{"kv-get", getPath + params("key", prefix+"k"), getPath + params("key", "e2e/none")},
		{"kv-list", listPath + params("prefix", "e2e/warm/", "includeValues", "true"), listPath + params("prefix", "e2e/none")},
	} {
		_, err := control(http.MethodPost, "restart?function="+read.function)
		require.NoError(t, err)
		warm := map[string]bool{}
		require.Eventually(t, func() bool { // request another entry until every new instance has a cache
			a := call(t, http.MethodGet, read.other)
			if !strings.Contains(a.header.Get("X-KV-Cache-Stats"), "entries=0") {
				warm[a.header.Get("X-KV-Instance")] = true
			}
			return len(warm) == 2
		}, time.Minute, 10*time.Millisecond, "instances of %s that warmed up", read.function)
		for range warm {
			a := call(t, http.MethodGet, read.address)
			require.Contains(t, []string{"hit", "revalidated"}, a.header.Get("X-KV-Cache"), "the first response of %s", read.function)
			require.Contains(t, string(a.body), large)
		}
	}
}

// TestANewEntryIsFoundAtOnce: a program that finds no entry, writes it and reads again must find it, even
// without X-KV-After. The cache therefore keeps no misses, unless the site sets a staleness.
func TestANewEntryIsFoundAtOnce(t *testing.T) {
	if os.Getenv("KV_CACHE_MAX_STALE") != "" {
		t.Skip("KV_CACHE_MAX_STALE is set")
	}
	t.Parallel()
	prefix := newPrefix()
	for i := range 10 {
		key := fmt.Sprint(prefix, i)
		for range 4 { // reach both instances
			require.Equal(t, http.StatusNotFound, call(t, http.MethodGet, getPath+params("key", key)).status)
			if site.caches {
				require.Contains(t, string(call(t, http.MethodGet, queryPath+params("prefix", key)).body), `"results":[]`)
			}
		}
		upsert(t, key, `{"n":1}`)
		for range 4 { // reach both instances
			call(t, http.MethodGet, getPath+params("key", key)).is(t, http.StatusOK, `{"key":`+quote(key)+`,"value":{"n":1},"exists":true,"timestamp":"now"}`)
			if site.caches {
				require.Equal(t, 1, readCount(t, queryPath+params("prefix", key, "select", "value.n")))
			}
		}
	}
}
