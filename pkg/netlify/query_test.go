package netlify

import (
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

// asked is a store that keeps the query it was asked and answers with a text.
type asked struct {
	memory
	query  *kv.Query
	answer string
}

func (a *asked) Query(_ context.Context, q kv.Query) (string, error) {
	a.query = &q
	if len(q.Aggregates) > 0 && a.answer == noResults {
		return `{"aggregates":[],"groups":[]}`, q.Validate()
	}
	return a.answer, q.Validate()
}

const noResults = `{"results":[],"count":0,"pagination":{"limit":100,"offset":0,"hasMore":false,"nextCursor":null}}`

func getEvent(t testing.TB, query string) string {
	t.Helper()
	values, err := url.ParseQuery(query)
	require.NoError(t, err)
	params, err := json.Marshal(values)
	require.NoError(t, err)
	return event("GET", `"multiValueQueryStringParameters":`+string(params))
}

// ask runs kv-query and returns what the store was asked; nil if it was not.
func ask(t testing.TB, event string) (*kv.Query, response) {
	t.Helper()
	store := &asked{answer: noResults}
	r := invoke(t, Query(kv.Uncached(store), time.Second), event)
	return store.query, r
}

func spelled(texts ...string) (leaves []kv.IndexFilter) {
	for _, text := range texts {
		leaves = append(leaves, kv.IndexFilter{Pair: text})
	}
	return leaves
}

func value(text string) jsontext.Value { return jsontext.Value(text) }

func exact(key, member string) kv.IndexFilter {
	return kv.IndexFilter{Exact: kv.Index{Key: key, Member: kv.Member(member)}}
}

func TestAQueryIsReadFromBodyAndParameters(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		body   string // of a POST; "" where only GET says it
		params string // of a GET; "" where only POST says it
		want   kv.Query
	}{
		"Nothing":           {`{}`, "x=", kv.Query{}},
		"NullIsAbsent":      {`{"prefix":null,"indexes":null,"where":null,"limit":null,"sort":null,"cursor":null}`, "prefix=&limit=", kv.Query{}},
		"UnknownAndEmpty":   {`{"sessionId":null,"prefix":"a"}`, "sessionId=&prefix=a", kv.Query{Prefix: "a"}},
		"WhereOwn":          {`{"where":[{"path":"key","op":"gt","value":"a"},{"path":"/key","op":"exists"}]}`, "", kv.Query{Where: []kv.Condition{{Path: "key", Op: "gt", Value: value(`"a"`)}, {Path: "/key", Op: "exists"}}}},
		"RangeOfYears":      {`{"where":[{"path":"createdAt","op":"gte","value":"2026"},{"path":"createdAt","op":"lte","value":"2027-03"}]}`, "range=createdAt:2026..2027-03", kv.Query{Where: []kv.Condition{{Path: "createdAt", Op: "gte", Value: value(`"2026"`)}, {Path: "createdAt", Op: "lte", Value: value(`"2027-03"`)}}}},
		"RangeOfKeys":       {`{"where":[{"path":"key","op":"gte","value":"10"}]}`, "range=key:10..", kv.Query{Where: []kv.Condition{{Path: "key", Op: "gte", Value: value(`"10"`)}}}},
		"AggregateOwn":      {`{"aggregate":[{"op":"max","path":"updatedAt"}],"groupBy":"key"}`, "aggregate=max:updatedAt&groupBy=key", kv.Query{Aggregates: []kv.Aggregate{{Op: "max", Path: "updatedAt"}}, GroupBy: "key"}},
		"SortByMinus":       {`{"sort":["-a.b","-createdAt","c"]}`, "sort=-a.b,-createdAt&sort=c", kv.Query{Sort: []kv.SortKey{{Path: "a.b", Descending: true}, {Path: "createdAt", Descending: true}, {Path: "c"}}}},
		"SortByMinusKey":    {`{"sort":"-key"}`, "sort=-key", kv.Query{Sort: []kv.SortKey{{Path: "key", Descending: true}}}},
		"SortPathWithMinus": {`{"sort":{"path":"-a"}}`, `sort={"path":"-a"}`, kv.Query{Sort: []kv.SortKey{{Path: "-a"}}}},
		"SortPathWithComma": {`{"sort":["a,b"]}`, `sort=["a,b"]`, kv.Query{Sort: []kv.SortKey{{Path: "a,b"}}}},
		"ByteOrderMark":     {`{"format":"csv","bom":true}`, "format=csv&bom=true", kv.Query{PageBytes: kv.MaxPageBytes / 2}},
		"NoByteOrderMark":   {`{"bom":false}`, "bom=false", kv.Query{}},
		"IndexAll":          {`{"indexes":{"all":["a:b","c:d"]}}`, "index=a:b&index=c:d", kv.Query{Indexes: &kv.IndexFilter{All: spelled("a:b", "c:d")}}},
		"IndexAny":          {`{"indexes":{"any":["a:b","c:d"]}}`, "index=a:b&index=c:d&match=any", kv.Query{Indexes: &kv.IndexFilter{Any: spelled("a:b", "c:d")}}},
		"IndexNone":         {`{"indexes":{"none":["a:b"]}}`, `indexes={"none":["a:b"]}`, kv.Query{Indexes: &kv.IndexFilter{None: spelled("a:b")}}},
		"IndexNumber":       {`{"indexes":{"all":[{"key":"a","member":5.0},{"key":5,"member":"5.0"}]}}`, "", kv.Query{Indexes: &kv.IndexFilter{All: []kv.IndexFilter{exact("a", "\x015.0"), exact("5", "5.0")}}}},
		"IndexExact":        {`{"indexes":{"all":[{"key":"a:b","member":"c"}]}}`, "", kv.Query{Indexes: &kv.IndexFilter{All: []kv.IndexFilter{exact("a:b", "c")}}}},
		"IndexKeys":         {`{"indexKeys":{"all":["a","b"]}}`, "indexKey=a&indexKey=b", kv.Query{IndexKeys: &kv.IndexFilter{All: []kv.IndexFilter{exact("a", ""), exact("b", "")}}}},
		"IndexAndKey":       {`{"indexes":{"all":["a:b"]},"indexKeys":{"all":["c"]}}`, "index=a:b&indexKey=c", kv.Query{Indexes: &kv.IndexFilter{All: spelled("a:b")}, IndexKeys: &kv.IndexFilter{All: []kv.IndexFilter{exact("c", "")}}}},
		"NestedGroups":      {`{"indexes":{"any":[{"all":["a:b","c:d"]},{"none":["e:f"]}]}}`, "", kv.Query{Indexes: &kv.IndexFilter{Any: []kv.IndexFilter{{All: spelled("a:b", "c:d")}, {None: spelled("e:f")}}}}},
		"EmptyGroup":        {`{"indexes":{},"indexKeys":{"all":[],"none":[]}}`, "", kv.Query{Indexes: &kv.IndexFilter{}, IndexKeys: &kv.IndexFilter{All: []kv.IndexFilter{}, None: []kv.IndexFilter{}}}},
		"Search":            {`{"search":"foo -bar"}`, "q=foo -bar", kv.Query{Search: kv.Search{{{Text: "foo"}, {Text: "bar", Not: true}}}}},
		"SearchByItsName":   {`{"search":"foo"}`, "search=foo", kv.Query{Search: kv.Search{{{Text: "foo"}}}}},
		"Where":             {`{"where":[{"path":"a.0","op":"gte","value":1.50}]}`, `where=[{"path":"a.0","op":"gte","value":1.50}]`, kv.Query{Where: []kv.Condition{{Path: "a.0", Op: "gte", Value: value("1.50")}}}},
		"WhereExists":       {`{"where":[{"path":"/a~1b","op":"exists"}]}`, "", kv.Query{Where: []kv.Condition{{Path: "/a~1b", Op: "exists"}}}},
		"Range":             {`{"where":[{"path":"s","op":"gte","value":10},{"path":"s","op":"lte","value":20}]}`, "range=s:10..20", kv.Query{Where: []kv.Condition{{Path: "s", Op: "gte", Value: value("10")}, {Path: "s", Op: "lte", Value: value("20")}}}},
		"RangeFrom":         {`{"where":[{"path":"s","op":"gte","value":-1e3}]}`, "range=s:-1e3..", kv.Query{Where: []kv.Condition{{Path: "s", Op: "gte", Value: value("-1e3")}}}},
		"RangeOfText":       {`{"where":[{"path":"d","op":"lte","value":"2026-01-01T10:00"}]}`, "range=d:..2026-01-01T10:00", kv.Query{Where: []kv.Condition{{Path: "d", Op: "lte", Value: value(`"2026-01-01T10:00"`)}}}},
		"RangeAndWhere":     {"", `range=s:1..&where=[{"path":"t","op":"exists"}]`, kv.Query{Where: []kv.Condition{{Path: "t", Op: "exists"}, {Path: "s", Op: "gte", Value: value("1")}}}},
		"Select":            {`{"select":["key","value.a.b","key"]}`, "select=key,value.a.b&select=key", kv.Query{Select: []kv.Field{"key", "value.a.b"}}},
		"SelectPointer":     {`{"select":["value./a~1b"]}`, `select=["value./a~1b"]`, kv.Query{Select: []kv.Field{"value./a~1b"}}},
		"Sort":              {`{"sort":[{"path":"a","order":"desc"},{"path":"createdAt"}]}`, "sort=a:desc&sort=createdAt:asc", kv.Query{Sort: []kv.SortKey{{Path: "a", Descending: true}, {Path: "createdAt"}}}},
		"SortByOneText":     {`{"sort":"updatedAt:desc"}`, "sort=updatedAt:desc", kv.Query{Sort: []kv.SortKey{{Path: "updatedAt", Descending: true}}}},
		"SortByPointer":     {`{"sort":{"path":"/createdAt"}}`, "sort=/createdAt", kv.Query{Sort: []kv.SortKey{{Path: "/createdAt"}}}},
		"Relevance":         {`{"sort":"relevance","search":"a"}`, "sort=relevance&q=a", kv.Query{Search: kv.Search{{{Text: "a"}}}, Sort: []kv.SortKey{{Path: "relevance", Descending: true}}}},
		"Page":              {`{"limit":7,"offset":9}`, "limit=007&offset=9", kv.Query{Limit: 7, Offset: new(9)}},
		"Aggregates":        {`{"aggregate":[{"op":"count"},{"op":"sum","path":"a.b"}],"groupBy":"t"}`, "aggregate=count&aggregate=sum:a.b&groupBy=t", kv.Query{Aggregates: []kv.Aggregate{{Op: "count"}, {Op: "sum", Path: "a.b"}}, GroupBy: "t"}},
		"GroupsByIndex":     {`{"aggregate":[{"op":"count"}],"groupBy":"index:index:a","limit":5000}`, "aggregate=count&groupBy=index:index:a&limit=5000", kv.Query{Aggregates: []kv.Aggregate{{Op: "count"}}, GroupBy: "index:index:a", Limit: 5000}},
		"LargeExport":       {`{"format":"ndjson","limit":10000}`, "format=ndjson&limit=10000", kv.Query{Limit: 10000}},
		"CSVHasSmallPages":  {`{"format":"csv"}`, "format=csv", kv.Query{PageBytes: kv.MaxPageBytes / 2}},
		"LongestPath":       {`{"where":[{"path":"` + strings.Repeat("a", 1024) + `","op":"exists"}]}`, "", kv.Query{Where: []kv.Condition{{Path: kv.Path(strings.Repeat("a", 1024)), Op: "exists"}}}},
		"DeepestPath":       {`{"where":[{"path":"a` + strings.Repeat(".a", 99) + `","op":"exists"}]}`, "", kv.Query{Where: []kv.Condition{{Path: "a" + kv.Path(strings.Repeat(".a", 99)), Op: "exists"}}}},
		"ValueKeepsItsText": {"{\"where\":[{\"path\":\"a\",\"op\":\"eq\",\"value\" :\n{ \"b\":1.0,\"a\":\"<\u2028\\u0041\"}\n}]}", "where=[{\"path\":\"a\",\"op\":\"eq\",\"value\":{ \"b\":1.0,\"a\":\"<\u2028\\u0041\"}}]", kv.Query{Where: []kv.Condition{{Path: "a", Op: "eq", Value: value("{ \"b\":1.0,\"a\":\"<\u2028\\u0041\"}")}}}},
		"InOfNothing":       {`{"where":[{"path":"a","op":"in","value":[]}]}`, "", kv.Query{Where: []kv.Condition{{Path: "a", Op: "in", Value: value("[]")}}}},
		"SortByObjectOnGet": {"", `sort={"path":"a:b","order":"desc"}`, kv.Query{Sort: []kv.SortKey{{Path: "a:b", Descending: true}}}},
		"EmptyTexts":        {`{"search":"","cursor":"","groupBy":"","format":"","prefix":""}`, "q=&cursor=&groupBy=&format=", kv.Query{}},
		"EmptyWhereAndSort": {`{"where":[],"sort":[]}`, "where=[]&sort=[]", kv.Query{Where: []kv.Condition{}, Sort: []kv.SortKey{}}},
		"NotAnObjectIsNone": {`[1]`, "", kv.Query{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.body != "" {
				q, r := ask(t, post(c.body))
				require.Equal(t, http.StatusOK, r.StatusCode, r.Body)
				require.Equal(t, &c.want, q, "POST %s", c.body)
			}
			if c.params != "" {
				q, r := ask(t, getEvent(t, c.params))
				require.Equal(t, http.StatusOK, r.StatusCode, r.Body)
				require.Equal(t, &c.want, q, "GET ?%s", c.params)
			}
		})
	}
}

