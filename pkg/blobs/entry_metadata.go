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
	"time"

	"netlify-supabase-kv/pkg/kv"
)

// metadata holds in a blob's metadata what Blobs does not store of an entry. Its names are short, since Blobs allows
// 2 kB. It is zero for blobs that other programs wrote.
type metadata struct {
	// Revision is the one in Supabase that the blob is a copy of; zero if it was written here.
	Revision kv.RowRevision `json:"v,omitzero"`
	// Created and Updated are microseconds since 1970; 0: not known, or not a time that answers can show.
	Created int64 `json:"c,omitempty"`
	Updated int64 `json:"u,omitempty"`
	// Indexes are the entry's key and member pairs; nil: not known.
	Indexes [][2]string `json:"i,omitzero"`
	// Set is the key of a blob that holds the indexes, if they do not fit here.
	Set string `json:"s,omitempty"`
}

func parseMetadata(text string) (m metadata) {
	if json.Unmarshal([]byte(text), &m) != nil {
		return metadata{}
	}
	m.Created, m.Updated = showable(m.Created), showable(m.Updated)
	return m
}

// showable returns microseconds in the years 1 to 9999, which Supabase takes; 0 for others.
func showable(micros int64) int64 {
	if year := time.UnixMicro(micros).UTC().Year(); year < 1 || year > 9999 {
		return 0
	}
	return micros
}

// state returns the entry with the metadata, without its indexes.
func (m metadata) state(key, value string) kv.State {
	return kv.State{Key: key, Value: value, Created: m.Created, Updated: m.Updated, Revision: m.Revision}
}

// seen returns the entry that was just written. Indexes that are in another blob are left out.
func (m metadata) seen(key, value, etag string) ChangedEntry {
	seen := ChangedEntry{State: m.state(key, value), ETag: etag, Partly: m.Set != ""}
	seen.Indexes = m.Indexes
	return seen
}

// setIndexes puts the indexes into the metadata, or first into another blob if they do not fit.
func (s *Store) setIndexes(ctx context.Context, m *metadata, pairs [][2]string) error {
	m.Indexes, m.Set = pairs, ""
	if len(m.text()) <= MaxMetadataBytes-reserve {
		return nil
	}
	return s.writeSet(ctx, m, pairs)
}

// writeSet puts the indexes into another blob, and its key into the metadata.
func (s *Store) writeSet(ctx context.Context, m *metadata, pairs [][2]string) error {
	text, err := json.Marshal(pairs)
	if err != nil {
		panic(err) // strings
	}
	sum := sha256.Sum256(text)
	m.Indexes, m.Set = nil, hex.EncodeToString(sum[:])
	_, err = s.indexes.Set(ctx, m.Set, text, SetOptions{IfNew: true})
	if errors.Is(err, ErrConditionFailed) { // the key is a hash of the value: the same set is there
		return nil
	}
	return err
}

// errIndexesGone means that the blob with an entry's indexes is missing.
var errIndexesGone = errors.New("the blob with the indexes of an entry is gone")

// indexesOf returns the indexes from the metadata or from the blob that it names; nil: not known.
func (s *Store) indexesOf(ctx context.Context, m metadata) (pairs [][2]string, err error) {
	if m.Set == "" {
		return m.Indexes, nil
	}
	blob, err := s.indexes.GetUpTo(ctx, m.Set, maxReadBytes)
	if errors.Is(err, ErrNotFound) { // of the set: the entry was found
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

// reserve is the room in bytes for a revision and times, which a later copy adds.
const reserve = 100

func (m metadata) text() string {
	text, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings and numbers
	}
	return string(text)
}

// unknownETag stands for the etag of a blob that was read without one, as from netlify dev. Real etags have quotes.
const unknownETag = "unknown"

// ETagOf returns the etag of a blob that was read, for [Store.Write] and [Store.WriteBlob]. It is never "".
func ETagOf(b Blob) string { return cmp.Or(b.ETag, unknownETag) }

// overwriting returns the options of a write over the blob with the etag; "": there must be no blob. An unknown etag
// cannot be a condition.
func overwriting(etag, metadata string) SetOptions {
	if etag == unknownETag {
		return SetOptions{Metadata: metadata}
	}
	return SetOptions{Metadata: metadata, IfMatch: etag, IfNew: etag == ""}
}

// appendMembers adds to an array's JSON text the members that it lacks, and leaves the rest of the text as it is. Any
// other text counts as an empty array.
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
