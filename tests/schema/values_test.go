package schema

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A jsonb column alone would lose, refuse or rewrite these texts.
var oddValues = []struct {
	name     string
	value    string
	document bool // jsonb can hold it
}{
	{"Null", `null`, true},
	{"EmptyArray", `[]`, true},
	{"EmptyObject", `{}`, true},
	{"Whitespace", " \t\r\n{ \"b\" : 1 ,\n\"a\":[ 1 , 2 ] } \n", true},
	{"KeyOrder", `{"z":1,"a":2,"aa":3,"Z":4}`, true},
	{"DuplicateKeys", `{"a":1,"a":2,"a":{"a":3,"a":4}}`, true},
	{"EmptyKey", `{"":{"":[]}}`, true},
	{"Numbers", `[1.0,1.10,-0,-0.0,1e0,1E+2,0.1e-7,100e-2]`, true},
	{"TwentyDigits", `[12345678901234567890,-12345678901234567890.123456789012345678901234567890]`, true},
	{"FourHundredDigitExponent", `[1e400,-1e400,1e-400]`, true},
	{"LargestNumeric", `[1e131071,1e-16383]`, true},
	{"ExponentBeyondNumeric", `[1e131072]`, false},
	{"ExponentBelowNumeric", `[1e-16384]`, false},
	{"ExponentBeyondInteger", `{"a":1e99999999999999999999}`, false},
	{"ExponentOfFourHundredDigits", `{"a":1e` + strings.Repeat("9", 400) + `}`, false},
	{"NulEscape", `{"a":"x\u0000y"}`, false},
	{"NulEscapeInKey", `{"\u0000":1}`, false},
	{"EscapedBackslashBeforeU0000", `{"a":"\\u0000"}`, true},
	{"LoneHighSurrogate", `["\ud800"]`, false},
	{"LoneLowSurrogate", `["\udc00"]`, false},
	{"SurrogatesSwapped", `["\udc00\ud800"]`, false},
	{"SurrogatePair", `["\ud83d\ude00","😀"]`, true},
	{"Escapes", `["\"\\\/\b\f\n\r\t\u00e9\u2028"]`, true},
	{"HTML", `{"a":"<b>&amp;</b>` + "\u2028\u2029" + `"}`, true},
	{"Unicode", `{"é":"日本語 ﷽ 🏳️‍🌈 ` + "\u007f\ufffd\ufeff\uffff\U0010ffff" + `"}`, true},
	{"Proto", `{"__proto__":{"constructor":1}}`, true},
	{"Nested2000Arrays", strings.Repeat("[", 2000) + strings.Repeat("]", 2000), true},
	{"Nested2000Objects", strings.Repeat(`{"a":`, 2000) + "1" + strings.Repeat("}", 2000), true},
	{"LongWord", `["` + strings.Repeat("w", 5000) + `"]`, true},
	{"LongKey", `{"` + strings.Repeat("k", 100_000) + `":1}`, true},
	{"OneMegabyteString", `{"a":"` + strings.Repeat("x", 1<<20) + `"}`, true},
	{"OneMegabyteOfNumbers", `[` + strings.Repeat("1234567,", 131_072) + `1]`, true},
	{"OneMegabyteOfDistinctWords", distinctWords(1 << 20), true},
	{"OneMegabyteThatJsonbCannotHold", `["` + strings.Repeat("x", 1<<20) + `\u0000"]`, false},
}

func distinctWords(size int) string {
	var b strings.Builder
	b.WriteString(`["`)
	for i := 0; b.Len() < size; i++ {
		b.WriteString("w" + strconv.FormatInt(int64(i), 36) + " ")
	}
	b.WriteString(`"]`)
	return b.String()
}

func TestValuesComeBackByteForByte(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	for _, c := range oddValues {
		t.Run(c.name, func(t *testing.T) {
			require.True(t, json.Valid([]byte(c.value)))
			key := "value/" + c.name + "/"
			for _, write := range []string{"insert", "update"} {
				upsert(t, conn, key, c.value, nil)
				require.True(t, c.value == get(t, conn, key), "kv_get after %s", write)
				require.True(t, `{"keys":["`+key+`"],"count":1,"data":{"`+key+`":`+c.value+`}}` ==
					kvList(t, conn, true, `"prefix":"`+key+`"`), "kv_list after %s", write)

				var bytes int
				var document, replaced, search bool
				require.NoError(t, conn.QueryRow(context.Background(), `
					select bytes, document is not null, replaced, search is not null from public.kv_store where key = $1`, key).
					Scan(&bytes, &document, &replaced, &search))
				require.Equal(t, len(c.value), bytes)
				require.True(t, document, "document")
				require.Equal(t, !c.document, replaced, "replaced")
				require.Equal(t, len(c.value) <= 200_000, search, "search")
				upsert(t, conn, key, `[0]`, nil)
			}
			upsert(t, conn, key, c.value, nil)
		})
	}
}

