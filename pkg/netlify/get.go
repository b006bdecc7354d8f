package netlify

import (
	"context"
	"net/http"
	"net/url"

	"netlify-supabase-kv/pkg/kv"
)

type getter interface {
	Get(ctx context.Context, key string) (string, error)
}

// Get is the kv-get endpoint.
func Get(store getter) Endpoint {
	return Endpoint{Name: "kv-get", Methods: []string{http.MethodGet}, Reads: true, Run: func(ctx context.Context, r *Request) (*Answer, error) {
		key, err := getKey(r)
		if err != nil {
			return nil, err
		}
		value, err := store.Get(ctx, key)
		switch {
		case kv.CodeOf(err) == kv.CodeNotFound:
			return notFound(r, key), nil
		case err != nil:
			return nil, err
		}
		body := appendString(append(make([]byte, 0, len(key)+len(value)+80), `{"key":`...), key)
		body = append(append(body, `,"value":`...), value...)
		body = appendString(append(body, `,"exists":true,"timestamp":`...), r.Timestamp())
		return &Answer{Status: http.StatusOK, Body: append(body, '}')}, nil
	}}
}

// notFound is an answer rather than an error: callers have always found the key in it.
func notFound(r *Request, key string) *Answer {
	body := appendString([]byte(`{"error":"Key not found","code":"not_found","key":`), key)
	body = appendString(append(body, `,"exists":false,"timestamp":`...), r.Timestamp())
	return &Answer{Status: http.StatusNotFound, Body: append(body, '}')}
}

// getKey takes the key from the query, else from the path.
func getKey(r *Request) (string, error) {
	key := r.Param("key")
	if key == "" {
		var err error
		if key, err = url.PathUnescape(r.PathAfter("/.netlify/functions/kv-get/", "/api/kv/get/")); err != nil {
			return "", kv.Invalid("the key in the path must be URL-encoded: %v", err)
		}
	}
	return requireKey(key)
}

// requireKey refuses a key that is missing or cannot be one.
func requireKey(key string) (string, error) {
	if key == "" {
		return "", kv.Invalid("Missing key parameter")
	}
	return key, kv.ValidateKey(key)
}
