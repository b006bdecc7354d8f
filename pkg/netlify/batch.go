package netlify

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"netlify-supabase-kv/pkg/kv"
)

type applier interface {
	Apply(ctx context.Context, b kv.Batch) (kv.BatchResult, error)
}

// Batch is the kv-batch endpoint.
func Batch(store applier) Endpoint {
	return Endpoint{Name: "kv-batch", Writes: []string{http.MethodPost}, Run: func(ctx context.Context, r *Request) (*Response, error) {
		batch, err := readBatch(r)
		if err != nil {
			return nil, err
		}
		result, err := store.Apply(ctx, batch)
		if err != nil {
			return nil, err
		}
		return batchResponse(r, batch, result), nil
	}}
}

// readBatch reads the body. Only what makes it impossible to tell what is asked for is an error of the whole batch. An
// operation that asks for what cannot be is the store's to refuse, in its place.
func readBatch(r *Request) (batch kv.Batch, err error) {
	if err := checkNoParams(r); err != nil {
		return batch, err
	}
	d, err := documentOfBody(r, "a field of kv-batch", []string{"operations", "store", "atomic"})
	if err != nil {
		return batch, err
	}
	field := func(name string) part { return part{name, d[name], &err} }
	store := kv.DefaultStore
	if p := field("store"); p.given() {
		store = p.string()
		p.keep(kv.ValidateStore(store))
	}
	batch.Atomic = field("atomic").boolean()
	elements := field("operations").elements()
	if n := len(elements); err == nil && (n < 1 || n > kv.MaxOperations) {
		return batch, kv.Invalid("operations must be 1 to %d, got %d", kv.MaxOperations, n)
	}
	for _, element := range elements {
		batch.Operations = append(batch.Operations, element.operation(store))
	}
	if err != nil {
		return batch, err
	}
	return batch, identify(r, &batch)
}

// operationFields are the fields that an operation may have, beside op, store and key.
var operationFields = map[kv.Action][]string{
	kv.ActionGet:       {},
	kv.ActionPut:       {"value", "base64", "contentType", "metadata", "ttl", "expiresAt", "indexes", "ifMatch", "ifNoneMatch"},
	kv.ActionDelete:    {"ifMatch"},
	kv.ActionTake:      {"ifMatch"},
	kv.ActionIncrement: {"by", "ttl", "expiresAt"},
	kv.ActionCheck:     {"ifMatch", "ifNoneMatch"},
}

// allOperationFields are the fields of all operations.
var allOperationFields = slices.Concat([]string{"op", "store", "key", "by"}, operationFields[kv.ActionPut])

func (p part) operation(store string) kv.Operation {
	fields := p.object(allOperationFields, "op and key", func(name string) {
		p.refuse(": %s is not a field of an operation: did you mean %s?", quoted(name), nearest(name, allOperationFields))
	})
	o := kv.Operation{Action: p.action(fields), Store: store, Key: fields["key"].string(), By: fields["by"].jsonNumber()}
	if fields["store"].given() {
		o.Store = fields["store"].string()
	}
	o.IfMatch, o.IfNoneMatch = fields["ifMatch"].entityTags(), fields["ifNoneMatch"].entityTags()
	if o.Action == kv.ActionCheck && o.IfMatch == nil && o.IfNoneMatch == nil {
		p.refuse(": a check needs ifMatch or ifNoneMatch")
	}
	p.readExpiry(fields, &o)
	if o.Action == kv.ActionPut {
		p.readPut(fields, &o)
	}
	return o
}

// action reads op, and refuses the fields that the operation does not have.
func (p part) action(fields map[string]part) kv.Action {
	action := kv.Action(fields["op"].string())
	known, ok := operationFields[action]
	if !ok {
		fields["op"].refuse(" must be one of %s, got %s", actionNames, fields["op"].got())
		return action
	}
	for _, name := range allOperationFields[3:] { // op, store and key are those of all
		if fields[name].text != nil && !slices.Contains(known, name) {
			p.refuse(": %s is not for %s, which has %s", name, action, strings.Join(slices.Concat([]string{"op", "store", "key"}, known), ", "))
		}
	}
	return action
}

var actionNames = func() string {
	var names []string
	for _, action := range kv.Actions {
		names = append(names, string(action))
	}
	return strings.Join(names, ", ")
}()

// readPut reads the bytes, and what describes them. Null is a value.
func (p part) readPut(fields map[string]part, o *kv.Operation) {
	value, encoded := fields["value"], fields["base64"]
	switch {
	case (value.text != nil) == encoded.given():
		p.refuse(": a put has either value, which is JSON, or base64, which is any bytes")
	case value.text != nil:
		o.Data, o.ContentType = value.text, kv.ContentTypeJSON
	default:
		var err error
		if o.Data, err = base64.StdEncoding.DecodeString(encoded.string()); err != nil {
			encoded.refuse(" must be base64 with padding, in the alphabet with + and /: %v", err)
		}
	}
	if given := fields["contentType"]; given.given() {
		text, err := parseContentType(given.position, given.string())
		given.keep(err)
		o.ContentType = cmp.Or(text, o.ContentType)
	}
	if given := fields["metadata"]; given.given() {
		text, err := compactMetadata(given.position, string(given.text))
		given.keep(err)
		o.Metadata = text
	}
	if given := fields["indexes"]; given.given() {
		o.Indexes = list(given, part.index)
	}
}

