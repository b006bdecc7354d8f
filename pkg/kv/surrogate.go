package kv

import (
	"strconv"
	"unicode/utf16"
)

// HasLoneSurrogate looks for \ud800 to \udfff without its other half in valid JSON text: no UTF-8 can carry it.
func HasLoneSurrogate(text string) bool {
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		i++
		first, ok := unicodeEscape(text, i)
		if !ok || !utf16.IsSurrogate(first) {
			continue
		}
		second, _ := unicodeEscape(text, i+6)
		if i+5 >= len(text) || text[i+5] != '\\' || utf16.DecodeRune(first, second) == '\uFFFD' {
			return true
		}
		i += 10
	}
	return false
}

// unicodeEscape reads uXXXX at i.
func unicodeEscape(text string, i int) (rune, bool) {
	if i+5 > len(text) || text[i] != 'u' {
		return 0, false
	}
	code, err := strconv.ParseUint(text[i+1:i+5], 16, 16)
	return rune(code), err == nil
}
