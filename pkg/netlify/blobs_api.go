package netlify

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
)

// BlobsAPI is the kv-blobs-api endpoint: the requests of the JavaScript client @netlify/blobs, answered by the stores
// of kv-entries. The client is unchanged and takes most statuses for a success or a failure of its own making, so
// these are not always those of kv-entries (docs/CLIENTS.md has them all).
func BlobsAPI(entries kv.Entries) Endpoint {
	api := blobsAPI{entries}
	return Endpoint{Name: "kv-blobs-api", Reads: []string{http.MethodGet}, Writes: []string{http.MethodPut, http.MethodDelete}, Refuse: refuseBlob, Stats: statsOf(entries), Run: api.run}
}

type blobsAPI struct{ entries kv.Entries }

func (b blobsAPI) run(ctx context.Context, r *Request) (*Response, error) {
	to, err := parseBlobAddress(r.escapedPath())
	if err != nil {
		return nil, err
	}
	switch method := r.HTTPMethod; {
	case to.of == keyLevel && hasQuery(r):
		return nil, kv.Invalid("the address of a key must not have a query: @netlify/blobs sends keys as they are, so encode a key that contains ? or # with encodeURIComponent")
	case to.of == keyLevel && method == http.MethodGet:
		return b.get(ctx, r, to)
	case to.of == keyLevel && method == http.MethodPut:
		return b.set(ctx, r, to)
	case to.of == keyLevel:
		return b.remove(ctx, r, to)
	case to.of == storeLevel && method == http.MethodGet:
		return b.list(ctx, r, to.store)
	case to.of == storeLevel && method == http.MethodDelete:
		return b.removeAll(ctx, r, to.store)
	case to.of == siteLevel && method == http.MethodGet:
		return b.stores(ctx, r)
	}
	return nil, kv.Invalid("the address names no key: a %s needs one", r.HTTPMethod)
}

func (b blobsAPI) get(ctx context.Context, r *Request, to blobAddress) (*Response, error) {
	result, err := b.entries.GetEntry(ctx, to.store, to.key, freshness(r))
	if err != nil {
		return nil, err
	}
	response := entryResponse(r, result)
	if result.Metadata != "" {
		response.Header[blobs.MetadataHeader] = blobs.EncodeMetadata(result.Metadata)
	}
	return response, nil
}

func (b blobsAPI) set(ctx context.Context, r *Request, to blobAddress) (*Response, error) {
	op, err := putOperation(r, to.store, to.key)
	if err != nil {
		return nil, err
	}
	if sent := r.Headers.BlobsMetadata; sent != "" {
		text, err := blobs.DecodeMetadata(sent)
		if err != nil {
			return nil, kv.Invalid("%s must be b64; and JSON in base64, as @netlify/blobs sends it", blobs.MetadataHeader)
		}
		if op.Metadata, err = compactMetadata("metadata", text); err != nil {
			return nil, err
		}
	}
	return b.apply(ctx, r, op)
}

func (b blobsAPI) remove(ctx context.Context, r *Request, to blobAddress) (*Response, error) {
	condition, err := precondition(r)
	if err != nil {
		return nil, err
	}
	return b.apply(ctx, r, kv.Operation{Action: kv.ActionDelete, Store: to.store, Key: to.key, Precondition: condition})
}

// apply answers 200 for every write that was applied: set takes nothing else for a success.
func (b blobsAPI) apply(ctx context.Context, r *Request, op kv.Operation) (*Response, error) {
	result, version, err := applyOne(ctx, b.entries, op)
	if err != nil {
		return nil, err
	}
	body := kv.AppendString([]byte(`{"ok":true,"timestamp":`), r.Timestamp())
	return &Response{Status: http.StatusOK, Header: writtenHeaders(op, result, version), Body: append(body, '}')}, nil
}

// listedBlob is an element of "blobs" in the protocol's list.
type listedBlob struct {
	Key          string `json:"key"`
	ETag         string `json:"etag"`
	Size         int64  `json:"size"`
	LastModified string `json:"last_modified"`
}

