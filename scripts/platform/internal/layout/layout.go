// Package layout knows where the files of a checkout are. The platform writes under .local, which git ignores.
package layout

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"netlify-supabase-kv/scripts/platform/internal/console"
)

// Checkout is one working copy of the project. Its platforms share npm packages and builds; the files of one platform
// are in a [Home].
type Checkout struct{ Root string }

// Find returns the checkout around dir: the nearest folder upwards that has both go.mod and netlify.toml.
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

// resolved follows symbolic links, so that a checkout has one name however it was entered.
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

// NPMSource is the committed folder of a set of npm packages.
func (c Checkout) NPMSource(set string) string {
	return filepath.Join(c.Root, "scripts", "platform", "npm", set)
}

// NPM is the folder where a set is installed.
func (c Checkout) NPM(set string) string { return filepath.Join(c.Local(), "npm", set) }

// Builds holds one folder per build of the functions.
func (c Checkout) Builds() string { return filepath.Join(c.Local(), "build") }

// Migrations is the folder of the migrations.
func (c Checkout) Migrations() string { return filepath.Join(c.Root, "supabase", "migrations") }

// NetlifyTOML is the site's configuration.
func (c Checkout) NetlifyTOML() string { return filepath.Join(c.Root, "netlify.toml") }

// Main is the home of the platform of `up`.
func (c Checkout) Main() Home { return Home{Dir: c.Local()} }

// Test is the home of a platform of `run`. It is separate from Main, so that no test touches a person's data.
func (c Checkout) Test(name string) Home { return Home{Dir: filepath.Join(c.Local(), name)} }

// Home is the folder of one platform: data, secrets, state and logs.
type Home struct{ Dir string }

// Make creates the folder. Others may read it, because Postgres may run as another user; each secret file is 0600.
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

// State is the file that names the running processes.
func (h Home) State() string { return filepath.Join(h.Dir, "state.json") }

// Secrets is the file with the passwords and keys. They are created once and outlive the data.
func (h Home) Secrets() string { return filepath.Join(h.Dir, "secrets.json") }

// Lock is locked by the process that runs the platform or removes its data.
func (h Home) Lock() string { return filepath.Join(h.Dir, "lock") }

// Postgres is the database's folder, or a symbolic link to it.
func (h Home) Postgres() string { return filepath.Join(h.Dir, "postgres") }

// Blobs is the folder of the Blobs stand-in.
func (h Home) Blobs() string { return filepath.Join(h.Dir, "blobs") }

// Temporary is the temporary folder of netlify dev.
func (h Home) Temporary() string { return filepath.Join(h.Dir, "tmp") }

// Logs is the folder of the log files.
func (h Home) Logs() string { return filepath.Join(h.Dir, "log") }

// Log is one log file.
func (h Home) Log(name string) string { return filepath.Join(h.Logs(), name+".log") }