func TestAQueryThatCannotBeUnderstoodIsRefused(t *testing.T) {
	t.Parallel()
	list := func(n int, element string) string {
		return "[" + strings.TrimSuffix(strings.Repeat(element+",", n), ",") + "]"
	}
	long := strings.Repeat("x", 400_000)
	selected := func(n int) string {
		var names []string
		for i := range n {
			names = append(names, fmt.Sprintf(`"value.%d"`, i))
		}
		return strings.Join(names, ",")
	}
	for text, want := range map[string]string{
		// POST
		`{"prefix":1}`:                   "prefix must be a string of whole characters, got 1",
		`{"prefix":"\ud800"}`:            `prefix must be a string of whole characters, got "\ud800"`,
		`{"prefix":"a\u0000"}`:           "prefix must not contain U+0000",
		`{"Prefix":"a"}`:                 `"Prefix" is not a field of kv-query: did you mean prefix?`,
		`{"group_by":"a"}`:               `"group_by" is not a field of kv-query: did you mean groupBy?`,
		`{"index":["a:b"]}`:              `"index" is not a field of kv-query: did you mean indexes?`,
		`{"q":"a"}`:                      `"q" is not a field of kv-query: did you mean search?`,
		`{"match":"any"}`:                `"match" is not a field of kv-query: did you mean indexes?`,
		`{"range":"a:1..2"}`:             `"range" is not a field of kv-query: did you mean where?`,
		`{"keys":["a"]}`:                 `"keys" is not a field of kv-query: did you mean prefix?`,
		`{"filter":[]}`:                  `"filter" is not a field of kv-query: did you mean where?`,
		`{"orderBy":"a"}`:                `"orderBy" is not a field of kv-query: did you mean sort?`,
		`{"prefix":"a","limt":5}`:        `"limt" is not a field of kv-query: did you mean limit?`,
		`{"sessionId":"1"}`:              `"sessionId" is not a field of kv-query: did you mean search?`,
		`{"":1}`:                         `"" is not a field of kv-query: did you mean bom?`,
		`{"` + long + `":1}`:             `"` + long[:59] + `… is not a field of kv-query: did you mean prefix?`,
		`{"bom":1}`:                      "bom must be true or false, got 1",
		`{"bom":true}`:                   "bom is for format csv: a byte order mark would be a mistake in json",
		`{"bom":true,"format":"ndjson"}`: "bom is for format csv: a byte order mark would be a mistake in ndjson",
		`{"where":[{"path":"key","op":"eq","value":1}]}`:                                                  "where[0].value must be of text for key, got 1",
		`{"where":[{"path":"createdAt","op":"gt","value":"soon"}]}`:                                       `where[0].value must be a time like 2026-11-23T07:00:00.000Z or a day like 2026-11-23 for createdAt, got "soon"`,
		`{"aggregate":[{"op":"avg","path":"createdAt"}]}`:                                                 "aggregate[0].path must lead to numbers for avg, and createdAt does not",
		`{"indexes":{"any":["a` + strings.Repeat(":", 600) + `b","c` + strings.Repeat(":", 425) + `d"]}}`: `indexes may be read as 1024 pairs of key and member together, got 1025, one for each colon: name the pair as {"key":…,"member":…}`,
		`{"indexes":["a:b"]}`:                                         `indexes must be an object with all, any, none, got ["a:b"]`,
		`{"indexes":{"and":["a:b"]}}`:                                 `indexes must have no other fields than all, any, none, got "and"`,
		`{"indexes":{"all":["a:b"],"all":[]}}`:                        "indexes has all twice",
		`{"indexes":{"all":"a:b"}}`:                                   `indexes.all must be an array, got "a:b"`,
		`{"indexes":{"any":[]}}`:                                      "indexes.any must not be empty: nothing could match",
		`{"indexes":{"all":[{}]}}`:                                    "indexes.all[0] must not be an empty group",
		`{"indexes":{"all":[{"none":[]}]}}`:                           "indexes.all[0] must not be an empty group",
		`{"indexes":{"all":["a"]}}`:                                   `indexes.all[0] must be "<key>:<member>", {"key":…,"member":…} or a group, got "a"`,
		`{"indexes":{"all":[null]}}`:                                  `indexes.all[0] must be "<key>:<member>", {"key":…,"member":…} or a group, got null`,
		`{"indexes":{"none":["a:b",{"key":"a"}]}}`:                    "indexes.none[1].member must be a string or a number, got nothing",
		`{"indexes":{"all":[{"key":"a","member":""}]}}`:               "indexes.all[0] must have a key and a member that are not empty",
		`{"indexes":{"all":[{"key":"a","member":true}]}}`:             "indexes.all[0].member must be a string or a number, got true",
		`{"indexes":{"all":[{"key":"a","member":"b","x":1}]}}`:        `indexes.all[0] must have no other fields than key, member, got "x"`,
		`{"indexKeys":{"all":[{"key":"a","member":"b"}]}}`:            `indexKeys.all[0] must be the key of an index or a group, got {"key":"a","member":"b"}`,
		`{"indexKeys":{"all":[""]}}`:                                  `indexKeys.all[0] must be the key of an index or a group, got ""`,
		`{"indexes":{"all":` + list(101, `"a:b"`) + `}}`:              "indexes and indexKeys may name 100 indexes together, got 101",
		`{"indexes":{"all":["a:` + strings.Repeat("b", 1030) + `"]}}`: "indexes.all[0] must be at most 1024 bytes, got 1032",
		`{"indexes":` + strings.Repeat(`{"all":[`, 11) + `"a:b"` + strings.Repeat(`]}`, 11) + `}`: "indexes" + strings.Repeat(".all[0]", 10) + ": groups must be nested at most 10 levels deep",
		`{"search":["a"]}`:                                                        `search must be a string of whole characters, got ["a"]`,
		`{"search":" \"\" "}`:                                                     `search has no word in it, got " \"\" ": give letters or digits to look for`,
		`{"search":"` + strings.Repeat("a ", 101) + `"}`:                          "search must have at most 100 words and phrases, got 101",
		`{"search":"` + strings.Repeat("a", 2001) + `"}`:                          "search must be at most 2000 bytes, got 2001",
		`{"where":{"path":"a"}}`:                                                  `where must be an array, got {"path":"a"}`,
		`{"where":[{"path":"a","op":"eq","value":1},3]}`:                          "where[1] must be an object with path, op, value, got 3",
		`{"where":[{"path":"a","op":"eq"}]}`:                                      "where[0].value must be given for eq",
		`{"where":[{"path":"a","op":"like","value":"x"}]}`:                        `where[0].op must be one of eq, ne, gt, gte, lt, lte, in, exists, contains, got "like"`,
		`{"where":[{"path":"a","value":"x"}]}`:                                    "where[0].op must be one of eq, ne, gt, gte, lt, lte, in, exists, contains, got nothing",
		`{"where":[{"op":"eq","value":"x"}]}`:                                     "where[0].path must be a string of whole characters, got nothing",
		`{"where":[{"path":"a","op":"eq","value":1,"or":2}]}`:                     `where[0] must have no other fields than path, op, value, got "or"`,
		`{"where":[{"path":"a","op":"gt","value":true}]}`:                         "where[0].value must be a number or a string for gt",
		`{"where":[{"path":"a","op":"in","value":1}]}`:                            "where[0].value must be an array for in",
		`{"where":[{"path":"a","op":"in","value":` + list(1001, "1") + `}]}`:      "where[0].value must have at most 1000 elements for in, got 1001",
		`{"where":[{"path":"a","op":"exists","value":1}]}`:                        "where[0].value must be true or false for exists",
		`{"where":[{"path":"a","op":"eq","value":1e999999999}]}`:                  "where[0].value must not hold a number with more than 16000 digits before or after the point",
		`{"where":[{"path":"a","op":"eq","value":{"x":["\u0000"]}}]}`:             "where[0].value must not contain U+0000",
		`{"where":[{"path":"a","op":"eq","value":["\udc00"]}]}`:                   "where[0].value must not hold half of a surrogate pair",
		`{"where":[{"path":"","op":"exists"}]}`:                                   `where[0].path: a path must be like score, stops.0.title or /a~1b, got ""`,
		`{"where":[{"path":"a..b","op":"exists"}]}`:                               `where[0].path: a path must be like score, stops.0.title or /a~1b, got "a..b"`,
		`{"where":[{"path":"/a~2","op":"exists"}]}`:                               `where[0].path: in a path that begins with / a ~ is written ~0 and a slash ~1, got "a~2"`,
		`{"where":[{"path":"a` + strings.Repeat(".a", 100) + `","op":"exists"}]}`: "where[0].path: a path must have at most 100 parts, got 101",
		`{"where":[{"path":"` + strings.Repeat("a", 1025) + `","op":"exists"}]}`:  "where[0].path: a path must be at most 1024 bytes, got 1025",
		`{"where":` + list(10000, `{"path":"a","op":"exists"}`) + `}`:             "where must have at most 100 conditions, got 10000",
		`{"select":[]}`:                                     "select must name at least one of key, value, indexes, createdAt, updatedAt, value.<path>",
		`{"select":["vaule"]}`:                              `select[0]: must be value.<path> or one of key, value, indexes, createdAt, updatedAt, got "vaule"`,
		`{"select":["value."]}`:                             `select[0]: a path must be like score, stops.0.title or /a~1b, got ""`,
		`{"sort":[{"path":"a","order":"down"}]}`:            `sort[0].order must be asc or desc, got "down"`,
		`{"sort":[{"by":"a"}]}`:                             `sort[0] must have no other fields than path, order, got "by"`,
		`{"sort":["relevance"]}`:                            "sort[0]: relevance needs a search",
		`{"sort":["a","relevance"],"search":"a"}`:           "sort[1]: relevance cannot be combined with another order",
		`{"sort":"relevance:asc","search":"a"}`:             "sort[0]: relevance has the best match first: leave the order out",
		`{"sort":` + list(11, `"a"`) + `}`:                  "sort must have at most 10 elements, got 11",
		`{"limit":0}`:                                       "limit must be a whole number from 1 to 1000, got 0",
		`{"limit":1001}`:                                    "limit must be a whole number from 1 to 1000, got 1001",
		`{"limit":10001,"format":"csv"}`:                    "limit must be a whole number from 1 to 10000, got 10001",
		`{"limit":"5"}`:                                     `limit must be a whole number from 1 to 1000, got "5"`,
		`{"offset":-1}`:                                     "offset must be a whole number from 0 to 2147483647, got -1",
		`{"cursor":"x"}`:                                    `cursor must be the nextCursor of an earlier answer, got "x"`,
		`{"format":"xml"}`:                                  `format must be one of json, csv, ndjson, got "xml"`,
		`{"groupBy":"a"}`:                                   `groupBy needs aggregate, as in [{"op":"count"}]`,
		`{"aggregate":[]}`:                                  `aggregate must have an element, as in [{"op":"count"}]`,
		`{"aggregate":[{"op":"median","path":"a"}]}`:        `aggregate[0].op must be one of count, sum, avg, min, max, distinct, got "median"`,
		`{"aggregate":[{"op":"sum"}]}`:                      "aggregate[0].path is needed for sum",
		`{"aggregate":[{"op":"count"}],"sort":"a"}`:         "sort, select, cursor and offset cannot be combined with aggregate",
		`{"aggregate":[{"op":"count"}],"limit":5}`:          "limit bounds the groups of an aggregate: it needs groupBy",
		`{"aggregate":[{"op":"count"}],"groupBy":"index:"}`: "groupBy must name an index after index:",
		`{"prefix":`:                                        "the body must be JSON; it is wrong at byte 10: unexpected end of JSON input",
		// what would be ignored
		`{"where":[{"path":"a","op":"exists"}],"where":[]}`: `"where" is given twice`,
		`{"prefix":"a","pr\u0065fix":null}`:                 `"prefix" is given twice`,
		`{"INDEX":["a:b"]}`:                                 `"INDEX" is not a field of kv-query: did you mean indexes?`,
		`{"index_key":"a"}`:                                 `"index_key" is not a field of kv-query: did you mean indexKeys?`,
		`{"index-keys":{"all":["a"]}}`:                      `"index-keys" is not a field of kv-query: did you mean indexKeys?`,
		`{"other":1,"other":null}`:                          `"other" is given twice`,
		"?match=any":                                        "match says how index and indexKey go together: without them there is nothing to match",
		`?match=any&indexes={"all":["a:b"]}`:                "match says how index and indexKey go together: without them there is nothing to match",
		"?sort=-a:asc":                                      `sort[0] must be <path>, <path>:asc, <path>:desc or -<path>; {"path":…} where a path holds a colon or begins with -; got "-a:asc"`,
		"?key=r/3":                                          `"key" is not a parameter of kv-query: did you mean prefix?`,
		"?keys=a":                                           `"keys" is not a parameter of kv-query: did you mean prefix?`,
		"?filter=x":                                         `"filter" is not a parameter of kv-query: did you mean where?`,
		"?orderBy=x":                                        `"orderBy" is not a parameter of kv-query: did you mean sort?`,
		"?order=desc":                                       `"order" is not a parameter of kv-query: did you mean sort?`,
		"?prefx=x":                                          `"prefx" is not a parameter of kv-query: did you mean prefix?`,
		"?bom=yes&format=csv":                               `bom must be true or false, got "yes"`,
		"?bom=true&bom=true&format=csv":                     "bom must be given once, got 2",
		"?prefix=a&prefix=b":                                "prefix must be given once, got 2",
		"?q=a&q=b":                                          "q must be given once, got 2",
		`?indexes={"all":["a:b"]}&indexes={}`:               "indexes must be given once, got 2",
		"?match=any&match=all&index=a:b":                    "match must be given once, got 2",
		`?sort=[{"path":"a"}]&sort=b`:                       "sort as JSON must be given once",
		`?select=key&select=["value"]`:                      "select as JSON must be given once",
		// what is too large to be shown
		`{"format":"` + long + `"}`:                                   `format must be one of json, csv, ndjson, got "` + long[:59] + "…",
		`{"cursor":"` + long + `"}`:                                   `cursor must be the nextCursor of an earlier answer, got "` + long[:60] + `…"`,
		`{"select":["` + long + `"]}`:                                 `select[0]: must be value.<path> or one of key, value, indexes, createdAt, updatedAt, got "` + long[:60] + `…"`,
		`{"where":[{"path":"a..` + long[:1000] + `","op":"exists"}]}`: `where[0].path: a path must be like score, stops.0.title or /a~1b, got "a..` + long[:57] + `…"`,
		`{"where":[{"path":"` + long + `","op":"exists"}]}`:           "where[0].path: a path must be at most 1024 bytes, got 400000",
		`{"where":[{"path":"a","op":"` + long + `","value":1}]}`:      `where[0].op must be one of eq, ne, gt, gte, lt, lte, in, exists, contains, got "` + long[:59] + "…",
		`{"where":[{"` + long + `":1}]}`:                              `where[0] must have no other fields than path, op, value, got "` + long[:59] + "…",
		`{"aggregate":[{"op":"` + long + `"}]}`:                       `aggregate[0].op must be one of count, sum, avg, min, max, distinct, got "` + long[:60] + `…"`,
		`{"sort":[{"path":"a","order":"` + long + `"}]}`:              `sort[0].order must be asc or desc, got "` + long[:59] + "…",
		`{"prefix":"` + long + `"}`:                                   "prefix must be at most 1024 bytes, got 400000: no key is longer",
		// positions
		`{"indexes":{"any":[{"all":["a:b",{"key":"a","member":"\u0000"}]}]}}`:                                      "indexes.any[0].all[1].member must not contain U+0000",
		`{"indexes":{"all":[{"key":"` + long[:1000] + `","member":"` + long[:24] + `"}]}}`:                         "indexes.all[0] must be at most 1024 bytes, got 1025",
		`{"indexKeys":{"none":["` + long[:1025] + `"]}}`:                                                           "indexKeys.none[0] must be at most 1024 bytes, got 1025",
		`{"indexKeys":{"none":["\ud800"]}}`:                                                                        `indexKeys.none[0] must be the key of an index or a group, got "\ud800"`,
		`{"where":[{"path":"a","op":"exists"},{"path":"a\ud800","op":"exists"}]}`:                                  `where[1].path must be a string of whole characters, got "a\ud800"`,
		`{"where":[{"path":"a\u0000","op":"exists"}]}`:                                                             "where[0].path: a path must be valid UTF-8 without U+0000",
		`{"where":[{"path":"a","op":"eq","value":{"\ud800":1}}]}`:                                                  "where[0].value must not hold half of a surrogate pair",
		`{"where":[{"path":"a","op":"in","value":[1,-1e16001]}]}`:                                                  "where[0].value must not hold a number with more than 16000 digits before or after the point",
		`{"where":[{"path":"a","op":"eq","value":1e-16001}]}`:                                                      "where[0].value must not hold a number with more than 16000 digits before or after the point",
		`{"where":[{"path":"a","op":"eq","value":` + strings.Repeat("[", 2001) + strings.Repeat("]", 2001) + `}]}`: "where[0].value must be nested at most 2000 levels deep",
		`{"where":[{"path":"a","op":"exists","value":null}]}`:                                                      "where[0].value must be true or false for exists",
		`{"where":[{"path":"a","op":"lt","value":null}]}`:                                                          "where[0].value must be a number or a string for lt",
		`{"where":[null]}`:                                           "where[0] must be an object with path, op, value, got null",
		`{"search":"a\udc00"}`:                                       `search must be a string of whole characters, got "a\udc00"`,
		`{"search":"a\u0000"}`:                                       "search must be valid UTF-8 without U+0000",
		`{"sort":"score:DESC"}`:                                      `sort[0] must be <path>, <path>:asc, <path>:desc or -<path>; {"path":…} where a path holds a colon or begins with -; got "score:DESC"`,
		`{"sort":[""]}`:                                              `sort[0]: a path must be like score, stops.0.title or /a~1b, got ""`,
		`{"select":[` + selected(101) + `]}`:                         "select must have at most 100 fields, got 101",
		`{"aggregate":` + list(21, `{"op":"count"}`) + `}`:           "aggregate must have at most 20 elements, got 21",
		`{"aggregate":[{"op":"count"}],"offset":0}`:                  "sort, select, cursor and offset cannot be combined with aggregate",
		`{"aggregate":[{"op":"count"}],"groupBy":"a","limit":10001}`: "limit must be a whole number from 1 to 10000, got 10001",
		`{"groupBy":["a"],"aggregate":[{"op":"count"}]}`:             `groupBy must be a string of whole characters, got ["a"]`,
		`{"limit":1.0}`:                                              "limit must be a whole number from 1 to 1000, got 1.0",
		`{"offset":2147483648}`:                                      "offset must be a whole number from 0 to 2147483647, got 2147483648",
		"?range=a..b:1..2":                                           `range[0]: a path must be like score, stops.0.title or /a~1b, got "a..b"`,
		"?range=a:1..2&range=d:a...b":                                `range[1] must have two dots once: for texts that hold dots use where, got "d:a...b"`,
		"?range=:1..2":                                               `range[0] must be <path>:<from>..<to>, as in score:10..20, score:10.. or score:..20, got ":1..2"`,
		"?select=key,,value":                                         `select[1]: must be value.<path> or one of key, value, indexes, createdAt, updatedAt, got ""`,
		"?aggregate=sum":                                             "aggregate[0].path is needed for sum",
		"?limit=-1":                                                  `limit must be a whole number from 1 to 1000, got "-1"`,
		"?offset=1.5":                                                `offset must be a whole number from 0 to 2147483647, got "1.5"`,
		// GET
		"?match=some":             `match must be all or any, got "some"`,
		"?index=a":                `indexes.all[0] must be "<key>:<member>", {"key":…,"member":…} or a group, got "a"`,
		`?index=a:b&indexes={}`:   "index and indexes cannot be combined",
		"?indexes=a:b":            `indexes must be JSON like {"all":[…]}; for a single one there is index`,
		"?indexes={":              "indexes begins like JSON, but is not",
		"?where=score":            `where must be JSON like [{"path":"score","op":"gte","value":10}]`,
		"?where=[]&where=[]":      "where must be given once, got 2",
		"?range=score":            `range[0] must be <path>:<from>..<to>, as in score:10..20, score:10.. or score:..20, got "score"`,
		"?range=score:..":         `range[0] must be <path>:<from>..<to>, as in score:10..20, score:10.. or score:..20, got "score:.."`,
		"?range=score:1..b":       `range[0] must be from a number to a number or from a text to a text, got "score:1..b"`,
		"?q=a&search=b":           "q and search are the same: give one of them",
		"?limit=ten":              `limit must be a whole number from 1 to 1000, got "ten"`,
		"?limit=1001":             "limit must be a whole number from 1 to 1000, got 1001",
		"?Index=a:b":              `"Index" is not a parameter of kv-query: did you mean index?`,
		"?group-by=a":             `"group-by" is not a parameter of kv-query: did you mean groupBy?`,
		"?aggregate=median:score": `aggregate[0].op must be one of count, sum, avg, min, max, distinct, got "median"`,
	} {
		event := post(text)
		if query, ok := strings.CutPrefix(text, "?"); ok {
			event = getEvent(t, query)
		}
		_, r := ask(t, event)
		var body struct{ Error, Code string }
		require.NoError(t, json.Unmarshal([]byte(r.Body), &body))
		require.Equal(t, want, body.Error, "%.200s", text)
		require.Equal(t, http.StatusBadRequest, r.StatusCode)
	}
}

