package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"

	"netlify-supabase-kv/scripts/kv/internal/redirects"
)

// siteFiles holds what the doctor reads from a site's files.
type siteFiles struct {
	err       error // of parsing netlify.toml
	base      string
	directory string // of the functions
	publish   string
	goVersion string
	versionAt string // where goVersion is set
	redirects []redirects.Rule
	problem   error // of parsing _redirects
}

// netlifyTOML is the part of netlify.toml that the doctor uses. Of the contexts, only production counts.
type netlifyTOML struct {
	Build     buildTable
	Functions map[string]any
	Redirects any // read by redirects.OfTOML
	Context   map[string]buildTable
}

type buildTable struct {
	Base, Publish string
	Functions     any // a folder in [build]; in a context, a table
	Environment   map[string]any
}

// readFiles reads the site's files.
func (in *Input) readFiles() *siteFiles {
	s := &siteFiles{base: in.Dir}
	config, err := readTOML(filepath.Join(in.Dir, "netlify.toml"))
	if base := cmp.Or(config.Context["production"].Base, config.Build.Base); err == nil && base != "" {
		s.base = filepath.Join(in.Dir, filepath.FromSlash(base))
		if isFile(filepath.Join(s.base, "netlify.toml")) { // it replaces the outer file (@netlify/config)
			config, err = readTOML(filepath.Join(s.base, "netlify.toml"))
		}
	}
	if s.err = err; err != nil {
		return s
	}
	production := config.Context["production"]
	s.publish = filepath.FromSlash(cmp.Or(production.Publish, config.Build.Publish))
	s.directory = functionsDirectory(config)
	s.goVersion, s.versionAt = in.goVersion(config, s.base)

	fromConfig, err := redirects.OfTOML("netlify.toml", config.Redirects)
	if s.err = err; err != nil {
		return s
	}
	content, err := os.ReadFile(filepath.Join(s.base, s.publish, "_redirects"))
	if s.problem = err; errors.Is(err, fs.ErrNotExist) {
		s.problem = nil
	}
	fromFile, wrong := redirects.OfFile("_redirects", content)
	s.problem = cmp.Or(s.problem, wrong)
	s.redirects = inForce(fromFile, fromConfig)
	return s
}

// readTOML reads a netlify.toml. If there is none, Netlify's defaults apply.
func readTOML(name string) (config netlifyTOML, err error) {
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return config, nil
	} else if err != nil {
		return config, err
	}
	err = toml.Unmarshal(text, &config)
	var syntax *toml.DecodeError
	if errors.As(err, &syntax) {
		line, column := syntax.Position()
		return config, fmt.Errorf("netlify.toml, line %d, column %d: %w", line, column, err)
	} else if err != nil {
		return config, fmt.Errorf("netlify.toml: %w", err)
	}
	return config, nil
}

// functionsDirectory returns [functions] directory, its older form [build] functions, or Netlify's default.
func functionsDirectory(config netlifyTOML) string {
	directory, _ := config.Functions["directory"].(string)
	older, _ := config.Build.Functions.(string)
	return cmp.Or(directory, older, "netlify/functions")
}

// goVersion finds the version that Netlify installs. .go-version comes before GO_VERSION (build-image,
// run-build-functions.sh), and the variables in netlify.toml come before those of the site.
func (in *Input) goVersion(config netlifyTOML, base string) (version, place string) {
	for _, dir := range []string{base, in.Dir} {
		if text, err := os.ReadFile(filepath.Join(dir, ".go-version")); err == nil {
			return strings.TrimSpace(string(text)), ".go-version"
		}
	}
	for _, environment := range []map[string]any{config.Context["production"].Environment, config.Build.Environment} {
		if value, found := environment["GO_VERSION"]; found {
			return fmt.Sprint(value), "netlify.toml"
		}
	}
	if slices.Contains(in.Names, "GO_VERSION") {
		return in.Getenv("GO_VERSION"), "the site's variables"
	}
	return "", ""
}

// goMod finds the go.mod of our functions in their folder or in a parent within the site. It is nil if there is none.
func (in *Input) goMod(files *siteFiles) (*modfile.File, error) {
	within := filepath.Join(filepath.FromSlash(files.directory), "kv-upsert")
	for dir := filepath.Join(files.base, within); ; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil {
			return modfile.Parse("go.mod", text, nil)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if filepath.Clean(dir) == filepath.Clean(in.Dir) || dir == filepath.Dir(dir) {
			return nil, nil
		}
	}
}

