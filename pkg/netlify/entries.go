package netlify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"netlify-supabase-kv/pkg/kv"
)

// Entries is the kv-entries endpoint: an entry of any bytes, a store, or all stores, whichever the address names.
func Entries(store kv.Entries) Endpoint {
	e := entries{store}
	return Endpoint{
		Name: "kv-entries", Reads: []string{http.MethodGet}, Writes: []string{http.MethodPut, http.MethodDelete}, Stats: statsOf(store),
		Run: func(ctx context.Context, r *Request) (*Response, error) {
			at, err := resourceOf(r)
			if err != nil {
				return nil, err
			}
			if r.HTTPMethod != http.MethodPut {
				if err := checkNoBody(r); err != nil {
					return nil, err
				}
			}
			switch {
			case at.hasKey:
				return e.entry(ctx, r, at)
			case r.HTTPMethod == http.MethodGet && at.hasStore:
				return e.list(ctx, r, at.store)
			case r.HTTPMethod == http.MethodGet:
				return e.stores(ctx, r)
			case r.HTTPMethod == http.MethodDelete && at.hasStore:
				return e.clear(ctx, r, at.store)
			}
			return nil, kv.Invalid("a %s needs a store and a key: /api/kv/entries/<store>/<key>", r.HTTPMethod)
		},
	}
}

// statsOf returns the counters of a store that has a cache; nil without one.
func statsOf(store kv.Entries) func() kv.CacheStats {
	if cache, ok := store.(interface{ Stats() kv.CacheStats }); ok {
		return cache.Stats
	}
	return nil
}

type entries struct{ store kv.Entries }

func (e entries) entry(ctx context.Context, r *Request, at resource) (*Response, error) {
	if names := paramNames(r); len(names) > 0 {
		return nil, kv.Invalid("%s is given as a parameter: headers describe an entry, such as Content-Type, X-KV-TTL, X-KV-Metadata and If-Match", quoted(names[0]))
	}
	condition, err := precondition(r)
	if err != nil {
		return nil, err
	}
	switch r.HTTPMethod {
	case http.MethodGet:
		return e.get(ctx, r, at, condition)
	case http.MethodPut:
		return e.put(ctx, r, at, condition)
	}
	return e.delete(ctx, r, at, condition)
}

func (e entries) get(ctx context.Context, r *Request, at resource, condition kv.Precondition) (*Response, error) {
	result, err := e.store.GetEntry(ctx, at.store, at.key, freshness(r))
	var response *Response
	switch {
	case kv.CodeOf(err) == kv.CodeNotFound:
		response = errorResponse(err, r.now())
	case err != nil:
		return nil, err
	case condition.IfMatch != nil && !hasTag(condition.IfMatch, result.ETag):
		response = operationFailed(r, &kv.Error{Code: kv.CodeConditionFailed, Message: "the condition does not hold of the present entry"}, result.ETag)
	case condition.IfNoneMatch != nil && hasTag(condition.IfNoneMatch, result.ETag):
		response = &Response{Status: http.StatusNotModified, Header: entryHeader(result.EntryInfo)}
	default:
		response = &Response{Status: http.StatusOK, Header: entryHeader(result.EntryInfo), Body: result.Data}
	}
	described(result.ReadResult, response)
	return response, nil
}

func hasTag(tags []string, etag string) bool {
	return slices.Contains(tags, "*") || slices.Contains(tags, etag)
}

// operationFailed returns the response to an operation that was not applied, with the ETag of the present entry, if
// there is one.
func operationFailed(r *Request, err error, etag string) *Response {
	response := errorResponse(err, r.now())
	if etag != "" {
		response.Header["ETag"] = strongTag(etag)
	}
	return response
}

func (e entries) put(ctx context.Context, r *Request, at resource, condition kv.Precondition) (*Response, error) {
	operation := kv.Operation{Action: kv.ActionPut, Store: at.store, Key: at.key, Precondition: condition}
	var err error
	if operation.Data, err = r.Bytes(); err != nil {
		return nil, err
	}
	if operation.ContentType, err = contentType(r); err != nil {
		return nil, err
	}
	if operation.Metadata, err = metadataHeader(r); err != nil {
		return nil, err
	}
	if operation.TTL, operation.Expires, err = expiry(r); err != nil {
		return nil, err
	}
	result, response, err := e.apply(ctx, r, operation)
	if err != nil || response.Status != http.StatusOK {
		return response, err
	}
	if !result.Existed {
		response.Status = http.StatusCreated
	}
	response.Header["ETag"] = strongTag(result.ETag)
	if !result.Expires.IsZero() {
		response.Header["X-KV-Expires"] = timestamp(result.Expires)
	}
	response.Body = written(r, at, nil)
	return response, nil
}

func (e entries) delete(ctx context.Context, r *Request, at resource, condition kv.Precondition) (*Response, error) {
	operation := kv.Operation{Action: kv.ActionDelete, Store: at.store, Key: at.key, Precondition: condition}
	result, response, err := e.apply(ctx, r, operation)
	if err != nil || response.Status != http.StatusOK {
		return response, err
	}
	response.Body = written(r, at, strconv.AppendBool([]byte(`,"deleted":`), result.Existed))
	return response, nil
}

