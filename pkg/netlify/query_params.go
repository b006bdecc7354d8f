package netlify

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"netlify-supabase-kv/pkg/kv"
)

// shortNames are the parameters of a GET besides the fields of a query.
var shortNames = []string{"q", "index", "indexKey", "match", "range"}

// queryParamNames are all parameters of a GET.
var queryParamNames = slices.Concat(queryFieldNames, shortNames)

// onceNames are the parameters that take one value: of two, one would be ignored.
var onceNames = []string{"prefix", "indexes", "indexKeys", "match", "search", "q", "where", "limit", "offset", "cursor", "groupBy", "format", "bom"}

// formOfParams writes the parameters of a GET as the fields of a POST's body.
func formOfParams(r *Request) (queryForm, error) {
	if err := checkNames("a parameter of kv-query", paramNames(r), queryParamNames); err != nil {
		return nil, err
	}
	for _, name := range onceNames {
		if err := checkOnce(r, name); err != nil {
			return nil, err
		}
	}
	form := queryForm{}
	for _, name := range []string{"prefix", "search", "cursor", "groupBy", "format"} {
		form.set(name, r.Param(name))
	}
	for _, name := range []string{"limit", "offset"} {
		form.setNumber(name, r.Param(name))
	}
	if bom := r.Param("bom"); bom == "true" || bom == "false" {
		form["bom"] = json.RawMessage(bom)
	} else {
		form.set("bom", bom)
	}
	if q := r.Param("q"); q != "" {
		if form["search"] != nil {
			return nil, kv.Invalid("q and search are the same: give one of them")
		}
		form.set("search", q)
	}
	for _, set := range []func(*Request) error{form.setIndexes, form.setWhere, form.setSelect, form.setSort, form.setAggregate} {
		if err := set(r); err != nil {
			return nil, err
		}
	}
	return form, nil
}

// set puts a text that was given into the form.
func (f queryForm) set(name, text string) {
	if text != "" {
		f[name] = kv.AppendString(nil, text)
	}
}

// setNumber puts digits into the form as a number, and anything else as a text, which is then refused.
func (f queryForm) setNumber(name, text string) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		f.set(name, text)
		return
	}
	last := len(text) - 1
	f[name] = json.RawMessage(strings.TrimLeft(text[:last], "0") + text[last:])
}

// setJSON puts a parameter into the form that is given as the JSON text of the field.
func (f queryForm) setJSON(r *Request, name string) (set bool, err error) {
	given := r.Params(name)
	if !slices.ContainsFunc(given, func(text string) bool { return text[0] == '[' || text[0] == '{' }) {
		return false, nil
	}
	if len(given) > 1 {
		return false, kv.Invalid("%s as JSON must be given once", name)
	}
	if !json.Valid([]byte(given[0])) {
		return false, kv.Invalid("%s begins like JSON, but is not", name)
	}
	f[name] = json.RawMessage(strings.TrimRight(given[0], jsonSpace))
	return true, nil
}

func (f queryForm) setIndexes(r *Request) error {
	match := r.Param("match")
	switch {
	case match == "":
		match = "all"
	case match != "all" && match != "any":
		return kv.Invalid("match must be all or any, got %s", quoted(match))
	case r.Params("index") == nil && r.Params("indexKey") == nil:
		return kv.Invalid("match says how index and indexKey go together: without them there is nothing to match")
	}
	for _, names := range [][2]string{{"index", "indexes"}, {"indexKey", "indexKeys"}} {
		short, name := names[0], names[1]
		set, err := f.setJSON(r, name)
		filters := r.Params(short)
		switch {
		case err != nil:
			return err
		case !set && r.Param(name) != "":
			return kv.Invalid(`%s must be JSON like {"all":[…]}; for a single one there is %s`, name, short)
		case set && len(filters) > 0:
			return kv.Invalid("%s and %s cannot be combined", short, name)
		case len(filters) > 0:
			f[name] = json.RawMessage(`{"` + match + `":[` + joinJSON(filters) + `]}`)
		}
	}
	return nil
}

func joinJSON(texts []string) string {
	var quoted []string
	for _, text := range texts {
		quoted = append(quoted, string(kv.AppendString(nil, text)))
	}
	return strings.Join(quoted, ",")
}

