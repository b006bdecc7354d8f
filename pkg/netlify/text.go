package netlify

import (
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf16"
)

// decodeString decodes the text of a JSON string. It is not ok where the text is no string, or holds half of a
// surrogate pair, which UTF-8 cannot carry: Go would quietly put U+FFFD in its place and make different keys equal.
func decodeString(text json.RawMessage) (s string, ok bool) {
	if len(text) == 0 || text[0] != '"' || json.Unmarshal(text, &s) != nil {
		return "", false
	}
	return s, !hasLoneSurrogate(text)
}

// hasLoneSurrogate looks for \ud800 to \udfff without its other half in the text of a valid JSON string.
func hasLoneSurrogate(text []byte) bool {
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
func unicodeEscape(text []byte, i int) (rune, bool) {
	if i+5 > len(text) || text[i] != 'u' {
		return 0, false
	}
	code, err := strconv.ParseUint(string(text[i+1:i+5]), 16, 16)
	return rune(code), err == nil
}

// appendString appends s as a JSON string with no more escapes than needed, as JSON.stringify and Postgres write it.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(append(dst, s[from:]...), '"')
}

// timestamp is now as JavaScript's toISOString writes it.
func timestamp(now time.Time) string { return now.UTC().Format("2006-01-02T15:04:05.000Z") }
