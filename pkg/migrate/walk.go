package migrate

import (
	"context"
	"iter"
	"sync"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/entries"
	"netlify-supabase-kv/pkg/migrate/sources"
	"netlify-supabase-kv/pkg/stream"
)

// step is a key that at least one of the merged streams has.
type step struct {
	key    string
	listed *blobs.Listed
	pairs  [][2]string // that rules give it
	known  *kv.Known   // what is remembered of it
	digest *kv.Digest  // what the database has of it
}

func listedKey(b blobs.Listed) string     { return b.Key }
func derivedKey(p entries.Derived) string { return p.Key }
func knownKey(k kv.Known) string          { return k.Key }
func digestKey(d kv.Digest) string        { return d.Key }

// walk merges what was listed, what rules give, and what the database knows, in key order. Pairs of keys that neither
// of the others has are left out, and given to unnamed.
func walk(listed iter.Seq2[blobs.Listed, error], derived iter.Seq2[entries.Derived, error], known iter.Seq2[kv.Known, error],
	digests iter.Seq2[kv.Digest, error], unnamed func(entries.Derived)) iter.Seq2[step, error] {
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
				s.pairs, moving = p.Pairs, append(moving, d.Advance)
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
	item sources.Item
}

// readSteps reads the blobs of the steps, in their order.
func readSteps(ctx context.Context, source sources.Source, steps iter.Seq2[step, error]) iter.Seq2[seen, error] {
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
