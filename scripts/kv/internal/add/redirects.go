package add

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// rule is one redirect. Netlify takes the first that matches, those of _redirects before those of netlify.toml. Of
// rules that are equal in every detail it keeps the last (@netlify/redirect-parser, merge).
type rule struct {
	from, to string
	status   int
	limited  bool // has query parameters, conditions or the like, so it may not match
	file     string
}

func (r rule) String() string { return fmt.Sprintf("%s → %s in %s", r.from, r.to, r.file) }

// same reports whether both rules send the same addresses to the same place.
func (r rule) same(other rule) bool {
	return strings.TrimSuffix(r.from, "/") == strings.TrimSuffix(other.from, "/") && r.to == other.to && r.status == other.status &&
		!r.limited && !other.limited
}

// path returns the part of from that Netlify compares with a request's path.
func (r rule) path() string {
	if u, err := url.Parse(r.from); err == nil && u.Host != "" {
		return u.Path
	}
	return r.from
}

// hosted reports whether the rule applies to one host name only.
func (r rule) hosted() bool { return r.path() != r.from }

// segments splits a path.
func segments(path string) []string { return strings.Split(strings.Trim(path, "/"), "/") }

// meets reports whether both rules match some address. In a rule, * stands for any rest and :name for one segment.
func (r rule) meets(other rule) bool {
	a, b := segments(r.path()), segments(other.path())
	for i := 0; ; i++ {
		switch {
		case i < len(a) && a[i] == "*", i < len(b) && b[i] == "*":
			return true
		case i == len(a) || i == len(b):
			return len(a) == len(b)
		case a[i] != b[i] && !strings.HasPrefix(a[i], ":") && !strings.HasPrefix(b[i], ":"):
			return false
		}
	}
}

// within reports whether the rule matches only addresses under prefix, so that it is not a catch-all.
func (r rule) within(prefix string) bool {
	a, p := segments(r.path()), segments(prefix)
	return len(a) >= len(p) && slices.Equal(a[:len(p)], p)
}

// shortPrefix begins every short address of the functions.
const shortPrefix = "/api/kv"

// missing returns our rules that the site lacks, and findings for the site's rules that conflict with ours. theirs are
// in the order in which Netlify tries them.
func missing(ours, theirs []rule) (add []rule, found []Finding) {
	for _, our := range ours {
		at := slices.IndexFunc(theirs, our.same)
		before := theirs
		if at >= 0 {
			before = theirs[:at]
		} else {
			add = append(add, our)
		}
		for _, their := range before {
			switch {
			case their.hosted() || !their.meets(our):
			case slices.ContainsFunc(ours, their.same): // one of our own rules is never in the way of another
			case their.within(shortPrefix):
				found = append(found, Finding{their.file, fmt.Sprintf("has the rule %s → %s, which matches addresses of the functions", their.from, their.to),
					"remove the rule, or give it another address"})
			case at >= 0:
				found = append(found, Finding{our.file, fmt.Sprintf("has the rule %s behind %s, which answers first", our.from, their),
					"remove the rule for " + our.from + ": kv add puts one in front"})
			}
		}
	}
	return add, dedupe(found)
}

func dedupe(found []Finding) []Finding {
	var kept []Finding
	for _, f := range found {
		if !slices.Contains(kept, f) {
			kept = append(kept, f)
		}
	}
	return kept
}

// fileRules reads the rules of a _redirects file (@netlify/redirect-parser, line_parser): from [query] [to]
// [status[!]] [conditions].
func fileRules(name string, content []byte) (rules []rule) {
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if comment := slices.IndexFunc(fields, func(f string) bool { return strings.HasPrefix(f, "#") }); comment >= 0 {
			fields = fields[:comment]
		}
		if len(fields) < 2 {
			continue
		}
		r := rule{from: fields[0], status: defaultStatus, file: name}
		rest := fields[1:]
		to := slices.IndexFunc(rest, func(f string) bool {
			return strings.HasPrefix(f, "/") || strings.HasPrefix(f, "http://") || strings.HasPrefix(f, "https://")
		})
		if to >= 0 {
			r.to, r.limited, rest = rest[to], to > 0, rest[to+1:]
		}
		if len(rest) > 0 {
			if status, ok := leadingNumber(rest[0]); ok {
				r.status, rest = status, rest[1:]
			}
			r.limited = r.limited || len(rest) > 0
		}
		rules = append(rules, r)
	}
	return rules
}

// defaultStatus is the status of a rule that names none.
const defaultStatus = 301

var number = regexp.MustCompile(`^\d+`)

// leadingNumber reads a status, as in 200!.
func leadingNumber(text string) (int, bool) {
	n, err := strconv.Atoi(number.FindString(text))
	return n, err == nil
}

// tomlRules reads the rules of netlify.toml.
func tomlRules(name string, config map[string]any) ([]rule, error) {
	list, ok := config["redirects"].([]any)
	if !ok && config["redirects"] != nil {
		return nil, fmt.Errorf("%s: redirects must be a list of tables", name)
	}
	var rules []rule
	for _, item := range list {
		table, ok := item.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s: redirects must be a list of tables", name)
		}
		r := rule{status: defaultStatus, file: name}
		for key, value := range table {
			switch key {
			case "from", "origin":
				r.from, _ = value.(string)
			case "to", "destination":
				r.to, _ = value.(string)
			case "status":
				if status, ok := leadingNumber(fmt.Sprint(value)); ok {
					r.status = status
				}
			case "force":
			default:
				r.limited = true
			}
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// fileBlock writes rules as lines of a _redirects file.
func fileBlock(rules []rule) string {
	var b strings.Builder
	for _, r := range rules {
		fmt.Fprintf(&b, "%s %s %d\n", r.from, r.to, r.status)
	}
	return b.String()
}

// tomlBlock writes rules as tables of netlify.toml.
func tomlBlock(rules []rule) string {
	var tables []string
	for _, r := range rules {
		tables = append(tables, fmt.Sprintf("[[redirects]]\n  from = %q\n  to = %q\n  status = %d\n", r.from, r.to, r.status))
	}
	return strings.Join(tables, "\n")
}
