package blobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	"netlify-supabase-kv/pkg/upstream"
)

var defaultRetry = upstream.Policy{FirstPause: 100 * time.Millisecond, MaxPause: 2 * time.Second, Total: 15 * time.Second}

// Client reads and writes the blobs of one store. It is safe for concurrent use.
type Client struct {
	store    string // as in addresses: "site:<name>"
	fallback Access
	retry    upstream.Policy
	limiter  *Limiter
	local    bool // events come from netlify dev
	encoded  bool // keys may hold what has a meaning in an address
}

// NewClient returns a client for the site-wide store with the name, 1 to 64 bytes without a slash.
func NewClient(store string) *Client {
	return &Client{store: "site:" + store, retry: defaultRetry, limiter: NewLimiter(0, window)}
}

// WithDefault returns a client for the same store that uses a if the context has no access ([WithEvent]).
func (c *Client) WithDefault(a Access) *Client {
	with := *c
	with.fallback = a
	return &with
}

// WithLimiter returns a client whose requests to Netlify's API wait for the limiter. By default they only wait when
// the service says that its limit is reached.
func (c *Client) WithLimiter(l *Limiter) *Client {
	limited := *c
	limited.limiter = l
	return &limited
}

// WithLocalEvents returns a client for functions under netlify dev. The server behind its events expects and lists
// keys percent-encoded, and also lists keys that are shorter than the prefix.
func (c *Client) WithLocalEvents() *Client {
	local := *c
	local.local = true
	return &local
}

// WithEncodedKeys returns a client for a store whose other clients encode the keys that they give to the JavaScript one,
// as with encodeURIComponent. So keys may hold what has a meaning in an address.
func (c *Client) WithEncodedKeys() *Client {
	encoded := *c
	encoded.encoded = true
	return &encoded
}

// ValidateKey is [ValidateKey] for this client.
func (c *Client) ValidateKey(key string) error {
	if c.encoded {
		return validateEncodedKey(key)
	}
	return ValidateKey(key)
}

// WithBackgroundRetries returns a client for background work. It repeats transient failures for up to total, and an
// attempt may take a minute.
func (c *Client) WithBackgroundRetries(total time.Duration) *Client {
	background := *c
	background.retry = upstream.Policy{FirstPause: 200 * time.Millisecond, MaxPause: 10 * time.Second, Total: total, Attempt: time.Minute}
	return &background
}

// room returns how many requests fit into the context's time; infinity without a limit.
func (c *Client) room(ctx context.Context) float64 {
	a, _, err := c.access(ctx)
	end, bounded := ctx.Deadline()
	if err != nil || !bounded || a.edge() {
		return math.Inf(1)
	}
	return c.limiter.room(end)
}

// Blob is stored under a key.
type Blob struct {
	Value       []byte
	ETag        string // with its quotes; "" from the local server of @netlify/blobs
	Metadata    string // JSON text of at most [MaxMetadataBytes]; "" without metadata
	ContentType string // as the service returns it, which may differ from what was sent
}

// Get returns the blob under the key, or [ErrNotFound].
func (c *Client) Get(ctx context.Context, key string) (Blob, error) {
	return c.read(ctx, call{op: "get", method: http.MethodGet, key: key})
}

// GetUpTo is [Client.Get] for values of at most so many bytes. It reads no more than that, and returns [ErrTooLarge]
// for others.
func (c *Client) GetUpTo(ctx context.Context, key string, most int64) (Blob, error) {
	return c.read(ctx, call{op: "get", method: http.MethodGet, key: key, most: most})
}

// Head returns the blob without its value, or [ErrNotFound].
func (c *Client) Head(ctx context.Context, key string) (Blob, error) {
	return c.read(ctx, call{op: "head", method: http.MethodHead, key: key})
}

func (c *Client) read(ctx context.Context, call call) (Blob, error) {
	if err := c.ValidateKey(call.key); err != nil {
		return Blob{}, err
	}
	return run(ctx, c, call, func(_ context.Context, got response, err error) (Blob, error) {
		if err != nil {
			return Blob{}, err
		}
		return got.blob()
	})
}

// blob decodes the response to a GET or HEAD.
func (r response) blob() (Blob, error) {
	switch r.status {
	case http.StatusOK:
	case http.StatusNotFound:
		return Blob{}, ErrNotFound
	default:
		return Blob{}, r.unexpected()
	}
	metadata, err := decodeMetadata(r.header)
	if err != nil {
		return Blob{}, fmt.Errorf("blobs: %s: %w", r.op, err)
	}
	return Blob{r.body, r.header.Get("ETag"), metadata, r.header.Get("Content-Type")}, nil
}

