package add

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/tools/txtar"

	"netlify-supabase-kv/scripts/kv/internal/redirects"
)

// kind is one kind of existing site: a file in testdata/sites.
type kind struct {
	name      string
	options   Options
	byHand    func(t *testing.T, dir string) // the change that a finding asks for first
	functions []string                       // of its own
	routes    map[string]string              // the site's own, by path: the rule that applies before and after
	redirects string                         // the file that gets our rules
	keepsGo   bool                           // the site names a Go version, which must stay
}

var kinds = []kind{
	{name: "javascript", functions: []string{"price", "stock"}, redirects: "netlify.toml"},
	{name: "catchall-toml", functions: []string{"hello"}, routes: map[string]string{"/shop": "/shop", "/some/page": "/*", "/api/other": "/*"}, redirects: "netlify.toml"},
	{
		name: "catchall-file", functions: []string{"hello"}, redirects: "public/_redirects",
		routes: map[string]string{"/blog/a/b": "/blog/*", "/some/page": "/*", "/api/kv": "/*", "/never": "/*"},
	},
	{name: "go", functions: []string{"greet"}, routes: map[string]string{"/greet": "/greet"}, redirects: "netlify.toml"},
	{name: "supabase", functions: []string{"orders"}, redirects: "netlify.toml"},
	{name: "plain", functions: []string{"hello"}, redirects: "netlify.toml", byHand: publishAFolder},
	{name: "base", functions: []string{"hello"}, redirects: "netlify.toml", keepsGo: true},
	{name: "settings", functions: []string{"hello"}, redirects: "netlify.toml", options: Options{Functions: "functions", Publish: "site"}},
}

// publishAFolder fixes publish = "." as the finding says.
func publishAFolder(t *testing.T, dir string) {
	require.NoError(t, os.Mkdir(filepath.Join(dir, "public"), 0o755))
	require.NoError(t, os.Rename(filepath.Join(dir, "index.html"), filepath.Join(dir, "public", "index.html")))
	write(t, dir, "netlify.toml", "[build]\n  publish = \"public\"\n")
}

// lay makes the folder of a site of this kind, without the change by hand.
func (k kind) lay(t *testing.T) string {
	t.Helper()
	archive, err := txtar.ParseFile(filepath.Join("testdata", "sites", k.name+".txtar"))
	require.NoError(t, err)
	dir := t.TempDir()
	for _, f := range archive.Files {
		write(t, dir, f.Name, string(f.Data))
	}
	if k.name == "catchall-file" {
		content := read(t, dir, "public/_redirects")
		write(t, dir, "public/_redirects", strings.TrimSuffix(content, "\n"))
	}
	return dir
}

// ready makes the folder with the change by hand.
func (k kind) ready(t *testing.T) string {
	t.Helper()
	dir := k.lay(t)
	if k.byHand != nil {
		k.byHand(t, dir)
	}
	return dir
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	file := filepath.Join(dir, filepath.FromSlash(name))
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
	require.NoError(t, err)
	return string(content)
}

// snapshot returns everything in a folder: files with their modes, and folders.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(dir, name)
		if err != nil || e.IsDir() {
			all[filepath.ToSlash(relative)+"/"] = info.Mode().String()
			return err
		}
		content, err := os.ReadFile(name)
		all[filepath.ToSlash(relative)] = info.Mode().String() + "\n" + string(content)
		return err
	}))
	return all
}

