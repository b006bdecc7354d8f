package blobs

import (
	"context"
	"errors"
	"slices"

	"netlify-supabase-kv/pkg/kv"
)

// Peek reads what a copy has to know of the blob under a key: its etag, "" where there is none, and what the entry was like in
// Supabase when it was copied here; empty where it was written here since.
func (s *Store) Peek(ctx context.Context, key string) (etag string, revision kv.RowRevision, err error) {
	etag, known, err := s.head(ctx, key)
	return etag, known.Revision, storeError(ctx, "blobs.Peek", err)
}

// Read reads an entry for the other store, and the blob's etag; "" where there is none. Its
// Token is that of [Store.Peek]; Indexes are nil where they are not known.
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
		return state, "", storeError(ctx, "blobs.Read", err)
	}
	if state, err = s.State(ctx, key, blob); err != nil {
		return state, "", err
	}
	return state, etagOf(blob), nil
}

// State makes an entry of a blob, whose value is not looked at. Indexes are nil where nobody knows them, as of a blob of the
// JavaScript functions.
func (s *Store) State(ctx context.Context, key string, blob Blob) (kv.State, error) {
	known := parseMetadata(blob.Metadata)
	state := known.state(key, string(blob.Value))
	var err error
	state.Indexes, err = s.indexesOf(ctx, known)
	return state, storeError(ctx, "blobs.State", err)
}

// Write makes a blob of an entry of the other store, over the blob with the etag; "" where there is none. It is false where
// another has come in between.
func (s *Store) Write(ctx context.Context, state kv.State, over string) (bool, error) {
	known := metadata{Revision: state.Revision, Created: state.Created, Updated: state.Updated}
	if err := s.setIndexes(ctx, &known, state.Indexes); err != nil {
		return false, storeError(ctx, "blobs.Write", err)
	}
	_, err := s.client.Set(ctx, state.Key, []byte(state.Value), known.overwriting(over))
	if errors.Is(err, ErrConditionFailed) {
		return false, nil
	}
	return err == nil, storeError(ctx, "blobs.Write", err)
}

// WriteBlob writes a blob as a backup has it, over the blob with the etag; "" where there is none. indexes are those of its entry:
// where the metadata names the blob that holds them, that is written too. It is false where another has come in between.
func (s *Store) WriteBlob(ctx context.Context, key string, blob Blob, indexes [][2]string, over string) (bool, error) {
	if set := parseMetadata(blob.Metadata).Set; set != "" {
		known := metadata{}
		if err := s.writeSet(ctx, &known, indexes); err != nil {
			return false, storeError(ctx, "blobs.WriteBlob", err)
		}
		if known.Set != set {
			return false, storeError(ctx, "blobs.WriteBlob", errors.New("the indexes are not those that the metadata names"))
		}
	}
	o := SetOptions{Metadata: blob.Metadata, IfMatch: over, IfNew: over == ""}
	if over == unknownETag {
		o.IfMatch = ""
	}
	_, err := s.client.Set(ctx, key, blob.Value, o)
	if errors.Is(err, ErrConditionFailed) {
		return false, nil
	}
	return err == nil, storeError(ctx, "blobs.WriteBlob", err)
}

// ETagOf is what [Store.Write] and [Store.WriteBlob] take for the etag of a blob that was read: never empty, also where the service
// gives none.
func ETagOf(b Blob) string { return etagOf(b) }

// SameMetadata tells whether clients read the same: {} is none.
func SameMetadata(a, b string) bool { return sameMetadata(a, b) }

// WithMembers adds to the text of an array the members of another one that it lacks.
func WithMembers(text, other string) string {
	members, isArray := kv.ParseMembers(other)
	if !isArray {
		return text
	}
	merged, _ := appendMembers(text, members)
	return merged
}

// HasMembers tells whether the text of an array has all members of another one. What is no array has none, and is in none.
func HasMembers(text, other string) bool {
	members, isArray := kv.ParseMembers(text)
	wanted, areArrays := kv.ParseMembers(other)
	known := map[kv.Member]bool{}
	for _, member := range members {
		known[member] = true
	}
	return isArray && areArrays && !slices.ContainsFunc(wanted, func(member kv.Member) bool { return !known[member] })
}

// Remove deletes a blob. Blobs has no condition for it: whoever removes a copy looks again afterwards.
func (s *Store) Remove(ctx context.Context, key string) error {
	return storeError(ctx, "blobs.Remove", s.client.Delete(ctx, key))
}
