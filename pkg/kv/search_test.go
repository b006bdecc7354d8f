package kv

import (
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
)

func TestASearchIsReadAsPeopleTypeIt(t *testing.T) {
	t.Parallel()
	word := func(texts ...string) (terms []SearchTerm) {
		for _, text := range texts {
			terms = append(terms, SearchTerm{Text: text})
		}
		return terms
	}
	for text, want := range map[string]Search{
		"foo":                     {word("foo")},
		"  foo\tbar\n":            {word("foo", "bar")},
		"foo\u00a0bar\u3000baz":   {word("foo", "bar", "baz")},
		"foo-bar a.b":             {word("foo-bar", "a.b")},
		`"a phrase" b`:            {word("a phrase", "b")},
		`a"b c"d`:                 {word("a", "b c", "d")},
		`"not closed `:            {word("not closed ")},
		`"" a ""`:                 {word("a")},
		"“green tea” „b c“* -”d”": {{{Text: "green tea"}, {Text: "b c", Prefix: true}, {Text: "d", Not: true}}},
		"a or b":                  {word("a"), word("b")},
		"a OR b oR c d":           {word("a"), word("b"), word("c", "d")},
		"a or or b":               {word("a"), word("or", "b")}, // there is no term before the second
		"or a":                    {word("or", "a")},
		"a or":                    {word("a", "or")},
		"or":                      {word("or")},
		`a "or" b`:                {word("a", "or", "b")},
		"a or ..":                 {word("a")},
		"ore or order":            {word("ore"), word("order")},
		"-a":                      {{{Text: "a", Not: true}}},
		`a -b -"c d"`:             {{{Text: "a"}, {Text: "b", Not: true}, {Text: "c d", Not: true}}},
		"a -or b":                 {{{Text: "a"}, {Text: "or", Not: true}, {Text: "b"}}},
		"--a":                     {{{Text: "-a", Not: true}}},
		"a - b":                   {word("a", "b")},
		"a -":                     {word("a")},
		"5 -5":                    {{{Text: "5"}, {Text: "5", Not: true}}},
		"foo*":                    {{{Text: "foo", Prefix: true}}},
		"foo* -ba*":               {{{Text: "foo", Prefix: true}, {Text: "ba", Prefix: true, Not: true}}},
		"or* or or*":              {{{Text: "or", Prefix: true}}, {{Text: "or", Prefix: true}}},
		`"foo ba"*`:               {{{Text: "foo ba", Prefix: true}}},
		`-"foo ba"* c`:            {{{Text: "foo ba", Prefix: true, Not: true}, {Text: "c"}}},
		"*foo f*o":                {word("*foo", "f*o")},
		"foo & bar | !baz":        {word("foo", "bar", "!baz")}, // these are no operators, and divide words
		"$$ a ;--":                {word("a")},
		"ü 😀 日本":                  {word("ü", "😀", "日本")},
		rep("a ", MaxSearchTerms): {word(strings.Fields(rep("a ", MaxSearchTerms))...)},
		rep("a", MaxSearchBytes):  {word(rep("a", MaxSearchBytes))},
	} {
		got, err := ParseSearch(text)
		require.NoError(t, err, "%q", text)
		require.Equal(t, want, got, "%q", text)
	}
}

func TestWhatIsNoSearchIsRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                 `search has no word in it, got "": give letters or digits to look for`,
		" \t":                              `search has no word in it, got " \t": give letters or digits to look for`,
		`""`:                               `search has no word in it, got "\"\"": give letters or digits to look for`,
		"-":                                `search has no word in it, got "-": give letters or digits to look for`,
		"*":                                `search has no word in it, got "*": give letters or digits to look for`,
		`$$ ;-- "..." -!*`:                 `search has no word in it, got "$$ ;-- \"...\" -!*": give letters or digits to look for`,
		rep(".", 2000):                     `search has no word in it, got "` + rep(".", 60) + `…": give letters or digits to look for`,
		"a\x00":                            "search must be valid UTF-8 without U+0000",
		"\xff":                             "search must be valid UTF-8 without U+0000",
		rep("a", MaxSearchBytes+1):         "search must be at most 2000 bytes, got 2001",
		rep("a ", MaxSearchTerms+1):        "search must have at most 100 words and phrases, got 101",
		rep("a or ", MaxSearchTerms) + "a": "search must have at most 100 words and phrases, got 101",
	} {
		_, err := ParseSearch(text)
		require.EqualError(t, err, "invalid_input: "+want, "%q", text)
	}
}

// FuzzParseSearch: a search that is accepted is within the limits, and has every word that was typed but an "or".
func FuzzParseSearch(f *testing.F) {
	for _, text := range []string{"", "a b", `"a b" or -c*`, `-"d e"* f`, "or or or", `"open`, "a\x00", "$$;--", "a\u00a0b", `a"b"c`, "--a", `""or"" or "or"`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		search, err := ParseSearch(text)
		if err != nil {
			require.Equal(t, CodeInvalidInput, CodeOf(err))
			require.Less(t, len(err.Error()), 600)
			return
		}
		require.NoError(t, Query{Search: search}.Validate())
		var got []string
		for _, branch := range search {
			require.NotEmpty(t, branch)
			for _, term := range branch {
				got = append(got, wordsOf(term.Text)...)
			}
		}
		require.Equal(t, wordsOf(straight.Replace(text)), got, "%q", text)
	})
}

// wordsOf are the words of a text that are not "or".
func wordsOf(text string) (words []string) {
	for _, word := range strings.FieldsFunc(text, func(r rune) bool {
		return unicode.IsSpace(r) || r <= unicode.MaxASCII && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}) {
		if !strings.EqualFold(word, "or") {
			words = append(words, word)
		}
	}
	return words
}
