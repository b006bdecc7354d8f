package netlify

import (
	"strings"

	"netlify-supabase-kv/pkg/kv"
)

// blobAddress is what the path of a request of @netlify/blobs names: a key in a store, a store, or the site.
type blobAddress struct {
	of         blobLevel
	store, key string // as kv-entries has them
}

type blobLevel int

const (
	siteLevel blobLevel = iota
	storeLevel
	keyLevel
)

// The client's names of stores: site:<name>, and deploy:<id> or deploy:<id>:<name> for those of a deploy.
const (
	siteStore   = "site:"
	deployStore = "deploy:"
)

// parseBlobAddress reads an encoded path: [/region:<region>]/api/kv/blobs[/<store>[/<key>]]. The client puts a region
// before the site, which is api/kv/blobs here.
//
// It sends keys as they are, apart from what any URL encodes. So a key that has % and two hexadecimal digits is
// decoded, as by Netlify Blobs, and any other % is itself.
func parseBlobAddress(path string) (to blobAddress, err error) {
	if rest, ok := strings.CutPrefix(path, "/region:"); ok {
		_, path, _ = strings.Cut(rest, "/")
		path = "/" + path
	}
	rest, ok := cutFunction(path, "kv-blobs-api", "/api/kv/blobs")
	if !ok {
		return to, kv.Invalid("the path must be /api/kv/blobs/<store>/<key>: give the client siteID: 'api/kv/blobs', and the site's address as edgeURL")
	}
	rest = strings.TrimPrefix(rest, "/")
	if rest == "" {
		return to, nil
	}
	name, key, hasKey := strings.Cut(rest, "/")
	if to.store, err = storeOfBlobs(percentDecode(name)); err != nil {
		return to, err
	}
	if !hasKey {
		return blobAddress{of: storeLevel, store: to.store}, nil
	}
	// An empty key must not be taken for the whole store: the client makes one of "#x" and "a/..".
	to.of, to.key = keyLevel, percentDecode(key)
	return to, kv.ValidateKey(to.key)
}

// storeOfBlobs returns the store that the client's name of a store stands for: site:<name> is the store <name>, and a
// deploy's store has the client's name, with which no other store can be reached.
func storeOfBlobs(name string) (string, error) {
	site, isSite := strings.CutPrefix(name, siteStore)
	switch {
	case isSite && strings.HasPrefix(site, deployStore):
		return "", kv.Invalid("a store's name must not begin with %s: these are the stores of deploys", deployStore)
	case isSite:
		return site, kv.ValidateStore(site)
	case strings.HasPrefix(name, deployStore):
		return name, kv.ValidateStore(name)
	}
	return "", kv.Invalid("the store must be named site:<name> or deploy:<id>, got %q: the oldest stores of Netlify Blobs, without either, do not exist here", name)
}

// blobStoreName is the inverse of storeOfBlobs.
func blobStoreName(store string) string {
	if strings.HasPrefix(store, deployStore) {
		return store
	}
	return siteStore + store
}
