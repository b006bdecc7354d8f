package netlify

import (
	"bytes"

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
	headerRequestID
	headerCount
)

var headerNames = [headerCount]string{
	headerAuthorization: "authorization", headerCacheControl: "cache-control", headerIfNoneMatch: "if-none-match",
	headerAfter: "x-kv-after", headerCache: "x-kv-cache", headerSiteID: "x-nf-site-id",
	headerRequestID: "x-nf-request-id",
}

// headers are the values of those headers, nil where there is none. A request has some twenty more, and keeping all of them took
// longer than everything else that a function does.
type headers [headerCount]*string

// UnmarshalJSONFrom reads an event's headers or multiValueHeaders, whose names are in any case: the first value of each.
func (h *headers) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() == 'n' {
		return d.SkipValue()
	}
	return readMembers(d, func(name jsontext.Value) error {
		which := headerNamed(name)
		if which == headerCount {
			return d.SkipValue()
		}
		var first *string
		err := eachElement(d, func() error {
			value, err := readString(d)
			if first == nil {
				first = value
			}
			return err
		})
		if first != nil {
			h[which] = first
		}
		return err
	})
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
