package netlify

import (
	"slices"
	"strings"

	"netlify-supabase-kv/pkg/kv"
)

// storageAddress is what the path of a request of unstorage's http driver names: a key in a store, or all keys that
// begin with a base.
type storageAddress struct {
	store, key string
	isBase     bool // key is a prefix: "" or one that ends in a colon
}

// parseStorageAddress reads an encoded path: /api/kv/storage/<store>/<key>, where a key that ends in : or / is a base.
// The driver writes the colons of keys as slashes, and encodes what is between them.
func parseStorageAddress(path string) (to storageAddress, err error) {
	rest, _ := cutFunction(path, "kv-storage-api", "/api/kv/storage")
	name, key, hasKey := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
	if !hasKey {
		return to, kv.Invalid("the path must be /api/kv/storage/<store>/<key>, or end in / for all keys")
	}
	to.store = percentDecode(name)
	if err := kv.ValidateStore(to.store); err != nil {
		return to, err
	}
	key = percentDecode(key)
	to.isBase = key == "" || strings.HasSuffix(key, ":") || strings.HasSuffix(key, "/")
	to.key = storageKey(key)
	switch {
	case hasDots(to.key):
		return to, kv.Invalid("a key must not have . or .. between colons or slashes")
	case to.isBase && to.key == "":
		return to, nil
	case to.isBase:
		to.key += ":"
	}
	return to, kv.ValidateKey(to.key)
}

// storageKey returns a key in unstorage's normal form, which its netlify-blobs driver stores too: colons for slashes
// and backslashes, none of them repeated, none at the ends.
func storageKey(key string) string {
	parts := strings.FieldsFunc(key, func(c rune) bool { return c == ':' || c == '/' || c == '\\' })
	return strings.Join(parts, ":")
}

// isStorageKey reports whether unstorage can ask for a key.
func isStorageKey(key string) bool { return storageKey(key) == key && !hasDots(key) }

func hasDots(key string) bool {
	return slices.ContainsFunc(strings.Split(key, ":"), func(part string) bool { return part == "." || part == ".." })
}
