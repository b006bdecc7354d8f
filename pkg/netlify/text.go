package netlify

import (
	"encoding/json"
	"time"

	"netlify-supabase-kv/pkg/kv"
)

// decodeString decodes the text of a JSON string. It is not ok where the text is no string, or holds half of a
// surrogate pair, which UTF-8 cannot carry: Go would quietly put U+FFFD in its place and make different keys equal.
func decodeString(text json.RawMessage) (s string, ok bool) {
	if len(text) == 0 || text[0] != '"' || json.Unmarshal(text, &s) != nil {
		return "", false
	}
	return s, !kv.HasLoneSurrogate(string(text))
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
