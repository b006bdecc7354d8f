package kv

import (
	"crypto/sha256"
	"encoding/base64"
	"regexp"
	"unicode/utf8"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Cursor is where a page of kv-list or kv-query ended. It belongs to the question that the page answered: with other filters or
// another order it would go on anywhere.
type Cursor struct {
	// Question is the digest of the filters and the order.
	Question string `json:"question"`
	// Position is JSON text: null in an order by key, microseconds since 1970 in one by time. In one by a path, it is
	// [0, number], [1, text of at most 200 characters], [2, null] for anything else, or [3, null] for nothing there.
	Position jsontext.Value `json:"position"`
	Key      string         `json:"key"`
}

// digest names a question: its filters and its order, in one spelling.
func digest(question any) string {
	sum := sha256.Sum256([]byte(encodeArgs(question)))
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

// String writes the cursor as nextCursor has it, and as [ParseCursor] reads it.
func (c Cursor) String() string { return base64.RawURLEncoding.EncodeToString([]byte(encodeArgs(c))) }

// ParseCursor reads a nextCursor, which [Cursor.String] or kv.query_cursor of the database wrote.
func ParseCursor(text string) (*Cursor, error) {
	var c Cursor
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || jsonv2.Unmarshal(raw, &c, jsonv2.RejectUnknownMembers(true)) != nil || ValidateKey(c.Key) != nil {
		return nil, Invalid("cursor must be the nextCursor of an earlier answer, got %s", quote(text))
	}
	return &c, nil
}

// validate refuses a cursor that another question was answered with, or that nothing was.
func (c Cursor) validate(question string, by order) error {
	switch {
	case c.Question != question:
		return Invalid("cursor belongs to another question: it goes on with the prefix, the filters and the order of the page that it came with, and no others")
	case !by.has(c.Position) || ValidateKey(c.Key) != nil:
		return Invalid("cursor must be the nextCursor of an earlier answer")
	}
	return nil
}

// Micros is the position in an order by time, in microseconds since 1970; false in another.
func (c Cursor) Micros() (micros int64, ok bool) {
	err := jsonv2.Unmarshal(c.Position, &micros)
	return micros, err == nil && c.Position.Kind() == '0'
}

// order is what kind of position a cursor has.
type order string

const (
	byKey     order = "key"
	byTime    order = "time"
	byPath    order = "path"
	byNothing order = "" // an order that no cursor can go on in
)

// order is the kind of order that a single key gives.
func (k SortKey) order() order {
	switch {
	case k.Path == "" || k.Path == "key":
		return byKey
	case k.Path == Relevance:
		return byNothing
	case k.Path.isOwn():
		return byTime
	}
	return byPath
}

// has reports whether the database may have written the position.
func (by order) has(position jsontext.Value) bool {
	switch by {
	case byKey:
		return position == nil || string(position) == "null"
	case byTime:
		micros, ok := Cursor{Position: position}.Micros()
		return ok && isTime(micros)
	case byPath:
		return isPathPosition(position)
	}
	return false
}

// isTime reports whether microseconds since 1970 are a time that timestamptz and ISO 8601 both hold: the years 1 to 9999.
func isTime(micros int64) bool { return micros >= -62135596800_000000 && micros <= 253402300799_999999 }

// storedNumber is a number as Postgres writes it: without an exponent. It can be longer than one that a filter may have.
var storedNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?$`)

// maxStoredDigits bounds a number that numeric can hold: 131,072 digits before the point and 16,383 behind it.
const maxStoredDigits = 131072 + 16383 + 2

func isPathPosition(position jsontext.Value) bool {
	var parts [2]jsontext.Value
	if jsonv2.Unmarshal(position, &parts) != nil {
		return false
	}
	var text string
	switch class, at := string(parts[0]), parts[1]; class {
	case "0":
		return storedNumber.Match(at) && len(at) <= maxStoredDigits
	case "1":
		return at.Kind() == '"' && jsonv2.Unmarshal(at, &text) == nil && isText(text) && utf8.RuneCountInString(text) <= MaxSortText
	case "2", "3":
		return at.Kind() == 'n'
	}
	return false
}
