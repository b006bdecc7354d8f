package kv

import "github.com/go-json-experiment/json/jsontext"

// AppendString appends s, which must be UTF-8, as a JSON string with no more escapes than needed, as JSON.stringify
// and Postgres write it.
func AppendString[T string | []byte](dst []byte, s T) []byte {
	dst, _ = jsontext.AppendQuote(dst, s) // the error means that s is not UTF-8: U+FFFD stands where it is not
	return dst
}

// Unquote returns the text of a JSON string, without space around it. It is not ok for anything else, nor for a
// string with half of a surrogate pair: UTF-8 cannot hold that, and U+FFFD in its place would make different keys
// equal.
func Unquote[T ~string | ~[]byte](text T) (s string, ok bool) {
	unquoted, err := jsontext.AppendUnquote(nil, text)
	return string(unquoted), err == nil
}

// HasLoneSurrogate reports whether valid JSON text holds half of a surrogate pair, as \ud800 without its other half.
func HasLoneSurrogate(text string) bool {
	return !jsontext.Value(text).IsValid(jsontext.AllowDuplicateNames(true))
}
