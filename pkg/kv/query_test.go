package kv

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestCursorsOfQueriesAreOfTheirOrder(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]QueryCursor{
		`["key.desc", null, "k"]`:                   {"key.desc", "null", "k"},
		`["createdAt.asc",1764000000000000,"k"]`:    {"createdAt.asc", "1764000000000000", "k"},
		`["/a.b.asc", [0, 1.50], "k"]`:              {"/a.b.asc", "[0, 1.50]", "k"},
		`["/a.desc",[0,-12345678901234567890],"k"]`: {"/a.desc", "[0,-12345678901234567890]", "k"},
		`["/a.asc",[1,"text"],"k"]`:                 {"/a.asc", `[1,"text"]`, "k"},
		`["/a.asc",[3,null],"k"]`:                   {"/a.asc", "[3,null]", "k"},
	} {
		cursor, err := ParseQueryCursor(encodeCursor(text))
		require.NoError(t, err, text)
		require.Equal(t, &want, cursor)
	}
	for _, text := range []string{`[]`, `["key.asc",null]`, `["key.asc",1,"k"]`, `["key",null,"k"]`, `["key.asc",null,""]`, `["key.asc",null,"a\u0000"]`, `["relevance.desc",null,"k"]`,
		`["createdAt.asc",null,"k"]`, `["createdAt.asc","1","k"]`, `["updatedAt.asc",1e99,"k"]`, `["createdAt.asc",9000000000000000000,"k"]`, `["a.asc",[3,null],"k"]`,
		`["/a.asc",null,"k"]`, `["/a.asc",[0,"1"],"k"]`, `["/a.asc",[0,null],"k"]`, `["/a.asc",[1,1],"k"]`, `["/a.asc",[2,1],"k"]`, `["/a.asc",[4,null],"k"]`, `["/a.asc",[null,null],"k"]`,
		`["/a.asc",[0,1e99999],"k"]`, `["/a.asc",[1,"` + strings.Repeat("ä", 201) + `"],"k"]`, `["/a.asc",[1,"\ud800"],"k"]`, `["/a.asc",[0,1,2],"k"]`, `["/~2.asc",[3,null],"k"]`, `{}`, `x`} {
		_, err := ParseQueryCursor(encodeCursor(text))
		require.Error(t, err, text)
	}
}

func FuzzParseQueryCursor(f *testing.F) {
	for _, text := range []string{`["key.desc",null,"k"]`, `["createdAt.asc",1,"k"]`, `["/a.asc",[0,1.5],"k"]`, `["/a.asc",[1,"x"],"k"]`} {
		f.Add(encodeCursor(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		cursor, err := ParseQueryCursor(text)
		if err != nil {
			return
		}
		require.True(t, json.Valid([]byte(cursor.Position)) && utf8.ValidString(cursor.Order+cursor.Key))
		args, err := json.Marshal(Query{After: cursor}.args())
		require.NoError(t, err)
		require.Contains(t, string(args), `"after":{"position":`)
	})
}

func TestAFilterIsSaidAsSimplyAsItCanBe(t *testing.T) {
	t.Parallel()
	leaf := func(text string) IndexFilter { return IndexFilter{Spelled: text} }
	a, b, c := leaf("a:1"), leaf("b:2"), leaf("c:3")
	for want, f := range map[string]IndexFilter{
		`1`:                            {All: []IndexFilter{a}},
		`["and",1,2]`:                  {All: []IndexFilter{a, {All: []IndexFilter{b, a}}}},
		`["or",1,2,3]`:                 {Any: []IndexFilter{a, {Any: []IndexFilter{b, {All: []IndexFilter{c}}}}, a}},
		`["not",1]`:                    {Not: &IndexFilter{Any: []IndexFilter{a}}},
		`["and",1,["not",["or",2,3]]]`: {All: []IndexFilter{a, {Not: &IndexFilter{Any: []IndexFilter{b, c}}}}},
		`["or",["and",1,2],3]`:         {All: []IndexFilter{{Any: []IndexFilter{{All: []IndexFilter{a, b}}, c}}}},
	} {
		got, err := json.Marshal(Query{Indexes: &f}.args().Filter)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	f := IndexFilter{Not: &IndexFilter{Not: &a}}
	require.Equal(t, 1, Query{Indexes: &f}.args().Filter)
}

func TestNumbersAreBoundedByTheirDigits(t *testing.T) {
	t.Parallel()
	for _, n := range []string{"0", "-0", "1e15999", "1E-16000", "0.5", "-12345678901234567890", strings.Repeat("9", 16000), "1e+5"} {
		require.True(t, isNumeric(n), "%.30s", n)
	}
	for _, n := range []string{"1e16000", "1e99999999999999999999", "1e-16001", "-1e-99999", strings.Repeat("9", 16001), "0." + strings.Repeat("1", 16001), "10e15999"} {
		require.False(t, isNumeric(n), "%.30s", n)
	}
}
