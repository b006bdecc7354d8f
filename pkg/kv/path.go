package kv

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Path leads to a part of a value: dotted, as in stops.0.title, or a JSON Pointer (RFC 6901) when it begins with a slash.
// Names that are empty or hold a dot need a pointer. In arrays a name is a position, and -1 the last. A path that is one of
// [OwnFields] leads to that field of the entry; the value's own field of that name needs a pointer.
type Path string

// OwnFields are what an entry can be found, sorted and aggregated by besides paths of its value.
var OwnFields = []Path{"key", "createdAt", "updatedAt"}

func (p Path) isOwn() bool { return slices.Contains(OwnFields, p) }

// Pointer is the one spelling of a path: a JSON Pointer, or one of [OwnFields].
func (p Path) Pointer() Path {
	if p.isOwn() || strings.HasPrefix(string(p), "/") {
		return p
	}
	var pointer jsontext.Pointer
	for _, name := range strings.Split(string(p), ".") {
		pointer = pointer.AppendToken(name)
	}
	return Path(pointer)
}

// Validate checks a path. The error is a plain sentence: the caller knows which path it is about.
func (p Path) Validate() error {
	text := string(p)
	names := strings.Split(text, ".")
	pointer, isPointer := strings.CutPrefix(text, "/")
	if isPointer {
		names = strings.Split(pointer, "/")
	}
	switch {
	case len(text) > MaxPathBytes:
		return fmt.Errorf("a path must be at most %d bytes, got %d", MaxPathBytes, len(text))
	case !isText(text):
		return errors.New("a path must be valid UTF-8 without U+0000")
	case len(names) > MaxPathSegments:
		return fmt.Errorf("a path must have at most %d parts, got %d", MaxPathSegments, len(names))
	case !isPointer && slices.Contains(names, ""):
		return fmt.Errorf("a path must be like score, stops.0.title or /a~1b, got %s", quote(text))
	}
	for _, name := range names {
		if isPointer && !jsontext.Pointer("/"+name).IsValid() {
			return fmt.Errorf("in a path that begins with / a ~ is written ~0 and a slash ~1, got %s", quote(name))
		}
	}
	return nil
}