// setWhere adds the ranges to the conditions.
func (f queryForm) setWhere(r *Request) error {
	set, err := f.setJSON(r, "where")
	switch {
	case err != nil:
		return err
	case !set && r.Param("where") != "":
		return kv.Invalid(`where must be JSON like [{"path":"score","op":"gte","value":10}]`)
	}
	var conditions [][]byte
	for i, text := range r.Params("range") {
		bounds, err := rangeConditions(fmt.Sprintf("range[%d]", i), text)
		if err != nil {
			return err
		}
		conditions = append(conditions, bounds...)
	}
	if conditions == nil {
		return nil
	}
	var list []json.RawMessage
	if set {
		if list, err = elements("where", f["where"]); err != nil {
			return err
		}
	}
	for _, condition := range conditions {
		list = append(list, condition)
	}
	f["where"] = json.RawMessage("[" + join(list) + "]")
	return nil
}

func join(texts []json.RawMessage) string {
	parts := make([]string, len(texts))
	for i, text := range texts {
		parts[i] = string(text)
	}
	return strings.Join(parts, ",")
}

// rangeConditions reads <path>:<from>..<to>.
func rangeConditions(position, text string) ([][]byte, error) {
	path, bounds, isRange := strings.Cut(text, ":")
	from, to, isBounds := strings.Cut(bounds, "..")
	if !isRange || !isBounds || path == "" || from == "" && to == "" {
		return nil, kv.Invalid("%s must be <path>:<from>..<to>, as in score:10..20, score:10.. or score:..20, got %s", position, quoted(text))
	}
	if strings.Index(bounds, "..") != strings.LastIndex(bounds, "..") {
		return nil, kv.Invalid("%s must have two dots once: for texts that hold dots use where, got %s", position, quoted(text))
	}
	own := slices.Contains(kv.OwnFields, path) // compared with text alone
	if _, err := kv.ParsePath(path); err != nil {
		return nil, kv.Invalid("%s: %v", position, err)
	}
	numbers := 0
	for _, bound := range []string{from, to} {
		if isJSONNumber(bound) && !own {
			numbers++
		} else if bound != "" {
			numbers--
		}
	}
	if from != "" && to != "" && numbers == 0 {
		return nil, kv.Invalid("%s must be from a number to a number or from a text to a text, got %s", position, quoted(text))
	}
	var conditions [][]byte
	for _, bound := range []struct{ op, value string }{{"gte", from}, {"lte", to}} {
		value := bound.value
		if value == "" {
			continue
		}
		if numbers < 0 {
			value = string(kv.AppendString(nil, value))
		}
		conditions = append(conditions, []byte(`{"path":`+string(kv.AppendString(nil, path))+`,"op":"`+bound.op+`","value":`+value+`}`))
	}
	return conditions, nil
}

func isJSONNumber(text string) bool {
	return text != "" && strings.Contains("-0123456789", text[:1]) && json.Valid([]byte(text))
}

func (f queryForm) setSelect(r *Request) error {
	if set, err := f.setJSON(r, "select"); set || err != nil {
		return err
	}
	if given := r.Params("select"); given != nil {
		f["select"] = json.RawMessage("[" + joinJSON(strings.Split(strings.Join(given, ","), ",")) + "]")
	}
	return nil
}

// setSort reads paths with commas between, as select has them.
func (f queryForm) setSort(r *Request) error {
	if set, err := f.setJSON(r, "sort"); set || err != nil {
		return err
	}
	if given := r.Params("sort"); given != nil {
		f["sort"] = json.RawMessage("[" + joinJSON(strings.Split(strings.Join(given, ","), ",")) + "]")
	}
	return nil
}

// setAggregate reads count, or <op>:<path>.
func (f queryForm) setAggregate(r *Request) error {
	if set, err := f.setJSON(r, "aggregate"); set || err != nil {
		return err
	}
	var aggregates []string
	for _, text := range r.Params("aggregate") {
		op, path, hasPath := strings.Cut(text, ":")
		aggregate := `{"op":` + string(kv.AppendString(nil, op))
		if hasPath {
			aggregate += `,"path":` + string(kv.AppendString(nil, path))
		}
		aggregates = append(aggregates, aggregate+"}")
	}
	if aggregates != nil {
		f["aggregate"] = json.RawMessage("[" + strings.Join(aggregates, ",") + "]")
	}
	return nil
}
