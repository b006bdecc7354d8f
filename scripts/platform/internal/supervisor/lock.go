package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"netlify-supabase-kv/scripts/platform/internal/console"
	"netlify-supabase-kv/scripts/platform/internal/envfile"
	"netlify-supabase-kv/scripts/platform/internal/layout"
	"netlify-supabase-kv/scripts/platform/internal/postgres"
	"netlify-supabase-kv/scripts/platform/internal/proc"
)

// stopLimit is how long a platform may take to stop. Postgres first writes everything to disk.
const stopLimit = 75 * time.Second

// Lock is the right to run a platform in its home, or to remove the home's data. The kernel releases it when its
// process ends.
type Lock struct {
	Home  layout.Home
	file  *flock.Flock
	state state
}

// state names the processes of the lock's holder, for the next command and for tests, which may have to end them.
type state struct {
	Supervisor proc.Identity            `json:"supervisor"`
	Processes  map[string]proc.Identity `json:"processes"` // Postgres and PostgREST, while they run
}

// TryTake takes the lock, or returns nil when another process holds it. It ends the processes of a previous holder
// that was killed.
func TryTake(home layout.Home) (*Lock, error) {
	if err := home.Make(); err != nil {
		return nil, err
	}
	l := &Lock{Home: home, file: flock.New(home.Lock())}
	if held, err := l.file.TryLock(); err != nil || !held {
		return nil, err
	}
	for _, process := range readState(home).Processes {
		process.End(20 * time.Second)
	}
	l.state.Supervisor, _ = proc.Identify(os.Getpid())
	l.state.Processes = map[string]proc.Identity{}
	if err := errors.Join(removeIfThere(home.Env()), writeJSON(home.State(), l.state)); err != nil {
		return nil, errors.Join(err, l.file.Unlock())
	}
	return l, nil
}

// Take stops the platform that runs, if any, and takes the lock. It reports whether one ran.
func Take(ctx context.Context, home layout.Home, out *console.Printer) (l *Lock, stopped bool, err error) {
	if l, err = TryTake(home); l != nil || err != nil {
		return l, false, err
	}
	step := out.Step("stopping")
	defer step.Drop()
	var asked proc.Identity
	for began := time.Now(); ; {
		// A holder that has just started may not have written its state yet, and the holder may change between two
		// looks.
		holder := readState(home).Supervisor
		switch {
		case time.Since(began) > stopLimit:
			holder.Signal(syscall.SIGKILL)
		case holder != asked:
			holder.Signal(syscall.SIGTERM)
			asked = holder
		}
		select {
		case <-ctx.Done():
			return nil, false, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if l, err = TryTake(home); l != nil || err != nil {
			return l, true, err
		}
	}
}

// Release releases the lock.
func (l *Lock) Release() error {
	return errors.Join(removeIfThere(l.Home.Env()), removeIfThere(l.Home.State()), l.file.Unlock())
}

// Erase removes the data and the logs. The keys stay valid.
func (l *Lock) Erase() error {
	return errors.Join(l.EraseData(), os.RemoveAll(l.Home.Logs()), l.Home.Make())
}

// EraseData removes the database and the blobs.
func (l *Lock) EraseData() error {
	return errors.Join(postgres.Remove(l.Home), os.RemoveAll(l.Home.Blobs()))
}

// readState returns the last written state, or an empty one when it cannot be read.
func readState(home layout.Home) (s state) {
	if readJSON(home.State(), &s) != nil {
		return state{}
	}
	return s
}

func readJSON(name string, into any) error {
	content, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(content, into); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
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
