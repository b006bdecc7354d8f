package add

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// Folder is the folder that kv add makes in a site. It holds the packages that the functions share, and the record of
// what was added.
const Folder = "netlify-supabase-kv"

// recordName is the record's name in [Folder].
const recordName = "added.json"

// record lists what was added, so that it can be replaced or removed. During a change it holds both the old and the
// new state, so that the same command can continue after an interruption.
type record struct {
	Note    string              `json:"note"`
	Files   map[string][]string `json:"files"`   // files that are entirely ours, and the hashes that their content may have
	Texts   map[string][]string `json:"texts"`   // texts inserted into files of the site
	Made    []string            `json:"made"`    // those of the files in Texts that kv add created
	Seeds   []string            `json:"seeds"`   // those of Files that become the site's own once they are changed
	Folders []string            `json:"folders"` // folders that kv add made, outermost first
}

func newRecord() *record {
	return &record{
		Note:  "What kv add added to this site. kv add and kv remove read this file: keep it, and do not change the files that it names.",
		Files: map[string][]string{}, Texts: map[string][]string{},
	}
}

// readRecord returns an empty record if nothing was added.
func readRecord(t *tree, base string) (*record, error) {
	name := path.Join(base, Folder, recordName)
	content, err := t.read(name)
	r := newRecord()
	if err != nil || content == nil {
		return r, err
	}
	if err := json.Unmarshal(content, r); err != nil {
		return nil, fmt.Errorf("%s is not what kv add wrote: %w", name, err)
	}
	return r, nil
}

func (r *record) empty() bool { return len(r.Files) == 0 && len(r.Texts) == 0 }

func (r *record) encode() []byte {
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		panic(err) // the record holds only strings
	}
	return append(content, '\n')
}

// with returns the union of two records, for the time between them.
func (r *record) with(other *record) *record {
	both := newRecord()
	for _, part := range []*record{r, other} {
		for name, hashes := range part.Files {
			both.Files[name] = union(both.Files[name], hashes)
		}
		for name, texts := range part.Texts {
			both.Texts[name] = union(both.Texts[name], texts)
		}
		both.Made = union(both.Made, part.Made)
		both.Seeds = union(both.Seeds, part.Seeds)
		both.Folders = union(both.Folders, part.Folders)
	}
	return both
}

func union(a, b []string) []string {
	both := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(both, s) {
			both = append(both, s)
		}
	}
	return both
}

// hash ignores the form of line ends, which git may have rewritten.
func hash(content []byte) string {
	sum := sha256.Sum256(bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n")))
	return hex.EncodeToString(sum[:])
}

// takeBack removes from the tree everything that was added. Whatever was changed since is a finding, and stays.
func (r *record) takeBack(t *tree, base string) ([]Finding, error) {
	var found []Finding
	for _, name := range slices.Sorted(maps.Keys(r.Files)) {
		content, err := t.read(name)
		switch {
		case err != nil:
			return nil, err
		case content == nil:
		case slices.Contains(r.Files[name], hash(content)):
			t.remove(name)
		case slices.Contains(r.Seeds, name):
		default:
			found = append(found, Finding{name, "was changed since kv add wrote it, and would be lost",
				"keep your change elsewhere and delete the file, then run the command again"})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Texts)) {
		content, err := t.read(name)
		if err != nil {
			return nil, err
		}
		if content == nil {
			continue
		}
		rest := cut(string(content), r.Texts[name])
		switch {
		case strings.Contains(rest, mark):
			found = append(found, Finding{name, "has lines of kv add that were changed: those marked \"" + mark + "\"",
				"delete these lines and everything between them, then run the command again"})
		case rest == "" && slices.Contains(r.Made, name):
			t.remove(name)
		default:
			t.write(name, []byte(rest), 0o644)
		}
	}
	t.remove(path.Join(base, Folder, recordName))
	return found, nil
}

// cut removes each text from the content, whichever line ends git gave it.
func cut(content string, texts []string) string {
	for _, text := range texts {
		content = strings.Replace(content, text, "", 1)
		content = strings.Replace(content, strings.ReplaceAll(text, "\n", "\r\n"), "", 1)
	}
	return content
}
