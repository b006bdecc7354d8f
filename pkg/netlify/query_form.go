package netlify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"netlify-supabase-kv/pkg/kv"
)

// queryForm is a query as callers write it: the fields of a POST's body, each as the text that was sent.
type queryForm map[string]json.RawMessage

// queryFieldNames are the fields that a query may have.
var queryFieldNames = []string{"prefix", "indexes", "indexKeys", "search", "where", "select", "sort", "limit", "offset", "cursor",
	"aggregate", "groupBy", "format", "bom"}

// maxOffset is Postgres's largest integer.
const maxOffset = 1<<31 - 1

// formOfBody reads the body of a POST. A filter that is ignored returns too much: unknown fields are refused, and so are those that
// are given twice.
func formOfBody(r *Request, what string, known []string) (queryForm, error) {
	fields, err := r.JSONBody()
	if err != nil || fields == nil {
		return nil, err
	}
	body, err := r.bodyText()
	if err != nil {
		return nil, err
	}
	given := queryForm{}
	if err := eachField(body, func(name string, value json.RawMessage) error {
		if given[name] != nil {
			return kv.Invalid("%s is given twice", quoted(name))
		}
		given[name] = value
		return nil
	}); err != nil {
		return nil, err
	}
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(given)), func(name string) bool { return !given.given(name) })
	return given, checkNames(what, names, known)
}

// eachField visits the fields of the text of an object in order, also those that it has twice.
func eachField(text []byte, visit func(name string, value json.RawMessage) error) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	if _, err := decoder.Token(); err != nil {
		return fmt.Errorf("read an object that was valid: %w", err)
	}
	for decoder.More() {
		var value json.RawMessage
		name, err := decoder.Token()
		if err == nil {
			err = decoder.Decode(&value)
		}
		if err != nil {
			return fmt.Errorf("read an object that was valid: %w", err)
		}
		if err := visit(fmt.Sprint(name), value); err != nil {
			return err
		}
	}
	return nil
}

// parseQuery reads a form. Nothing in it is ignored: what cannot be understood is an error that names its position.
func parseQuery(f queryForm) (q kv.Query, format exportFormat, err error) {
	for _, parse := range []func(*kv.Query) error{f.parseIndexes, f.parseSearch, f.parseWhere, f.parseSelect, f.parseSort, f.parseCursor, f.parseAggregate} {
		if err := parse(&q); err != nil {
			return q, format, err
		}
	}
	if q.Prefix, err = f.text("prefix"); err != nil {
		return q, format, err
	}
	name, err := f.text("format")
	if err != nil {
		return q, format, err
	}
	if format, err = formatNamed(name); err != nil {
		return q, format, err
	}
	if format.bom, err = f.bom(format); err != nil {
		return q, format, err
	}
	q.PageBytes = format.pageBytes
	most := format.maxLimit
	if len(q.Aggregates) > 0 {
		most = kv.MaxGroups
	}
	if q.Limit, err = f.number("limit", 1, most); err != nil {
		return q, format, err
	}
	if q.Offset, err = f.number("offset", 0, maxOffset); err != nil {
		return q, format, err
	}
	if f.given("offset") && q.After != nil {
		return q, format, kv.Invalid("offset cannot be combined with cursor: a cursor says already where to go on")
	}
	if f.given("offset") && len(q.Aggregates) > 0 {
		return q, format, kv.Invalid("sort, select, cursor and offset cannot be combined with aggregate")
	}
	return q, format, q.Validate()
}

// given tells whether there is a field; null counts as none.
func (f queryForm) given(name string) bool { return f[name] != nil && string(f[name]) != "null" }

// text reads a string; "" if it is absent.
func (f queryForm) text(name string) (string, error) {
	if !f.given(name) {
		return "", nil
	}
	return stringAt(name, f[name])
}

func stringAt(position string, text json.RawMessage) (string, error) {
	s, ok := decodeString(text)
	if !ok {
		return "", kv.Invalid("%s must be a string of whole characters, got %s", position, excerpt(text))
	}
	return s, nil
}

// number reads a whole number; 0 if it is absent.
func (f queryForm) number(name string, least, most int) (int, error) {
	if !f.given(name) {
		return 0, nil
	}
	n, err := strconv.ParseUint(string(f[name]), 10, 31)
	if err != nil || int(n) < least || int(n) > most {
		return 0, kv.Invalid("%s must be a whole number from %d to %d, got %s", name, least, most, excerpt(f[name]))
	}
	return int(n), nil
}

