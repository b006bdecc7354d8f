package netlify

import (
	"cmp"
	"context"
	"errors"
	"os"
	"time"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/config"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/mirror"
)

// StoreFromEnv returns the store that the environment configures, and mirrors its writes if KV_MIRROR_WRITES is set.
// It never fails: if a variable is missing or wrong, every operation of the store returns [kv.CodeNotConfigured] and
// says what to set.
func StoreFromEnv() kv.Store {
	stores, err := storesFromEnv()
	switch {
	case err != nil:
		return unconfigured{err}
	case stores.MirrorWrites && stores.primary == mirror.PrimarySupabase:
		return mirror.NewSupabasePrimary(stores.pair())
	case stores.MirrorWrites:
		return mirror.NewBlobsPrimary(stores.pair())
	}
	return stores.answering()
}

// BlobsStoreFromEnv returns the store in Netlify Blobs, whatever else the environment configures. It never fails,
// like [StoreFromEnv].
func BlobsStoreFromEnv() kv.Store {
	store, err := blobsFromEnv()
	if err != nil {
		return unconfigured{err}
	}
	return store
}

// ReaderFromEnv returns the reader of a function that reads: the store of [StoreFromEnv], with this process's cache
// in front of Supabase unless KV_CACHE is off, and compared with the other store if KV_COMPARE_READS says so. What
// KV_WARM_KEYS names begins to load. It never fails, like [StoreFromEnv].
func ReaderFromEnv(defaults CacheDefaults) kv.Reader {
	stores, err := storesFromEnv()
	if err != nil {
		return kv.Uncached(unconfigured{err})
	}
	reader := kv.Uncached(stores.answering())
	c, cacheConfig, err := cacheFromEnv(defaults)
	if err != nil {
		return kv.Uncached(unconfigured{err})
	}
	if c.On && stores.primary == mirror.PrimarySupabase {
		cache := kv.SharedCache(stores.supabase, cacheConfig)
		if len(c.WarmKeys) > 0 && defaults.Warm != kv.WarmNothing {
			cache.StartWarm(context.Background(), defaults.Warm, c.WarmKeys, logWarmStart)
		}
		reader = cache
	}
	if stores.CompareReads > 0 {
		return mirror.Compare(reader, kv.Uncached(stores.other()), mirror.Comparison{
			Share: stores.CompareReads, Timeout: stores.CompareTimeout, Log: newLog(), Primary: stores.primary, Record: stores.supabase.AddCompared,
		})
	}
	return reader
}

// EntriesFromEnv returns the entries of all stores, for kv-entries and kv-batch, with this process's cache in front of
// Supabase unless KV_CACHE is off. What is read is as new as the request, unless the request allows otherwise. It never
// fails, like [StoreFromEnv].
func EntriesFromEnv() kv.Entries {
	stores, err := storesFromEnv()
	if err == nil && stores.primary != mirror.PrimarySupabase {
		err = &kv.Error{Code: kv.CodeNotConfigured, Message: "an entry of any bytes needs Supabase, and Netlify Blobs answers here: set USE_SUPABASE_KV=true"}
	}
	c, cacheConfig, cacheErr := cacheFromEnv(CacheDefaults{})
	if err := cmp.Or(err, cacheErr); err != nil {
		return unconfiguredEntries{err}
	}
	cacheConfig.MaxStale = 0
	var entries kv.Entries = stores.supabase
	if c.On {
		entries = kv.SharedCache(stores.supabase, cacheConfig)
	}
	if stores.MirrorWrites {
		return mirror.NewEntries(entries, stores.pair())
	}
	return entries
}

// CheckEnv returns what is wrong with the functions' variables, in the words with which they would answer every
// request.
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

// MaxStaleFromEnv returns how old an answer of kv-get from memory may be.
func MaxStaleFromEnv() time.Duration {
	_, cache, _ := cacheFromEnv(GetCache) // CheckEnv returns the error
	return cache.MaxStale
}

// stores are the two stores as the environment configures them.
type stores struct {
	config.Stores
	primary  mirror.Primary
	supabase *kv.Supabase // nil if nothing needs it
	blobs    *blobs.Store
}

func storesFromEnv() (s stores, err error) {
	s = stores{primary: mirror.PrimaryBlobs}
	if s.blobs, err = blobsFromEnv(); err != nil {
		return s, err
	}
	if err := config.Read(&s.Stores, os.Getenv); err != nil {
		return s, badVariable(err)
	}
	if s.UseSupabase {
		s.primary = mirror.PrimarySupabase
	}
	if err := s.checkNamespace(); err != nil {
		return s, err
	}
	if s.UseSupabase || s.MirrorWrites || s.CompareReads > 0 {
		if s.supabase, err = supabaseFromEnv(); err == nil {
			s.supabase = s.supabase.WithNamespace(s.Namespace)
		}
	}
	return s, err
}

