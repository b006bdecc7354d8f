package kv

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Condition compares a part of the value, or a field of the entry's own.
type Condition struct {
	Path Path `json:"path"`
	Op   Op   `json:"op"`
	// Value is JSON text that jsonb can hold, of a kind that Op takes; nil is true for exists. For one of [OwnFields] it is a
	// string, or an array of strings for in; the times are compared in milliseconds, as answers show them.
	Value jsontext.Value `json:"value"`
}

// Op compares what is at a path with a value.
type Op string

// The comparisons of a [Condition]. Each is in the table of operators below, in kv.query_where of the database, and in docs/QUERIES.md:
// TestEveryOperator holds them together.
const (
	OpEq       Op = "eq"
	OpNe       Op = "ne"
	OpGt       Op = "gt"
	OpGte      Op = "gte"
	OpLt       Op = "lt"
	OpLte      Op = "lte"
	OpIn       Op = "in"
	OpExists   Op = "exists"
	OpContains Op = "contains"
)

// operator says what values a comparison takes.
type operator struct {
	op    Op
	kinds string // as [jsontext.Kind] has them
	takes string // the kinds in words; "" for all
}

const anyKind = `nft"0{[`

var operators = []operator{
	{OpEq, anyKind, ""},
	{OpNe, anyKind, ""},
	{OpGt, `0"`, "a number or a string"},
	{OpGte, `0"`, "a number or a string"},
	{OpLt, `0"`, "a number or a string"},
	{OpLte, `0"`, "a number or a string"},
	{OpIn, `[`, "an array"},
	{OpExists, `tf`, "true or false"},
	{OpContains, anyKind, ""},
}

// operatorOf finds a comparison.
func operatorOf(op Op) (operator, error) {
	var known []Op
	for _, o := range operators {
		if o.op == op {
			return o, nil
		}
		known = append(known, o.op)
	}
	got := "nothing"
	if op != "" {
		got = Excerpt(string(AppendString(nil, string(op))))
	}
	return operator{}, fmt.Errorf("op must be one of %s, got %s", join(known), got)
}

// validate returns an error that begins with the name of a field: the caller knows which of many conditions it is about.
func (c Condition) validate() error {
	if err := c.Path.Validate(); err != nil {
		return fmt.Errorf("path: %w", err)
	}
	operator, err := operatorOf(c.Op)
	switch {
	case err != nil:
		return err
	case c.Value == nil && c.Op == OpExists:
		return nil
	case c.Value == nil:
		return fmt.Errorf("value must be given for %s", c.Op)
	}
	if err := validateValue(c.Value); err != nil {
		return fmt.Errorf("value %w", err)
	}
	if !strings.ContainsRune(operator.kinds, rune(c.Value.Kind())) {
		return fmt.Errorf("value must be %s for %s", operator.takes, c.Op)
	}
	if values, _ := c.values(); c.Op == OpIn && len(values) > MaxInValues {
		return fmt.Errorf("value must have at most %d elements for in, got %d", MaxInValues, len(values))
	}
	_, err = c.ownValues()
	return err
}

// complete is a valid condition in its one spelling: with a pointer for its path, and milliseconds since 1970 for times.
func (c Condition) complete() Condition {
	c.Path = c.Path.Pointer()
	if c.Value == nil {
		c.Value = jsontext.Value("true")
	}
	switch values, _ := c.ownValues(); {
	case values == nil:
	case c.Op == OpIn:
		c.Value = jsontext.Value(encodeArgs(values))
	default:
		c.Value = jsontext.Value(encodeArgs(values[0]))
	}
	return c
}

// values are what is compared with: the elements of the array of in, else the value.
func (c Condition) values() (values []jsontext.Value, err error) {
	if c.Op != OpIn {
		return []jsontext.Value{c.Value}, nil
	}
	err = json.Unmarshal(c.Value, &values)
	return values, err
}

// ownValues reads what one of [OwnFields] is compared with: strings, or milliseconds since 1970 where it is a time. There is
// nothing to read for a path of the value, and for exists.
func (c Condition) ownValues() (own []any, err error) {
	if !c.Path.isOwn() || c.Op == OpExists {
		return nil, nil
	}
	values, err := c.values()
	if err != nil {
		return nil, err
	}
	own = []any{}
	for _, value := range values {
		var text string
		if value.Kind() != '"' || json.Unmarshal(value, &text) != nil {
			return nil, fmt.Errorf("value must be of text for %s, got %s", c.Path, Excerpt(string(value)))
		}
		if c.Path == "key" || c.Op == OpContains {
			own = append(own, text)
			continue
		}
		at, ok := parseTime(text)
		if !ok {
			return nil, fmt.Errorf("value must be a time like 2026-11-23T07:00:00.000Z or a day like 2026-11-23 for %s, got %s", c.Path, quote(text))
		}
		own = append(own, at.UnixMilli())
	}
	return own, nil
}

// timeLayouts are the forms of ISO 8601 that people and programs write. A fraction of a second may follow the seconds.
var timeLayouts = []string{"2006-01-02T15:04:05Z07:00", "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02", "2006-01"}

// parseTime reads a time in ISO form, in UTC where it names no zone.
func parseTime(text string) (time.Time, bool) {
	for _, layout := range timeLayouts {
		if at, err := time.Parse(layout, text); err == nil && isTime(at.UnixMicro()) {
			return at, true
		}
	}
	if year, err := strconv.Atoi(text); err == nil && len(text) == 4 && year > 0 {
		return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC), true
	}
	return time.Time{}, false
}

// validateValue checks that jsonb can hold a JSON text.
func validateValue(text jsontext.Value) error {
	duplicates := jsontext.AllowDuplicateNames(true)
	switch {
	case !isText(string(text)) || !text.IsValid(duplicates, jsontext.AllowInvalidUTF8(true)):
		return errors.New("must be JSON")
	case !text.IsValid(duplicates):
		return errors.New("must not hold half of a surrogate pair")
	}
	for decoder := jsontext.NewDecoder(bytes.NewReader(text), duplicates); ; {
		token, err := decoder.ReadToken()
		switch {
		case err != nil:
			return nil // the end: the text is valid
		case decoder.StackDepth() > MaxDepth:
			return fmt.Errorf("must be nested at most %d levels deep", MaxDepth)
		case token.Kind() == '"' && strings.ContainsRune(token.String(), 0):
			return errors.New("must not contain U+0000")
		case token.Kind() == '0' && !isNumeric(token.String(), MaxNumberDigits):
			return fmt.Errorf("must not hold a number with more than %d digits before or after the point", MaxNumberDigits)
		}
	}
}

// isNumeric reports whether a JSON number, written without an exponent, has at most so many digits on each side of the point.
func isNumeric(number string, most int) bool {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(strings.TrimPrefix(number, "-")), "e")
	whole, fraction, _ := strings.Cut(mantissa, ".")
	shift := 0
	if exponent != "" {
		var err error
		if shift, err = strconv.Atoi(exponent); err != nil || shift > most || shift < -most {
			return false
		}
	}
	return len(whole)+shift <= most && len(fraction)-shift <= most
}
