package netlify

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"netlify-supabase-kv/pkg/kv"
)

// StorageAPI is the kv-storage-api endpoint: the requests of unstorage's http driver, answered by the stores of
// kv-entries. It answers as unstorage's own server does, with conditions and any expiry in addition.
func StorageAPI(entries kv.Entries) Endpoint {
	api := storageAPI{entries}
	return Endpoint{Name: "kv-storage-api", Reads: []string{http.MethodGet}, Writes: []string{http.MethodPut, http.MethodDelete}, Stats: statsOf(entries), Run: api.run}
}

type storageAPI struct{ entries kv.Entries }

func (s storageAPI) run(ctx context.Context, r *Request) (*Response, error) {
	to, err := parseStorageAddress(r.escapedPath())
	if err != nil {
		return nil, err
	}
	switch {
	case hasQuery(r):
		return nil, kv.Invalid("the address must not have a query: unstorage cuts it off a key itself")
	case to.isBase && r.head:
		return nil, kv.Invalid("HEAD needs a key, and this address is that of a base, which ends in : or /")
	case to.isBase && r.HTTPMethod == http.MethodGet:
		return s.keys(ctx, to)
	case to.isBase && r.HTTPMethod == http.MethodDelete:
		return s.clear(ctx, to)
	case to.isBase:
		return nil, kv.Invalid("%s needs a key, and this address is that of a base, which ends in : or /", r.HTTPMethod)
	case r.HTTPMethod == http.MethodGet:
		return s.get(ctx, r, to)
	case r.HTTPMethod == http.MethodPut:
		return s.set(ctx, r, to)
	}
	return s.remove(ctx, r, to)
}

// get answers getItem with text, which unstorage parses, and getItemRaw with the entry as it is.
func (s storageAPI) get(ctx context.Context, r *Request, to storageAddress) (*Response, error) {
	result, err := s.entries.GetEntry(ctx, to.store, to.key, freshness(r))
	if err != nil {
		return nil, err
	}
	response := entryResponse(r, result)
	if r.Headers.Accept != kv.ContentTypeBytes && utf8.Valid(result.Data) {
		// Given JSON, the driver would parse it, and unstorage what comes of that once more: "123" in quotes would be
		// a number.
		response.Header["Content-Type"] = plainText
	}
	if !result.Expires.IsZero() {
		response.Header["X-TTL"] = strconv.FormatInt(secondsUntil(result.Expires, r.now()), 10)
	}
	return response, nil
}

// secondsUntil rounds up, since unstorage takes 0 for no expiry.
func secondsUntil(expires, now time.Time) int64 {
	return max(1, int64((expires.Sub(now)+time.Second-1)/time.Second))
}

func (s storageAPI) set(ctx context.Context, r *Request, to storageAddress) (*Response, error) {
	op, err := putOperation(r, to.store, to.key)
	if err != nil {
		return nil, err
	}
	if r.Headers.TTL != "" {
		if op.TTL, err = parseTTL("x-ttl", strings.TrimSpace(r.Headers.TTL)); err != nil {
			return nil, err
		}
	}
	return s.apply(ctx, op)
}

func (s storageAPI) remove(ctx context.Context, r *Request, to storageAddress) (*Response, error) {
	condition, err := precondition(r)
	if err != nil {
		return nil, err
	}
	return s.apply(ctx, kv.Operation{Action: kv.ActionDelete, Store: to.store, Key: to.key, Precondition: condition})
}

func (s storageAPI) apply(ctx context.Context, op kv.Operation) (*Response, error) {
	result, version, err := applyOne(ctx, s.entries, op)
	if err != nil {
		return nil, err
	}
	return okResponse(writtenHeaders(op, result, version)), nil
}

// okResponse is what unstorage's server answers to a write.
func okResponse(header map[string]string) *Response {
	header["Content-Type"] = plainText
	return &Response{Status: http.StatusOK, Header: header, Body: []byte("OK")}
}

// keys answers getKeys with all keys under the base, in one response as the protocol has it. Keys that unstorage
// cannot ask for, and those that end in $, where it keeps metadata, are left out.
func (s storageAPI) keys(ctx context.Context, to storageAddress) (*Response, error) {
	body, q := []byte{'['}, kv.EntryQuery{Store: to.store, Prefix: to.key}
	for {
		page, err := listEntries(ctx, s.entries, q)
		if err != nil {
			return nil, err
		}
		for _, e := range page.Entries {
			if isStorageKey(e.Key) && !strings.HasSuffix(e.Key, "$") {
				if len(body) > 1 {
					body = append(body, ',')
				}
				body = kv.AppendString(body, strings.ReplaceAll(e.Key, ":", "/"))
			}
		}
		switch q.After = page.next; {
		case len(body) > kv.MaxResponseBytes:
			return nil, &kv.Error{Code: kv.CodeTooLarge, Message: "the keys do not fit into the 6 MB of a response: ask for the keys of a longer base, or page with kv-entries"}
		case q.After == nil:
			return &Response{Status: http.StatusOK, Body: append(body, ']')}, nil
		}
	}
}

// clear removes all keys under the base that unstorage can ask for.
func (s storageAPI) clear(ctx context.Context, to storageAddress) (*Response, error) {
	q := kv.EntryQuery{Store: to.store, Prefix: to.key}
	for {
		_, next, err := removePage(ctx, s.entries, q, isStorageKey)
		switch q.After = next; {
		case err != nil:
			return nil, err
		case next == nil:
			return okResponse(map[string]string{}), nil
		}
	}
}