func TestACursorBelongsToItsQuestion(t *testing.T) {
	t.Parallel()
	cursor := kv.Cursor{Question: "of another", Key: "a"}.String()
	for body, want := range map[string]string{
		`{"cursor":"` + cursor + `"}`:                  "cursor belongs to another question: it goes on with the prefix, the filters and the order of the page that it came with, and no others",
		`{"cursor":"` + cursor + `","sort":["a","b"]}`: "cursor cannot be combined with this sort: go on with offset",
		`{"cursor":"` + cursor + `","offset":0}`:       "offset cannot be combined with cursor: a cursor says already where to go on",
	} {
		_, r := ask(t, post(body))
		require.Contains(t, r.Body, want)
	}
}

func TestTheTimeForAQueryComesFromTheEnvironment(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": 11 * time.Second, "10s": 11 * time.Second, "2s": 2 * time.Second, "1.5": 1500 * time.Millisecond, "250ms": 250 * time.Millisecond,
		"0": 0, "-1s": 0, "11s": 0, "soon": 0, "NaN": 0,
	} {
		t.Setenv("KV_QUERY_TIMEOUT", text)
		require.Equal(t, want, QueryTimeoutFromEnv(), "KV_QUERY_TIMEOUT=%q", text)
	}
	r := invoke(t, Query(kv.Uncached(&asked{}), 0), post("{}"))
	require.Equal(t, http.StatusServiceUnavailable, r.StatusCode)
	require.Contains(t, r.Body, "KV_QUERY_TIMEOUT must be a time of up to 10s")
}

