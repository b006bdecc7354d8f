package migrate

import (
	"context"
	"encoding/binary"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
)

// listing is what a source has, in key order, as it was listed at one time.
type listing struct {
	sorted       *sorter
	blobs        int
	bytes        int64
	unanswerable int // larger than what a function can answer with
	largest      []Sized
}

// list lists a source. One without a single blob is [ErrEmptySource].
func list(ctx context.Context, source Source, dir string, progress Progress) (l *listing, err error) {
	progress.Stage("listing", -1)
	l = &listing{sorted: newSorter(tempDir(dir)), largest: []Sized{}}
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
		if err := l.sorted.add(blob.Key, string(append(data, blob.ETag...))); err != nil {
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

func (l *listing) close() { l.sorted.close() }

// all are the blobs, each key once.
func (l *listing) all() iter.Seq2[blobs.Listed, error] {
	return func(yield func(blobs.Listed, error) bool) {
		last, first := "", true
		for r, err := range l.sorted.all() {
			if err != nil {
				yield(blobs.Listed{}, err)
				return
			}
			if !first && r.key == last {
				continue
			}
			last, first = r.key, false
			data := []byte(r.data)
			size, n := binary.Varint(data)
			modified, m := binary.Varint(data[n:])
			blob := blobs.Listed{Key: r.key, Size: size, ETag: r.data[n+m:]}
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

// cursor is a stream that is read beside others, of things that have keys.
type cursor[T any] struct {
	next  func() (T, error, bool)
	stop  func()
	key   func(T) string
	now   T
	there bool
}

func newCursor[T any](seq iter.Seq2[T, error], key func(T) string) *cursor[T] {
	c := &cursor[T]{key: key}
	c.next, c.stop = iter.Pull2(seq)
	return c
}

func (c *cursor[T]) advance() (err error) {
	c.now, err, c.there = c.next()
	return err
}

// upTo goes on until the stream has the key, or is behind it.
func (c *cursor[T]) upTo(key string) error {
	for c.there && c.key(c.now) < key {
		if err := c.advance(); err != nil {
			return err
		}
	}
	return nil
}

func listedKey(b blobs.Listed) string  { return b.Key }
func derivedKey(p derivedPairs) string { return p.key }
func knownKey(k kv.Known) string       { return k.Key }
func digestKey(d kv.Digest) string     { return d.Key }

// at takes what the stream has for the key, if it is that now.
func (c *cursor[T]) at(key string) (T, bool) {
	return c.now, c.there && c.key(c.now) == key
}

// none is a stream without anything.
func none[T any](func(T, error) bool) {}

// walk merges what was listed, what rules give, and what the database knows, in key order. Pairs of keys that neither of the others has
// are left out, and given to unnamed.
func walk(listed iter.Seq2[blobs.Listed, error], derived iter.Seq2[derivedPairs, error], known iter.Seq2[kv.Known, error],
	digests iter.Seq2[kv.Digest, error], unnamed func(derivedPairs)) iter.Seq2[step, error] {
	return func(yield func(step, error) bool) {
		l := newCursor(listed, listedKey)
		d := newCursor(derived, derivedKey)
		k := newCursor(known, knownKey)
		g := newCursor(digests, digestKey)
		defer l.stop()
		defer d.stop()
		defer k.stop()
		defer g.stop()
		advance := []func() error{l.advance, d.advance, k.advance, g.advance}
		for _, each := range advance {
			if err := each(); err != nil {
				yield(step{}, err)
				return
			}
		}
		for l.there || d.there || k.there || g.there {
			s := step{}
			first := true
			for _, key := range []struct {
				key   string
				there bool
			}{{l.key(l.now), l.there}, {d.key(d.now), d.there}, {k.key(k.now), k.there}, {g.key(g.now), g.there}} {
				if key.there && (first || key.key < s.key) {
					s.key, first = key.key, false
				}
			}
			var moving []func() error
			if blob, ok := l.at(s.key); ok {
				s.listed, moving = &blob, append(moving, l.advance)
			}
			if p, ok := d.at(s.key); ok {
				s.pairs, moving = p.pairs, append(moving, d.advance)
				if s.listed == nil {
					unnamed(p)
				}
			}
			if known, ok := k.at(s.key); ok {
				s.known, moving = &known, append(moving, k.advance)
			}
			if digest, ok := g.at(s.key); ok {
				s.digest, moving = &digest, append(moving, g.advance)
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

// pages asks for one page after the other, each in advance. A page with fewer than limit is the last.
func pages[T any](ctx context.Context, limit int, key func(T) string, get func(ctx context.Context, after string) ([]T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		type page struct {
			all []T
			err error
		}
		ctx, cancel := context.WithCancel(ctx)
		ahead := make(chan page)
		go func() {
			defer close(ahead)
			for after := ""; ; {
				all, err := get(ctx, after)
				select {
				case ahead <- page{all, err}:
				case <-ctx.Done():
					return
				}
				if err != nil || len(all) < limit {
					return
				}
				after = key(all[len(all)-1])
			}
		}()
		defer func() {
			cancel()
			for range ahead { // until it has ended
			}
		}()
		for p := range ahead {
			if p.err != nil {
				var none T
				yield(none, p.err)
				return
			}
			for _, one := range p.all {
				if !yield(one, nil) {
					return
				}
			}
		}
	}
}

// ordered does something with each of a stream, some at a time, and gives the results in the order of the stream. weigh bounds what is
// held at a time by [maxBytesAtOnce].
func ordered[T, R any](ctx context.Context, parallel int, in iter.Seq2[T, error], weigh func(T) int64, do func(context.Context, T) R) iter.Seq2[R, error] {
	type slot struct {
		done   chan R
		weight int64
		err    error
	}
	return func(yield func(R, error) bool) {
		var none R
		outer := ctx
		ctx, cancel := context.WithCancel(ctx)
		var workers sync.WaitGroup
		defer workers.Wait()
		defer cancel()
		memory, queue := semaphore.NewWeighted(maxBytesAtOnce), make(chan slot, 4*parallel)
		workers.Go(func() {
			defer close(queue)
			running := make(chan struct{}, parallel)
			for item, err := range in {
				s := slot{done: make(chan R, 1), err: err}
				if err == nil {
					s.weight = min(weigh(item), maxBytesAtOnce)
					if memory.Acquire(ctx, s.weight) != nil {
						return
					}
				}
				select {
				case queue <- s:
				case <-ctx.Done():
					return
				}
				if err != nil {
					return
				}
				select {
				case running <- struct{}{}:
				case <-ctx.Done():
					return
				}
				workers.Go(func() {
					s.done <- do(ctx, item)
					<-running
				})
			}
		})
		for s := range queue {
			if s.err != nil {
				yield(none, s.err)
				return
			}
			select {
			case r := <-s.done:
				if outer.Err() != nil {
					yield(none, outer.Err())
					return
				}
				goOn := yield(r, nil)
				memory.Release(s.weight)
				if !goOn {
					return
				}
			case <-ctx.Done():
				yield(none, ctx.Err())
				return
			}
		}
		if outer.Err() != nil {
			yield(none, outer.Err())
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

// all is a slice as a stream.
func all[T any](values []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, value := range values {
			if !yield(value, nil) {
				return
			}
		}
	}
}
