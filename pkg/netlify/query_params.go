package netlify

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"netlify-supabase-kv/pkg/kv"
)

// bodyMistakes are names that only GET knows: a filter under one of them would be ignored in a body.
var bodyMistakes = map[string]string{
	"q": "search", "index": "indexes", "indexKey": "indexKeys", "match": "indexes", "range": "where",
}

// shortNames are the parameters of a GET besides the fields of a query.
var shortNames = []string{"q", "index", "indexKey", "match", "range"}

// formOfParams writes the parameters of a GET as the fields of a POST's body.
func formOfParams(r *Request) (queryForm, error) {
	if err := checkParamNames(r); err != nil {
		return nil, err
	}
	form := queryForm{}
	for _, name := range []string{"prefix", "search", "cursor", "groupBy", "format"} {
		form.set(name, r.Param(name))
	}
	for name, most := range map[string]int{"limit": kv.MaxLimit, "offset": maxOffset} {
		if _, err := number(r, name, 0, most); err != nil {
			return nil, err
		}
		if text := r.Param(name); text != "" {
			form[name] = json.RawMessage(strings.TrimLeft(text[:len(text)-1], "0") + text[len(text)-1:])
		}
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
		f[name] = appendString(nil, text)
	}
}

// setJSON puts a parameter into the form that is given as the JSON text of the field.
func (f queryForm) setJSON(r *Request, name string, opening string) (set bool, err error) {
	text := r.Param(name)
	if text == "" || !strings.Contains(opening, text[:1]) {
		return false, nil
	}
	if !json.Valid([]byte(text)) {
		return false, kv.Invalid("%s begins like JSON, but is not", name)
	}
	if len(r.Params(name)) > 1 {
		return false, kv.Invalid("%s as JSON must be given once", name)
	}
	f[name] = json.RawMessage(text)
	return true, nil
}

func (f queryForm) setIndexes(r *Request) error {
	match := r.Param("match")
	switch {
	case match == "":
		match = "all"
	case match != "all" && match != "any":
		return kv.Invalid("match must be all or any, got %q", match)
	}
	for short, name := range map[string]string{"index": "indexes", "indexKey": "indexKeys"} {
		set, err := f.setJSON(r, name, "{[")
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
		quoted = append(quoted, string(appendString(nil, text)))
	}
	return strings.Join(quoted, ",")
}

// setWhere adds the ranges to the conditions.
func (f queryForm) setWhere(r *Request) error {
	set, err := f.setJSON(r, "where", "[")
	switch {
	case err != nil:
		return err
	case !set && r.Param("where") != "":
		return kv.Invalid(`where must be JSON like [{"path":"score","op":"gte","value":10}]`)
	}
	var conditions []json.RawMessage
	if set {
		if err := json.Unmarshal(f["where"], &conditions); err != nil {
			return kv.Invalid("where must be an array of conditions")
		}
	}
	for _, text := range r.Params("range") {
		bounds, err := rangeConditions(text)
		if err != nil {
			return err
		}
		conditions = append(conditions, bounds...)
	}
	if conditions != nil {
		f["where"], err = json.Marshal(conditions)
	}
	return err
}

// rangeConditions reads <path>:<from>..<to>.
func rangeConditions(text string) ([]json.RawMessage, error) {
	path, bounds, isRange := strings.Cut(text, ":")
	from, to, isBounds := strings.Cut(bounds, "..")
	if !isRange || !isBounds || path == "" || from == "" && to == "" {
		return nil, kv.Invalid("range must be <path>:<from>..<to>, as in score:10..20, score:10.. or score:..20, got %q", text)
	}
	numbers := 0
	for _, bound := range []string{from, to} {
		if isJSONNumber(bound) {
			numbers++
		} else if bound != "" {
			numbers--
		}
	}
	if from != "" && to != "" && numbers == 0 {
		return nil, kv.Invalid("range must be from a number to a number or from a text to a text, got %q", text)
	}
	var conditions []json.RawMessage
	for _, bound := range []struct{ op, value string }{{"gte", from}, {"lte", to}} {
		value := bound.value
		if value == "" {
			continue
		}
		if numbers < 0 {
			value = string(appendString(nil, value))
		}
		conditions = append(conditions, json.RawMessage(`{"path":`+string(appendString(nil, path))+`,"op":"`+bound.op+`","value":`+value+`}`))
	}
	return conditions, nil
}

func isJSONNumber(text string) bool {
	return text != "" && strings.Contains("-0123456789", text[:1]) && json.Valid([]byte(text))
}

func (f queryForm) setSelect(r *Request) error {
	if set, err := f.setJSON(r, "select", "["); set || err != nil {
		return err
	}
	if given := r.Params("select"); given != nil {
		f["select"] = json.RawMessage("[" + joinJSON(strings.Split(strings.Join(given, ","), ",")) + "]")
	}
	return nil
}

func (f queryForm) setSort(r *Request) error {
	if set, err := f.setJSON(r, "sort", "["); set || err != nil {
		return err
	}
	if given := r.Params("sort"); given != nil {
		f["sort"] = json.RawMessage("[" + joinJSON(given) + "]")
	}
	return nil
}

// setAggregate reads count, or <op>:<path>.
func (f queryForm) setAggregate(r *Request) error {
	if set, err := f.setJSON(r, "aggregate", "["); set || err != nil {
		return err
	}
	var aggregates []string
	for _, text := range r.Params("aggregate") {
		op, path, hasPath := strings.Cut(text, ":")
		aggregate := `{"op":` + string(appendString(nil, op))
		if hasPath {
			aggregate += `,"path":` + string(appendString(nil, path))
		}
		aggregates = append(aggregates, aggregate+"}")
	}
	if aggregates != nil {
		f["aggregate"] = json.RawMessage("[" + strings.Join(aggregates, ",") + "]")
	}
	return nil
}

// checkParamNames refuses parameters that look like a filter in another spelling: it would be ignored.
func checkParamNames(r *Request) error {
	names := slices.Concat(slices.Collect(maps.Keys(r.QueryStringParameters)), slices.Collect(maps.Keys(r.MultiValueQueryStringParameters)))
	return checkSpelling(names, slices.Concat(queryFieldNames, shortNames))
}