// exactVersion matches versions that go.dev has a file for: since 1.21 they always have three numbers.
var exactVersion = regexp.MustCompile(`^1\.[0-9]+\.[0-9]+$`)

func checkGoVersion(_ context.Context, in *Input) []Finding {
	files := in.files()
	if files.err != nil {
		return fail(files.err.Error(), "fix netlify.toml: Netlify cannot read it either, and the build fails")
	}
	if in.allPrebuilt(files) {
		return ok("the functions are prebuilt: no Go is needed")
	}
	mod, err := in.goMod(files)
	switch {
	case err != nil:
		return fail(err.Error(), "fix go.mod")
	case mod == nil || mod.Go == nil:
		return fail("there is no go.mod with a go line", "run kv doctor in the site's folder, or name the folder with --dir; kv add adds go.mod")
	}
	needs := mod.Go.Version
	if mod.Toolchain != nil {
		needs = strings.TrimPrefix(mod.Toolchain.Name, "go")
	}
	set := fmt.Sprintf(`set GO_VERSION = "%s" under [build.environment] in netlify.toml`, needs)
	if files.versionAt == ".go-version" {
		set = "write " + needs + " into .go-version"
	}
	version := strings.TrimPrefix(files.goVersion, "go")
	switch {
	case version == "":
		return fail("no Go version is set: Netlify builds with the Go in its image, which may be too old to read go.mod", set)
	case !exactVersion.MatchString(version):
		return fail(fmt.Sprintf("the Go version is %q (%s): Netlify installs only exact versions, as in %s, and otherwise uses the Go in its image", files.goVersion, files.versionAt, needs), set)
	case semver.Compare("v"+version, "v1.21.0") < 0:
		return fail(fmt.Sprintf("Go %s (%s) cannot read go.mod, which needs Go %s", version, files.versionAt, mod.Go.Version), set)
	case semver.Compare("v"+version, "v"+mod.Go.Version) < 0:
		return warn(fmt.Sprintf("Go %s (%s) is older than go.mod's %s: each build downloads the newer one first", version, files.versionAt, needs), set)
	}
	return ok("Go %s (%s)", version, files.versionAt)
}

// kind is the form in which a function is in the functions directory.
type kind int

const (
	absent kind = iota
	source
	prebuilt
)

