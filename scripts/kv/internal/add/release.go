package add

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"

	"netlify-supabase-kv/scripts/kv/internal/redirects"
)

// release is what a checkout of this project adds to a site.
type release struct {
	root       string
	goVersion  string                       // as GO_VERSION names it: 1.26.10
	rules      []redirects.Rule             // of the short addresses
	functions  map[string]map[string][]byte // the Go files of each function, by the function's name
	shared     map[string][]byte            // the packages that the functions share, with go.mod, go.sum and the licence
	modules    []module.Version             // that the functions and the shared packages need
	migrations map[string][]byte            // by name
	supabase   []byte                       // supabase/config.toml
	programs   map[string][]byte            // compiled for Netlify's machines, by name; nil until prebuild
}

// FindCheckout finds the checkout of this project that contains dir.
func FindCheckout(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		if content, err := os.ReadFile(filepath.Join(at, "go.mod")); err == nil && modfile.ModulePath(content) == modulePath {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%s is not in a checkout of %s", dir, modulePath)
		}
	}
}

// modulePath is this project's module, and also the name of the module with the shared packages in a site.
const modulePath = "netlify-supabase-kv"

// goPackage is one package in the output of `go list -json`.
type goPackage struct {
	ImportPath, Dir                     string
	GoFiles, EmbedFiles, IgnoredGoFiles []string
	Standard                            bool
	Module                              *struct{ Path, Version string }
}

// platforms are those that a site's functions are compiled for: Netlify's machines, and machines that run netlify dev.
var platforms = []string{"linux/amd64", "darwin/arm64", "windows/amd64"}

