package netlify

import (
	"context"
	"net/http"
	"strconv"

	"netlify-supabase-kv/pkg/kv"
)

type lister interface {
	List(ctx context.Context, q kv.ListQuery, f kv.Freshness) (kv.ReadResult, error)
	Stats() kv.CacheStats
}

// ListCache is how kv-list caches. Shipped clients list right after they write, and expect to see it.
var ListCache = CacheDefaults{MaxStale: 0, Warm: kv.WarmLists}

// List is the kv-list endpoint. Without limit, offset or cursor it answers with every matching key, as it always has.
func List(reader lister) Endpoint {
	return Endpoint{Name: "kv-list", Methods: []string{http.MethodGet}, Reads: true, Stats: reader.Stats, Run: func(ctx context.Context, r *Request) (*Response, error) {
		q, err := listQuery(r)
		if err != nil {
			return nil, err
		}
		result, err := reader.List(ctx, q, freshness(r))
		if err != nil {
			return nil, err
		}
		return cached(r, result, &Response{Status: http.StatusOK, Body: []byte(result.Body)}), nil
	}}
}

// ListBlob is the kv-list-blob endpoint: kv-list that always reads Netlify Blobs.
func ListBlob(store kv.Store) Endpoint {
	endpoint := List(kv.Uncached(store))
	endpoint.Name = "kv-list-blob"
	return endpoint
}

func listQuery(r *Request) (q kv.ListQuery, err error) {
	q.Prefix = r.Param("prefix")
	q.Values = r.Param("includeValues") == "true"
	q.Indexes, q.IndexKeys = r.Params("index"), r.Params("indexKey")
	if q.Limit, err = number(r, "limit", 1, kv.MaxLimit); err != nil {
		return q, err
	}
	if q.Offset, err = number(r, "offset", 0, maxOffset); err != nil {
		return q, err
	}
	if q.Order, err = kv.ParseOrder(r.Param("sortBy"), r.Param("sortOrder")); err != nil {
		return q, err
	}
	if cursor := r.Param("cursor"); cursor != "" {
		if q.After, err = kv.ParseCursor(cursor); err != nil {
			return q, err
		}
	}
	return q, q.Validate()
}

// number reads a parameter of decimal digits; nil if it is absent.
func number(r *Request, name string, least, most int) (*int, error) {
	text := r.Param(name)
	if text == "" {
		return nil, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || int(n) < least || int(n) > most {
		return nil, kv.Invalid("%s must be a whole number from %d to %d, got %q", name, least, most, text)
	}
	value := int(n)
	return &value, nil
}