// bom tells whether the answer begins with a byte order mark.
func (f queryForm) bom(format exportFormat) (bool, error) {
	switch text := string(f["bom"]); {
	case !f.given("bom") || text == "false":
		return false, nil
	case text != "true":
		return false, kv.Invalid("bom must be true or false, got %s", excerpt(f["bom"]))
	case format.name != "csv":
		return false, kv.Invalid("bom is for format csv: a byte order mark would be a mistake in %s", format.name)
	}
	return true, nil
}

// excerpt shows what was sent, as far as it helps.
func excerpt(text json.RawMessage) string {
	const most = 60
	switch {
	case len(text) == 0:
		return "nothing"
	case len(text) <= most:
		return string(text)
	}
	return strings.ToValidUTF8(string(text[:most]), "") + "…"
}

// quoted shows a text likewise.
func quoted(text string) string { return excerpt(kv.AppendString(nil, text)) }

// elements reads an array.
func elements(position string, text json.RawMessage) ([]json.RawMessage, error) {
	var list []json.RawMessage
	if len(text) == 0 || text[0] != '[' || json.Unmarshal(text, &list) != nil {
		return nil, kv.Invalid("%s must be an array, got %s", position, excerpt(text))
	}
	return list, nil
}

// object reads an object that has no other fields than these, and none twice.
func object(position string, text json.RawMessage, names ...string) (queryForm, error) {
	if len(text) == 0 || text[0] != '{' {
		return nil, kv.Invalid("%s must be an object with %s, got %s", position, strings.Join(names, ", "), excerpt(text))
	}
	form := queryForm{}
	return form, eachField(text, func(field string, value json.RawMessage) error {
		switch {
		case !slices.Contains(names, field):
			return kv.Invalid("%s must have no other fields than %s, got %s", position, strings.Join(names, ", "), quoted(field))
		case form[field] != nil:
			return kv.Invalid("%s has %s twice", position, field)
		}
		form[field] = value
		return nil
	})
}

func (f queryForm) parseIndexes(q *kv.Query) error {
	var all []kv.IndexFilter
	for _, kind := range []struct {
		field string
		leaf  func(position string, text json.RawMessage) (kv.IndexFilter, error)
	}{{"indexes", pairLeaf}, {"indexKeys", keyLeaf}} {
		if !f.given(kind.field) {
			continue
		}
		parts, err := indexGroup(kind.field, f[kind.field], kind.leaf, 1)
		if err != nil {
			return err
		}
		all = append(all, parts...)
	}
	if len(all) > 0 {
		q.Indexes = &kv.IndexFilter{All: all}
	}
	return nil
}

// indexGroup reads {"all":[…],"any":[…],"none":[…]} as parts that must all hold. An element is another group or a leaf.
func indexGroup(position string, text json.RawMessage, leaf func(string, json.RawMessage) (kv.IndexFilter, error), depth int) ([]kv.IndexFilter, error) {
	if depth > kv.MaxGroupDepth {
		return nil, kv.Invalid("%s: groups must be nested at most %d levels deep", position, kv.MaxGroupDepth)
	}
	group, err := object(position, text, "all", "any", "none")
	if err != nil {
		return nil, err
	}
	var all []kv.IndexFilter
	for _, name := range []string{"all", "any", "none"} {
		if group[name] == nil {
			continue
		}
		at := position + "." + name
		list, err := elements(at, group[name])
		if err != nil {
			return nil, err
		}
		if len(list) == 0 && name == "any" {
			return nil, kv.Invalid("%s must not be empty: nothing could match", at)
		}
		var parts []kv.IndexFilter
		for i, element := range list {
			part, err := indexElement(fmt.Sprintf("%s[%d]", at, i), element, leaf, depth)
			if err != nil {
				return nil, err
			}
			parts = append(parts, part)
		}
		switch {
		case len(parts) == 0:
		case name == "all":
			all = append(all, parts...)
		case name == "any":
			all = append(all, kv.IndexFilter{Any: parts})
		default:
			all = append(all, kv.IndexFilter{Not: &kv.IndexFilter{Any: parts}})
		}
	}
	if len(all) == 0 && depth > 1 {
		return nil, kv.Invalid("%s must not be an empty group", position)
	}
	return all, nil
}

