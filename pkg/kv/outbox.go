package kv

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"
)

// OutboxEntry is a write whose copy in the other store is not confirmed yet. It is written in the write's own
// transaction, and whoever repairs the stores reads it where nothing else is left of the write.
type OutboxEntry struct {
	ID  int64  `json:"id"`
	Key string `json:"key"`
	// Primary is the store that was written and answered, "blobs" or "supabase". Only [Supabase.OutboxEntries] sets it.
	Primary string `json:"primary"`
	// Revision is that of the entry when the outbox entry was added; UpsertMirrored and DeleteMirrored leave it zero.
	Revision RowRevision `json:"token"`
}

// State is an entry as another store is to have it. Revision is zero where there is no entry, and then nothing else but Key is set.
type State struct {
	Key      string      `json:"key"`
	Revision RowRevision `json:"token"`
	Value    string      `json:"value"` // JSON text
	Indexes  [][2]string `json:"indexes"`
	// IsIndex: members may have been added to it.
	IsIndex bool `json:"is_index"`
	// Created and Updated are microseconds since 1970.
	Created int64 `json:"created"`
	Updated int64 `json:"updated"`
}

// UpsertMirrored is Upsert that adds an outbox entry for every key it changed.
func (s *Supabase) UpsertMirrored(ctx context.Context, entry Entry) (Written, []OutboxEntry, error) {
	return s.upsert(ctx, entry, true)
}

// DeleteMirrored is Delete that adds an outbox entry, also where there was no entry: the other store may have one.
func (s *Supabase) DeleteMirrored(ctx context.Context, key string) (Written, []OutboxEntry, error) {
	return s.delete(ctx, key, true)
}

// States reads entries for the other store.
func (s *Supabase) States(ctx context.Context, keys []string) (states []State, err error) {
	err = s.callJSON(ctx, "kv_mirror_states", map[string]any{"p_keys": keys}, &states)
	return states, err
}

// ConfirmCopy removes an outbox entry, if the entry is still what was copied, or an index entry that has got more members since: whoever added
// those copies them. It is false where the entry has changed otherwise; then it returns what it is now.
func (s *Supabase) ConfirmCopy(ctx context.Context, entry OutboxEntry, copied RowRevision) (bool, State, error) {
	text, err := s.call(ctx, "kv_mirror_done", map[string]any{"p_id": entry.ID, "p_key": entry.Key, "p_token": copied})
	if err != nil || text == "" {
		return err == nil, State{}, err
	}
	var now State
	return false, now, unmarshalResponse("kv_mirror_done", text, &now)
}

// AddOutboxEntries adds outbox entries for keys that another store is about to change.
func (s *Supabase) AddOutboxEntries(ctx context.Context, keys []string) (entries []OutboxEntry, err error) {
	err = s.callJSON(ctx, "kv_mirror_begin", map[string]any{"p_keys": keys, "p_request": newRequest()}, &entries)
	return entries, err
}

// OutboxEntries reads up to limit outbox entries with an ID above after, from the oldest.
func (s *Supabase) OutboxEntries(ctx context.Context, after int64, limit int) (entries []OutboxEntry, err error) {
	err = s.callJSON(ctx, "kv_mirror_outbox", map[string]any{"p_after": after, "p_limit": limit}, &entries)
	return entries, err
}

// RemoveOutboxEntries removes outbox entries whose copies are complete.
func (s *Supabase) RemoveOutboxEntries(ctx context.Context, entries []OutboxEntry) error {
	ids := make([]int64, len(entries))
	for i, entry := range entries {
		ids[i] = entry.ID
	}
	_, err := s.call(ctx, "kv_mirror_forget", map[string]any{"p_ids": ids})
	return err
}

// Copy makes an entry what state says (no entry, where state.Value is empty), if it is still what expected says. It is false
// where it is not. Either way it returns what the entry is like now. A state whose Indexes are nil leaves the entry's, and one
// with zero times leaves those. With added, members were added to the index entry there: those that only are here stay, and it may
// have got more of them than expected says.
func (s *Supabase) Copy(ctx context.Context, state State, expected RowRevision, added bool) (applied bool, now RowRevision, err error) {
	var answer struct {
		Applied bool
		Token   RowRevision
	}
	err = s.callJSON(ctx, "kv_mirror_copy", struct {
		Key      string      `json:"p_key"`
		Expected RowRevision `json:"p_expected"`
		Value    *string     `json:"p_value"`
		Indexes  [][2]string `json:"p_indexes"`
		IsIndex  bool        `json:"p_is_index"`
		Add      bool        `json:"p_add"`
		Created  *int64      `json:"p_created"`
		Updated  *int64      `json:"p_updated"`
		Request  uuid.UUID   `json:"p_request"`
	}{state.Key, expected, orNil(state.Value), state.Indexes, state.IsIndex, added, orNil(state.Created), orNil(state.Updated), newRequest()}, &answer)
	return answer.Applied, answer.Token, err
}

// orNil is nil for a zero value.
func orNil[T comparable](value T) *T {
	var zero T
	if value == zero {
		return nil
	}
	return &value
}

func (s *Supabase) callJSON(ctx context.Context, function string, args, into any) error {
	text, err := s.call(ctx, function, args)
	if err != nil {
		return err
	}
	return unmarshalResponse(function, text, into)
}

func unmarshalResponse(function, text string, into any) error {
	if err := json.Unmarshal([]byte(text), into); err != nil {
		return &Error{Code: CodeDatabaseUnreachable, Message: messageMalformed, Op: function, Err: err}
	}
	return nil
}