// apply applies a single operation. The response is that of an error, or 200 without a body.
func (e entries) apply(ctx context.Context, r *Request, operation kv.Operation) (kv.OperationResult, *Response, error) {
	batch := kv.Batch{Operations: []kv.Operation{operation}}
	if err := identify(r, &batch); err != nil {
		return kv.OperationResult{}, nil, err
	}
	applied, err := e.store.Apply(ctx, batch)
	if err != nil {
		return kv.OperationResult{}, nil, err
	}
	result := applied.Results[0]
	if result.Err != nil {
		return result, operationFailed(r, result.Err, result.ETag), nil
	}
	return result, &Response{Status: http.StatusOK, Header: versionHeader(kv.Written{Version: applied.Version})}, nil
}

// written returns the body of a write's response, with more fields.
func written(r *Request, at resource, more []byte) []byte {
	body := kv.AppendString([]byte(`{"ok":true,"store":`), at.store)
	body = append(kv.AppendString(append(body, `,"key":`...), at.key), more...)
	return append(kv.AppendString(append(body, `,"timestamp":`...), r.Timestamp()), '}')
}

// identify reads Idempotency-Key. What tells batches with one key apart is all that they ask for.
func identify(r *Request, batch *kv.Batch) error {
	text := strings.Trim(r.Headers.IdempotencyKey, " \t")
	if text == "" {
		return nil
	}
	var err error
	if batch.Idempotency, err = uuid.Parse(text); err != nil || len(text) != 36 || batch.Idempotency == uuid.Nil {
		return kv.Invalid("Idempotency-Key must be a UUID, as in 6f1c1c0e-2b1d-4a53-9d0e-0c6a3b0f7a11, got %s", excerpt([]byte(text)))
	}
	all, err := json.Marshal([]any{batch.Atomic, batch.Operations})
	if err != nil {
		return fmt.Errorf("encode a batch: %w", err)
	}
	sum := sha256.Sum256(all)
	batch.Digest = hex.EncodeToString(sum[:])
	return nil
}

func (e entries) list(ctx context.Context, r *Request, store string) (*Response, error) {
	q, err := entryQuery(r, store)
	if err != nil {
		return nil, err
	}
	result, err := e.store.ListEntries(ctx, q, freshness(r))
	if err != nil {
		return nil, err
	}
	return cached(r, result, &Response{Status: http.StatusOK, Body: []byte(result.Body)}), nil
}

func entryQuery(r *Request, store string) (q kv.EntryQuery, err error) {
	q = kv.EntryQuery{Store: store, Prefix: r.Param("prefix"), Delimiter: r.Param("delimiter")}
	if err := checkParams(r, "a parameter of a list", "prefix", "limit", "cursor", "delimiter", "metadata"); err != nil {
		return q, err
	}
	limit, err := number(r, "limit", 1, kv.MaxEntryLimit)
	if err != nil {
		return q, err
	}
	if limit != nil {
		q.Limit = *limit
	}
	metadata, err := oneOf(r, "metadata", "false", "true")
	if err != nil {
		return q, err
	}
	q.Metadata = metadata == "true"
	if cursor := r.Param("cursor"); cursor != "" {
		q.After, err = kv.ParseCursor(cursor)
	}
	return q, err
}

// checkParams refuses parameters that are not known, and those that are given twice.
func checkParams(r *Request, what string, known ...string) error {
	if err := checkNames(what, paramNames(r), known); err != nil {
		return err
	}
	for _, name := range known {
		if err := checkOnce(r, name); err != nil {
			return err
		}
	}
	return nil
}

func (e entries) clear(ctx context.Context, r *Request, store string) (*Response, error) {
	if err := checkParams(r, "a parameter of a DELETE of many entries", "prefix", "confirm"); err != nil {
		return nil, err
	}
	if r.Headers.IfMatch != "" || r.Headers.IfNoneMatch != "" {
		return nil, kv.Invalid("If-Match and If-None-Match are about one entry, and this DELETE is of many: confirm=<their number> is its condition")
	}
	confirm, err := number(r, "confirm", 0, maxOffset)
	if err != nil {
		return nil, err
	}
	if confirm == nil {
		confirm = new(-1)
	}
	prefix := r.Param("prefix")
	removed, version, err := e.store.Clear(ctx, store, prefix, *confirm)
	if err != nil {
		return nil, err
	}
	body := kv.AppendString([]byte(`{"ok":true,"store":`), store)
	body = kv.AppendString(append(body, `,"prefix":`...), prefix)
	body = strconv.AppendInt(append(body, `,"deleted":`...), int64(removed), 10)
	body = kv.AppendString(append(body, `,"timestamp":`...), r.Timestamp())
	return &Response{Status: http.StatusOK, Header: versionHeader(kv.Written{Version: version}), Body: append(body, '}')}, nil
}

func (e entries) stores(ctx context.Context, r *Request) (*Response, error) {
	for _, name := range paramNames(r) {
		return nil, kv.Invalid("%s is given as a parameter: the list of stores has none", quoted(name))
	}
	stores, err := e.store.ListStores(ctx)
	if err != nil {
		return nil, err
	}
	body := []byte(`{"stores":[`)
	for i, s := range stores {
		if i > 0 {
			body = append(body, ',')
		}
		body = kv.AppendString(append(body, `{"store":`...), s.Store)
		body = strconv.AppendInt(append(body, `,"count":`...), int64(s.Count), 10)
		body = append(strconv.AppendBool(append(body, `,"more":`...), s.More), '}')
	}
	body = kv.AppendString(append(body, `],"timestamp":`...), r.Timestamp())
	return &Response{Status: http.StatusOK, Body: append(body, '}')}, nil
}
