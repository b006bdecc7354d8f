package kv

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestACursorFitsItsOrder(t *testing.T) {
	t.Parallel()
	sorts := map[order][]SortKey{byKey: {{Path: "key", Descending: true}}, byTime: {{Path: "updatedAt"}}, byPath: {{Path: "a.b"}}}
	after := func(by order, position string) error {
		q := Query{Sort: sorts[by]}
		var err error
		if q.After, err = ParseCursor(encodeCursor(`{"question":"` + q.question() + `","position":` + position + `,"key":"k"}`)); err != nil {
			return err
		}
		require.Equal(t, strings.TrimSpace(position), string(q.After.Position))
		return q.Validate()
	}
	for by, positions := range map[order][]string{
		byKey:  {`null`, ` null `},
		byTime: {`1764000000000000`, `-1`},
		byPath: {`[0, 1.50]`, `[0,-12345678901234567890]`, `[1,"text"]`, `[2,null]`, `[3,null]`},
	} {
		for _, position := range positions {
			require.NoError(t, after(by, position), "%s: %s", by, position)
		}
	}
	for by, positions := range map[order][]string{
		byKey:  {`1`, `[3,null]`, `""`},
		byTime: {`null`, `"1"`, `1.5`, `1e99`, `9223372036854775807`, `-9223372036854775808`, `[]`},
		byPath: {`null`, `[0,"1"]`, `[0,null]`, `[1,1]`, `[2,1]`, `[4,null]`, `[null,null]`, `[0,1e99999]`, `[1,"` + strings.Repeat("ä", 201) + `"]`, `[1,"\ud800"]`, `[1,"\u0000"]`, `[0,1,2]`, `{}`},
	} {
		for _, position := range positions {
			require.Equal(t, CodeInvalidInput, CodeOf(after(by, position)), "%s: %s", by, position)
		}
	}
}

// TestACursorBelongsToItsQuestion: it goes on with the filters and the order that it came from, and with nothing else. What is shown of
// an entry, and how many, is another matter.
func TestACursorBelongsToItsQuestion(t *testing.T) {
	t.Parallel()
	filter := func(f ...IndexFilter) *IndexFilter { return &IndexFilter{All: f} }
	a, b := IndexFilter{Pair: "a:1"}, IndexFilter{Pair: "b:2"}
	asked := Query{Prefix: "p", Indexes: filter(a, b), Search: Search{{{Text: "x"}}}, Where: []Condition{{Path: "n", Op: OpEq, Value: jsonText("1")}}}
	asked.After = &Cursor{Question: asked.question(), Key: "k"}
	require.NoError(t, asked.Validate())
	for name, change := range map[string]func(*Query){
		"Select": func(q *Query) { q.Select = []Field{"key"} },
		"Limit":  func(q *Query) { q.Limit = 7 },
		"Page":   func(q *Query) { q.PageBytes = 7 },
		"Sort":   func(q *Query) { q.Sort = []SortKey{{Path: "key"}, {Path: "n"}} },
	} {
		q := asked
		change(&q)
		require.NoError(t, q.Validate(), "%s: it asks the same", name)
	}
	for name, change := range map[string]func(*Query){
		"Prefix":     func(q *Query) { q.Prefix = "q" },
		"NoIndexes":  func(q *Query) { q.Indexes = nil },
		"Member":     func(q *Query) { q.Indexes = filter(a, IndexFilter{Exact: Index{"b", "2"}}) },
		"Any":        func(q *Query) { q.Indexes = &IndexFilter{Any: []IndexFilter{a, b}} },
		"Search":     func(q *Query) { q.Search = Search{{{Text: "x", Prefix: true}}} },
		"Op":         func(q *Query) { q.Where = []Condition{{Path: "n", Op: OpNe, Value: jsonText("1")}} },
		"Value":      func(q *Query) { q.Where = []Condition{{Path: "n", Op: OpEq, Value: jsonText(`"1"`)}} },
		"OwnField":   func(q *Query) { q.Where = []Condition{{Path: "key", Op: OpEq, Value: jsonText(`"1"`)}} },
		"Conditions": func(q *Query) { q.Where = nil },
		"Descending": func(q *Query) { q.Sort = []SortKey{{Path: "key", Descending: true}} },
		"Sort":       func(q *Query) { q.Sort = []SortKey{{Path: "createdAt"}} },
	} {
		q := asked
		change(&q)
		require.ErrorContains(t, q.Validate(), "cursor belongs to another question", name)
	}

	list := ListQuery{Prefix: "p", Indexes: []string{"a:1", "b:2"}, IndexKeys: []string{"c"}}
	list.After = &Cursor{Question: list.Question(), Key: "k"}
	same := list
	same.Indexes, same.IndexKeys, same.Sort, same.Values = []string{"b:2", "a:1", "a:1"}, []string{"c", "c"}, SortKey{Path: "key"}, true
	require.NoError(t, same.Validate())
	for name, change := range map[string]func(*ListQuery){
		"Prefix":     func(q *ListQuery) { q.Prefix = "" },
		"Index":      func(q *ListQuery) { q.Indexes = []string{"a:1"} },
		"IndexKey":   func(q *ListQuery) { q.IndexKeys = nil },
		"Descending": func(q *ListQuery) { q.Sort = SortKey{Path: "key", Descending: true} },
		"Sort":       func(q *ListQuery) { q.Sort = SortKey{Path: "createdAt"} },
	} {
		q := list
		change(&q)
		require.ErrorContains(t, q.Validate(), "cursor belongs to another question", name)
	}
}

