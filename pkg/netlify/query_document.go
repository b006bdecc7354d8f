package netlify

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"netlify-supabase-kv/pkg/kv"
)

// document has the fields of a JSON object that are not null, each as the text that was sent.
type document map[string]jsontext.Value

// queryFields are the fields that the document of a query may have.
var queryFields = []string{"prefix", "indexes", "indexKeys", "search", "where", "select", "sort", "limit", "offset", "cursor",
	"aggregate", "groupBy", "format", "bom", "store"}

// maxOffset is Postgres's largest integer.
const maxOffset = 1<<31 - 1

// documentOfBody reads the body of a POST. A filter that is ignored returns too much: unknown fields are refused, and so are those
// that are given twice.
func documentOfBody(r *Request, what string, known []string) (document, error) {
	fields, err := r.JSONBody()
	if err != nil || fields == nil {
		return nil, err
	}
	body, err := r.bodyText()
	if err != nil {
		return nil, err
	}
	all := document{}
	if err := eachField(body, func(name string, value jsontext.Value) error {
		if all[name] != nil {
			return kv.Invalid("%s is given twice", quoted(name))
		}
		all[name] = value
		return nil
	}); err != nil {
		return nil, err
	}
	maps.DeleteFunc(all, func(_ string, value jsontext.Value) bool { return value.Kind() == 'n' })
	return all, checkNames(what, slices.Sorted(maps.Keys(all)), known)
}

// eachField visits the fields of the text of an object in order, also those that it has twice.
func eachField(text []byte, visit func(name string, value jsontext.Value) error) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(text), legacyJSON)
	if _, err := d.ReadToken(); err != nil {
		return fmt.Errorf("read an object that was valid: %w", err)
	}
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return fmt.Errorf("read an object that was valid: %w", err)
		}
		field := name.String() // before the decoder reads on
		value, err := d.ReadValue()
		if err != nil {
			return fmt.Errorf("read an object that was valid: %w", err)
		}
		if err := visit(field, value.Clone()); err != nil {
			return err
		}
	}
	return nil
}

// parseQuery reads a query. Nothing in it is ignored: what cannot be understood is an error that names its position.
func parseQuery(d document) (q kv.Query, format exportFormat, err error) {
	field := func(name string) part { return part{name, d[name], &err} }
	q.Store = field("store").optionalString()
	q.Prefix = field("prefix").optionalString()
	q.Indexes = field("indexes").indexFilter(part.indexPair)
	q.IndexKeys = field("indexKeys").indexFilter(part.indexKey)
	q.Search = field("search").search()
	q.Where = list(field("where"), part.condition)
	q.Select = unique(list(field("select"), func(p part) kv.Field { return kv.Field(p.string()) }))
	q.Sort = field("sort").sort()
	q.After = field("cursor").cursor()
	q.Aggregates = list(field("aggregate"), part.aggregate)
	q.GroupBy = kv.Grouping(field("groupBy").optionalString())
	format = field("format").format()
	format.bom = field("bom").bom(format)
	q.PageBytes = format.pageBytes
	most := format.maxLimit
	if len(q.Aggregates) > 0 {
		most = kv.MaxGroups
	}
	if limit := field("limit").number(1, most); limit != nil {
		q.Limit = *limit
	}
	q.Offset = field("offset").number(0, maxOffset)
	return q, format, err
}

// part is a piece of a document, and its position, as in where[0].op. The first error of all parts is kept.
type part struct {
	position string
	text     jsontext.Value // nil where there is none
	err      *error
}

// refuse keeps the error that the part is wrong.
func (p part) refuse(format string, args ...any) {
	p.keep(kv.Invalid("%s%s", p.position, fmt.Sprintf(format, args...)))
}

func (p part) keep(err error) {
	if *p.err == nil {
		*p.err = err
	}
}

// got shows what was sent.
func (p part) got() string { return excerpt(p.text) }

func (p part) string() string {
	s, ok := kv.Unquote(p.text)
	if !ok {
		p.refuse(" must be a string of whole characters, got %s", p.got())
	}
	return s
}

