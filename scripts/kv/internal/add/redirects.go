package add

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"netlify-supabase-kv/scripts/kv/internal/redirects"
)

// Netlify takes the first rule that matches, those of _redirects before those of netlify.toml. Of rules that are equal in
// every detail it keeps the last (@netlify/redirect-parser, merge).

// same reports whether both rules send the same addresses to the same place.
func same(a, b redirects.Rule) bool {
	return strings.TrimSuffix(a.From, "/") == strings.TrimSuffix(b.From, "/") && a.To == b.To && a.Status == b.Status && !a.Conditional && !b.Conditional
}

// pathOf returns the part of From that Netlify compares with a request's path.
func pathOf(r redirects.Rule) string {
	if u, err := url.Parse(r.From); err == nil && u.Host != "" {
		return u.Path
	}
	return r.From
}

// hosted reports whether the rule applies to one host name only.
func hosted(r redirects.Rule) bool { return pathOf(r) != r.From }

// segments splits a path.
func segments(path string) []string { return strings.Split(strings.Trim(path, "/"), "/") }

// meets reports whether both rules match some address. In a rule, * stands for any rest and :name for one segment.
func meets(one, other redirects.Rule) bool {
	a, b := segments(pathOf(one)), segments(pathOf(other))
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
func within(r redirects.Rule, prefix string) bool {
	a, p := segments(pathOf(r)), segments(prefix)
	return len(a) >= len(p) && slices.Equal(a[:len(p)], p)
}

// shortPrefix begins every short address of the functions.
const shortPrefix = "/api/kv"

// missing returns our rules that the site lacks, and findings for the site's rules that conflict with ours. theirs are
// in the order in which Netlify tries them.
func missing(ours, theirs []redirects.Rule) (add []redirects.Rule, found []Finding) {
	for _, our := range ours {
		at := slices.IndexFunc(theirs, func(their redirects.Rule) bool { return same(our, their) })
		before := theirs
		if at >= 0 {
			before = theirs[:at]
		} else {
			add = append(add, our)
		}
		for _, their := range before {
			switch {
			case hosted(their) || !meets(their, our):
			case slices.ContainsFunc(ours, func(our redirects.Rule) bool { return same(our, their) }): // one of our own rules is never in the way of another
			case within(their, shortPrefix):
				found = append(found, Finding{their.File, fmt.Sprintf("has the rule %s → %s, which matches addresses of the functions", their.From, their.To),
					"remove the rule, or give it another address"})
			case at >= 0:
				found = append(found, Finding{theirs[at].File, fmt.Sprintf("has the rule %s behind %s, which answers first", our.From, their),
					"remove the rule for " + our.From + ": kv add puts one in front"})
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

// fileBlock writes rules as lines of a _redirects file.
func fileBlock(rules []redirects.Rule) string {
	var b strings.Builder
	for _, r := range rules {
		fmt.Fprintf(&b, "%s %s %d\n", r.From, r.To, r.Status)
	}
	return b.String()
}

// tomlBlock writes rules as tables of netlify.toml.
func tomlBlock(rules []redirects.Rule) string {
	var tables []string
	for _, r := range rules {
		tables = append(tables, fmt.Sprintf("[[redirects]]\n  from = %q\n  to = %q\n  status = %d\n", r.From, r.To, r.Status))
	}
	return strings.Join(tables, "\n")
}
