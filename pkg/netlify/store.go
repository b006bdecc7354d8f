package netlify

import (
	"context"
	"errors"
	"os"
	"strconv"
	"time"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/mirror"
)

// StoreFromEnv returns the store that the environment asks for, writes to the other one included where they are mirrored. It
// never fails: where something is missing, the store it returns answers every operation with [kv.CodeNotConfigured] and
// says what to set.
func StoreFromEnv() kv.Store {
	stores, err := storesFromEnv()
	switch {
	case err != nil:
		return unconfigured{err}
	case stores.mirrored && stores.first == mirror.FirstSupabase:
		return mirror.SupabaseFirst(stores.pair())
	case stores.mirrored:
		return mirror.BlobsFirst(stores.pair())
	}
	return stores.answering()
}

// BlobsStoreFromEnv returns the store in Netlify Blobs, whatever else the environment asks for. It never fails, as [StoreFromEnv].
func BlobsStoreFromEnv() kv.Store {
	store, err := blobsFromEnv()
	if err != nil {
		return unconfigured{err}
	}
	return store
}

// ReaderFromEnv returns what the reading functions ask: the store of [StoreFromEnv], where that is Supabase behind this
// process's cache unless KV_CACHE is off, and compared with the other store where KV_COMPARE_READS says so. defaults are those of
// the function. Where a variable cannot be understood, every read is answered with [kv.CodeNotConfigured] and what to set. The
// answers that KV_WARM_KEYS names begin to load.
func ReaderFromEnv(defaults CacheDefaults) kv.Reader {
	stores, err := storesFromEnv()
	if err != nil {
		return kv.Uncached(unconfigured{err})
	}
	reader := kv.Uncached(stores.answering())
	config, on, err := cacheFromEnv(defaults)
	if err != nil {
		return kv.Uncached(unconfigured{err})
	}
	if on && stores.first == mirror.FirstSupabase {
		cache := kv.SharedCache(stores.supabase, config)
		if patterns := patternsOf(os.Getenv("KV_WARM_KEYS")); len(patterns) > 0 && defaults.Warm != kv.WarmNothing {
			cache.StartWarm(context.Background(), defaults.Warm, patterns, logWarmStart)
		}
		reader = cache
	}
	if stores.compare > 0 {
		return mirror.Compare(reader, kv.Uncached(stores.other()), mirror.Comparison{Share: stores.compare, Budget: stores.budget, Log: newLog()})
	}
	return reader
}

// CheckEnv returns what the functions do not understand of their variables, in the words with which they answer every request then.
func CheckEnv() (problems []error) {
	_, err := storesFromEnv()
	_, _, cacheErr := cacheFromEnv(GetCache)
	for _, err := range []error{err, cacheErr} {
		var e *kv.Error
		if errors.As(err, &e) {
			problems = append(problems, errors.New(e.Message))
		}
	}
	if QueryTimeoutFromEnv() <= 0 {
		problems = append(problems, errors.New(messageQueryTimeout))
	}
	return problems
}

// MaxStaleFromEnv is how old an answer of kv-get from memory may be.
func MaxStaleFromEnv() time.Duration {
	config, _, _ := cacheFromEnv(GetCache) // of what it does not understand, CheckEnv tells
	return config.MaxStale
}

// stores are what the environment says of the two.
type stores struct {
	first    mirror.First
	supabase *kv.Supabase // nil where nothing needs it
	blobs    *blobs.Store
	mirrored bool
	compare  float64
	budget   time.Duration
}

