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
	Not bool `json:"not,omitempty"`
	// Prefix lets the last word go on.
	Prefix bool `json:"prefix,omitempty"`
}

// ParseSearch reads what people type into a web search: words that must all occur, "a phrase", or between alternatives,
// - in front of what must not occur, * behind the beginning of a word. A phrase that is not closed ends with the text.
func ParseSearch(text string) (Search, error) {
	switch {
	case len(text) > MaxSearchBytes:
		return nil, Invalid("search must be at most %d bytes, got %d", MaxSearchBytes, len(text))
	case !isText(text):
		return nil, Invalid("search must be valid UTF-8 without U+0000")
	}
	var search Search
	var branch []SearchTerm
	terms, rest := 0, trimSpace(text)
	for rest != "" {
		var term SearchTerm
		var word bool
		term, word, rest = nextTerm(rest)
		if word && strings.EqualFold(term.Text, "or") && !term.Not && !term.Prefix && len(branch) > 0 && rest != "" {
			search, branch = append(search, branch), nil
			continue
		}
		if term.Text != "" {
			branch = append(branch, term)
			terms++
		}
	}
	if len(branch) > 0 {
		search = append(search, branch)
	}
	switch {
	case terms == 0:
		return nil, Invalid("search has no word in it, got %q: give letters or digits to look for", text)
	case terms > MaxSearchTerms:
		return nil, Invalid("search must have at most %d words and phrases, got %d", MaxSearchTerms, terms)
	}
	return search, nil
}

// nextTerm cuts the first term off a text that begins with it; word tells that it was not in quotes.
func nextTerm(text string) (term SearchTerm, word bool, rest string) {
	if strings.HasPrefix(text, "-") && len(text) > 1 {
		term.Not, text = true, text[1:]
	}
	if quoted, ok := strings.CutPrefix(text, `"`); ok {
		term.Text, rest, _ = strings.Cut(quoted, `"`)
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
