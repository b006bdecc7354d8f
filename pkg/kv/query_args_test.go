package kv

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func argsText(t testing.TB, q Query) string {
	t.Helper()
	require.NoError(t, q.Validate())
	text, err := json.Marshal(q.args())
	require.NoError(t, err)
	return string(text)
}

func TestTheDatabaseIsAskedWithEveryDefaultFilledIn(t *testing.T) {
	t.Parallel()
	const all = `"select":[{"name":"key"},{"name":"value"},{"name":"indexes"},{"name":"createdAt"},{"name":"updatedAt"}]`
	const byKey = `{"prefix":"","terms":[],"filter":null,"search":null,"where":[],"sort":[{"by":"key","desc":false}],"question":"<digest>",` + all
	spelled := func(text string) IndexFilter { return IndexFilter{Spelled: text} }
	everything := Query{
		Prefix: `a"%`,
		Indexes: &IndexFilter{All: []IndexFilter{
			spelled("a:b"), {Not: &IndexFilter{Any: []IndexFilter{{Exact: Index{"a:b", "c"}}, {Exact: Index{Key: "k"}}}}}, {All: []IndexFilter{spelled("a:b")}},
		}},
		Search: Search{{{Text: "x y"}, {Text: "z", Not: true}}, {{Text: "p", Prefix: true}}},
		Where: []Condition{{Path: Path{"a", "0"}, Op: OpGte, Value: "1.50"}, {Path: Path{""}, Op: OpExists, Value: "false"}, {Path: Path{"b"}, Op: OpIn, Value: `[1e3, null]`},
			{By: "key", Op: OpLt, Value: `"k"`}},
		Select: []Field{{Name: "key"}, {Name: "value.a.0", Path: Path{"a", "0"}}},
		Sort:   []SortKey{{Path: Path{"a/b", "~"}, Descending: true}},
		Limit:  7, PageBytes: 1000,
	}
	everything.After = &Cursor{Question: digest(everything.question()), Position: "[0,1.50]", Key: "k"}
	for name, c := range map[string]struct {
		query Query
		want  string
	}{
		"Nothing": {Query{}, byKey + `,"limit":100,"offset":0,"page_bytes":4500000,"after":null,"aggregates":[],"group":null}`},
		"EverythingAnEntryIsFoundBy": {everything, `{"prefix":"a\"%","terms":[{"spelled":"a:b"},{"key":"a:b","member":"c"},{"key":"k","member":""}],"filter":["and",1,["not",["or",2,3]]],` +
			`"search":[[{"text":"x y"},{"text":"z","not":true}],[{"text":"p","prefix":true}]],` +
			`"where":[{"by":"path","path":["a","0"],"op":"gte","value":1.50},{"by":"path","path":[""],"op":"exists","value":false},{"by":"path","path":["b"],"op":"in","value":[1e3,null]},` +
			`{"by":"key","op":"lt","value":"k"}],"sort":[{"by":"path","path":["a/b","~"],"desc":true}],"question":"<digest>",` +
			`"select":[{"name":"key"},{"name":"value.a.0","path":["a","0"]}],` +
			`"limit":7,"offset":0,"page_bytes":1000,"after":{"position":[0,1.50],"key":"k"},"aggregates":[],"group":null}`},
		"SeveralOrders": {Query{Sort: []SortKey{{By: "updatedAt", Descending: true}, {By: "key"}, {Path: Path{"a"}}}, Offset: 5}, `{"prefix":"","terms":[],"filter":null,"search":null,"where":[],` +
			`"sort":[{"by":"updatedAt","desc":true},{"by":"key","desc":false}],"question":"<digest>",` + all + `,"limit":100,"offset":5,"page_bytes":4500000,"after":null,"aggregates":[],"group":null}`},
		"KeyFirst": {Query{Sort: []SortKey{{By: "key", Descending: true}, {Path: Path{"a"}}}}, `{"prefix":"","terms":[],"filter":null,"search":null,"where":[],` +
			`"sort":[{"by":"key","desc":true}],"question":"<digest>",` + all + `,"limit":100,"offset":0,"page_bytes":4500000,"after":null,"aggregates":[],"group":null}`},
		"Relevance": {Query{Search: Search{{{Text: "a"}}}, Sort: []SortKey{{By: "relevance"}}}, `{"prefix":"","terms":[],"filter":null,"search":[[{"text":"a"}]],"where":[],` +
			`"sort":[{"by":"relevance","desc":false}],"question":"<digest>",` + all + `,"limit":100,"offset":0,"page_bytes":4500000,"after":null,"aggregates":[],"group":null}`},
		"Groups": {Query{Aggregates: []Aggregate{{Op: "count"}, {Op: "sum", Path: Path{"a"}, Name: "/a"}, {Op: "max", By: "updatedAt", Name: "updatedAt"}}, GroupBy: &Grouping{Index: "i"}},
			byKey + `,"limit":10000,"offset":0,"page_bytes":4500000,"after":null,` +
				`"aggregates":[{"op":"count"},{"op":"sum","path":["a"],"name":"/a"},{"op":"max","by":"updatedAt","name":"updatedAt"}],"group":{"index":"i"}}`},
		"GroupsByPath": {Query{Aggregates: []Aggregate{{Op: "count"}}, GroupBy: &Grouping{Path: Path{"a"}}, Limit: 3},
			byKey + `,"limit":3,"offset":0,"page_bytes":4500000,"after":null,"aggregates":[{"op":"count"}],"group":{"path":["a"]}}`},
		"GroupsByAnOwnField": {Query{Aggregates: []Aggregate{{Op: "count"}}, GroupBy: &Grouping{By: "createdAt"}},
			byKey + `,"limit":10000,"offset":0,"page_bytes":4500000,"after":null,"aggregates":[{"op":"count"}],"group":{"by":"createdAt"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, strings.Replace(c.want, "<digest>", digest(c.query.question()), 1), argsText(t, c.query))
		})
	}
}

// What the functions' parser never makes, but a caller in Go could: nothing of it is left out, or sent broken.
func TestAQueryThatCannotBeAskedIsRefused(t *testing.T) {
	t.Parallel()
	leaf := IndexFilter{Spelled: "a:b"}
	deep := leaf
	for range 2*MaxGroupDepth + 1 {
		deep = IndexFilter{All: []IndexFilter{deep}}
	}
	filter := func(f IndexFilter) Query { return Query{Indexes: &f} }
	sorted := func(keys ...SortKey) Query { return Query{Sort: keys} }
	question := digest(Query{}.question())
	where := func(path Path, op Op, value string) Query {
		return Query{Where: []Condition{{Path: path, Op: op, Value: value}}}
	}
	count := []Aggregate{{Op: "count"}}
	for want, q := range map[string]Query{
		"prefix must not contain U+0000":                                                             {Prefix: "\x00"},
		"prefix must be at most 1024 bytes, got 1025: no key is longer":                              {Prefix: rep("a", 1025)},
		"an index filter must be exactly one of all, any, not or an index":                           filter(IndexFilter{}),
		"an index must be at most 1024 bytes, got 1025":                                              filter(IndexFilter{Exact: Index{"a", TextMember(rep("b", 1023))}}),
		"an index must name an index":                                                                filter(IndexFilter{Any: []IndexFilter{{Exact: Index{Member: "m"}}}}),
		`an index must be "<key>:<member>", got "a"`:                                                 filter(IndexFilter{Spelled: "a"}),
		"index groups must be nested at most 10 levels deep":                                         filter(deep),
		"indexes and indexKeys may name 100 indexes together, got 101":                               filter(IndexFilter{Any: repeat(leaf, 101)}),
		"search must have a word or phrase":                                                          {Search: Search{}},
		"search must have a word or phrase in each branch":                                           {Search: Search{{}}},
		`search has no word in "..": give letters or digits to look for`:                             {Search: Search{{{Text: ".."}}}},
		"search must be valid UTF-8 without U+0000":                                                  {Search: Search{{{Text: "a\x00"}}}},
		"search must be at most 2000 bytes, got 2001":                                                {Search: Search{{{Text: rep("a", 2001)}}}},
		"search must have at most 100 words and phrases, got 101":                                    {Search: Search{repeat(SearchTerm{Text: "a"}, 101)}},
		"where must have at most 100 conditions, got 101":                                            {Where: repeat(Condition{Path: Path{"a"}, Op: OpEq, Value: "1"}, 101)},
		"where[0].path: a path must not be empty":                                                    where(nil, OpEq, "1"),
		"where[0].op must be one of eq, ne, gt, gte, lt, lte, in, exists, contains, got \"\"":        where(Path{"a"}, "", "1"),
		"where[0].value must be JSON":                                                                where(Path{"a"}, OpEq, ""),
		"where[0].value must not hold half of a surrogate pair":                                      where(Path{"a"}, OpEq, `"\ud800"`),
		"where[0].value must not contain U+0000":                                                     where(Path{"a"}, OpEq, `{"\u0000":1}`),
		"where[0].value must be a number or a string for lt":                                         where(Path{"a"}, OpLt, "[]"),
		"sort[0]: must be by a path or one of key, createdAt, updatedAt, relevance, got \"created\"": sorted(SortKey{By: "created"}),
		"sort[0]: a path must not be empty":                                                          sorted(SortKey{}),
		"sort[0]: relevance needs a search":                                                          sorted(SortKey{By: "relevance"}),
		"sort must have at most 10 elements, got 11":                                                 sorted(repeat(SortKey{By: "key"}, 11)...),
		"limit must be 1 to 10000, got 10001":                                                        {Limit: 10001},
		"limit must be 1 to 10000, got -1":                                                           {Limit: -1},
		"offset must be 0 or more, got -1":                                                           {Offset: -1},
		"a page must be 1 to 4500000 bytes, got -1":                                                  {PageBytes: -1},
		"a page must be 1 to 4500000 bytes, got 4500001":                                             {PageBytes: MaxPageBytes + 1},
		"cursor belongs to another question: it goes on with the prefix, the filters and the order of the page that it came with, and no others": {After: &Cursor{Question: "q", Position: "null", Key: "k"}},
		"cursor must be the nextCursor of an earlier answer":                                                                                {After: &Cursor{Question: question, Position: "1", Key: "k"}},
		"cursor cannot be combined with this sort: go on with offset":                                                                       {Sort: []SortKey{{By: "createdAt"}, {By: "key"}}, After: &Cursor{Question: "q", Position: "1", Key: "k"}},
		"offset cannot be combined with cursor: a cursor says already where to go on":                                                       {Offset: 1, After: &Cursor{Question: question, Position: "null", Key: "k"}},
		"select must have at most 100 fields, got 101":                                                                                      {Select: repeat(Field{Name: "key"}, 101)},
		"select[0]: must be value.<path> or one of key, value, indexes, createdAt, updatedAt, got \"id\"":                                   {Select: []Field{{Name: "id"}}},
		"select[0] must be valid UTF-8 without U+0000":                                                                                      {Select: []Field{{Name: "value.\xff", Path: Path{"a"}}}},
		"groupBy needs aggregate, as in [{\"op\":\"count\"}]":                                                                               {GroupBy: &Grouping{Index: "i"}},
		"sort, select, cursor and offset cannot be combined with aggregate":                                                                 {Aggregates: count, Offset: 1},
		"limit bounds the groups of an aggregate: it needs groupBy":                                                                         {Aggregates: count, Limit: 1},
		"groupBy must not contain U+0000":                                                                                                   {Aggregates: count, GroupBy: &Grouping{Index: "\x00"}},
		"groupBy: a path must not be empty":                                                                                                 {Aggregates: count, GroupBy: &Grouping{Path: Path{}}},
		"aggregate must have at most 20 elements, got 21":                                                                                   {Aggregates: repeat(count[0], 21)},
		"aggregate[0].op must be one of count, sum, avg, min, max, distinct, got \"mode\"":                                                  {Aggregates: []Aggregate{{Op: "mode"}}},
		"aggregate[0].path must lead to numbers for sum: key is none":                                                                       {Aggregates: []Aggregate{{Op: "sum", By: "key", Name: "key"}}},
		`aggregate[0].path must be a path or one of key, createdAt, updatedAt, got "created"`:                                               {Aggregates: []Aggregate{{Op: "max", By: "created", Name: "created"}}},
		`groupBy must be a path, index:<index key> or one of key, createdAt, updatedAt, got "created"`:                                      {Aggregates: count, GroupBy: &Grouping{By: "created"}},
		`indexes may be read as 1024 pairs of key and member together, got 1025, one for each colon: name the pair as {"key":…,"member":…}`: filter(IndexFilter{Any: []IndexFilter{{Spelled: "a" + rep(":", 1022) + "b"}, {Not: &leaf}, {All: []IndexFilter{leaf, {Spelled: "c::d"}}}}}),
		"aggregate[0].path is needed for max":                                                                                               {Aggregates: []Aggregate{{Op: "max"}}},
		"aggregate[0].path must be valid UTF-8 without U+0000":                                                                              {Aggregates: []Aggregate{{Op: "max", Path: Path{"a"}, Name: "\xff"}}},
	} {
		require.EqualError(t, q.Validate(), "invalid_input: "+want)
	}
	both := filter(IndexFilter{All: []IndexFilter{leaf}, Any: []IndexFilter{leaf}})
	require.EqualError(t, both.Validate(), "invalid_input: an index filter must be exactly one of all, any, not or an index")
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
		q := Query{Sort: []SortKey{{Path: Path{"a"}}}}
		q.After = &Cursor{Question: digest(q.question()), Position: "[0," + number + "]", Key: "k"}
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
	f.Fuzz(func(t *testing.T, prefix, index, path, op, value, search, position string) {
		var q Query
		q.Prefix, q.Indexes = prefix, &IndexFilter{Not: &IndexFilter{Spelled: index}}
		q.Search, _ = ParseSearch(search)
		p, err := ParsePath(path)
		if err != nil {
			return
		}
		q.Where = []Condition{{Path: p, Op: Op(op), Value: value}}
		q.Select = []Field{{"value." + path, p}}
		if position != "null" {
			q.Sort = []SortKey{{Path: p}}
		}
		if json.Valid([]byte(value)) && position != "" {
			q.After = &Cursor{Question: digest(q.question()), Position: position, Key: "<k>"}
		}
		if q.Validate() != nil {
			return
		}
		var got struct {
			Prefix string
			Terms  []map[string]string
			Filter json.RawMessage
			Search Search
			Where  []struct {
				Path  Path
				Op    Op
				Value json.RawMessage
			}
			Select []struct {
				Name string
				Path Path
			}
			Question string
			After    *struct {
				Position json.RawMessage
				Key      string
			}
		}
		text := argsText(t, q)
		require.NoError(t, json.Unmarshal([]byte(text), &got))
		require.Equal(t, prefix, got.Prefix)
		require.Equal(t, []map[string]string{{"spelled": index}}, got.Terms)
		require.Equal(t, `["not",1]`, string(got.Filter))
		require.Equal(t, q.Search, got.Search)
		require.Len(t, got.Where, 1)
		require.Equal(t, p, got.Where[0].Path)
		require.Equal(t, Op(op), got.Where[0].Op)
		require.Equal(t, tokens(value), tokens(string(got.Where[0].Value)))
		require.Equal(t, p, got.Select[0].Path)
		require.Equal(t, "value."+path, got.Select[0].Name)
		require.Equal(t, digest(q.question()), got.Question)
		if q.After != nil {
			require.Equal(t, q.After.Key, got.After.Key)
			require.Equal(t, tokens(q.After.Position), tokens(string(got.After.Position)))
		}
	})
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
