package kv

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// Trace is a row of the outbox: a write whose copy in the other store is not confirmed yet. It is written in the write's own
// transaction, and whoever repairs the stores reads it where nothing else is left of the write.
type Trace struct {
	ID  int64  `json:"id"`
	Key string `json:"key"`
	// First is the store that was written and answered, "blobs" or "supabase"; only Traces tells.
	First string `json:"first"`
	// Token is what the entry was like when the trace was left; CopyBegin and Traces tell.
	Token Token `json:"token"`
}

// Token says what an entry was like at a moment: "<lineage>.<version>.<members>"; empty where there was none. It changes with
// every write of the entry and with every member that is added to an index entry.
type Token string

// Before tells whether the token is of an earlier moment than other. It is true also where the two cannot be compared, as
// after the database was replaced.
func (t Token) Before(other Token) bool {
	mine, theirs := strings.Split(string(t), "."), strings.Split(string(other), ".")
	if len(mine) != 3 || len(theirs) != 3 || mine[0] != theirs[0] {
		return t != other
	}
	for i := 1; i < 3; i++ {
		a, aErr := strconv.ParseInt(mine[i], 10, 64)
		b, bErr := strconv.ParseInt(theirs[i], 10, 64)
		if aErr != nil || bErr != nil || a != b {
			return aErr != nil || bErr != nil || a < b
		}
	}
	return false
}

// SameRow tells whether both tokens are of the same write of an entry, so that at most members were added in between.
func (t Token) SameRow(other Token) bool {
	mine, theirs := strings.LastIndexByte(string(t), '.'), strings.LastIndexByte(string(other), '.')
	return mine > 0 && theirs > 0 && t[:mine] == other[:theirs]
}

// State is an entry as another store is to have it. Token is empty where there is no entry, and then nothing else is set.
type State struct {
	Key     string      `json:"key"`
	Token   Token       `json:"token"`
	Value   string      `json:"value"` // JSON text
	Indexes [][2]string `json:"indexes"`
	// IsIndex: members may have been added to it.
	IsIndex bool `json:"is_index"`
	// Created and Updated are microseconds since 1970.
	Created int64 `json:"created"`
	Updated int64 `json:"updated"`
}

// UpsertTraced is Upsert that leaves a trace of every key it changed.
func (s *Supabase) UpsertTraced(ctx context.Context, entry Entry) (Written, []Trace, error) {
	return s.upsert(ctx, entry, true)
}

// DeleteTraced is Delete that leaves a trace, also where there was no entry: the other store may have one.
func (s *Supabase) DeleteTraced(ctx context.Context, key string) (Written, []Trace, error) {
	return s.delete(ctx, key, true)
}

// States reads entries for the other store.
func (s *Supabase) States(ctx context.Context, keys []string) (states []State, err error) {
	err = s.copyCall(ctx, "kv_mirror_states", map[string]any{"p_keys": keys}, &states)
	return states, err
}

// CopyDone removes a trace, if the entry is still what was copied, or an index entry that has got more members since: whoever added
// those copies them. It is false where the entry has changed otherwise; then it returns what it is now.
func (s *Supabase) CopyDone(ctx context.Context, trace Trace, copied Token) (bool, State, error) {
	text, err := s.call(ctx, "kv_mirror_done", map[string]any{"p_id": trace.ID, "p_key": trace.Key, "p_token": copied})
	if err != nil || text == "" {
		return err == nil, State{}, err
	}
	var now State
	return false, now, unmarshalCopy("kv_mirror_done", text, &now)
}

// CopyBegin leaves a trace for keys that another store is about to change.
func (s *Supabase) CopyBegin(ctx context.Context, keys []string) (traces []Trace, err error) {
	err = s.copyCall(ctx, "kv_mirror_begin", map[string]any{"p_keys": keys, "p_request": newRequest()}, &traces)
	return traces, err
}

// Traces reads up to limit traces with an ID above after, from the oldest.
func (s *Supabase) Traces(ctx context.Context, after int64, limit int) (traces []Trace, err error) {
	err = s.copyCall(ctx, "kv_traces", map[string]any{"p_after": after, "p_limit": limit}, &traces)
	return traces, err
}

// CopyForget removes traces of copies that are there.
func (s *Supabase) CopyForget(ctx context.Context, traces []Trace) error {
	ids := make([]int64, len(traces))
	for i, trace := range traces {
		ids[i] = trace.ID
	}
	_, err := s.call(ctx, "kv_mirror_forget", map[string]any{"p_ids": ids})
	return err
}

// Copy makes an entry what state says (no entry, where state.Value is empty), if it is still what expected says. It is false
// where it is not. Either way it returns what the entry is like now. A state whose Indexes are nil leaves the entry's, and one
// with zero times leaves those. With added, members were added to the index entry there: those that only are here stay, and it may
// have got more of them than expected says.
func (s *Supabase) Copy(ctx context.Context, state State, expected Token, added bool) (applied bool, now Token, err error) {
	var answer struct {
		Applied bool
		Token   Token
	}
	err = s.copyCall(ctx, "kv_mirror_copy", struct {
		Key      string      `json:"p_key"`
		Expected Token       `json:"p_expected"`
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

func (s *Supabase) copyCall(ctx context.Context, function string, args, into any) error {
	text, err := s.call(ctx, function, args)
	if err != nil {
		return err
	}
	return unmarshalCopy(function, text, into)
}

func unmarshalCopy(function, text string, into any) error {
	if err := json.Unmarshal([]byte(text), into); err != nil {
		return &Error{Code: CodeDatabaseUnreachable, Message: messageNonsense, Op: function, Err: err}
	}
	return nil
}
