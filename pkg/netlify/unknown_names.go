package netlify

import (
	"maps"
	"slices"
	"strings"

	"netlify-supabase-kv/pkg/kv"
)

// An ignored parameter would return too much, or the wrong entries. Functions that shipped clients do not call
// therefore refuse unknown names, and suggest the nearest known one.

// foreignNames are the names of other APIs for parameters of this one, in lower case without - and _.
var foreignNames = map[string]string{
	"key": "prefix", "keys": "prefix", "id": "prefix", "ids": "prefix", "startswith": "prefix", "name": "key",
	"index": "indexes", "indexkey": "indexKeys", "match": "indexes", "tag": "index", "tags": "index",
	"filter": "where", "filters": "where", "range": "where", "conditions": "where", "eq": "where",
	"q": "search", "query": "search", "text": "search", "s": "search",
	"order": "sort", "orderby": "sort", "sortby": "sort", "sortorder": "sort", "dir": "sort", "direction": "sort", "asc": "sort", "desc": "sort",
	"fields": "select", "include": "select", "includevalues": "select", "columns": "select",
	"page": "cursor", "after": "cursor", "next": "cursor", "nextcursor": "cursor", "token": "cursor", "starttoken": "cursor",
	"skip": "offset", "start": "offset", "pagesize": "limit", "perpage": "limit", "take": "limit", "top": "limit", "max": "limit", "count": "aggregate",
	"sum": "aggregate", "aggregates": "aggregate", "group": "groupBy", "output": "format", "type": "where", "status": "where",
}

// checkNames refuses the first unknown name, as in "filter is not a parameter of kv-query: did you mean where?".
func checkNames(what string, names, known []string) error {
	for _, name := range names {
		if !slices.Contains(known, name) {
			return kv.Invalid("%s is not %s: did you mean %s?", quoted(name), what, nearest(name, known))
		}
	}
	return nil
}

// nearest returns the known name that was most likely meant.
func nearest(name string, known []string) string {
	plain := plainName(name)
	for _, right := range known {
		if plainName(right) == plain {
			return right
		}
	}
	if right := foreignNames[plain]; slices.Contains(known, right) {
		return right
	}
	return slices.MinFunc(known, func(a, b string) int { return distance(plain, plainName(a)) - distance(plain, plainName(b)) })
}

// plainName returns the first 60 bytes of a name without case, - and _.
func plainName(name string) string { return dashes.Replace(strings.ToLower(name[:min(len(name), 60)])) }

var dashes = strings.NewReplacer("-", "", "_", "")

// distance returns how many bytes must be inserted, removed or replaced to turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			changed := before
			if a[i] != b[j] {
				changed++
			}
			before = row[j+1]
			row[j+1] = min(changed, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// checkOnce refuses a parameter with one value that is given twice.
func checkOnce(r *Request, name string) error {
	if n := len(r.Params(name)); n > 1 {
		return kv.Invalid("%s must be given once, got %d", name, n)
	}
	return nil
}

// checkNoParams refuses parameters of a POST.
func checkNoParams(r *Request) error {
	for _, name := range paramNames(r) {
		return kv.Invalid("%s is given as a parameter: a POST is read from its body alone", quoted(name))
	}
	return nil
}

// checkNoBody refuses the body of a request that takes parameters alone.
func checkNoBody(r *Request) error {
	body, err := r.bodyText()
	if err != nil {
		return err
	}
	if text := strings.Trim(string(body), jsonSpace); text != "" && text != "{}" && text != "null" {
		return kv.Invalid("a %s is read from its parameters alone, and this one has a body, %s: send the body with POST", r.HTTPMethod, excerpt([]byte(text)))
	}
	return nil
}

// paramNames returns the sorted names of the parameters that are not empty.
func paramNames(r *Request) (names []string) {
	for _, name := range slices.Concat(slices.Collect(maps.Keys(r.QueryStringParameters)), slices.Collect(maps.Keys(r.MultiValueQueryStringParameters))) {
		if r.Param(name) != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
