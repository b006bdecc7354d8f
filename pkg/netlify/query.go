package netlify

import (
	"context"
	"net/http"
	"os"
	"time"

	"netlify-supabase-kv/pkg/config"
	"netlify-supabase-kv/pkg/kv"
)

type querier interface {
	Query(ctx context.Context, q kv.Query, f kv.Freshness) (kv.ReadResult, error)
	Stats() kv.CacheStats
}

// QueryCache is how kv-query caches.
var QueryCache = CacheDefaults{MaxStale: time.Second}

// Query is the kv-query endpoint. A query ends after timeout, which [QueryTimeoutFromEnv] reads; 0 means that the
// environment's cannot be understood, and every query is answered so.
func Query(reader querier, timeout time.Duration) Endpoint {
	methods := []string{http.MethodGet, http.MethodPost}
	return Endpoint{Name: "kv-query", Reads: methods, Stats: reader.Stats, Run: func(ctx context.Context, r *Request) (*Response, error) {
		if timeout <= 0 {
			return nil, &kv.Error{Code: kv.CodeNotConfigured, Message: messageQueryTimeout}
		}
		document, err := queryDocument(r)
		if err != nil {
			return nil, err
		}
		q, format, err := parseQuery(document)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		result, err := reader.Query(ctx, q, freshness(r))
		if err != nil {
			return nil, err
		}
		response, err := format.answer(result.Body, q, r)
		if err != nil {
			return nil, err
		}
		return cached(r, result, response), nil
	}}
}

const messageQueryTimeout = "KV_QUERY_TIMEOUT must be a time of up to 10s, as in 2s or 500ms"

// QueryTimeoutFromEnv reads KV_QUERY_TIMEOUT; 0 where that cannot be understood.
func QueryTimeoutFromEnv() time.Duration {
	var c config.Query
	switch err := config.Read(&c, os.Getenv); {
	case err != nil:
		return 0
	case c.Timeout == kv.MaxQueryTime:
		return c.Timeout + time.Second // so that the database can say itself that it was too slow
	}
	return c.Timeout
}

// queryDocument is a query as callers write it, from the body of a POST or the parameters of a GET.
func queryDocument(r *Request) (document, error) {
	if r.HTTPMethod == http.MethodGet {
		if err := checkNoBody(r); err != nil {
			return nil, err
		}
		return documentOfParams(r)
	}
	if err := checkNoParams(r); err != nil {
		return nil, err
	}
	return documentOfBody(r, "a field of kv-query", queryFields)
}
