package doctor

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// redirect is a rule of _redirects or netlify.toml.
type redirect struct {
	From        string
	To          string
	Status      int
	Conditional bool // applies only to some requests: has a query, a country, a language, a role or a host
	Place       string
}

// String describes the rule and its place for people.
func (r redirect) String() string { return fmt.Sprintf("%s → %s (%s)", r.From, r.To, r.Place) }

// match reports whether the rule matches the path. :name matches any segment, and * at the end any rest, also an empty
// one.
func (r redirect) match(path string) bool {
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
func inForce(file, config []redirect) []redirect {
	type content struct {
		from, to    string
		status      int
		conditional bool
	}
	seen := map[content]bool{}
	var rules []redirect
	for _, r := range slices.Backward(slices.Concat(file, config)) {
		key := content{r.From, r.To, r.Status, r.Conditional}
		if !r.Conditional && seen[key] {
			continue
		}
		seen[key] = true
		rules = append(rules, r)
	}
	slices.Reverse(rules)
	return rules
}

// readRedirectsFile reads a _redirects file. A missing file has no rules. A line that Netlify cannot parse is an
// error. The format is `from [query] [to] [status[!]] [conditions]` (line_parser in @netlify/redirect-parser).
func readRedirectsFile(name string) ([]redirect, error) {
	file, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer file.Close()
	var rules []redirect
	lines := bufio.NewScanner(file)
	for number := 1; lines.Scan(); number++ {
		parts := strings.Fields(lines.Text())
		if comment := slices.IndexFunc(parts, func(part string) bool { return strings.HasPrefix(part, "#") }); comment >= 0 {
			parts = parts[:comment]
		}
		if len(parts) == 0 {
			continue
		}
		rule, err := parseRedirectLine(parts)
		if err != nil {
			return nil, fmt.Errorf("_redirects, line %d: %w", number, err)
		}
		rule.Place = fmt.Sprintf("_redirects, line %d", number)
		rules = append(rules, rule)
	}
	return rules, lines.Err()
}

func parseRedirectLine(parts []string) (redirect, error) {
	from, rest := parts[0], parts[1:]
	target := slices.IndexFunc(rest, func(part string) bool { return strings.HasPrefix(part, "/") || isAddress(part) })
	if target < 0 && len(rest) > 0 { // a rule without a target: only a status
		if _, _, err := parseStatus(rest[0]); err == nil {
			return redirect{From: from}.with(rest)
		}
	}
	if target < 0 {
		return redirect{}, errors.New("a rule needs a target, a path or an address")
	}
	rule := redirect{From: from, To: rest[target], Conditional: target > 0 || isAddress(from)}
	return rule.with(rest[target+1:])
}

// with adds the status and the conditions.
func (r redirect) with(rest []string) (redirect, error) {
	r.Status = 301
	if len(rest) > 0 {
		status, _, err := parseStatus(rest[0])
		if err != nil {
			return r, fmt.Errorf("%q is not a status", rest[0])
		}
		r.Status = status
		r.Conditional = r.Conditional || len(rest) > 1
	}
	return r, nil
}

func parseStatus(text string) (status int, force bool, err error) {
	text, force = strings.CutSuffix(text, "!")
	status, err = strconv.Atoi(text)
	return status, force, err
}

func isAddress(text string) bool {
	return strings.HasPrefix(text, "http://") || strings.HasPrefix(text, "https://")
}

// configRedirect is one [[redirects]] of netlify.toml, including the alternative names that Netlify accepts (normalize
// in @netlify/redirect-parser).
type configRedirect struct {
	From, Origin      string
	To, Destination   string
	Status            any // 301 if absent
	Query, Conditions map[string]any
	Params            map[string]any
	Parameters        map[string]any
}

func (c configRedirect) rule(number int) redirect {
	r := redirect{From: c.From + c.Origin, To: c.To + c.Destination, Status: 301, Place: fmt.Sprintf("netlify.toml, redirect %d", number)}
	if text, err := json.Marshal(c.Status); err == nil {
		if status, _, err := parseStatus(strings.Trim(string(text), `"`)); err == nil {
			r.Status = status
		}
	}
	r.Conditional = len(c.Query)+len(c.Conditions)+len(c.Params)+len(c.Parameters) > 0 || isAddress(r.From)
	return r
}