func TestSearchIsBounded(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	for _, c := range []struct {
		name   string
		value  string
		search bool
	}{
		{"AtTheBound", `["` + strings.Repeat("ab ", 66_665) + `c"]`, true},
		{"OneByteBeyond", `["` + strings.Repeat("ab ", 66_665) + `cd"]`, false},
		{"DistinctWordsAtTheBound", distinctWords(199_980), true},
		{"LongestWord", `["` + strings.Repeat("w", 2046) + ` short"]`, true},
		{"WordTooLong", `["` + strings.Repeat("w", 2047) + ` short"]`, true},
		{"LongestWordOfWideLetters", `["` + strings.Repeat("\U0001e900", 2047) + ` short"]`, true},
		{"EmojiAndControls", `["😀 \u0001\u001f é日本 \"q\" it's a\\b c:d & | ! ( ) <->"]`, true},
	} {
		upsert(t, conn, c.name, c.value, nil)
		require.LessOrEqual(t, len(c.value), 200_001)
		require.Equal(t, c.search, one[bool](t, conn, "select search is not null from public.kv_store where key = $1", c.name), c.name)
	}
	require.Equal(t, 200_000, one[int](t, conn, "select bytes from public.kv_store where key = 'AtTheBound'"))
	require.Equal(t, 200_001, one[int](t, conn, "select bytes from public.kv_store where key = 'OneByteBeyond'"))
	require.True(t, one[bool](t, conn, "select search @@ 'short'::tsquery from public.kv_store where key = 'WordTooLong'"))

	// The limit of a tsvector, 1 MB, is not an error.
	require.True(t, one[bool](t, conn, `
		select kv.search_vector($1::jsonb, 1) is null`, distinctWords(3<<20)))
}

func TestRowsSayWhenTheyWereWritten(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	ctx := context.Background()
	type row struct {
		created, updated time.Time
		revision         int64
	}
	read := func(key string) (r row) {
		require.NoError(t, conn.QueryRow(ctx, "select created_at, updated_at, revision from public.kv_store where key = $1", key).
			Scan(&r.created, &r.updated, &r.revision))
		return r
	}
	write := func(key, value string, indexes pairs) (version, transaction string) {
		tx, err := conn.Begin(ctx)
		require.NoError(t, err)
		response := one[string](t, tx, "select public.kv_upsert($1, $2, $3)", key, value, indexes.parameter())
		transaction = one[string](t, tx, "select pg_current_xact_id()::text")
		require.NoError(t, tx.Commit(ctx))
		var parsed struct{ Version string }
		require.NoError(t, json.Unmarshal([]byte(response), &parsed))
		return parsed.Version, transaction
	}

	before := one[time.Time](t, conn, "select clock_timestamp()")
	version, transaction := write("a", `{"a":1}`, pairs{{"i", "m"}})
	first, index := read("a"), read("i")
	require.Equal(t, one[string](t, conn, "select kv.boot_id()")+"."+transaction, version)
	require.False(t, first.created.Before(before))
	require.False(t, first.updated.Before(first.created))

	// The same value again is a write, too.
	version, transaction = write("a", `{"a":1}`, nil)
	second := read("a")
	require.Greater(t, second.revision, first.revision)
	require.Equal(t, first.created, second.created)
	require.True(t, second.updated.After(first.updated))
	require.True(t, strings.HasSuffix(version, "."+transaction))
	require.Equal(t, index, read("i"), "indexes were not given, so the index is not touched")

	// By hand.
	exec(t, conn, `update public.kv_store set value = '{"a":2}' where key = 'a'`)
	third := read("a")
	require.True(t, third.updated.After(second.updated))
	require.Greater(t, third.revision, second.revision)

	// An import brings its own times.
	exec(t, conn, `insert into public.kv_store (key, value, created_at, updated_at) values ('b', '[]', '2020-01-01Z', '2021-01-01Z')`)
	require.Equal(t, "2020-01-01 2021-01-01", one[string](t, conn, `
		select to_char(created_at at time zone 'UTC', 'YYYY-MM-DD ') || to_char(updated_at at time zone 'UTC', 'YYYY-MM-DD')
		from public.kv_store where key = 'b'`))
	exec(t, conn, `update public.kv_store set value = '{}', updated_at = '2022-01-01Z' where key = 'b'`)
	require.Equal(t, "2022", one[string](t, conn, "select to_char(updated_at at time zone 'UTC', 'YYYY') from public.kv_store where key = 'b'"))
}