// requireSame prints only the files that differ.
func requireSame(t *testing.T, want, got map[string]string, message ...any) {
	t.Helper()
	var differ []string
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if want[name] != got[name] {
			differ = append(differ, fmt.Sprintf("%s changed from\n%s\nto\n%s", name, want[name], got[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			differ = append(differ, name+" is new")
		}
	}
	require.Empty(t, differ, message...)
}

// thisRelease is the release of this checkout, read once.
var thisRelease = sync.OnceValues(func() (*release, error) {
	root, err := FindCheckout(".")
	if err != nil {
		return nil, err
	}
	return readRelease(context.Background(), root)
})

func plan(t *testing.T, dir string, o Options) *Plan {
	t.Helper()
	r, err := thisRelease()
	require.NoError(t, err)
	o.Site = dir
	p, err := addRelease(t.Context(), r, o)
	require.NoError(t, err)
	return p
}

// addTo adds the functions to a site without conflicts.
func addTo(t *testing.T, dir string, o Options) *Plan {
	t.Helper()
	p := plan(t, dir, o)
	require.Empty(t, p.Found)
	require.NoError(t, p.Apply(t.Context()))
	return p
}

func takeBack(t *testing.T, dir string) *Plan {
	t.Helper()
	p, err := Remove(dir)
	require.NoError(t, err)
	require.Empty(t, p.Found)
	require.NoError(t, p.Apply(t.Context()))
	return p
}

func TestAddKeepsTheSitesOwnFiles(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			dir := k.ready(t)
			before := snapshot(t, dir)
			p := plan(t, dir, k.options)
			requireSame(t, before, snapshot(t, dir), "a plan writes nothing")

			addTo(t, dir, k.options)
			after := snapshot(t, dir)
			for name, content := range before {
				if content == after[name] {
					continue
				}
				require.Contains(t, []string{"netlify.toml", k.redirects}, name, "a file of the site was changed")
				require.True(t, isSubsequence(content, after[name]), "%s lost something:\n%s", name, after[name])
			}
			require.Contains(t, after[k.redirects], "/api/kv/get/*")
			require.Equal(t, !k.keepsGo, strings.Contains(after["netlify.toml"], mark+" (") || strings.Contains(after["netlify.toml"], "[build.environment]\n  GO_VERSION"))
			require.True(t, slices.ContainsFunc(p.Changes, func(c Change) bool { return c.File == p.Functions+"/kv-get/main.go" }))

			require.Empty(t, plan(t, dir, k.options).Changes, "a second run changes nothing")
			takeBack(t, dir)
			requireSame(t, before, snapshot(t, dir), "a removal restores the site")
			p, err := Remove(dir)
			require.NoError(t, err)
			require.Empty(t, p.Changes)
		})
	}
}

// isSubsequence reports whether whole contains all lines of part in their order.
func isSubsequence(part, whole string) bool {
	lines := strings.Split(whole, "\n")
	for _, line := range strings.Split(part, "\n") {
		at := slices.Index(lines, line)
		if at < 0 {
			return false
		}
		lines = lines[at+1:]
	}
	return true
}

func TestAddKeepsLineEnds(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		dir := k.ready(t)
		for name := range snapshot(t, dir) {
			if !strings.HasSuffix(name, "/") {
				write(t, dir, name, strings.ReplaceAll(read(t, dir, name), "\n", "\r\n"))
			}
		}
		before := snapshot(t, dir)
		addTo(t, dir, k.options)
		if k.name != "settings" {
			require.NotRegexp(t, `[^\r]\n`, read(t, dir, "netlify.toml"))
		}
		// A clone on another machine has other line ends, also in our files.
		for name := range snapshot(t, dir) {
			if !strings.HasSuffix(name, "/") && filepath.Base(name) != "added.json" {
				write(t, dir, name, strings.ReplaceAll(read(t, dir, name), "\r\n", "\n"))
			}
		}
		takeBack(t, dir)
		for name := range snapshot(t, dir) {
			if !strings.HasSuffix(name, "/") {
				write(t, dir, name, strings.ReplaceAll(read(t, dir, name), "\n", "\r\n"))
			}
		}
		requireSame(t, before, snapshot(t, dir), k.name)
	}
}

// TestInterruptedAddContinues interrupts the writing after each number of files, as Ctrl-C does. Then it runs the
// command again or removes the functions.
func TestInterruptedAddContinues(t *testing.T) {
	t.Parallel()
	k := kinds[2]
	dir := k.ready(t)
	before := snapshot(t, dir)
	whole := len(plan(t, dir, k.options).Changes)
	for after := 0; after < whole; after += 9 {
		p := plan(t, dir, k.options)
		require.Empty(t, p.Found)
		require.ErrorIs(t, p.Apply(&endingContext{Context: t.Context(), after: after}), context.Canceled)
		if after%2 == 0 {
			addTo(t, dir, k.options)
			require.Empty(t, plan(t, dir, k.options).Changes)
		}
		takeBack(t, dir)
		requireSame(t, before, snapshot(t, dir), "after %d files", after)
	}
}

// endingContext is canceled after a number of calls of Err.
type endingContext struct {
	context.Context
	after int
}

func (c *endingContext) Err() error {
	if c.after--; c.after < 0 {
		return context.Canceled
	}
	return nil
}

