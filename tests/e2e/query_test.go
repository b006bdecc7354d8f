package e2e

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// query_model_test.go compares results of queries with a model, and pkg/netlify tests every form and refusal of a
// query. The tests here need the whole system.

// query bypasses the cache, which cache_test.go tests.
func query(t testing.TB, pairs ...string) *response {
	t.Helper()
	needsSupabase(t)
	return call(t, http.MethodGet, queryPath+params(pairs...), fresh)
}

func postQuery(t testing.TB, text string) *response {
	t.Helper()
	needsSupabase(t)
	return call(t, http.MethodPost, queryPath, body(text), fresh)
}

// found returns the keys of a result without the prefix.
func (a *response) found(t testing.TB, prefix string) []string {
	t.Helper()
	require.Equal(t, http.StatusOK, a.status, "%v", a)
	var p queryPage
	require.NoError(t, json.Unmarshal(a.body, &p), "%v", a)
	keys := []string{}
	for _, r := range p.Results {
		keys = append(keys, strings.TrimPrefix(r.Key, prefix))
	}
	return keys
}

func emptyPage(limit int) string {
	return fmt.Sprintf(`{"results":[],"count":0,"pagination":{"limit":%d,"offset":0,"hasMore":false,"nextCursor":null},"timestamp":"now"}`, limit)
}

func TestQueryAnswersByGetAndPost(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	query(t, "prefix", prefix).is(t, http.StatusOK, emptyPage(100))
	upsert(t, prefix+"a", `{"score" : 10.50,  "name":"Ä"}`, index{prefix + "i", "x"})
	want := `{"results":[{"key":` + quote(prefix+"a") + `,"value":{"score" : 10.50,  "name":"Ä"},"indexes":[` + quote(prefix+"i:x") + `],"value.score":10.50}],` +
		`"count":1,"pagination":{"limit":7,"offset":0,"hasMore":false,"nextCursor":null},"timestamp":"now"}`
	query(t, "prefix", prefix, "index", prefix+"i:x", "range", "score:10..11", "select", "key,value,indexes,value.score", "limit", "7").
		is(t, http.StatusOK, want)
	postQuery(t, `{"prefix":`+quote(prefix)+`,"indexes":{"all":[{"key":`+quote(prefix+"i")+`,"member":"x"}]},"where":[{"path":"score","op":"eq","value":105e-1}],`+
		`"select":["key","value","indexes","value.score"],"limit":7}`).is(t, http.StatusOK, want)
	call(t, http.MethodGet, "/api/kv/query"+params("prefix", prefix, "limit", "7", "select", "key,value,indexes,value.score", "q", "ä")).is(t, http.StatusOK, want)
}

func TestQueryTimesAreTheEntrys(t *testing.T) {
	t.Parallel()
	key := newPrefix() + "a"
	before := time.Now().Add(-time.Minute)
	upsert(t, key, `[]`)
	var p struct {
		Results []struct{ CreatedAt, UpdatedAt time.Time }
	}
	require.NoError(t, json.Unmarshal(query(t, "prefix", key).body, &p))
	require.Len(t, p.Results, 1)
	require.True(t, p.Results[0].CreatedAt.After(before) && !p.Results[0].UpdatedAt.Before(p.Results[0].CreatedAt), "%v", p)
}

