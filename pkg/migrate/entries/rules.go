package entries

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"netlify-supabase-kv/pkg/kv"
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

// String is the rule as [ParseRule] reads it.
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

// FindRules gives the rules to use: those of the file; without one those of [RulesFile] in the directory; and without
// that those of the migration's last run. from says which these are.
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
		return element{kv.TextMember(kv.Excerpt(string(text))), problemType}
	}
	var shown string
	_ = json.Unmarshal(text, &shown) // with U+FFFD for what no text can carry
	return element{kv.TextMember(shown), problemCharacter}
}