func export(t testing.TB, body, answer string) response {
	t.Helper()
	return invoke(t, Query(kv.Uncached(&asked{answer: answer}), time.Second), post(body))
}

func TestAnExportAsNDJSONIsOneResultALine(t *testing.T) {
	t.Parallel()
	r := export(t, `{"format":"ndjson"}`, `{"results":[{"key":"a","value":{`+"\n"+` "x" : 1.0,`+"\r\n"+`"y":"<&>"}},{"key":"b"}],"count":2,`+
		`"pagination":{"limit":2,"offset":0,"hasMore":true,"nextCursor":"abc"},"notices":[{"code":"ranked_first","message":""}]}`)
	require.Equal(t, "{\"key\":\"a\",\"value\":{  \"x\" : 1.0,  \"y\":\"<&>\"}}\n{\"key\":\"b\"}\n", r.Body)
	// Some readers end a line at these; JSON answers keep them as they were written.
	const breaks = `{"results":[{"key":"a` + "\u2028\u2029\u0085" + `b\u2028 ` + "\u2027" + `"}],"count":1,"pagination":{}}`
	require.Equal(t, `{"key":"a\u2028\u2029\u0085b\u2028 `+"\u2027"+`"}`+"\n", export(t, `{"format":"ndjson"}`, breaks).Body)
	require.Contains(t, export(t, `{}`, breaks).Body, "a\u2028\u2029\u0085b")
	require.Equal(t, "application/x-ndjson; charset=utf-8", r.Headers["Content-Type"])
	require.Equal(t, `attachment; filename="kv-query.ndjson"`, r.Headers["Content-Disposition"])
	require.Equal(t, []string{"true", "abc", "2", "ranked_first"},
		[]string{r.Headers["X-KV-Has-More"], r.Headers["X-KV-Next-Cursor"], r.Headers["X-KV-Count"], r.Headers["X-KV-Notice"]})
}

