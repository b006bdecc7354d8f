package kv

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
)

func jsonText(text string) jsontext.Value { return jsontext.Value(text) }

func TestTheDatabaseIsAskedWithEveryDefaultFilledIn(t *testing.T) {
	t.Parallel()
	const unfiltered = `{"prefix":"","indexes":null,"indexKeys":null,"search":[],"where":[],`
	const byKey = unfiltered + `"sort":[{"path":"key","descending":false}],`
	const all = `"select":["key","value","indexes","createdAt","updatedAt"],`
	const page = `"limit":100,"offset":null,"cursor":null,"pageBytes":4500000,"aggregate":[],"groupBy":""}`
	everything := Query{
		Prefix: `a"%`,
		Indexes: &IndexFilter{
			All:  []IndexFilter{{Pair: "a:b"}, {All: []IndexFilter{{Pair: "c:d"}}}},
			None: []IndexFilter{{Exact: Index{"a:b", NumberMember("5")}}},
		},
		IndexKeys: &IndexFilter{Any: []IndexFilter{{Exact: Index{Key: "k"}}}},
		Search:    Search{{{Text: "x y"}, {Text: "z", Not: true}}, {{Text: "p", Prefix: true}}},
		Where: []Condition{{Path: "a.0", Op: OpGte, Value: jsonText("1.50")}, {Path: "/", Op: OpExists}, {Path: "b", Op: OpIn, Value: jsonText(`[1e3, null]`)},
			{Path: "key", Op: OpLt, Value: jsonText(`"k"`)}},
		Select: []Field{"key", "value.a.0"},
		Sort:   []SortKey{{Path: "/a~1b/~0", Descending: true}},
		Limit:  7, PageBytes: 1000,
	}
	everything.After = &Cursor{Question: everything.question(), Position: jsonText("[0,1.50]"), Key: "k"}
	for name, c := range map[string]struct {
		query Query
		want  string
	}{
		"Nothing": {Query{}, byKey + all + page},
		"EverythingAnEntryIsFoundBy": {everything, `{"prefix":"a\"%","indexes":{"all":[{"pair":"a:b"},{"all":[{"pair":"c:d"}]}],"none":[{"exact":{"key":"a:b","member":"\u00015"}}]},` +
			`"indexKeys":{"any":[{"exact":{"key":"k","member":""}}]},"search":[[{"text":"x y"},{"text":"z","not":true}],[{"text":"p","prefix":true}]],` +
			`"where":[{"path":"/a/0","op":"gte","value":1.50},{"path":"/","op":"exists","value":true},{"path":"/b","op":"in","value":[1e3,null]},` +
			`{"path":"key","op":"lt","value":"k"}],"sort":[{"path":"/a~1b/~0","descending":true}],"select":["key","value.a.0"],` +
			`"limit":7,"offset":null,"cursor":{"question":"` + everything.question() + `","position":[0,1.50],"key":"k"},"pageBytes":1000,"aggregate":[],"groupBy":""}`},
		"SeveralOrders": {Query{Sort: []SortKey{{Path: "updatedAt", Descending: true}, {Path: "key"}, {Path: "a"}}, Offset: new(5)},
			unfiltered + `"sort":[{"path":"updatedAt","descending":true},{"path":"key","descending":false}],` + all + strings.Replace(page, `"offset":null`, `"offset":5`, 1)},
		"KeyFirst": {Query{Sort: []SortKey{{Path: "key", Descending: true}, {Path: "a"}}}, unfiltered + `"sort":[{"path":"key","descending":true}],` + all + page},
		"Relevance": {Query{Search: Search{{{Text: "a"}}}, Sort: []SortKey{{Path: Relevance, Descending: true}}},
			strings.Replace(unfiltered, `"search":[]`, `"search":[[{"text":"a"}]]`, 1) + `"sort":[{"path":"relevance","descending":true}],` + all + page},
		"Groups": {Query{Aggregates: []Aggregate{{Op: "count"}, {Op: "sum", Path: "/a"}, {Op: "max", Path: "updatedAt"}}, GroupBy: "index:i"},
			byKey + all + `"limit":10000,"offset":null,"cursor":null,"pageBytes":4500000,"aggregate":[{"op":"count"},{"op":"sum","path":"/a"},{"op":"max","path":"updatedAt"}],"groupBy":"index:i"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.NoError(t, c.query.Validate())
			require.Equal(t, c.want, encodeArgs(c.query.complete()))
		})
	}
}

// What the functions' parser never makes, but a caller in Go could: nothing of it is left out, or sent broken.
func TestAQueryThatCannotBeAskedIsRefused(t *testing.T) {
	t.Parallel()
	leaf := IndexFilter{Pair: "a:b"}
	deep := leaf
	for range MaxGroupDepth {
		deep = IndexFilter{All: []IndexFilter{deep}}
	}
	filter := func(f IndexFilter) Query { return Query{Indexes: &IndexFilter{All: []IndexFilter{f}}} }
	sorted := func(keys ...SortKey) Query { return Query{Sort: keys} }
	question := Query{}.question()
	where := func(path Path, op Op, value string) Query {
		return Query{Where: []Condition{{Path: path, Op: op, Value: jsontext.Value(value)}}}
	}
	count := []Aggregate{{Op: "count"}}
	for want, q := range map[string]Query{
		"prefix must not contain U+0000":                                                         {Prefix: "\x00"},
		"prefix must be at most 1024 bytes, got 1025: no key is longer":                          {Prefix: rep("a", 1025)},
		"indexes.all[0] must not be an empty group":                                              filter(IndexFilter{}),
		"indexes.all[0] must be at most 1024 bytes, got 1025":                                    filter(IndexFilter{Exact: Index{"a", TextMember(rep("b", 1023))}}),
		"indexes.all[0].any[0] must name an index":                                               filter(IndexFilter{Any: []IndexFilter{{Exact: Index{Member: "m"}}}}),
		`indexes.all[0] must be "<key>:<member>", got "a"`:                                       filter(IndexFilter{Pair: "a"}),
		"indexes" + rep(".all[0]", 10) + ": groups must be nested at most 10 levels deep":        filter(deep),
		"indexes and indexKeys may name 100 indexes together, got 101":                           filter(IndexFilter{Any: repeat(leaf, 101)}),
		"search must have a word or phrase":                                                      {Search: Search{}},
		"search must have a word or phrase in each branch":                                       {Search: Search{{}}},
		`search has no word in "..": give letters or digits to look for`:                         {Search: Search{{{Text: ".."}}}},
		"search must be valid UTF-8 without U+0000":                                              {Search: Search{{{Text: "a\x00"}}}},
		"search must be at most 2000 bytes, got 2001":                                            {Search: Search{{{Text: rep("a", 2001)}}}},
		"search must have at most 100 words and phrases, got 101":                                {Search: Search{repeat(SearchTerm{Text: "a"}, 101)}},
		"where must have at most 100 conditions, got 101":                                        {Where: repeat(Condition{Path: "a", Op: OpEq, Value: jsonText("1")}, 101)},
		`where[0].path: a path must be like score, stops.0.title or /a~1b, got ""`:               where("", OpEq, "1"),
		"where[0].op must be one of eq, ne, gt, gte, lt, lte, in, exists, contains, got nothing": where("a", "", "1"),
		"where[0].value must be JSON":                                                            where("a", OpEq, "["),
		"where[0].value must not hold half of a surrogate pair":                                  where("a", OpEq, `"\ud800"`),
		"where[0].value must not contain U+0000":                                                 where("a", OpEq, `{"\u0000":1}`),
		"where[0].value must be a number or a string for lt":                                     where("a", OpLt, "[]"),
		`sort[0]: a path must be like score, stops.0.title or /a~1b, got ""`:                     sorted(SortKey{}),
		"sort[0]: relevance needs a search":                                                      sorted(SortKey{Path: "relevance"}),
		"sort must have at most 10 elements, got 11":                                             sorted(repeat(SortKey{Path: "key"}, 11)...),
		"limit must be 1 to 10000, got 10001":                                                    {Limit: 10001},
		"limit must be 1 to 10000, got -1":                                                       {Limit: -1},
		"offset must be 0 or more, got -1":                                                       {Offset: new(-1)},
		"a page must be 1 to 4500000 bytes, got -1":                                              {PageBytes: -1},
		"a page must be 1 to 4500000 bytes, got 4500001":                                         {PageBytes: MaxPageBytes + 1},
		"cursor belongs to another question: it goes on with the prefix, the filters and the order of the page that it came with, and no others": {After: &Cursor{Question: "q", Key: "k"}},
		"cursor must be the nextCursor of an earlier answer":                                                                                {After: &Cursor{Question: question, Position: jsonText("1"), Key: "k"}},
		"cursor cannot be combined with this sort: go on with offset":                                                                       {Sort: []SortKey{{Path: "createdAt"}, {Path: "key"}}, After: &Cursor{Question: "q", Position: jsonText("1"), Key: "k"}},
		"offset cannot be combined with cursor: a cursor says already where to go on":                                                       {Offset: new(1), After: &Cursor{Question: question, Key: "k"}},
		"select must have at most 100 fields, got 101":                                                                                      {Select: repeat(Field("key"), 101)},
		"select[0]: must be value.<path> or one of key, value, indexes, createdAt, updatedAt, got \"id\"":                                   {Select: []Field{"id"}},
		"select[0]: a path must be valid UTF-8 without U+0000":                                                                              {Select: []Field{"value.\xff"}},
		"groupBy needs aggregate, as in [{\"op\":\"count\"}]":                                                                               {GroupBy: "index:i"},
		"sort, select, cursor and offset cannot be combined with aggregate":                                                                 {Aggregates: count, Offset: new(1)},
		"limit bounds the groups of an aggregate: it needs groupBy":                                                                         {Aggregates: count, Limit: 1},
		"groupBy must not contain U+0000":                                                                                                   {Aggregates: count, GroupBy: "index:\x00"},
		`groupBy: a path must be like score, stops.0.title or /a~1b, got "."`:                                                               {Aggregates: count, GroupBy: "."},
		"aggregate must have at most 20 elements, got 21":                                                                                   {Aggregates: repeat(count[0], 21)},
		"aggregate[0].op must be one of count, sum, avg, min, max, distinct, got \"mode\"":                                                  {Aggregates: []Aggregate{{Op: "mode"}}},
		"aggregate[0].path must lead to numbers for sum, and key does not":                                                                  {Aggregates: []Aggregate{{Op: "sum", Path: "key"}}},
		`indexes may be read as 1024 pairs of key and member together, got 1025, one for each colon: name the pair as {"key":…,"member":…}`: filter(IndexFilter{Any: []IndexFilter{{Pair: "a" + rep(":", 1022) + "b"}, {None: []IndexFilter{leaf}}, {All: []IndexFilter{leaf, {Pair: "c::d"}}}}}),
		"aggregate[0].path is needed for max":                                                                                               {Aggregates: []Aggregate{{Op: "max"}}},
		"aggregate[0].path: a path must be valid UTF-8 without U+0000":                                                                      {Aggregates: []Aggregate{{Op: "max", Path: "\xff"}}},
	} {
		require.EqualError(t, q.Validate(), "invalid_input: "+want)
	}
	for _, both := range []IndexFilter{{Pair: "a:b", Any: []IndexFilter{leaf}}, {Pair: "a:b", Exact: Index{Key: "a"}}, {Exact: Index{Key: "a"}, None: []IndexFilter{leaf}}} {
		require.EqualError(t, filter(both).Validate(), "invalid_input: indexes.all[0] must be either a group or one index")
	}
}

func repeat[T any](value T, n int) []T {
	values := make([]T, n)
	for i := range values {
		values[i] = value
	}
	return values
}

func TestACursorTakesAnyNumberThatIsStored(t *testing.T) {
	t.Parallel()
	for number, ok := range map[string]bool{
		"1.50": true, "-0.0001": true, rep("9", 131072) + "." + rep("1", 16383): true, "-" + rep("9", 20000): true,
		"1e3": false, "01": false, "1.": false, "+1": false, "null": false, rep("9", 150000): false, "[1]": false,
	} {
		q := Query{Sort: []SortKey{{Path: "a"}}}
		q.After = &Cursor{Question: q.question(), Position: jsonText("[0," + number + "]"), Key: "k"}
		require.Equal(t, ok, q.Validate() == nil, "%.20s", number)
	}
	_, err := ParseCursor(rep("x", 5_000_000))
	require.Less(t, len(err.Error()), 200)
}

// FuzzQueryArgs: what a valid query sends is JSON that says the same, with the bytes of every number.
func FuzzQueryArgs(f *testing.F) {
	f.Add("p", "a:b", "score", "gte", "1.50", "foo or -bar*", "")
	f.Add(`"\`, "$$:;--", "/a~1b", "in", `[1e5, "<&>\u2028", {"a":[]}]`, `"x y"`, "null")
	f.Add("", "::x", "a", "eq", `"\ud83d\ude00"`, "a", "[0,-1.50]")
	f.Add("", "a:b", "a", "contains", `{"b":1, "b":12345678901234567890}`, "a", `[1,"\u003c"]`)
	f.Fuzz(func(t *testing.T, prefix, index, path, op, text, search, position string) {
		q := Query{Prefix: prefix, Indexes: &IndexFilter{None: []IndexFilter{{Pair: index}}}}
		q.Search, _ = ParseSearch(search)
		q.Where = []Condition{{Path: Path(path), Op: Op(op), Value: jsonText(text)}}
		q.Select = []Field{Field("value." + path)}
		if position != "null" {
			q.Sort = []SortKey{{Path: Path(path)}}
		}
		if position != "" && q.Validate() == nil {
			q.After = &Cursor{Question: q.question(), Position: jsonText(position), Key: "<k>"}
		}
		if q.Validate() != nil {
			return
		}
		want := q.complete()
		var got Query
		require.NoError(t, jsonv2.Unmarshal([]byte(encodeArgs(want)), &got, jsontext.AllowDuplicateNames(true)))
		for _, pair := range [][2]*jsontext.Value{{&want.Where[0].Value, &got.Where[0].Value}, {&want.after().Position, &got.after().Position}} {
			require.Equal(t, tokens(string(*pair[0])), tokens(string(*pair[1])))
			*pair[0], *pair[1] = nil, nil
		}
		want.Search, want.Aggregates = append(Search{}, want.Search...), []Aggregate{} // none is written as an empty list
		require.Equal(t, want, got)
		require.Equal(t, q.question(), q.complete().question(), "what is complete asks the same")
	})
}

// after is where a page begins; nowhere where it is the first.
func (q Query) after() *Cursor {
	if q.After == nil {
		return &Cursor{}
	}
	return q.After
}

// tokens are what a JSON text says: strings decoded, numbers as they are written.
func tokens(text string) (all []json.Token) {
	decoder := json.NewDecoder(bytes.NewReader([]byte(strings.TrimSpace(text))))
	decoder.UseNumber()
	for {
		token, err := decoder.Token()
		if err != nil {
			return all
		}
		all = append(all, token)
	}
}
