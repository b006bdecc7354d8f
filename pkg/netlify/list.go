package netlify

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"netlify-supabase-kv/pkg/kv"
)

type lister interface {
	List(ctx context.Context, q kv.ListQuery, f kv.Freshness) (kv.ReadResult, error)
	Stats() kv.CacheStats
}

// ListCache are the defaults of kv-list. Shipped clients list right after they write, and expect to see the write.
var ListCache = CacheDefaults{MaxStale: 0, Warm: kv.WarmLists}

// List is the kv-list endpoint. Without limit, offset or cursor it returns every matching key.
func List(reader lister) Endpoint {
	return Endpoint{Name: "kv-list", Reads: []string{http.MethodGet}, Stats: reader.Stats, Run: func(ctx context.Context, r *Request) (*Response, error) {
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
	if q.Sort, err = listSort(r); err != nil {
		return q, err
	}
	if cursor := r.Param("cursor"); cursor != "" {
		q.After, err = kv.ParseCursor(cursor)
	}
	return q, err
}

// listSort reads sortBy and sortOrder. kv-list says created and updated for createdAt and updatedAt.
func listSort(r *Request) (key kv.SortKey, err error) {
	by, err := oneOf(r, "sortBy", "key", "created", "updated")
	if err != nil {
		return key, err
	}
	order, err := oneOf(r, "sortOrder", "asc", "desc")
	path := map[string]kv.Path{"key": "key", "created": "createdAt", "updated": "updatedAt"}[by]
	return kv.SortKey{Path: path, Descending: order == "desc"}, err
}

// oneOf reads a parameter that has one of the allowed values; the first if it is absent.
func oneOf(r *Request, name string, allowed ...string) (string, error) {
	value := cmp.Or(r.Param(name), allowed[0])
	if !slices.Contains(allowed, value) {
		return "", kv.Invalid("%s must be one of %s, got %q", name, strings.Join(allowed, ", "), value)
	}
	return value, nil
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
	return new(int(n)), nil
}