func TestUpdateReplacesWhatWasAdded(t *testing.T) {
	t.Parallel()
	k := kinds[1]
	dir := k.ready(t)
	before := snapshot(t, dir)
	newer, err := thisRelease()
	require.NoError(t, err)
	older := *newer
	older.goVersion, older.rules = "1.26.1", append([]redirects.Rule{{From: "/api/kv/gone", To: "/.netlify/functions/kv-gone", Status: 200}}, newer.rules[1:]...)
	older.functions = map[string]map[string][]byte{"kv-gone": newer.functions["kv-get"], "kv-get": {"main.go": []byte("package main // old\n"), "go.mod": nil}}
	older.shared = map[string][]byte{"pkg/old/old.go": []byte("package old\n")}
	p, err := addRelease(t.Context(), &older, Options{Site: dir})
	require.NoError(t, err)
	require.Empty(t, p.Found)
	require.NoError(t, p.Apply(t.Context()))
	require.Contains(t, read(t, dir, "netlify.toml"), "/api/kv/gone")

	addTo(t, dir, k.options)
	fresh := k.ready(t)
	addTo(t, fresh, k.options)
	requireSame(t, snapshot(t, fresh), snapshot(t, dir), "an update gives the same files as a first addition")
	// Update from sources to programs and back: a file replaces a folder of the same name.
	r := *newer
	r.programs = map[string][]byte{"kv-get": []byte("ELF")}
	p, err = addRelease(t.Context(), &r, Options{Site: dir, Prebuilt: true})
	require.NoError(t, err)
	require.Empty(t, p.Found)
	require.NoError(t, p.Apply(t.Context()))
	require.Equal(t, "ELF", read(t, dir, "netlify/functions/kv-get"))
	require.NotContains(t, read(t, dir, "netlify.toml"), "GO_VERSION")
	addTo(t, dir, k.options)
	requireSame(t, snapshot(t, fresh), snapshot(t, dir))
	takeBack(t, dir)
	requireSame(t, before, snapshot(t, dir))
	// Update from programs, as a first addition, to sources.
	p, err = addRelease(t.Context(), &r, Options{Site: dir, Prebuilt: true})
	require.NoError(t, err)
	require.NoError(t, p.Apply(t.Context()))
	addTo(t, dir, k.options)
	takeBack(t, dir)
	requireSame(t, before, snapshot(t, dir))
}

