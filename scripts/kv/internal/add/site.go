package add

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Finding is something in the site that keeps the functions from being added.
type Finding struct {
	Where string `json:"where"` // file or folder
	What  string `json:"what"`  // the rest of a sentence that begins with Where
	Do    string `json:"do"`    // what to do about it
}

// site is a site without what kv add added. Names are relative to the folder given by the user, with slashes.
type site struct {
	tree      *tree
	base      string         // where Netlify builds; "." for the folder itself
	tomlName  string         // netlify.toml, which may not exist
	config    map[string]any // the values of netlify.toml
	functions string         // directory
	publish   string         // folder; "" if it is unknown
	redirects string         // the _redirects file; "" if there is none
}

// findBase returns the folder in which Netlify builds the site: build.base of the netlify.toml in the repository's
// root. A netlify.toml in that folder replaces the one in the root (@netlify/config, base).
func findBase(t *tree) (base, tomlName string, err error) {
	base, tomlName = ".", "netlify.toml"
	content, err := t.read(tomlName)
	if err != nil {
		return "", "", err
	}
	if outer := outerConfig(t.root); content == nil && outer != "" {
		// A netlify.toml written here would replace the outer one.
		return "", "", fmt.Errorf("%s is within a repository whose netlify.toml is in %s: name that folder instead, and set build.base in its netlify.toml", t.root, outer)
	}
	config, err := parseTOML(content)
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", t.disk(tomlName), err)
	}
	if named := lookupString(config, "build", "base"); named != "" {
		if base, err = below(".", named); err != nil {
			return "", "", fmt.Errorf("build.base in %s: %w", t.disk(tomlName), err)
		}
		if inner := path.Join(base, "netlify.toml"); base != "." && t.exists(inner) {
			tomlName = inner
		}
	}
	return base, tomlName, nil
}

// outerConfig returns the outermost folder with a netlify.toml in the repository around dir, or "".
func outerConfig(dir string) (found string) {
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "netlify.toml")); err == nil {
			found = at
		}
		if _, err := os.Stat(filepath.Join(at, ".git")); err == nil {
			return found
		}
		if at == filepath.Dir(at) {
			return ""
		}
	}
}

// below resolves a path of netlify.toml. A leading slash is ignored, and the path must stay within the repository.
func below(base, named string) (string, error) {
	name := path.Join(base, strings.TrimLeft(filepath.ToSlash(named), "/"))
	if name == ".." || strings.HasPrefix(name, "../") {
		return "", fmt.Errorf("%q is outside the folder", named)
	}
	return name, nil
}

// readSite reads where a site has its functions, published files and redirects. Whatever it cannot determine is a
// finding.
func readSite(ctx context.Context, t *tree, base, tomlName string, o Options) (*site, []Finding, error) {
	s := &site{tree: t, base: base, tomlName: tomlName}
	content, err := t.read(tomlName)
	if err != nil {
		return nil, nil, err
	}
	if s.config, err = parseTOML(content); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", t.disk(tomlName), err)
	}
	var found []Finding
	for _, step := range []func(context.Context, Options) ([]Finding, error){s.findFunctions, s.findPublish, s.findRedirects} {
		more, err := step(ctx, o)
		if err != nil {
			return nil, nil, err
		}
		found = append(found, more...)
	}
	return s, found, nil
}

// defaultFunctions is Netlify's default functions directory (@netlify/config, files).
const defaultFunctions = "netlify/functions"

// findFunctions takes the directory from netlify.toml, from the options, or Netlify's default.
func (s *site) findFunctions(_ context.Context, o Options) (found []Finding, err error) {
	named := functionsOf(s.config)
	for _, context := range sortedTables(s.config, "context") {
		if other := functionsOf(context.table); other != "" && other != named {
			found = append(found, Finding{s.tomlName, fmt.Sprintf("names another functions directory, %s, for context.%s", other, context.name),
				"name the same directory for all contexts: the functions can be in one directory only"})
		}
	}
	switch {
	case named != "" && o.Functions != "" && path.Clean(filepath.ToSlash(o.Functions)) != path.Clean(named):
		return nil, fmt.Errorf("--functions is %s, but %s names %s, which takes precedence", o.Functions, s.tomlName, named)
	case named == "" && o.Functions != "":
		named = o.Functions
	case named == "" && !s.tree.exists(path.Join(s.base, defaultFunctions)):
		if s.tree.exists(path.Join(s.base, "functions")) {
			return append(found, Finding{path.Join(s.base, "functions"), "is a folder that Netlify's settings may name as the functions directory; " + s.tomlName + " names none",
				"use --functions functions if the settings name it, and --functions " + defaultFunctions + " if they do not"}), nil
		}
		named = defaultFunctions
	case named == "":
		named = defaultFunctions
	}
	s.functions, err = below(s.base, named)
	return found, err
}