// readRelease reads the checkout.
func readRelease(ctx context.Context, root string) (*release, error) {
	r := &release{root: root, functions: map[string]map[string][]byte{}, shared: map[string][]byte{}, migrations: map[string][]byte{}}
	for _, platform := range platforms {
		if err := r.readPackages(ctx, platform); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(r.modules, func(a, b module.Version) int { return strings.Compare(a.Path, b.Path) })
	return r, errors.Join(r.readModule(), r.readConfig(), r.readSupabase())
}

func (r *release) readPackages(ctx context.Context, platform string) error {
	goos, goarch, _ := strings.Cut(platform, "/")
	out, err := runGo(ctx, r.root, []string{"GOOS=" + goos, "GOARCH=" + goarch}, "list", "-deps", "-tags", buildTags, "-json", "./functions/...")
	if err != nil {
		return fmt.Errorf("list the packages of the functions: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(out))
	for {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := r.addPackage(p); err != nil {
			return err
		}
	}
}

func (r *release) addPackage(p goPackage) error {
	switch {
	case p.Standard:
		return nil
	case p.Module.Path != modulePath:
		if m := (module.Version{Path: p.Module.Path, Version: p.Module.Version}); !slices.Contains(r.modules, m) {
			r.modules = append(r.modules, m)
		}
		return nil
	}
	for _, name := range slices.Concat(p.GoFiles, p.EmbedFiles, p.IgnoredGoFiles) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		content, err := os.ReadFile(filepath.Join(p.Dir, name))
		if err != nil {
			return err
		}
		within := strings.TrimPrefix(p.ImportPath, modulePath+"/")
		if function, ok := strings.CutPrefix(within, "functions/"); ok {
			if r.functions[function] == nil {
				r.functions[function] = map[string][]byte{}
			}
			r.functions[function][name] = content
		} else {
			r.shared[within+"/"+name] = content
		}
	}
	return nil
}

// readModule makes go.mod and go.sum of the shared packages from those of the checkout, without what the functions do
// not need.
func (r *release) readModule() error {
	content, err := os.ReadFile(filepath.Join(r.root, "go.mod"))
	if err != nil {
		return err
	}
	mod, err := modfile.Parse("go.mod", content, nil)
	if err != nil {
		return err
	}
	if mod.Toolchain == nil || len(mod.Replace) != 0 {
		return errors.New("go.mod must have a toolchain line and no replace line")
	}
	r.goVersion = strings.TrimPrefix(mod.Toolchain.Name, "go")
	if r.shared["go.mod"], err = r.goMod(modulePath, mod, ""); err != nil {
		return err
	}
	if r.shared["go.sum"], err = r.goSum(); err != nil {
		return err
	}
	for name, files := range r.functions {
		// The path from <functions directory>/<name> to the shared packages depends on the site.
		if files["go.mod"], err = r.goMod(modulePath+"/functions/"+name, mod, sharedPlaceholder); err != nil {
			return err
		}
		files["go.sum"] = r.shared["go.sum"]
	}
	return nil
}

// sharedPlaceholder stands for the path to the shared packages in a function's go.mod.
const sharedPlaceholder = "./SHARED"

// goMod makes a go.mod with the checkout's versions. If shared is not empty, it also requires the shared packages,
// which are at that path.
func (r *release) goMod(name string, checkout *modfile.File, shared string) ([]byte, error) {
	var mod modfile.File
	err := errors.Join(mod.AddModuleStmt(name), mod.AddGoStmt(checkout.Go.Version), mod.AddToolchainStmt(checkout.Toolchain.Name))
	if shared != "" {
		mod.AddNewRequire(modulePath, "v0.0.0", false)
		err = errors.Join(err, mod.AddReplace(modulePath, "", shared, ""))
	}
	for _, m := range r.modules {
		indirect := !slices.ContainsFunc(checkout.Require, func(q *modfile.Require) bool { return q.Mod == m && !q.Indirect })
		mod.AddNewRequire(m.Path, m.Version, indirect)
	}
	if err != nil {
		return nil, err
	}
	mod.SetRequireSeparateIndirect(mod.Require)
	mod.Cleanup()
	return mod.Format()
}

// goSum returns the lines of go.sum for the modules that the functions need.
func (r *release) goSum() ([]byte, error) {
	content, err := os.ReadFile(filepath.Join(r.root, "go.sum"))
	if err != nil {
		return nil, err
	}
	var kept []byte
	for line := range bytes.Lines(content) {
		fields := strings.Fields(string(line))
		if len(fields) == 3 && slices.Contains(r.modules, module.Version{Path: fields[0], Version: strings.TrimSuffix(fields[1], "/go.mod")}) {
			kept = append(kept, line...)
		}
	}
	return kept, nil
}

func (r *release) readConfig() error {
	content, err := os.ReadFile(filepath.Join(r.root, "netlify.toml"))
	if err != nil {
		return err
	}
	config, err := parseTOML(content)
	if err != nil {
		return fmt.Errorf("netlify.toml of the checkout: %w", err)
	}
	r.rules, err = redirects.OfTOML("netlify.toml", config["redirects"])
	if err == nil {
		r.shared["LICENSE"], err = os.ReadFile(filepath.Join(r.root, "LICENSE"))
	}
	return err
}

func (r *release) readSupabase() error {
	dir := filepath.Join(r.root, "supabase", "migrations")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if r.migrations[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	r.supabase, err = os.ReadFile(filepath.Join(r.root, "supabase", "config.toml"))
	return err
}

// names lists the functions.
func (r *release) names() []string {
	names := make([]string, 0, len(r.functions))
	for name := range r.functions {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// buildTags are the tags that Netlify's bundler builds with (@netlify/zip-it-and-ship-it, runtimes/go/builder).
const buildTags = "lambda.norpc"

// prebuild compiles the functions for Netlify's machines with the bundler's flags. It leaves out the paths of this
// machine, so that the same source gives the same bytes.
func (r *release) prebuild(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "kv-add-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if _, err := runGo(ctx, r.root, []string{"GOOS=linux", "GOARCH=amd64"}, "build", "-trimpath", "-buildvcs=false", "-tags", buildTags, "-ldflags", "-s -w",
		"-o", dir+string(filepath.Separator), "./functions/..."); err != nil {
		return fmt.Errorf("build the functions: %w", err)
	}
	r.programs = map[string][]byte{}
	for name := range r.functions {
		if r.programs[name], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// runGo runs the Go command without flags from the environment. Its error includes the command's standard error.
func runGo(ctx context.Context, dir string, env []string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0"), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, errors.New("go is not on PATH: kv add needs it to read this checkout")
	}
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}
