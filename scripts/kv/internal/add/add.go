package add

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"netlify-supabase-kv/scripts/kv/internal/redirects"
)

// Options describe what to add and where. Functions, Publish and Redirects name what netlify.toml leaves to Netlify's
// settings or to the site's build. They are relative to the folder in which Netlify builds.
type Options struct {
	Site      string // the folder of the site's repository
	Checkout  string // a checkout of this project
	Prebuilt  bool   // compiled programs instead of sources, for a build without Go
	Functions string // directory
	Publish   string // folder
	Redirects string // the file that becomes _redirects
}

// Plan is a set of changes to a site.
type Plan struct {
	Site      string    // the site's folder
	Functions string    // the functions directory, relative to Site; "" if it is unknown
	Changes   []Change  // sorted by file
	Found     []Finding // what is in the way; if there is any, nothing is written
	ByHand    []string  // the steps that remain for the user

	tree     *tree
	record   string // the record's file name
	old, new *record
}

// Add plans to add the functions to a site or to update them.
func Add(ctx context.Context, o Options) (*Plan, error) {
	if _, _, _, err := openSite(o.Site); err != nil {
		return nil, err // reading the checkout takes Go some seconds, so check the site first
	}
	r, err := readRelease(ctx, o.Checkout)
	if err == nil && o.Prebuilt {
		err = r.prebuild(ctx)
	}
	if err != nil {
		return nil, err
	}
	return addRelease(ctx, r, o)
}

func addRelease(ctx context.Context, r *release, o Options) (*Plan, error) {
	p, base, tomlName, err := openSite(o.Site)
	if err != nil || len(p.Found) > 0 {
		return p, err // added files that were changed since would look like the site's own
	}
	s, found, err := readSite(ctx, p.tree, base, tomlName, o)
	if err != nil {
		return nil, err
	}
	p.Functions = s.functions
	b := &addition{site: s, release: r, record: p.new}
	if p.Found = found; len(found) == 0 {
		p.Found, err = b.addAll(ctx, o.Prebuilt)
	}
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(p.Found, func(a, b Finding) int { return strings.Compare(a.Where, b.Where) })
	p.ByHand = b.byHand(o.Prebuilt)
	p.tree.write(p.record, nil, 0o644)
	p.new.Folders = p.madeFolders()
	p.tree.write(p.record, p.new.encode(), 0o644)
	p.Changes, err = p.tree.changes()
	return p, err
}

// Remove plans to remove what Add added.
func Remove(folder string) (*Plan, error) {
	p, _, _, err := openSite(folder)
	if err != nil {
		return nil, err
	}
	if !p.old.empty() {
		p.ByHand = []string{"The database keeps its tables, functions and entries. Keep or drop them yourself."}
	}
	p.Changes, err = p.tree.changes()
	return p, err
}

// openSite opens a site and removes from its tree everything that was added before.
func openSite(folder string) (p *Plan, base, tomlName string, err error) {
	if folder, err = filepath.Abs(folder); err != nil {
		return nil, "", "", err
	}
	t := newTree(folder)
	if !t.exists(".") {
		return nil, "", "", fmt.Errorf("%s is not a folder", folder)
	}
	if base, tomlName, err = findBase(t); err != nil {
		return nil, "", "", err
	}
	p = &Plan{Site: folder, tree: t, record: path.Join(base, Folder, recordName), new: newRecord()}
	if p.old, err = readRecord(t, base); err != nil {
		return nil, "", "", err
	}
	p.Found, err = p.old.takeBack(t, base)
	return p, base, tomlName, err
}

// madeFolders returns the folders that this plan makes and those that an earlier one made and that are still needed.
func (p *Plan) madeFolders() []string {
	made, files := p.tree.missingFolders(), append(slices.Collect(maps.Keys(p.new.Files)), p.record)
	for _, dir := range p.old.Folders {
		if slices.ContainsFunc(files, func(name string) bool { return strings.HasPrefix(name, dir+"/") }) {
			made = union(made, []string{dir})
		}
	}
	slices.SortFunc(made, outermostFirst)
	return made
}

