// Package e2e tests the functions only over HTTP: against the local platform, a deploy preview or a live site. It knows
// the HTTP contract, but not the code behind it.
//
// Environment:
//
//	KV_BASE_URL                the site under test, required
//	KV_API_TOKEN               sent as a bearer token when set; of several, the first
//	DATABASE_URL               lets tests read Postgres, and write what would take too long over HTTP
//	KV_HOST_URL                the local function host: lets tests restart instances, and enforces time limits
//	KV_CACHE_MAX_STALE, KV_WARM_KEYS
//	                           the values of the functions on the local host, which tests of the cache need
//	SUPABASE_URL, SUPABASE_ANON_KEY, SUPABASE_SERVICE_ROLE_KEY, SUPABASE_JWT_SECRET
//	                           let tests send requests to PostgREST; no response may contain a secret of these
//	E2E_SMOKE=1                (or -short) only the tests named TestSmoke…: few requests, for `netlify dev`
//	E2E_QUERIES, E2E_MEGABYTES how many random queries and large values; E2E_SEED repeats the queries of a run
//	E2E_ONLY                   token, cache or store: only the tests that depend on it (modes_test.go)
//	E2E_RUN                    the name of the run, as in 20261129T133740-a1; the default is a new one
//
// The suite finds out from the site which store is the primary, whether Netlify Blobs is written, and which requests
// need a token (site_test.go). A test is skipped with a reason if the site lacks what it needs. Every test uses a
// separate key prefix below that of the run. run_test.go removes all entries of the run, however it ends.
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

// site is the deployment under test: settings from the environment, and what discover finds.
var site = struct {
	baseURL, apiToken                string
	databaseURL, hostURL             string
	supabaseURL, anonKey, serviceKey string

	blobs                           bool // Netlify Blobs is the primary, otherwise Supabase
	writesBlobs                     bool // Netlify Blobs is written, as the primary or as the mirror
	caches                          bool // the functions cache
	readsNeedToken, writesNeedToken bool
}{
	baseURL:     strings.TrimRight(os.Getenv("KV_BASE_URL"), "/"),
	apiToken:    firstOf(os.Getenv("KV_API_TOKEN")),
	databaseURL: os.Getenv("DATABASE_URL"),
	hostURL:     strings.TrimRight(os.Getenv("KV_HOST_URL"), "/"),
	supabaseURL: strings.TrimRight(os.Getenv("SUPABASE_URL"), "/"),
	anonKey:     os.Getenv("SUPABASE_ANON_KEY"),
	serviceKey:  os.Getenv("SUPABASE_SERVICE_ROLE_KEY"),
}

// firstOf returns the first of tokens separated by commas.
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
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(runAll(m))
}

// prepare discovers the site, and chooses the tests and how many run at a time.
func prepare() error {
	if err := discover(); err != nil {
		return fmt.Errorf("%s cannot be tested: %w", site.baseURL, err)
	}
	fmt.Fprintln(os.Stderr, describe())
	if err := removeOldRuns(); err != nil {
		return err
	}
	if err := choose(); err != nil {
		return err
	}
	if site.hostURL == "" { // the tests wait for the network, not for this machine
		return setDefault("test.parallel", "16")
	}
	return nil
}

// setDefault sets a flag unless it was given.
func setDefault(name, value string) error {
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	if given {
		return nil
	}
	return flag.Set(name, value)
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

// needsSupabase skips the test if Netlify Blobs is the primary.
func needsSupabase(t testing.TB) {
	t.Helper()
	if site.blobs {
		t.Skip("Netlify Blobs is the primary: this test needs Supabase")
	}
}

// keepable reports whether a key can be stored: if Netlify Blobs is written, its rules apply too.
func keepable(key string) bool {
	if !site.writesBlobs {
		return true
	}
	segments := strings.Split(key, "/")
	return len(key) <= 600 && !strings.HasPrefix(key, "/") && !strings.ContainsAny(key, `?#\`) && !escape.MatchString(key) &&
		!slices.Contains(segments, ".") && !slices.Contains(segments, "..")
}

var escape = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

// database connects to Postgres, or skips the test without DATABASE_URL.
func database(t *testing.T) *pgx.Conn {
	t.Helper()
	needsSupabase(t)
	if site.databaseURL == "" {
		t.Skip("DATABASE_URL is not set: this test reads Postgres")
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