// TestQueryOfHostileTexts: a filter's text is data. It finds only the entry with the same text.
func TestQueryOfHostileTexts(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	texts := []string{`'`, `''; drop table kv_store; --`, `"`, `\`, `$$`, `$1`, `$x$`, `;--`, `{`, `}`, `{"a":1}`, `%`, `_`, `*`, `.*`, `$.a ? (@ > 1)`, `<path>`, `<key>`, `<value>`,
		`a,b`, "a\nb", "a\tb", `) or true or (`, `{}`, `NULL`, `null`, `\x00`, `\u0000x`, `🎉`, `s.document`, `'{where,0,path}'`, "\u202e", `a b`}
	for i, text := range texts {
		document, err := json.Marshal(map[string]any{"text": text, text: 1, "nested": map[string]any{text: []any{text}}})
		require.NoError(t, err)
		upsert(t, fmt.Sprintf("%s%02d", prefix, i), string(document), index{prefix + "i:" + text, text})
	}
	for i, text := range texts {
		want := []string{fmt.Sprintf("%02d", i)}
		pointer := "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(text)
		base := `{"prefix":` + quote(prefix+"0") + `,`
		if i >= 10 {
			base = `{"prefix":` + quote(prefix+strconv.Itoa(i/10)) + `,`
		}
		for name, filter := range map[string]string{
			"eq":       `"where":[{"path":"text","op":"eq","value":` + quote(text) + `}]`,
			"in":       `"where":[{"path":"text","op":"in","value":[` + quote(text) + `]}]`,
			"range":    `"where":[{"path":"text","op":"gte","value":` + quote(text) + `},{"path":"text","op":"lte","value":` + quote(text) + `}]`,
			"path":     `"where":[{"path":` + quote(pointer) + `,"op":"eq","value":1}]`,
			"nested":   `"where":[{"path":` + quote("/nested"+pointer) + `,"op":"contains","value":` + quote(text) + `}]`,
			"deeper":   `"where":[{"path":` + quote("/nested"+pointer+"/0") + `,"op":"exists"}]`,
			"index":    `"indexes":{"all":[{"key":` + quote(prefix+"i:"+text) + `,"member":` + quote(text) + `}]}`,
			"spelled":  `"indexes":{"all":[` + quote(prefix+"i:"+text+":"+text) + `]}`,
			"indexKey": `"indexKeys":{"all":[` + quote(prefix+"i:"+text) + `]}`,
			"sort":     `"where":[{"path":"text","op":"eq","value":` + quote(text) + `}],"sort":[{"path":` + quote(pointer) + `}]`,
		} {
			require.Equal(t, want, postQuery(t, base+filter+`}`).found(t, prefix), "%s of %q", name, text)
		}
		a := postQuery(t, base+`"where":[{"path":"text","op":"eq","value":`+quote(text)+`}],"aggregate":[{"op":"count","path":`+quote(pointer)+`}],"groupBy":`+quote(pointer)+`}`)
		a.is(t, http.StatusOK, `{"aggregates":[{"op":"count","path":`+quote(pointer)+`,"value":1}],"groups":[{"group":1,"aggregates":[{"op":"count","path":`+
			quote(pointer)+`,"value":1}]}],"timestamp":"now"}`)
	}
}

func TestQueryPathOfAHundredLevels(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	upsert(t, prefix+"deep", strings.Repeat(`{"a":`, 100)+`[1]`+strings.Repeat(`}`, 100))
	path := strings.TrimSuffix(strings.Repeat("a.", 100), ".")
	for _, filter := range []string{`"where":[{"path":"` + path + `","op":"contains","value":1}]`, `"sort":"` + path + `"`} {
		require.Equal(t, []string{"deep"}, postQuery(t, `{"prefix":`+quote(prefix)+`,`+filter+`}`).found(t, prefix))
	}
	postQuery(t, `{"where":[{"path":"`+path+`.a","op":"exists"}]}`).isError(t, http.StatusBadRequest, "where[0].path", "100 parts")
}

func TestQueryRefusesTooMuch(t *testing.T) {
	t.Parallel()
	filters := func(n int, one string) string { return strings.TrimSuffix(strings.Repeat(one+",", n), ",") }
	postQuery(t, `{"where":[`+filters(10_000, `{"path":"a","op":"exists"}`)+`]}`).isError(t, http.StatusBadRequest, "where", "100")
	postQuery(t, `{"indexes":{"any":[`+filters(10_000, `"a:b"`)+`]}}`).isError(t, http.StatusBadRequest, "indexes", "100")
	postQuery(t, `{"indexes":`+strings.Repeat(`{"all":[`, 1000)+`"a:b"`+strings.Repeat(`]}`, 1000)+`}`).isError(t, http.StatusBadRequest, "indexes", "10 levels")
	postQuery(t, `{"where":[{"path":"a","op":"eq","value":`+nested(3000)+`}]}`).isError(t, http.StatusBadRequest, "where[0]", "2000")
	postQuery(t, `{"where":[{"path":"a","op":"gt","value":1e999999999}]}`).isError(t, http.StatusBadRequest, "where[0]", "digits")
	postQuery(t, `{"where":[{"path":"a","op":"eq","value":"\u0000"}]}`).isError(t, http.StatusBadRequest, "where[0]", "U+0000")
	postQuery(t, `{"search":"!!! ... -"}`).isError(t, http.StatusBadRequest, "search has no word")
	query(t, "sort", "relevance").isError(t, http.StatusBadRequest, "sort[0]", "search")

	hundred := `"indexes":{"any":[` + filters(100, `{"any":["a:b:c","d:e"],"none":["x:y"]}`) + `]}`
	postQuery(t, `{`+hundred+`}`).isError(t, http.StatusBadRequest, "100")
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf(`"i%d:m:n"`, i))
	}
	postQuery(t, `{"prefix":"e2e/none/","indexes":{"any":[`+strings.Join(many, ",")+`]},"where":[`+filters(100, `{"path":"a.b","op":"in","value":[1,"x",null]}`)+`],`+
		`"search":"`+strings.Repeat("word ", 100)+`"}`).is(t, http.StatusOK, emptyPage(100))
}

// TestQueryOfHugeNumbers: numbers beyond a double keep their text.
func TestQueryOfHugeNumbers(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	numbers := []string{"-1e400", "-12345678901234567891", "-12345678901234567890", "0.1000000000000000000001", "12345678901234567890", "12345678901234567891", "1e15999"}
	for i, n := range numbers {
		upsert(t, prefix+strconv.Itoa(len(numbers)-i), `{"n":`+n+`}`)
	}
	var p struct {
		Results []struct {
			N json.RawMessage `json:"value.n"`
		}
	}
	require.NoError(t, json.Unmarshal(query(t, "prefix", prefix, "sort", "n", "select", "value.n").body, &p))
	for i, n := range numbers {
		require.Equal(t, n, string(p.Results[i].N))
		require.Len(t, postQuery(t, `{"prefix":`+quote(prefix)+`,"where":[{"path":"n","op":"gte","value":`+n+`}]}`).found(t, prefix), len(numbers)-i, "from %s on", n)
	}
}

// TestQueryOfValuesThatJsonbCannotHold: values come back as written, and a part that jsonb cannot hold does not hide
// others.
func TestQueryOfValuesThatJsonbCannotHold(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	values := map[string]string{"nul": `{"a":"x\u0000y", "word":"apple"}`, "surrogate": `{"a":"\ud800", "word":"apple"}`, "number": `{"a":1e400000, "word":"apple"}`}
	for name, value := range values {
		upsert(t, prefix+name, value, index{prefix + "z/index", "m"})
	}
	upsert(t, prefix+"plain", `{"a":1,"word":"apple"}`)
	everyone := []string{"nul", "number", "plain", "surrogate"}
	for _, filter := range []string{`"where":[{"path":"word","op":"eq","value":"apple"}]`, `"search":"apple"`, `"search":"apple -pear"`,
		`"where":[{"path":"word","op":"exists"},{"path":"x","op":"exists","value":false}]`} {
		a := postQuery(t, `{"prefix":`+quote(prefix)+`,`+filter+`}`)
		require.Equal(t, everyone, a.found(t, prefix), "%s", filter)
		require.Empty(t, notices(t, a), "%s", filter)
		for _, value := range values {
			require.Contains(t, string(a.body), value, "the value comes back as written")
		}
	}
	query(t, "prefix", prefix+"n", "select", "value.word,value.a").is(t, http.StatusOK,
		`{"results":[{"value.word":"apple","value.a":"x\u0000y"},{"value.word":"apple","value.a":1e400000}],"count":2,`+
			`"pagination":{"limit":100,"offset":0,"hasMore":false,"nextCursor":null},"timestamp":"now"}`)

	// A query that reads a replaced part reports that.
	a := postQuery(t, `{"prefix":`+quote(prefix)+`,"where":[{"path":"a","op":"ne","value":2}]}`)
	require.Equal(t, everyone, a.found(t, prefix))
	require.Equal(t, []string{"replaced"}, notices(t, a))
	require.Contains(t, string(a.body), `{"code":"replaced","count":3,"message":"entries under this prefix and with these indexes that have at a path of the query what the database cannot hold: 3.`)
	require.Equal(t, []string{"replaced"}, notices(t, query(t, "prefix", prefix, "aggregate", "max:a")))
	require.Equal(t, "replaced", query(t, "prefix", prefix, "sort", "a", "format", "csv").header.Get("X-KV-Notice"))
}

// TestQuerySearchesWhatPeopleType: phones and word processors write typographic characters, in any script.
func TestQuerySearchesWhatPeopleType(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	for text, searches := range map[string][]string{
		"He said “Hello”": {"Hello", "“said hello”"}, "東京、大阪": {"大阪"}, "alpha—omega": {"alpha", "omega"}, "one\u00a0two": {"two", `"one two"`}, "wait…what": {"what"},
		"«Bonjour»": {"bonjour"}, "¡Hola!": {"hola"}, "party🎉": {"party"}, "ΟΔΟΣ": {"οδος"}, "日本語のテキスト": {"日本語", "テキスト"},
	} {
		upsert(t, prefix+text, `[`+quote(text)+`]`)
		for _, search := range searches {
			require.Equal(t, []string{text}, query(t, "prefix", prefix, "q", search).found(t, prefix), "%s", search)
		}
	}
	query(t, "q", "…").isError(t, http.StatusBadRequest, "search has no word in it")
}

// TestQueryByTheEntrysOwnFields: where, sort and select name the same fields.
func TestQueryByTheEntrysOwnFields(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	for _, name := range []string{"a", "b", "c"} {
		upsert(t, prefix+name, `{"key":"value","createdAt":"1999-01-01"}`)
	}
	where := func(condition string) []string {
		return postQuery(t, `{"prefix":`+quote(prefix)+`,"where":[`+condition+`]}`).found(t, prefix)
	}
	require.Equal(t, []string{"b"}, where(`{"path":"key","op":"eq","value":`+quote(prefix+"b")+`}`))
	require.Equal(t, []string{"a", "c"}, where(`{"path":"key","op":"in","value":[`+quote(prefix+"c")+`,`+quote(prefix+"a")+`,"x"]}`))
	require.Equal(t, []string{"a", "b", "c"}, where(`{"path":"/key","op":"eq","value":"value"}`))
	require.Equal(t, []string{"a", "b", "c"}, where(`{"path":"/createdAt","op":"eq","value":"1999-01-01"}`))
	require.Equal(t, []string{"a", "b", "c"}, query(t, "prefix", prefix, "range", "createdAt:2020..2999").found(t, prefix))
	require.Empty(t, query(t, "prefix", prefix, "range", "createdAt:..2020-01-01").found(t, prefix))
	require.Equal(t, []string{"c", "b", "a"}, query(t, "prefix", prefix, "sort", "-key").found(t, prefix))

	var p struct{ Results []struct{ CreatedAt string } }
	require.NoError(t, json.Unmarshal(query(t, "prefix", prefix, "select", "createdAt", "sort", "createdAt").body, &p))
	first := p.Results[0].CreatedAt
	require.Contains(t, where(`{"path":"createdAt","op":"eq","value":"`+first+`"}`), "a", "a comparison uses the time that a response shows")
	require.Equal(t, []string{"a", "b", "c"}, where(`{"path":"createdAt","op":"gte","value":"`+first+`"},{"path":"updatedAt","op":"gte","value":"`+first+`"}`))
	require.Contains(t, string(query(t, "prefix", prefix, "aggregate", "min:createdAt").body), `"value":"`+first+`","excluded":0`)
}

// TestQueryIgnoresNothing: an unknown name is refused, and the error suggests the nearest known one.
func TestQueryIgnoresNothing(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{"key": "prefix", "keys": "prefix", "filter": "where", "orderBy": "sort", "order": "sort", "limt": "limit"} {
		query(t, given, "r/3").isExactError(t, http.StatusBadRequest, quote(given)+" is not a parameter of kv-query: did you mean "+want+"?")
		postQuery(t, `{`+quote(given)+`:"r/3"}`).isExactError(t, http.StatusBadRequest, quote(given)+" is not a field of kv-query: did you mean "+want+"?")
	}
}

// TestCursorsBelongToTheirQuery: with another prefix, filter or order, a cursor would skip entries.
func TestCursorsBelongToTheirQuery(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	for _, name := range []string{"a/1", "a/2", "a/3", "b/1"} {
		upsert(t, prefix+name, `{"n":1}`, index{prefix + "i", "m"})
	}
	for _, path := range []string{listPath, queryPath} {
		ask := func(pairs ...string) *response {
			if path == queryPath {
				return query(t, pairs...)
			}
			return call(t, http.MethodGet, path+params(pairs...))
		}
		var p queryPage
		require.NoError(t, json.Unmarshal(ask("prefix", prefix+"a/", "index", prefix+"i:m", "limit", "1").body, &p))
		require.NotNil(t, p.Pagination.NextCursor)
		cursor := *p.Pagination.NextCursor
		a := ask("prefix", prefix+"a/", "index", prefix+"i:m", "limit", "7", "cursor", cursor)
		require.Equal(t, http.StatusOK, a.status, "%v", a)
		require.Contains(t, string(a.body), quote(prefix+"a/3"), "the same query with another limit")
		for _, other := range [][]string{
			{"prefix", prefix, "index", prefix + "i:m"}, {"prefix", prefix + "a/"}, {"prefix", prefix + "a/", "index", prefix + "i:n"}, {"prefix", prefix + "a/", "indexKey", prefix + "i"},
			{"index", prefix + "i:m"},
		} {
			ask(append(other, "limit", "1", "cursor", cursor)...).isError(t, http.StatusBadRequest, "cursor belongs to another question")
		}
		if path == queryPath {
			query(t, "prefix", prefix+"a/", "index", prefix+"i:m", "q", "x", "cursor", cursor).isError(t, http.StatusBadRequest, "cursor belongs to another question")
			query(t, "prefix", prefix+"a/", "index", prefix+"i:m", "sort", "-key", "cursor", cursor).isError(t, http.StatusBadRequest, "cursor belongs to another question")
			call(t, http.MethodGet, listPath+params("prefix", prefix+"a/", "index", prefix+"i:m", "cursor", cursor)).isError(t, http.StatusBadRequest, "cursor belongs to another question")
		}
	}
}

// TestReadingsOfAnIndexAreBounded: every colon may end an index's key, and the query looks up each reading.
func TestReadingsOfAnIndexAreBounded(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	var pairs []string
	for i := range 100 {
		pairs = append(pairs, "index", fmt.Sprintf("%d%s", i, strings.Repeat(":", 900)+"b"))
	}
	call(t, http.MethodGet, listPath+params(pairs...)).isError(t, http.StatusBadRequest, "index may be read as 1024 pairs")
	upsert(t, prefix+"k", `{}`, index{prefix + "i::", strings.Repeat(":", 900)})
	spelled := prefix + "i:::" + strings.Repeat(":", 900)
	require.Equal(t, []string{prefix + "k"}, keys(t, "index", spelled))
	require.Equal(t, []string{"k"}, query(t, "index", spelled).found(t, prefix))
	query(t, pairs...).isError(t, http.StatusBadRequest, "indexes may be read as 1024 pairs")
}

func TestQueryFindsIndexEntriesByKeyAlone(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	upsert(t, prefix+"a", `{"x":1}`, index{prefix + "index", "apple"})
	query(t, "prefix", prefix+"index", "select", "key,value").is(t, http.StatusOK,
		`{"results":[{"key":`+quote(prefix+"index")+`,"value":["apple"]}],"count":1,"pagination":{"limit":100,"offset":0,"hasMore":false,"nextCursor":null},"timestamp":"now"}`)
	require.Empty(t, query(t, "prefix", prefix, "q", "apple").found(t, prefix))
	require.Empty(t, query(t, "prefix", prefix, "where", `[{"path":"0","op":"exists"}]`).found(t, prefix))
}

// TestQueryOfLongText: a value that is too long to search is stored and listed, and a search reports that it was not
// searched.
func TestQueryOfLongText(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	upsert(t, prefix+"long", `{"text":"`+strings.Repeat("needle hay ", 25_000)+`"}`)
	upsert(t, prefix+"short", `{"text":"needle"}`)
	a := query(t, "prefix", prefix, "q", "needle", "select", "key")
	require.Equal(t, []string{"short"}, a.found(t, prefix))
	require.Contains(t, string(a.body), `"notices":[{"code":"not_searched","count":1,"message":"entries under this prefix and with these indexes that were not searched: 1.`)
	require.Equal(t, "not_searched", query(t, "prefix", prefix, "q", "needle", "format", "ndjson").header.Get("X-KV-Notice"))
	require.Empty(t, notices(t, query(t, "prefix", prefix+"s", "q", "needle")))
	require.Equal(t, []string{"long"}, query(t, "prefix", prefix, "where", `[{"path":"text","op":"contains","value":"hay needle"}]`).found(t, prefix))
}

func TestQueryByRelevance(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	for i := range 5 {
		upsert(t, prefix+strconv.Itoa(i), `{"text":"`+strings.Repeat("apple ", 2*i%5+1)+`"}`)
	}
	require.Equal(t, []string{"2", "4", "1", "3", "0"}, query(t, "prefix", prefix, "q", "apple", "sort", "relevance").found(t, prefix))
	page := query(t, "prefix", prefix, "q", "apple", "sort", "relevance", "limit", "2", "offset", "2", "select", "key")
	page.is(t, http.StatusOK, `{"results":[{"key":`+quote(prefix+"1")+`},{"key":`+quote(prefix+"3")+`}],"count":2,"pagination":{"limit":2,"offset":2,"hasMore":true,"nextCursor":null},`+
		`"notices":[{"code":"no_cursor","message":"this order has no cursor: go on with offset 4"}],"timestamp":"now"}`)
}

// TestQueryBoundsAreReported: ranking stops at 10,000 matches and grouping at 10,000 groups, and the response reports
// both.
func TestQueryBoundsAreReported(t *testing.T) {
	db := database(t)
	prefix := newPrefix()
	_, err := db.Exec(t.Context(), `insert into public.kv_store (key, value)
		select $1 || lpad(i::text, 5, '0'), json_build_object('text', 'apple', 'n', i) from generate_series(1, 10001) as i`, prefix)
	require.NoError(t, err)
	ranked := query(t, "prefix", prefix, "q", "apple", "sort", "relevance")
	for try := 0; ranked.status == http.StatusGatewayTimeout && try < 5; try++ { // ten seconds may not suffice on a busy machine
		t.Logf("asked again: %v", ranked)
		ranked = query(t, "prefix", prefix, "q", "apple", "sort", "relevance")
	}
	require.Equal(t, []string{"ranked_first", "no_cursor"}, notices(t, ranked))
	require.Empty(t, notices(t, query(t, "prefix", prefix, "aggregate", "count", "groupBy", "text")))
	a := query(t, "prefix", prefix, "aggregate", "count", "groupBy", "n")
	require.Equal(t, []string{"groups_cut"}, notices(t, a))
	require.Equal(t, 10_000, strings.Count(string(a.body), `"group":`))
	require.True(t, strings.HasPrefix(string(a.body), `{"aggregates":[{"op":"count","value":10001}]`), "aggregates cover all matches")
}

// notices returns the codes of a response's notices.
func notices(t *testing.T, a *response) (codes []string) {
	t.Helper()
	require.Equal(t, http.StatusOK, a.status, "%v", a)
	var p queryPage
	require.NoError(t, json.Unmarshal(a.body, &p))
	for _, notice := range p.Notices {
		codes = append(codes, notice.Code)
	}
	return codes
}

func TestQueryPagesStayWhileEntriesCome(t *testing.T) {
	t.Parallel()
	for _, sort := range []string{"key", "key:desc", "createdAt", "createdAt:desc", "updatedAt"} {
		t.Run(sort, func(t *testing.T) {
			t.Parallel()
			prefix := newPrefix()
			for i := range 20 {
				upsert(t, fmt.Sprintf("%s%02d", prefix, i*2), `{}`)
			}
			request := map[string]any{"prefix": prefix, "sort": sort, "limit": 3, "select": []string{"key"}}
			want := query(t, "prefix", prefix, "sort", sort, "limit", "100").found(t, prefix)
			got := []string{}
			for page := 0; ; page++ {
				a := sendQuery(t, request)
				got = append(got, a.found(t, prefix)...)
				var p queryPage
				require.NoError(t, json.Unmarshal(a.body, &p))
				if !p.Pagination.HasMore {
					break
				}
				request["cursor"] = *p.Pagination.NextCursor
				upsert(t, fmt.Sprintf("%s%02d", prefix, page*6+1), `{"new":true}`)
			}
			old := slices.DeleteFunc(got, func(key string) bool { n, _ := strconv.Atoi(key); return n%2 == 1 })
			require.Equal(t, want, old, "every existing entry comes once, in order")
		})
	}
}

func TestQueryPageEndsBeforeItIsTooLarge(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	big := megabyte()
	for i := range 6 {
		upsert(t, prefix+strconv.Itoa(i), big)
	}
	for format, perPage := range map[string]int{"json": 4, "csv": 2, "ndjson": 4} {
		cursor, pages := "", 0
		for cursor != "" || pages == 0 {
			a := query(t, "prefix", prefix, "select", "key,value", "format", format, "cursor", cursor)
			require.Equal(t, http.StatusOK, a.status, "%v", a)
			pages++
			if format == "json" {
				var p queryPage
				require.NoError(t, json.Unmarshal(a.body, &p))
				require.LessOrEqual(t, len(p.Results), perPage)
				cursor = ""
				if p.Pagination.NextCursor != nil {
					cursor = *p.Pagination.NextCursor
				}
				continue
			}
			require.Equal(t, strconv.FormatBool(a.header.Get("X-KV-Next-Cursor") != ""), a.header.Get("X-KV-Has-More"))
			cursor = a.header.Get("X-KV-Next-Cursor")
		}
		require.Equal(t, (6+perPage-1)/perPage, pages, "pages as %s", format)
	}
}

// TestQueryExportsLoseNothing follows the cursor in both formats and compares every value with what was written.
func TestQueryExportsLoseNothing(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	texts := []string{`=1+1`, `'=x`, `a "b"`, "a,b;c", "line\nbreak\r\nand\rmore", " space", "", "ümläut 日本 🎉", "-5", "@x", "\ttab", "007", "a\u2028b\u2029c\u0085d"}
	for i, text := range texts {
		upsert(t, fmt.Sprintf("%s%02d", prefix, i), fmt.Sprintf("{\"text\":%s,\n \"n\": %d.50}", quote(text), i))
	}
	var lines, cells []string
	for _, format := range []string{"ndjson", "csv"} {
		for cursor, first := "", true; cursor != "" || first; first = false {
			a := query(t, "prefix", prefix, "select", "key,value,value.text,value.n", "format", format, "cursor", cursor, "limit", "5")
			require.Equal(t, http.StatusOK, a.status, "%v", a)
			cursor = a.header.Get("X-KV-Next-Cursor")
			require.Equal(t, `attachment; filename="kv-query.`+format+`"`, a.header.Get("Content-Disposition"))
			if format == "ndjson" {
				require.Equal(t, "application/x-ndjson; charset=utf-8", a.header.Get("Content-Type"))
				lines = append(lines, strings.Split(strings.TrimSuffix(string(a.body), "\n"), "\n")...)
				continue
			}
			require.Equal(t, "text/csv; charset=utf-8; header=present", a.header.Get("Content-Type"))
			require.True(t, strings.HasPrefix(string(a.body), "key,value,value.text,value.n\r\n") && strings.HasSuffix(string(a.body), "\r\n"))
			records, err := csv.NewReader(strings.NewReader(string(a.body))).ReadAll()
			require.NoError(t, err)
			for _, record := range records[1:] {
				cells = append(cells, record[2]+"|"+record[3])
			}
		}
	}
	require.Len(t, lines, len(texts))
	require.Len(t, cells, len(texts))
	for i, text := range texts {
		var line struct {
			Text string          `json:"value.text"`
			N    json.RawMessage `json:"value.n"`
		}
		require.NoError(t, json.Unmarshal([]byte(lines[i]), &line))
		require.Equal(t, text, line.Text)
		require.Equal(t, fmt.Sprintf("%d.50", i), string(line.N))
		// Go's CSV reader turns \r\n within a cell into \n.
		guarded := map[string]string{`=1+1`: `'=1+1`, `'=x`: `''=x`, "-5": "'-5", "@x": "'@x", "\ttab": "'\ttab"}
		want := text
		if g, ok := guarded[text]; ok {
			want = g
		}
		require.Equal(t, strings.ReplaceAll(want, "\r\n", "\n")+fmt.Sprintf("|%d.50", i), cells[i])
	}
}

// TestQueryByAFastPath: an index made with kv_index_path serves an order and gives it a cursor.
func TestQueryByAFastPath(t *testing.T) {
	db := database(t)
	prefix := newPrefix()
	path := "fast" + random()
	for i := range 30 {
		value := strconv.Itoa(i % 10)
		switch {
		case i%7 == 3:
			value = quote("text" + value)
		case i%7 == 5:
			value = "null"
		}
		upsert(t, fmt.Sprintf("%s%02d", prefix, i), `{"`+path+`":`+value+`}`)
	}
	upsert(t, prefix+"none", `{}`)
	walk := func(sort string) []string {
		request := map[string]any{"prefix": prefix, "sort": sort, "limit": 4, "select": []string{"key"}}
		keys, _ := queryAll(t, request)
		return keys
	}
	slow := map[string][]string{path: walk(path), path + ":desc": walk(path + ":desc")}
	page := func() (p queryPage) {
		require.NoError(t, json.Unmarshal(call(t, http.MethodGet, queryPath+params("prefix", prefix, "sort", path, "limit", "4"), fresh).body, &p))
		return p
	}
	require.Nil(t, page().Pagination.NextCursor, "without an index the order has no cursor")

	_, err := db.Exec(t.Context(), `select public.kv_index_path($1)`, path)
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = db.Exec(cleanupContext(t), `select public.kv_unindex_path($1)`, path) })
	require.NotNil(t, page().Pagination.NextCursor, "with an index the order has a cursor")
	for sort, want := range slow {
		require.Equal(t, want, walk(sort), "sorted by %s", sort)
	}
	require.Len(t, query(t, "prefix", prefix, "range", path+":2..5", "sort", path).found(t, prefix), len(query(t, "prefix", prefix, "range", path+":2..5").found(t, prefix)))

	digits := []byte("1")
	for range 6000 { // random digits, since a compressible value would fit into the index
		digits = append(digits, '0'+byte(rand.IntN(10)))
	}
	post(t, upsertPath, upsertBody(prefix+"long", `{"`+path+`":`+string(digits)+`}`)).isError(t, http.StatusUnprocessableEntity, "the database cannot store the value")
	upsert(t, prefix+"long", `{"other":`+string(digits)+`}`)
}

