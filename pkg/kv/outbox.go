package kv

import (
	"context"
	"encoding/base64"

	"github.com/google/uuid"
)

// OutboxEntry is a write whose copy in the other store is not confirmed yet. It is added in the transaction of the
// write or before it, so that a repair finds every write that may lack its copy.
type OutboxEntry struct {
	ID  int64  `json:"id"`
	Key string `json:"key"`
	// Primary is the store that was written first, "blobs" or "supabase". Only [Supabase.OutboxEntries] sets it.
	Primary string `json:"primary"`
	// Revision is the entry's in Supabase when the outbox entry was added. UpsertMirrored and DeleteMirrored leave it
	// zero.
	Revision RowRevision `json:"revision"`
}

// State is an entry for the other store or a backup. Without an entry, Revision is zero and only Key is set.
type State struct {
	Key      string      `json:"key"`
	Revision RowRevision `json:"revision"`
	Value    string      `json:"value"` // JSON text; "" where Data has the bytes
	// Data are the bytes of an entry that is not JSON; not nil, even if there are none.
	Data []byte `json:"data"`
	// ContentType is "" for that which the bytes imply. Metadata is the compact JSON text of an object; "" without one.
	ContentType string `json:"content_type"`
	Metadata    string `json:"metadata"`
	// Expires is in microseconds since 1970; 0: never.
	Expires int64       `json:"expires"`
	Indexes [][2]string `json:"indexes"`
	// IsIndex means that it is an index entry, whose value is an array of members.
	IsIndex bool `json:"is_index"`
	// Created and Updated are microseconds since 1970; 0: not known.
	Created int64 `json:"created"`
	Updated int64 `json:"updated"`
}

// Bytes are those of the entry, JSON or not.
func (s State) Bytes() []byte {
	if s.Data != nil {
		return s.Data
	}
	return []byte(s.Value)
}

// content is how the database takes the bytes of an entry and what describes them. All are nil without an entry.
type content struct {
	Value       *string `json:"p_value"`
	Data        *string `json:"p_data"` // base64
	ContentType *string `json:"p_content_type"`
	Metadata    *string `json:"p_metadata"`
	Expires     *int64  `json:"p_expires"`
}

func (s State) content() content {
	c := content{Value: orNil(s.Value), ContentType: orNil(s.ContentType), Metadata: orNil(s.Metadata), Expires: orNil(s.Expires)}
	if s.Data != nil {
		c.Data = new(base64.StdEncoding.EncodeToString(s.Data))
	}
	return c
}

// UpsertMirrored is [Supabase.Upsert] that also adds an outbox entry for every key that it changes.
func (s *Supabase) UpsertMirrored(ctx context.Context, entry Entry) (Written, []OutboxEntry, error) {
	return s.upsert(ctx, entry, true)
}

// DeleteMirrored is [Supabase.Delete] that also adds an outbox entry, even without an entry: the other store may have
// one.
func (s *Supabase) DeleteMirrored(ctx context.Context, key string) (Written, []OutboxEntry, error) {
	return s.delete(ctx, key, true)
}

// States returns the entries under the keys, in the same order.
func (s *Supabase) States(ctx context.Context, keys []string) (states []State, err error) {
	err = s.callJSON(ctx, "kv_mirror_states", map[string]any{"p_keys": inSpace(s.storeSpace(), keys)}, &states)
	return states, err
}

// ConfirmCopy removes an outbox entry if the copied revision is still current. An index entry may have gained
// members, which their writers copy. Otherwise confirmed is false and now is the entry's present state.
func (s *Supabase) ConfirmCopy(ctx context.Context, entry OutboxEntry, copied RowRevision) (confirmed bool, now State, err error) {
	text, err := s.call(ctx, "kv_mirror_done", map[string]any{"p_id": entry.ID, "p_key": entry.Key, "p_revision": copied})
	if err != nil || text == "" {
		return err == nil, State{}, err
	}
	err = decodeResponse("kv_mirror_done", text, &now)
	return false, now, err
}

// AddOutboxEntries adds an outbox entry for each key before it is written to Blobs.
func (s *Supabase) AddOutboxEntries(ctx context.Context, keys []string) (entries []OutboxEntry, err error) {
	err = s.callJSON(ctx, "kv_mirror_begin", map[string]any{"p_keys": keys, "p_request": newRequest()}, &entries)
	return entries, err
}

// OutboxEntries returns up to limit outbox entries with an ID above after, the oldest first.
func (s *Supabase) OutboxEntries(ctx context.Context, after int64, limit int) (entries []OutboxEntry, err error) {
	err = s.callJSON(ctx, "kv_mirror_outbox", map[string]any{"p_after": after, "p_limit": limit}, &entries)
	return entries, err
}

// RemoveOutboxEntries removes outbox entries whose writes have been copied.
func (s *Supabase) RemoveOutboxEntries(ctx context.Context, entries []OutboxEntry) error {
	ids := make([]int64, len(entries))
	for i, entry := range entries {
		ids[i] = entry.ID
	}
	_, err := s.call(ctx, "kv_mirror_forget", map[string]any{"p_ids": ids})
	return err
}

// Copy replaces an entry with state, or deletes it where state has no bytes, if its revision is still the expected
// one. Otherwise applied is false. now is the revision afterwards in either case. Indexes that are nil and times that
// are 0 stay as they are.
//
// With added, state is an index entry that gained members in Blobs: members that only Supabase has are kept, and the
// expected revision may have fewer members than the present one.
func (s *Supabase) Copy(ctx context.Context, state State, expected RowRevision, added bool) (applied bool, now RowRevision, err error) {
	var response struct {
		Applied  bool
		Revision RowRevision
	}
	err = s.callJSON(ctx, "kv_mirror_copy", struct {
		Key      string      `json:"p_key"`
		Expected RowRevision `json:"p_expected"`
		Indexes  [][2]string `json:"p_indexes"`
		IsIndex  bool        `json:"p_is_index"`
		Add      bool        `json:"p_add"`
		Created  *int64      `json:"p_created"`
		Updated  *int64      `json:"p_updated"`
		Request  uuid.UUID   `json:"p_request"`
		content
	}{s.storeSpace() + state.Key, expected, state.Indexes, state.IsIndex, added, orNil(state.Created), orNil(state.Updated), newRequest(), state.content()}, &response)
	return response.Applied, response.Revision, err
}

// orNil returns nil for a zero value.
func orNil[T comparable](value T) *T {
	var zero T
	if value == zero {
		return nil
	}
	return &value
}