func TestAnExportAsCSVLosesNothingAndRunsNothing(t *testing.T) {
	t.Parallel()
	r := export(t, `{"format":"csv","select":["key","value.t","value.n","value.o","indexes"]}`,
		`{"results":[{"key":"=1+1","value.t":"a \"b\",\r\nc\nd\re","value.n":-5.0,"value.o":{"a":[1]},"indexes":["a:b"]},`+
			`{"key":"k","value.t":"-5","value.n":12345678901234567890,"value.o":null,"indexes":[]},{"key":"l","indexes":[]}],`+
			`"count":3,"pagination":{"limit":100,"offset":0,"hasMore":false,"nextCursor":null}}`)
	require.Equal(t, "key,value.t,value.n,value.o,indexes\r\n"+
		"'=1+1,\"a \"\"b\"\",\r\nc\nd\re\",-5.0,\"{\"\"a\"\":[1]}\",\"[\"\"a:b\"\"]\"\r\n"+
		"k,'-5,12345678901234567890,,[]\r\nl,,,,[]\r\n", r.Body)
	marked := export(t, `{"format":"csv","bom":true,"select":["key"]}`, `{"results":[{"key":"k"}],"count":1,"pagination":{}}`)
	require.Equal(t, "\ufeffkey\r\nk\r\n", string(marked.bytes(t)))
	require.Equal(t, "text/csv; charset=utf-8; header=present", r.Headers["Content-Type"])
	require.Equal(t, "false", r.Headers["X-KV-Has-More"])
	require.NotContains(t, r.Headers, "X-KV-Next-Cursor")
}

