// Package kvtest tests the contract of kv.Store. A store is complete when it passes [Run].
package kvtest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

// Limits are those of a store that supports less than Supabase.
type Limits struct {
	// CheckKey refuses keys that the store cannot have; nil: [kv.ValidateKey].
	CheckKey func(key string) error
	// MaxKeyBytes bounds a key; 0: [kv.MaxKeyBytes].
	MaxKeyBytes int
	// NoQueries means that queries are [kv.CodeNotConfigured].
	NoQueries bool
}

// Run tests a store. The store may hold other entries and have other users: all keys have a random prefix.
func Run(t *testing.T, store kv.Store, limits Limits) {
	if limits.CheckKey == nil {
		limits.CheckKey = kv.ValidateKey
	}
	if limits.MaxKeyBytes == 0 {
		limits.MaxKeyBytes = kv.MaxKeyBytes
	}
	for name, test := range map[string]func(*testing.T, suite){
		"AValueComesBackAsItWasWritten":         testValues,
		"AMissingKeyIsNotFound":                 testMissing,
		"DeleteSaysWhetherThereWasAnEntry":      testDelete,
		"IndexesStayUnlessGiven":                testIndexes,
		"AnIndexEntryListsItsMembersInOrder":    testIndexEntry,
		"AnIndexEntryCanBeReplacedAndDeleted":   testIndexEntryReplaced,
		"MembersFollowAnArrayThatWasThere":      testIndexOnPlainEntry,
		"ConcurrentUpsertsLoseNoMember":         testConcurrentMembers,
		"ListIsInByteOrderUnderALiteralPrefix":  testList,
		"PagesTogetherAreTheWholeList":          testPages,
		"NumbersAndStringsAreTwoMembers":        testNumbers,
		"FiltersMatchWhicheverPairSpellsThem":   testFilters,
		"QueriesCombineTheirFilters":            testQuery,
		"InputBeyondALimitIsRefused":            testLimits,
		"AnEndedContextIsADeadlineAndNoSuccess": testContext,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			t.Cleanup(cancel)
			test(t, suite{ctx: ctx, store: store, limits: limits, prefix: "kvtest/" + uuid.NewString() + "/"})
		})
	}
}

type suite struct {
	ctx    context.Context
	store  kv.Store
	limits Limits
	prefix string
}

func (s suite) upsert(t *testing.T, key, value string, indexes ...kv.Index) kv.Written {
	t.Helper()
	written, err := s.store.Upsert(s.ctx, kv.Entry{Key: s.prefix + key, Value: value, Indexes: indexes})
	require.NoError(t, err, "upsert %q", key)
	return written
}

func (s suite) requireValue(t *testing.T, key, value string) {
	t.Helper()
	got, err := s.store.Get(s.ctx, s.prefix+key)
	require.NoError(t, err, "get %q", key)
	require.Equal(t, value, got, "value of %q", key)
}

// answer is a response of List, without the suite's prefix.
type answer struct {
	Keys       []string
	Count      int
	Data       map[string]json.RawMessage
	Pagination *struct {
		Limit      *int
		Offset     int
		HasMore    bool
		NextCursor *string
	}
}

func (s suite) list(t *testing.T, q kv.ListQuery) answer {
	t.Helper()
	q.Prefix = s.prefix + q.Prefix
	text, err := s.store.List(s.ctx, q)
	require.NoError(t, err, "list %+v", q)
	var a answer
	require.NoError(t, json.Unmarshal([]byte(text), &a), "list answered %s", text)
	require.Len(t, a.Keys, a.Count, "count and keys")
	for i, key := range a.Keys {
		a.Keys[i] = strings.TrimPrefix(key, s.prefix)
	}
	return a
}

func (s suite) index(key, member string) kv.Index {
	return kv.Index{Key: s.prefix + key, Member: kv.TextMember(member)}
}

func (s suite) number(key, spelling string) kv.Index {
	return kv.Index{Key: s.prefix + key, Member: kv.NumberMember(spelling)}
}

