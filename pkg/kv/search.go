package kv

import (
	"strings"
	"unicode"
)

// Search finds entries that match one of its branches; a branch matches when all of its terms do.
type Search [][]SearchTerm

// SearchTerm is a word, or several that must follow each other. What in it is no letter or digit only divides words.
type SearchTerm struct {
	Text string `json:"text"`
	// Not excludes entries with the term.
	Not bool `json:"not,omitzero"`
	// Prefix lets the last word go on.
	Prefix bool `json:"prefix,omitzero"`
}

// ParseSearch reads what people type into a web search: words that must all occur, "a phrase", or between alternatives,
// - in front of what must not occur, * behind the beginning of a word. A phrase that is not closed ends with the text. Words
// without a letter or digit are left out; where nothing is left, it is an error.
func ParseSearch(text string) (Search, error) {
	switch {
	case len(text) > MaxSearchBytes:
		return nil, Invalid("search must be at most %d bytes, got %d", MaxSearchBytes, len(text))
	case !isText(text):
		return nil, Invalid("search must be valid UTF-8 without U+0000")
	}
	var search Search
	var branch []SearchTerm
	for rest := trimSpace(straight.Replace(text)); rest != ""; {
		var term SearchTerm
		var word bool
		term, word, rest = nextTerm(rest)
		switch {
		case word && strings.EqualFold(term.Text, "or") && !term.Not && !term.Prefix && len(branch) > 0 && rest != "":
			search, branch = append(search, branch), nil
		case hasWord(term.Text):
			branch = append(branch, term)
		}
	}
	if len(branch) > 0 {
		search = append(search, branch)
	}
	if len(search) == 0 {
		return nil, Invalid("search has no word in it, got %s: give letters or digits to look for", quote(text))
	}
	return search, search.validate()
}

// straight makes the quotation marks that phones and word processors type those that a phrase stands in.
var straight = strings.NewReplacer("“", `"`, "”", `"`, "„", `"`, "‟", `"`, "＂", `"`)

// validate checks a search against the limits; nil is none.
func (s Search) validate() error {
	terms := 0
	for _, branch := range s {
		terms += len(branch)
		for _, term := range branch {
			switch {
			case !isText(term.Text):
				return Invalid("search must be valid UTF-8 without U+0000")
			case len(term.Text) > MaxSearchBytes:
				return Invalid("search must be at most %d bytes, got %d", MaxSearchBytes, len(term.Text))
			case !hasWord(term.Text):
				return Invalid("search has no word in %s: give letters or digits to look for", quote(term.Text))
			}
		}
		if len(branch) == 0 {
			return Invalid("search must have a word or phrase in each branch")
		}
	}
	switch {
	case s != nil && terms == 0:
		return Invalid("search must have a word or phrase")
	case terms > MaxSearchTerms:
		return Invalid("search must have at most %d words and phrases, got %d", MaxSearchTerms, terms)
	}
	return nil
}

// hasWord reports whether there may be something to look for in a text: the database decides what divides words (kv.normalize_search_text), but of
// ASCII it is known here.
func hasWord(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool {
		return r > unicode.MaxASCII && !unicode.IsSpace(r) || unicode.IsLetter(r) || unicode.IsDigit(r)
	})
}

// nextTerm cuts the first term off a text that begins with it; word tells that it was not in quotes. A * stands
// behind a word, or behind the quotes of a phrase, whose last word it is about.
func nextTerm(text string) (term SearchTerm, word bool, rest string) {
	if strings.HasPrefix(text, "-") && len(text) > 1 {
		term.Not, text = true, text[1:]
	}
	if quoted, ok := strings.CutPrefix(text, `"`); ok {
		term.Text, rest, _ = strings.Cut(quoted, `"`)
		rest, term.Prefix = strings.CutPrefix(rest, "*")
		return term, false, trimSpace(rest)
	}
	end := strings.IndexFunc(text, func(r rune) bool { return r == '"' || unicode.IsSpace(r) })
	if end < 0 {
		end = len(text)
	}
	term.Text, term.Prefix = strings.CutSuffix(text[:end], "*")
	return term, true, trimSpace(text[end:])
}

func trimSpace(text string) string { return strings.TrimLeftFunc(text, unicode.IsSpace) }