// TestQueryEndsAfterTenSeconds makes a query wait for locks on two tables, one after the other, since a session of a
// hosted project waits at most 8 s for one. It is not parallel, because all tests use the tables.
func TestQueryEndsAfterTenSeconds(t *testing.T) {
	needsHost(t)
	watch := database(t)
	tables := []string{"public.kv_store", "kv.posting"}
	locks := map[string]pgx.Tx{}
	for _, table := range tables {
		lock, err := database(t).Begin(t.Context())
		require.NoError(t, err)
		defer func() { _ = lock.Rollback(cleanupContext(t)) }()
		_, err = lock.Exec(t.Context(), `lock table `+table+` in access exclusive mode`)
		require.NoError(t, err)
		locks[table] = lock
	}
	start := time.Now()
	answered := make(chan *response, 1)
	go func() {
		a, err := send(http.MethodPost, queryPath, body(`{"indexes":{"all":[{"key":"e2e/none","member":"m"}]}}`), fresh)
		if err != nil {
			a = &response{request: err.Error()}
		}
		answered <- a
	}()
	var waiting string
	require.Eventually(t, func() bool {
		err := watch.QueryRow(t.Context(), `select relation::regclass::text from pg_locks where not granted and relation = any ($1::regclass[])`, tables).Scan(&waiting)
		return err == nil
	}, 2*time.Minute, 10*time.Millisecond, "the query must wait for a lock")
	time.Sleep(5 * time.Second) // less than a session may wait; then the query waits for the other table
	require.NoError(t, locks[waiting].Rollback(t.Context()))
	(<-answered).isError(t, http.StatusGatewayTimeout, "kv_index_path")
	require.Greater(t, time.Since(start), 9*time.Second)
}

