package kv

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Path leads to a part of a value: names of object fields, or positions in arrays (-1 is the last).
type Path []string

// ParsePath reads a path: dotted (stops.0.title), or a JSON Pointer (RFC 6901) when it begins with a slash. Names that
// are empty or hold a dot need a pointer. The error is a plain sentence: the caller knows which path it is about.
func ParsePath(text string) (Path, error) {
	if len(text) > MaxPathBytes {
		return nil, fmt.Errorf("a path must be at most %d bytes, got %d", MaxPathBytes, len(text))
	}
	path := Path(strings.Split(text, "."))
	switch {
	case strings.HasPrefix(text, "/"):
		var err error
		if path, err = parsePointer(text); err != nil {
			return nil, err
		}
	case slices.Contains(path, ""):
		return nil, fmt.Errorf("a path must be like score, stops.0.title or /a~1b, got %s", quote(text))
	}
	if err := path.validate(); err != nil {
		return nil, err
	}
	return path, nil
}

// parsePointer reads a JSON Pointer that begins with a slash.
func parsePointer(text string) (path Path, err error) {
	for _, name := range strings.Split(text[1:], "/") {
		decoded, err := unescapePointer(name)
		if err != nil {
			return nil, err
		}
		path = append(path, decoded)
	}
	return path, nil
}

// validate checks a path against the limits; the error is a plain sentence.
func (p Path) validate() error {
	size := len(p) - 1 // the dots
	for _, name := range p {
		size += len(name)
		if !isText(name) {
			return errors.New("a path must be valid UTF-8 without U+0000")
		}
	}
	switch {
	case len(p) == 0:
		return errors.New("a path must not be empty")
	case len(p) > MaxPathSegments:
		return fmt.Errorf("a path must have at most %d parts, got %d", MaxPathSegments, len(p))
	case size > MaxPathBytes:
		return fmt.Errorf("a path must be at most %d bytes, got %d", MaxPathBytes, size)
	}
	return nil
}

// unescapePointer decodes ~0 and ~1, the only escapes there are.
func unescapePointer(name string) (string, error) {
	for i := 0; i < len(name); i++ {
		if name[i] == '~' && (i+1 == len(name) || name[i+1] != '0' && name[i+1] != '1') {
			return "", fmt.Errorf("in a path that begins with / a ~ is written ~0 and a slash ~1, got %s", quote(name))
		}
	}
	return strings.ReplaceAll(strings.ReplaceAll(name, "~1", "/"), "~0", "~"), nil
}

// Pointer writes the path as a JSON Pointer.
func (p Path) Pointer() string {
	var b strings.Builder
	for _, name := range p {
		b.WriteByte('/')
		b.WriteString(strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1"))
	}
	return b.String()
}
