package netlify

import (
	"bytes"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// header is one of the request headers that functions read.
type header int

const (
	headerAuthorization header = iota
	headerCacheControl
	headerIfNoneMatch
	headerAfter
	headerCache
	headerSiteID
	headerCount
)

var headerNames = [headerCount]string{
	headerAuthorization: "authorization", headerCacheControl: "cache-control", headerIfNoneMatch: "if-none-match",
	headerAfter: "x-kv-after", headerCache: "x-kv-cache", headerSiteID: "x-nf-site-id",
}

// headers are the values of those headers, nil where there is none. A request has some twenty more, and keeping all of them took
// longer than everything else that a function does.
type headers [headerCount]*string

// UnmarshalJSONFrom reads an event's headers or multiValueHeaders, whose names are in any case: the first value of each.
func (h *headers) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() == 'n' {
		return d.SkipValue()
	}
	if begin, err := d.ReadToken(); err != nil || begin.Kind() != '{' {
		return wrongHeaders(err)
	}
	for d.PeekKind() != '}' {
		name, err := d.ReadValue()
		if err != nil {
			return wrongHeaders(err)
		}
		which := headerNamed(name)
		if which == headerCount {
			if err := d.SkipValue(); err != nil {
				return wrongHeaders(err)
			}
			continue
		}
		value, err := firstValue(d)
		if err != nil {
			return wrongHeaders(err)
		}
		if h[which] == nil {
			h[which] = value
		}
	}
	_, err := d.ReadToken()
	return err
}

// headerNamed finds a header by the JSON text of its name; headerCount where it is another one.
func headerNamed(text jsontext.Value) header {
	name := bytes.Trim(text, `"`)
	if bytes.IndexByte(name, '\\') >= 0 {
		name, _ = jsontext.AppendUnquote(nil, text)
	}
	for which, known := range headerNames {
		if len(known) == len(name) && bytes.EqualFold(name, []byte(known)) {
			return header(which)
		}
	}
	return headerCount
}

// firstValue reads a string, or an array of them; nil where there is none.
func firstValue(d *jsontext.Decoder) (value *string, err error) {
	switch d.PeekKind() {
	case '"':
		text, err := d.ReadToken()
		if err != nil {
			return nil, err
		}
		s := text.String()
		return &s, nil
	case '[':
		if _, err := d.ReadToken(); err != nil {
			return nil, err
		}
		for d.PeekKind() != ']' {
			next, err := firstValue(d)
			if err != nil {
				return nil, err
			}
			if value == nil {
				value = next
			}
		}
		_, err := d.ReadToken()
		return value, err
	}
	return nil, d.SkipValue()
}

func wrongHeaders(err error) error {
	if err == nil {
		return fmt.Errorf("headers must be an object")
	}
	return fmt.Errorf("read the headers: %w", err)
}
