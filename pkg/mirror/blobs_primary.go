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

// NewBlobsPrimary returns a store that answers from Blobs and copies every write to Supabase.
func NewBlobsPrimary(p *Pair) kv.Store { return blobsPrimary{p.Blobs, p} }

type blobsPrimary struct {
	*blobs.Store // reads
	pair         *Pair
}

// outboxTimeout bounds how long a write waits for its outbox entries. If the database cannot be reached, the write
// goes on without them.
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
		return write.Written, err // the outbox entries stay: a part may have been written, or still arrive
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

// addOutboxEntries adds the outbox entries of a write. If the database cannot be reached there are none, which the
// log says: then only a comparison of the stores finds what the mirror lacks.
func (p *Pair) addOutboxEntries(ctx context.Context, keys []string) []kv.OutboxEntry {
	ctx, cancel := context.WithTimeout(ctx, outboxTimeout)
	defer cancel()
	entries, err := p.Supabase.AddOutboxEntries(ctx, keys)
	if err != nil {
		p.logFailure("blobs to supabase", fmt.Errorf("add outbox entries: %w", err))
	}
	return entries
}

// copyChanged copies the entries that a write changed, its own first, and removes its outbox entries. Index entries
// that the write did not change are copied by whoever changed them.
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

// toSupabase copies a key until the blob does not change any more.
//
// The row's revision was read before the blob, and the copy applies only to that revision. If another copy of a newer
// blob came between, this one starts over. If the blob changed after it was read, the second look finds that. Both
// hold too for a blob that is known because this process has just written it; nil: not known.
//
// isIndex means that members were added to the key. Then the copy only adds members: while instances of both kinds
// run, the row may have others that are about to be copied to the blob. A blob that has only gained members since it
// was read is not read again, since whoever added them copies them.
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

// read returns the known entry, or reads the blob.
func (p *Pair) read(ctx context.Context, key string, known *blobs.ChangedEntry) (state kv.State, etag string, err error) {
	if known != nil && !known.Partly {
		return known.State, known.ETag, nil
	}
	return p.Blobs.Read(ctx, key)
}