// checkNamespace refuses a namespace beside Netlify Blobs, which has none: a preview would write there what production
// reads.
func (s stores) checkNamespace() error {
	var e *kv.Error
	switch err := kv.ValidateNamespace(s.Namespace); {
	case errors.As(err, &e):
		return badVariable(errors.New(e.Message))
	case s.Namespace != "" && (!s.UseSupabase || s.MirrorWrites || s.CompareReads > 0):
		return badVariable(errors.New("KV_NAMESPACE needs USE_SUPABASE_KV=true, KV_MIRROR_WRITES=false and KV_COMPARE_READS=0: Netlify Blobs has no namespaces"))
	}
	return nil
}

func supabaseFromEnv() (*kv.Supabase, error) {
	var c config.Supabase
	if err := config.Read(&c, os.Getenv); err != nil {
		return nil, badVariable(err)
	}
	switch {
	case c.URL == "":
		return nil, badVariable(errors.New("SUPABASE_URL is not set: set it to the address of the Supabase project"))
	case c.Key == "":
		return nil, badVariable(errors.New("SUPABASE_SERVICE_ROLE_KEY is not set: set it to the project's service_role or secret key"))
	}
	return kv.NewSupabase(c.URL, c.Key)
}

func badVariable(err error) error {
	return &kv.Error{Code: kv.CodeNotConfigured, Message: err.Error()}
}

// The names of the stores in Blobs: the one that the JavaScript functions used, and one for indexes that do not fit
// into metadata.
const (
	blobStore        = "kv"
	blobStoreIndexes = "kv-indexes"
)

// blobsFromEnv returns the store in Blobs. Its access comes from each request's event, or else from the environment.
func blobsFromEnv() (*blobs.Store, error) {
	var c config.Blobs
	if err := config.Read(&c, os.Getenv); err != nil {
		return nil, badVariable(err)
	}
	access := blobs.Access{SiteID: string(c.SiteID), APIToken: string(c.Token), APIURL: string(c.APIURL)}
	perMinute := 0 // no limit
	switch {
	case c.Rate != nil:
		perMinute = *c.Rate
	case access.Limited():
		perMinute = blobs.DefaultRate
	}
	limiter := blobs.NewLimiter(perMinute, time.Minute)
	client := func(store string) *blobs.Client {
		c := blobs.NewClient(store).WithDefault(access).WithLimiter(limiter)
		if os.Getenv("NETLIFY_DEV") == "true" { // set by netlify dev
			c = c.WithLocalEvents()
		}
		return c
	}
	return blobs.NewStore(client(blobStore), client(blobStoreIndexes)), nil
}

func (s stores) answering() kv.Store {
	if s.primary == mirror.PrimarySupabase {
		return s.supabase
	}
	return s.blobs
}

func (s stores) other() kv.Store {
	if s.primary == mirror.PrimarySupabase {
		return s.blobs
	}
	return s.supabase
}

func (s stores) pair() *mirror.Pair {
	return &mirror.Pair{Supabase: s.supabase, Blobs: s.blobs, Log: newLog()}
}

// unconfigured is a store whose every operation returns the error.
type unconfigured struct{ err error }

func (u unconfigured) Upsert(context.Context, kv.Entry) (kv.Written, error) {
	return kv.Written{}, u.err
}
func (u unconfigured) Get(context.Context, string) (string, error)        { return "", u.err }
func (u unconfigured) List(context.Context, kv.ListQuery) (string, error) { return "", u.err }
func (u unconfigured) Query(context.Context, kv.Query) (string, error)    { return "", u.err }
func (u unconfigured) Delete(context.Context, string) (kv.Written, error) { return kv.Written{}, u.err }

// unconfiguredEntries is [unconfigured] for stores of entries.
type unconfiguredEntries struct{ err error }

func (u unconfiguredEntries) GetEntry(context.Context, string, string, kv.Freshness) (kv.EntryResult, error) {
	return kv.EntryResult{}, u.err
}
func (u unconfiguredEntries) ListEntries(context.Context, kv.EntryQuery, kv.Freshness) (kv.ReadResult, error) {
	return kv.ReadResult{}, u.err
}
func (u unconfiguredEntries) ListStores(context.Context) ([]kv.StoreCount, error) { return nil, u.err }
func (u unconfiguredEntries) Apply(context.Context, kv.Batch) (kv.BatchResult, error) {
	return kv.BatchResult{}, u.err
}
func (u unconfiguredEntries) Clear(context.Context, string, string, int) (int, string, error) {
	return 0, "", u.err
}
