package netlify

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// decodeString decodes the text of a JSON string. It is not ok where the text is no string, or holds half of a
// surrogate pair, which UTF-8 cannot carry: Go would quietly put U+FFFD in its place and make different keys equal.
func decodeString[T ~[]byte](text T) (s string, ok bool) {
	decoded, err := jsontext.AppendUnquote(nil, text)
	return string(decoded), err == nil
}

// timestamp is now as JavaScript's toISOString writes it.
func timestamp(now time.Time) string { return now.UTC().Format("2006-01-02T15:04:05.000Z") }
