package config

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// of is an environment.
type of map[string]string

func (o of) get(name string) string { return o[name] }

func TestWhatPastingLeavesAroundAValueIsNotPartOfIt(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"": "", "x": "x", " x\r\n": "x", "\u00a0x\u200b\ufeff": "x", `"x"`: "x", ` ' x ' `: "x", `"`: `"`, `""`: "", `"x`: `"x`, `x"`: `x"`, `"a","b"`: `"a","b"`,
		`'x"`: `'x"`, `"it's"`: "it's", `""x""`: `""x""`, " \t ": "",
	} {
		require.Equal(t, want, Clean(given), "%q", given)
		var s Supabase
		require.NoError(t, Read(&s, of{"SUPABASE_URL": given}.get))
		require.Equal(t, want, s.URL, "%q", given)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	want := Functions{Stores: Stores{CompareTimeout: 300 * time.Millisecond}, Query: Query{Timeout: 10 * time.Second},
		Cache: Cache{On: true, Entries: 1000, MaxBytes: 64 << 20, TTL: 5 * time.Minute}}
	blank := of{}
	for _, name := range append(Names(Stores{}), append(Names(Cache{}), append(Names(Query{}), Names(Blobs{})...)...)...) {
		blank[name] = " "
	}
	for _, environment := range []of{nil, blank} {
		var f Functions
		require.NoError(t, Read(&f, environment.get))
		require.Equal(t, want, f)
	}
	var p Platform
	require.NoError(t, Read(&p, of{}.get))
	require.Equal(t, Platform{Postgres: "17", Instances: 2, Timeout: time.Minute}, p)
}

func TestABooleanIsTakenWhereItIsPlain(t *testing.T) {
	t.Parallel()
	for want, texts := range map[bool][]string{
		true: {"true", "TRUE", "True ", ` "true"`, "1", "t", "yes", "Y", "on", "on\n"}, false: {"false", "False ", "'false'", "0", "f", "no", "N", "OFF"},
	} {
		for _, text := range texts {
			s := Stores{UseSupabase: !want}
			require.NoError(t, Read(&s, of{"USE_SUPABASE_KV": text}.get), text)
			require.Equal(t, want, s.UseSupabase, "%q", text)
		}
	}
	for _, text := range []string{"tru", "2", "maybe", "true false", "null", "truthy", "-1", "00"} {
		c := Functions{}
		require.EqualError(t, Read(&c, of{"USE_SUPABASE_KV": text}.get), "USE_SUPABASE_KV must be true or false", "and the value is not repeated")
		require.EqualError(t, Read(&c, of{"KV_CACHE": text}.get), "KV_CACHE must be on or off")
		require.True(t, c.On, "the default")
	}
}

