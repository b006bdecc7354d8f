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
)

// Options say what is to be added where. Functions, Publish and Redirects are for what netlify.toml does not say, since Netlify's
// settings or the site's build do; relative to where Netlify builds.
type Options struct {
	Site      string // the folder of the site's repository
	Checkout  string // of this project
	Prebuilt  bool   // programs in place of sources, for a build without Go
	Functions string // directory
	Publish   string // folder
	Redirects string // the file that becomes _redirects
}

// Plan is what is to be done to a site.
type Plan struct {
	Site      string    // its folder
	Functions string    // its functions directory, relative to Site; "" when that could not be told
	Changes   []Change  // by file
	Found     []Finding // what is in the way; then nothing is written
	ByHand    []string  // what is left to do for whoever runs this

	tree     *tree
	record   string // its name
	old, new *record
}

// Add plans to bring the functions into a site, or up to date.
func Add(ctx context.Context, o Options) (*Plan, error) {
	if _, _, _, err := begin(o.Site); err != nil {
		return nil, err // before the seconds that Go takes
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
	p, base, tomlName, err := begin(o.Site)
	if err != nil || len(p.Found) > 0 {
		return p, err // what was added and changed since would look like the site's own
	}
	s, found, err := survey(ctx, p.tree, base, tomlName, o)
	if err != nil {
		return nil, err
	}
	p.Functions = s.functions
	b := &bringing{site: s, release: r, record: p.new}
	if p.Found = found; len(found) == 0 {
		p.Found, err = b.bring(ctx, o.Prebuilt)
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

// Remove plans to take back what Add brought.
func Remove(folder string) (*Plan, error) {
	p, _, _, err := begin(folder)
	if err != nil {
		return nil, err
	}
	if !p.old.empty() {
		p.ByHand = []string{"The database keeps its tables and functions; what is in them is yours to keep or to drop."}
	}
	p.Changes, err = p.tree.changes()
	return p, err
}

// begin opens a site, with what was added taken back already.
func begin(folder string) (p *Plan, base, tomlName string, err error) {
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

// madeFolders are those that this makes, and those that were made before and are still needed.
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

// Apply writes what is planned. It can be ended at any time: the same command then goes on. A plan with findings is refused.
func (p *Plan) Apply(ctx context.Context) error {
	if len(p.Found) > 0 {
		return errors.New("there are findings")
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

// Diff shows what a text of the site gains and loses, and nothing else of it: what stands around may be a secret. It is empty for
// files that are ours as a whole.
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

// bringing is one release on its way into one site.
type bringing struct {
	site      *site
	release   *release
	record    *record
	goVersion string // the one that the site names, and keeps
}

// bring puts everything into the tree and the record.
func (b *bringing) bring(ctx context.Context, prebuilt bool) (found []Finding, err error) {
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

func (b *bringing) checkNames() ([]Finding, error) { return b.site.checkNames(b.release.names()) }

// add puts a file of ours into the tree. A file of the site is never written over.
func (b *bringing) add(name string, content []byte, mode fs.FileMode) []Finding {
	if b.site.tree.exists(name) {
		return []Finding{{name, "is there already, and is not of kv add", "move it away, then run the command again"}}
	}
	b.site.tree.write(name, content, mode)
	b.record.Files[name] = []string{hash(content)}
	return nil
}

// insert puts text into a file of the site.
func (b *bringing) insert(name, content string, i insertion) {
	t := b.site.tree
	if there, err := t.read(name); there == nil && err == nil {
		b.record.Made = union(b.record.Made, []string{name})
	}
	t.write(name, []byte(i.into(content)), 0o644)
	b.record.Texts[name] = append(b.record.Texts[name], i.text)
}

func (b *bringing) addSources() (found []Finding, err error) {
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

func (b *bringing) addPrograms() (found []Finding, err error) {
	for name, content := range b.release.programs {
		found = append(found, b.add(path.Join(b.site.functions, name), content, 0o755)...)
	}
	return found, nil
}

func (b *bringing) addGoVersion() (found []Finding, err error) {
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
			fmt.Sprintf("put GO_VERSION = %q into it, then run the command again", b.release.goVersion)}}, nil
	} else if err != nil {
		return nil, err
	}
	b.insert(s.tomlName, string(content), i)
	return nil, nil
}

// addRules puts the rules that are missing in front of the site's own, in the file that Netlify reads first.
func (b *bringing) addRules() ([]Finding, error) {
	s := b.site
	theirs, err := tomlRules(s.tomlName, s.config)
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
		theirs = append(fileRules(name, content), theirs...)
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

// addMigrations adds the schema to the site's own migrations. The Supabase CLI knows a migration by the number that its name begins
// with.
func (b *bringing) addMigrations() (found []Finding, err error) {
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
		case there != nil && hash(there) == hash(content): // somebody copied it; it stays theirs
		case theirs[number] != "":
			found = append(found, Finding{path.Join(dir, theirs[number]), "has the number of the migration " + name + ", which is to be added",
				"give it another number, unless it is an older " + name + ": then delete it"})
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

// byHand says what is left to do.
func (b *bringing) byHand(prebuilt bool) []string {
	s := b.site
	steps := []string{
		"Apply the schema to your Supabase project: README.md, \"Deploying to Netlify and Supabase\", step 1, in the folder that has " + s.supabase() + "/.",
		"Set the functions' variables on Netlify: README.md, \"Variables\".",
		"Commit what was added, deploy, and test the deploy: KV_BASE_URL=https://… make e2e.",
	}
	if s.redirects == "" && lookup(s.config, "build", "command") != nil {
		steps = append(steps, "If the site's build writes a _redirects file, see that no catch-all in it takes "+shortPrefix+"/: it comes before netlify.toml.")
	}
	switch {
	case prebuilt:
		steps = append(steps, "The programs are for Netlify's machines alone; netlify dev on another kind of machine does not run them.")
	case b.goVersion != "":
		steps = append(steps, fmt.Sprintf("The site keeps its Go %s, which fetches Go %s for these functions by itself.", b.goVersion, b.release.goVersion))
	}
	return steps
}
