package kv

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/google/uuid"
)

// Imported says what became of an entry that was imported.
type Imported string

// What kv_import answers.
const (
	ImportWritten Imported = "written"
	ImportSame    Imported = "same"    // it was there already
	ImportRemoved Imported = "removed" // an earlier import had written it, and the source has it no more
	ImportAbsent  Imported = "absent"  // neither store has it
	ImportLive    Imported = "live"    // somebody else wrote it: left alone
	ImportDeleted Imported = "deleted" // a caller deleted it while the migration was open: left so
)

// ErrImportTaken: another run has taken the migration over, or it was closed.
var ErrImportTaken = errors.New("another run has taken over the migration, or it was closed")

// ErrImportAtWork: a run is at work, so the migration stays open.
var ErrImportAtWork = errors.New("a run of the migration is at work: end it first; one that was killed is out of the way in a minute")

// ImportHeld is another run that is at work.
type ImportHeld struct{ For time.Duration }

func (e *ImportHeld) Error() string {
	return "another run of the migration is at work on this database; if it was killed, it is out of the way in " + e.For.String()
}

// ImportOpen opens the migration for a run, or takes over one that no other run holds. From here on only this session imports, which
// is the process at work. Until [Supabase.ImportClose] deletes leave marks. The error is an [*ImportHeld] where another run is at work.
func (s *Supabase) ImportOpen(ctx context.Context, run, session uuid.UUID) error {
	var seconds int
	err := s.callJSON(ctx, "kv_import_open", map[string]any{"p_run": run, "p_session": session}, &seconds)
	if err == nil && seconds > 0 {
		return &ImportHeld{For: time.Duration(seconds) * time.Second}
	}
	return err
}

// ImportHold keeps other runs away for another minute; with release it lets them in at once. [ErrImportTaken] if one has taken over.
// It returns how many writes from before the migration was opened may not have reached the source: their deletes left no mark.
func (s *Supabase) ImportHold(ctx context.Context, session uuid.UUID, release bool) (pending int, err error) {
	err = s.callJSON(ctx, "kv_import_renew_lease", map[string]any{"p_session": session, "p_release": release}, &pending)
	return pending, importError(err)
}

// ImportClose ends the migration: what it knew of the keys is forgotten. [ErrImportAtWork] if it cannot be ended now.
func (s *Supabase) ImportClose(ctx context.Context) error {
	_, err := s.call(ctx, "kv_import_close", map[string]any{})
	if CodeOf(err) == CodeConditionFailed {
		return ErrImportAtWork
	}
	return err
}

func importError(err error) error {
	if err != nil && CodeOf(err) == CodeConditionFailed {
		return ErrImportTaken
	}
	return err
}

// Import writes the entries as the source has them, all or none, and says of each what became of it. Their keys are distinct. Of a
// state, Value is empty where the source has no such entry any more; Indexes nil leave those of the row; IsIndex: its value may be
// an array of members. Values that Postgres refuses are [CodeUnstorableValue] or [CodeInvalidInput], for all of them.
func (s *Supabase) Import(ctx context.Context, session uuid.UUID, states []State) (done []Imported, err error) {
	args := importArgs{Session: session}
	for _, state := range states {
		args.Keys = append(args.Keys, state.Key)
		args.Values = append(args.Values, orNil(state.Value))
		args.IsIndex = append(args.IsIndex, state.IsIndex)
		args.Created = append(args.Created, orNil(state.Created))
		args.Updated = append(args.Updated, orNil(state.Updated))
		var indexes *string
		if state.Indexes != nil {
			text, err := json.Marshal(state.Indexes)
			if err != nil {
				return nil, err
			}
			indexes = orNil(string(text))
		}
		args.Indexes = append(args.Indexes, indexes)
	}
	if err := s.callJSON(ctx, "kv_import", args, &done); err != nil {
		return nil, importError(err)
	}
	if len(done) != len(states) {
		return nil, malformedResponse("kv_import")
	}
	return done, nil
}

type importArgs struct {
	Session uuid.UUID `json:"p_session"`
	Keys    []string  `json:"p_keys"`
	Values  []*string `json:"p_values"`
	Indexes []*string `json:"p_indexes"`
	IsIndex []bool    `json:"p_is_index"`
	Created []*int64  `json:"p_created"`
	Updated []*int64  `json:"p_updated"`
}

// ImportedUnchanged is a row that is as it was imported.
const ImportedUnchanged Imported = "imported"

// ImportStates says of each key whether its row is [ImportedUnchanged], [ImportLive], [ImportDeleted] or [ImportAbsent].
func (s *Supabase) ImportStates(ctx context.Context, keys []string) (states []Imported, err error) {
	err = s.callJSON(ctx, "kv_import_states", map[string]any{"p_keys": keys}, &states)
	if err == nil && len(states) != len(keys) {
		err = malformedResponse("kv_import_states")
	}
	return states, err
}

// ImportLeft are up to limit members, each with its index, after one, in order: those whose entries were deleted or left the index since
// the migration was opened, and which no entry has now.
func (s *Supabase) ImportLeft(ctx context.Context, after [2]string, limit int) (pairs [][2]string, err error) {
	err = s.callJSON(ctx, "kv_import_left_after", map[string]any{"p_index_key": after[0], "p_member": after[1], "p_limit": limit}, &pairs)
	return pairs, err
}

// ImportStatus is where the migration of a database is.
type ImportStatus struct {
	Lineage  string     `json:"lineage"`
	Run      *uuid.UUID `json:"run"` // nil: none is open
	OpenedAt *time.Time `json:"opened_at"`
	AtWork   bool       `json:"at_work"`
	Entries  int        `json:"entries"`
	Imported int        `json:"imported"` // rows that are as they were imported
	Deleted  int        `json:"deleted"`  // keys that callers deleted since it was opened
	Outbox   int        `json:"outbox"`   // traces of mirrored writes that are left
}

// ImportStatus counts.
func (s *Supabase) ImportStatus(ctx context.Context) (status ImportStatus, err error) {
	err = s.callJSON(ctx, "kv_import_status", map[string]any{}, &status)
	return status, err
}

// Digest is what verification asks of an entry: nothing of it leaves the database but SHA-256 sums.
type Digest struct {
	Key      string `json:"key"`
	Value    string `json:"value"`    // of the text that a reader gets, in hexadecimal
	Indexes  string `json:"indexes"`  // of the pairs; see kv.digest_pairs
	Unposted int    `json:"unposted"` // postings that lack: queries by index miss the entry
	Document bool   `json:"document"` // queries see the value as it is
	Search   bool   `json:"search"`   // full text finds it
}

// Digests are those of up to limit entries after a key, in the order of their keys.
func (s *Supabase) Digests(ctx context.Context, after string, limit int) (digests []Digest, err error) {
	err = s.callJSON(ctx, "kv_digests", map[string]any{"p_after": after, "p_limit": limit}, &digests)
	return digests, err
}

// DigestsOf are those of the keys that exist, in the order of the keys.
func (s *Supabase) DigestsOf(ctx context.Context, keys []string) (digests []Digest, err error) {
	err = s.callJSON(ctx, "kv_digests_of", map[string]any{"p_keys": keys}, &digests)
	return digests, err
}

// StrayPostings is how many postings there are that no entry's indexes have: through them queries find entries that they should not.
func (s *Supabase) StrayPostings(ctx context.Context) (count int, err error) {
	err = s.callJSON(ctx, "kv_stray_postings", map[string]any{}, &count)
	return count, err
}
