package kv

import "github.com/go-json-experiment/json/jsontext"

// AppendString appends s as a JSON string with no more escapes than needed, as JSON.stringify and Postgres write it. What is not
// UTF-8 becomes U+FFFD.
func AppendString[T string | []byte](dst []byte, s T) []byte {
	dst, _ = jsontext.AppendQuote(dst, s)
	return dst
}
