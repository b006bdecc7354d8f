package schema

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// locales are options of databases that divide, lower and sort text differently. Hosted projects have ICU's en-US over
// en_US.UTF-8.
var locales = []string{
	"locale_provider libc lc_collate 'C' lc_ctype 'C'",
	"locale_provider libc lc_collate 'C.UTF-8' lc_ctype 'C.UTF-8'",
	"locale_provider libc lc_collate 'en_US.UTF-8' lc_ctype 'en_US.UTF-8'",
	"lc_collate 'C' lc_ctype 'C.UTF-8' locale_provider icu icu_locale 'en-US'",
	"lc_collate 'C' lc_ctype 'C' locale_provider icu icu_locale 'tr-TR'",
}

// searchFunctions are those that full text depends on.
var searchFunctions = []string{"normalize_search_text", "document_strings", "search_vector", "search_terms", "has_phrase", "search_query",
	"matches_search"}

// eachLocale runs a test in a database of each locale that the server supports, with the functions of full text.
func eachLocale(t *testing.T, test func(t *testing.T, conn *pgx.Conn)) {
	d := newDatabase(t)
	server := d.superuser(t)
	definitions := all[string](t, server, "select pg_get_functiondef(oid) from pg_proc where pronamespace = 'kv'::regnamespace and proname = any ($1)", searchFunctions)
	require.Len(t, definitions, len(searchFunctions))
	tried := 0
	for i, locale := range locales {
		other := &database{name: fmt.Sprintf("%s_%d", d.name, i)}
		_, err := server.Exec(context.Background(), "create database "+other.name+" template template0 encoding 'UTF8' "+locale)
		if code(err) == "42809" || code(err) == "22023" || code(err) == "42704" {
			continue // the machine has no such locale
		}
		require.NoError(t, err, locale)
		tried++
		t.Run(locale, func(t *testing.T) {
			t.Cleanup(func() { exec(t, d.superuser(t), "drop database "+other.name+" with (force)") })
			conn := other.superuser(t)
			exec(t, conn, "create schema kv")
			for _, definition := range definitions {
				exec(t, conn, definition)
			}
			test(t, conn)
		})
	}
	require.GreaterOrEqual(t, tried, 3, "locales to try")
}

// term returns a word or a phrase as pkg/kv sends it.
func term(text string) string {
	quoted, _ := json.Marshal(text)
	return `[[{"text":` + string(quoted) + `}]]`
}

