package netlify

import (
	"context"
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	jsonv2 "github.com/go-json-experiment/json"

	"netlify-supabase-kv/pkg/kv"
)

// This file holds what kv-blobs-api and kv-storage-api share: the protocols of other clients, over kv-entries' stores.

const plainText = "text/plain; charset=utf-8"

// percentDecode decodes text as browsers do: a % that two hexadecimal digits do not follow is itself.
func percentDecode(text string) string {
	if decoded, err := url.PathUnescape(text); err == nil {
		return decoded
	}
	var out strings.Builder
	for text != "" {
		length := 1
		if text[0] == '%' && len(text) >= 3 {
			length = 3
		}
		decoded, err := url.PathUnescape(text[:length])
		if err != nil {
			length, decoded = 1, text[:1]
		}
		out.WriteString(decoded)
		text = text[length:]
	}
	return out.String()
}

// hasQuery reports whether the address has a query, if only an empty parameter.
func hasQuery(r *Request) bool {
	return strings.Contains(r.RawURL, "?") || len(r.QueryStringParameters)+len(r.MultiValueQueryStringParameters) > 0
}

// putOperation returns the put that a request describes, without metadata and expiry.
func putOperation(r *Request, store, key string) (op kv.Operation, err error) {
	op = kv.Operation{Action: kv.ActionPut, Store: store, Key: key}
	if op.Precondition, err = precondition(r); err != nil {
		return op, err
	}
	op.Data, err = r.Bytes()
	if sent, invalid := contentType(r); invalid == nil && len(sent) <= kv.MaxContentTypeBytes { // a Blob's may be any text
		op.ContentType = keptType(sent, op.Data)
	}
	return op, err
}

// keptType returns the content type that an entry is kept with. These clients' protocols have none, but fetch calls
// every string text/plain, and ofetch calls it application/json. So these two are replaced by what the bytes are,
// which lets kv-query look into JSON; any other type is kept.
func keptType(sent string, data []byte) string {
	kind, _, _ := mime.ParseMediaType(sent)
	switch {
	case kind != "text/plain" && kind != kv.ContentTypeJSON:
		return sent
	case !utf8.Valid(data):
		return kv.ContentTypeBytes
	case json.Valid(data):
		return kv.ContentTypeJSON
	}
	return plainText
}

// entryResponse returns the response to a read of an entry, 304 if the caller has it.
func entryResponse(r *Request, result kv.EntryResult) *Response {
	response := &Response{Status: http.StatusOK, Header: entryHeader(result.EntryInfo), Body: result.Data}
	header := described(result.ReadResult, response)
	if matches(r.Headers.IfNoneMatch, header["ETag"]) {
		response.Status, response.Body = http.StatusNotModified, nil
	}
	return response
}

// applyOne applies a single operation. The error is that of the operation, or of the whole.
func applyOne(ctx context.Context, entries kv.Entries, op kv.Operation) (kv.OperationResult, string, error) {
	batch, err := entries.Apply(ctx, kv.Batch{Operations: []kv.Operation{op}})
	if err != nil {
		return kv.OperationResult{}, "", err
	}
	result := batch.Results[0]
	if result.Err != nil {
		return result, "", result.Err
	}
	return result, batch.Version, nil
}

// writtenHeaders describe a write that was applied.
func writtenHeaders(op kv.Operation, result kv.OperationResult, version string) map[string]string {
	header := map[string]string{"X-KV-Version": version}
	if op.Action == kv.ActionPut {
		header["ETag"] = strongTag(result.ETag)
	}
	return header
}

// listedEntries is a page of [kv.Entries.ListEntries].
type listedEntries struct {
	Entries []struct {
		Key       string `json:"key"`
		ETag      string `json:"etag"`
		Size      int64  `json:"size"`
		UpdatedAt string `json:"updatedAt"`
	} `json:"entries"`
	Prefixes   []string `json:"prefixes"`
	Pagination struct {
		NextCursor string `json:"nextCursor"`
	} `json:"pagination"`

	next *kv.Cursor // nil at the end
}

// listEntries returns a page of entries from the database.
func listEntries(ctx context.Context, entries kv.Entries, q kv.EntryQuery) (page listedEntries, err error) {
	result, err := entries.ListEntries(ctx, q, kv.Freshness{})
	if err != nil {
		return page, err
	}
	if err := jsonv2.Unmarshal([]byte(result.Body), &page); err != nil {
		return page, err
	}
	if cursor := page.Pagination.NextCursor; cursor != "" {
		page.next, err = kv.ParseCursor(cursor)
	}
	return page, err
}

// removePage removes the entries of a page whose keys are meant. It returns how many there still were, and where the
// next page begins, nil at the end.
func removePage(ctx context.Context, entries kv.Entries, q kv.EntryQuery, meant func(key string) bool) (removed int, next *kv.Cursor, err error) {
	page, err := listEntries(ctx, entries, q)
	if err != nil {
		return 0, nil, err
	}
	var batch kv.Batch
	for _, e := range page.Entries {
		if meant(e.Key) {
			batch.Operations = append(batch.Operations, kv.Operation{Action: kv.ActionDelete, Store: q.Store, Key: e.Key})
		}
	}
	if len(batch.Operations) == 0 {
		return 0, page.next, nil
	}
	applied, err := entries.Apply(ctx, batch)
	if err != nil {
		return 0, nil, err
	}
	for _, result := range applied.Results {
		switch {
		case result.Err != nil:
			return 0, nil, result.Err
		case result.Existed:
			removed++
		}
	}
	return removed, page.next, nil
}
