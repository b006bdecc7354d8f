// Package redirects reads the redirects of a site as Netlify does (@netlify/redirect-parser).
package redirects

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Rule is one redirect, of a _redirects file or of netlify.toml.
type Rule struct {
	From, To    string
	Status      int
	Conditional bool   // applies only to some requests: has a query, a country, a language, a role or a host
	File        string // as the reader was told
	Place       string // in the file, as in "line 3" or "redirect 2"
}

// String describes the rule and its place for people.
func (r Rule) String() string {
	return fmt.Sprintf("%s → %s (%s, %s)", r.From, r.To, r.File, r.Place)
}

// defaultStatus is the status of a rule that names none.
const defaultStatus = 301

// OfFile reads the text of a _redirects file. Its lines are `from [query] [to] [status[!]] [conditions]`. It leaves out
// lines that Netlify cannot parse, as Netlify does; the error is about the first of them.
func OfFile(file string, content []byte) (rules []Rule, wrong error) {
	number := 0
	for line := range strings.Lines(string(content)) {
		number++
		parts := strings.Fields(line)
		if comment := slices.IndexFunc(parts, func(part string) bool { return strings.HasPrefix(part, "#") }); comment >= 0 {
			parts = parts[:comment]
		}
		if len(parts) == 0 {
			continue
		}
		rule, err := ofLine(parts[0], parts[1:])
		rule.File, rule.Place = file, fmt.Sprintf("line %d", number)
		if err == nil {
			rules = append(rules, rule)
		} else if wrong == nil {
			wrong = fmt.Errorf("%s, %s: %w", file, rule.Place, err)
		}
	}
	return rules, wrong
}

func ofLine(from string, rest []string) (Rule, error) {
	r := Rule{From: from, Status: defaultStatus, Conditional: isAddress(from)}
	target := slices.IndexFunc(rest, func(part string) bool { return strings.HasPrefix(part, "/") || isAddress(part) })
	switch {
	case target >= 0:
		r.To, r.Conditional, rest = rest[target], r.Conditional || target > 0, rest[target+1:]
	case len(rest) == 0 || !status.MatchString(rest[0]): // a rule without a target has a status
		return r, errors.New("a rule needs a target, a path or an address")
	}
	if len(rest) == 0 {
		return r, nil
	}
	if !status.MatchString(rest[0]) {
		return r, fmt.Errorf("%q is not a status", rest[0])
	}
	r.Status, _ = strconv.Atoi(strings.TrimSuffix(rest[0], "!"))
	r.Conditional = r.Conditional || len(rest) > 1
	return r, nil
}

// status matches a status; a ! behind it makes the rule count although there is a file.
var status = regexp.MustCompile(`^\d{1,9}!?$`)

func isAddress(text string) bool {
	return strings.HasPrefix(text, "http://") || strings.HasPrefix(text, "https://")
}

// OfTOML reads the value of redirects in a netlify.toml, with the alternative names that Netlify accepts.
func OfTOML(file string, value any) (rules []Rule, err error) {
	list, ok := value.([]any)
	if !ok && value != nil {
		return nil, fmt.Errorf("%s: redirects must be a list of tables", file)
	}
	for i, item := range list {
		table, ok := item.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s: redirects must be a list of tables", file)
		}
		rules = append(rules, ofTable(file, fmt.Sprintf("redirect %d", i+1), table))
	}
	return rules, nil
}

func ofTable(file, place string, table map[string]any) Rule {
	text := func(names ...string) string {
		for _, name := range names {
			if value, found := table[name]; found {
				return fmt.Sprint(value)
			}
		}
		return ""
	}
	r := Rule{From: text("from", "origin"), To: text("to", "destination"), Status: defaultStatus, File: file, Place: place}
	r.Conditional = isAddress(r.From)
	for _, name := range []string{"query", "params", "parameters", "conditions"} {
		conditions, _ := table[name].(map[string]any)
		r.Conditional = r.Conditional || len(conditions) > 0
	}
	if given := text("status"); status.MatchString(given) {
		r.Status, _ = strconv.Atoi(strings.TrimSuffix(given, "!"))
	}
	return r
}
