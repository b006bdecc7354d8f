package migrate

import (
	"context"
	"encoding/binary"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/stream"
)

// listing is what a source has, in key order, as it was listed at one time.
type listing struct {
	sorted       *stream.Sorter
	blobs        int
	bytes        int64
	unanswerable int // larger than what a function can answer with
	largest      []Sized
}

// list lists a source. One without a single blob is [ErrEmptySource].
func list(ctx context.Context, source Source, dir string, progress Progress) (l *listing, err error) {
	progress.Stage("listing", -1)
	l = &listing{sorted: stream.NewSorter(tempDir(dir)), largest: []Sized{}}
	defer func(l *listing) {
		if err != nil {
			l.close()
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
	for blob, err := range l.all() {
		if err != nil {
			return nil, err
		}
		l.count(blob)
	}
	if l.blobs == 0 {
		return nil, ErrEmptySource
	}
	return l, nil
}

func (l *listing) count(blob blobs.Listed) {
	l.blobs++
	l.bytes += blob.Size
	if blob.Size > kv.MaxResponseBytes {
		l.unanswerable++
	}
	at, _ := slices.BinarySearchFunc(l.largest, blob.Size, func(s Sized, size int64) int {
		if s.Bytes >= size {
			return -1
		}
		return 1
	})
	if at < maxLargest {
		l.largest = slices.Insert(l.largest, at, Sized{blob.Key, blob.Size})
		l.largest = l.largest[:min(len(l.largest), maxLargest)]
	}
}

func (l *listing) close() { l.sorted.Close() }

// all are the blobs, each key once.
func (l *listing) all() iter.Seq2[blobs.Listed, error] {
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

// under are the blobs whose keys begin with the prefix.
func (l *listing) under(prefix string) iter.Seq2[blobs.Listed, error] {
	return func(yield func(blobs.Listed, error) bool) {
		for blob, err := range l.all() {
			if err == nil && !strings.HasPrefix(blob.Key, prefix) {
				continue
			}
			if !yield(blob, err) {
				return
			}
		}
	}
}

// step is a key that at least one of the merged streams has.
type step struct {
	key    string
	listed *blobs.Listed
	pairs  [][2]string // that rules give it
	known  *kv.Known   // what is remembered of it
	digest *kv.Digest  // what the database has of it
}

func listedKey(b blobs.Listed) string  { return b.Key }
func derivedKey(p derivedPairs) string { return p.key }
func knownKey(k kv.Known) string       { return k.Key }
func digestKey(d kv.Digest) string     { return d.Key }

// walk merges what was listed, what rules give, and what the database knows, in key order. Pairs of keys that neither of the others has
// are left out, and given to unnamed.
func walk(listed iter.Seq2[blobs.Listed, error], derived iter.Seq2[derivedPairs, error], known iter.Seq2[kv.Known, error],
	digests iter.Seq2[kv.Digest, error], unnamed func(derivedPairs)) iter.Seq2[step, error] {
	return func(yield func(step, error) bool) {
		l, d := stream.NewCursor(listed, listedKey), stream.NewCursor(derived, derivedKey)
		k, g := stream.NewCursor(known, knownKey), stream.NewCursor(digests, digestKey)
		for _, stop := range []func(){l.Stop, d.Stop, k.Stop, g.Stop} {
			defer stop()
		}
		for _, advance := range []func() error{l.Advance, d.Advance, k.Advance, g.Advance} {
			if err := advance(); err != nil {
				yield(step{}, err)
				return
			}
		}
		for {
			s, any := step{}, false
			for _, keyOf := range []func() (string, bool){l.Key, d.Key, k.Key, g.Key} {
				if key, there := keyOf(); there && (!any || key < s.key) {
					s.key, any = key, true
				}
			}
			if !any {
				return
			}
			var moving []func() error
			if blob, ok := l.At(s.key); ok {
				s.listed, moving = &blob, append(moving, l.Advance)
			}
			if p, ok := d.At(s.key); ok {
				s.pairs, moving = p.pairs, append(moving, d.Advance)
				if s.listed == nil {
					unnamed(p)
				}
			}
			if known, ok := k.At(s.key); ok {
				s.known, moving = &known, append(moving, k.Advance)
			}
			if digest, ok := g.At(s.key); ok {
				s.digest, moving = &digest, append(moving, g.Advance)
			}
			if (s.listed != nil || s.known != nil || s.digest != nil) && !yield(s, nil) {
				return
			}
			for _, each := range moving {
				if err := each(); err != nil {
					yield(step{}, err)
					return
				}
			}
		}
	}
}

// seen is a step whose blob was read.
type seen struct {
	step
	item Item
}

// readSteps reads the blobs of the steps, in their order.
func readSteps(ctx context.Context, source Source, steps iter.Seq2[step, error]) iter.Seq2[seen, error] {
	return func(yield func(seen, error) bool) {
		var mu sync.Mutex
		var waiting []step // read, or about to be
		items := source.Read(ctx, func(yield func(blobs.Listed, error) bool) {
			for s, err := range steps {
				wanted := blobs.Listed{Key: s.key}
				if s.listed != nil {
					wanted = *s.listed
				}
				mu.Lock()
				waiting = append(waiting, s)
				mu.Unlock()
				if !yield(wanted, err) {
					return
				}
			}
		})
		for item, err := range items {
			if err != nil {
				yield(seen{}, err)
				return
			}
			mu.Lock()
			s := waiting[0]
			waiting = waiting[1:]
			mu.Unlock()
			if !yield(seen{s, item}, nil) {
				return
			}
		}
	}
}