// list answers a page, as long as those of Netlify Blobs. The client asks for the next page itself.
func (b blobsAPI) list(ctx context.Context, r *Request, store string) (*Response, error) {
	if err := checkNames("a parameter of a list of blobs", paramNames(r), []string{"prefix", "directories", "cursor"}); err != nil {
		return nil, err
	}
	q := kv.EntryQuery{Store: store, Prefix: r.Param("prefix")}
	if r.Param("directories") == "true" {
		q.Delimiter = "/"
	}
	if cursor := r.Param("cursor"); cursor != "" {
		var err error
		if q.After, err = kv.ParseCursor(cursor); err != nil {
			return nil, err
		}
	}
	page, err := listEntries(ctx, b.entries, q)
	if err != nil {
		return nil, err
	}
	out := struct {
		Blobs       []listedBlob `json:"blobs"`
		Directories []string     `json:"directories"`
		NextCursor  string       `json:"next_cursor,omitzero"`
	}{make([]listedBlob, len(page.Entries)), make([]string, len(page.Prefixes)), page.Pagination.NextCursor}
	for i, e := range page.Entries {
		out.Blobs[i] = listedBlob{e.Key, strongTag(e.ETag), e.Size, e.UpdatedAt}
	}
	for i, prefix := range page.Prefixes {
		out.Directories[i] = strings.TrimSuffix(prefix, "/")
	}
	return jsonResponse(out)
}

// removalTime is how long one request of deleteAll goes on removing, far less than a function may take.
const removalTime = 5 * time.Second

// removeAll removes entries of a store. The client repeats its request while there are more.
func (b blobsAPI) removeAll(ctx context.Context, r *Request, store string) (*Response, error) {
	if hasQuery(r) {
		return nil, kv.Invalid("a request that removes a whole store must not have a query: nothing was removed")
	}
	var out struct {
		Removed int  `json:"blobs_deleted"`
		More    bool `json:"has_more"`
	}
	q := kv.EntryQuery{Store: store}
	for end := r.now().Add(removalTime); ; {
		removed, next, err := removePage(ctx, b.entries, q, func(string) bool { return true })
		if err != nil {
			return nil, err
		}
		out.Removed += removed
		q.After, out.More = next, next != nil
		if !out.More || !r.now().Before(end) {
			return jsonResponse(out)
		}
	}
}

// stores answers listStores, always in one page. The client asks for those with the prefix site: and cuts that off.
func (b blobsAPI) stores(ctx context.Context, r *Request) (*Response, error) {
	if err := checkNames("a parameter of a list of stores", paramNames(r), []string{"prefix", "cursor"}); err != nil {
		return nil, err
	}
	counts, err := b.entries.ListStores(ctx)
	if err != nil {
		return nil, err
	}
	out := struct {
		Stores []string `json:"stores"`
	}{[]string{}}
	for _, count := range counts {
		if name := blobStoreName(count.Store); strings.HasPrefix(name, r.Param("prefix")) {
			out.Stores = append(out.Stores, name)
		}
	}
	return jsonResponse(out)
}

func jsonResponse(body any) (*Response, error) {
	text, err := jsonv2.Marshal(body)
	return &Response{Status: http.StatusOK, Body: text}, err
}

// refuseBlob adds the headers that the client reads of a failure: the text of the error that it throws, and when to
// try again. It repeats what failed with a 5xx or 429 five times, by default after 5 seconds each.
func refuseBlob(header map[string]string, e *kv.Error, status int, now time.Time) {
	header["X-Nf-Error"] = asciiText(e.Message)
	if status >= http.StatusInternalServerError {
		reset := float64(now.Add(e.RetryAfter).UnixMilli()) / 1000
		header["X-RateLimit-Reset"] = strconv.FormatInt(int64(math.Ceil(reset)), 10)
	}
}

// asciiText returns text as a header can have it: characters outside printable ASCII are escaped as in Go.
func asciiText(text string) string {
	quoted := strconv.QuoteToASCII(text)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}