// The epoch must not follow the settings of a session, which differ between PostgREST and the SQL editor.
func TestEpochIsTheSameForEverySession(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	want := one[string](t, conn, "select kv.epoch()")
	for _, setting := range []string{
		"timezone = 'America/St_Johns'", "timezone = 'UTC'", "datestyle = 'German'", "datestyle = 'SQL, DMY'", "extra_float_digits = 0",
		"bytea_output = 'escape'", "intervalstyle = 'iso_8601'", "lc_time = 'C'", "quote_all_identifiers = on",
	} {
		exec(t, conn, "set "+setting)
		require.Equal(t, want, one[string](t, conn, "select kv.epoch()"), setting)
	}
}

func TestTheTablesConstraintsHold(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	const call = "select public.kv_upsert($1, $2, $3)"
	long := strings.Repeat("k", 1024)
	upsert(t, conn, long, `{}`, nil)
	upsert(t, conn, strings.Repeat("é", 512), `{}`, nil)
	upsert(t, conn, "\u0001\n\t\u007f", `{}`, nil)
	requireCode(t, "23514", conn, call, long+"k", `{}`, nil)
	requireCode(t, "23514", conn, call, strings.Repeat("é", 513), `{}`, nil)
	requireCode(t, "23514", conn, call, "", `{}`, nil)
	requireCode(t, "23514", conn, call, "a", `{}`, [][]string{{"", "m"}})
	requireCode(t, "23514", conn, call, "a", `{}`, [][]string{{long + "k", "m"}})
	requireCode(t, "23514", conn, call, "a", nil, nil)
	requireCode(t, "23502", conn, call, nil, `{}`, nil)
	for _, text := range []string{"", " ", "{", `{"a":1}}`, `{'a':1}`, "NaN", "[1,]", "\ufeff{}", `["` + "\n" + `"]`, "01", "nul"} {
		requireCode(t, "22P02", conn, call, "a", text, nil)
	}
	requireCode(t, "PT400", conn, call, "a", `{}`, [][]string{{"b", "m"}, {"a", "m"}})
	require.Equal(t, 3, one[int](t, conn, "select count(*) from public.kv_store"), "an upsert that failed left something behind")
	require.Equal(t, 0, one[int](t, conn, "select count(*) from kv.posting"))
	require.Equal(t, "", get(t, conn, "a"))
	require.Equal(t, "", get(t, conn, ""))
}

// Values far deeper than the 2,000 levels that the functions accept are refused or kept, never a crash.
func TestVeryDeepValues(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	for _, levels := range []int{5_000, 50_000} {
		value := strings.Repeat("[", levels) + strings.Repeat("]", levels)
		_, err := conn.Exec(context.Background(), "select public.kv_upsert('deep', $1)", value)
		if err == nil {
			require.True(t, value == get(t, conn, "deep"))
			continue
		}
		require.Equal(t, "54001", code(err), fmt.Sprint(levels, " levels"))
	}
}

// The text parser of Postgres looks for addresses, paths, tags and numbers, in some texts again at every letter: 20 kB
// of "a_a_a" take it seconds. Stored texts must not depend on it. The bound is some thirty times what the worst text
// takes.
func TestWordsOfOddTextsAreFoundInTime(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	for _, part := range []string{"a", "1", "é", "漢", "a1", "1a ", "1e", "1 a ", "a_", "id0_id1_", "~/", "<!--x ", "a1@", "/./.", "a.b.", "-1.5e", "a-b-",
		"http://a/", "&amp;", `<a b="c">`, ".", "1.", `\`, "😀1"} {
		start := time.Now()
		found := one[bool](t, conn, "select kv.search_vector(jsonb_build_array(repeat($1, 190000 / octet_length($1))), 199000) is not null", part)
		require.True(t, found, "%q", part)
		require.Less(t, time.Since(start), 10*time.Second, "190 kB of %q", part)
	}
	require.Equal(t, `'1':9 '5':10 'a':3 'b':4 'com':5 'hello':1 'world':2 'x':7`,
		one[string](t, conn, `select kv.search_vector('{"a":["Hello, World! a@b.com","x"],"n":"1.5","z":[null,7,true]}', 70)::text`))
}
