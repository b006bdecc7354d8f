package netlify

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"netlify-supabase-kv/pkg/kv"
)

type getter interface {
	Get(ctx context.Context, key string, f kv.Freshness) (kv.ReadResult, error)
	Stats() kv.CacheStats
}

// GetCache are the defaults of kv-get.
var GetCache = CacheDefaults{MaxStale: time.Second, Warm: kv.WarmEntries}

// Get is the kv-get endpoint.
func Get(reader getter) Endpoint {
	return Endpoint{Name: "kv-get", Reads: []string{http.MethodGet}, Stats: reader.Stats, Run: func(ctx context.Context, r *Request) (*Response, error) {
		key, err := getKey(r)
		if err != nil {
			return nil, err
		}
		result, err := reader.Get(ctx, key, freshness(r))
		switch {
		case kv.CodeOf(err) == kv.CodeNotFound:
			return cached(r, result, notFound(r, key)), nil
		case err != nil:
			return nil, err
		}
		body := kv.AppendString(append(make([]byte, 0, len(key)+len(result.Body)+80), `{"key":`...), key)
		body = append(append(body, `,"value":`...), result.Body...)
		body = kv.AppendString(append(body, `,"exists":true,"timestamp":`...), r.Timestamp())
		return cached(r, result, &Response{Status: http.StatusOK, Body: append(body, '}')}), nil
	}}
}

// notFound is not an error's response, since callers have always found the key in it.
func notFound(r *Request, key string) *Response {
	body := kv.AppendString([]byte(`{"error":"Key not found","code":"not_found","key":`), key)
	body = kv.AppendString(append(body, `,"exists":false,"timestamp":`...), r.Timestamp())
	return &Response{Status: http.StatusNotFound, Body: append(body, '}')}
}

// getKey reads the key from the parameters, or else from the path.
func getKey(r *Request) (string, error) {
	key := r.Param("key")
	if key == "" {
		rest, _ := cutFunction(r.escapedPath(), "kv-get", "/api/kv/get")
		var err error
		if key, err = url.PathUnescape(strings.TrimPrefix(rest, "/")); err != nil {
			return "", kv.Invalid("the key in the path must be URL-encoded: %v", err)
		}
	}
	return requireKey(key)
}

// requireKey refuses a key that is missing or not valid.
func requireKey(key string) (string, error) {
	if key == "" {
		return "", kv.Invalid("Missing key parameter")
	}
	return key, kv.ValidateKey(key)
}
