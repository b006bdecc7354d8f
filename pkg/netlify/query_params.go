package netlify

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"netlify-supabase-kv/pkg/kv"
)

// queryParams are the parameters of a GET: the fields of a document, and short forms of some.
var queryParams = slices.Concat(queryFields, []string{"q", "index", "indexKey", "match", "range"})

// onceParams take one value: of two, one would be ignored.
var onceParams = []string{"store", "prefix", "indexes", "indexKeys", "match", "search", "q", "where", "limit", "offset", "cursor", "groupBy", "format", "bom"}

// documentOfParams writes the parameters of a GET as the document that a POST would have.
func documentOfParams(r *Request) (document, error) {
	if err := checkNames("a parameter of kv-query", paramNames(r), queryParams); err != nil {
		return nil, err
	}
	for _, name := range onceParams {
		if err := checkOnce(r, name); err != nil {
			return nil, err
		}
	}
	d := document{}
	for _, name := range []string{"store", "prefix", "search", "cursor", "groupBy", "format", "limit", "offset", "bom"} {
		if text := r.Param(name); text != "" {
			d.set(name, text)
		}
	}
	for _, name := range []string{"limit", "offset"} { // anything else than digits stays a text, which is refused
		if text := r.Param(name); text != "" && strings.Trim(text, "0123456789") == "" {
			d[name] = jsontext.Value(cmp.Or(strings.TrimLeft(text, "0"), "0"))
		}
	}
	if bom := r.Param("bom"); bom == "true" || bom == "false" {
		d["bom"] = jsontext.Value(bom)
	}
	if q := r.Param("q"); q != "" {
		if d["search"] != nil {
			return nil, kv.Invalid("q and search are the same: give one of them")
		}
		d.set("search", q)
	}
	return d, cmp.Or(d.setIndexes(r), d.setWhere(r), d.setList(r, "select"), d.setList(r, "sort"), d.setAggregate(r))
}

// set puts a value into the document that can always be written: a text, or something made of texts.
func (d document) set(name string, value any) {
	text, err := jsonv2.Marshal(value, legacyJSON, jsontext.PreserveRawStrings(true))
	if err != nil {
		panic(err)
	}
	d[name] = text
}

// setJSON puts a parameter into the document that is given as the JSON text of the field.
func (d document) setJSON(r *Request, name string) (set bool, err error) {
	given := r.Params(name)
	if !slices.ContainsFunc(given, func(text string) bool { return text[0] == '[' || text[0] == '{' }) {
		return false, nil
	}
	text := jsontext.Value(strings.TrimRight(given[0], jsonSpace))
	switch {
	case len(given) > 1:
		return false, kv.Invalid("%s as JSON must be given once", name)
	case !text.IsValid(legacyJSON):
		return false, kv.Invalid("%s begins like JSON, but is not", name)
	}
	d[name] = text
	return true, nil
}

func (d document) setIndexes(r *Request) error {
	match := cmp.Or(r.Param("match"), "all")
	switch {
	case match != "all" && match != "any":
		return kv.Invalid("match must be all or any, got %s", quoted(match))
	case r.Param("match") != "" && r.Params("index") == nil && r.Params("indexKey") == nil:
		return kv.Invalid("match says how index and indexKey go together: without them there is nothing to match")
	}
	for short, name := range map[string]string{"index": "indexes", "indexKey": "indexKeys"} {
		set, err := d.setJSON(r, name)
		filters := r.Params(short)
		switch {
		case err != nil:
			return err
		case !set && r.Param(name) != "":
			return kv.Invalid(`%s must be JSON like {"all":[…]}; for a single one there is %s`, name, short)
		case set && len(filters) > 0:
			return kv.Invalid("%s and %s cannot be combined", short, name)
		case len(filters) > 0:
			d.set(name, map[string][]string{match: filters})
		}
	}
	return nil
}

// setWhere adds the ranges to the conditions.
func (d document) setWhere(r *Request) error {
	set, err := d.setJSON(r, "where")
	switch {
	case err != nil:
		return err
	case !set && r.Param("where") != "":
		return kv.Invalid(`where must be JSON like [{"path":"score","op":"gte","value":10}]`)
	}
	conditions := list(part{"where", d["where"], &err}, func(p part) any { return p.text })
	for i, text := range r.Params("range") {
		bounds, err := rangeConditions(fmt.Sprintf("range[%d]", i), text)
		if err != nil {
			return err
		}
		conditions = append(conditions, bounds...)
	}
	if len(r.Params("range")) > 0 {
		d.set("where", conditions)
	}
	return err
}

// rangeConditions reads <path>:<from>..<to>.
func rangeConditions(position, text string) (conditions []any, err error) {
	path, bounds, isRange := strings.Cut(text, ":")
	from, to, isBounds := strings.Cut(bounds, "..")
	isNumber := func(bound string) bool { // the entry's own fields are compared with text alone
		return !slices.Contains(kv.OwnFields, kv.Path(path)) && bound != "" && strings.Contains("-0123456789", bound[:1]) && jsontext.Value(bound).IsValid()
	}
	switch err := kv.Path(path).Validate(); {
	case !isRange || !isBounds || path == "" || from == "" && to == "":
		return nil, kv.Invalid("%s must be <path>:<from>..<to>, as in score:10..20, score:10.. or score:..20, got %s", position, quoted(text))
	case strings.Index(bounds, "..") != strings.LastIndex(bounds, ".."):
		return nil, kv.Invalid("%s must have two dots once: for texts that hold dots use where, got %s", position, quoted(text))
	case err != nil:
		return nil, kv.Invalid("%s: %v", position, err)
	case from != "" && to != "" && isNumber(from) != isNumber(to):
		return nil, kv.Invalid("%s must be from a number to a number or from a text to a text, got %s", position, quoted(text))
	}
	for i, bound := range []string{from, to} {
		value := jsontext.Value(bound)
		if !isNumber(bound) {
			value = kv.AppendString(nil, bound)
		}
		if bound != "" {
			conditions = append(conditions, kv.Condition{Path: kv.Path(path), Op: []kv.Op{kv.OpGte, kv.OpLte}[i], Value: value})
		}
	}
	return conditions, nil
}

// setList puts a list into the document whose elements stand with commas between them, or as several parameters.
func (d document) setList(r *Request, name string) error {
	set, err := d.setJSON(r, name)
	if given := r.Params(name); given != nil && !set {
		d.set(name, strings.Split(strings.Join(given, ","), ","))
	}
	return err
}

// setAggregate reads count, or <op>:<path>.
func (d document) setAggregate(r *Request) error {
	set, err := d.setJSON(r, "aggregate")
	var aggregates []map[string]string
	for _, text := range r.Params("aggregate") {
		op, path, hasPath := strings.Cut(text, ":")
		aggregate := map[string]string{"op": op}
		if hasPath {
			aggregate["path"] = path
		}
		aggregates = append(aggregates, aggregate)
	}
	if aggregates != nil && !set {
		d.set("aggregate", aggregates)
	}
	return err
}
