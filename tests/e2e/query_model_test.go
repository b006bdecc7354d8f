package e2e

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/require"
)

// The model: a second, plain implementation of queries, which scans a list of entries in memory.

// modelEntry is an entry. An index entry has no document: where and search do not read it.
type modelEntry struct {
	key      string
	text     string // the value as written
	document any    // decoded with json.Number
	isIndex  bool
	indexes  []index
}

// absentValue is the value at a path that does not exist.
type absentValue struct{}

func decode(text string) (value any) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&value); err != nil {
		panic(err)
	}
	return readable(value)
}

// readable returns a value as queries see it: U+FFFD instead of U+0000 and of lone surrogates, and text instead of a
// number that the database cannot hold.
func readable(value any) any {
	switch value := value.(type) {
	case string:
		return strings.ReplaceAll(value, "\x00", "\ufffd")
	case json.Number:
		if strings.HasSuffix(string(value), "e400000") {
			return string(value)
		}
	case []any:
		for i := range value {
			value[i] = readable(value[i])
		}
	case map[string]any:
		for name := range value {
			value[name] = readable(value[name])
		}
	}
	return value
}

func at(value any, path []string) any {
	for _, name := range path {
		switch here := value.(type) {
		case map[string]any:
			inner, ok := here[name]
			if !ok {
				return absentValue{}
			}
			value = inner
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(here) {
				return absentValue{}
			}
			value = here[i]
		default:
			return absentValue{}
		}
	}
	return value
}

func (e modelEntry) at(path string) any {
	if path == "key" {
		return e.key
	}
	if e.isIndex {
		return absentValue{}
	}
	if rest, ok := strings.CutPrefix(path, "/"); ok {
		return at(e.document, strings.Split(rest, "/"))
	}
	return at(e.document, strings.Split(path, "."))
}

func number(value any) *big.Rat {
	if text, ok := value.(json.Number); ok {
		r, _ := new(big.Rat).SetString(string(text))
		return r
	}
	return nil
}

func equalJSON(a, b any) bool {
	if x, y := number(a), number(b); x != nil && y != nil {
		return x.Cmp(y) == 0
	}
	switch a := a.(type) {
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, equalJSON)
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for name, value := range a {
			if other, ok := b[name]; !ok || !equalJSON(value, other) {
				return false
			}
		}
		return true
	}
	switch b.(type) {
	case []any, map[string]any:
		return false
	}
	return a == b
}

// holdsInside is jsonb's containment: of objects by field, of arrays by element, at every level.
func holdsInside(whole, part any) bool {
	switch part := part.(type) {
	case map[string]any:
		whole, ok := whole.(map[string]any)
		if !ok {
			return false
		}
		for name, value := range part {
			if inner, ok := whole[name]; !ok || !holdsInside(inner, value) {
				return false
			}
		}
		return true
	case []any:
		whole, ok := whole.([]any)
		if !ok {
			return false
		}
		for _, value := range part {
			if !slices.ContainsFunc(whole, func(element any) bool { return holdsInside(element, value) }) {
				return false
			}
		}
		return true
	}
	return equalJSON(whole, part)
}

func (e modelEntry) meets(path, op string, value any) bool {
	here := e.at(path)
	if e.isIndex && path != "key" {
		return false
	}
	if _, absent := here.(absentValue); absent {
		return op == "exists" && value == false
	}
	switch op {
	case "eq":
		return equalJSON(here, value)
	case "ne":
		return !equalJSON(here, value)
	case "in":
		return slices.ContainsFunc(value.([]any), func(one any) bool { return equalJSON(here, one) })
	case "exists":
		return value == true
	case "contains":
		text, isText := here.(string)
		if part, ok := value.(string); ok && isText && strings.Contains(text, part) {
			return true
		}
		if list, ok := here.([]any); ok { // an array also contains a single value
			switch value.(type) {
			case []any, map[string]any:
			default:
				return slices.ContainsFunc(list, func(element any) bool { return equalJSON(element, value) })
			}
		}
		return holdsInside(here, value)
	}
	var order int
	x, y := number(here), number(value)
	text, isText := here.(string)
	than, isTextToo := value.(string)
	switch {
	case x != nil && y != nil:
		order = x.Cmp(y)
	case isText && isTextToo:
		order = cmp.Compare(text, than)
	default:
		return false
	}
	return map[string]bool{"gt": order > 0, "gte": order >= 0, "lt": order < 0, "lte": order <= 0}[op]
}

