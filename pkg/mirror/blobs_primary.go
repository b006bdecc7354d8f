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
func NewBlobsPrimary(p *Pair) kv.Store { return blobsPrimary{p.Blobs, p} }

type blobsPrimary struct {
	*blobs.Store // reads
	pair         *Pair
}

// traceTime bounds how long a write waits for its trace: where the database cannot be reached, Blobs answers without it.
const outboxTimeout = 2 * time.Second

func (s blobsPrimary) Upsert(ctx context.Context, entry kv.Entry) (kv.Written, error) {
	if err := blobs.CheckEntry(entry); err != nil {
		return kv.Written{}, err
	}
	keys := []string{entry.Key}
	for _, index := range entry.Indexes {
		if !slices.Contains(keys, index.Key) {
			keys = append(keys, index.Key)
		}
	}
	entries := s.pair.addOutboxEntries(ctx, keys)
	write, err := s.pair.Blobs.Put(ctx, entry)
	if err != nil {
		return write.Written, err // the traces stay: something may have been written, or be on its way
	}
	s.pair.copyAfterWrite(ctx, "blobs to supabase", func(ctx context.Context) error { return s.pair.copyChanged(ctx, entries, write.Changed) })
	return write.Written, nil
}

func (s blobsPrimary) Delete(ctx context.Context, key string) (kv.Written, error) {
	if kv.ValidateKey(key) != nil || blobs.ValidateKey(key) != nil {
		return s.pair.Blobs.Delete(ctx, key)
	}
	entries := s.pair.addOutboxEntries(ctx, []string{key})
	written, err := s.pair.Blobs.Delete(ctx, key)
	if err == nil {
		s.pair.copyAfterWrite(ctx, "blobs to supabase", func(ctx context.Context) error {
			return s.pair.copyChanged(ctx, entries, []blobs.ChangedEntry{{State: kv.State{Key: key}}})
		})
	}
	return written, err
}

// begin leaves the traces of a write. Without the database there are none; then only a comparison of the stores finds what
// the mirror lacks, and the log says so.
func (p *Pair) addOutboxEntries(ctx context.Context, keys []string) []kv.OutboxEntry {
	ctx, cancel := context.WithTimeout(ctx, outboxTimeout)
	defer cancel()
	entries, err := p.Supabase.AddOutboxEntries(ctx, keys)
	if err != nil {
		p.logFailure("blobs to supabase", fmt.Errorf("add outbox entries: %w", err))
	}
	return entries
}

// follow copies the entries that a write changed, of which the first is its own, and removes all of its traces. Index entries that it
// did not change are whoever changed them to copy.
func (p *Pair) copyChanged(ctx context.Context, entries []kv.OutboxEntry, changed []blobs.ChangedEntry) error {
	known := map[string]*blobs.ChangedEntry{}
	for i := range changed {
		known[changed[i].Key] = &changed[i]
	}
	var copying, done []kv.OutboxEntry
	for _, entry := range entries {
		if known[entry.Key] != nil {
			copying = append(copying, entry)
		} else {
			done = append(done, entry)
		}
	}
	failed := each(ctx, copying, func(ctx context.Context, entry kv.OutboxEntry) error {
		return p.toSupabase(ctx, entry, entry.Key != changed[0].Key, known[entry.Key])
	})
	if failed == nil {
		done = entries
	}
	if len(done) == 0 {
		return failed
	}
	if err := p.Supabase.RemoveOutboxEntries(ctx, done); err != nil {
		return errors.Join(failed, fmt.Errorf("remove outbox entries: %w", err))
	}
	return failed
}

func (p *Pair) repairSupabase(ctx context.Context, entry kv.OutboxEntry) error {
	if err := p.toSupabase(ctx, entry, false, nil); err != nil {
		return err
	}
	return p.Supabase.RemoveOutboxEntries(ctx, []kv.OutboxEntry{entry})
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
func (p *Pair) toSupabase(ctx context.Context, entry kv.OutboxEntry, isIndex bool, known *blobs.ChangedEntry) error {
	expected, copied := entry.Revision, ""
	for range rounds {
		state, etag, err := p.read(ctx, entry.Key, known)
		if err != nil {
			return fmt.Errorf("read the blob: %w", err)
		}
		known = nil
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
		again, _, err := p.Blobs.Peek(ctx, entry.Key)
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
func (p *Pair) read(ctx context.Context, key string, known *blobs.ChangedEntry) (state kv.State, etag string, err error) {
	if known != nil && !known.Partly {
		return known.State, known.ETag, nil
	}
	return p.Blobs.Read(ctx, key)
}
