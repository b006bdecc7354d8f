package doctor

import (
	"slices"
	"strings"

	"netlify-supabase-kv/scripts/kv/internal/redirects"
)

// match reports whether the rule matches the path. :name matches any segment, and * at the end any rest, also an empty
// one.
func match(r redirects.Rule, path string) bool {
	pattern, segments := strings.Split(strings.Trim(r.From, "/"), "/"), strings.Split(strings.Trim(path, "/"), "/")
	for i, part := range pattern {
		switch {
		case part == "*" && i == len(pattern)-1:
			return true
		case i >= len(segments):
			return false
		case part != segments[i] && !strings.HasPrefix(part, ":"):
			return false
		}
	}
	return len(pattern) == len(segments)
}

// inForce returns the rules in the order in which Netlify tries them. Those of _redirects come first. Of equal rules,
// the last stays (mergeRedirects in @netlify/redirect-parser).
func inForce(file, config []redirects.Rule) []redirects.Rule {
	seen := map[redirects.Rule]bool{}
	var rules []redirects.Rule
	for _, r := range slices.Backward(slices.Concat(file, config)) {
		content := redirects.Rule{From: r.From, To: r.To, Status: r.Status, Conditional: r.Conditional}
		if !r.Conditional && seen[content] {
			continue
		}
		seen[content] = true
		rules = append(rules, r)
	}
	slices.Reverse(rules)
	return rules
}
