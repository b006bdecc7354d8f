package migrate

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
)

// Item is a blob that was read.
type Item struct {
	blobs.Listed
	Blob    blobs.Blob
	Missing bool // it is gone
	// Indexes are the entry's, where the blob says so; nil: nobody knows. Token is that of [kv.State].
	Indexes          [][2]string
	Created, Updated int64 // microseconds since 1970, 0: the blob does not say
	IsIndex          bool  // it is known to be an index entry
	Err              error // why it cannot be read
}

// Source is where entries come from.
type Source interface {
	// Name tells sources apart, in the journal and in reports. It has no secret.
	Name() string
	// List gives all blobs in the byte order of their keys.
	List(ctx context.Context) ([]blobs.Listed, error)
	// Read hands out the blobs of the list, in any order, to several goroutines at once. It ends with the first error.
	Read(ctx context.Context, list []blobs.Listed, each func(context.Context, Item) error) error
}

// BlobsSource is Netlify Blobs.
type BlobsSource struct {
	Client *blobs.Client // of the store that has the entries
	Store  *blobs.Store  // the same
	// Parallel is how many blobs are read at once.
	Parallel int
	// DecodeKeys takes listed keys as percent-encoded, as the local server of @netlify/blobs gives them.
	DecodeKeys bool

	name    string
	limiter *blobs.Limiter
}

// usualStore is the one that the functions read and write.
const usualStore = "kv"

// patience is how long a request is repeated before its failure counts: a service that restarts or limits its rate gets that time.
const patience = 5 * time.Minute

// NewBlobsSource returns a source that waits as long as need be where the service limits its rate. access is the way to it; limiter
// keeps it below a rate.
func NewBlobsSource(access blobs.Access, store, indexes string, parallel int, limiter *blobs.Limiter) *BlobsSource {
	s := &BlobsSource{name: "Netlify Blobs of the site " + access.SiteID, Parallel: parallel, limiter: limiter}
	if store != usualStore {
		s.name += ", store " + store
	}
	client := func(name string) *blobs.Client {
		return blobs.NewClient(name).WithDefault(access).WithBackgroundRetries(patience).WithLimiter(s.limiter)
	}
	s.Client = client(store)
	s.Store = blobs.NewStore(s.Client, client(indexes))
	return s
}

// Requests is how many requests the source has made to Netlify's API.
func (s *BlobsSource) Requests() int { return s.limiter.Asked() }

// requestsOf is [BlobsSource.Requests] of a source that makes such requests, else 0.
func requestsOf(source Source) int {
	if asks, ok := source.(interface{ Requests() int }); ok {
		return asks.Requests()
	}
	return 0
}

// Name implements [Source].
func (s *BlobsSource) Name() string { return s.name }

// List implements [Source].
func (s *BlobsSource) List(ctx context.Context) ([]blobs.Listed, error) {
	var list []blobs.Listed
	for blob, err := range s.Client.List(ctx, "") {
		if err != nil {
			return nil, fmt.Errorf("list the blobs: %w", explain(err))
		}
		if s.DecodeKeys {
			key, err := url.PathUnescape(blob.Key)
			if err != nil {
				return nil, fmt.Errorf("list the blobs: the key %q is not percent-encoded: leave out --decode-keys", blob.Key)
			}
			blob.Key = key
		}
		blob.ETag = revision(blob.ETag)
		list = append(list, blob)
	}
	slices.SortFunc(list, func(a, b blobs.Listed) int { return strings.Compare(a.Key, b.Key) })
	return slices.CompactFunc(list, func(a, b blobs.Listed) bool { return a.Key == b.Key }), nil
}

// maxFailuresInARow is how many blobs in a row may fail to be read before that is taken for the service's failure.
const maxFailuresInARow = 20

// maxBytesAtOnce bounds the values that are held at a time.
const maxBytesAtOnce = 32 << 20

// Read implements [Source].
func (s *BlobsSource) Read(ctx context.Context, list []blobs.Listed, each func(context.Context, Item) error) error {
	group, within := errgroup.WithContext(ctx)
	group.SetLimit(s.Parallel)
	memory := semaphore.NewWeighted(maxBytesAtOnce)
	var failed atomic.Int64
	for _, listed := range list {
		weight := min(listed.Size, maxBytesAtOnce)
		if memory.Acquire(within, weight) != nil {
			break
		}
		group.Go(func() error {
			defer memory.Release(weight)
			item := s.read(within, listed)
			switch {
			case within.Err() != nil:
				return within.Err()
			case item.Err == nil:
				failed.Store(0)
			case refused(item.Err) || blobs.ValidateKey(listed.Key) == nil && failed.Add(1) > maxFailuresInARow:
				return fmt.Errorf("read the blobs: %w", explain(item.Err))
			}
			return each(within, item)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

func (s *BlobsSource) read(ctx context.Context, listed blobs.Listed) Item {
	item := Item{Listed: listed}
	item.Blob, item.Err = s.Client.Get(ctx, listed.Key)
	item.Blob.ETag = revision(item.Blob.ETag)
	if errors.Is(item.Err, blobs.ErrNotFound) {
		return Item{Listed: listed, Missing: true}
	}
	if item.Err == nil {
		var state kv.State
		state, item.Err = s.Store.State(ctx, listed.Key, item.Blob)
		item.Indexes, item.Created, item.Updated = state.Indexes, state.Created, state.Updated
	}
	return item
}

// refused tells whether nothing can be read with this access.
func refused(err error) bool { return errors.Is(err, blobs.ErrNoAccess) || blobs.Refused(err) }

func explain(err error) error {
	if refused(err) {
		return fmt.Errorf("%w: NETLIFY_BLOBS_TOKEN must be a personal access token with access to the site NETLIFY_SITE_ID", err)
	}
	return err
}

// revision is an etag without what may differ between a list and a read.
func revision(etag string) string { return strings.Trim(strings.TrimPrefix(etag, "W/"), `"`) }
