package sources

import (
	"context"
	"encoding/binary"
	"iter"
	"slices"
	"strings"
	"time"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/stream"
)

// Listing is what a source has, in key order, as it was listed at one time. Close it.
type Listing struct {
	Contents
	sorted *stream.Sorter
}

// List lists a source. One without a single blob is [ErrEmpty]. dir is where it is sorted, if it is large: see
// [stream.NewSorter].
func List(ctx context.Context, source Source, dir string, progress Progress) (l *Listing, err error) {
	progress.Stage("listing", -1)
	l = &Listing{Contents: Contents{Largest: []Sized{}}, sorted: stream.NewSorter(dir)}
	defer func(l *Listing) {
		if err != nil {
			l.Close()
		}
	}(l)
	for blob, err := range source.List(ctx) {
		if err != nil {
			return nil, err
		}
		data := binary.AppendVarint(binary.AppendVarint(nil, blob.Size), blob.LastModified.UnixMicro())
		if blob.LastModified.IsZero() {
			data = binary.AppendVarint(binary.AppendVarint(nil, blob.Size), 0)
		}
		if err := l.sorted.Add(blob.Key, string(append(data, blob.ETag...))); err != nil {
			return nil, err
		}
	}
	for blob, err := range l.All() {
		if err != nil {
			return nil, err
		}
		l.count(blob)
	}
	if l.Blobs == 0 {
		return nil, ErrEmpty
	}
	return l, nil
}

func (l *Listing) count(blob blobs.Listed) {
	l.Blobs++
	l.Bytes += blob.Size
	if blob.Size > kv.MaxResponseBytes {
		l.Unanswerable++
	}
	at, _ := slices.BinarySearchFunc(l.Largest, blob.Size, func(s Sized, size int64) int {
		if s.Bytes >= size {
			return -1
		}
		return 1
	})
	if at < maxLargest {
		l.Largest = slices.Insert(l.Largest, at, Sized{blob.Key, blob.Size})
		l.Largest = l.Largest[:min(len(l.Largest), maxLargest)]
	}
}

// Close gives back the room that sorting took.
func (l *Listing) Close() { l.sorted.Close() }

// All are the blobs, each key once.
func (l *Listing) All() iter.Seq2[blobs.Listed, error] {
	return func(yield func(blobs.Listed, error) bool) {
		last, first := "", true
		for r, err := range l.sorted.All() {
			if err != nil {
				yield(blobs.Listed{}, err)
				return
			}
			if !first && r.Key == last {
				continue
			}
			last, first = r.Key, false
			data := []byte(r.Data)
			size, n := binary.Varint(data)
			modified, m := binary.Varint(data[n:])
			blob := blobs.Listed{Key: r.Key, Size: size, ETag: r.Data[n+m:]}
			if modified != 0 {
				blob.LastModified = time.UnixMicro(modified).UTC()
			}
			if !yield(blob, nil) {
				return
			}
		}
	}
}

// Under are the blobs whose keys begin with the prefix.
func (l *Listing) Under(prefix string) iter.Seq2[blobs.Listed, error] {
	return func(yield func(blobs.Listed, error) bool) {
		for blob, err := range l.All() {
			if err == nil && !strings.HasPrefix(blob.Key, prefix) {
				continue
			}
			if !yield(blob, err) {
				return
			}
		}
	}
}

// Contents is what a source has.
type Contents struct {
	Blobs        int     `json:"blobs"`
	Bytes        int64   `json:"bytes"`
	Unanswerable int     `json:"unanswerable"` // larger than what a function can answer with: 6 MB
	Largest      []Sized `json:"largest"`
}

// Sized is an entry and the bytes of its value.
type Sized struct {
	Key   string `json:"key"`
	Bytes int64  `json:"bytes"`
}

// maxLargest is how many of the largest entries a result names.
const maxLargest = 20
