package kv

import (
	"encoding/base64"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Order is what a list is sorted by: the field's name with ".asc" or ".desc". Ties go by key in the same direction.
type Order string

// The zero Order is not valid; [ParseOrder] gives OrderByKey for empty parameters.
const OrderByKey Order = "key.asc"

var sortFields = []string{"key", "created", "updated"}

// ParseOrder reads sortBy (key, created, updated; empty: key) and sortOrder (asc, desc; empty: asc).
func ParseOrder(sortBy, sortOrder string) (Order, error) {
	field, err := oneOf("sortBy", sortBy, sortFields)
	if err != nil {
		return "", err
	}
	direction, err := oneOf("sortOrder", sortOrder, []string{"asc", "desc"})
	if err != nil {
		return "", err
	}
	return Order(field + "." + direction), nil
}

func oneOf(name, value string, allowed []string) (string, error) {
	if value == "" {
		return allowed[0], nil
	}
	for _, a := range allowed {
		if value == a {
			return a, nil
		}
	}
	return "", Invalid("%s must be one of %s, got %q", name, strings.Join(allowed, ", "), value)
}

// Field is the name of what is sorted by.
func (o Order) Field() string { return strings.Split(string(o), ".")[0] }

// Descending is true when the largest comes first.
func (o Order) Descending() bool { return strings.HasSuffix(string(o), ".desc") }

// Cursor is where a page ended: the last entry's key and, unless the order is by key, its time.
type Cursor struct {
	Order Order
	// Micros is the time of creation or update in microseconds since 1970, nil in an order by key.
	Micros *int64
	Key    string
}

// String writes the cursor as nextCursor has it, and as [ParseCursor] reads it.
func (c Cursor) String() string {
	micros := "null"
	if c.Micros != nil {
		micros = strconv.FormatInt(*c.Micros, 10)
	}
	text := AppendString([]byte("["), string(c.Order))
	text = AppendString(append(text, ", "+micros+", "...), c.Key)
	return base64.RawURLEncoding.EncodeToString(append(text, ']'))
}

// ParseCursor reads a nextCursor, which the kv_cursor function of the database wrote.
func ParseCursor(text string) (*Cursor, error) {
	bad := badCursor(text)
	var c Cursor
	if !decodeCursor(text, &c.Order, &c.Micros, &c.Key) {
		return nil, bad
	}
	field, direction, _ := strings.Cut(string(c.Order), ".")
	if o, err := ParseOrder(field, direction); err != nil || o != c.Order {
		return nil, bad
	}
	if (c.Micros == nil) != (c.Order.Field() == "key") || ValidateKey(c.Key) != nil {
		return nil, bad
	}
	if c.Micros != nil && !isTime(*c.Micros) {
		return nil, bad
	}
	return &c, nil
}

func badCursor(text string) *Error {
	return Invalid("cursor must be the nextCursor of an earlier answer, got %s", quote(text))
}

// decodeCursor reads the parts of a cursor, base64url of a JSON array, into pointers.
func decodeCursor(text string, parts ...any) bool {
	want := len(parts)
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return err == nil && utf8.Valid(raw) && !HasLoneSurrogate(string(raw)) && json.Unmarshal(raw, &parts) == nil && len(parts) == want
}

// isTime tells whether microseconds since 1970 are a time that timestamptz and ISO 8601 both hold: the years 1 to 9999.
func isTime(micros int64) bool { return micros >= -62135596800_000000 && micros <= 253402300799_999999 }

// QueryCursor is where a page of a [Query] ended.
type QueryCursor struct {
	// Order is what the page was sorted by: key, createdAt, updatedAt or a JSON Pointer, with .asc or .desc.
	Order string
	// Position is JSON text: null in an order by key, microseconds since 1970 in one by time. In one by a path, it is
	// [0, number], [1, text of at most 200 characters], [2, null] for anything else, or [3, null] for nothing there.
	Position string
	Key      string
}

// storedNumber is a number as Postgres writes it: without an exponent. It can be longer than one that a filter may have.
var storedNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?$`)

// maxStoredDigits bounds a number that numeric can hold: 131,072 digits before the point and 16,383 behind it.
const maxStoredDigits = 131072 + 16383 + 2

// maxSortText is how many characters of a text entries are sorted by (kv_query_sort).
const maxSortText = 200

// ParseQueryCursor reads a nextCursor, which the kv_query_cursor function of the database wrote.
func ParseQueryCursor(text string) (*QueryCursor, error) {
	var c QueryCursor
	position := json.RawMessage("null") // which a null leaves as it is
	if !decodeCursor(text, &c.Order, &position, &c.Key) {
		return nil, badCursor(text)
	}
	c.Position = string(position)
	if !c.valid() {
		return nil, badCursor(text)
	}
	return &c, nil
}

// valid tells whether kv_query_cursor may have written the cursor.
func (c QueryCursor) valid() bool {
	by, ok := strings.CutSuffix(c.Order, ".asc")
	if !ok {
		by, ok = strings.CutSuffix(c.Order, ".desc")
	}
	switch {
	case !ok || ValidateKey(c.Key) != nil || !json.Valid([]byte(c.Position)) || !isText(c.Position) || HasLoneSurrogate(c.Position):
		return false
	case by == "key":
		return c.Position == "null"
	case by == "createdAt" || by == "updatedAt":
		var micros *int64
		return json.Unmarshal([]byte(c.Position), &micros) == nil && micros != nil && isTime(*micros)
	case strings.HasPrefix(by, "/"):
		path, err := parsePointer(by)
		return err == nil && path.validate() == nil && isPathPosition(json.RawMessage(c.Position))
	}
	return false
}

func isPathPosition(position json.RawMessage) bool {
	var class *int
	at := json.RawMessage("null")
	parts := []any{&class, &at}
	if json.Unmarshal(position, &parts) != nil || len(parts) != 2 || class == nil {
		return false
	}
	var text string
	switch *class {
	case 0:
		return storedNumber.Match(at) && len(at) <= maxStoredDigits
	case 1:
		return at[0] == '"' && json.Unmarshal(at, &text) == nil && isText(text) && utf8.RuneCountInString(text) <= maxSortText
	case 2, 3:
		return string(at) == "null"
	}
	return false
}
