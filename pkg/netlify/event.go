package netlify

import (
	"fmt"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// asEver makes the next version of encoding/json, which reads a body of a megabyte in a sixth of the time, take what the present one
// takes, but for names in another case, which no event has.
var legacyJSON = jsonv2.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// decodeEvent reads an event.
func decodeEvent(event []byte, r *Request) error { return jsonv2.Unmarshal(event, r, legacyJSON) }

// params are query parameters: nil for one that is given as null. Read without reflection, which took as long as the rest of the
// event where caches are cold.
type params map[string][]string

// UnmarshalJSONFrom reads an event's queryStringParameters or multiValueQueryStringParameters.
func (p *params) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() == 'n' {
		*p = nil
		return d.SkipValue()
	}
	if *p == nil {
		*p = params{}
	}
	return readMembers(d, func(name jsontext.Value) error {
		text, _ := jsontext.AppendUnquote(nil, name) // an error says that it put U+FFFD where half a surrogate pair was
		values, err := readParam(d)
		(*p)[string(text)] = values
		return err
	})
}

// readParam reads what a query parameter may be: a string, an array of strings, or null.
func readParam(d *jsontext.Decoder) ([]string, error) {
	switch d.PeekKind() {
	case '"', '[':
		values := []string{}
		err := eachElement(d, func() error {
			if kind := d.PeekKind(); kind != '"' && kind != 'n' {
				return fmt.Errorf("a query parameter must be a string, got %v", kind)
			}
			value, err := readString(d)
			if err == nil && value != nil {
				values = append(values, *value)
			}
			return err
		})
		return values, err
	case 'n':
		return nil, d.SkipValue()
	}
	return nil, fmt.Errorf("a query parameter must be a string, got %v", d.PeekKind())
}

// readMembers reads an object: the name of each member, valid until the value is read, which is left to read.
func readMembers(d *jsontext.Decoder, read func(name jsontext.Value) error) error {
	if begin, err := d.ReadToken(); err != nil {
		return err
	} else if begin.Kind() != '{' {
		return fmt.Errorf("expected an object, got %v", begin.Kind())
	}
	for d.PeekKind() != '}' {
		name, err := d.ReadValue()
		if err != nil {
			return err
		}
		if err := read(name); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

// eachElement has every element of an array read, or the one value that is no array.
func eachElement(d *jsontext.Decoder, read func() error) error {
	if d.PeekKind() != '[' {
		return read()
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != ']' {
		if err := read(); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

// readString reads a string; nil where the value is something else.
func readString(d *jsontext.Decoder) (*string, error) {
	if d.PeekKind() != '"' {
		return nil, d.SkipValue()
	}
	text, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	value := text.String()
	return &value, nil
}