// given reports whether there is a part; null counts as none.
func (p part) given() bool { return p.text != nil && p.text.Kind() != 'n' }

// optionalString is a string, "" if it is absent.
func (p part) optionalString() string {
	if !p.given() {
		return ""
	}
	return p.string()
}

// number is a whole number, nil if it is absent.
func (p part) number(least, most int) *int {
	if !p.given() {
		return nil
	}
	n, err := strconv.ParseUint(string(p.text), 10, 31)
	if err != nil || int(n) < least || int(n) > most {
		p.refuse(" must be a whole number from %d to %d, got %s", least, most, p.got())
	}
	return new(int(n))
}

// elements are the elements of an array.
func (p part) elements() (elements []part) {
	var texts []jsontext.Value
	if p.text.Kind() != '[' || jsonv2.Unmarshal(p.text, &texts, legacyJSON) != nil {
		p.refuse(" must be an array, got %s", p.got())
	}
	for i, text := range texts {
		elements = append(elements, part{fmt.Sprintf("%s[%d]", p.position, i), text, p.err})
	}
	return elements
}

// list reads the elements of an array; nil if it is absent.
func list[T any](p part, read func(part) T) []T {
	if p.text == nil {
		return nil
	}
	all := []T{}
	for _, element := range p.elements() {
		all = append(all, read(element))
	}
	return all
}

// unique leaves out what is there a second time.
func unique[T comparable](all []T) []T {
	seen := map[T]bool{}
	return slices.DeleteFunc(all, func(one T) bool {
		defer func() { seen[one] = true }()
		return seen[one]
	})
}

// fields are those of an object that has no other fields than these, and none twice.
func (p part) fields(names ...string) map[string]part {
	all := strings.Join(names, ", ")
	return p.object(names, all, func(name string) { p.refuse(" must have no other fields than %s, got %s", all, quoted(name)) })
}

// object reads the fields of an object, each once. must says in an error which it has; unknown refuses any other.
func (p part) object(names []string, must string, unknown func(name string)) map[string]part {
	found := map[string]part{}
	for _, name := range names {
		found[name] = part{position: p.position + "." + name, err: p.err}
	}
	if p.text.Kind() != '{' {
		p.refuse(" must be an object with %s, got %s", must, p.got())
		return found
	}
	p.keep(eachField(p.text, func(name string, value jsontext.Value) error {
		field, known := found[name]
		switch {
		case !known:
			unknown(name)
		case field.text != nil:
			p.refuse(" has %s twice", name)
		}
		field.text = value
		found[name] = field
		return nil
	}))
	return found
}

func (p part) indexFilter(leaf func(part) kv.IndexFilter) *kv.IndexFilter {
	if p.text == nil {
		return nil
	}
	return new(p.indexGroup(leaf, 1))
}

// indexGroup reads {"all":[…],"any":[…],"none":[…]}, of other groups and leaves. What is in a group that is nested too deeply is
// not read: the query is refused for that group.
func (p part) indexGroup(leaf func(part) kv.IndexFilter, depth int) (f kv.IndexFilter) {
	if depth > kv.MaxGroupDepth {
		return f
	}
	element := func(p part) kv.IndexFilter {
		var names map[string]jsontext.Value
		if p.text.Kind() == '{' && jsonv2.Unmarshal(p.text, &names, legacyJSON) == nil && names["key"] == nil && names["member"] == nil {
			return p.indexGroup(leaf, depth+1)
		}
		return leaf(p)
	}
	group := p.fields("all", "any", "none")
	return kv.IndexFilter{All: list(group["all"], element), Any: list(group["any"], element), None: list(group["none"], element)}
}

// indexPair reads "<key>:<member>" or {"key":…,"member":…}.
func (p part) indexPair() (f kv.IndexFilter) {
	if p.text.Kind() != '{' {
		var ok bool
		if f.Pair, ok = kv.Unquote(p.text); !ok || !kv.IsPair(f.Pair) {
			p.refuse(` must be "<key>:<member>", {"key":…,"member":…} or a group, got %s`, p.got())
		}
		return f
	}
	f.Exact = p.index()
	if f.Exact.Key == "" || f.Exact.Member == "" {
		p.refuse(" must have a key and a member that are not empty")
	}
	return f
}