// gap separates words that are not adjacent: single-letter words with something between them.
const gap = "\x1e"

var folded = strings.NewReplacer("ς", "σ", "ß", "ss", "\u00ad", "", "\u200d", "")

// words folds a text and splits it at characters other than letters, marks and numbers. A Han or Kana letter is a
// word.
func words(text string) (found []string) {
	alone, divided, single := false, true, false // of the previous letter
	for _, r := range folded.Replace(strings.ToLower(text)) {
		if !unicode.In(r, unicode.L, unicode.M, unicode.N) {
			divided = true
			continue
		}
		single = unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana)
		switch {
		case single && alone && divided && len(found) > 0:
			found = append(found, gap, string(r))
		case single || alone || divided:
			found = append(found, string(r))
		default:
			found[len(found)-1] += string(r)
		}
		alone, divided = single, false
	}
	return found
}

func stringsIn(value any, each func(string)) {
	switch value := value.(type) {
	case string:
		each(value)
	case []any:
		for _, element := range value {
			stringsIn(element, each)
		}
	case map[string]any:
		for _, field := range value {
			stringsIn(field, each)
		}
	}
}

// contains reports whether a string of the entry contains the phrase; if goesOn, the last word may be a prefix.
func (e modelEntry) contains(phrase string, goesOn bool) (found bool) {
	want := words(phrase)
	stringsIn(e.document, func(text string) {
		have := words(text)
		for i := 0; i+len(want) <= len(have); i++ {
			last := len(want) - 1
			same := slices.Equal(have[i:i+last], want[:last]) && (have[i+last] == want[last] || goesOn && strings.HasPrefix(have[i+last], want[last]))
			found = found || same
		}
	})
	return found
}

// searchTerm is one term of a search.
type searchTerm struct {
	text             string
	not, goesOn, alt bool
}