// TestConflictsAreFindings: each row gives a site one conflict.
func TestConflictsAreFindings(t *testing.T) {
	t.Parallel()
	append := func(name, text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			content, _ := os.ReadFile(filepath.Join(dir, name))
			write(t, dir, name, string(content)+text)
		}
	}
	replace := func(name, old, new string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			content := read(t, dir, name)
			require.Contains(t, content, old)
			write(t, dir, name, strings.Replace(content, old, new, 1))
		}
	}
	for name, row := range map[string]struct {
		kind  string
		spoil func(t *testing.T, dir string)
		want  string // part of "<where> <what>"
		do    string
	}{
		"JavaScriptFunctionOfOurName": {"javascript", append("netlify/functions/kv-get.mjs", "export default 1"),
			"netlify/functions/kv-get.mjs has the name of a function", "USE_SUPABASE_KV=false"},
		"FolderOfOurName":     {"javascript", append("netlify/functions/kv-list/index.js", "x"), "netlify/functions/kv-list has the name", "remove it"},
		"PublishShowsSources": {"plain", nil, `netlify.toml has build.publish = "."`, "build.publish"},
		"PublishShowsFunctions": {"javascript", replace("netlify.toml", `"dist"`, `"netlify"`), "everyone could read the files in netlify/functions on the site",
			"build.publish"},
		"ContextPublishShowsSources": {"javascript", append("netlify.toml", "\n[context.staging]\npublish = \"/\"\n"), "context.staging.publish", "build.publish"},
		"PublishUnknown":             {"settings", nil, "netlify.toml names no publish folder", "--publish"},
		"FunctionsUnknown":           {"settings", nil, "functions is a folder that Netlify's settings may name", "--functions functions"},
		"TwoFunctionsDirectories":    {"go", append("netlify.toml", "\n[context.staging]\nfunctions = \"other\"\n"), "names another functions directory, other", "one directory"},
		"OldGo":                      {"base", replace("netlify.toml", "1.22.5", "1.19.13"), "has the Go version 1.19.13; the functions need 1.21.0", "write 1."},
		"InexactGo":                  {"base", replace("netlify.toml", "1.22.5", "1.24"), "has the Go version 1.24, which names no file on go.dev", "1.26."},
		"OldGoInFile":                {"go", append(".go-version", "1.20.1\n"), ".go-version has the Go version 1.20.1", "write 1."},
		"OldGoInContext": {"go", append("netlify.toml", "\n[context.staging.environment]\nGO_VERSION = \"1.18\"\n"),
			"netlify.toml, context.staging has the Go version 1.18", "1.26."},
		"Workspace":        {"go", append("go.work", "go 1.22\nuse .\n"), "go.work makes Go build only the modules", "--prebuilt"},
		"ModFlag":          {"go", append("netlify.toml", "\n[build.environment]\nGOFLAGS = \"-mod=vendor\"\n"), "GOFLAGS with -mod", "--prebuilt"},
		"RuleOnOurAddress": {"javascript", append("netlify.toml", "\n[[redirects]]\nfrom = \"/api/kv/*\"\nto = \"/.netlify/functions/store\"\n"), "has the rule /api/kv/* →", "remove the rule"},
		"OurRuleBehindTheCatchAll": {"catchall-file", append("public/_redirects", "\n/api/kv/get/* /.netlify/functions/kv-get/:splat 200\n"),
			"has the rule /api/kv/get/* behind /* → /index.html", "remove the rule"},
		"OurRuleBehindTheCatchAllOfTheOtherFile": {"catchall-file", append("netlify.toml", tomlBlock([]redirects.Rule{{From: "/api/kv/query", To: "/.netlify/functions/kv-query", Status: 200}})),
			"netlify.toml has the rule /api/kv/query behind /*", "remove the rule"},
		"InlineEnvironment": {"javascript", replace("netlify.toml", "  publish", "  environment = { A = \"1\" }\n  publish"), "cannot add to: the build's environment", "GO_VERSION = "},
		"CapitalBuild":      {"javascript", replace("netlify.toml", "[build]", "[Build]"), "cannot add to: the build's environment", "GO_VERSION = "},
		"InlineRedirects":   {"javascript", replace("netlify.toml", "[build]", "redirects = [{ from = \"/a\", to = \"/b\" }]\n[build]"), "cannot add to: its redirects", "[[redirects]]"},
		"SeveralRedirectFiles": {"catchall-file", append("other/_redirects", "/a /b\n"), "several files that may be the site's redirects: other/_redirects, public/_redirects",
			"--redirects other/_redirects"},
		"FileOfOurFolder": {"javascript", append("netlify-supabase-kv/go.mod", "module x\n"), "netlify-supabase-kv/go.mod exists already", "move it away"},
		"MigrationOfOurNumber": {"supabase", append("supabase/migrations/20261201000000_mine.sql", "select 1;"),
			"supabase/migrations/20261201000000_mine.sql has the number of the migration", "another number"},
		"IgnoredByGit": {"javascript", func(t *testing.T, dir string) {
			append(".gitignore", "pkg/\n")(t, dir)
			require.NoError(t, exec.Command("git", "init", "--quiet", dir).Run())
		}, "would be ignored by git", "git check-ignore -v netlify-supabase-kv/pkg/"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kinds[slices.IndexFunc(kinds, func(k kind) bool { return k.name == row.kind })]
			dir := k.lay(t)
			if row.spoil != nil {
				row.spoil(t, dir)
			}
			before := snapshot(t, dir)
			p := plan(t, dir, Options{})
			var found, do bytes.Buffer
			for _, f := range p.Found {
				found.WriteString(f.Where + " " + f.What + "\n")
				do.WriteString(f.Do + "\n")
			}
			require.Contains(t, found.String(), row.want)
			require.Contains(t, do.String(), row.do)
			require.Error(t, p.Apply(t.Context()))
			requireSame(t, before, snapshot(t, dir), "nothing is written")
		})
	}
}