// goFunction finds a function as Netlify's bundler does: a folder with main.go or <name>.go, or a compiled program.
func goFunction(directory, name string) kind {
	for _, file := range []string{"main.go", name + ".go"} {
		if isFile(filepath.Join(directory, name, file)) {
			return source
		}
	}
	for _, file := range []string{name, filepath.Join(name, name)} {
		if isProgram(filepath.Join(directory, file)) {
			return prebuilt
		}
	}
	return absent
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// isProgram reports whether the file begins like a Linux program (ELF).
func isProgram(name string) bool {
	file, err := os.Open(name)
	if err != nil {
		return false
	}
	defer file.Close()
	head := make([]byte, 4)
	n, _ := file.Read(head)
	return string(head[:n]) == "\x7fELF"
}

// script returns the file of a JavaScript or TypeScript function of that name; "" if there is none.
func script(directory, name string) string {
	for _, ending := range []string{".js", ".mjs", ".cjs", ".ts", ".mts", ".cts"} {
		for _, file := range []string{name + ending, filepath.Join(name, name+ending), filepath.Join(name, "index"+ending)} {
			if isFile(filepath.Join(directory, file)) {
				return file
			}
		}
	}
	return ""
}

func (in *Input) allPrebuilt(files *siteFiles) bool {
	found := false
	for _, f := range functions {
		switch goFunction(filepath.Join(files.base, files.directory), f.name) {
		case source:
			return false
		case prebuilt:
			found = true
		}
	}
	return found
}

func checkFunctionsDirectory(_ context.Context, in *Input) (findings []Finding) {
	files := in.files()
	if files.err != nil {
		return skip("not checked: netlify.toml cannot be read")
	}
	directory := filepath.Join(files.base, filepath.FromSlash(files.directory))
	var missing, found []string
	for _, f := range functions {
		there := goFunction(directory, f.name) != absent
		js := script(directory, f.name)
		switch {
		case there && js != "":
			findings = append(findings, Finding{Warn, fmt.Sprintf("%s and %s have the same name: Netlify deploys the Go function, without a warning about the other", f.name, filepath.Join(files.directory, js)),
				"remove " + filepath.Join(files.directory, js) + ", or the Go function"})
		case there:
			found = append(found, f.name)
		case !f.optional:
			missing = append(missing, f.name)
		}
	}
	if len(missing) > 0 {
		findings = append(findings, Finding{Fail, fmt.Sprintf("Netlify looks for functions in %s, which lacks %s", files.directory, strings.Join(missing, ", ")), in.whereFunctionsAre(files, missing[0])})
	}
	if len(findings) == 0 {
		return ok("%d functions in %s", len(found), files.directory)
	}
	return findings
}

// whereFunctionsAre returns what to do about a function that is not in the functions directory.
func (in *Input) whereFunctionsAre(files *siteFiles, name string) string {
	for _, other := range []string{"functions", "netlify/functions"} {
		if other != files.directory && goFunction(filepath.Join(files.base, other), name) != absent {
			return fmt.Sprintf("the functions are in %s: move them to %s, the site's functions directory (kv add does)", other, files.directory)
		}
	}
	return "add the functions with kv add"
}

func checkRedirects(_ context.Context, in *Input) []Finding {
	files := in.files()
	switch {
	case files.err != nil:
		return skip("not checked: netlify.toml cannot be read")
	case files.problem != nil:
		return fail(files.problem.Error(), "fix the line: Netlify ignores it")
	}
	addresses, wrong := 0, map[misrouting][]string{}
	for _, f := range functions {
		if f.path == "" {
			continue
		}
		paths := map[string]string{f.short(): f.short()}
		if f.wild {
			paths[f.short()+"/*"] = f.short() + "/some/key"
		}
		for from, path := range paths {
			addresses++
			for _, why := range files.misroutings(f, path) {
				wrong[why] = append(wrong[why], from)
			}
		}
	}
	if len(wrong) == 0 {
		return ok("%d short addresses lead to their functions", addresses)
	}
	var findings []Finding
	for why, addresses := range wrong {
		slices.Sort(addresses)
		findings = append(findings, why.finding(strings.Join(addresses, ", ")))
	}
	slices.SortFunc(findings, func(a, b Finding) int { return strings.Compare(a.Text, b.Text) })
	return findings
}

// misrouting is why an address does not lead to its function: no rule matches, another rule comes first, or the rule
// is not a rewrite.
type misrouting struct {
	rule  redirects.Rule // without a Place if no rule matches
	right bool           // the rule leads to the function, but redirects the browser
}

// misroutings finds the problems on the way from a path to a function.
func (files *siteFiles) misroutings(f function, path string) (why []misrouting) {
	for _, r := range files.redirects {
		if !match(r, path) {
			continue
		}
		right := r.To == f.direct() || strings.HasPrefix(r.To, f.direct()+"/")
		if !right || r.Status != 200 {
			why = append(why, misrouting{r, right})
		}
		if !r.Conditional {
			return why
		}
	}
	return append(why, misrouting{})
}

func (m misrouting) finding(addresses string) Finding {
	switch inFile := m.rule.File == "_redirects"; {
	case m.rule.Place == "":
		return Finding{Fail, "no rule leads to the functions from " + addresses, "run kv add, or copy the [[redirects]] of this project's netlify.toml in front of any catch-all"}
	case m.right:
		return Finding{Fail, fmt.Sprintf("%s has status %d: it redirects the browser, and a request body is lost", m.rule, m.rule.Status), "give it status 200"}
	case m.rule.Conditional:
		return Finding{Warn, fmt.Sprintf("%s comes first for some requests, which do not reach the functions from %s", m.rule, addresses), "put the rules for /api/kv in front of it"}
	case inFile:
		return Finding{Fail, fmt.Sprintf("%s comes first, and does not lead to the functions from %s", m.rule, addresses),
			"run kv add, or put the rules for /api/kv in front of it in _redirects, which Netlify reads before netlify.toml, as in: /api/kv/list /.netlify/functions/kv-list 200"}
	}
	return Finding{Fail, fmt.Sprintf("%s comes first, and does not lead to the functions from %s", m.rule, addresses), "run kv add, or put the rules for /api/kv in front of it"}
}