func TestSearchFindsTheSameInEveryLocale(t *testing.T) {
	t.Parallel()
	found := map[string][]string{ // a text, and what must find it
		`He said “Hello” to me`:             {"hello", "HELLO", "said “hello” to", `"hello"`},
		"東京、大阪":                             {"東京", "大阪", "京", "東京、大阪", "東京 大阪"},
		"alpha—omega":                       {"alpha", "omega", "alpha–omega", "alpha omega"},
		"one\u00a0two\u2003three\u3000four": {"one", "two", "three", "four", "one two three four"},
		"wait…what":                         {"wait", "what", "wait...what"},
		"«Bonjour», ¡Hola! ‹Ça›":            {"bonjour", "hola", "ça", "ÇA"},
		"party🎉 👩‍👩‍👧 fête":                 {"party", "fête", "party fête"},
		"ΟΔΟΣ Ερμού":                        {"οδος", "οδοσ", "ΟΔΟΣ", "Οδος", "ερμού"},
		"日本語のテキスト":                          {"日本語", "テキスト", "の", "日本語のテキスト", "本語の"},
		"ﾃｷｽﾄ Ｈｅｌｌｏ！":                       {"テキスト", "hello", "Ｈｅｌｌｏ"},
		"iPhone15用ケース":                      {"iphone15", "ケース", "用ケース", "iphone15用"},
		"서울에서 만나요":                          {"서울", "서울에서", "만나"},
		"สวัสดีชาวโลก":                      {"สวัสดี", "ชาวโลก"},
		"हिन्दी भाषा।":                      {"हिन्दी", "भाषा"},
		"Straße, STRASSE":                   {"straße", "strasse", "STRASSE", "STRAßE"},
		"İSTANBUL ISPARTA ılık":             {"istanbul", "İstanbul", "isparta", "ısparta", "ILIK"},
		"cafe\u0301 ﬁne x² Ⅷ":               {"café", "CAFÉ", "fine", "x2", "viii"},
		"co\u00adoperate \u200fשלום\u200f":  {"cooperate", "שלום"},
		"it's it’s rock’n’roll":             {"it's", "it’s", "rock'n'roll"},
		"Ünïcödé ÀÉÎ":                       {"ünïcödé", "ÜNÏCÖDÉ", "àéî"},
		"a_b a-b C++ 1.5 a@b.c /x/y":        {"a b", "b", "c", "1 5", "a.b.c", "x/y"},
		"Привет, МИР!":                      {"привет", "мир", "ПРИВЕТ МИР"},
		"مرحبا، العالم؟":                    {"مرحبا", "العالم"},
		"数字１２３と①":                           {"123", "数字123と1"},
	}
	missing := map[string][]string{
		"東京、大阪":       {"京大", "京都"},
		"日本語のテキスト":    {"語日", "日語"},
		"alpha—omega": {"alphaomega", "omega alpha", "alph"},
		"서울에서":        {"울서"},
		"हिन्दी":      {"हन्द", "हिन"},
		"ΟΔΟΣ":        {"οδ"},
	}
	eachLocale(t, func(t *testing.T, conn *pgx.Conn) {
		// Both by the words of an entry, and by its text, for where positions are missing.
		const ask = `select kv.search_vector(to_jsonb($1::text), 0) @@ kv.search_query($2::jsonb), kv.matches_search(to_jsonb($1::text), $2::jsonb)`
		check := func(text, search string, want bool) {
			var byWords, byText bool
			require.NoError(t, conn.QueryRow(context.Background(), ask, text, term(search)).Scan(&byWords, &byText), search)
			require.Equal(t, want, byWords, "%q in %q", search, text)
			require.Equal(t, want, byText, "%q in the text %q", search, text)
		}
		for text, searches := range found {
			for _, search := range searches {
				check(text, search, true)
			}
		}
		for text, searches := range missing {
			for _, search := range searches {
				check(text, search, false)
			}
		}
		for _, nothing := range []string{"…", "“”", "🎉", "\u00a0", "—", "\u200d", "、", "!"} {
			requireCode(t, "PT400", conn, "select kv.search_query($1::jsonb)", term(nothing))
		}
	})
}

// All letters are compared, and one in eight of the other characters.
func TestWordsAreTheSameInEveryLocale(t *testing.T) {
	t.Parallel()
	var want string
	eachLocale(t, func(t *testing.T, conn *pgx.Conn) {
		got := one[string](t, conn, `
			select md5(string_agg(kv.normalize_search_text(text)::text, ' ' order by block)) from (
				select i / 4096 as block, string_agg('a' || chr(i) || 'B' || chr(i) || ' ', '' order by i) as text
				from generate_series(1, 131071) as i where (i < 12352 or i % 8 = 0) and i not between 55296 and 57343 group by 1) as blocks`)
		if want == "" {
			want = got
		}
		require.Equal(t, want, got)
	})
}

