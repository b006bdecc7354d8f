package supervisor

import (
	"slices"
	"strings"
	"time"

	"netlify-supabase-kv/scripts/platform/internal/ports"
)

// Spec describes a platform.
type Spec struct {
	Ports     ports.Plan
	Supabase  *Supabase         // an existing project; nil means Postgres and PostgREST run here
	Modules   string            // where the npm packages are
	Postgres  Postgres          // the version to run here
	Build     string            // the folder with the built functions; empty means that none run
	Instances int               // of each function
	Timeout   time.Duration     // of one invocation
	Functions map[string]string // the functions' variables
}

// Postgres is a version and the folder of its npm package.
type Postgres struct {
	Major    string // one of [postgres.Versions]
	Modules  string
	Unsynced bool // the data may be lost if the machine crashes, though not if a process does
}

// Supabase is an existing project.
type Supabase struct{ URL, Key, AnonKey string }

// FunctionVariables returns the functions' variables of an environment. USE_SUPABASE_KV defaults to true here.
//
// All other variables are left out, as on Netlify: a function must not work here thanks to a variable of somebody's
// shell.
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
