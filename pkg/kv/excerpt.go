package kv

import (
	"strconv"
	"strings"
)

// Excerpt is a text for an error, cut where it is too long: an error must not be as large as what it is about.
func Excerpt(text string) string {
	const most = 60
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

func quote(text string) string { return strconv.Quote(Excerpt(text)) }

func join[T ~string](values []T) string {
	texts := make([]string, len(values))
	for i, value := range values {
		texts[i] = string(value)
	}
	return strings.Join(texts, ", ")
}