func (p part) readExpiry(fields map[string]part, o *kv.Operation) {
	ttl, expires := fields["ttl"], fields["expiresAt"]
	var err error
	switch {
	case ttl.given() && expires.given():
		p.refuse(": ttl and expiresAt both say when the entry expires: send one of them")
	case ttl.given():
		o.TTL, err = parseTTL(ttl.position, string(ttl.text))
	case expires.given():
		o.Expires, err = parseExpires(expires.position, expires.string())
	}
	p.keep(err)
}

// jsonNumber is the text of a number; "" if it is absent.
func (p part) jsonNumber() string {
	if p.given() && p.text.Kind() != '0' {
		p.refuse(" must be a number, got %s", p.got())
	}
	if !p.given() {
		return ""
	}
	return string(p.text)
}

// boolean is false if it is absent.
func (p part) boolean() bool {
	if p.given() && string(p.text) != "true" && string(p.text) != "false" {
		p.refuse(" must be true or false, got %s", p.got())
	}
	return string(p.text) == "true"
}

// entityTags reads a string like the header If-Match; nil if it is absent.
func (p part) entityTags() []string {
	if !p.given() {
		return nil
	}
	text := p.string()
	if strings.Trim(text, " \t") == "" {
		p.refuse(" must be * or an ETag, got %s", p.got())
	}
	tags, err := entityTags(p.position, text)
	p.keep(err)
	return tags
}

// batchResponse has the results in the places of their operations. If an atomic batch failed, the status and the error
// are those of the first operation that failed.
func batchResponse(r *Request, batch kv.Batch, result kv.BatchResult) *Response {
	if batch.Atomic && result.Failed >= 0 {
		failed := *result.Results[result.Failed].Err
		failed.Message = fmt.Sprintf("nothing was applied, because operations[%d] failed: %s", result.Failed, failed.Message)
		response := errorResponse(&failed, r.now())
		response.Body = appendResults(append(bytes.TrimSuffix(response.Body, []byte("}")), ','), batch, result)
		response.Body = append(response.Body, '}')
		return response
	}
	body := appendResults([]byte("{"), batch, result)
	body = append(kv.AppendString(append(body, `,"timestamp":`...), r.Timestamp()), '}')
	response := &Response{Status: http.StatusOK, Body: body}
	if result.Version != "" {
		response.Header = versionHeader(kv.Written{Version: result.Version})
	}
	return response
}

func appendResults(body []byte, batch kv.Batch, result kv.BatchResult) []byte {
	size := 0
	for _, one := range result.Results {
		size += base64.StdEncoding.EncodedLen(len(one.Data)) + 2*len(one.Metadata) + 200
	}
	body = append(slices.Grow(body, size), `"results":[`...)
	for i, one := range result.Results {
		if i > 0 {
			body = append(body, ',')
		}
		body = appendResult(body, batch.Operations[i], one)
	}
	return append(body, ']')
}

// appendResult appends what a single request would have been answered.
func appendResult(body []byte, o kv.Operation, result kv.OperationResult) []byte {
	body = strconv.AppendInt(append(body, `{"status":`...), int64(operationStatus(o, result)), 10)
	if e := result.Err; e != nil {
		body = kv.AppendString(append(body, `,"error":`...), e.Message)
		body = kv.AppendString(append(body, `,"code":`...), string(e.Code))
	}
	if o.Action == kv.ActionDelete && result.Err == nil {
		return append(strconv.AppendBool(append(body, `,"deleted":`...), result.Existed), '}')
	}
	if result.ETag != "" {
		body = kv.AppendString(append(body, `,"etag":`...), result.ETag)
	}
	if result.Err == nil {
		body = appendContent(body, o, result)
	}
	return append(body, '}')
}

func operationStatus(o kv.Operation, result kv.OperationResult) int {
	creates := o.Action == kv.ActionPut || o.Action == kv.ActionIncrement
	switch {
	case result.Err != nil:
		return statusOf[result.Err.Code]
	case creates && !result.Existed:
		return http.StatusCreated
	}
	return http.StatusOK
}

// appendContent appends what an operation read, and when the entry expires.
func appendContent(body []byte, o kv.Operation, result kv.OperationResult) []byte {
	reads := o.Action == kv.ActionGet || o.Action == kv.ActionTake
	switch {
	case o.Action == kv.ActionIncrement, reads && result.IsJSON && (o.Store == kv.DefaultStore || isJSONType(result.ContentType)):
		body = append(append(body, `,"value":`...), result.Data...)
	case reads:
		body = base64.StdEncoding.AppendEncode(append(body, `,"base64":"`...), result.Data)
		body = append(body, '"')
	}
	if reads {
		body = kv.AppendString(append(body, `,"contentType":`...), result.ContentType)
		body = kv.AppendString(append(body, `,"updatedAt":`...), timestamp(result.Updated))
		if result.Metadata != "" {
			body = append(append(body, `,"metadata":`...), result.Metadata...)
		}
	}
	if !result.Expires.IsZero() && o.Action != kv.ActionCheck {
		body = kv.AppendString(append(body, `,"expiresAt":`...), timestamp(result.Expires))
	}
	return body
}