// Apply writes the changes. After an interruption, the same command continues. A plan with findings is refused.
func (p *Plan) Apply(ctx context.Context) error {
	if len(p.Found) > 0 {
		return errors.New("a plan with findings cannot be applied")
	}
	if len(p.Changes) == 0 {
		return nil
	}
	changes := slices.DeleteFunc(slices.Clone(p.Changes), func(c Change) bool { return c.File == p.record })
	both := p.old.with(p.new)
	if err := p.tree.replace(p.record, &file{both.encode(), 0o644}); err != nil {
		return fmt.Errorf("write %s: %w", p.record, err)
	}
	if err := p.tree.apply(ctx, changes, p.old.Folders); err != nil {
		return err
	}
	last := slices.DeleteFunc(slices.Clone(p.Changes), func(c Change) bool { return c.File != p.record })
	return p.tree.apply(ctx, last, p.old.Folders)
}

// Diff returns the lines that a file of the site gains and loses. It omits the lines around them, which may hold
// secrets. It is empty for files that belong to kv add as a whole.
func (p *Plan) Diff(c Change) string {
	var b strings.Builder
	lines := func(sign string, texts, other []string) {
		for _, text := range texts {
			if !slices.Contains(other, text) {
				for line := range strings.Lines(strings.Trim(text, "\n") + "\n") {
					b.WriteString(sign + line)
				}
			}
		}
	}
	lines("- ", p.old.Texts[c.File], p.new.Texts[c.File])
	lines("+ ", p.new.Texts[c.File], p.old.Texts[c.File])
	return b.String()
}

// addition is the addition of one release to one site.
type addition struct {
	site      *site
	release   *release
	record    *record
	goVersion string // the version that the site already names; it stays
}

