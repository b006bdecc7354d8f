package blobs

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"netlify-supabase-kv/pkg/kv"
)

// metadata is what a blob's metadata says of its entry, as short as it can be: Blobs keeps 2 kB. Blobs that others wrote have none.
type metadata struct {
	// Token is what the entry was like in Supabase when it was copied here; empty where it was written here.
	Revision kv.RowRevision `json:"v,omitzero"`
	// Created and Updated are microseconds since 1970; 0: nobody knows.
	Created int64 `json:"c,omitempty"`
	Updated int64 `json:"u,omitempty"`
	// Indexes are the entry's key and member pairs; nil: nobody knows.
	Indexes [][2]string `json:"i,omitzero"`
	// Set names the blob that holds the indexes where they do not fit here.
	Set string `json:"s,omitempty"`
}

func parseMetadata(text string) (m metadata) {
	if json.Unmarshal([]byte(text), &m) != nil {
		return metadata{}
	}
	return m
}

// state is the entry that has the metadata, without its indexes.
func (m metadata) state(key, value string) kv.State {
	return kv.State{Key: key, Value: value, Created: m.Created, Updated: m.Updated, Revision: m.Revision}
}

// seen is the entry that was just written. Indexes that are in a blob of their own are not known without reading that.
func (m metadata) seen(key, value, etag string) ChangedEntry {
	seen := ChangedEntry{State: m.state(key, value), ETag: etag, Partly: m.Set != ""}
	seen.Indexes = m.Indexes
	return seen
}

// setIndexes replaces the indexes in the metadata. Those that do not fit are written as a blob of their own first.
func (s *Store) setIndexes(ctx context.Context, m *metadata, pairs [][2]string) error {
	m.Indexes, m.Set = pairs, ""
	if len(m.text()) <= MaxMetadataBytes-reserve {
		return nil
	}
	return s.writeSet(ctx, m, pairs)
}

// writeSet puts the indexes into a blob of their own, which the metadata names.
func (s *Store) writeSet(ctx context.Context, m *metadata, pairs [][2]string) error {
	text, err := json.Marshal(pairs)
	if err != nil {
		panic(err) // strings
	}
	sum := sha256.Sum256(text)
	m.Indexes, m.Set = nil, hex.EncodeToString(sum[:])
	_, err = s.indexes.Set(ctx, m.Set, text, SetOptions{IfNew: true})
	if errors.Is(err, ErrConditionFailed) { // the same set is there already
		return nil
	}
	return err
}

// errIndexesGone is an entry whose metadata names a blob with its indexes that is not there.
var errIndexesGone = errors.New("the blob with the indexes of an entry is gone")

// indexesOf are the indexes that the metadata speaks of.
func (s *Store) indexesOf(ctx context.Context, m metadata) (pairs [][2]string, err error) {
	if m.Set == "" {
		return m.Indexes, nil
	}
	blob, err := s.indexes.GetUpTo(ctx, m.Set, maxReadBytes)
	if errors.Is(err, ErrNotFound) { // the entry is there, so this is nobody's "not found"
		return nil, errIndexesGone
	}
	if err != nil {
		return nil, fmt.Errorf("read the indexes of an entry: %w", err)
	}
	if err := json.Unmarshal(blob.Value, &pairs); err != nil {
		return nil, fmt.Errorf("read the indexes of an entry: %w", err)
	}
	return pairs, nil
}

// reserve is kept for a token and longer times, so that a copy that adds them still fits.
const reserve = 100

func (m metadata) text() string {
	text, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings and numbers
	}
	return string(text)
}

// unknownETag is that of a blob which is read without one, as from the local server of netlify dev. It has no quotes, as others do.
const unknownETag = "unknown"

// etagOf is the etag of a blob that is there: never empty.
func etagOf(b Blob) string { return cmp.Or(b.ETag, unknownETag) }

// over is a write with the metadata, over the blob with the etag; "" where there is none. Where the etag is not known, there can
// be no condition.
func (m metadata) overwriting(etag string) SetOptions {
	if etag == unknownETag {
		return SetOptions{Metadata: m.text()}
	}
	return SetOptions{Metadata: m.text(), IfMatch: etag, IfNew: etag == ""}
}

// appendMembers adds to the text of an array the members that are not in it. The rest of the text stays as it is. Anything but
// an array counts as an empty one.
func appendMembers(text string, members []kv.Member) (appended string, grown bool) {
	present, isArray := kv.ParseMembers(text)
	if !isArray {
		text = "[]"
	}
	known := map[kv.Member]bool{}
	for _, member := range present {
		known[member] = true
	}
	const space = " \t\r\n"
	out := []byte(strings.TrimRight(strings.TrimSuffix(strings.TrimRight(text, space), "]"), space))
	for _, member := range members {
		if known[member] {
			continue
		}
		known[member], grown = true, true
		if out[len(out)-1] != '[' {
			out = append(out, ',')
		}
		out = member.AppendJSON(out)
	}
	return string(append(out, ']')), grown
}
