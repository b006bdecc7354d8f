package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"strings"
	"time"

	"netlify-supabase-kv/scripts/platform/internal/envfile"
	"netlify-supabase-kv/scripts/platform/internal/layout"
	"netlify-supabase-kv/scripts/platform/internal/ports"
	"netlify-supabase-kv/scripts/platform/internal/proc"
)

// Spec is what a supervisor is asked to run.
type Spec struct {
	Ports     ports.Plan        `json:"ports"`
	Supabase  *Supabase         `json:"supabase,omitempty"` // a project that exists already; nil: Postgres and PostgREST here
	Modules   string            `json:"modules"`            // where the npm packages are
	Postgres  Postgres          `json:"postgres"`           // which one runs here
	Host      bool              `json:"host"`               // whether functions run, or only what they need
	Build     string            `json:"build,omitempty"`    // the folder with the built functions
	Instances int               `json:"instances"`          // of each function
	Timeout   time.Duration     `json:"timeout"`            // of one invocation
	Functions map[string]string `json:"functions"`          // the functions' variables
	Lifeline  bool              `json:"lifeline"`           // whether to stop when standard input ends
	Program   string            `json:"program"`            // fingerprint of the supervisor's own program; set by [Platform.Up]
}

// Postgres is the version that runs here, and where its npm package is.
type Postgres struct {
	Major   string `json:"major"` // one of [postgres.Versions]
	Modules string `json:"modules"`
}

// Supabase is a project whose address was given.
type Supabase struct {
	URL     string `json:"url"`
	Key     string `json:"key"`
	AnonKey string `json:"anon_key,omitempty"`
}

// needsRestart tells whether the difference is one that a running supervisor cannot follow.
func (s Spec) needsRestart(to Spec) bool {
	sameProject := (s.Supabase == nil) == (to.Supabase == nil) && (s.Supabase == nil || *s.Supabase == *to.Supabase)
	hosts := s.Host && to.Host && (s.Instances != to.Instances || s.Timeout != to.Timeout)
	return s.Ports != to.Ports || !sameProject || s.Modules != to.Modules || s.Postgres != to.Postgres || s.Program != to.Program || hosts
}

// functionPrefixes and functionNames are the variables that functions get from the environment of the command. Everything else of
// it stays out, as on Netlify: a function that works here because of somebody's shell would fail there.
var (
	functionPrefixes = []string{"KV_", "USE_", "NETLIFY_"}
	functionNames    = []string{"GOCOVERDIR", "TZ"}
	notForFunctions  = map[string]bool{"KV_BASE_URL": true, "KV_HOST_URL": true, "KV_HOST_TIMEOUT": true, "KV_LOCAL_POSTGRES": true}
)

// FunctionVariables picks the functions' variables out of an environment. USE_SUPABASE_KV is true unless it says otherwise.
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
	if notForFunctions[name] {
		return false
	}
	for _, prefix := range functionPrefixes {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	for _, exact := range functionNames {
		if name == exact {
			return true
		}
	}
	return false
}

// State is what a supervisor says of itself.
type State struct {
	Supervisor proc.Identity `json:"supervisor"`
	Address    string        `json:"address"` // where it takes orders
	Token      string        `json:"token"`   // without which it takes none
	Ports      ports.Plan    `json:"ports"`
	Ready      bool          `json:"ready"`
	Parts      []Part        `json:"parts"`
	Error      string        `json:"error,omitempty"` // why it gave up
	Try        string        `json:"try,omitempty"`
}

// Part is one thing that the supervisor runs.
type Part struct {
	Name    string        `json:"name"`
	Phase   Phase         `json:"phase"`
	Doing   string        `json:"doing"`             // for people: "starting Postgres"
	Done    string        `json:"done,omitempty"`    // for people: "started Postgres at 127.0.0.1:54322"
	Warning string        `json:"warning,omitempty"` // for people, beside Done
	Process proc.Identity `json:"process,omitzero"`  // when it is a process of its own
	Problem string        `json:"problem,omitempty"` // why it is not ready
	Stops   int           `json:"stops,omitempty"`   // how often it ended by itself
}

// Phase is how far a part is.
type Phase string

// The phases of a part.
const (
	Starting   Phase = "starting"
	Ready      Phase = "ready"
	Restarting Phase = "restarting"
)

// ReadState gives the last state that was written, and false when there is none.
func ReadState(home layout.Home) (State, bool) {
	var s State
	err := readJSON(home.State(), &s)
	return s, err == nil
}

// Running tells whether the supervisor that wrote the state lives.
func (s State) Running() bool { return s.Supervisor.Alive() }

// ReadSpec gives what was last asked for.
func ReadSpec(home layout.Home) (Spec, error) {
	var s Spec
	if err := readJSON(home.Spec(), &s); err != nil {
		return Spec{}, fmt.Errorf("read what is to run: %w", err)
	}
	return s, nil
}

func writeSpec(home layout.Home, s Spec) error { return writeJSON(home.Spec(), s) }

func readJSON(name string, into any) error {
	content, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return json.Unmarshal(content, into)
}

func writeJSON(name string, v any) error {
	content, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return envfile.Replace(name, append(content, '\n'))
}

func removeIfThere(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func cloned(m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	maps.Copy(out, m)
	return out
}