// index reads {"key":…,"member":…}.
func (p part) index() kv.Index {
	pair := p.fields("key", "member")
	index, err := readIndex(p.position, map[string]json.RawMessage{"key": json.RawMessage(pair["key"].text), "member": json.RawMessage(pair["member"].text)})
	p.keep(err)
	return index
}

// indexKey reads the key of an index.
func (p part) indexKey() (f kv.IndexFilter) {
	var ok bool
	if f.Exact.Key, ok = kv.Unquote(p.text); !ok || f.Exact.Key == "" {
		p.refuse(" must be the key of an index or a group, got %s", p.got())
	}
	return f
}

func (p part) search() kv.Search {
	text := p.optionalString()
	if text == "" {
		return nil
	}
	search, err := kv.ParseSearch(text)
	p.keep(err)
	return search
}

func (p part) condition() kv.Condition {
	fields := p.fields("path", "op", "value")
	return kv.Condition{Path: kv.Path(fields["path"].string()), Op: kv.Op(fields["op"].optionalString()), Value: fields["value"].text}
}

// sort reads one element or an array of them.
func (p part) sort() []kv.SortKey {
	if p.text != nil && p.text.Kind() != '[' {
		return []kv.SortKey{part{p.position + "[0]", p.text, p.err}.sortKey()}
	}
	return list(p, part.sortKey)
}

// sortKey reads {"path":…,"order":…} or "<path>", "<path>:asc", "<path>:desc", "-<path>".
func (p part) sortKey() kv.SortKey {
	path, order := "", ""
	if p.text.Kind() == '{' {
		fields := p.fields("path", "order")
		path, order = fields["path"].string(), fields["order"].optionalString()
		if order != "" && order != "asc" && order != "desc" {
			fields["order"].refuse(" must be asc or desc, got %s", quoted(order))
		}
	} else {
		path, order = p.pathAndOrder()
	}
	if path == string(kv.Relevance) {
		if order == "asc" {
			p.refuse(": relevance has the best match first: leave the order out")
		}
		order = "desc"
	}
	return kv.SortKey{Path: kv.Path(path), Descending: order == "desc"}
}

func (p part) pathAndOrder() (path, order string) {
	path = p.string()
	path, minus := strings.CutPrefix(path, "-")
	i := strings.LastIndex(path, ":")
	switch {
	case i < 0 && minus:
		order = "desc"
	case i >= 0:
		path, order = path[:i], path[i+1:]
		if minus || order != "asc" && order != "desc" {
			p.refuse(` must be <path>, <path>:asc, <path>:desc or -<path>; {"path":…} where a path holds a colon or begins with -; got %s`, p.got())
		}
	}
	return path, order
}

func (p part) cursor() *kv.Cursor {
	text := p.optionalString()
	if text == "" {
		return nil
	}
	cursor, err := kv.ParseCursor(text)
	p.keep(err)
	return cursor
}

func (p part) aggregate() kv.Aggregate {
	fields := p.fields("op", "path")
	path := kv.Path(fields["path"].optionalString())
	if fields["path"].given() && path == "" {
		fields["path"].refuse(": %v", path.Validate())
	}
	return kv.Aggregate{Op: fields["op"].string(), Path: path}
}

// bom reports whether the answer begins with a byte order mark.
func (p part) bom(format exportFormat) bool {
	switch text := string(p.text); {
	case text == "" || text == "false":
		return false
	case text != "true":
		p.refuse(" must be true or false, got %s", p.got())
	case format.name != "csv":
		p.refuse(" is for format csv: a byte order mark would be a mistake in %s", format.name)
	}
	return true
}

// excerpt shows what was sent, as far as it helps.
func excerpt[T ~[]byte](text T) string { return cmp.Or(kv.Excerpt(string(text)), "nothing") }

// quoted shows a text likewise.
func quoted(text string) string { return excerpt(kv.AppendString(nil, text)) }
