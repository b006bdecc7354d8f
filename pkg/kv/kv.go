package kv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Store is a key-value store. Its methods end with the context's deadline ([CodeDeadlineExceeded]), and return
// [CodeDatabaseUnreachable] when the store could not be reached although the operation was repeated; then a write may
// or may not have happened. Only whole operations happen.
type Store interface {
	// Upsert creates or replaces an entry.
	Upsert(ctx context.Context, entry Entry) (Written, error)
	// Get returns the JSON text of the value under key. A missing key is [CodeNotFound].
	Get(ctx context.Context, key string) (string, error)
	// List returns the entries q asks for as the JSON text of kv-list's answer. [CodeTooLarge] means that it would not
	// fit into a response and that the caller must page.
	List(ctx context.Context, q ListQuery) (string, error)
	// Query returns the entries or the aggregates q asks for as the JSON text of kv-query's answer. A query that takes
	// longer than 10 s is [CodeDeadlineExceeded].
	Query(ctx context.Context, q Query) (string, error)
	// Delete removes the entry under key, with its members if it is an index entry. Written.Existed tells whether there
	// was one; a missing key is no error.
	Delete(ctx context.Context, key string) (Written, error)
}

// Entry is what an upsert writes.
type Entry struct {
	Key string
	// Value is JSON text: an object, an array or null. It is stored as it is.
	Value string
	// Indexes replace those the entry has; nil leaves them, an empty slice clears them.
	Indexes []Index
}

// Index files an entry under a member of an index. Key is itself the key of an entry, whose value lists the members.
type Index struct {
	Key    string `json:"key"`
	Member Member `json:"member"`
}

// String is "<key>:<member>". Several indexes may be spelled alike: "a:b" + "c" and "a" + "b:c", "a" + 5 and "a" + "5".
func (x Index) String() string { return x.Key + ":" + x.Member.Spelling() }

// Pairs are the indexes as the database and the copies take them: {key, member} each, the first of equal ones, in order. It never
// returns nil: an empty set is not an absent one.
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

// Written is what a store tells about a write.
type Written struct {
	// Version is an opaque token: a reader that presents it gets no answer older than this write.
	Version string
	// Existed is set by Delete: there was an entry.
	Existed bool
}

// Validate checks an entry against the limits.
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

// validate returns a plain sentence: the caller knows which of many indexes it is about.
func (x Index) validate(entryKey string) error {
	switch {
	case x.Key == "" || x.Member == "":
		return errors.New("key and member must not be empty")
	case x.Member.IsNumber() && (!isNumberText(x.Member.Spelling()) || !json.Valid([]byte(x.Member.Spelling()))):
		return errors.New("a member that is a number must be spelled as in JSON")
	case !utf8.ValidString(x.String()):
		return errors.New("key and member must be valid UTF-8")
	case strings.ContainsRune(x.String(), 0):
		return errors.New("key and member must not contain U+0000")
	case len(x.String()) > MaxKeyBytes:
		return fmt.Errorf(`"<key>:<member>" must be at most %d bytes, got %d`, MaxKeyBytes, len(x.String()))
	case x.Key == entryKey:
		return errors.New("an entry cannot be one of its own indexes")
	}
	return nil
}

// ValidateKey checks a key that an entry is or may be stored under.
func ValidateKey(key string) error {
	switch {
	case key == "":
		return Invalid("key must not be empty")
	case len(key) > MaxKeyBytes:
		return Invalid("key must be at most %d bytes, got %d", MaxKeyBytes, len(key))
	}
	return validateText("key", key)
}

// validateText checks that Postgres can hold a text.
func validateText(name, text string) error {
	switch {
	case !utf8.ValidString(text):
		return Invalid("%s must be valid UTF-8", name)
	case strings.ContainsRune(text, 0):
		return Invalid("%s must not contain U+0000", name)
	}
	return nil
}

// isText tells whether Postgres can hold a text.
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