func spellSearch(terms []searchTerm) string {
	var parts []string
	for _, term := range terms {
		text := term.text
		switch {
		case strings.Contains(text, " "):
			text = `"` + text + `"`
		case term.goesOn:
			text += "*"
		}
		if term.not {
			text = "-" + text
		}
		if term.alt {
			text = "or " + text
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " ")
}

func (e modelEntry) found(terms []searchTerm) bool {
	if e.isIndex {
		return false
	}
	any, all := false, true
	for _, term := range terms {
		if term.alt {
			any, all = any || all, true
		}
		all = all && e.contains(term.text, term.goesOn && !strings.Contains(term.text, " ")) != term.not
	}
	return any || all
}

func membersJSON(members []string) string {
	texts := make([]string, len(members))
	for i, member := range members {
		texts[i] = memberJSON(member)
	}
	return "[" + strings.Join(texts, ",") + "]"
}

// indexed evaluates a group of index filters. A leaf is "<key>:<member>", an exact pair, or with keysOnly an index's
// key.
func (e modelEntry) indexed(group map[string]any, keysOnly bool) bool {
	holds := func(element any) bool {
		switch element := element.(type) {
		case string:
			return slices.ContainsFunc(e.indexes, func(x index) bool {
				return keysOnly && x.key == element || !keysOnly && x.String() == element
			})
		case map[string]any:
			if element["key"] != nil {
				return slices.ContainsFunc(e.indexes, func(x index) bool {
					return x.key == element["key"] && memberJSON(x.member) == string(element["member"].(json.RawMessage))
				})
			}
			return e.indexed(element, keysOnly)
		}
		panic(element)
	}
	if all, ok := group["all"].([]any); ok && slices.ContainsFunc(all, func(x any) bool { return !holds(x) }) {
		return false
	}
	if none, ok := group["none"].([]any); ok && slices.ContainsFunc(none, holds) {
		return false
	}
	some, ok := group["any"].([]any)
	return !ok || slices.ContainsFunc(some, holds)
}

// sortClass orders numbers first, then text, then other values, then absent ones.
func sortClass(value any) int {
	switch value.(type) {
	case json.Number:
		return 0
	case string:
		return 1
	case absentValue:
		return 3
	}
	return 2
}

func compareBy(path string, descending bool) func(a, b modelEntry) int {
	return func(a, b modelEntry) int {
		if path == "key" {
			order := cmp.Compare(a.key, b.key)
			if descending {
				return -order
			}
			return order
		}
		x, y := a.at(path), b.at(path)
		if order := cmp.Compare(sortClass(x), sortClass(y)); order != 0 {
			return order
		}
		order := 0
		switch sortClass(x) {
		case 0:
			order = number(x).Cmp(number(y))
		case 1:
			order = cmp.Compare(x.(string), y.(string))
		}
		if descending {
			return -order
		}
		return order
	}
}

// randomQueries makes queries from the entries' content, so that most of them find something.
type randomQueries struct {
	*rand.Rand
	prefix    string
	indexKeys []string // no entry has the last one
}

var (
	modelPaths   = []string{"n", "t", "o.a", "o.a.0", "/o/a/1", "o", "x", "o.b c", "0", "a.b.c", "/key"}
	modelNumbers = []string{"0", "-0", "1", "1.0", "1e0", "10", "2.5", "-3", "12345678901234567890", "12345678901234567891", "1e30", "0.1"}
	modelTexts   = []string{"", "1", "10", "alpha", "alpha beta", "beta-gamma", "Gamma, delta!", "delta_alpha", "über straße", "2026-01-01T10:00:00Z", "2026-02-01",
		"it's \"quoted\" $$; -- \\", "a\tb\nc", "日本", "%_*", "alphabet",
		"“alpha” — beta…gamma", "one\u00a0two\u2003three", "«Über», ¡hola!🎉", "ΟΔΟΣ και οδός", "STRASSE", "日本語のテキスト", "東京、日本語 alpha日本", "al\u00adpha co\u200doperate",
		"беты и АЛЬФА", "e\u0301té हिन्दी"}
	// modelOdd are values that jsonb cannot hold.
	modelOdd     = []string{`"alpha\u0000beta"`, `"\ud800 alpha"`, `"10\udc00"`, "1e400000", "-1e400000", `["\u0000",1e400000,"alpha"]`, `{"a":"\u0000","b c":5}`}
	modelMembers = []string{"a", "b", "a:b", `q"u{o},t\e`, "c", "7", numeric("7"), numeric("7.0")}
)

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// value returns the JSON text of a small value.
func (q randomQueries) value(depth int) string {
	switch q.IntN(9) {
	case 0, 1, 2:
		return pick(q.Rand, modelNumbers)
	case 3, 4, 5:
		return quote(pick(q.Rand, modelTexts))
	case 6:
		return pick(q.Rand, []string{"true", "false", "null"})
	case 7:
		var elements []string
		for range q.IntN(4) * depth {
			elements = append(elements, q.value(depth-1))
		}
		return "[" + strings.Join(elements, ",") + "]"
	}
	if depth == 0 {
		return "{}"
	}
	return `{"a":` + q.value(depth-1) + `,"b c":` + q.value(depth-1) + `}`
}

func (q randomQueries) entry(i int) modelEntry {
	var fields []string
	for _, name := range []string{"n", "t", "o"} {
		switch q.IntN(12) {
		case 0, 1:
		case 2:
			fields = append(fields, quote(name)+" : "+pick(q.Rand, modelOdd))
		default:
			fields = append(fields, quote(name)+" : "+q.value(2))
		}
	}
	e := modelEntry{key: fmt.Sprintf("%s%s/%03d", q.prefix, pick(q.Rand, []string{"a", "b", "A"}), i), text: "{" + strings.Join(fields, ", ") + "}"}
	if q.IntN(20) == 0 {
		e.text = pick(q.Rand, []string{"null", "[]", `[1,"alpha"]`})
	}
	e.document = decode(e.text)
	for range q.IntN(4) {
		x := index{pick(q.Rand, q.indexKeys[:len(q.indexKeys)-1]), pick(q.Rand, modelMembers)}
		if !slices.Contains(e.indexes, x) {
			e.indexes = append(e.indexes, x)
		}
	}
	return e
}

func (q randomQueries) group(depth int, keysOnly bool) map[string]any {
	group := map[string]any{}
	for len(group) == 0 {
		for _, name := range []string{"all", "any", "none"} {
			if q.IntN(3) > 0 {
				continue
			}
			var elements []any
			for range 1 + q.IntN(2) {
				switch kind := q.IntN(4); {
				case kind == 0 && depth > 0:
					elements = append(elements, q.group(depth-1, keysOnly))
				case keysOnly:
					elements = append(elements, pick(q.Rand, q.indexKeys))
				case kind == 1:
					elements = append(elements, map[string]any{"key": pick(q.Rand, q.indexKeys), "member": json.RawMessage(memberJSON(pick(q.Rand, modelMembers)))})
				default:
					elements = append(elements, index{pick(q.Rand, q.indexKeys), pick(q.Rand, modelMembers)}.String())
				}
			}
			group[name] = elements
		}
	}
	return group
}

func (q randomQueries) condition() map[string]any {
	if q.IntN(6) == 0 {
		key := func() string {
			return q.prefix + pick(q.Rand, []string{"a/", "b/1", "A/", "", "z"}) + strconv.Itoa(q.IntN(300))
		}
		switch op := pick(q.Rand, []string{"eq", "ne", "gt", "gte", "lt", "lte", "in", "exists", "contains"}); op {
		case "in":
			return map[string]any{"path": "key", "op": op, "value": []any{key(), key(), key()}}
		case "exists":
			return map[string]any{"path": "key", "op": op, "value": q.IntN(4) > 0}
		case "contains":
			return map[string]any{"path": "key", "op": op, "value": pick(q.Rand, []string{"/1", "a/", q.prefix, "nowhere"})}
		default:
			return map[string]any{"path": "key", "op": op, "value": key()}
		}
	}
	path := pick(q.Rand, modelPaths)
	switch op := pick(q.Rand, []string{"eq", "ne", "gt", "gte", "lt", "lte", "in", "exists", "contains"}); op {
	case "gt", "gte", "lt", "lte":
		if q.IntN(2) == 0 {
			return map[string]any{"path": path, "op": op, "value": pick(q.Rand, modelTexts)}
		}
		return map[string]any{"path": path, "op": op, "value": json.Number(pick(q.Rand, modelNumbers))}
	case "in":
		return map[string]any{"path": path, "op": op, "value": []any{decode(q.value(1)), decode(q.value(1)), decode(q.value(1))}}
	case "exists":
		return map[string]any{"path": path, "op": op, "value": q.IntN(2) == 0}
	default:
		return map[string]any{"path": path, "op": op, "value": decode(q.value(1))}
	}
}

func (q randomQueries) search() (terms []searchTerm) {
	for i := range 1 + q.IntN(3) {
		terms = append(terms, searchTerm{
			text: pick(q.Rand, []string{"alpha", "BETA", "gamma", "alpha beta", "gamma delta", "alph", "straße", "quoted", "2026", "delta_alpha", "日本", "zzz",
				"日本語", "語", "東京、日本", "京日", "strasse", "οδος", "ΟΔΟΣ ΚΑΙ", "two three", "beta…gamma", "hola", "über", "cooperate", "альфа", "e\u0301té", "हिन्दी", "हि"}),
			not: q.IntN(4) == 0, goesOn: q.IntN(4) == 0, alt: i > 0 && q.IntN(3) == 0,
		})
	}
	return terms
}

// filters adds some filters to a query and returns their meaning.
func (q randomQueries) filters(body map[string]any) func(modelEntry) bool {
	meanings := []func(modelEntry) bool{}
	prefix := q.prefix + pick(q.Rand, []string{"", "", "a", "A/0", "b/1"})
	body["prefix"] = prefix
	meanings = append(meanings, func(e modelEntry) bool { return strings.HasPrefix(e.key, prefix) })
	if q.IntN(2) == 0 {
		group := q.group(2, false)
		body["indexes"] = group
		meanings = append(meanings, func(e modelEntry) bool { return e.indexed(group, false) })
	}
	if q.IntN(5) == 0 {
		group := q.group(1, true)
		body["indexKeys"] = group
		meanings = append(meanings, func(e modelEntry) bool { return e.indexed(group, true) })
	}
	if q.IntN(3) == 0 {
		terms := q.search()
		body["search"] = spellSearch(terms)
		meanings = append(meanings, func(e modelEntry) bool { return e.found(terms) })
	}
	var where []any
	for range []int{0, 0, 1, 1, 2}[q.IntN(5)] {
		c := q.condition()
		where = append(where, c)
		meanings = append(meanings, func(e modelEntry) bool { return e.meets(c["path"].(string), c["op"].(string), c["value"]) })
	}
	if where != nil {
		body["where"] = where
	}
	return func(e modelEntry) bool {
		return !slices.ContainsFunc(meanings, func(meaning func(modelEntry) bool) bool { return !meaning(e) })
	}
}

// order adds a sort to a query and returns its meaning.
func (q randomQueries) order(body map[string]any) func(a, b modelEntry) int {
	var keys []any
	var compare []func(a, b modelEntry) int
	descending := false
	for range q.IntN(3) {
		path := pick(q.Rand, append([]string{"key"}, modelPaths...))
		descending = q.IntN(2) == 0
		keys = append(keys, map[string]any{"path": path, "order": map[bool]string{true: "desc", false: "asc"}[descending]})
		compare = append(compare, compareBy(path, descending))
	}
	if keys != nil {
		body["sort"] = keys
	}
	for i, key := range keys {
		if key.(map[string]any)["path"] == "key" { // fields after key have no effect, and the direction of key is the last one
			descending = key.(map[string]any)["order"] == "desc"
			compare = compare[:i]
			break
		}
	}
	compare = append(compare, compareBy("key", descending))
	return func(a, b modelEntry) int {
		for _, by := range compare {
			if order := by(a, b); order != 0 {
				return order
			}
		}
		return 0
	}
}

func sendQuery(t testing.TB, body map[string]any) *response {
	t.Helper()
	needsSupabase(t)
	text, err := json.Marshal(body)
	require.NoError(t, err)
	return call(t, http.MethodPost, queryPath, bodyOf(text))
}

func bodyOf(text []byte) option { return body(string(text)) }

type queryPage struct {
	Results []struct {
		Key   string
		Value json.RawMessage
	}
	Pagination struct {
		HasMore    bool
		NextCursor *string
	}
	Notices []struct{ Code string }
}

// queryAll pages through a query by cursor if there is one, otherwise by offset.
func queryAll(t testing.TB, body map[string]any) (keys, values []string) {
	t.Helper()
	for {
		a := sendQuery(t, body)
		require.Equal(t, http.StatusOK, a.status, "%v", a)
		var p queryPage
		require.NoError(t, json.Unmarshal(a.body, &p))
		for _, r := range p.Results {
			keys, values = append(keys, r.Key), append(values, string(r.Value))
		}
		switch {
		case !p.Pagination.HasMore:
			return keys, values
		case p.Pagination.NextCursor != nil:
			delete(body, "offset") // the first page may be cached from before the path had an index
			body["cursor"] = *p.Pagination.NextCursor
		default:
			require.Contains(t, p.Notices, struct{ Code string }{"no_cursor"})
			delete(body, "cursor")
			body["offset"] = len(keys)
		}
		require.NotEmpty(t, p.Results)
	}
}

// TestQueriesMatchTheModel compares random queries with the model. E2E_SEED repeats a run, and E2E_QUERIES sets the
// number of queries.
func TestQueriesMatchTheModel(t *testing.T) {
	needsSupabase(t)
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("E2E_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	n := setting(t, "E2E_QUERIES", 100)
	prefix := newPrefix()
	q := randomQueries{Rand: rand.New(rand.NewPCG(seed, 1)), prefix: prefix}
	q.indexKeys = []string{prefix + "z:i", prefix + "z", prefix + "z:i:a", prefix + "nobody's"}
	entries := q.writeEntries(t, 300)
	const shares = 8
	for share := range shares {
		t.Run(fmt.Sprint(share), func(t *testing.T) {
			t.Parallel()
			q := q
			q.Rand = rand.New(rand.NewPCG(seed, uint64(2+share)))
			q.compare(t, entries, (n+shares-1)/shares, fmt.Sprintf("seed %d", seed))
		})
	}
}

// writeEntries writes n random entries and returns them with their index entries.
func (q randomQueries) writeEntries(t *testing.T, n int) (entries []modelEntry) {
	members := map[string][]string{}
	var rest []modelEntry
	for i := range n {
		e := q.entry(i)
		entries = append(entries, e)
		first := false
		for _, x := range e.indexes {
			if !slices.Contains(members[x.key], x.member) {
				members[x.key] = append(members[x.key], x.member)
				first = true
			}
		}
		if first { // in the order of the members
			upsert(t, e.key, e.text, e.indexes...)
		} else {
			rest = append(rest, e)
		}
	}
	require.NoError(t, inParallel(8, len(rest), func(i int) error { return tryUpsert(rest[i].key, rest[i].text, rest[i].indexes...) }))
	for key, list := range members {
		entries = append(entries, modelEntry{key: key, text: membersJSON(list), isIndex: true})
	}
	return entries
}

// compare sends n random queries and compares the results with the model's.
func (q randomQueries) compare(t *testing.T, entries []modelEntry, n int, message string) {
	for i := range n {
		request := map[string]any{"limit": []int{1 + q.IntN(20), 1000}[q.IntN(2)]}
		matches := q.filters(request)
		compare := q.order(request)
		var want []modelEntry
		for _, e := range entries {
			if matches(e) {
				want = append(want, e)
			}
		}
		slices.SortFunc(want, compare)
		var keys, values []string
		for _, e := range want {
			keys, values = append(keys, e.key), append(values, e.text)
		}
		text, err := json.Marshal(request)
		require.NoError(t, err)
		gotKeys, gotValues := queryAll(t, request)
		message := fmt.Sprintf("query %d, %s: %s", i, message, text)
		require.Equal(t, keys, gotKeys, message)
		require.Equal(t, values, gotValues, message)
		q.compareAggregates(t, request, want, message)
	}
}

// compareAggregates requests aggregates of the matches, and of groups of them.
func (q randomQueries) compareAggregates(t *testing.T, request map[string]any, matches []modelEntry, message string) {
	for _, name := range []string{"limit", "cursor", "offset", "sort"} {
		delete(request, name)
	}
	path, groupBy := pick(q.Rand, modelPaths), pick(q.Rand, modelPaths)
	request["aggregate"] = []any{map[string]any{"op": "count"}, map[string]any{"op": "count", "path": path}, map[string]any{"op": "sum", "path": path},
		map[string]any{"op": "min", "path": path}, map[string]any{"op": "max", "path": path}, map[string]any{"op": "distinct", "path": path}}
	request["groupBy"] = groupBy
	a := sendQuery(t, request)
	require.Equal(t, http.StatusOK, a.status, "%v", a)
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.UseNumber()
	type result struct {
		Value    any
		Excluded *int
	}
	var got struct {
		Aggregates []result
		Groups     []struct {
			Group      any
			Absent     bool
			Aggregates []result
		}
	}
	require.NoError(t, d.Decode(&got))
	check := func(matches []modelEntry, got []result) {
		var distinct []any
		var numbers []*big.Rat
		var texts []string
		present, sum := 0, new(big.Rat)
		for _, e := range matches {
			value := e.at(path)
			if sortClass(value) == 3 {
				continue
			}
			present++
			if !slices.ContainsFunc(distinct, func(other any) bool { return equalJSON(other, value) }) {
				distinct = append(distinct, value)
			}
			if x := number(value); x != nil {
				numbers = append(numbers, x)
				sum.Add(sum, x)
			} else if text, ok := value.(string); ok {
				texts = append(texts, text)
			}
		}
		excluded := len(matches) - len(numbers)
		require.Equal(t, json.Number(strconv.Itoa(len(matches))), got[0].Value, message)
		require.Equal(t, json.Number(strconv.Itoa(present)), got[1].Value, message)
		require.Zero(t, sum.Cmp(number(got[2].Value)), "sum %v, want %s: %s", got[2].Value, sum, message)
		require.Equal(t, excluded, *got[2].Excluded, message)
		require.Equal(t, json.Number(strconv.Itoa(len(distinct))), got[5].Value, message)
		switch {
		case len(numbers) > 0:
			byValue := func(a, b *big.Rat) int { return a.Cmp(b) }
			require.Zero(t, slices.MinFunc(numbers, byValue).Cmp(number(got[3].Value)), message)
			require.Zero(t, slices.MaxFunc(numbers, byValue).Cmp(number(got[4].Value)), message)
		case len(texts) > 0:
			require.Equal(t, slices.Min(texts), got[3].Value, message)
			require.Equal(t, slices.Max(texts), got[4].Value, message)
			excluded = len(matches) - len(texts)
		default:
			require.Nil(t, got[3].Value, message)
			require.Nil(t, got[4].Value, message)
		}
		require.Equal(t, excluded, *got[3].Excluded, message)
	}
	check(matches, got.Aggregates)

	var groups []any
	for _, e := range matches {
		if value := e.at(groupBy); !slices.ContainsFunc(groups, func(other any) bool { return equalJSON(other, value) }) {
			groups = append(groups, value)
		}
	}
	require.Len(t, got.Groups, len(groups), "groups by %s: %s\n%v", groupBy, message, a)
	last := 0
	for _, group := range got.Groups {
		value := group.Group
		if group.Absent {
			value = absentValue{}
		}
		require.GreaterOrEqual(t, sortClass(value), last, "groups by %s are in order: %s", groupBy, message)
		last = sortClass(value)
		var members []modelEntry
		for _, e := range matches {
			if equalJSON(e.at(groupBy), value) {
				members = append(members, e)
			}
		}
		require.NotEmpty(t, members, message)
		check(members, group.Aggregates)
	}
}