// functionsOf reads the functions directory in its newer and its older form. The newer takes precedence.
func functionsOf(config map[string]any) string {
	for _, names := range [][]string{{"functions", "directory"}, {"functions", "*", "directory"}, {"build", "functions"}, {"functions"}} {
		if named := lookupString(config, names...); named != "" {
			return named
		}
	}
	return ""
}

type namedTable struct {
	name  string
	table map[string]any
}

// sortedTables returns the tables within a table, sorted by name.
func sortedTables(config map[string]any, name string) (tables []namedTable) {
	within, _ := lookup(config, name).(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(within)) {
		if table, ok := within[name].(map[string]any); ok {
			tables = append(tables, namedTable{name, table})
		}
	}
	return tables
}

// findPublish takes the folder from netlify.toml or from the options. Without either, Netlify publishes the whole site
// or the folder that its settings name.
func (s *site) findPublish(_ context.Context, o Options) (found []Finding, err error) {
	named := lookupString(s.config, "build", "publish")
	switch {
	case named != "" && o.Publish != "" && path.Clean(filepath.ToSlash(o.Publish)) != path.Clean(named):
		return nil, fmt.Errorf("--publish is %s, but %s names %s, which takes precedence", o.Publish, s.tomlName, named)
	case named == "" && o.Publish != "":
		named = o.Publish
	case named == "":
		return []Finding{{s.tomlName, "names no publish folder: Netlify publishes the whole site, sources of functions included, unless its settings name one",
			"set build.publish there, or give --publish if Netlify's settings name the folder"}}, nil
	}
	if s.publish, err = below(s.base, named); err != nil {
		return nil, err
	}
	published := map[string]string{s.publish: "build.publish"}
	for _, context := range sortedTables(s.config, "context") {
		if other := lookupString(context.table, "publish"); other != "" {
			folder, err := below(s.base, other)
			if err != nil {
				return nil, err
			}
			published[folder] = "context." + context.name + ".publish"
		}
	}
	for _, folder := range slices.Sorted(maps.Keys(published)) {
		for _, ours := range []string{path.Join(s.base, Folder), s.functions, path.Join(s.supabase(), "migrations")} {
			if folder == "." || ours == folder || strings.HasPrefix(ours, folder+"/") {
				found = append(found, Finding{s.tomlName, fmt.Sprintf("has %s = %q: everyone could read the files in %s on the site", published[folder], folder, ours),
					"move the files for visitors into a separate folder, for example public, and set build.publish to it"})
				break
			}
		}
	}
	return found, nil
}

// supabase returns the folder of the Supabase CLI: an existing one, or one in the repository's root.
func (s *site) supabase() string {
	if inner := path.Join(s.base, "supabase"); s.tree.exists(inner) {
		return inner
	}
	return "supabase"
}

// findRedirects finds the file that becomes _redirects in the publish folder. It is often in another folder, and the
// site's build copies it.
func (s *site) findRedirects(ctx context.Context, o Options) ([]Finding, error) {
	if o.Redirects != "" {
		name, err := below(s.base, o.Redirects)
		if err == nil && !s.tree.exists(name) {
			err = fmt.Errorf("--redirects %s: the site has no such file", o.Redirects)
		}
		s.redirects = name
		return nil, err
	}
	names, err := s.list(ctx, "_redirects")
	if err != nil {
		return nil, err
	}
	published := path.Join(s.publish, "_redirects")
	switch {
	case s.publish != "" && slices.Contains(names, published):
		s.redirects = published
	case len(names) == 1:
		s.redirects = names[0]
	case len(names) > 1:
		return []Finding{{s.base, "has several files that may be the site's redirects: " + strings.Join(names, ", "),
			"name the one that your build publishes: --redirects " + names[0]}}, nil
	}
	return nil, nil
}

// list finds the site's files of that name: with git those that git lists, without git all.
func (s *site) list(ctx context.Context, name string) (found []string, err error) {
	start := s.tree.disk(s.base)
	cmd := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", name, "**/"+name)
	cmd.Dir = start
	if out, err := cmd.Output(); err == nil {
		for _, file := range strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00") {
			if name := path.Join(s.base, file); file != "" && s.tree.exists(name) {
				found = append(found, name)
			}
		}
		return found, nil
	}
	err = filepath.WalkDir(start, func(at string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && at != start && (e.Name() == "node_modules" || strings.HasPrefix(e.Name(), ".")) {
			return filepath.SkipDir
		}
		if !e.IsDir() && e.Name() == name {
			relative, err := filepath.Rel(s.tree.root, at)
			found = append(found, filepath.ToSlash(relative))
			return err
		}
		return nil
	})
	return found, err
}