func indexElement(position string, text json.RawMessage, leaf func(string, json.RawMessage) (kv.IndexFilter, error), depth int) (kv.IndexFilter, error) {
	var fields map[string]json.RawMessage
	if text[0] == '{' && json.Unmarshal(text, &fields) == nil && fields["key"] == nil && fields["member"] == nil {
		parts, err := indexGroup(position, text, leaf, depth+1)
		return kv.IndexFilter{All: parts}, err
	}
	return leaf(position, text)
}

// pairLeaf reads "<key>:<member>" or {"key":…,"member":…}.
func pairLeaf(position string, text json.RawMessage) (kv.IndexFilter, error) {
	if text[0] != '{' {
		spelled, ok := decodeString(text)
		if !ok || len(spelled) < 3 || !strings.Contains(spelled[1:len(spelled)-1], ":") {
			return kv.IndexFilter{}, kv.Invalid(`%s must be "<key>:<member>", {"key":…,"member":…} or a group, got %s`, position, excerpt(text))
		}
		leaf := kv.IndexFilter{Spelled: spelled}
		return leaf, leaf.ValidateLeaf(position)
	}
	pair, err := object(position, text, "key", "member")
	if err != nil {
		return kv.IndexFilter{}, err
	}
	index, err := readIndex(position, pair)
	if err != nil {
		return kv.IndexFilter{}, err
	}
	if index.Key == "" || index.Member == "" {
		return kv.IndexFilter{}, kv.Invalid("%s must have a key and a member that are not empty", position)
	}
	leaf := kv.IndexFilter{Exact: index}
	return leaf, leaf.ValidateLeaf(position)
}

// keyLeaf reads the key of an index.
func keyLeaf(position string, text json.RawMessage) (kv.IndexFilter, error) {
	key, ok := decodeString(text)
	if !ok || key == "" {
		return kv.IndexFilter{}, kv.Invalid("%s must be the key of an index or a group, got %s", position, excerpt(text))
	}
	leaf := kv.IndexFilter{Exact: kv.Index{Key: key}}
	return leaf, leaf.ValidateLeaf(position)
}

func (f queryForm) parseSearch(q *kv.Query) error {
	text, err := f.text("search")
	if err != nil || text == "" {
		return err
	}
	q.Search, err = kv.ParseSearch(text)
	return err
}

func (f queryForm) parseWhere(q *kv.Query) error {
	if !f.given("where") {
		return nil
	}
	list, err := elements("where", f["where"])
	if err != nil {
		return err
	}
	for i, element := range list {
		position := fmt.Sprintf("where[%d]", i)
		form, err := object(position, element, "path", "op", "value")
		if err != nil {
			return err
		}
		by, path, err := form.path(position)
		if err != nil {
			return err
		}
		op, ok := decodeString(form["op"])
		if !ok || !slices.Contains(kv.Ops, kv.Op(op)) {
			return kv.Invalid("%s.op must be one of %s, got %s", position, listed(kv.Ops), excerpt(form["op"]))
		}
		value := string(form["value"])
		switch {
		case value == "" && op == string(kv.OpExists):
			value = "true"
		case value == "":
			return kv.Invalid("%s.value must be given for %s", position, op)
		}
		q.Where = append(q.Where, kv.Condition{By: by, Path: path, Op: kv.Op(op), Value: value})
	}
	return nil
}

// listed shows what is allowed.
func listed[T ~string](list []T) string {
	texts := make([]string, len(list))
	for i, name := range list {
		texts[i] = string(name)
	}
	return strings.Join(texts, ", ")
}

// path reads the field of that name: one of [kv.OwnFields], or a path of the value.
func (f queryForm) path(position string) (by string, path kv.Path, err error) {
	text, err := stringAt(position+".path", f["path"])
	if err != nil || slices.Contains(kv.OwnFields, text) {
		return text, nil, err
	}
	if path, err = kv.ParsePath(text); err != nil {
		return "", nil, kv.Invalid("%s.path: %v", position, err)
	}
	return "", path, nil
}

func (f queryForm) parseSelect(q *kv.Query) error {
	if !f.given("select") {
		return nil
	}
	list, err := elements("select", f["select"])
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return kv.Invalid("select must name at least one of %s, value.<path>", strings.Join(kv.EntryFields, ", "))
	}
	seen := map[string]bool{}
	for i, element := range list {
		position := fmt.Sprintf("select[%d]", i)
		name, err := stringAt(position, element)
		if err != nil {
			return err
		}
		field := kv.Field{Name: name}
		if path, ok := strings.CutPrefix(name, "value."); ok {
			if field.Path, err = kv.ParsePath(path); err != nil {
				return kv.Invalid("%s: %v", position, err)
			}
		}
		if !seen[name] {
			seen[name] = true
			q.Select = append(q.Select, field)
		}
	}
	return nil
}

