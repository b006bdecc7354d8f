package blobs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/upstream"
)

// Store is a [kv.Store] in Netlify Blobs. Each entry is a blob whose text is the value, and each index entry a blob
// with the array of its members. It responds like the JavaScript functions that it replaces. Unlike them it loses no
// member, since it changes arrays with conditional writes. An entry and its index entries are separate writes: one
// that fails in between returns an error, and repeating it completes it. Queries are [kv.CodeNotConfigured].
//
// The blob's metadata holds what Blobs does not store: the times of creation and update, and the entry's indexes. If
// those exceed 2 kB, the metadata names a blob of another store that holds them. The key of that blob is a hash of
// its content, so it never changes, and it stays when the entry changes.
type Store struct {
	client  *Client
	indexes *Client // large sets of indexes, by the hash of their text
	now     func() time.Time
}

// maxReadBytes bounds reads of blobs that another program may have written and that are not returned. Instances have
// 1,024 MB of memory, and Blobs stores values of up to 5 GB.
const maxReadBytes = 64 << 20

// parallel is how many requests one operation makes at a time.
const parallel = 24

// NewStore returns a store of the client's blobs. Large sets of indexes are blobs of the other client, indexes.
func NewStore(client, indexes *Client) *Store {
	return &Store{client: client, indexes: indexes, now: time.Now}
}

// Write is the result of an upsert: the entries that it changed, as it left them, its own first.
type Write struct {
	kv.Written
	Changed []ChangedEntry
}

// ChangedEntry is an entry as it was written here, for the other store, and the blob's etag; "" without a blob.
type ChangedEntry struct {
	kv.State
	ETag string
	// Partly means that Indexes are missing, because they are in another blob.
	Partly bool
}

// CheckEntry refuses an entry that Blobs cannot store: with a key or an index key that [ValidateKey] refuses.
func CheckEntry(entry kv.Entry) error {
	if err := entry.Validate(); err != nil {
		return err
	}
	if err := CheckKey(entry.Key); err != nil {
		return err
	}
	for i, index := range entry.Indexes {
		if err := ValidateKey(index.Key); err != nil {
			return kv.Invalid("indexes[%d]: %v, as long as Netlify Blobs is written", i, err)
		}
	}
	return nil
}

// CheckKey refuses a key that Blobs cannot store.
func CheckKey(key string) error {
	if err := kv.ValidateKey(key); err != nil {
		return err
	}
	if err := ValidateKey(key); err != nil {
		return kv.Invalid("%v, as long as Netlify Blobs is written", err)
	}
	return nil
}

// Upsert implements [kv.Store].
func (s *Store) Upsert(ctx context.Context, entry kv.Entry) (kv.Written, error) {
	write, err := s.Put(ctx, entry)
	return write.Written, err
}

// Put is [Store.Upsert] that returns what it changed; with an error, what it changed before.
func (s *Store) Put(ctx context.Context, entry kv.Entry) (Write, error) {
	if err := CheckEntry(entry); err != nil {
		return Write{}, err
	}
	own, err := s.putEntry(ctx, entry)
	if err != nil {
		return Write{}, storeError("blobs.Upsert", err)
	}
	write := Write{Written: written(own.ETag), Changed: []ChangedEntry{own}}
	grown, err := s.addMembers(ctx, entry.Indexes)
	write.Changed = append(write.Changed, grown...)
	return write, storeError("blobs.Upsert", err)
}

// written returns a version made of an etag. Reads here are strongly consistent, so none has to understand it.
func written(etag string) kv.Written { return kv.Written{Version: "blobs." + strings.Trim(etag, `"`)} }

func (s *Store) putEntry(ctx context.Context, entry kv.Entry) (ChangedEntry, error) {
	return retryConflicts(ctx, func() (none ChangedEntry, err error) {
		at, known, err := s.head(ctx, entry.Key)
		if err != nil {
			return none, err
		}
		now := s.now().UnixMicro()
		known.Revision, known.Updated = kv.RowRevision{}, now
		if at == "" {
			known.Created = now
		}
		if entry.Indexes != nil || at == "" { // a new entry's are known: it has none
			if err := s.setIndexes(ctx, &known, kv.Pairs(entry.Indexes)); err != nil {
				return none, err
			}
		}
		etag, err := s.client.Set(ctx, entry.Key, []byte(entry.Value), overwriting(at, known.text()))
		return known.seen(entry.Key, entry.Value, etag), err
	})
}

// conflictRetry is for conditional writes that another writer preceded.
var conflictRetry = upstream.Policy{FirstPause: 5 * time.Millisecond, MaxPause: 500 * time.Millisecond, Total: time.Minute, Unlimited: true}

// retryConflicts repeats a change until it does not return [ErrConditionFailed].
func retryConflicts[T any](ctx context.Context, change func() (T, error)) (T, error) {
	return upstream.Retry(ctx, conflictRetry, func(context.Context) (T, error) {
		result, err := change()
		if errors.Is(err, ErrConditionFailed) {
			err = &upstream.TransientError{Err: err}
		}
		return result, err
	})
}

// head returns a blob's etag, "" without a blob, and its metadata.
func (s *Store) head(ctx context.Context, key string) (etag string, m metadata, err error) {
	blob, err := s.client.Head(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return "", metadata{}, nil
	}
	if err != nil {
		return "", metadata{}, err
	}
	return ETagOf(blob), parseMetadata(blob.Metadata), nil
}

