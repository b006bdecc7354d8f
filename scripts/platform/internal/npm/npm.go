// Package npm installs the committed sets of npm packages, once and completely. A set is installed in .local/npm, or
// in the user's cache folder for all checkouts.
package npm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"

	"netlify-supabase-kv/scripts/platform/internal/console"
	"netlify-supabase-kv/scripts/platform/internal/layout"
	"netlify-supabase-kv/scripts/platform/internal/proc"
)

// Set is one folder under scripts/platform/npm with its lock file.
type Set struct {
	Name   string                 // of the folder
	What   string                 // for the progress line
	After  func(dir string) error // does what an install script would do, since npm runs none; may be nil
	Shared bool                   // whether all checkouts share one installation, for a set that takes long to unpack
}

// marker is the file that is written last. A folder without it, or with another content, is installed anew.
const marker = ".installed"

// Install installs the set unless it is installed, and returns the folder that holds its node_modules.
func (s Set) Install(ctx context.Context, c layout.Checkout, out *console.Printer) (string, error) {
	want, err := s.fingerprint(c)
	if err != nil {
		return "", err
	}
	dir := s.dir(c, want)
	if isInstalled(dir, want) {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	step := out.Step("installing npm packages: " + s.What)
	defer step.Drop()
	// Of two concurrent commands, one installs and the other waits for it.
	lock := flock.New(dir + ".lock")
	if _, err := lock.TryLockContext(ctx, 200*time.Millisecond); err != nil {
		return "", fmt.Errorf("wait for another install of %s: %w", s.What, err)
	}
	defer lock.Unlock()
	if isInstalled(dir, want) {
		return dir, nil
	}
	if err := s.install(ctx, c, dir); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, marker), []byte(want), 0o644); err != nil {
		return "", err
	}
	step.Done("installed  npm packages: " + s.What)
	if s.Shared {
		s.prune(dir)
	}
	return dir, nil
}

// sharedFolder holds the shared sets in the user's cache folder.
const sharedFolder = "netlify-supabase-kv"

// dir is the folder where the set is installed.
func (s Set) dir(c layout.Checkout, fingerprint string) string {
	if cache, err := os.UserCacheDir(); s.Shared && err == nil && os.MkdirAll(filepath.Join(cache, sharedFolder), 0o755) == nil {
		return filepath.Join(cache, sharedFolder, s.Name+"-"+fingerprint[:16])
	}
	return c.NPM(s.Name)
}

// unused is how long a version of a shared set stays that no checkout uses.
const unused = 30 * 24 * time.Hour

// prune removes versions of a shared set other than the one in dir.
func (s Set) prune(dir string) {
	markers, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), s.Name+"-*", marker))
	for _, name := range markers {
		if info, err := os.Stat(name); err == nil && filepath.Dir(name) != dir && time.Since(info.ModTime()) > unused {
			_ = os.RemoveAll(filepath.Dir(name))
		}
	}
}

// isInstalled reports whether the folder holds the wanted version, and marks it as used.
func isInstalled(dir, want string) bool {
	have, err := os.ReadFile(filepath.Join(dir, marker))
	if err != nil || string(have) != want {
		return false
	}
	now := time.Now()
	_ = os.Chtimes(filepath.Join(dir, marker), now, now) // fails if the file belongs to another user
	return true
}

// fingerprint identifies the packages and the system.
func (s Set) fingerprint(c layout.Checkout) (string, error) {
	h := sha256.New()
	for _, name := range []string{"package.json", "package-lock.json", ".npmrc"} {
		content, err := os.ReadFile(filepath.Join(c.NPMSource(s.Name), name))
		if err != nil {
			return "", err
		}
		h.Write(content)
	}
	return fmt.Sprintf("%s %s-%s\n", hex.EncodeToString(h.Sum(nil)), runtime.GOOS, runtime.GOARCH), nil
}

func (s Set) install(ctx context.Context, c layout.Checkout, dir string) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return console.Try(errors.New("npm is not on PATH"), "install Node.js 20 or newer, which brings npm")
	}
	if err := s.prepare(c, dir); err != nil {
		return err
	}
	// npm ci removes a half-finished node_modules itself.
	cmd := exec.Command(npm, "ci", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=warn")
	cmd.Dir = dir
	if printed, err := proc.Run(ctx, cmd); err != nil {
		return console.Try(fmt.Errorf("npm ci failed (%w):\n%s", err, printed), "see whether npm reaches its registry, which it has to do once")
	}
	if s.After == nil {
		return nil
	}
	return s.After(dir)
}

// prepare removes the marker of an older version and copies what npm needs.
func (s Set) prepare(c layout.Checkout, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, marker)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, name := range []string{"package.json", "package-lock.json", ".npmrc"} {
		content, err := os.ReadFile(filepath.Join(c.NPMSource(s.Name), name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
