package mirror

import (
	"context"
	"fmt"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
)

// SupabaseFirst returns a store that answers as Supabase does and copies every write to Blobs.
func NewSupabasePrimary(p *Pair) kv.Store { return supabasePrimary{p.Supabase, p} }

type supabasePrimary struct {
	*kv.Supabase // reads
	pair         *Pair
}

func (s supabasePrimary) Upsert(ctx context.Context, entry kv.Entry) (kv.Written, error) {
	if err := blobs.CheckEntry(entry); err != nil {
		return kv.Written{}, err
	}
	written, entries, err := s.pair.Supabase.UpsertMirrored(ctx, entry)
	if err == nil {
		s.pair.copyAfterWrite(ctx, "supabase to blobs", func(ctx context.Context) error { return each(ctx, entries, s.pair.toBlobs) })
	}
	return written, err
}

func (s supabasePrimary) Delete(ctx context.Context, key string) (kv.Written, error) {
	if kv.ValidateKey(key) != nil || blobs.ValidateKey(key) != nil { // Blobs cannot have it
		return s.pair.Supabase.Delete(ctx, key)
	}
	written, entries, err := s.pair.Supabase.DeleteMirrored(ctx, key)
	if err == nil {
		s.pair.copyAfterWrite(ctx, "supabase to blobs", func(ctx context.Context) error { return each(ctx, entries, s.pair.toBlobs) })
	}
	return written, err
}

// toBlobs copies a key, and removes the trace once the copy is what the entry is.
//
// The row's token goes into the blob's metadata, and a blob is written only over the one that was seen, and only if that is
// older. So a late write finds the blob changed and does nothing. Removing has no condition; what it may have removed too
// much, or what a late write may have brought back after it, shows in the second look: the entry is not what was copied.
func (p *Pair) toBlobs(ctx context.Context, entry kv.OutboxEntry) error {
	states, err := p.Supabase.States(ctx, []string{entry.Key})
	if err != nil {
		return fmt.Errorf("read the entry: %w", err)
	}
	state := states[0]
	for range rounds {
		settled, err := p.writeBlob(ctx, state)
		if err != nil {
			return err
		}
		if !settled {
			continue
		}
		done, now, err := p.Supabase.ConfirmCopy(ctx, entry, state.Revision)
		if err != nil {
			return fmt.Errorf("confirm the copy: %w", err)
		}
		if done {
			return nil
		}
		state = now
	}
	return errUnsettled
}

// writeBlob brings the blob up to the state. It is false where the blob changed in between.
func (p *Pair) writeBlob(ctx context.Context, state kv.State) (settled bool, err error) {
	etag, revision, err := p.Blobs.Peek(ctx, state.Key)
	switch {
	case err != nil:
		return false, fmt.Errorf("look at the blob: %w", err)
	case state.Revision.IsZero() && etag == "":
		return true, nil
	case state.Revision.IsZero():
		if err := p.Blobs.Remove(ctx, state.Key); err != nil {
			return false, fmt.Errorf("remove the blob: %w", err)
		}
		return true, nil
	case etag != "" && !revision.IsZero() && !revision.Before(state.Revision):
		return true, nil
	}
	if state.IsIndex && etag != "" && (revision.IsZero() || revision.SameRow(state.Revision)) {
		if state.Value, etag, err = p.withMembersOfBlob(ctx, state); err != nil {
			return false, err
		}
	}
	settled, err = p.Blobs.Write(ctx, state, etag)
	if err != nil {
		return false, fmt.Errorf("write the blob: %w", err)
	}
	return settled, nil
}

// withMembersOfBlob keeps the members that only the blob has: while instances of both kinds run, as during a switch, those are
// members that an instance with Blobs first has added and is about to copy.
func (p *Pair) withMembersOfBlob(ctx context.Context, state kv.State) (value, etag string, err error) {
	blob, etag, err := p.Blobs.Read(ctx, state.Key)
	if err != nil {
		return "", "", fmt.Errorf("read the blob: %w", err)
	}
	return blobs.WithMembers(state.Value, blob.Value), etag, nil
}
