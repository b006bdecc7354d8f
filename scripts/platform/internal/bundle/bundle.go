// Package bundle builds the functions with Netlify's own bundler, once per state of the source.
package bundle

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"netlify-supabase-kv/scripts/platform/internal/console"
	"netlify-supabase-kv/scripts/platform/internal/layout"
	"netlify-supabase-kv/scripts/platform/internal/proc"
)

// Bootstrap is the name of the program in a function's zip, and in its folder here.
const Bootstrap = "bootstrap"

// kept is the number of builds that stay, so that switching between a few branches needs no build.
const kept = 6

// Build builds the functions unless they are built, and returns the folder that holds <function>/bootstrap for each.
// modules is the folder of the npm packages with the bundler.
func Build(ctx context.Context, c layout.Checkout, modules string, out *console.Printer) (string, error) {
	key, err := fingerprint(c)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(c.Builds(), key)
	if used(dir) {
		return dir, nil
	}
	if err := os.MkdirAll(c.Builds(), 0o755); err != nil {
		return "", err
	}
	step := out.Step("building functions")
	defer step.Drop()
	lock := flock.New(filepath.Join(c.Builds(), "lock"))
	if _, err := lock.TryLockContext(ctx, 100*time.Millisecond); err != nil {
		return "", fmt.Errorf("wait for another build: %w", err)
	}
	defer lock.Unlock()
	if used(dir) {
		return dir, nil
	}
	fresh := dir + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return "", err
	}
	names, err := build(ctx, c, modules, fresh)
	if err != nil {
		return "", err
	}
	if err := os.Rename(fresh, dir); err != nil {
		return "", err
	}
	prune(c.Builds(), dir)
	step.Done("built      functions: " + strings.Join(names, ", "))
	return dir, nil
}

// used reports whether the build exists, and marks it as used.
func used(dir string) bool {
	now := time.Now()
	return os.Chtimes(dir, now, now) == nil
}

// Functions returns the programs of a build by function.
func Functions(dir string) (map[string]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, e := range entries {
		if e.IsDir() {
			found[e.Name()] = filepath.Join(dir, e.Name(), Bootstrap)
		}
	}
	return found, nil
}

// fingerprint identifies everything that a build depends on.
func fingerprint(c layout.Checkout) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), runtime.GOOS, runtime.GOARCH, os.Getenv("GOFLAGS"))
	for _, name := range []string{"go.mod", "go.sum", "functions", "pkg"} {
		if err := hashTree(h, c.Root, name); err != nil {
			return "", fmt.Errorf("look at the functions' source: %w", err)
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

func hashTree(h io.Writer, root, name string) error {
	return filepath.WalkDir(filepath.Join(root, name), func(file string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // there is no pkg, or an editor has just removed the file
		case err != nil:
			return err
		case entry.IsDir() || strings.HasSuffix(file, "_test.go") || !entry.Type().IsRegular():
			return nil
		}
		content, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %d\n", relative, len(content))
		_, err = h.Write(content)
		return err
	})
}

// build fills dir.
func build(ctx context.Context, c layout.Checkout, modules, dir string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	sources, err := Sources(c)
	if err != nil || len(sources) == 0 {
		return nil, err
	}
	// The bundler always builds for Netlify's machines. For other machines, its command is repeated here.
	if runtime.GOOS == "linux" && runtime.GOARCH == "amd64" {
		// The bundler compiles the functions in parallel, each with the packages they share. From an empty build cache
		// that takes four times as long for four functions as compiling them together first.
		if err := compile(ctx, c, environ(), "-tags", tags); err != nil {
			return nil, err
		}
		return sources, bundled(ctx, c, modules, dir)
	}
	for _, name := range sources {
		if err := native(ctx, c, name, filepath.Join(dir, name, Bootstrap)); err != nil {
			return nil, err
		}
	}
	return sources, nil
}

// Sources returns the folders that the bundler takes for Go functions: those with main.go or <name>.go.
func Sources(c layout.Checkout) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(c.Root, "functions"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		for _, file := range []string{e.Name() + ".go", "main.go"} {
			if _, err := os.Stat(filepath.Join(c.Root, "functions", e.Name(), file)); err == nil {
				names = append(names, e.Name())
				break
			}
		}
	}
	return names, nil
}

