package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
)

// BlobsFirst returns a store that answers as Blobs does and copies every write to Supabase.
func BlobsFirst(p *Pair) kv.Store { return blobsFirst{p.Blobs, p} }

type blobsFirst struct {
	*blobs.Store // reads
	pair         *Pair
}

// traceTime bounds how long a write waits for its trace: where the database cannot be reached, Blobs answers without it.
const traceTime = 2 * time.Second

func (s blobsFirst) Upsert(ctx context.Context, entry kv.Entry) (kv.Written, error) {
	if err := blobs.CheckEntry(entry); err != nil {
		return kv.Written{}, err
	}
	keys := []string{entry.Key}
	for _, index := range entry.Indexes {
		if !slices.Contains(keys, index.Key) {
			keys = append(keys, index.Key)
		}
	}
	traces := s.pair.begin(ctx, keys)
	write, err := s.pair.Blobs.Put(ctx, entry)
	if err != nil {
		return write.Written, err // the traces stay: something may have been written, or be on its way
	}
	s.pair.copied(ctx, "blobs to supabase", func(ctx context.Context) error { return s.pair.follow(ctx, traces, write.Changed) })
	return write.Written, nil
}

func (s blobsFirst) Delete(ctx context.Context, key string) (kv.Written, error) {
	if kv.ValidateKey(key) != nil || blobs.ValidateKey(key) != nil {
		return s.pair.Blobs.Delete(ctx, key)
	}
	traces := s.pair.begin(ctx, []string{key})
	written, err := s.pair.Blobs.Delete(ctx, key)
	if err == nil {
		s.pair.copied(ctx, "blobs to supabase", func(ctx context.Context) error {
			return s.pair.follow(ctx, traces, []blobs.Seen{{State: kv.State{Key: key}}})
		})
	}
	return written, err
}

// begin leaves the traces of a write. Without the database there are none; then only a comparison of the stores finds what
// the mirror lacks, and the log says so.
func (p *Pair) begin(ctx context.Context, keys []string) []kv.Trace {
	ctx, cancel := context.WithTimeout(ctx, traceTime)
	defer cancel()
	traces, err := p.Supabase.CopyBegin(ctx, keys)
	if err != nil {
		p.failed("blobs to supabase", fmt.Errorf("leave a trace: %w", err))
	}
	return traces
}

// follow copies the entries that a write changed, of which the first is its own, and removes all of its traces. Index entries that it
// did not change are whoever changed them to copy.
func (p *Pair) follow(ctx context.Context, traces []kv.Trace, changed []blobs.Seen) error {
	left := map[string]*blobs.Seen{}
	for i := range changed {
		left[changed[i].Key] = &changed[i]
	}
	var copying, done []kv.Trace
	for _, trace := range traces {
		if left[trace.Key] != nil {
			copying = append(copying, trace)
		} else {
			done = append(done, trace)
		}
	}
	failed := each(ctx, copying, func(ctx context.Context, trace kv.Trace) error {
		return p.toSupabase(ctx, trace, trace.Key != changed[0].Key, left[trace.Key])
	})
	if failed == nil {
		done = traces
	}
	if len(done) == 0 {
		return failed
	}
	if err := p.Supabase.CopyForget(ctx, done); err != nil {
		return errors.Join(failed, fmt.Errorf("remove the traces: %w", err))
	}
	return failed
}

func (p *Pair) toSupabaseAndForget(ctx context.Context, trace kv.Trace) error {
	if err := p.toSupabase(ctx, trace, false, nil); err != nil {
		return err
	}
	return p.Supabase.CopyForget(ctx, []kv.Trace{trace})
}

// toSupabase copies a key until the blob has not moved.
//
// The entry's token was read before the blob is, and the copy is a compare-and-set on it: if another copied a newer blob in
// between, this copy does not apply, and looks again. If the blob changed after it was read, that shows in the second look.
// The same holds for what was written since the token was read (left, nil where that is not known), so that is copied first without
// reading it.
//
// isIndex: members were added to the key. Then only those that are missing are added: while instances of both kinds run, the
// row may have others that are about to be copied to the blob. And a blob that has only got more members since it was read need not
// be read once more: whoever added them copies them.
func (p *Pair) toSupabase(ctx context.Context, trace kv.Trace, isIndex bool, left *blobs.Seen) error {
	expected, copied := trace.Token, ""
	for range rounds {
		state, etag, err := p.read(ctx, trace.Key, left)
		if err != nil {
			return fmt.Errorf("read the blob: %w", err)
		}
		left = nil
		if copied != "" && blobs.HasMembers(state.Value, copied) {
			return nil
		}
		state.IsIndex = isIndex
		applied, now, err := p.Supabase.Copy(ctx, state, expected, isIndex)
		if err != nil {
			return fmt.Errorf("write the entry: %w", err)
		}
		expected = now
		if !applied {
			continue
		}
		again, _, err := p.Blobs.Peek(ctx, trace.Key)
		if err != nil {
			return fmt.Errorf("look at the blob again: %w", err)
		}
		if again == etag {
			return nil
		}
		if isIndex {
			copied = state.Value
		}
	}
	return errUnsettled
}

// read reads the blob, unless it is known.
func (p *Pair) read(ctx context.Context, key string, known *blobs.Seen) (state kv.State, etag string, err error) {
	if known != nil && !known.Partly {
		return known.State, known.ETag, nil
	}
	return p.Blobs.Read(ctx, key)
}
