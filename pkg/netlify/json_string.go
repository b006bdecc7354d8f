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

// timestamp is now as JavaScript's toISOString writes it.
func timestamp(now time.Time) string { return now.UTC().Format("2006-01-02T15:04:05.000Z") }