// addAll adds everything to the tree and the record.
func (b *addition) addAll(ctx context.Context, prebuilt bool) (found []Finding, err error) {
	steps := []func() ([]Finding, error){b.checkNames, b.addRules, b.addMigrations, b.site.checkModules, b.addGoVersion}
	functions := b.addSources
	if prebuilt {
		steps, functions = steps[:3], b.addPrograms
	}
	for _, step := range steps {
		more, err := step()
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	if len(found) > 0 {
		return found, nil
	}
	if found, err = functions(); err != nil {
		return nil, err
	}
	names := append(slices.Sorted(maps.Keys(b.record.Files)), path.Join(b.site.base, Folder, recordName))
	return append(found, b.site.checkIgnored(ctx, names)...), nil
}

func (b *addition) checkNames() ([]Finding, error) { return b.site.checkNames(b.release.names()) }

// add adds a file to the tree. It never overwrites a file of the site.
func (b *addition) add(name string, content []byte, mode fs.FileMode) []Finding {
	if b.site.tree.exists(name) {
		return []Finding{{name, "exists already, and kv add did not write it", "move it away, then run the command again"}}
	}
	b.site.tree.write(name, content, mode)
	b.record.Files[name] = []string{hash(content)}
	return nil
}

// insert adds text to a file of the site.
func (b *addition) insert(name, content string, i insertion) {
	t := b.site.tree
	if there, err := t.read(name); there == nil && err == nil {
		b.record.Made = union(b.record.Made, []string{name})
	}
	t.write(name, []byte(i.into(content)), 0o644)
	b.record.Texts[name] = append(b.record.Texts[name], i.text)
}

func (b *addition) addSources() (found []Finding, err error) {
	s := b.site
	for name, content := range b.release.shared {
		found = append(found, b.add(path.Join(s.base, Folder, name), content, 0o644)...)
	}
	for function, files := range b.release.functions {
		dir := path.Join(s.functions, function)
		shared, err := filepath.Rel(filepath.FromSlash(dir), filepath.FromSlash(path.Join(s.base, Folder)))
		if err != nil {
			return nil, err
		}
		for name, content := range files {
			if name == "go.mod" {
				content = bytes.Replace(content, []byte(sharedPlaceholder), []byte(filepath.ToSlash(shared)), 1)
			}
			found = append(found, b.add(path.Join(dir, name), content, 0o644)...)
		}
	}
	return found, nil
}

func (b *addition) addPrograms() (found []Finding, err error) {
	for name, content := range b.release.programs {
		found = append(found, b.add(path.Join(b.site.functions, name), content, 0o755)...)
	}
	return found, nil
}

func (b *addition) addGoVersion() (found []Finding, err error) {
	s := b.site
	if b.goVersion, found, err = s.goVersion(b.release.goVersion); err != nil || len(found) > 0 || b.goVersion != "" {
		return found, err
	}
	content, err := s.tree.read(s.tomlName)
	if err != nil {
		return nil, err
	}
	i, err := insertGoVersion(string(content), b.release.goVersion)
	if errors.Is(err, errOtherForm) {
		return []Finding{{s.tomlName, err.Error() + ": the build's environment",
			fmt.Sprintf("add GO_VERSION = %q to it, then run the command again", b.release.goVersion)}}, nil
	} else if err != nil {
		return nil, err
	}
	b.insert(s.tomlName, string(content), i)
	return nil, nil
}

// addRules puts the missing rules in front of the site's own, in the file that Netlify reads first.
func (b *addition) addRules() ([]Finding, error) {
	s := b.site
	theirs, err := redirects.OfTOML(s.tomlName, s.config["redirects"])
	if err != nil {
		return nil, err
	}
	name := s.tomlName
	if s.redirects != "" {
		name = s.redirects
	}
	content, err := s.tree.read(name)
	if err != nil {
		return nil, err
	}
	if s.redirects != "" {
		fromFile, _ := redirects.OfFile(name, content) // Netlify ignores the lines that an error is about
		theirs = append(fromFile, theirs...)
	}
	rules, found := missing(b.release.rules, theirs)
	if len(rules) == 0 || len(found) > 0 {
		return found, nil
	}
	i := insertion{0, marked(fileBlock(rules))}
	if s.redirects == "" {
		i, err = insertRules(string(content), rules)
	}
	if errors.Is(err, errOtherForm) {
		return []Finding{{name, err.Error() + ": its redirects", "put these in front of its own, then run the command again:\n" + tomlBlock(rules)}}, nil
	} else if err != nil {
		return nil, err
	}
	b.insert(name, string(content), i)
	return nil, nil
}

// addMigrations adds the schema to the site's own migrations. The Supabase CLI identifies a migration by the number at
// the start of its name.
func (b *addition) addMigrations() (found []Finding, err error) {
	s := b.site
	dir := path.Join(s.supabase(), "migrations")
	theirs, err := s.migrations(dir)
	if err != nil {
		return nil, err
	}
	for name, content := range b.release.migrations {
		number, _, _ := strings.Cut(name, "_")
		switch there, err := s.tree.read(path.Join(dir, name)); {
		case err != nil:
			return nil, err
		case there != nil && hash(there) == hash(content): // a copy that the site made; it stays the site's
		case theirs[number] != "":
			found = append(found, Finding{path.Join(dir, theirs[number]), "has the number of the migration " + name + ", which kv add adds",
				"give it another number; if it is an older " + name + ", delete it"})
		default:
			found = append(found, b.add(path.Join(dir, name), content, 0o644)...)
		}
	}
	if config := path.Join(s.supabase(), "config.toml"); !s.tree.exists(config) {
		found = append(found, b.add(config, b.release.supabase, 0o644)...)
		b.record.Seeds = append(b.record.Seeds, config)
	}
	return found, nil
}

// byHand returns the steps that remain for the user.
func (b *addition) byHand(prebuilt bool) []string {
	s := b.site
	steps := []string{
		"Apply the schema to your Supabase project: README.md, \"Deploying to Netlify and Supabase\", step 1, in the folder that contains " + s.supabase() + "/.",
		"Set the functions' variables on Netlify: README.md, \"Variables\".",
		"Commit what was added, deploy, and test the deploy: KV_BASE_URL=https://… make e2e.",
	}
	if s.redirects == "" && lookup(s.config, "build", "command") != nil {
		steps = append(steps, "If the site's build writes a _redirects file, make sure that no catch-all in it matches "+shortPrefix+"/: Netlify reads it before netlify.toml.")
	}
	switch {
	case prebuilt:
		steps = append(steps, "The programs run only on Netlify's kind of machine (linux/amd64); netlify dev on another kind cannot run them.")
	case b.goVersion != "":
		steps = append(steps, fmt.Sprintf("The site keeps its Go %s, which downloads Go %s for these functions by itself.", b.goVersion, b.release.goVersion))
	}
	return steps
}
