package netlify

import (
	"context"
	"net/http"
	"strconv"

	"netlify-supabase-kv/pkg/kv"
)

type deleter interface {
	Delete(ctx context.Context, key string) (kv.Written, error)
}

// Delete is the kv-delete endpoint.
func Delete(store deleter) Endpoint {
	return Endpoint{Name: "kv-delete", Writes: []string{http.MethodDelete, http.MethodPost}, Run: func(ctx context.Context, r *Request) (*Response, error) {
		key, err := deleteKey(r)
		if err != nil {
			return nil, err
		}
		written, err := store.Delete(ctx, key)
		if err != nil {
			return nil, err
		}
		body := kv.AppendString([]byte(`{"ok":true,"key":`), key)
		body = strconv.AppendBool(append(body, `,"deleted":`...), written.Existed)
		body = kv.AppendString(append(body, `,"timestamp":`...), r.Timestamp())
		return &Response{Status: http.StatusOK, Header: versionHeader(written), Body: append(body, '}')}, nil
	}}
}

// deleteKey reads the key from the parameters of a DELETE, or from the body of a POST.
func deleteKey(r *Request) (string, error) {
	if r.HTTPMethod == http.MethodDelete {
		for _, check := range []error{checkNoBody(r), checkNames("a parameter of kv-delete", paramNames(r), []string{"key"}), checkOnce(r, "key")} {
			if check != nil {
				return "", check
			}
		}
		return requireKey(r.Param("key"))
	}
	if err := checkNoParams(r); err != nil {
		return "", err
	}
	fields, err := documentOfBody(r, "a field of kv-delete", []string{"key"})
	if err != nil {
		return "", err
	}
	key, ok := kv.Unquote(fields["key"])
	if !ok && isString(fields["key"]) {
		return "", kv.Invalid("key must not contain half of a surrogate pair")
	}
	return requireKey(key)
}
