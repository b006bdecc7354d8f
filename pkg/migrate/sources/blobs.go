package sources

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"strings"
	"time"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/stream"
)

// Blobs is a store of Netlify Blobs.
type Blobs struct {
	Client *blobs.Client
	Store  *blobs.Store // the store kv as the functions have it; nil for another one
	// MostBytes bounds what is read of a blob. Larger ones are [blobs.ErrTooLarge].
	MostBytes int64
	// Parallel is how many blobs are read at once.
	Parallel int
	// DecodeKeys takes listed keys as percent-encoded, as the local server of @netlify/blobs gives them.
	DecodeKeys bool

	name, store string
	limiter     *blobs.Limiter
}

// MaxBlobBytes is the usual bound: a backup has room for as much in one line, whatever the bytes are.
const MaxBlobBytes = 180 << 20

// Patience is how long a request is repeated before its failure counts: a service that restarts or limits its rate
// gets that time.
const Patience = 5 * time.Minute

// NewBlobs returns a source that waits as long as need be where the service limits its rate. access is the way to it;
// limiter keeps it below a rate.
func NewBlobs(access blobs.Access, store string, parallel int, limiter *blobs.Limiter) *Blobs {
	s := &Blobs{name: "Netlify Blobs of the site " + access.SiteID, store: store, Parallel: parallel, MostBytes: MaxBlobBytes, limiter: limiter}
	client := func(name string) *blobs.Client {
		return blobs.NewClient(name).WithDefault(access).WithBackgroundRetries(Patience).WithLimiter(s.limiter)
	}
	s.Client = client(store)
	if store == kv.DefaultStore {
		s.Store = blobs.NewStore(s.Client, client(store+"-indexes"))
	} else {
		s.name += ", store " + store
		s.Client = s.Client.WithEncodedKeys()
	}
	return s
}

// StoreName implements [Source].
func (s *Blobs) StoreName() string { return s.store }

// Requests is how many requests the source has made to Netlify's API.
func (s *Blobs) Requests() int { return s.limiter.Asked() }

// Name implements [Source].
func (s *Blobs) Name() string { return s.name }

// List implements [Source].
func (s *Blobs) List(ctx context.Context) iter.Seq2[blobs.Listed, error] {
	return func(yield func(blobs.Listed, error) bool) {
		for blob, err := range s.Client.List(ctx, "") {
			if err != nil {
				err = fmt.Errorf("list the blobs: %w", AdviseAccess(err))
			} else if s.DecodeKeys {
				key, unescapeErr := url.PathUnescape(blob.Key)
				if unescapeErr != nil {
					err = fmt.Errorf("list the blobs: the key %q is not percent-encoded: leave out --decode-keys", blob.Key)
				}
				blob.Key = key
			}
			blob.ETag = revision(blob.ETag)
			if !yield(blob, err) {
				return
			}
		}
	}
}

// MaxFailuresInARow is how many blobs in a row may fail to be read before that is taken for the service's failure.
const MaxFailuresInARow = 20

// Read implements [Source].
func (s *Blobs) Read(ctx context.Context, list iter.Seq2[blobs.Listed, error]) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		failed := 0
		for item, err := range stream.Ordered(ctx, s.Parallel, list, func(l blobs.Listed) int64 { return l.Size }, s.read) {
			switch {
			case err != nil:
			case item.Err == nil:
				failed = 0
			case !errors.Is(item.Err, blobs.ErrTooLarge) && !errors.As(item.Err, new(*blobs.KeyError)):
				failed++
				if Refused(item.Err) || failed > MaxFailuresInARow {
					err = fmt.Errorf("read the blobs: %w", AdviseAccess(item.Err))
				}
			}
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}

func (s *Blobs) read(ctx context.Context, listed blobs.Listed) Item {
	item := Item{Listed: listed}
	item.Blob, item.Err = s.Client.GetUpTo(ctx, listed.Key, s.MostBytes)
	item.Blob.ETag = revision(item.Blob.ETag)
	if errors.Is(item.Err, blobs.ErrNotFound) {
		return Item{Listed: listed, Missing: true}
	}
	if item.Err != nil {
		return item
	}
	item.Describe(s.store)
	if s.Store == nil {
		item.Indexes = [][2]string{}
		return item
	}
	var state kv.State
	state, item.Err = s.Store.State(ctx, listed.Key, item.Blob)
	item.Indexes, item.Created, item.Updated = state.Indexes, state.Created, state.Updated
	return item
}

// Refused reports whether nothing can be read with this access.
func Refused(err error) bool { return errors.Is(err, blobs.ErrNoAccess) || blobs.Refused(err) }

// AdviseAccess says what an access must be that was refused.
func AdviseAccess(err error) error {
	if Refused(err) {
		return fmt.Errorf("%w: NETLIFY_BLOBS_TOKEN must be a personal access token with access to the site NETLIFY_SITE_ID", err)
	}
	return err
}

// revision is an etag without what may differ between a list and a read.
func revision(etag string) string { return strings.Trim(strings.TrimPrefix(etag, "W/"), `"`) }