// SetOptions are the metadata of a write and at most one condition.
type SetOptions struct {
	Metadata string // JSON text of at most [MaxMetadataBytes]; "" for a blob without metadata
	IfMatch  string // the blob must have this etag
	IfNew    bool   // there must be no blob
}

func (o SetOptions) conditional() bool { return o.IfMatch != "" || o.IfNew }

// header returns the condition, and the headers that @netlify/blobs sends with every write.
func (o SetOptions) header() (http.Header, error) {
	header := http.Header{"Cache-Control": {"max-age=0, stale-while-revalidate=60"}}
	switch {
	case o.IfMatch != "" && o.IfNew:
		return nil, errors.New("a write can have one condition, IfMatch or IfNew")
	case !validHeaderText(o.IfMatch):
		return nil, errors.New("IfMatch is not an etag")
	case o.IfMatch != "":
		header.Set("If-Match", o.IfMatch)
	case o.IfNew:
		header.Set("If-None-Match", "*")
	}
	return header, nil
}

// Set replaces the value and the metadata, and returns the new etag. If the condition does not hold it returns
// [ErrConditionFailed].
//
// A write whose response was lost is repeated. If its condition then fails, Set reads the blob and reports success if
// the value and the metadata are the same. Two writers of equal blobs may therefore both succeed; a unique value or
// metadata prevents that. If another writer has overwritten the blob by then, the condition counts as failed although
// the write was applied. Whoever repeats a change must check in the value whether it is already there.
func (c *Client) Set(ctx context.Context, key string, value []byte, o SetOptions) (etag string, err error) {
	call := call{op: "set", method: http.MethodPut, key: key, body: value, conditional: o.conditional()}
	if err := c.ValidateKey(key); err != nil {
		return "", err
	}
	if call.metadata, err = encodeMetadata(o.Metadata); err != nil {
		return "", err
	}
	if call.header, err = o.header(); err != nil {
		return "", err
	}
	unsure := false // an earlier attempt may have been applied
	return run(ctx, c, call, func(ctx context.Context, got response, err error) (string, error) {
		defer func() { unsure = unsure || mayHaveApplied(got, err) }()
		switch {
		case err != nil:
			return "", err
		case got.status == http.StatusOK:
			return got.header.Get("ETag"), nil
		case !o.refusedBy(got.status):
			return "", got.unexpected()
		case unsure:
			return c.ours(ctx, key, value, o)
		}
		return "", ErrConditionFailed
	})
}

// refusedBy reports whether the status means that the condition does not hold. The service's headers show Amazon S3
// behind it, which answers 404 to If-Match without an object ("Conditional writes" in S3's user guide).
func (o SetOptions) refusedBy(status int) bool {
	return o.conditional() && status == http.StatusPreconditionFailed || o.IfMatch != "" && status == http.StatusNotFound
}

// ours returns the etag of the blob if it is what we sent, and otherwise [ErrConditionFailed].
func (c *Client) ours(ctx context.Context, key string, value []byte, o SetOptions) (string, error) {
	a, _, err := c.access(ctx)
	if err != nil {
		return "", err
	}
	if end, ok := ctx.Deadline(); ok && !a.edge() {
		if err := c.limiter.wait(ctx, "set", end); err != nil {
			return "", err
		}
	}
	got, err := c.attempt(ctx, a, call{op: "set", method: http.MethodGet, key: key})
	if err != nil {
		return "", err
	}
	there, err := got.blob()
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return "", err
	case bytes.Equal(there.Value, value) && SameMetadata(there.Metadata, o.Metadata):
		return there.ETag, nil
	}
	return "", fmt.Errorf("%w; an earlier attempt, whose answer was lost, may have been applied and undone", ErrConditionFailed)
}

// Delete removes the blob under the key. A missing blob is not an error.
func (c *Client) Delete(ctx context.Context, key string) error {
	if err := c.ValidateKey(key); err != nil {
		return err
	}
	call := call{op: "delete", method: http.MethodDelete, key: key}
	_, err := run(ctx, c, call, func(_ context.Context, got response, err error) (struct{}, error) {
		if err != nil {
			return struct{}{}, err
		}
		switch got.status {
		case http.StatusOK, http.StatusNoContent, http.StatusNotFound:
			return struct{}{}, nil
		}
		return struct{}{}, got.unexpected()
	})
	return err
}