func TestNumbersTimesAndLists(t *testing.T) {
	t.Parallel()
	for name, values := range map[string]map[string]any{
		"KV_CACHE_ENTRIES":   {" 7 ": 7, "1": 1, "1000000": 1_000_000},
		"KV_CACHE_MAX_BYTES": {"9223372036854775807": int64(9223372036854775807)},
		"KV_COMPARE_READS":   {`"0.5"`: 0.5, "0": 0.0, "1": 1.0, "1e-3": 0.001},
		"KV_CACHE_TTL":       {"90": 90 * time.Second, "1.5": 1500 * time.Millisecond, "250MS": 250 * time.Millisecond, "1ns": time.Nanosecond},
		"KV_CACHE_MAX_STALE": {"0": time.Duration(0), "2s": 2 * time.Second},
		"KV_QUERY_TIMEOUT":   {"10s": 10 * time.Second, "10": 10 * time.Second},
		"KV_BLOBS_RATE":      {"500": 500},
		"KV_WARM_KEYS":       {`" a b ,p/*,,*, "`: []string{"a b", "p/*", "*"}, ",,": []string(nil)},
	} {
		for text, want := range values {
			var f Functions
			require.NoError(t, Read(&f, of{name: text}.get), "%s=%s", name, text)
			got := map[string]any{"KV_CACHE_ENTRIES": f.Entries, "KV_CACHE_MAX_BYTES": f.MaxBytes, "KV_COMPARE_READS": f.CompareReads, "KV_CACHE_TTL": f.TTL,
				"KV_QUERY_TIMEOUT": f.Query.Timeout, "KV_WARM_KEYS": f.WarmKeys}[name]
			switch {
			case f.MaxStale != nil:
				got = *f.MaxStale
			case f.Rate != nil:
				got = *f.Rate
			}
			require.Equal(t, want, got, "%s=%s", name, text)
		}
	}
	for name, values := range map[string][]string{
		"KV_CACHE_ENTRIES must be a whole number from 1 to 1000000; KV_CACHE=off turns the cache off": {"0", "1000001", "1.5", "many", "NaN", "1e400", "-1"},
		"KV_COMPARE_READS must be a share from 0 to 1, as in 0.1":                                     {"-0.1", "1.1", "NaN", "some", "Inf"},
		"KV_COMPARE_TIMEOUT must be a time above 0, as in 300ms":                                      {"0", "-1s", "soon", "NaN", "Inf", "1e300", "1 s"},
		"KV_QUERY_TIMEOUT must be a time of up to 10s, as in 2s or 500ms":                             {"0", "11", "10001ms"},
		"KV_BLOBS_RATE must be a whole number of requests a minute, 1 or more, as in 300":             {"0", "many"},
		"NETLIFY_BLOBS_API_URL must be an address like https://api.netlify.com":                       {"api.netlify.com", "ftp://x", "https://"},
		"NETLIFY_BLOBS_TOKEN holds characters that none has: paste it again":                          {"a b", "a\nb", "ä"},
	} {
		for _, value := range values {
			var f Functions
			variable, _, _ := strings.Cut(name, " ")
			require.EqualError(t, Read(&f, of{variable: value}.get), name, value)
		}
	}
}

func TestEveryErrorLeavesTheOthersAlone(t *testing.T) {
	t.Parallel()
	var c Cache
	require.EqualError(t, Read(&c, of{"KV_CACHE_MAX_STALE": "soon", "KV_CACHE_ENTRIES": "0", "KV_CACHE_TTL": "1m", "KV_WARM_KEYS": "a"}.get),
		"KV_CACHE_MAX_STALE must be a time, as in 1s or 500ms, or 0", "the first")
	require.Equal(t, Cache{On: true, Entries: 1000, MaxBytes: 64 << 20, TTL: time.Minute, WarmKeys: []string{"a"}}, c)
}

func TestTokens(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Tokens{"": nil, " ": {}, ",": {}, `""`: {}, "a": {"a"}, ` "a", 'b',c `: {"a", "b", "c"}, `"a,b"`: {"a", "b"}} {
		var a Access
		require.NoError(t, Read(&a, of{"KV_API_TOKEN": text}.get))
		require.Equal(t, want, a.API, "%q", text)
	}
}

func TestAnotherNameCountsWhereTheFirstIsNotSet(t *testing.T) {
	t.Parallel()
	var p Platform
	require.NoError(t, Read(&p, of{"PORT_BASE": "20000", "INSTANCES": "3", "KV_LOCAL_INSTANCES": " "}.get))
	require.Equal(t, "20000", p.PortBase)
	require.Equal(t, 3, p.Instances)
	require.NoError(t, Read(&p, of{"PORT_BASE": "20000", "KV_LOCAL_PORT_BASE": "auto"}.get))
	require.Equal(t, "auto", p.PortBase)
	require.EqualError(t, Read(&p, of{"INSTANCES": "0"}.get), "INSTANCES must be a whole number from 1")
}

func TestNamesAndSecrets(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"USE_SUPABASE_KV", "KV_NAMESPACE", "KV_MIRROR_WRITES", "KV_COMPARE_READS", "KV_COMPARE_TIMEOUT"}, Names(Stores{}))
	require.Equal(t, []string{"SUPABASE_SERVICE_ROLE_KEY", "KV_API_TOKEN", "KV_READ_TOKEN", "NETLIFY_BLOBS_TOKEN"}, Secrets(Functions{}))
}