// The list in kv.normalize_search_text agrees with Go's tables: letters, marks and numbers make words.
func TestWhatDividesWordsIsWhatUnicodeSays(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).superuser(t)
	var assigned []int32
	for _, table := range []*unicode.RangeTable{unicode.L, unicode.M, unicode.N, unicode.P, unicode.S, unicode.Z, unicode.Cc, unicode.Cf} {
		for _, r := range table.R16 {
			for c := rune(r.Lo); c <= rune(r.Hi); c += rune(r.Stride) {
				assigned = append(assigned, c)
			}
		}
		for _, r := range table.R32 {
			for c := rune(r.Lo); c <= rune(r.Hi) && c < 0x20000; c += rune(r.Stride) {
				assigned = append(assigned, c)
			}
		}
	}
	// Only characters that normalization keeps, each between two digits, which no mark combines with.
	rows, err := conn.Query(context.Background(), `
		with kept as (
			select i / 2048 as block, i from unnest($1::int[]) as i
			where i not in (0, 30, 48) and chr(i) is nfkc normalized and lower(chr(i) collate "und-x-icu") = chr(i))
		select array_agg(i order by i), kv.normalize_search_text(string_agg('0' || chr(i) || '0', E'\x1e' order by i)) from kept group by block`, assigned)
	require.NoError(t, err)
	type block struct {
		Characters []int32
		Words      []string
	}
	blocks, err := pgx.CollectRows(rows, pgx.RowToStructByPos[block])
	require.NoError(t, err)
	checked := 0
	for _, b := range blocks {
		for i, around := range strings.Split(strings.Join(b.Words, " "), " \x1e ") {
			c := rune(b.Characters[i])
			checked++
			switch around {
			case "0 0":
				require.False(t, unicode.In(c, unicode.L, unicode.M, unicode.N), "%U divides words", c)
			case "00":
				require.True(t, unicode.In(c, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector), "%U is left out of words", c)
			default:
				require.True(t, unicode.In(c, unicode.L, unicode.M, unicode.N), "%U is part of %q", c, around)
				letter := strings.ReplaceAll(strings.Trim(around, "0"), " ", "")
				require.True(t, letter == string(c) || strings.Contains("ςßı", string(c)), "%U became %q", c, around)
			}
		}
	}
	require.Greater(t, checked, 70_000)
}

// Phrases beyond the positions that a tsvector keeps of a word, and beyond those that it can count.
func TestPhrasesOfLongTexts(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	var counted strings.Builder
	for i := range 17_000 {
		fmt.Fprintf(&counted, "w%d ", i)
	}
	for key, text := range map[string]string{
		"often":   strings.Repeat("red tea ", 300) + "red wine",
		"long":    counted.String(),
		"han":     strings.Repeat("吾輩は猫である。名前はまだ無い。", 2000) + "日本語",
		"exactly": strings.Repeat("red tea ", 255) + "red wine",
		"short":   "red wine",
		"apart":   strings.Repeat("red tea ", 300) + "red, and wine",
	} {
		upsert(t, conn, key, `{"first":"other","text":`+pgJSON(text)+`}`, nil)
	}
	search := func(text string) []string {
		var answer struct{ Results []struct{ Key string } }
		require.NoError(t, json.Unmarshal([]byte(one[string](t, conn, askQuery, aQuery(t, `"search":`+text))), &answer))
		keys := []string{}
		for _, r := range answer.Results {
			keys = append(keys, r.Key)
		}
		return keys
	}
	everything := []string{"apart", "exactly", "han", "long", "often", "short"}
	without := func(keys ...string) []string {
		return slices.DeleteFunc(slices.Clone(everything), func(key string) bool { return slices.Contains(keys, key) })
	}
	require.Equal(t, []string{"exactly", "often", "short"}, search(term("red wine")))
	require.Equal(t, []string{"exactly", "often", "short"}, search(`[[{"text":"red wi","prefix":true}]]`))
	require.Equal(t, without("exactly", "often", "short"), search(`[[{"text":"red wine","not":true}]]`))
	require.Equal(t, []string{"apart"}, search(`[[{"text":"red wine","not":true},{"text":"wine"}]]`))
	require.Equal(t, []string{"exactly", "long", "often", "short"}, search(`[[{"text":"red wine"}],[{"text":"w16998 w16999"},{"text":"zzz","not":true}]]`))
	require.Equal(t, []string{"long"}, search(term("w16998 w16999")))
	require.Empty(t, search(term("w16999 w16998")))
	require.Equal(t, []string{"han"}, search(term("日本語")))
	require.Equal(t, []string{"han"}, search(term("まだ無い")))
	require.Empty(t, search(term("日語")))
	require.Equal(t, without(), search(term("other")))
}
