// Package e2e tests kv-upsert, kv-list, kv-get, kv-query and kv-delete from outside, over HTTP alone: against the local platform,
// a deploy preview or a live site. It knows the HTTP contract and nothing of the code behind it.
//
// Environment:
//
//	KV_BASE_URL                the site under test, required
//	KV_API_TOKEN               sent as a bearer token when set; of several, the first
//	DATABASE_URL               lets tests look into Postgres, and fill it with what would take too long over HTTP
//	KV_HOST_URL                the local function host: lets tests restart instances, and holds them to times
//	USE_SUPABASE_KV, KV_MIRROR_WRITES
//	                           as the functions have them: which store answers, and whether the other one is written too
//	KV_CACHE, KV_CACHE_MAX_STALE, KV_WARM_KEYS
//	                           as the functions have them, so that tests of the cache know what to expect
//	SUPABASE_URL, SUPABASE_ANON_KEY, SUPABASE_SERVICE_ROLE_KEY, SUPABASE_JWT_SECRET
//	                           let tests knock at PostgREST; no answer may hold a secret of these
//	E2E_SMOKE=1                (or -short) only the tests named TestSmoke…: small values and few requests, for `netlify dev`
//	E2E_QUERIES, E2E_MEGABYTES how many random queries and large values; E2E_SEED repeats the queries of a run
//	E2E_ONLY                   token, cache or store: only the tests that depend on it (modes_test.go)
//
// Every test works under a random key prefix and deletes what it wrote. A test that needs what a site does not offer is
// skipped and says so.
package e2e

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// site is what the environment says about the deployment under test.
var site = struct {
	baseURL, apiToken                string
	databaseURL, hostURL             string
	supabaseURL, anonKey, serviceKey string
}{
	baseURL:     strings.TrimRight(os.Getenv("KV_BASE_URL"), "/"),
	apiToken:    firstOf(os.Getenv("KV_API_TOKEN")),
	databaseURL: os.Getenv("DATABASE_URL"),
	hostURL:     strings.TrimRight(os.Getenv("KV_HOST_URL"), "/"),
	supabaseURL: strings.TrimRight(os.Getenv("SUPABASE_URL"), "/"),
	anonKey:     os.Getenv("SUPABASE_ANON_KEY"),
	serviceKey:  os.Getenv("SUPABASE_SERVICE_ROLE_KEY"),
}

// firstOf takes the first of tokens with commas between them.
func firstOf(tokens string) string {
	first, _, _ := strings.Cut(tokens, ",")
	return strings.TrimSpace(first)
}

func TestMain(m *testing.M) {
	flag.Parse()
	if site.baseURL == "" {
		fmt.Fprintln(os.Stderr, "KV_BASE_URL is not set: start the local platform with `make up` and run `make e2e`,\n"+
			"or name a site: KV_BASE_URL=https://deploy-preview-12--site.netlify.app make e2e")
		os.Exit(1)
	}
	if err := choose(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// setting reads a number from the environment.
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

// needsSupabase skips the test where Netlify Blobs answers.
func needsSupabase(t testing.TB) {
	t.Helper()
	if os.Getenv("USE_SUPABASE_KV") == "false" {
		t.Skip("Netlify Blobs answers: this test is about what only Supabase can do")
	}
}

// keepable tells whether a key can be stored: while Netlify Blobs is written, its clients' rules hold too.
func keepable(key string) bool {
	if os.Getenv("USE_SUPABASE_KV") != "false" && os.Getenv("KV_MIRROR_WRITES") != "true" {
		return true
	}
	segments := strings.Split(key, "/")
	return len(key) <= 600 && !strings.HasPrefix(key, "/") && !strings.ContainsAny(key, `?#\`) && !escape.MatchString(key) &&
		!slices.Contains(segments, ".") && !slices.Contains(segments, "..")
}

var escape = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

// database connects to Postgres, and skips the test where there is no way to it.
func database(t *testing.T) *pgx.Conn {
	t.Helper()
	needsSupabase(t)
	if site.databaseURL == "" {
		t.Skip("DATABASE_URL is not set: this test looks into Postgres")
	}
	conn, err := pgx.Connect(t.Context(), site.databaseURL)
	if err != nil {
		t.Fatalf("DATABASE_URL is set but Postgres does not answer: %v", err)
	}
	t.Cleanup(func() { conn.Close(cleanupContext(t)) })
	return conn
}

// needsHost skips the test on sites that are not the local function host.
func needsHost(t *testing.T) {
	t.Helper()
	if site.hostURL == "" {
		t.Skip("KV_HOST_URL is not set: this test drives the local function host")
	}
}
