package netlify

import (
	"net/url"
	"strings"

	"netlify-supabase-kv/pkg/kv"
)

// resource is what an address like /api/kv/entries/<store>/<key> names. Without a store it is all stores, and without a
// key a store.
type resource struct {
	store, key       string
	hasStore, hasKey bool
}

// resourceOf reads the path of a request of kv-entries. Store and key are decoded once. A key may hold slashes, encoded or
// not, and is not changed where it looks like a path.
func resourceOf(r *Request) (at resource, err error) {
	path, found := cutFunction(r.escapedPath(), "kv-entries", "/api/kv/entries")
	if !found {
		return at, kv.Invalid("the address must be /api/kv/entries/<store>/<key>")
	}
	if path, at.hasStore = strings.CutPrefix(path, "/"); !at.hasStore {
		return at, nil
	}
	store, key, hasKey := strings.Cut(path, "/")
	at.hasKey = hasKey
	if at.store, err = unescape("store", store); err != nil {
		return at, err
	}
	if err := kv.ValidateStore(at.store); err != nil || !hasKey {
		return at, err
	}
	if at.key, err = unescape("key", key); err != nil {
		return at, err
	}
	return at, kv.ValidateKey(at.key)
}

func unescape(part, text string) (string, error) {
	decoded, err := url.PathUnescape(text)
	if err != nil {
		return "", kv.Invalid("the %s in the address must be URL-encoded: %v", part, err)
	}
	return decoded, nil
}
