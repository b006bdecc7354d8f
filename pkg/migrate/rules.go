package migrate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/stream"
)

// DefaultIndexPrefix is what the keys of index entries begin with.
const DefaultIndexPrefix = "index:"

// memberPlace is what stands for the member in a rule.
const memberPlace = "{member}"

// Rule says which entry a member of an index names.
type Rule struct {
	Index string // the key of the index entry, or what the keys of several begin with and *
	Entry string // the key of the entry that a member names, with {member} in it
}

// ParseRule reads "index:sessions=session:{member}".
func ParseRule(text string) (Rule, error) {
	index, entry, found := strings.Cut(text, "=")
	if !found || index == "" || strings.Count(entry, memberPlace) != 1 || strings.Contains(strings.TrimSuffix(index, "*"), "*") {
		return Rule{}, fmt.Errorf("an index rule is like index:sessions=session:{member}, or index:by:*=session:{member}, got %q", text)
	}
	return Rule{index, entry}, nil
}

func (r Rule) String() string { return r.Index + "=" + r.Entry }

func (r Rule) key(member kv.Member) string {
	return strings.Replace(r.Entry, memberPlace, member.Text(), 1)
}

// Rules are those of a migration.
type Rules []Rule

// ParseRules reads one rule a line; empty lines, and those that begin with #, are left out.
func ParseRules(lines []string) (rules Rules, err error) {
	for _, line := range lines {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		rule, err := ParseRule(line)
		if err != nil {
			return nil, err
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

// Strings are the rules as [ParseRules] reads them.
func (r Rules) Strings() []string {
	lines := []string{}
	for _, rule := range r {
		lines = append(lines, rule.String())
	}
	return lines
}

// of are the rules of an index: its own, or those of the longest beginning.
func (r Rules) of(index string) (rules Rules) {
	best := -1
	for _, rule := range r {
		length := len(rule.Index) + 1
		if start, isFamily := strings.CutSuffix(rule.Index, "*"); isFamily {
			if !strings.HasPrefix(index, start) {
				continue
			}
			length = len(start)
		} else if rule.Index != index {
			continue
		}
		switch {
		case length > best:
			best, rules = length, Rules{rule}
		case length == best:
			rules = append(rules, rule)
		}
	}
	return rules
}

// RulesFile is the file in --dir into which a plan writes the rules that it found, and from which a run takes its own.
const RulesFile = "index-rules.txt"

// ReadRules reads a file of rules.
func ReadRules(file string) (Rules, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the rules: %w", err)
	}
	rules, err := ParseRules(strings.Split(string(text), "\n"))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return rules, nil
}

// FindRules gives the rules to use: those of the file; without one those of [RulesFile] in the directory; and without that those of the
// migration's last run. from says which these are.
func FindRules(file, dir string, m *kv.Migration) (rules Rules, from string, err error) {
	if file != "" {
		rules, err := ReadRules(file)
		return rules, file, err
	}
	if dir != "" {
		file = filepath.Join(dir, RulesFile)
		rules, err := ReadRules(file)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return rules, file, err
		}
	}
	if m != nil && m.ClosedAt == nil && len(m.Rules) > 0 {
		rules, err := ParseRules(m.Rules)
		return rules, "the migration's last run", err
	}
	return nil, "no rules", nil
}

// element is one of the array that an index entry is.
type element struct {
	member  kv.Member
	problem string // why it can name no entry; then member is what is shown of it
}

// readElements reads an array that has a string or a number in it, or nothing; false for anything else.
func readElements(value string) (elements []element, ok bool) {
	var texts []json.RawMessage
	if !strings.HasPrefix(strings.TrimLeft(value, " \t\r\n"), "[") || json.Unmarshal([]byte(value), &texts) != nil {
		return nil, false
	}
	ok = len(texts) == 0
	for _, text := range texts {
		e := readElement(text)
		ok = ok || e.problem != problemType
		elements = append(elements, e)
	}
	return elements, ok
}

// Why an element of an index entry names no entry.
const (
	problemType      = "it is neither a string nor a number"
	problemCharacter = "it has a character that no key can have"
	problemEmpty     = "it is empty"
)

func readElement(text json.RawMessage) element {
	member, ok := kv.ParseMember(string(text))
	switch {
	case ok && member == "":
		return element{problem: problemEmpty}
	case ok:
		return element{member: member}
	case text[0] != '"':
		return element{kv.TextMember(excerpt(string(text))), problemType}
	}
	var shown string
	_ = json.Unmarshal(text, &shown) // with U+FFFD for what no text can carry
	return element{kv.TextMember(shown), problemCharacter}
}

// excerpt is what a report shows of a JSON text that may be long.
func excerpt(text string) string {
	const most = 60
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// Member is one of an index that names no entry.
type Member struct {
	Index  string `json:"index"`
	Member string `json:"member"`
	Reason string `json:"reason"`
}

// IndexCounts are what the index entries of a source have. Members that an index has twice count once.
type IndexCounts struct {
	Entries int `json:"index_entries"`
	Members int `json:"members"` // of all index entries: the sum of Unruled, Unusable, and those that a rule was used for
	Named   int `json:"named"`   // entries that a rule names for a member: each gets the index if its blob does not say which it has
	Unnamed int `json:"unnamed"` // keys that a rule makes of a member, and no entry has
	// Without are the index entries that no rule is for, with their members: no entry gets these indexes but those that say so themselves.
	WithoutRule int      `json:"index_entries_without_rule"`
	Unruled     int      `json:"members_without_rule"`
	Unusable    int      `json:"unusable_members"` // neither strings nor numbers, or too long
	Without     []string `json:"without_rule"`     // at most maxListed, as are Unresolved
	Unresolved  []Member `json:"unresolved"`
}

// derivedPairs are the indexes that rules give an entry.
type derivedPairs struct {
	key   string
	pairs [][2]string
}

// derivation is what rules make of the index entries of a source.
type derivation struct {
	sorted *stream.Sorter
	counts IndexCounts
}

// derive reads the listed index entries.
func derive(ctx context.Context, source Source, l *listing, o Options, rules Rules, dir string, progress Progress) (d *derivation, err error) {
	d = &derivation{sorted: stream.NewSorter(tempDir(dir)), counts: IndexCounts{Without: []string{}, Unresolved: []Member{}}}
	progress.Stage("reading indexes", -1)
	for item, err := range source.Read(ctx, l.under(o.IndexPrefix)) {
		if err == nil {
			err = d.add(item, o, rules)
		}
		if err != nil {
			d.close()
			return nil, err
		}
		progress.Done(1, 0)
	}
	return d, nil
}

func (d *derivation) close() {
	if d != nil {
		d.sorted.Close()
	}
}

// add takes an entry that may be an index entry.
func (d *derivation) add(item Item, o Options, rules Rules) error {
	if item.Missing || item.Err != nil || !(item.IsIndex || o.isIndex(item.Key, item.Blob.Value)) {
		return nil
	}
	elements, _ := readElements(string(item.Blob.Value))
	rules = rules.of(item.Key)
	d.counts.Entries++
	if len(rules) == 0 {
		d.counts.WithoutRule++
		if len(d.counts.Without) < maxListed {
			d.counts.Without = append(d.counts.Without, item.Key)
		}
	}
	return eachMember(elements, func(e element) error {
		d.counts.Members++
		if e.problem == "" && len(item.Key)+1+len(e.member.Text()) > kv.MaxKeyBytes {
			e.problem = fmt.Sprintf("with its index it is longer than %d bytes", kv.MaxKeyBytes)
		}
		switch {
		case e.problem != "":
			d.counts.Unusable++
			d.unresolved(Member{item.Key, e.member.Text(), e.problem})
			return nil
		case len(rules) == 0:
			d.counts.Unruled++
			return nil
		}
		for _, rule := range rules {
			if key := rule.key(e.member); key != item.Key {
				if err := d.sorted.Add(key, item.Key+"\x00"+string(e.member)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// eachMember gives each member once, and all elements that are none.
func eachMember(elements []element, each func(element) error) error {
	given := make(map[kv.Member]bool, len(elements))
	for _, e := range elements {
		if e.problem == "" {
			if given[e.member] {
				continue
			}
			given[e.member] = true
		}
		if err := each(e); err != nil {
			return err
		}
	}
	return nil
}

func (d *derivation) unresolved(m Member) {
	if len(d.counts.Unresolved) < maxListed {
		d.counts.Unresolved = append(d.counts.Unresolved, m)
	}
}

// unnamed counts what rules name and is not there.
func (d *derivation) unnamed(p derivedPairs) {
	d.counts.Unnamed += len(p.pairs)
	for _, pair := range p.pairs {
		d.unresolved(Member{pair[0], kv.Member(pair[1]).Text(), fmt.Sprintf("there is no entry %q", p.key)})
	}
}

// all are the pairs of each key that rules make of a member. The keys of index entries have no NUL.
func (d *derivation) all() iter.Seq2[derivedPairs, error] {
	return func(yield func(derivedPairs, error) bool) {
		var now derivedPairs
		for r, err := range d.sorted.All() {
			if err != nil {
				yield(derivedPairs{}, err)
				return
			}
			if r.Key != now.key && now.pairs != nil {
				if !yield(now, nil) {
					return
				}
				now = derivedPairs{}
			}
			now.key = r.Key
			index, member, _ := strings.Cut(r.Data, "\x00")
			if pair := [2]string{index, member}; !slices.Contains(now.pairs, pair) {
				now.pairs = append(now.pairs, pair)
			}
		}
		if now.pairs != nil {
			yield(now, nil)
		}
	}
}