func testValues(t *testing.T, s suite) {
	for name, value := range map[string]string{
		"null": `null`, "array": `[]`, "object": `{}`,
		"key order and duplicates": `{"b":1,"a":2,"b":3}`,
		"numbers":                  `[1.0,-0,1e400,12345678901234567890,1E+2]`,
		"an exponent beyond any":   `[1e` + strings.Repeat("9", 400) + `]`,
		"white space":              "{ \"a\" :\t[ 1 ,\n2 ] }",
		"no NUL in jsonb":          `{"a":"\u0000b","\u0000":1}`,
		"lone surrogates":          `["\ud800","\udc00\ud800"]`,
		"escapes":                  `["\u003c\/\u00e9\"\\"," <>&` + "\u2028" + `"]`,
		"deep":                     strings.Repeat("[", kv.MaxDepth) + strings.Repeat("]", kv.MaxDepth),
		"emoji":                    `{"😀":"👩‍👩‍👧"}`,
		"large":                    `{"text":"` + strings.Repeat(`word \"quoted\" `, 70000) + `"}`,
	} {
		s.upsert(t, name, value)
		s.requireValue(t, name, value)
		s.upsert(t, name, value)
		s.requireValue(t, name, value)
	}
}

func testMissing(t *testing.T, s suite) {
	_, err := s.store.Get(s.ctx, s.prefix+"nothing")
	require.Equal(t, kv.CodeNotFound, kv.CodeOf(err), "got %v", err)
}

func testDelete(t *testing.T, s suite) {
	s.upsert(t, "a", `{}`)
	for _, existed := range []bool{true, false} {
		written, err := s.store.Delete(s.ctx, s.prefix+"a")
		require.NoError(t, err)
		require.Equal(t, existed, written.Existed)
		require.NotEmpty(t, written.Version)
	}
	_, err := s.store.Get(s.ctx, s.prefix+"a")
	require.Equal(t, kv.CodeNotFound, kv.CodeOf(err))
}

func testIndexes(t *testing.T, s suite) {
	x, y := s.index("x", "1"), s.index("y", "1")
	keysUnder := func(index kv.Index) []string {
		return s.list(t, kv.ListQuery{Indexes: []string{index.String()}}).Keys
	}
	s.upsert(t, "entry", `{}`, x, x)
	require.Equal(t, []string{"entry"}, keysUnder(x))
	s.upsert(t, "entry", `{"v":2}`)
	require.Equal(t, []string{"entry"}, keysUnder(x), "absent indexes leave the entry's")
	s.upsert(t, "entry", `{}`, y)
	require.Empty(t, keysUnder(x), "given indexes replace the entry's")
	require.Equal(t, []string{"entry"}, keysUnder(y))
	_, err := s.store.Upsert(s.ctx, kv.Entry{Key: s.prefix + "entry", Value: `{}`, Indexes: []kv.Index{}})
	require.NoError(t, err)
	require.Empty(t, keysUnder(y), "an empty set clears the entry's")
	s.requireValue(t, "x", `["1"]`)
}

func testIndexEntry(t *testing.T, s suite) {
	s.upsert(t, "one", `{}`, s.index("index", "b"), s.index("index", "a"), s.index("index", `"quoted"`))
	s.upsert(t, "two", `{}`, s.index("index", "a"), s.index("index", "é"))
	s.requireValue(t, "index", `["b","a","\"quoted\"","é"]`)
	a := s.list(t, kv.ListQuery{Values: true})
	require.Equal(t, []string{"index", "one", "two"}, a.Keys)
	require.Equal(t, `["b","a","\"quoted\"","é"]`, string(a.Data[s.prefix+"index"]))
}