// TestChangedFilesAreKept: neither an update nor a removal loses what somebody wrote.
func TestChangedFilesAreKept(t *testing.T) {
	t.Parallel()
	k := kinds[1]
	for name, row := range map[string]struct{ file, old, new, want string }{
		"Source":    {"netlify/functions/kv-get/main.go", "package main", "package main // mine", "was changed since kv add wrote it"},
		"Rule":      {"netlify.toml", `/.netlify/functions/kv-upsert"`, `/.netlify/functions/mine"`, "has lines of kv add that were changed"},
		"GoVersion": {"netlify.toml", `GO_VERSION = "`, `GO_VERSION = "9`, "has lines of kv add that were changed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := k.ready(t)
			addTo(t, dir, k.options)
			content := read(t, dir, row.file)
			require.Contains(t, content, row.old)
			write(t, dir, row.file, strings.Replace(content, row.old, row.new, 1))
			before := snapshot(t, dir)
			for _, plan := range []func() (*Plan, error){func() (*Plan, error) { return plan(t, dir, k.options), nil }, func() (*Plan, error) { return Remove(dir) }} {
				p, err := plan()
				require.NoError(t, err)
				require.NotEmpty(t, p.Found)
				require.Equal(t, row.file, p.Found[0].Where)
				require.Contains(t, p.Found[0].What, row.want)
				require.Error(t, p.Apply(t.Context()))
				requireSame(t, before, snapshot(t, dir))
			}
		})
	}
	t.Run("ChangedSupabaseConfigStays", func(t *testing.T) {
		t.Parallel()
		dir := k.ready(t)
		addTo(t, dir, k.options)
		write(t, dir, "supabase/config.toml", "project_id = \"mine\"\n")
		addTo(t, dir, k.options)
		takeBack(t, dir)
		require.Equal(t, "project_id = \"mine\"\n", read(t, dir, "supabase/config.toml"))
	})
	t.Run("LinesAroundStay", func(t *testing.T) {
		t.Parallel()
		dir := k.ready(t)
		addTo(t, dir, k.options)
		write(t, dir, "netlify.toml", "# mine\n"+read(t, dir, "netlify.toml")+"\n[dev]\nport = 1\n")
		takeBack(t, dir)
		require.Equal(t, "# mine\n"+read(t, k.ready(t), "netlify.toml")+"\n[dev]\nport = 1\n", read(t, dir, "netlify.toml"))
	})
}

// TestExistingRulesAreNotAddedAgain adds to a site to which somebody copied the rules by hand, some into each file.
func TestExistingRulesAreNotAddedAgain(t *testing.T) {
	t.Parallel()
	r, err := thisRelease()
	require.NoError(t, err)
	k := kinds[2]
	dir := k.ready(t)
	write(t, dir, "public/_redirects", fileBlock(r.rules[:2])+read(t, dir, "public/_redirects"))
	addTo(t, dir, k.options)
	content := "\n" + read(t, dir, "public/_redirects")
	for _, rule := range r.rules {
		require.Equal(t, 1, strings.Count(content, "\n"+rule.From+" "), "%s in\n%s", rule.From, content)
	}
}

func TestAddRefusesWrongFolders(t *testing.T) {
	t.Parallel()
	_, err := Add(t.Context(), Options{Site: filepath.Join(t.TempDir(), "none")})
	require.ErrorContains(t, err, "is not a folder")
	_, err = FindCheckout(t.TempDir())
	require.ErrorContains(t, err, "is not in a checkout")
	outer := kinds[0].ready(t)
	require.NoError(t, os.Mkdir(filepath.Join(outer, ".git"), 0o755))
	_, err = Add(t.Context(), Options{Site: filepath.Join(outer, "lib")})
	require.ErrorContains(t, err, "is within a repository whose netlify.toml is in "+outer)
	dir := kinds[0].ready(t)
	_, err = Add(t.Context(), Options{Site: dir, Checkout: "../../../..", Publish: "other"})
	require.ErrorContains(t, err, "--publish is other, but netlify.toml names dist")
	write(t, dir, "netlify.toml", "[build")
	_, err = Add(t.Context(), Options{Site: dir})
	require.ErrorContains(t, err, "netlify.toml: ")
}

// TestSourcesNameEverySum builds with an empty module cache, so that Go downloads the modules of go.mod and checks
// each against go.sum. The modules that the checkout has downloaded serve as the proxy.
func TestSourcesNameEverySum(t *testing.T) {
	t.Parallel()
	dir := kinds[0].ready(t)
	addTo(t, dir, kinds[0].options)
	cache, err := runGo(t.Context(), ".", nil, "env", "GOMODCACHE")
	require.NoError(t, err)
	env := []string{"GOMODCACHE=" + t.TempDir(), "GOPROXY=file://" + strings.TrimSpace(string(cache)) + "/cache/download", "GOFLAGS=-modcacherw", "GOTOOLCHAIN=local"}
	for _, folder := range []string{"netlify/functions/kv-get", "netlify/functions/kv-list-blob", Folder} {
		for _, platform := range platforms {
			goos, goarch, _ := strings.Cut(platform, "/")
			_, err := runGo(t.Context(), filepath.Join(dir, folder), append(env, "GOOS="+goos, "GOARCH="+goarch), "list", "-deps", "-tags", buildTags, "./...")
			require.NoError(t, err, "%s for %s", folder, platform)
		}
	}
}