func TestAggregatesAreExported(t *testing.T) {
	t.Parallel()
	const answer = `{"aggregates":[{"op":"count","value":3},{"op":"sum","path":"a","value":1.50,"excluded":1}],` +
		`"groups":[{"group":"=x","aggregates":[{"op":"count","value":2},{"op":"sum","path":"a","value":1,"excluded":0}]},` +
		`{"group":null,"absent":true,"aggregates":[{"op":"count","value":1},{"op":"sum","path":"a","value":null,"excluded":0}]}]}`
	ask := `"aggregate":[{"op":"count"},{"op":"sum","path":"a"}]`
	require.Equal(t, "count,sum:a,sum:a excluded\r\n3,1.50,1\r\n", export(t, `{"format":"csv",`+ask+`}`, answer).Body)
	require.Equal(t, "group,count,sum:a,sum:a excluded\r\n'=x,2,1,0\r\n,1,,0\r\n", export(t, `{"format":"csv","groupBy":"g",`+ask+`}`, answer).Body)
	require.Equal(t, `{"aggregates":[{"op":"count","value":3},{"op":"sum","path":"a","value":1.50,"excluded":1}]}`+"\n",
		export(t, `{"format":"ndjson",`+ask+`}`, answer).Body)
}

func TestAnAnswerHasItsTimeAndTheBytesOfTheStore(t *testing.T) {
	t.Parallel()
	const answer = `{"results":[{"key":"k","value":{"a":1.0,"b":"<\u0000>","a":1e400}}],"count":1,"pagination":{"limit":100,"offset":0,"hasMore":false,"nextCursor":null}}`
	r := export(t, `{}`, answer)
	require.Equal(t, http.StatusOK, r.StatusCode)
	before, after, ok := strings.Cut(r.Body, `,"timestamp":"`)
	require.True(t, ok, r.Body)
	require.Equal(t, answer, before+"}")
	_, err := time.Parse(`2006-01-02T15:04:05.000Z"}`, after)
	require.NoError(t, err)
	require.Equal(t, "application/json", r.Headers["Content-Type"])
	require.Equal(t, "no-cache", r.Headers["Cache-Control"])
}

func TestAnExportSaysWhatItsBodyCannot(t *testing.T) {
	t.Parallel()
	page := func(cursor, notices string) string {
		return `{"results":[],"count":0,"pagination":{"limit":2,"offset":0,"hasMore":true,"nextCursor":` + cursor + `}` + notices + `}`
	}
	for name, c := range map[string]struct{ ask, answer, hasMore, cursor, notices string }{
		"Cursor":                  {`{"format":"csv"}`, page(`"abc"`, ""), "true", "abc", ""},
		"NoCursor":                {`{"format":"csv"}`, page("null", `,"notices":[{"code":"no_cursor","message":"m"},{"code":"ranked_first","message":"m"}]`), "true", "", "no_cursor, ranked_first"},
		"CursorTooLongForAHeader": {`{"format":"csv"}`, page(`"`+strings.Repeat("a", 6001)+`"`, ""), "true", "", "no_cursor"},
		"GroupsCut":               {`{"format":"ndjson","aggregate":[{"op":"count"}],"groupBy":"a"}`, `{"aggregates":[],"groups":[],"notices":[{"code":"groups_cut","message":"m"}]}`, "true", "", "groups_cut"},
		"AllGroups":               {`{"format":"ndjson","aggregate":[{"op":"count"}],"groupBy":"a"}`, `{"aggregates":[],"groups":[]}`, "false", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := export(t, c.ask, c.answer)
			require.Equal(t, http.StatusOK, r.StatusCode, r.Body)
			require.Equal(t, []string{c.hasMore, c.cursor, c.notices}, []string{r.Headers["X-KV-Has-More"], r.Headers["X-KV-Next-Cursor"], r.Headers["X-KV-Notice"]})
			for _, name := range []string{"X-KV-Has-More", "X-KV-Next-Cursor", "X-KV-Count", "X-KV-Notice", "Content-Disposition"} {
				require.Contains(t, r.Headers["Access-Control-Expose-Headers"], name)
			}
		})
	}
}

func TestAnExportThatFailsIsJSON(t *testing.T) {
	t.Parallel()
	rows := func(n int) string {
		return `{"results":[` + strings.TrimSuffix(strings.Repeat(`{"value":["`+strings.Repeat(`\"`, 500)+`"]},`, n), ",") + `],"count":1,"pagination":{}}`
	}
	for _, format := range []string{"csv", "ndjson"} {
		ask := `{"select":["value"],"format":"` + format + `"}`
		r := export(t, ask, rows(1000))
		require.Equal(t, http.StatusOK, r.StatusCode, r.Body)
		r = export(t, ask, rows(6000))
		require.Equal(t, http.StatusRequestEntityTooLarge, r.StatusCode, "never cut")
		require.Contains(t, r.Body, "page with limit")
		require.Equal(t, "application/json", r.Headers["Content-Type"])
		require.NotContains(t, r.Headers, "Content-Disposition")
		r = invoke(t, Query(kv.Uncached(memory{err: &kv.Error{Code: kv.CodeTooLarge, Message: "m"}}), time.Second), post(ask))
		require.Equal(t, http.StatusRequestEntityTooLarge, r.StatusCode)
		require.Equal(t, "application/json", r.Headers["Content-Type"])
	}
}

func TestARowOfOneEmptyCellIsARow(t *testing.T) {
	t.Parallel()
	r := export(t, `{"format":"csv","select":["value.a"]}`, `{"results":[{"value.a":"x"},{},{"value.a":null},{"value.a":""}],"count":4,"pagination":{}}`)
	require.Equal(t, "value.a\r\nx\r\n\"\"\r\n\"\"\r\n\"\"\r\n", r.Body)
	records, err := csv.NewReader(strings.NewReader(r.Body)).ReadAll()
	require.NoError(t, err)
	require.Len(t, records, 5)
	require.Equal(t, "4", r.Headers["X-KV-Count"])
}

func TestAQueryHasTheTimeThatTheEnvironmentAllows(t *testing.T) {
	t.Parallel()
	slow := slowStore{}
	start := time.Now()
	r := invoke(t, Query(kv.Uncached(slow), 50*time.Millisecond), post("{}"))
	require.Equal(t, http.StatusGatewayTimeout, r.StatusCode)
	require.Contains(t, r.Body, `"code":"deadline_exceeded"`)
	require.Less(t, time.Since(start), 5*time.Second)
}

// slowStore answers when its time is over, as a store does.
type slowStore struct{ memory }

func (slowStore) Query(ctx context.Context, _ kv.Query) (string, error) {
	<-ctx.Done()
	return "", &kv.Error{Code: kv.CodeDeadlineExceeded, Message: "m", Err: ctx.Err()}
}

// FuzzCells: whatever a cell holds, no spreadsheet takes it for a formula, and what was there can be told from it.
func FuzzCells(f *testing.F) {
	for _, text := range []string{"", "=1", "'=1", "'t Hooft", " +1", "-1", "@SUM(A1)", "\t=1", "\r", "\n", "'\n", "＝1", "a,b", `"`, "a\r\nb", "'"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.ToValidUTF8(text, "")
		guarded := cell(kv.AppendString(nil, text))
		if guarded != text {
			require.Equal(t, "'"+text, guarded)
		}
		restored := guarded
		if rest, ok := strings.CutPrefix(guarded, "'"); ok && formula.MatchString(guarded) {
			restored = rest
		}
		require.Equal(t, text, restored, "the apostrophe can be taken away again")
		require.NotContains(t, []string{"=", "+", "-", "@", "\t", "\r", "\n"}, string(append([]rune(strings.TrimLeft(guarded, " ")), 'x')[0]))

		w := &csvWriter{}
		w.record([]string{guarded, "x"})
		if !strings.Contains(guarded, "\r") { // Go's reader makes \r\n in a cell \n
			records, err := csv.NewReader(strings.NewReader(string(w.bytes()))).ReadAll()
			require.NoError(t, err)
			require.Equal(t, [][]string{{guarded, "x"}}, records)
		}
	})
}

