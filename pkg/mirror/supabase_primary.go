package mirror

import (
	"context"
	"fmt"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
)

// NewSupabasePrimary returns a store that answers from Supabase and copies every write to Blobs.
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

// toBlobs copies a key, and removes the outbox entry once the copy is current.
//
// The row's revision goes into the blob's metadata. A blob is written only over the one that was read, and only if
// that is older, so a late write finds the blob changed and does nothing. A removal has no condition. If it removed
// too much, or a late write brought something back after it, ConfirmCopy finds that the entry is not what was copied.
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

// writeBlob brings the blob up to the state. settled is false if the blob changed meanwhile.
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

// withMembersOfBlob returns the state's value with the members that only the blob has. While instances of both kinds
// run, as during a switch, an instance with Blobs as primary has added those and is about to copy them.
func (p *Pair) withMembersOfBlob(ctx context.Context, state kv.State) (value, etag string, err error) {
	blob, etag, err := p.Blobs.Read(ctx, state.Key)
	if err != nil {
		return "", "", fmt.Errorf("read the blob: %w", err)
	}
	return blobs.WithMembers(state.Value, blob.Value), etag, nil
}