// addMembers adds the members to their index entries, each once, and returns the index entries that grew.
func (s *Store) addMembers(ctx context.Context, indexes []kv.Index) (grown []ChangedEntry, err error) {
	members := map[string][]kv.Member{}
	var keys []string
	for _, index := range indexes {
		if members[index.Key] == nil {
			keys = append(keys, index.Key)
		}
		members[index.Key] = append(members[index.Key], index.Member)
	}
	added := make([]*ChangedEntry, len(keys))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, key := range keys {
		group.Go(func() (err error) {
			added[i], err = s.addTo(groupCtx, key, members[key])
			return err
		})
	}
	err = group.Wait()
	for _, entry := range added {
		if entry != nil {
			grown = append(grown, *entry)
		}
	}
	return grown, err
}

// addTo adds members to one index entry. Its times, indexes and revision stay: the blob is still a copy of that
// revision, with more members. grown is nil if it has them all.
func (s *Store) addTo(ctx context.Context, key string, members []kv.Member) (grown *ChangedEntry, err error) {
	return retryConflicts(ctx, func() (*ChangedEntry, error) {
		blob, err := s.client.GetUpTo(ctx, key, maxReadBytes)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		known, at := parseMetadata(blob.Metadata), ETagOf(blob)
		if err != nil {
			known.Created, known.Updated, at = s.now().UnixMicro(), s.now().UnixMicro(), ""
		}
		text, more := appendMembers(string(blob.Value), members)
		if !more {
			return nil, nil
		}
		etag, err := s.client.Set(ctx, key, []byte(text), overwriting(at, known.text()))
		if err != nil {
			return nil, err
		}
		seen := known.seen(key, text, etag)
		return &seen, nil
	})
}

// Get implements [kv.Store].
func (s *Store) Get(ctx context.Context, key string) (string, error) {
	if err := kv.ValidateKey(key); err != nil {
		return "", err
	}
	if ValidateKey(key) != nil { // no blob can have it
		return "", storeError("blobs.Get", ErrNotFound)
	}
	blob, err := s.client.GetUpTo(ctx, key, kv.MaxResponseBytes)
	if err != nil {
		return "", storeError("blobs.Get", err)
	}
	if !isJSON(blob.Value) {
		return "", storeError("blobs.Get", errNotJSON)
	}
	return string(blob.Value), nil
}

// Query implements [kv.Store]. It answers no query, but says what is wrong with one.
func (s *Store) Query(_ context.Context, q kv.Query) (string, error) {
	if err := q.Validate(); err != nil {
		return "", err
	}
	return "", &kv.Error{Code: kv.CodeNotConfigured, Op: "blobs.Query",
		Message: "kv-query needs Supabase, and Netlify Blobs answers here: set USE_SUPABASE_KV=true once the entries are migrated"}
}

// Delete implements [kv.Store].
func (s *Store) Delete(ctx context.Context, key string) (kv.Written, error) {
	if err := kv.ValidateKey(key); err != nil {
		return kv.Written{}, err
	}
	if ValidateKey(key) != nil { // no blob can have it
		return written(""), nil
	}
	etag, _, err := s.head(ctx, key)
	if err == nil && etag != "" {
		err = s.client.Delete(ctx, key)
	}
	if err != nil {
		return kv.Written{}, storeError("blobs.Delete", err)
	}
	w := written(etag)
	w.Existed = etag != ""
	return w, nil
}

// errNotJSON means that another program wrote the blob.
var errNotJSON = errors.New("the blob is not JSON")

// isJSON reports whether text is JSON in UTF-8 (RFC 8259, section 8.1). [json.Valid] accepts any bytes inside strings.
func isJSON(text []byte) bool { return utf8.Valid(text) && json.Valid(text) }

const messageNoAccess = "Netlify Blobs cannot be reached from here: set NETLIFY_BLOBS_TOKEN and NETLIFY_SITE_ID, or, to answer from Supabase," +
	" USE_SUPABASE_KV=true with SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY"

// storeError is the only place that turns an error of the client into a [*kv.Error].
func storeError(op string, err error) error {
	if err == nil {
		return nil
	}
	var known *kv.Error
	if errors.As(err, &known) {
		return err
	}
	e := &kv.Error{Code: kv.CodeDatabaseUnreachable, Op: op, Err: err, Message: "Netlify Blobs could not be reached; try again in a moment"}
	var answer *Error
	var timeout *upstream.TimeoutError
	switch {
	case errors.Is(err, ErrNotFound):
		e.Code, e.Message = kv.CodeNotFound, "Key not found"
	case errors.Is(err, ErrNoAccess):
		e.Code, e.Message = kv.CodeNotConfigured, messageNoAccess
	case errors.Is(err, errNotJSON):
		e.Code, e.Message = kv.CodeNotJSON, "the blob under the key is not JSON: it was written by something else, and this function cannot answer with it"
	case errors.Is(err, errIndexesGone):
		e.Message = "the blob that keeps the indexes of an entry is gone from Netlify Blobs: write the entry again, with its indexes"
	case errors.Is(err, ErrConditionFailed):
		e.Message = "others keep changing the same entry in Netlify Blobs; try again in a moment"
	case errors.Is(err, ErrTooLarge):
		e.Code, e.Message = kv.CodeTooLarge, "the blob under the key is larger than this function can read: it was written by something else"
	case Refused(err):
		e.Code, e.Message = kv.CodeNotConfigured, "Netlify Blobs refused the token: NETLIFY_BLOBS_TOKEN must be a personal access token for the site NETLIFY_SITE_ID"
	case errors.As(err, &answer) && answer.Status == http.StatusTooManyRequests:
		e.Code, e.RetryAfter = kv.CodeRateLimited, cmp.Or(answer.RetryAfter, window)
		e.Message = "Netlify's API takes a limited number of requests a minute, and there are more: try again after the time that Retry-After says, and ask for less at a time"
	case errors.As(err, &timeout):
		e.Code, e.Message = kv.CodeDeadlineExceeded, "the time allowed for the request was over before Netlify Blobs answered; ask for less, or try again"
	}
	return e
}