// checkNames finds functions of the site with the name of one of ours. Netlify would deploy one of the two without a
// warning.
func (s *site) checkNames(names []string) (found []Finding, err error) {
	entries, err := os.ReadDir(s.tree.disk(s.functions))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		file := path.Join(s.functions, e.Name())
		name := strings.TrimSuffix(e.Name(), path.Ext(e.Name()))
		if slices.Contains(names, name) && s.tree.exists(file) {
			found = append(found, Finding{file, "has the name of a function that kv add adds; Netlify deploys one of the two without a warning",
				"remove it: with USE_SUPABASE_KV=false, the added function serves the same blobs"})
		}
	}
	return found, nil
}

// minimalGo is the first Go release that downloads a newer one if a module needs it.
const minimalGo = 21

var exactGo = regexp.MustCompile(`^1\.(\d+)\.\d+$`)

// goVersion returns the Go version that the site names. If it is "", GO_VERSION must be added.
func (s *site) goVersion(ours string) (named string, found []Finding, err error) {
	// .go-version comes before GO_VERSION on Netlify (build-image, install_go).
	file := path.Join(s.base, ".go-version")
	content, err := s.tree.read(file)
	if err != nil {
		return "", nil, err
	}
	where, named := file, strings.TrimSpace(string(content))
	if named == "" {
		where = s.tomlName
		if value := lookup(s.config, "build", "environment", "GO_VERSION"); value != nil {
			named = fmt.Sprint(value)
		}
	}
	versions := map[string]string{where: named}
	for _, context := range sortedTables(s.config, "context") {
		if value := lookup(context.table, "environment", "GO_VERSION"); value != nil {
			versions[s.tomlName+", context."+context.name] = fmt.Sprint(value)
		}
	}
	for _, where := range slices.Sorted(maps.Keys(versions)) {
		version := versions[where]
		if version == "" {
			continue
		}
		m := exactGo.FindStringSubmatch(strings.TrimPrefix(version, "go"))
		if m == nil || version != m[0] {
			found = append(found, Finding{where, fmt.Sprintf("has the Go version %s, which names no file on go.dev: Netlify would use an old Go", version),
				"write the full version, as in " + ours})
		} else if minor, _ := strconv.Atoi(m[1]); minor < minimalGo {
			found = append(found, Finding{where, fmt.Sprintf("has the Go version %s; the functions need 1.%d.0 or newer", version, minimalGo), "write " + ours})
		}
	}
	return named, found, nil
}

// checkModules finds settings that would keep Go from building modules in the functions directory.
func (s *site) checkModules() (found []Finding, err error) {
	for dir := s.functions; ; dir = path.Dir(dir) {
		if work := path.Join(dir, "go.work"); s.tree.exists(work) {
			found = append(found, Finding{work, "makes Go build only the modules that it lists", "add the functions with --prebuilt"})
		}
		if dir == "." {
			break
		}
	}
	if flags := fmt.Sprint(lookup(s.config, "build", "environment", "GOFLAGS")); strings.Contains(flags, "-mod=") {
		found = append(found, Finding{s.tomlName, "has GOFLAGS with -mod, which only suits the site's own module", "add the functions with --prebuilt"})
	}
	return found, nil
}

// checkIgnored finds files that git would ignore, so that a deploy from git would lack them.
func (s *site) checkIgnored(ctx context.Context, names []string) []Finding {
	cmd := exec.CommandContext(ctx, "git", "check-ignore", "--no-index", "-z", "--stdin")
	cmd.Dir = s.tree.root
	cmd.Stdin = strings.NewReader(strings.Join(names, "\x00"))
	out, err := cmd.Output() // fails if nothing is ignored, and without git
	if err != nil || len(out) == 0 {
		return nil
	}
	ignored := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	return []Finding{{ignored[0], fmt.Sprintf("would be ignored by git (%d files in all): a deploy from git would lack them", len(ignored)),
		"remove the pattern in .gitignore that `git check-ignore -v " + ignored[0] + "` names"}}
}

// migrations returns the site's migrations by number.
func (s *site) migrations(dir string) (map[string]string, error) {
	entries, err := os.ReadDir(s.tree.disk(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	found := map[string]string{}
	for _, e := range entries {
		if number, _, ok := strings.Cut(e.Name(), "_"); ok && s.tree.exists(path.Join(dir, e.Name())) {
			found[number] = e.Name()
		}
	}
	return found, nil
}
