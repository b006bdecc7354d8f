// Package layout knows where things lie in a checkout. Everything the platform writes is under .local, which git ignores.
package layout

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"netlify-supabase-kv/scripts/platform/internal/console"
)

// Checkout is one working copy of the project. What costs time and holds no data (npm packages, builds) is shared by every
// platform that runs from it; a platform's own things are in a [Home].
type Checkout struct{ Root string }

// Find looks for the checkout around dir: the nearest folder, upwards, that holds both go.mod and netlify.toml.
func Find(dir string) (Checkout, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Checkout{}, err
	}
	for at := dir; ; at = filepath.Dir(at) {
		if exists(filepath.Join(at, "go.mod")) && exists(filepath.Join(at, "netlify.toml")) {
			return resolved(at)
		}
		if at == filepath.Dir(at) {
			return Checkout{}, console.Try(fmt.Errorf("no go.mod and netlify.toml in %s or above it", dir), "run it from inside the checkout")
		}
	}
}

// resolved follows symbolic links, so that one checkout has one name whichever way it was entered.
func resolved(dir string) (Checkout, error) {
	root, err := filepath.EvalSymlinks(dir)
	return Checkout{Root: root}, err
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return !errors.Is(err, os.ErrNotExist)
}

// Local is the folder for everything the platform writes.
func (c Checkout) Local() string { return filepath.Join(c.Root, ".local") }

// NPMSource is the committed folder of a set of npm packages; NPM is where the set is installed.
func (c Checkout) NPMSource(set string) string {
	return filepath.Join(c.Root, "scripts", "platform", "npm", set)
}

// NPM is where a set of npm packages is installed.
func (c Checkout) NPM(set string) string { return filepath.Join(c.Local(), "npm", set) }

// Builds holds one folder per build of the functions.
func (c Checkout) Builds() string { return filepath.Join(c.Local(), "build") }

// Migrations is the schema's history.
func (c Checkout) Migrations() string { return filepath.Join(c.Root, "supabase", "migrations") }

// NetlifyTOML is the site's configuration.
func (c Checkout) NetlifyTOML() string { return filepath.Join(c.Root, "netlify.toml") }

// Main is the home of the platform that `up` starts.
func (c Checkout) Main() Home { return Home{Dir: c.Local()} }

// Test is the home of a platform that `run` starts: apart from Main, so that no test touches what a person has stored.
func (c Checkout) Test(name string) Home { return Home{Dir: filepath.Join(c.Local(), name)} }

// Home is what belongs to one platform: its data, secrets, state and logs.
type Home struct{ Dir string }

// Make creates the folder. It stays readable for others because Postgres may run as another user; each secret file is 0600.
func (h Home) Make() error {
	for _, dir := range []string{h.Dir, h.Logs()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// Env is the file with the addresses and keys, for shells and tests.
func (h Home) Env() string { return filepath.Join(h.Dir, "env") }

// State names the processes that run.
func (h Home) State() string { return filepath.Join(h.Dir, "state.json") }

// Secrets holds passwords and keys, made once and kept for as long as the data.
func (h Home) Secrets() string { return filepath.Join(h.Dir, "secrets.json") }

// Lock is held by the process that runs the platform, or removes its data.
func (h Home) Lock() string { return filepath.Join(h.Dir, "lock") }

// Postgres is the database's folder, or a symbolic link to it.
func (h Home) Postgres() string { return filepath.Join(h.Dir, "postgres") }

// Blobs is the folder of the Blobs stand-in.
func (h Home) Blobs() string { return filepath.Join(h.Dir, "blobs") }

// Temporary is the folder of what netlify dev needs while it runs.
func (h Home) Temporary() string { return filepath.Join(h.Dir, "tmp") }

// Logs is the folder of the log files.
func (h Home) Logs() string { return filepath.Join(h.Dir, "log") }

// Log is one log file.
func (h Home) Log(name string) string { return filepath.Join(h.Logs(), name+".log") }
