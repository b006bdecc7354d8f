package supervisor

import (
	"slices"
	"strings"
	"time"

	"netlify-supabase-kv/scripts/platform/internal/ports"
)

// Spec is what a platform runs.
type Spec struct {
	Ports     ports.Plan
	Supabase  *Supabase         // a project that exists already; nil: Postgres and PostgREST here
	Modules   string            // where the npm packages are
	Postgres  Postgres          // which one runs here
	Build     string            // the folder with the built functions; empty: only what functions need runs
	Instances int               // of each function
	Timeout   time.Duration     // of one invocation
	Functions map[string]string // the functions' variables
}

// Postgres is the version that runs here, and where its npm package is.
type Postgres struct {
	Major   string // one of [postgres.Versions]
	Modules string
}

// Supabase is a project whose address was given.
type Supabase struct{ URL, Key, AnonKey string }

// FunctionVariables picks the functions' variables out of an environment. USE_SUPABASE_KV is true unless it says otherwise.
//
// Everything else of the environment stays out, as on Netlify: a function that works here because of somebody's shell would fail there.
func FunctionVariables(environ []string) map[string]string {
	picked := map[string]string{"USE_SUPABASE_KV": "true"}
	for _, line := range environ {
		name, value, found := strings.Cut(line, "=")
		if found && forFunctions(name) && !(name == "USE_SUPABASE_KV" && value == "") {
			picked[name] = value
		}
	}
	return picked
}

func forFunctions(name string) bool {
	hasPrefix := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
	return (slices.ContainsFunc([]string{"KV_", "USE_", "NETLIFY_"}, hasPrefix) || name == "GOCOVERDIR" || name == "TZ") &&
		!slices.ContainsFunc([]string{"KV_BASE_URL", "KV_HOST_", "KV_LOCAL_"}, hasPrefix)
}