func storesFromEnv() (s stores, err error) {
	s = stores{first: mirror.FirstBlobs, budget: 300 * time.Millisecond}
	if s.blobs, err = blobsFromEnv(); err != nil {
		return s, err
	}
	useSupabase, err := strconv.ParseBool(envOr("USE_SUPABASE_KV", "false"))
	if err != nil {
		return s, badVariable("USE_SUPABASE_KV must be true or false")
	}
	if useSupabase {
		s.first = mirror.FirstSupabase
	}
	if s.mirrored, err = strconv.ParseBool(envOr("KV_MIRROR_WRITES", "false")); err != nil {
		return s, badVariable("KV_MIRROR_WRITES must be true or false")
	}
	if s.compare, err = strconv.ParseFloat(envOr("KV_COMPARE_READS", "0"), 64); err != nil || !(s.compare >= 0 && s.compare <= 1) {
		return s, badVariable("KV_COMPARE_READS must be a share from 0 to 1, as in 0.1")
	}
	if text := os.Getenv("KV_COMPARE_BUDGET"); text != "" {
		if s.budget, err = parseDuration(text); err != nil || s.budget <= 0 {
			return s, badVariable("KV_COMPARE_BUDGET must be a time above 0, as in 300ms")
		}
	}
	if useSupabase || s.mirrored || s.compare > 0 {
		s.supabase, err = supabaseFromEnv()
	}
	return s, err
}

func supabaseFromEnv() (*kv.Supabase, error) {
	switch {
	case os.Getenv("SUPABASE_URL") == "":
		return nil, badVariable("SUPABASE_URL is not set: set it to the address of the Supabase project")
	case os.Getenv("SUPABASE_SERVICE_ROLE_KEY") == "":
		return nil, badVariable("SUPABASE_SERVICE_ROLE_KEY is not set: set it to the project's service_role or secret key")
	}
	return kv.NewSupabase(os.Getenv("SUPABASE_URL"), os.Getenv("SUPABASE_SERVICE_ROLE_KEY"))
}

// The names of the stores in Blobs: the one that the JavaScript functions used, and one for what does not fit into its metadata.
const (
	blobStore        = "kv"
	blobStoreIndexes = "kv-indexes"
)

// blobsFromEnv returns the store in Blobs. The way to it comes with each request's event, else from the environment. Netlify gives
// every function the SITE_ID of its site.
func blobsFromEnv() (*blobs.Store, error) {
	access := blobs.Access{
		SiteID: envOr("NETLIFY_SITE_ID", os.Getenv("SITE_ID")), APIToken: os.Getenv("NETLIFY_BLOBS_TOKEN"), APIURL: os.Getenv("NETLIFY_BLOBS_API_URL"),
	}
	perMinute := 0
	if access.Limited() {
		perMinute = blobs.DefaultRate
	}
	if text := os.Getenv("KV_BLOBS_RATE"); text != "" {
		var err error
		if perMinute, err = strconv.Atoi(text); err != nil || perMinute < 1 {
			return nil, badVariable("KV_BLOBS_RATE must be a whole number of requests a minute, 1 or more, as in 300")
		}
	}
	limiter := blobs.NewLimiter(perMinute, time.Minute)
	client := func(store string) *blobs.Client {
		c := blobs.NewClient(store).WithDefault(access).WithLimiter(limiter)
		if os.Getenv("NETLIFY_DEV") == "true" { // which netlify dev sets
			c = c.WithLocalEvents()
		}
		return c
	}
	return blobs.NewStore(client(blobStore), client(blobStoreIndexes)), nil
}

func (s stores) answering() kv.Store {
	if s.first == mirror.FirstSupabase {
		return s.supabase
	}
	return s.blobs
}

func (s stores) other() kv.Store {
	if s.first == mirror.FirstSupabase {
		return s.blobs
	}
	return s.supabase
}

func (s stores) pair() *mirror.Pair {
	return &mirror.Pair{Supabase: s.supabase, Blobs: s.blobs, Log: newLog()}
}

func envOr(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// unconfigured answers everything with its error.
type unconfigured struct{ err error }

func (u unconfigured) Upsert(context.Context, kv.Entry) (kv.Written, error) {
	return kv.Written{}, u.err
}
func (u unconfigured) Get(context.Context, string) (string, error)        { return "", u.err }
func (u unconfigured) List(context.Context, kv.ListQuery) (string, error) { return "", u.err }
func (u unconfigured) Query(context.Context, kv.Query) (string, error)    { return "", u.err }
func (u unconfigured) Delete(context.Context, string) (kv.Written, error) { return kv.Written{}, u.err }
