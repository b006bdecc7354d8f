package kv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Store is a key-value store that is safe for concurrent use. Operations are atomic.
//
// Every error is an [*Error]. [CodeDeadlineExceeded] means that the context's deadline passed.
// [CodeDatabaseUnreachable] means that the store could not be reached in several attempts. After either, a write may
// or may not have been applied.
type Store interface {
	// Upsert creates or replaces an entry.
	Upsert(ctx context.Context, entry Entry) (Written, error)
	// Get returns the JSON text of the value under key, or [CodeNotFound].
	Get(ctx context.Context, key string) (string, error)
	// List returns the entries that q selects, as the JSON text of kv-list's response. [CodeTooLarge] means that the
	// response would be larger than [MaxResponseBytes]: the caller must page.
	List(ctx context.Context, q ListQuery) (string, error)
	// Query returns the entries or the aggregates that q selects, as the JSON text of kv-query's response. A query
	// that takes longer than [MaxQueryTime] is [CodeDeadlineExceeded].
	Query(ctx context.Context, q Query) (string, error)
	// Delete removes the entry under key, and with an index entry its members. A missing key is not an error: see
	// Written.Existed.
	Delete(ctx context.Context, key string) (Written, error)
}

// Entry is what an upsert writes.
type Entry struct {
	Key string
	// Value is JSON text: an object, an array or null. It is stored byte for byte.
	Value string
	// Indexes replace the entry's indexes. Nil keeps them, an empty slice clears them. At most [MaxIndexes].
	Indexes []Index
}

// Index files an entry under a member of an index. Key is the key of another entry, the index entry, whose value
// lists the members.
type Index struct {
	Key    string `json:"key"`
	Member Member `json:"member"`
}

// String returns "<key>:<member>". It is ambiguous: "a:b" + "c" and "a" + "b:c" have the same, as have "a" + 5 and
// "a" + "5".
func (x Index) String() string { return x.Key + ":" + x.Member.Text() }

// Pairs returns the indexes as {key, member} pairs, without repeats and in order, the form that the database and
// Blobs store. It never returns nil, which would mean that the indexes are not known.
func Pairs(indexes []Index) [][2]string {
	pairs, seen := make([][2]string, 0, len(indexes)), make(map[Index]bool, len(indexes))
	for _, index := range indexes {
		if !seen[index] {
			seen[index] = true
			pairs = append(pairs, [2]string{index.Key, string(index.Member)})
		}
	}
	return pairs
}

// Written is the result of a write.
type Written struct {
	// Version is opaque. A read with it as [Freshness.After] returns nothing older than this write.
	Version string
	// Existed reports, after a Delete, that there was an entry.
	Existed bool
}

// Validate checks the entry against the limits: [CodeInvalidInput] or [CodeUnstorableValue].
func (e Entry) Validate() error {
	if err := ValidateKey(e.Key); err != nil {
		return err
	}
	if len(e.Indexes) > MaxIndexes {
		return Invalid("indexes must be at most %d, got %d", MaxIndexes, len(e.Indexes))
	}
	for i, index := range e.Indexes {
		if err := index.validate(e.Key); err != nil {
			return Invalid("indexes[%d]: %v", i, err)
		}
	}
	if d := depth(e.Value); d > MaxDepth {
		return &Error{Code: CodeUnstorableValue, Message: fmt.Sprintf("value must be nested at most %d levels deep, got %d", MaxDepth, d)}
	}
	return nil
}

// validate returns an error without the index's position, which the caller adds.
func (x Index) validate(entryKey string) error {
	switch {
	case x.Key == "" || x.Member == "":
		return errors.New("key and member must not be empty")
	case x.Member.IsNumber() && (!isNumberText(x.Member.Text()) || !json.Valid([]byte(x.Member.Text()))):
		return errors.New("a member that is a number must be spelled as in JSON")
	case !utf8.ValidString(x.String()):
		return errors.New("key and member must be valid UTF-8")
	case strings.ContainsRune(x.String(), 0):
		return errors.New("key and member must not contain U+0000")
	case len(x.String()) > MaxKeyBytes:
		return fmt.Errorf(`"<key>:<member>" must be at most %d bytes, got %d`, MaxKeyBytes, len(x.String()))
	case strings.HasPrefix(x.Key, spaceMark):
		return errors.New("key must not begin with U+10FFFF")
	case x.Key == entryKey:
		return errors.New("an entry cannot be one of its own indexes")
	}
	return nil
}

// ValidateKey checks that an entry can have the key: 1 to [MaxKeyBytes] bytes of UTF-8 without U+0000, and without
// U+10FFFF, which is no character, at the beginning. Otherwise it is [CodeInvalidInput].
func ValidateKey(key string) error {
	switch {
	case key == "":
		return Invalid("key must not be empty")
	case len(key) > MaxKeyBytes:
		return Invalid("key must be at most %d bytes, got %d", MaxKeyBytes, len(key))
	case strings.HasPrefix(key, spaceMark):
		return Invalid("key must not begin with U+10FFFF")
	}
	return validateText("key", key)
}

// validateText checks that Postgres can store a text.
func validateText(name, text string) error {
	switch {
	case !utf8.ValidString(text):
		return Invalid("%s must be valid UTF-8", name)
	case strings.ContainsRune(text, 0):
		return Invalid("%s must not contain U+0000", name)
	}
	return nil
}

// isText reports whether Postgres can store a text.
func isText(text string) bool { return utf8.ValidString(text) && !strings.ContainsRune(text, 0) }

// depth counts the levels of arrays and objects of a valid JSON text.
func depth(text string) int {
	deepest, level, inString := 0, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			level++
			deepest = max(deepest, level)
		case c == '}' || c == ']':
			level--
		}
	}
	return deepest
}
