package kv

import (
	"encoding/json"
	"mime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// writes reports whether the batch may change something.
func (b Batch) writes() bool {
	return slices.ContainsFunc(b.Operations, func(o Operation) bool { return o.Action != ActionGet && o.Action != ActionCheck })
}

func (b Batch) validate() error {
	if len(b.Operations) < 1 || len(b.Operations) > MaxOperations {
		return Invalid("a batch must have 1 to %d operations, got %d", MaxOperations, len(b.Operations))
	}
	seen := make(map[[2]string]int, len(b.Operations))
	for i, o := range b.Operations {
		at, twice := seen[[2]string{o.Store, o.Key}]
		if b.Atomic && twice {
			return Invalid("operations[%d] is on the key of operations[%d]: an atomic batch may have one operation for each key", i, at)
		}
		seen[[2]string{o.Store, o.Key}] = i
	}
	return nil
}

// Validate checks an operation against the limits, and returns the error that it would fail with.
func (o Operation) Validate() error {
	for _, check := range []func() error{
		func() error { return ValidateStore(o.Store) },
		func() error { return ValidateKey(o.Key) },
		o.validateData, o.validateMetadata, o.validateExpiry, o.validateIndexes, o.validateBy,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (o Operation) validateData() error {
	if o.Action != ActionPut {
		return nil
	}
	switch valid := utf8.Valid(o.Data) && jsontext.Value(o.Data).IsValid(lenient); {
	case len(o.Data) > MaxDataBytes:
		return &Error{Code: CodeTooLarge, Message: "the value must be at most 4,500,000 bytes: keep a larger one in parts"}
	case len(o.ContentType) > MaxContentTypeBytes || !isText(o.ContentType) || strings.ContainsAny(o.ContentType, "\r\n"):
		return Invalid("the content type must be at most %d bytes of text", MaxContentTypeBytes)
	case !valid && o.Store == DefaultStore:
		return &Error{Code: CodeNotJSON, Message: "the store kv takes JSON only: use another store for other bytes"}
	case !valid && isJSONType(o.ContentType):
		return Invalid("the value must be JSON, as its content type says")
	case o.Store == DefaultStore && depth(string(o.Data)) > MaxDepth:
		return &Error{Code: CodeUnstorableValue, Message: "the value is nested deeper than 2,000 levels"}
	}
	return nil
}

func (o Operation) validateMetadata() error {
	switch text := jsontext.Value(o.Metadata); {
	case o.Metadata == "":
	case len(o.Metadata) > MaxMetadataBytes:
		return Invalid("metadata must be at most %d bytes of JSON, got %d", MaxMetadataBytes, len(o.Metadata))
	case !isText(o.Metadata) || !text.IsValid(lenient) || text.Kind() != '{':
		return Invalid("metadata must be a JSON object")
	case depth(o.Metadata) > MaxDepth:
		return &Error{Code: CodeUnstorableValue, Message: "metadata is nested deeper than 2,000 levels"}
	}
	return nil
}

func (o Operation) validateExpiry() error {
	switch {
	case o.TTL != 0 && !o.Expires.IsZero():
		return Invalid("a time to live and a time of expiry cannot be combined: give one of them")
	case o.TTL != 0 && (o.TTL < MinTTL || o.TTL > MaxTTL):
		return Invalid("the time to live must be 1 to %d seconds", int64(MaxTTL/time.Second))
	case !o.Expires.IsZero() && !isTime(o.Expires.UnixMicro()):
		return Invalid("the time of expiry must be in the years 1 to 9999")
	}
	return nil
}

func (o Operation) validateIndexes() error {
	if len(o.Indexes) > MaxIndexes {
		return Invalid("indexes must be at most %d, got %d", MaxIndexes, len(o.Indexes))
	}
	for i, index := range o.Indexes {
		if err := index.validate(o.Key); err != nil {
			return Invalid("indexes[%d]: %v", i, err)
		}
	}
	return nil
}

func (o Operation) validateBy() error {
	if o.By == "" {
		return nil
	}
	if !isNumberText(o.By) || !json.Valid([]byte(o.By)) || !isNumeric(o.By, MaxIncrementDigits) {
		return Invalid("by must be a JSON number with at most %d digits before and after the point", MaxIncrementDigits)
	}
	return nil
}

// isJSON reports whether the database can keep bytes as JSON, which it can query.
func isJSON(data []byte) bool {
	return utf8.Valid(data) && jsontext.Value(data).IsValid(lenient) && depth(string(data)) <= MaxDepth
}

// CompactMetadata returns the text of a JSON object without space between its parts, which does not count, and false for
// any other text.
func CompactMetadata(text string) (compact string, ok bool) {
	out, err := jsontext.AppendFormat(nil, []byte(text), lenient, jsontext.PreserveRawStrings(true))
	if err != nil || !isText(text) || jsontext.Value(out).Kind() != '{' {
		return "", false
	}
	return string(out), true
}

// isJSONType reports whether a content type is application/json, with any parameters.
func isJSONType(contentType string) bool {
	mediaType, _, err := mime.ParseMediaType(contentType)
	return err == nil && mediaType == ContentTypeJSON
}
