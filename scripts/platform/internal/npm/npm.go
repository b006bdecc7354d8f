// Package npm installs the committed sets of npm packages into .local/npm, once, whole or not at all.
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
	Name  string                 // of the folder
	What  string                 // for the progress line
	After func(dir string) error // what npm leaves undone, because it does not run install scripts; may be nil
}

// stamp is written last, so that a folder without it, or with another one, is installed anew.
const stamp = ".installed"

// Install makes sure that the set is there, and gives the folder that holds its node_modules.
func (s Set) Install(ctx context.Context, c layout.Checkout, out *console.Printer) (string, error) {
	dir := c.NPM(s.Name)
	want, err := s.fingerprint(c)
	if err != nil {
		return "", err
	}
	if stamped(dir, want) {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	step := out.Step("installing npm packages: " + s.What)
	defer step.Drop()
	// Two commands at once: one installs, the other waits and finds it done.
	lock := flock.New(dir + ".lock")
	if _, err := lock.TryLockContext(ctx, 200*time.Millisecond); err != nil {
		return "", fmt.Errorf("wait for another install of %s: %w", s.What, err)
	}
	defer lock.Unlock()
	if stamped(dir, want) {
		return dir, nil
	}
	if err := s.install(ctx, c, dir); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, stamp), []byte(want), 0o644); err != nil {
		return "", err
	}
	step.Done("installed  npm packages: " + s.What)
	return dir, nil
}

func stamped(dir, want string) bool {
	have, err := os.ReadFile(filepath.Join(dir, stamp))
	return err == nil && string(have) == want
}

// fingerprint changes when the packages would.
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

// prepare copies what npm needs, and takes away the stamp of an older set first.
func (s Set) prepare(c layout.Checkout, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, stamp)); err != nil && !errors.Is(err, os.ErrNotExist) {
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