func testNumbers(t *testing.T, s suite) {
	s.upsert(t, "a", `{}`, s.number("x", "5"), s.index("x", "5"), s.number("x", "5"))
	s.upsert(t, "b", `{}`, s.index("x", "5"))
	s.upsert(t, "c", `{}`, s.number("x", "5"), s.number("x", "5.0"), s.number("x", "-1e400"), s.number("x", strings.Repeat("9", 400)))
	s.upsert(t, "d", `{}`, s.index("x", "\x015"), s.index("x", "\x01"))
	s.requireValue(t, "x", `[5,"5",5.0,-1e400,`+strings.Repeat("9", 400)+`,"\u00015","\u0001"]`)
	s.upsert(t, "stored", `[1, "2", 3.0, "\u0001", {"a":1}, true]`)
	s.upsert(t, "e", `{}`, s.number("stored", "1"), s.index("stored", "1"), s.number("stored", "2"), s.index("stored", "2"), s.number("stored", "3"), s.index("stored", "\x01"))
	s.requireValue(t, "stored", `[1, "2", 3.0, "\u0001", {"a":1}, true,"1",2,3]`)
	for filter, want := range map[string][]string{
		"x:5": {"a", "b", "c"}, "x:5.0": {"c"}, "x:-1e400": {"c"}, "x:05": {}, "x:\x015": {"d"}, "x:\x01": {"d"}, "x:" + strings.Repeat("9", 400): {"c"}, "stored:1": {"e"},
	} {
		require.Equal(t, want, s.list(t, kv.ListQuery{Indexes: []string{s.prefix + filter}}).Keys, filter)
	}
	s.upsert(t, "a", `{}`, s.index("x", "5"))
	s.upsert(t, "b", `{}`, s.index("y", "5"))
	require.Equal(t, []string{"a", "c"}, s.list(t, kv.ListQuery{Indexes: []string{s.prefix + "x:5"}}).Keys, "an entry leaves by the member it had")
	if s.limits.NoQueries {
		return
	}
	for name, c := range map[string]struct {
		filter kv.IndexFilter
		want   string
	}{
		"spelled": {kv.IndexFilter{Pair: s.prefix + "x:5"}, "a c"},
		"number":  {kv.IndexFilter{Exact: s.number("x", "5")}, "c"},
		"string":  {kv.IndexFilter{Exact: s.index("x", "5")}, "a"},
		"marked":  {kv.IndexFilter{Exact: s.index("x", "\x015")}, "d"},
	} {
		require.Equal(t, c.want, s.query(t, kv.Query{Indexes: &c.filter}), name)
	}
	text, err := s.store.Query(s.ctx, kv.Query{Prefix: s.prefix, Aggregates: []kv.Aggregate{{Op: "count"}}, GroupBy: kv.Grouping("index:" + s.prefix + "x")})
	require.NoError(t, err)
	var groups struct {
		Groups []struct{ Group json.RawMessage }
	}
	require.NoError(t, json.Unmarshal([]byte(text), &groups))
	var members []string
	for _, group := range groups.Groups {
		members = append(members, string(group.Group))
	}
	require.ElementsMatch(t, []string{`5`, `"5"`, `5.0`, `-1e400`, strings.Repeat("9", 400), `"\u00015"`, `"\u0001"`}, members)
}

// query returns the keys that Query finds, without the suite's prefix.
func (s suite) query(t *testing.T, q kv.Query) string {
	t.Helper()
	q.Prefix, q.Select = s.prefix, []kv.Field{"key"}
	text, err := s.store.Query(s.ctx, q)
	require.NoError(t, err, "query %+v", q)
	var answer struct{ Results []struct{ Key string } }
	require.NoError(t, json.Unmarshal([]byte(text), &answer))
	var keys []string
	for _, result := range answer.Results {
		keys = append(keys, strings.TrimPrefix(result.Key, s.prefix))
	}
	return strings.Join(keys, " ")
}

func testIndexEntryReplaced(t *testing.T, s suite) {
	s.upsert(t, "one", `{}`, s.index("index", "a"))
	s.upsert(t, "index", `[ "z" ]`)
	s.requireValue(t, "index", `[ "z" ]`)
	s.upsert(t, "one", `{}`, s.index("index", "a"), s.index("index", "z"))
	s.requireValue(t, "index", `[ "z","a"]`)
	s.upsert(t, "index", `{"no":"array"}`)
	s.requireValue(t, "index", `{"no":"array"}`)
	_, err := s.store.Delete(s.ctx, s.prefix+"index")
	require.NoError(t, err)
	s.upsert(t, "two", `{}`, s.index("index", "b"))
	s.requireValue(t, "index", `["b"]`)
}