// TestTruncatedTextIsReported: min and max of text are bounded, and a truncated text is marked.
func TestTruncatedTextIsReported(t *testing.T) {
	needsSupabase(t)
	t.Parallel()
	prefix := newPrefix()
	long := strings.Repeat("ä", 200)
	upsert(t, prefix+"1", `{"t":`+quote(long)+`}`)
	ask := []string{"prefix", prefix, "aggregate", "max:t"}
	query(t, ask...).is(t, http.StatusOK, `{"aggregates":[{"op":"max","path":"t","value":`+quote(long)+`,"excluded":0}],"timestamp":"now"}`)

	upsert(t, prefix+"2", `{"t":`+quote(long+"ö")+`}`)
	a := query(t, ask...)
	require.Contains(t, string(a.body), `{"op":"max","path":"t","value":`+quote(long)+`,"cut":true,"excluded":0}`)
	require.Equal(t, []string{"text_cut"}, notices(t, a))
	require.Equal(t, []string{"text_cut"}, notices(t, query(t, append(ask, "groupBy", "x")...)))
	a = query(t, append(ask, "format", "csv")...)
	require.Equal(t, "max:t,max:t excluded\r\n"+long+",0\r\n", string(a.body))
	require.Equal(t, "text_cut", a.header.Get("X-KV-Notice"))
}