func TestAConditionOnTheEntrysOwnFields(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path  Path
		op    Op
		value string
		want  string // as it is sent; "" where it is refused
	}{
		{"key", OpEq, `"a\u00e4"`, `"aä"`},
		{"key", OpIn, `["a","b"]`, `["a","b"]`},
		{"key", OpIn, `[]`, `[]`},
		{"key", OpExists, `true`, `true`},
		{"key", OpContains, `"x"`, `"x"`},
		{"key", OpEq, `1`, ``},
		{"key", OpNe, `null`, ``},
		{"key", OpGt, `10`, ``},
		{"key", OpIn, `["a",1]`, ``},
		{"key", OpContains, `["x"]`, ``},
		{"createdAt", OpGte, `"2026-11-23T07:00:00.000Z"`, `1795417200000`},
		{"createdAt", OpGte, `"2026-11-23T08:00:00.123456+01:00"`, `1795417200123`},
		{"updatedAt", OpLt, `"2026-11-23"`, `1795392000000`},
		{"updatedAt", OpLt, `"2026-11-23T00:00"`, `1795392000000`},
		{"updatedAt", OpLt, `"2026-11"`, `1793491200000`},
		{"updatedAt", OpLt, `"2026"`, `1767225600000`},
		{"createdAt", OpIn, `["1970-01-01","1969-12-31T23:59:59.9999Z"]`, `[0,-1]`},
		{"createdAt", OpContains, `"-23T"`, `"-23T"`},
		{"createdAt", OpEq, `"yesterday"`, ``},
		{"createdAt", OpEq, `"2026-13-01"`, ``},
		{"createdAt", OpEq, `""`, ``},
		{"createdAt", OpEq, `"0000"`, ``},
		{"createdAt", OpGt, `1795417200000`, ``},
	} {
		q := Query{Where: []Condition{{Path: c.path, Op: c.op, Value: jsonText(c.value)}}}
		err := q.Validate()
		if c.want == "" {
			require.ErrorContains(t, err, "where[0].", "%v", c)
			continue
		}
		require.NoError(t, err, "%v", c)
		require.Equal(t, Condition{Path: c.path, Op: c.op, Value: jsonText(c.want)}, q.complete().Where[0])
	}
}

func TestNumbersAreBoundedByTheirDigits(t *testing.T) {
	t.Parallel()
	for _, n := range []string{"0", "-0", "1e15999", "1E-16000", "0.5", "-12345678901234567890", strings.Repeat("9", 16000), "1e+5"} {
		require.True(t, isNumeric(n, MaxNumberDigits), "%.30s", n)
	}
	for _, n := range []string{"1e16000", "1e99999999999999999999", "1e-16001", "-1e-99999", strings.Repeat("9", 16001), "0." + strings.Repeat("1", 16001), "10e15999"} {
		require.False(t, isNumeric(n, MaxNumberDigits), "%.30s", n)
	}
}