// parseSort reads one element or an array of them.
func (f queryForm) parseSort(q *kv.Query) error {
	if !f.given("sort") {
		return nil
	}
	list := []json.RawMessage{f["sort"]}
	if f["sort"][0] == '[' {
		var err error
		if list, err = elements("sort", f["sort"]); err != nil {
			return err
		}
	}
	for i, element := range list {
		key, err := sortKey(fmt.Sprintf("sort[%d]", i), element)
		if err != nil {
			return err
		}
		q.Sort = append(q.Sort, key)
	}
	return nil
}

// sortKey reads {"path":…,"order":…} or "<path>", "<path>:asc", "<path>:desc", "-<path>".
func sortKey(position string, text json.RawMessage) (key kv.SortKey, err error) {
	var path, order string
	if text[0] == '{' {
		form, err := object(position, text, "path", "order")
		if err != nil {
			return key, err
		}
		if path, err = stringAt(position+".path", form["path"]); err != nil {
			return key, err
		}
		if form.given("order") {
			if order, err = stringAt(position+".order", form["order"]); err != nil {
				return key, err
			}
			if order != "asc" && order != "desc" {
				return key, kv.Invalid("%s.order must be asc or desc, got %s", position, quoted(order))
			}
		}
	} else {
		if path, err = stringAt(position, text); err != nil {
			return key, err
		}
		rest, minus := strings.CutPrefix(path, "-")
		if minus {
			path, order = rest, "desc"
		}
		if i := strings.LastIndex(path, ":"); i >= 0 {
			path, order = path[:i], path[i+1:]
			if minus || order != "asc" && order != "desc" {
				return key, kv.Invalid(`%s must be <path>, <path>:asc, <path>:desc or -<path>; {"path":…} where a path holds a colon or begins with -; got %s`, position, excerpt(text))
			}
		}
	}
	key.Descending = order == "desc"
	if slices.Contains(kv.SortFields, path) {
		key.By = path
		if path == "relevance" {
			if order == "asc" {
				return key, kv.Invalid("%s: relevance has the best match first: leave the order out", position)
			}
			key.Descending = true
		}
		return key, nil
	}
	if key.Path, err = kv.ParsePath(path); err != nil {
		return key, kv.Invalid("%s: %v", position, err)
	}
	return key, nil
}

func (f queryForm) parseCursor(q *kv.Query) error {
	text, err := f.text("cursor")
	if err != nil || text == "" {
		return err
	}
	q.After, err = kv.ParseCursor(text)
	return err
}

func (f queryForm) parseAggregate(q *kv.Query) error {
	if f.given("aggregate") {
		list, err := elements("aggregate", f["aggregate"])
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return kv.Invalid(`aggregate must have an element, as in [{"op":"count"}]`)
		}
		for i, element := range list {
			a, err := aggregate(fmt.Sprintf("aggregate[%d]", i), element)
			if err != nil {
				return err
			}
			q.Aggregates = append(q.Aggregates, a)
		}
	}
	return f.parseGroupBy(q)
}

func aggregate(position string, text json.RawMessage) (a kv.Aggregate, err error) {
	form, err := object(position, text, "op", "path")
	if err != nil {
		return a, err
	}
	if a.Op, err = stringAt(position+".op", form["op"]); err != nil {
		return a, err
	}
	if form.given("path") {
		if a.By, a.Path, err = form.path(position); err != nil {
			return a, err
		}
		a.Name, err = form.text("path")
	}
	return a, err
}

func (f queryForm) parseGroupBy(q *kv.Query) error {
	text, err := f.text("groupBy")
	if err != nil || text == "" {
		return err
	}
	if index, ok := strings.CutPrefix(text, "index:"); ok {
		if index == "" {
			return kv.Invalid("groupBy must name an index after index:")
		}
		q.GroupBy = &kv.Grouping{Index: index}
		return nil
	}
	if slices.Contains(kv.OwnFields, text) {
		q.GroupBy = &kv.Grouping{By: text}
		return nil
	}
	path, err := kv.ParsePath(text)
	if err != nil {
		return kv.Invalid("groupBy: %v", err)
	}
	q.GroupBy = &kv.Grouping{Path: path}
	return nil
}
