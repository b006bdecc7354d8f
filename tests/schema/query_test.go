package schema

import (
	"encoding/json"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// queryResult is the part of kv_query's result that the tests read.
type queryResult struct {
	Results []struct{ Key string }
	Notices []struct {
		Code    string
		Count   int
		Message string
	}
	Aggregates json.RawMessage
	Groups     []json.RawMessage
}

func (a queryResult) keys() []string {
	keys := []string{}
	for _, r := range a.Results {
		keys = append(keys, r.Key)
	}
	return keys
}

// notices returns the codes and counts.
func (a queryResult) notices() []string {
	notices := []string{}
	for _, n := range a.Notices {
		notices = append(notices, fmt.Sprintf("%s %d", n.Code, n.Count))
	}
	return notices
}

func kvQuery(t testing.TB, q querier, fields string) (a queryResult) {
	t.Helper()
	text := one[string](t, q, askQuery, aQuery(t, fields))
	require.NoError(t, json.Unmarshal([]byte(text), &a), text)
	return a
}

// oddText writes a random JSON text twice: with parts that jsonb cannot hold, and with their replacements.
type oddText struct {
	*mrand.Rand
	odd, plain strings.Builder
}

func (o *oddText) both(odd, plain string) {
	o.odd.WriteString(odd)
	o.plain.WriteString(plain)
}

func (o *oddText) same(text string) { o.both(text, text) }

func (o *oddText) space() { o.same([]string{"", "", " ", "\n\t"}[o.IntN(4)]) }

func (o *oddText) text() {
	o.same(`"`)
	for range o.IntN(6) {
		switch o.IntN(12) {
		case 0:
			o.both(`\u0000`, `\ufffd`)
		case 1: // a lone surrogate
			o.both([]string{`\uD800`, `\udbff`, `\udc00\ud83d`, `\uDFFF`}[o.IntN(4)]+"x", "x")
			half := strings.TrimSuffix(o.odd.String(), "x")
			text := `\ufffd`
			if strings.HasSuffix(half, `\udc00\ud83d`) {
				text += `\ufffd`
			}
			plain := strings.TrimSuffix(o.plain.String(), "x")
			o.plain.Reset()
			o.plain.WriteString(plain + text + "x")
		case 2:
			o.same(`\\u0000`)
		case 3:
			o.same(`\\\\`)
		case 4:
			o.same(`\"`)
		case 5:
			o.same(`\ud83d\uDE00`)
		case 6:
			o.same([]string{`\\\"`, `\n`, `\u0041`, `\/`, `\ufffd`, `\\ud800`}[o.IntN(6)])
		case 7:
			o.same([]string{"1e999999", ":[1e999999,", "{}", "日本", "😀", "'"}[o.IntN(6)])
		default:
			o.same([]string{"a", "b", " ", "u0000", "name"}[o.IntN(5)])
		}
	}
	o.same(`"`)
}

func (o *oddText) value(depth int) {
	o.space()
	switch kind := o.IntN(8); {
	case kind < 3:
		o.text()
	case kind == 3:
		o.same([]string{"0", "-0", "1.50", "1e5", "12345678901234567890", "1e131071", "1e-16383", "0.000e4", "10e131070", "0.001e131074"}[o.IntN(10)])
	case kind == 4:
		n := []string{"1e131072", "-1E+400000", "1e-16384", "1.5e99999999999999999999", "10e131071", "0.01e131074", "1" + strings.Repeat("0", 131072), "0." + strings.Repeat("1", 16384)}[o.IntN(8)]
		o.both(n, `"`+n+`"`)
	case kind == 5:
		o.same([]string{"true", "false", "null"}[o.IntN(3)])
	case kind == 6 && depth > 0:
		o.same("[")
		for i := range o.IntN(4) {
			if i > 0 {
				o.same(",")
			}
			o.value(depth - 1)
		}
		o.same("]")
	case depth > 0:
		o.same("{")
		for i := range o.IntN(4) {
			if i > 0 {
				o.same(",")
			}
			o.space()
			o.text()
			o.same(":")
			o.value(depth - 1)
		}
		o.same("}")
	default:
		o.same("{}")
	}
	o.space()
}

// TestWhatJsonbCannotHoldHidesNothingElse compares random values with their replacements, part by part.
func TestWhatJsonbCannotHoldHidesNothingElse(t *testing.T) {
	t.Parallel()
	r := random(t)
	conn := newDatabase(t).connect(t)
	for i := range 200 {
		o := &oddText{Rand: r}
		o.value(3)
		odd, plain := o.odd.String(), o.plain.String()
		require.True(t, json.Valid([]byte(odd)) && json.Valid([]byte(plain)), "%s\n%s", odd, plain)
		require.True(t, one[bool](t, conn, "select kv.to_readable_document($1::json) = $2::jsonb", odd, plain), "value %d: %.2000s", i, odd)

		// The path of every part returns the exact text of that part.
		var walk func(raw json.RawMessage, path []string)
		walk = func(raw json.RawMessage, path []string) {
			got := one[*string](t, conn, "select kv.exact_part($1::json, $2)", odd, path)
			require.NotNil(t, got, "%v in %.2000s", path, odd)
			require.Equal(t, string(raw), strings.Trim(*got, " \n\t"), "%v in %.2000s", path, odd)
			var list []json.RawMessage
			if raw[0] == '[' && json.Unmarshal(raw, &list) == nil {
				for i, element := range list {
					walk(element, append(slices.Clone(path), strconv.Itoa(i)))
				}
			}
			fields := map[string]json.RawMessage{}
			if raw[0] != '{' {
				return
			}
			require.NoError(t, json.Unmarshal(raw, &fields))
			for name, value := range fields {
				if !strings.ContainsAny(name, "\x00\ufffd\\") { // other names have no path, or share one
					walk(value, append(slices.Clone(path), name))
				}
			}
		}
		walk(json.RawMessage(strings.Trim(odd, " \n\t")), []string{})
	}
}

func TestQueriesSeeWhatJsonbCanHoldOfAValue(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	values := map[string]string{
		"nul":       `{"name":"Bob", "bio":"a\u0000b", "n":1}`,
		"surrogate": `{"name":"Bob", "bio":"x \ud800", "n":2}`,
		"number":    `{"name":"Bob", "bio":1e400000, "n":3}`,
		"key":       `{"name":"Bob", "\u0000":"x", "n":4}`,
		"plain":     `{"name":"Bob", "bio":"ab", "n":5}`,
	}
	for key, value := range values {
		upsert(t, conn, key, value, pairs{{"i", "m"}})
	}
	everyone := []string{"key", "nul", "number", "plain", "surrogate"}
	for _, fields := range []string{
		`"where":[{"path":"/name","op":"eq","value":"Bob"}]`, `"search":` + term("bob"), `"search":[[{"text":"zzz","not":true}]]`,
		`"where":[{"path":"/n","op":"gte","value":1}]`, `"where":[{"path":"/x","op":"exists","value":false}]`,
	} {
		a := kvQuery(t, conn, `"prefix":"","indexes":{"all":[{"pair":"i:m"}]},`+fields)
		require.Equal(t, everyone, a.keys(), fields)
		require.Empty(t, a.Notices, fields)
	}
	require.Contains(t, one[string](t, conn, askQuery, aQuery(t, `"prefix":"n","select":["value.name","value.bio","value"]`)),
		`{"value.name":"Bob","value.bio":"a\u0000b","value":`+values["nul"]+`},{"value.name":"Bob","value.bio":1e400000,"value":`+values["number"]+`}`)
	require.Contains(t, one[string](t, conn, askQuery, aQuery(t, `"prefix":"key","select":["value.`+"\ufffd"+`"]`)), `[{"value.`+"\ufffd"+`":"x"}]`)

	// A path to a replaced part gives a notice with the number of entries.
	for fields, want := range map[string]struct {
		keys    []string
		notices []string
	}{
		`"where":[{"path":"/bio","op":"eq","value":"a` + "\ufffd" + `b"}]`:                 {[]string{"nul"}, []string{"replaced 3"}},
		`"where":[{"path":"/bio","op":"gt","value":0}]`:                                    {[]string{}, []string{"replaced 3"}},
		`"prefix":"n","where":[{"path":"/bio","op":"ne","value":0}]`:                       {[]string{"nul", "number"}, []string{"replaced 2"}},
		`"prefix":"p","where":[{"path":"/bio","op":"ne","value":0}]`:                       {[]string{"plain"}, []string{}},
		`"sort":[{"path":"/bio","descending":false}]`:                                      {[]string{"number", "plain", "nul", "surrogate", "i", "key"}, []string{"replaced 3"}},
		`"indexes":{"all":[{"pair":"i:n"}]},"where":[{"path":"/bio","op":"ne","value":0}]`: {[]string{}, []string{}},
	} {
		a := kvQuery(t, conn, fields)
		require.Equal(t, want.keys, a.keys(), fields)
		require.Equal(t, want.notices, a.notices(), fields)
	}
	a := kvQuery(t, conn, `"limit":10000,"aggregate":[{"op":"count"},{"op":"sum","path":"bio"},{"op":"count","path":"bio"}],"groupBy":"name"`)
	require.Equal(t, []string{"replaced 3"}, a.notices())
	require.JSONEq(t, `[{"op":"count","value":6},{"op":"sum","path":"bio","value":0,"excluded":6},{"op":"count","path":"bio","value":4}]`, string(a.Aggregates))
}

func TestAnswersSayWhatWasNotSearched(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	conn := d.connect(t)
	long := `["needle ` + strings.Repeat("x", 200_000) + `"]`
	for i := range 3 {
		upsert(t, conn, fmt.Sprint("long/", i), long, pairs{{"i", fmt.Sprint(i)}})
	}
	upsert(t, conn, "long/short", `["needle"]`, pairs{{"i", "0"}})
	upsert(t, conn, "other", `["needle"]`, nil)
	for fields, want := range map[string][]string{
		`"search":` + term("needle"):                                                          {"not_searched 3"},
		`"prefix":"long/1","search":` + term("needle"):                                        {"not_searched 1"},
		`"prefix":"other","search":` + term("needle"):                                         {},
		`"indexes":{"all":[{"pair":"i:0"}]},"search":` + term("needle"):                       {"not_searched 1"},
		`"indexes":{"none":[{"pair":"i:0"}]},"search":` + term("needle"):                      {"not_searched 2"},
		`"search":[[{"text":"pear","not":true}]]`:                                             {"not_searched 3"},
		`"where":[{"path":"/0","op":"contains","value":"needle"}]`:                            {},
		`"limit":10000,"aggregate":[{"op":"count"}],"search":` + term("needle"):               {"not_searched 3"},
		`"search":` + term("needle") + `,"sort":[{"path":"relevance","descending":true}]`:     {"not_searched 3"},
		`"search":` + term("needle") + `,"where":[{"path":"key","op":"lt","value":"long/1"}]`: {"not_searched 3"},
	} {
		require.Equal(t, want, kvQuery(t, conn, fields).notices(), fields)
	}
	a := kvQuery(t, conn, `"search":`+term("needle"))
	require.Equal(t, []string{"long/short", "other"}, a.keys())
	require.Contains(t, a.Notices[0].Message, "not searched: 3.")

	// The count has a bound, which the notice reports. Small values without words stand for large ones.
	d.tampered = true
	exec(t, d.superuser(t), `set session_replication_role = replica;
		insert into public.kv_store (key, value, bytes, revision) select 'many/' || i, '1', 1, 1 from generate_series(1, 1500) as i`)
	a = kvQuery(t, conn, `"prefix":"many/","search":`+term("needle"))
	require.Equal(t, []string{"not_searched 1001"}, a.notices())
	require.Contains(t, a.Notices[0].Message, "not searched: 1001 or more.")
}

// TestConditionsOnTheEntrysOwnFields compares conditions with their meaning for each entry: keys by their bytes, times
// as responses show them.
func TestConditionsOnTheEntrysOwnFields(t *testing.T) {
	t.Parallel()
	r := random(t)
	conn := newDatabase(t).connect(t)
	type own struct {
		key              string
		created, updated time.Time
	}
	start := time.Date(2026, 11, 23, 7, 0, 0, 0, time.UTC)
	var entries []own
	for i := range 60 {
		e := own{fmt.Sprintf("%s%02d", []string{"a", "B", "é", "a/"}[i%4], i), start.Add(time.Duration(r.IntN(8000)) * time.Microsecond), start.Add(time.Duration(r.IntN(8000)) * time.Microsecond)}
		entries = append(entries, e)
		exec(t, conn, `insert into public.kv_store (key, value, index_pairs, created_at, updated_at) values ($1, '{"key":"z","createdAt":"1999","n":1}', '{{i,m}}', $2, $3)`, e.key, e.created, e.updated)
	}
	slices.SortFunc(entries, func(a, b own) int { return strings.Compare(a.key, b.key) })
	const iso = "2006-01-02T15:04:05.000Z"
	show := func(e own, by string) string {
		switch by {
		case "key":
			return e.key
		case "createdAt":
			return e.created.Truncate(time.Millisecond).Format(iso)
		}
		return e.updated.Truncate(time.Millisecond).Format(iso)
	}
	for i := range 60 {
		by := []string{"key", "createdAt", "updatedAt"}[r.IntN(3)]
		op := []string{"eq", "ne", "gt", "gte", "lt", "lte", "in", "contains", "exists"}[r.IntN(9)]
		texts := []string{show(entries[r.IntN(len(entries))], by), show(entries[r.IntN(len(entries))], by), show(own{"", start, start}, by)}[:1+r.IntN(3)]
		part := string([]rune(texts[0])[r.IntN(2):])
		sent := func(text string) string {
			if by == "key" {
				return pgJSON(text)
			}
			at, err := time.Parse(iso, text)
			require.NoError(t, err)
			return fmt.Sprint(at.UnixMilli())
		}
		value := sent(texts[0])
		switch op {
		case "in":
			var list []string
			for _, text := range texts {
				list = append(list, sent(text))
			}
			value = "[" + strings.Join(list, ",") + "]"
		case "contains":
			value = pgJSON(part)
		case "exists":
			value = fmt.Sprint(i%2 == 0)
		}
		want := []string{}
		for _, e := range entries {
			order := strings.Compare(show(e, by), texts[0])
			if map[string]bool{"eq": order == 0, "ne": order != 0, "gt": order > 0, "gte": order >= 0, "lt": order < 0, "lte": order <= 0,
				"in": slices.Contains(texts, show(e, by)), "contains": strings.Contains(show(e, by), part), "exists": value == "true"}[op] {
				want = append(want, e.key)
			}
		}
		condition := fmt.Sprintf(`"where":[{"path":"%s","op":"%s","value":%s},{"path":"/n","op":"eq","value":1}]`, by, op, value)
		for name, also := range map[string]string{"": ``, "index": `,"indexes":{"all":[{"pair":"i:m"}]}`, "any": `,"indexes":{"any":[{"pair":"i:m"},{"pair":"x:y"}]}`,
			"sort": `,"sort":[{"path":"createdAt","descending":false}]`, "prefix": `,"prefix":"a"`} {
			got, want := kvQuery(t, conn, condition+also).keys(), slices.Clone(want)
			switch name {
			case "sort":
				slices.Sort(got)
			case "prefix":
				want = slices.DeleteFunc(want, func(key string) bool { return !strings.HasPrefix(key, "a") })
			}
			require.Equal(t, want, got, "%s %s", condition, name)
		}
		a := kvQuery(t, conn, condition+`,"limit":10000,"aggregate":[{"op":"count"},{"op":"max","path":"`+by+`"},{"op":"distinct","path":"`+by+`"}],"groupBy":"`+by+`"`)
		most, different := "null", map[string]bool{}
		for _, e := range entries {
			if slices.Contains(want, e.key) {
				different[show(e, by)] = true
				if shown := pgJSON(show(e, by)); most == "null" || shown > most {
					most = shown
				}
			}
		}
		require.JSONEq(t, fmt.Sprintf(`[{"op":"count","value":%[1]d},{"op":"max","path":"%[2]s","value":%[3]s,"excluded":0},{"op":"distinct","path":"%[2]s","value":%[4]d}]`, len(want), by, most, len(different)),
			string(a.Aggregates), condition)
		require.Len(t, a.Groups, len(different), condition)
	}
}

func TestEverySplitOfASpelledPair(t *testing.T) {
	t.Parallel()
	r := random(t)
	conn := newDatabase(t).connect(t)
	for range 100 {
		var text string
		for range r.IntN(12) {
			text += []string{"a", ":", ":", "é", "日", "\U0001f389"}[r.IntN(6)]
		}
		want := []string{}
		for i, c := range text {
			if c == ':' && i > 0 && i < len(text)-1 {
				want = append(want, text[:i]+"|"+text[i+1:])
			}
		}
		require.Equal(t, want, append([]string{}, all[string](t, conn, "select index_key || '|' || member from kv.candidate_pairs($1)", text)...), "%q", text)
	}
}

// TestManyColonsAreReadOnce: a hundred filters with as many colons as Go allows look up a thousand pairs, and read no
// table.
func TestManyColonsAreReadOnce(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	conn := d.connect(t)
	upsert(t, conn, "k", `{}`, pairs{{"a:::", "::b"}, {"x", "y"}})
	var filters []string
	for i := range 100 {
		filters = append(filters, fmt.Sprintf(`{"pair":"i%d%s%s"}`, i, strings.Repeat(":", 10), strings.Repeat("b", 1000)))
	}
	all := strings.Join(filters, ",")
	for _, call := range []func(){
		func() { kvList(t, conn, false, `"indexes":{"all":[`+all+`]}`) },
		func() { kvQuery(t, conn, `"indexes":{"any":[`+all+`]}`) },
	} {
		call() // the first call plans its statements
		start := time.Now()
		call()
		t.Logf("%s", time.Since(start))
	}
	require.Equal(t, `{"keys":["k"],"count":1}`, kvList(t, conn, false, `"indexes":{"all":[{"pair":"a::::::b"}]}`))
}