// FuzzQuery: no input panics or is a 500, and no filter is dropped: what a body says that is not refused is in the query.
func FuzzQuery(f *testing.F) {
	for _, text := range []string{`{"indexes":{"all":["a:b",{"any":[{"key":"c","member":"d"},"e:f"]}],"none":["g:h"]},"indexKeys":{"any":["i"]}}`,
		`{"where":[{"path":"a.0","op":"in","value":[1,"x",null]},{"path":"/a~1b","op":"exists"}],"search":"a \"b c\" or -d e*","prefix":"p"}`,
		`{"sort":[{"path":"a","order":"desc"}],"select":["key","value.a"],"limit":5,"offset":1}`, `{"aggregate":[{"op":"sum","path":"a"}],"groupBy":"index:a"}`,
		`{"where":[{"path":"a","op":"eq","value":1e400}]}`, `{"search":"$$;-- a'\"\\"}`, `{"where":[{"path":"a","op":"exists"}],"where":[]}`, `{"indexes":{"any":[{"member":"a","key":"b"}],"none":[]}}`,
		`{"search":"or -or \"or\" a or or* \"b c*\" -\"d\"* e-f"}`, `{"prefix":"%_\\"}`, `{"cursor":"WyJrZXkuYXNjIixudWxsLCJhIl0"}`} {
		f.Add(text, "")
	}
	for _, params := range []string{"index=a:b&index=c:d&match=any&indexKey=e", "q=a or b&range=s:1..2&range=t:..x", "where=[]&select=key,value.a&sort=a:desc&sort=b",
		"aggregate=count&aggregate=sum:a&groupBy=b&format=csv", "limit=1&offset=2&prefix=x", "prefix=a&prefix=b", "range=s:-1..2&range=/a~1b:..2026-01-01&where=[{\"path\":\"t\",\"op\":\"exists\"}]",
		"indexes={\"all\":[{\"none\":[\"a:b\"]}]}&indexKeys={\"any\":[\"c\"]}", "q=a&search=b", "index=a:%ff", "indexes={}"} {
		f.Add("", params)
	}
	f.Fuzz(func(t *testing.T, body, params string) {
		body, values := strings.ToValidUTF8(body, ""), url.Values{}
		event := post(body)
		if body == "" {
			given, _ := url.ParseQuery(strings.ToValidUTF8(params, ""))
			for name, texts := range given {
				for _, text := range texts { // what is not UTF-8 after decoding becomes so on its way
					name := strings.ToValidUTF8(name, "\uFFFD")
					values[name] = append(values[name], strings.ToValidUTF8(text, "\uFFFD"))
				}
			}
			raw, err := json.Marshal(values)
			require.NoError(t, err)
			event = `{"httpMethod":"GET","multiValueQueryStringParameters":` + string(raw) + `}`
		}
		q, r := ask(t, event)
		require.Contains(t, []int{200, 400, 413, 422}, r.StatusCode, r.Body)
		if r.StatusCode != 200 {
			require.Contains(t, r.Body, `"error":`)
			return
		}
		want, got := leavesOfParams(values), leavesIn(*q)
		if body != "" {
			want = leavesOfBody([]byte(body))
		}
		require.ElementsMatch(t, want, got, "the filters of %s %s", body, params)
	})
}

// Random bytes seldom are a query. These are, of every kind of filter, in a body and as parameters.
func TestNoFilterOfARandomQueryIsDropped(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	some := func(texts ...string) string { return texts[random.IntN(len(texts))] }
	pick := func(most int, element func() string) string {
		var list []string
		for range random.IntN(most + 1) {
			list = append(list, element())
		}
		return strings.Join(list, ",")
	}
	var group func(leaf func() string, levels int) string
	group = func(leaf func() string, levels int) string {
		element := func() string {
			if levels > 1 && random.IntN(3) == 0 {
				return group(leaf, levels-1)
			}
			return leaf()
		}
		var parts []string
		for _, name := range []string{"all", "any", "none"} {
			if random.IntN(2) == 0 {
				parts = append(parts, `"`+name+`":[`+element()+strings.TrimSuffix(","+pick(2, element), ",")+`]`)
			}
		}
		if parts == nil {
			parts = []string{`"all":[` + leaf() + `]`}
		}
		return "{" + strings.Join(parts, some(",", " , ")) + "}"
	}
	pair := func() string {
		return some(`"a:b"`, `"a:b:c"`, `"\u00e9:\ud83d\ude00"`, `{"key":"a:b","member":"c"}`, `{"member":":","key":"\"x\""}`, `"$$:';--"`)
	}
	key := func() string { return some(`"a"`, `"index:b"`, `"%_*\\"`) }
	condition := func() string {
		path := `"path":` + some(`"a"`, `"a.0.b"`, `"/a~1b/~0"`, `"/"`, `"$$"`, `";--"`)
		value := some(`1`, `-0`, `1.50`, `"x"`, `"<&>\u2028"`, `1e400`, `12345678901234567890`)
		return "{" + some(
			path+`,"op":"`+some("eq", "ne", "gt", "gte", "lt", "lte", "contains")+`","value":`+value,
			`"value":[`+pick(3, func() string { return value })+`],"op":"`+some("in", "eq", "contains")+`",`+path,
			path+`,"op":"exists"`+some("", `,"value":false`), path+`,"op":"eq", "value" : `+some("null", "{}", `{"b": 1, "a":[true]}`)) + "}"
	}
	words := func() string { return some("a", "or", "b-c", "-d", `"e f"`, `-"g"`, "h*", "OR", "é😀", `"i j*"`) }
	for range 500 {
		var fields []string
		values := url.Values{}
		both := func(name string, body, param string) {
			if random.IntN(2) == 0 {
				fields = append(fields, `"`+name+`":`+body)
				values.Add(name, param)
			}
		}
		pairs, keys, where := group(pair, 4), group(key, 4), "["+pick(4, condition)+"]"
		for len(leavesOfBody([]byte(`{"indexes":`+pairs+`,"indexKeys":`+keys+`}`))) > kv.MaxFilters { // which is refused
			pairs, keys = group(pair, 4), group(key, 4)
		}
		search := strings.TrimSpace("x " + strings.ReplaceAll(pick(6, words), ",", " "))
		both("indexes", pairs, pairs)
		both("indexKeys", keys, keys)
		both("where", where, where)
		both("search", string(kv.AppendString(nil, search)), search)
		both("prefix", `"%_p"`, "%_p")
		if random.IntN(2) == 0 {
			values.Add("range", some("s:1..2", "s:..x", "a.b:-1.5..", "/:2026-01-01T10:00..2026-01-02"))
		}
		random.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
		body := "{" + strings.Join(fields, ",") + "}"
		q, r := ask(t, post(body))
		require.Equal(t, http.StatusOK, r.StatusCode, "seed %d: %s: %s", seed, body, r.Body)
		require.ElementsMatch(t, leavesOfBody([]byte(body)), leavesIn(*q), "seed %d: %s", seed, body)
		q, r = ask(t, getEvent(t, values.Encode()))
		require.Equal(t, http.StatusOK, r.StatusCode, "seed %d: %v: %s", seed, values, r.Body)
		require.ElementsMatch(t, leavesOfParams(values), leavesIn(*q), "seed %d: %v", seed, values)
	}
}

