package blobs

import (
	"context"
	"errors"
	"slices"

	"netlify-supabase-kv/pkg/kv"
)

// Peek returns the etag of the blob under a key, "" without a blob, and the revision in Supabase that it is a copy
// of. The revision is zero if the entry was written here since.
func (s *Store) Peek(ctx context.Context, key string) (etag string, revision kv.RowRevision, err error) {
	etag, known, err := s.head(ctx, key)
	return etag, known.Revision, storeError("blobs.Peek", err)
}

// Read returns an entry for the other store, and the blob's etag; "" without a blob. The entry's Revision is that of
// [Store.Peek], and its Indexes are nil if they are not known.
func (s *Store) Read(ctx context.Context, key string) (state kv.State, etag string, err error) {
	state = kv.State{Key: key}
	blob, err := s.client.GetUpTo(ctx, key, maxReadBytes)
	switch {
	case errors.Is(err, ErrNotFound):
		return state, "", nil
	case err == nil && !isJSON(blob.Value):
		err = errNotJSON
	}
	if err != nil {
		return state, "", storeError("blobs.Read", err)
	}
	if state, err = s.State(ctx, key, blob); err != nil {
		return state, "", err
	}
	return state, ETagOf(blob), nil
}

// State returns the entry that a blob holds, without checking its value. Indexes are nil for a blob of the JavaScript
// functions, which stored none.
func (s *Store) State(ctx context.Context, key string, blob Blob) (kv.State, error) {
	known := parseMetadata(blob.Metadata)
	state := known.state(key, string(blob.Value))
	var err error
	state.Indexes, err = s.indexesOf(ctx, known)
	return state, storeError("blobs.State", err)
}

// Write writes a copy of the other store's entry over the blob with the etag over; "" means that there must be no
// blob. written is false if the blob has another etag by now.
func (s *Store) Write(ctx context.Context, state kv.State, over string) (written bool, err error) {
	known := metadata{Revision: state.Revision, Created: state.Created, Updated: state.Updated}
	if err := s.setIndexes(ctx, &known, state.Indexes); err != nil {
		return false, storeError("blobs.Write", err)
	}
	_, err = s.client.Set(ctx, state.Key, state.Bytes(), overwriting(over, known.text()))
	if errors.Is(err, ErrConditionFailed) {
		return false, nil
	}
	return err == nil, storeError("blobs.Write", err)
}

// WriteBlob writes a blob from a backup like [Store.Write]. indexes are those of its entry. If the metadata names a
// blob that holds them, that is written too.
func (s *Store) WriteBlob(ctx context.Context, key string, blob Blob, indexes [][2]string, over string) (written bool, err error) {
	if set := parseMetadata(blob.Metadata).Set; set != "" {
		known := metadata{}
		if err := s.writeSet(ctx, &known, indexes); err != nil {
			return false, storeError("blobs.WriteBlob", err)
		}
		if known.Set != set {
			return false, storeError("blobs.WriteBlob", errors.New("the indexes are not those that the metadata names"))
		}
	}
	written, err = s.client.WriteOver(ctx, key, blob, over)
	return written, storeError("blobs.WriteBlob", err)
}

// WriteOver writes a blob over the one with the etag over; "" means that there must be no blob. written is false if the
// blob has another etag by now.
func (c *Client) WriteOver(ctx context.Context, key string, blob Blob, over string) (written bool, err error) {
	_, err = c.Set(ctx, key, blob.Value, overwriting(over, blob.Metadata))
	if errors.Is(err, ErrConditionFailed) {
		return false, nil
	}
	return err == nil, err
}

// WithMembers adds to an array's JSON text the members of another array that it lacks.
func WithMembers(text, other string) string {
	members, isArray := kv.ParseMembers(other)
	if !isArray {
		return text
	}
	merged, _ := appendMembers(text, members)
	return merged
}

// HasMembers reports whether an array's JSON text has all members of another array. A text that is not an array never
// matches.
func HasMembers(text, other string) bool {
	members, isArray := kv.ParseMembers(text)
	wanted, areArrays := kv.ParseMembers(other)
	known := map[kv.Member]bool{}
	for _, member := range members {
		known[member] = true
	}
	return isArray && areArrays && !slices.ContainsFunc(wanted, func(member kv.Member) bool { return !known[member] })
}

// Remove deletes a blob. Blobs has no conditional delete, so whoever removes a copy must check the entry again
// afterwards.
func (s *Store) Remove(ctx context.Context, key string) error {
	return storeError("blobs.Remove", s.client.Delete(ctx, key))
}