func testIndexOnPlainEntry(t *testing.T, s suite) {
	for name, c := range map[string]struct{ stored, want string }{
		"empty array":       {`[]`, `["m"]`},
		"array with space":  {" [ ] ", `["m"]`},
		"array":             {`[1,{"a":"m"}]`, `[1,{"a":"m"},"m"]`},
		"holds the member":  {`["m",2]`, `["m",2]`},
		"escaped member":    {`["\u006d"]`, `["\u006d"]`},
		"not for jsonb":     {`["\u0000","m"]`, `["\u0000","m"]`},
		"not for jsonb too": {`["\u0000"]`, `["\u0000","m"]`},
		"escaped among odd": {`["\u0000","\u006d"]`, `["\u0000","\u006d"]`},
		"object":            {`{"m":1}`, `["m"]`},
		"null":              {`null`, `["m"]`},
	} {
		s.upsert(t, name, c.stored)
		s.upsert(t, name+"/entry", `{}`, s.index(name, "m"))
		got, err := s.store.Get(s.ctx, s.prefix+name)
		require.NoError(t, err)
		require.Equal(t, strings.ReplaceAll(c.want, " ", ""), strings.ReplaceAll(got, " ", ""), name)
	}
}

func testConcurrentMembers(t *testing.T, s suite) {
	const writers = 50
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			_, err := s.store.Upsert(s.ctx, kv.Entry{
				Key: fmt.Sprintf("%sentry/%d", s.prefix, i), Value: `{}`,
				Indexes: []kv.Index{s.index("b", fmt.Sprint(i)), s.index("a", fmt.Sprint(i))},
			})
			if err != nil {
				t.Errorf("upsert %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	for _, index := range []string{"a", "b"} {
		value, err := s.store.Get(s.ctx, s.prefix+index)
		require.NoError(t, err)
		var members []string
		require.NoError(t, json.Unmarshal([]byte(value), &members))
		require.Len(t, members, writers, "members of %s: %v", index, members)
	}
}

func testList(t *testing.T, s suite) {
	keys := []string{"%", "*", "A", "\\", "_", "a", "a b", "a%b", "a'b", "a\"b", "aa", "é", "\U0001F600", "\uE000", "__proto__"}
	keys = slices.DeleteFunc(keys, func(key string) bool {
		if s.limits.CheckKey(s.prefix+key) == nil {
			s.upsert(t, key, `{}`)
			return false
		}
		_, err := s.store.Upsert(s.ctx, kv.Entry{Key: s.prefix + key, Value: `{}`})
		require.Equal(t, kv.CodeInvalidInput, kv.CodeOf(err), "a key that cannot be kept: %q", key)
		return true
	})
	slices.Sort(keys)
	require.Equal(t, keys, s.list(t, kv.ListQuery{}).Keys)
	for _, prefix := range append(keys, "zzz", "\uD7FF") {
		want := []string{}
		for _, key := range keys {
			if strings.HasPrefix(key, prefix) {
				want = append(want, key)
			}
		}
		require.Equal(t, want, s.list(t, kv.ListQuery{Prefix: prefix}).Keys, "prefix %q", prefix)
	}
}

func testPages(t *testing.T, s suite) {
	var all []string
	for i := range 7 {
		all = append(all, fmt.Sprint("key/", i))
		s.upsert(t, all[i], fmt.Sprintf(`{"n":%d}`, i))
	}
	for _, order := range []kv.SortKey{{}, {Path: "key", Descending: true}, {Path: "createdAt"}, {Path: "createdAt", Descending: true}, {Path: "updatedAt"}, {Path: "updatedAt", Descending: true}} {
		want := slices.Clone(all)
		if order.Descending {
			slices.Reverse(want)
		}
		limit, got := 3, []string{}
		for q := (kv.ListQuery{Sort: order, Limit: &limit, Values: true}); ; {
			a := s.list(t, q)
			require.Equal(t, 3, *a.Pagination.Limit)
			require.Len(t, a.Data, len(a.Keys))
			got = append(got, a.Keys...)
			if !a.Pagination.HasMore {
				require.Nil(t, a.Pagination.NextCursor)
				break
			}
			var err error
			q.After, err = kv.ParseCursor(*a.Pagination.NextCursor)
			require.NoError(t, err)
		}
		require.Equal(t, want, got, "%v by cursor", order)

		offset := 5
		a := s.list(t, kv.ListQuery{Sort: order, Offset: &offset})
		require.Equal(t, want[5:], a.Keys, "%v by offset", order)
		require.False(t, a.Pagination.HasMore)
	}
}

func testFilters(t *testing.T, s suite) {
	s.upsert(t, "1", `{}`, s.index("a:b", "c"), s.index("odd", `,"{}\:x`))
	s.upsert(t, "2", `{}`, s.index("a", "b:c"))
	s.upsert(t, "3", `{}`, s.index("a", "b:c"), s.index("a:b", "c"), s.index("z", "1"))
	spelled := s.prefix + "a:b:c"
	for name, c := range map[string]struct {
		indexes, keys []string
		want          []string
	}{
		"both pairs":      {[]string{spelled}, nil, []string{"1", "2", "3"}},
		"and another":     {[]string{spelled, s.prefix + "z:1"}, nil, []string{"3"}},
		"twice the same":  {[]string{spelled, spelled}, nil, []string{"1", "2", "3"}},
		"odd member":      {[]string{s.prefix + `odd:,"{}\:x`}, nil, []string{"1"}},
		"none":            {[]string{s.prefix + "a:b"}, nil, []string{}},
		"any member":      {nil, []string{s.prefix + "a"}, []string{"2", "3"}},
		"any of both":     {nil, []string{s.prefix + "a", s.prefix + "a:b"}, []string{"3"}},
		"member and any":  {[]string{s.prefix + "z:1"}, []string{s.prefix + "a"}, []string{"3"}},
		"no such index":   {nil, []string{s.prefix + "b"}, []string{}},
		"not the members": {[]string{s.prefix + "z:2"}, nil, []string{}},
	} {
		q := kv.ListQuery{Indexes: c.indexes, IndexKeys: c.keys}
		require.Equal(t, c.want, s.list(t, q).Keys, name)
		limit := 1
		q.Limit = &limit
		require.Equal(t, c.want[:min(1, len(c.want))], s.list(t, q).Keys, "%s, one", name)
	}
}

func testQuery(t *testing.T, s suite) {
	if s.limits.NoQueries {
		_, err := s.store.Query(s.ctx, kv.Query{Prefix: s.prefix})
		require.Equal(t, kv.CodeNotConfigured, kv.CodeOf(err))
		return
	}
	x := kv.Index{Key: s.prefix + "z", Member: "m"}
	s.upsert(t, "a", `{"n":1.50,"word":"apple"}`, x)
	s.upsert(t, "b", `{"n":"2","word":"apple"}`, x)
	s.upsert(t, "c", `{"n":3,"word":"apple"}`)
	ask := func(q kv.Query) string {
		q.Prefix, q.Select = s.prefix, []kv.Field{"value.n"}
		text, err := s.store.Query(s.ctx, q)
		require.NoError(t, err)
		var answer struct{ Results json.RawMessage }
		require.NoError(t, json.Unmarshal([]byte(text), &answer))
		return string(answer.Results)
	}
	apple := kv.Search{{{Text: "apple"}}}
	require.Equal(t, `[{"value.n":1.50},{"value.n":"2"},{"value.n":3}]`, ask(kv.Query{Search: apple}))
	require.Equal(t, `[{"value.n":3}]`, ask(kv.Query{Search: apple, Indexes: &kv.IndexFilter{None: []kv.IndexFilter{{Exact: x}}}}))
	require.Equal(t, `[{"value.n":1.50}]`, ask(kv.Query{
		Search:  apple,
		Indexes: &kv.IndexFilter{Any: []kv.IndexFilter{{Exact: x}, {Pair: "no:such"}}},
		Where:   []kv.Condition{{Path: "n", Op: kv.OpLt, Value: jsontext.Value("3")}},
	}))
	require.Equal(t, `[{"value.n":3},{"value.n":1.50},{"value.n":"2"}]`, ask(kv.Query{Search: apple, Sort: []kv.SortKey{{Path: "n", Descending: true}}}))
	_, err := s.store.Query(s.ctx, kv.Query{Limit: kv.MaxLimit + 1})
	require.Equal(t, kv.CodeInvalidInput, kv.CodeOf(err))
}

func testLimits(t *testing.T, s suite) {
	for name, entry := range map[string]kv.Entry{
		"EmptyKey":     {Key: "", Value: `{}`},
		"LongKey":      {Key: strings.Repeat("k", kv.MaxKeyBytes+1), Value: `{}`},
		"NULInKey":     {Key: "a\x00", Value: `{}`},
		"BadUTF8":      {Key: "a\xff", Value: `{}`},
		"ManyIndexes":  {Key: "k", Value: `{}`, Indexes: make([]kv.Index, kv.MaxIndexes+1)},
		"LongIndex":    {Key: "k", Value: `{}`, Indexes: []kv.Index{{Key: "i", Member: kv.TextMember(strings.Repeat("m", kv.MaxKeyBytes-1))}}},
		"NULInMember":  {Key: "k", Value: `{}`, Indexes: []kv.Index{{Key: "i", Member: "\x00"}}},
		"EmptyMember":  {Key: "k", Value: `{}`, Indexes: []kv.Index{{Key: "i"}}},
		"NoNumber":     {Key: "k", Value: `{}`, Indexes: []kv.Index{{Key: "i", Member: kv.NumberMember("1]")}}},
		"OwnIndex":     {Key: "k", Value: `{}`, Indexes: []kv.Index{{Key: "k", Member: "m"}}},
		"BadUTF8Index": {Key: "k", Value: `{}`, Indexes: []kv.Index{{Key: "i\xff", Member: "m"}}},
	} {
		_, err := s.store.Upsert(s.ctx, entry)
		require.Equal(t, kv.CodeInvalidInput, kv.CodeOf(err), "%s: %v", name, err)
	}
	deep := strings.Repeat("[", kv.MaxDepth+1) + strings.Repeat("]", kv.MaxDepth+1)
	_, err := s.store.Upsert(s.ctx, kv.Entry{Key: s.prefix + "k", Value: deep})
	require.Equal(t, kv.CodeUnstorableValue, kv.CodeOf(err))

	longest := s.prefix + strings.Repeat("k", s.limits.MaxKeyBytes-len(s.prefix))
	_, err = s.store.Upsert(s.ctx, kv.Entry{Key: longest, Value: `{}`, Indexes: []kv.Index{{Key: s.prefix, Member: kv.TextMember(strings.Repeat("m", kv.MaxKeyBytes-len(s.prefix)-1))}}})
	require.NoError(t, err, "a key and an index at the limit")

	_, err = s.store.Get(s.ctx, "")
	require.Equal(t, kv.CodeInvalidInput, kv.CodeOf(err))
	_, err = s.store.Delete(s.ctx, "")
	require.Equal(t, kv.CodeInvalidInput, kv.CodeOf(err))
	zero := 0
	_, err = s.store.List(s.ctx, kv.ListQuery{Limit: &zero})
	require.Equal(t, kv.CodeInvalidInput, kv.CodeOf(err))
}

func testContext(t *testing.T, s suite) {
	ctx, cancel := context.WithTimeout(s.ctx, time.Nanosecond)
	defer cancel()
	<-ctx.Done()
	_, err := s.store.Get(ctx, s.prefix+"a")
	require.Equal(t, kv.CodeDeadlineExceeded, kv.CodeOf(err), "got %v", err)
}
