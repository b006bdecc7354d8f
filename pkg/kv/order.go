package kv

import (
	"encoding/base64"
	"encoding/json"
	"strings"
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

// ParseCursor reads a nextCursor, which the kv_cursor function of the database wrote.
func ParseCursor(text string) (*Cursor, error) {
	bad := Invalid("cursor must be the nextCursor of an earlier answer, got %q", text)
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, bad
	}
	var c Cursor
	parts := []any{&c.Order, &c.Micros, &c.Key}
	if err := json.Unmarshal(raw, &parts); err != nil || len(parts) != 3 {
		return nil, bad
	}
	field, direction, _ := strings.Cut(string(c.Order), ".")
	if o, err := ParseOrder(field, direction); err != nil || o != c.Order {
		return nil, bad
	}
	if (c.Micros == nil) != (c.Order.Field() == "key") || ValidateKey(c.Key) != nil {
		return nil, bad
	}
	const year9999, year1 = 253402300799_999999, -62135596800_000000 // what timestamptz and ISO 8601 both hold
	if c.Micros != nil && (*c.Micros < year1 || *c.Micros > year9999) {
		return nil, bad
	}
	return &c, nil
}