// script runs the bundler. It is copied beside the packages, because Node resolves imports from the script's folder.
const script = "bundle.mjs"

func bundled(ctx context.Context, c layout.Checkout, modules, dir string) error {
	node, err := exec.LookPath("node")
	if err != nil {
		return console.Try(errors.New("node is not on PATH"), "install Node.js 20 or newer")
	}
	source, err := os.ReadFile(filepath.Join(c.NPMSource("platform"), script))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(modules, script), source, 0o644); err != nil {
		return err
	}
	zips := dir + ".zips"
	defer os.RemoveAll(zips)
	cmd := exec.Command(node, filepath.Join(modules, script), filepath.Join(c.Root, "functions"), zips)
	cmd.Dir = c.Root
	if err := run(ctx, cmd); err != nil {
		return err
	}
	return unpackAll(zips, dir)
}

// tags and environ are those with which the bundler builds.
const tags = "lambda.norpc"

func environ() []string { return append(os.Environ(), "CGO_ENABLED=0") }

func native(ctx context.Context, c layout.Checkout, name, to string) error {
	cmd := exec.Command("go", "build", "-tags", tags, "-o", to, "-ldflags", "-s -w", "./functions/"+name)
	cmd.Dir, cmd.Env = c.Root, environ()
	return run(ctx, cmd)
}

// compile fills Go's build cache with the functions' packages. It links no programs, which the cache would not keep.
func compile(ctx context.Context, c layout.Checkout, environ []string, flags ...string) error {
	args := append([]string{"list", "-export", "-f", "{{.Name}}"}, flags...)
	cmd := exec.Command("go", append(args, "./functions/...")...)
	cmd.Dir, cmd.Env = c.Root, environ
	return run(ctx, cmd)
}

// DevEnviron returns the environment in which netlify dev compiles. Its flags let all checkouts share Go's cache, and
// make linking fast.
func DevEnviron() []string {
	return append(os.Environ(), "GOFLAGS="+os.Getenv("GOFLAGS")+" -buildvcs=false -trimpath -ldflags=-w")
}

// Compile fills Go's build cache for netlify dev, so that its first request does not wait, and reports compile errors.
func Compile(ctx context.Context, c layout.Checkout, out *console.Printer) error {
	step := out.Step("compiling functions")
	defer step.Drop()
	if err := compile(ctx, c, DevEnviron()); err != nil {
		return err
	}
	step.Done("compiled   functions")
	return nil
}

// run adds the compiler's output to its error.
func run(ctx context.Context, cmd *exec.Cmd) error {
	if printed, err := proc.Run(ctx, cmd); err != nil {
		return fmt.Errorf("build the functions: %w\n%s", err, printed)
	}
	return nil
}

func unpackAll(zips, dir string) error {
	files, err := filepath.Glob(filepath.Join(zips, "*.zip"))
	if err != nil {
		return err
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".zip")
		if err := unpack(file, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("unpack %s: %w", filepath.Base(file), err)
		}
	}
	return nil
}

// unpack extracts the program from a function's zip.
func unpack(file, dir string) error {
	archive, err := zip.OpenReader(file)
	if err != nil {
		return err
	}
	defer archive.Close()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	program, err := archive.Open(Bootstrap)
	if err != nil {
		return err
	}
	defer program.Close()
	to, err := os.OpenFile(filepath.Join(dir, Bootstrap), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(to, program); err != nil {
		to.Close()
		return err
	}
	return to.Close()
}

// prune removes all but the most recently used builds. It keeps the current one.
func prune(builds, current string) {
	entries, err := os.ReadDir(builds)
	if err != nil {
		return
	}
	type old struct {
		dir string
		at  time.Time
	}
	var olds []old
	for _, e := range entries {
		dir := filepath.Join(builds, e.Name())
		if info, err := e.Info(); err == nil && e.IsDir() && dir != current {
			olds = append(olds, old{dir, info.ModTime()})
		}
	}
	sort.Slice(olds, func(i, j int) bool { return olds[i].at.After(olds[j].at) })
	for i := kept - 1; i < len(olds); i++ {
		_ = os.RemoveAll(olds[i].dir)
	}
}
