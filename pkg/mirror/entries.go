package mirror

import (
	"context"
	"errors"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
)

// NewEntries returns the entries of all stores that Supabase has, as entries reads them. What is written to
// [kv.DefaultStore] is copied to Blobs; the other stores are Supabase's alone.
func NewEntries(entries kv.Entries, p *Pair) kv.Entries { return mirrored{entries, p} }

type mirrored struct {
	kv.Entries // reads
	pair       *Pair
}

// Stats returns the counters of the cache that is read through; all zero without one.
func (m mirrored) Stats() kv.CacheStats {
	if cache, ok := m.Entries.(interface{ Stats() kv.CacheStats }); ok {
		return cache.Stats()
	}
	return kv.CacheStats{}
}

func (m mirrored) Apply(ctx context.Context, b kv.Batch) (kv.BatchResult, error) {
	result, outbox, err := m.pair.Supabase.ApplyMirrored(ctx, b, refuse)
	if err == nil {
		m.copy(ctx, outbox)
	}
	return result, err
}

func (m mirrored) Clear(ctx context.Context, store, prefix string, confirm int) (int, string, error) {
	written, outbox, err := m.pair.Supabase.ClearMirrored(ctx, store, prefix, confirm)
	if err != nil {
		return 0, "", err
	}
	m.copy(ctx, outbox)
	return confirm, written.Version, nil
}

// copy copies the keys of outbox entries. Blobs never had those that it cannot have.
func (m mirrored) copy(ctx context.Context, outbox []kv.OutboxEntry) {
	if len(outbox) == 0 {
		return
	}
	var possible, impossible []kv.OutboxEntry
	for _, entry := range outbox {
		if blobs.ValidateKey(entry.Key) != nil {
			impossible = append(impossible, entry)
		} else {
			possible = append(possible, entry)
		}
	}
	m.pair.copyAfterWrite(ctx, "supabase to blobs", func(ctx context.Context) error {
		err := each(ctx, possible, m.pair.toBlobs)
		if len(impossible) > 0 {
			err = errors.Join(err, m.pair.Supabase.RemoveOutboxEntries(ctx, impossible))
		}
		return err
	})
}

// refuse refuses what Blobs cannot keep, so that the two stores stay the same.
func refuse(o kv.Operation) error {
	switch {
	case o.Store != kv.DefaultStore:
		return nil
	case o.IfMatch != nil || o.IfNoneMatch != nil || o.TTL != 0 || !o.Expires.IsZero() || o.Metadata != "":
		return &kv.Error{Code: kv.CodeConflict, Message: "while writes are mirrored, the store kv takes no conditions, expiry or metadata, which Netlify Blobs cannot keep: use another store"}
	case o.Action == kv.ActionPut || o.Action == kv.ActionIncrement:
		return blobs.CheckEntry(kv.Entry{Key: o.Key, Value: string(o.Data), Indexes: o.Indexes})
	}
	return nil
}