func TestABodyAndParametersAreNotMixed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ event, want string }{
		"ParametersOfAPost":   {event("POST", `"body":"{}","queryStringParameters":{"x":"1","prefix":"a"}`), `"prefix" is given as a parameter: a POST is read from its body alone`},
		"MisspelledInAPost":   {event("POST", `"body":"","multiValueQueryStringParameters":{"index-key":["a"]}`), `"index-key" is given as a parameter: a POST is read from its body alone`},
		"BodyOfAGet":          {event("GET", `"body":"{\"where\":[]}"`), `a GET is read from its parameters alone, and this one has a body, {"where":[]}: send the body with POST`},
		"OtherParameters":     {event("POST", `"body":"{}","queryStringParameters":{"_":"1","prefix":""}`), `"_" is given as a parameter: a POST is read from its body alone`},
		"EmptyParameters":     {event("POST", `"body":"{}","queryStringParameters":{"_":"","prefix":""}`), ""},
		"EmptyBodyOfAGet":     {event("GET", `"body":" {} "`), ""},
		"FormBodyOfAGet":      {event("GET", `"body":"prefix=docs/"`), `a GET is read from its parameters alone, and this one has a body, prefix=docs/: send the body with POST`},
		"NoBodyInNetlifyDev":  {event("GET", `"body":null,"isBase64Encoded":true`), ""},
		"NoBodyOfAPost":       {event("POST", `"body":null`), ""},
		"Base64":              {event("POST", `"body":"eyJwcmVmaXgiOiJhIiwicHJlZml4IjoiYiJ9","isBase64Encoded":true`), `"prefix" is given twice`},
		"NullUnderAWrongName": {post(`{"q":null,"Where":null}`), ""},
		"TooDeep":             {post(strings.Repeat(`{"where":`, 100_000) + "1" + strings.Repeat("}", 100_000)), "the body is nested too deeply"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, r := ask(t, c.event)
			if c.want == "" {
				require.Equal(t, http.StatusOK, r.StatusCode, r.Body)
				require.Equal(t, &kv.Query{}, q)
				return
			}
			var body struct{ Error string }
			require.NoError(t, json.Unmarshal([]byte(r.Body), &body))
			require.Equal(t, c.want, body.Error)
			require.Nil(t, q, "nothing is asked")
		})
	}
}

// leavesOfBody lists the filters that a body holds, without the code under test and without forgetting what it has twice.
func leavesOfBody(body []byte) (leaves []string) {
	for _, field := range orderedFields(body) {
		switch {
		case string(field.value) == "null":
		case field.name == "indexes", field.name == "indexKeys":
			leaves = append(leaves, indexLeaves(field.value)...)
		case field.name == "where":
			leaves = append(leaves, conditionLeaves(field.value)...)
		case field.name == "search":
			leaves = append(leaves, wordLeaves(textOf(field.value))...)
		case field.name == "prefix" && textOf(field.value) != "":
			leaves = append(leaves, "prefix "+textOf(field.value))
		}
	}
	return leaves
}

// leavesOfParams likewise lists those of the parameters.
func leavesOfParams(values url.Values) (leaves []string) {
	for name, texts := range values {
		for _, text := range texts {
			switch {
			case text == "":
			case name == "indexes", name == "indexKeys":
				leaves = append(leaves, indexLeaves([]byte(text))...)
			case name == "index", name == "indexKey":
				leaves = append(leaves, "index "+text)
			case name == "where":
				leaves = append(leaves, conditionLeaves([]byte(text))...)
			case name == "search", name == "q":
				leaves = append(leaves, wordLeaves(text)...)
			case name == "prefix":
				leaves = append(leaves, "prefix "+text)
			case name == "range":
				path, bounds, _ := strings.Cut(text, ":")
				from, to, _ := strings.Cut(bounds, "..")
				if from != "" {
					leaves = append(leaves, "where "+pointerOf(path)+" gte "+from)
				}
				if to != "" {
					leaves = append(leaves, "where "+pointerOf(path)+" lte "+to)
				}
			}
		}
	}
	return leaves
}

type orderedField struct {
	name  string
	value json.RawMessage
}

// orderedFields are the fields of an object's text; none of any other.
func orderedFields(text []byte) (fields []orderedField) {
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') || !json.Valid(text) {
		return nil
	}
	for decoder.More() {
		var field orderedField
		name, _ := decoder.Token()
		_ = decoder.Decode(&field.value)
		field.name = name.(string)
		fields = append(fields, field)
	}
	return fields
}

func textOf(text json.RawMessage) (s string) {
	_ = json.Unmarshal(text, &s)
	return s
}

// indexLeaves finds the strings and the pairs in a group, wherever they are.
func indexLeaves(text json.RawMessage) (leaves []string) {
	if fields := orderedFields(text); len(text) > 0 && text[0] == '{' {
		var names, pair []string
		for _, field := range fields {
			names, pair = append(names, field.name), append(pair, textOf(field.value))
			leaves = append(leaves, indexLeaves(field.value)...)
		}
		slices.Sort(names)
		if slices.Equal(names, []string{"key", "member"}) {
			if fields[0].name == "member" {
				slices.Reverse(pair)
			}
			return []string{fmt.Sprintf("index %q", pair)}
		}
		return leaves
	}
	var list []json.RawMessage
	if json.Unmarshal(text, &list) == nil {
		for _, element := range list {
			leaves = append(leaves, indexLeaves(element)...)
		}
		return leaves
	}
	return []string{"index " + textOf(text)}
}

func conditionLeaves(text json.RawMessage) (leaves []string) {
	var list []map[string]json.RawMessage
	_ = json.Unmarshal(text, &list)
	for _, c := range list {
		op, value := textOf(c["op"]), string(c["value"])
		if value == "" && op == "exists" {
			value = "true"
		}
		leaves = append(leaves, "where "+pointerOf(textOf(c["path"]))+" "+op+" "+plainValue(value))
	}
	return leaves
}

// plainValue leaves the quotes of a text out, so that a bound of a range reads like a value, and spaces that say nothing.
func plainValue(value string) string {
	if strings.HasPrefix(value, `"`) {
		return textOf(json.RawMessage(value))
	}
	compact := jsontext.Value(value)
	_ = compact.Compact()
	return string(compact)
}

func pointerOf(path string) string {
	if strings.HasPrefix(path, "/") {
		return path
	}
	escaped := strings.NewReplacer("~", "~0", "/", "~1").Replace(path)
	return "/" + strings.ReplaceAll(escaped, ".", "/")
}

// wordLeaves are the words of a search, except for the "or" that may stand between them.
func wordLeaves(text string) (leaves []string) {
	isWord := func(r rune) bool { return r > 0x7f && !unicode.IsSpace(r) || unicode.IsLetter(r) || unicode.IsDigit(r) }
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return !isWord(r) }) {
		if !strings.EqualFold(word, "or") {
			leaves = append(leaves, "word "+word)
		}
	}
	return leaves
}

// leavesIn lists the filters of a query.
func leavesIn(q kv.Query) (leaves []string) {
	var indexes func(kv.IndexFilter)
	indexes = func(f kv.IndexFilter) {
		switch {
		case f.Pair != "":
			leaves = append(leaves, "index "+f.Pair)
		case f.Exact.Member != "":
			leaves = append(leaves, fmt.Sprintf("index %q", []string{f.Exact.Key, string(f.Exact.Member)}))
		case f.Exact.Key != "":
			leaves = append(leaves, "index "+f.Exact.Key)
		}
		for _, part := range slices.Concat(f.All, f.Any, f.None) {
			indexes(part)
		}
	}
	for _, filter := range []*kv.IndexFilter{q.Indexes, q.IndexKeys} {
		if filter != nil {
			indexes(*filter)
		}
	}
	for _, c := range q.Where {
		leaves = append(leaves, "where "+pointerOf(string(c.Path))+" "+string(c.Op)+" "+plainValue(cmp.Or(string(c.Value), "true")))
	}
	for _, branch := range q.Search {
		for _, term := range branch {
			leaves = append(leaves, wordLeaves(term.Text)...)
		}
	}
	if q.Prefix != "" {
		leaves = append(leaves, "prefix "+q.Prefix)
	}
	return leaves
}
