package netlify

import (
	"context"
	"os"
	"strconv"

	"netlify-supabase-kv/pkg/kv"
)

// StoreFromEnv returns the store that the environment asks for. It never fails: where something is missing, the store
// it returns answers every operation with [kv.CodeNotConfigured] and says what to set.
func StoreFromEnv() kv.Store {
	useSupabase, err := strconv.ParseBool(envOr("USE_SUPABASE_KV", "false"))
	switch {
	case err != nil:
		return notConfigured("USE_SUPABASE_KV must be true or false")
	case !useSupabase:
		return notConfigured("USE_SUPABASE_KV is not true, and this version answers from Supabase only: set USE_SUPABASE_KV=true, SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY")
	case os.Getenv("SUPABASE_URL") == "":
		return notConfigured("SUPABASE_URL is not set: set it to the address of the Supabase project")
	case os.Getenv("SUPABASE_SERVICE_ROLE_KEY") == "":
		return notConfigured("SUPABASE_SERVICE_ROLE_KEY is not set: set it to the project's service_role or secret key")
	}
	store, err := kv.NewSupabase(os.Getenv("SUPABASE_URL"), os.Getenv("SUPABASE_SERVICE_ROLE_KEY"))
	if err != nil {
		return unconfigured{err}
	}
	return store
}

// ReaderFromEnv returns what the reading functions ask: the store of [StoreFromEnv], behind this process's cache unless
// KV_CACHE is off. defaults are those of the function. Where a variable cannot be understood, every read is answered
// with [kv.CodeNotConfigured] and what to set. The answers that KV_WARM_KEYS names begin to load.
func ReaderFromEnv(defaults CacheDefaults) kv.Reader {
	store := StoreFromEnv()
	supabase, ok := store.(*kv.Supabase)
	config, on, err := cacheFromEnv(defaults)
	switch {
	case err != nil:
		return kv.Uncached(unconfigured{err})
	case !ok || !on:
		return kv.Uncached(store)
	}
	cache := kv.SharedCache(supabase, config)
	if patterns := patternsOf(os.Getenv("KV_WARM_KEYS")); len(patterns) > 0 && defaults.Warm != kv.WarmNothing {
		cache.StartWarm(context.Background(), defaults.Warm, patterns, logWarmStart)
	}
	return cache
}

func envOr(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// unconfigured answers everything with its error.
type unconfigured struct{ err error }

func notConfigured(message string) unconfigured {
	return unconfigured{&kv.Error{Code: kv.CodeNotConfigured, Message: message}}
}

func (u unconfigured) Upsert(context.Context, kv.Entry) (kv.Written, error) {
	return kv.Written{}, u.err
}
func (u unconfigured) Get(context.Context, string) (string, error)        { return "", u.err }
func (u unconfigured) List(context.Context, kv.ListQuery) (string, error) { return "", u.err }
func (u unconfigured) Query(context.Context, kv.Query) (string, error)    { return "", u.err }
func (u unconfigured) Delete(context.Context, string) (kv.Written, error) { return kv.Written{}, u.err }
