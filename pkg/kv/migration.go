package kv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// ImportState says what became of a source's entry.
type ImportState string

const (
	ImportImported ImportState = "imported" // the row is as it was imported
	ImportForeign  ImportState = "foreign"  // somebody else wrote the row: left alone
	ImportDeleted  ImportState = "deleted"  // a caller deleted it while the migration was open: left so
	ImportRemoved  ImportState = "removed"  // an earlier import had written it, and the source has it no more
	ImportAbsent   ImportState = "absent"   // neither store has it
	ImportFailed   ImportState = "failed"   // no entry could be made of it
	ImportSkipped  ImportState = "skipped"  // no entry was to be made of it
	ImportLost     ImportState = "lost"     // it was imported, and its row went without a caller's delete

	// What Import answers where others tell more.
	ImportWritten ImportState = "written" // imported, which changed the row
	ImportSame    ImportState = "same"    // imported, and was there already
	ImportAdopted ImportState = "adopted" // foreign, and got indexes that rules say it has
)

// ErrImportTaken: another run has taken the migration over, or it was closed.
var ErrImportTaken = errors.New("another run has taken over the migration, or it was closed")

// ErrImportAtWork: a run is at work, so the migration stays open.
var ErrImportAtWork = errors.New("a run of the migration is at work: end it first; one that was killed is out of the way in half a minute")

// MigrationHeld is another run that is at work.
type MigrationHeld struct {
	Holder string
	For    time.Duration
}

func (e *MigrationHeld) Error() string {
	return fmt.Sprintf("another run of the migration is at work on this database (%s); if it was killed, it is out of the way in %s", e.Holder, e.For.Round(time.Second))
}

// MigrationClosed is one that was ended: what it knew of rows and deletes is forgotten.
type MigrationClosed struct{ At time.Time }

func (e *MigrationClosed) Error() string {
	return fmt.Sprintf("the migration was closed on %s. Another one takes what Supabase has for newer, and brings what it lacks, also what callers deleted", e.At.UTC().Format(time.DateTime))
}

// MigrationDiffers is an open migration of another source, or with other options.
type MigrationDiffers struct {
	Source  string
	Options json.RawMessage
}

func (e *MigrationDiffers) Error() string {
	return fmt.Sprintf("the migration that is open in this database is another one: from %s, with the options %s. Go on with these, or close it first", e.Source, e.Options)
}

// Opening is a pass of a run of a migration.
type Opening struct {
	Source  string
	Options any
	Rules   []string
	Session uuid.UUID // of this pass: from here on only it imports
	Own     uuid.UUID // of the run's pass before
	Holder  string    // who it is, for others
	Lease   time.Duration
	Anew    bool // begin another one where one was closed
}

// MigrationOpen opens the migration, or goes on with it. Until [Supabase.MigrationClose] deletes leave marks. The error is a
// [*MigrationHeld], [*MigrationClosed] or [*MigrationDiffers] where it cannot be.
func (s *Supabase) MigrationOpen(ctx context.Context, o Opening) error {
	options, err := json.Marshal(o.Options)
	if err != nil {
		return err
	}
	var refused struct {
		Holder   *string
		HeldFor  float64    `json:"held_for"`
		ClosedAt *time.Time `json:"closed_at"`
		Source   *string
		Options  json.RawMessage
	}
	err = s.callJSON(ctx, "kv_migration_open", map[string]any{
		"p_source": o.Source, "p_options": string(options), "p_rules": append([]string{}, o.Rules...), "p_session": o.Session, "p_holder": o.Holder,
		"p_lease": o.Lease.Seconds(), "p_own": o.Own, "p_anew": o.Anew,
	}, &refused)
	switch {
	case err != nil:
		return err
	case refused.Holder != nil:
		return &MigrationHeld{*refused.Holder, time.Duration(refused.HeldFor * float64(time.Second))}
	case refused.ClosedAt != nil:
		return &MigrationClosed{*refused.ClosedAt}
	case refused.Source != nil:
		return &MigrationDiffers{*refused.Source, refused.Options}
	}
	return nil
}

// Renewal prolongs a run's lease, and keeps what is known of it meanwhile.
type Renewal struct {
	Session uuid.UUID
	Lease   time.Duration // 0: others may take over at once
	Listed  *int          // how many entries the source has; nil: as before
	Run     any           // its result; nil: as before
}

// MigrationRenew keeps other runs away. [ErrImportTaken] if one has taken over. It returns how many writes from before the migration was
// opened may not have reached the source: their deletes left no mark.
func (s *Supabase) MigrationRenew(ctx context.Context, r Renewal) (pending int, err error) {
	var result *string
	if r.Run != nil {
		text, err := json.Marshal(r.Run)
		if err != nil {
			return 0, err
		}
		result = orNil(string(text))
	}
	err = s.callJSON(ctx, "kv_migration_renew", map[string]any{
		"p_session": r.Session, "p_lease": r.Lease.Seconds(), "p_listed": r.Listed, "p_run": result}, &pending)
	return pending, importError(err)
}

// MigrationClose ends the migration: what it knew of the keys is forgotten. It tells whether one was open. [ErrImportAtWork] if it cannot
// be ended now.
func (s *Supabase) MigrationClose(ctx context.Context) (wasOpen bool, err error) {
	err = s.callJSON(ctx, "kv_migration_close", map[string]any{}, &wasOpen)
	if CodeOf(err) == CodeConditionFailed {
		return false, ErrImportAtWork
	}
	return wasOpen, err
}

func importError(err error) error {
	if err != nil && CodeOf(err) == CodeConditionFailed {
		return ErrImportTaken
	}
	return err
}

// ImportEntry is an entry as the source has it.
type ImportEntry struct {
	State                // Value is empty where the source has it no more; IsIndex: its value may be an array of members
	Revision string      // what it was in the source
	Derived  string      // digest of the indexes that rules give it
	Silent   bool        // the source does not say which indexes it has
	Not      ImportState // [ImportFailed] or [ImportSkipped]: only remember that
	Problem  any         // why, or what to know of it; nil: nothing
}

// Import writes the entries, all or none, remembers them, and says of each what became of it. Their keys are distinct. Indexes that are nil
// leave those of the row. Values that Postgres refuses are [CodeUnstorableValue] or [CodeInvalidInput], for all of them.
func (s *Supabase) Import(ctx context.Context, session uuid.UUID, entries []ImportEntry) (done []ImportState, err error) {
	args := importArgs{Session: session}
	for _, e := range entries {
		var pairs, problem *string
		if e.Indexes != nil {
			pairs = orNil(arrayOfPairs(e.Indexes))
		}
		if e.Problem != nil {
			text, err := json.Marshal(e.Problem)
			if err != nil {
				return nil, err
			}
			problem = orNil(string(text))
		}
		args.Keys = append(args.Keys, e.Key)
		args.Values = append(args.Values, orNil(e.Value))
		args.Pairs = append(args.Pairs, pairs)
		args.Derived = append(args.Derived, orNil(e.Derived))
		args.Silent = append(args.Silent, e.Silent)
		args.IsIndex = append(args.IsIndex, e.IsIndex)
		args.Created = append(args.Created, orNil(e.Created))
		args.Updated = append(args.Updated, orNil(e.Updated))
		args.States = append(args.States, orNil(e.Not))
		args.Revisions = append(args.Revisions, orNil(e.Revision))
		args.Problems = append(args.Problems, problem)
	}
	if err := s.callJSON(ctx, "kv_import", args, &done); err != nil {
		return nil, importError(err)
	}
	if len(done) != len(entries) {
		return nil, malformedResponse("kv_import")
	}
	return done, nil
}

type importArgs struct {
	Session   uuid.UUID      `json:"p_session"`
	Keys      []string       `json:"p_keys"`
	Values    []*string      `json:"p_values"`
	Pairs     []*string      `json:"p_pairs"`
	Derived   []*string      `json:"p_derived"`
	Silent    []bool         `json:"p_silent"`
	IsIndex   []bool         `json:"p_is_index"`
	Created   []*int64       `json:"p_created"`
	Updated   []*int64       `json:"p_updated"`
	States    []*ImportState `json:"p_states"`
	Revisions []*string      `json:"p_revisions"`
	Problems  []*string      `json:"p_problems"`
}

// CopyOver is an entry to be written over what Over says; empty: where there is none.
type CopyOver struct {
	State
	Over RowRevision
}

// CopyAll is [Supabase.Copy] of entries with distinct keys in one transaction: all that are still what is said of them, or none. It tells
// which were.
func (s *Supabase) CopyAll(ctx context.Context, copies []CopyOver) (applied []bool, err error) {
	var args struct {
		Keys     []string      `json:"p_keys"`
		Expected []RowRevision `json:"p_expected"`
		Values   []string      `json:"p_values"`
		Pairs    []*string     `json:"p_pairs"`
		IsIndex  []bool        `json:"p_is_index"`
		Created  []*int64      `json:"p_created"`
		Updated  []*int64      `json:"p_updated"`
	}
	for _, c := range copies {
		var pairs *string
		if c.Indexes != nil {
			pairs = orNil(arrayOfPairs(c.Indexes))
		}
		args.Keys, args.Expected, args.Values = append(args.Keys, c.Key), append(args.Expected, c.Over), append(args.Values, c.Value)
		args.Pairs, args.IsIndex = append(args.Pairs, pairs), append(args.IsIndex, c.IsIndex)
		args.Created, args.Updated = append(args.Created, orNil(c.Created)), append(args.Updated, orNil(c.Updated))
	}
	err = s.callJSON(ctx, "kv_restore", args, &applied)
	if err == nil && len(applied) != len(copies) {
		err = malformedResponse("kv_restore")
	}
	return applied, err
}

// arrayOfPairs is the text of a Postgres array: {{"key","member"},...}.
func arrayOfPairs(pairs [][2]string) string {
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	var out strings.Builder
	out.WriteByte('{')
	for i, p := range pairs {
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteString(`{"` + quote.Replace(p[0]) + `","` + quote.Replace(p[1]) + `"}`)
	}
	out.WriteByte('}')
	return out.String()
}

// Known is what is remembered of a source's entry.
type Known struct {
	Key, Revision, Derived string
	State                  ImportState // what it is now; empty where only a caller has touched the key
}

// UnmarshalJSON reads [key, revision, derived, state].
func (k *Known) UnmarshalJSON(text []byte) error {
	var fields [4]*string
	if err := json.Unmarshal(text, &fields); err != nil {
		return err
	}
	var state string
	for i, into := range []*string{&k.Key, &k.Revision, &k.Derived, &state} {
		*into = ""
		if fields[i] != nil {
			*into = *fields[i]
		}
	}
	k.State = ImportState(state)
	return nil
}

// ImportPage is what is remembered of up to limit keys after one, in order.
func (s *Supabase) ImportPage(ctx context.Context, after string, limit int) (page []Known, err error) {
	err = s.callJSON(ctx, "kv_import_page", map[string]any{"p_after": after, "p_limit": limit}, &page)
	return page, err
}

// ImportProblems reads into a slice of problems those of up to limit keys after one: why they failed, or what is to be known of the others.
func (s *Supabase) ImportProblems(ctx context.Context, after string, limit int, failed bool, into any) error {
	return s.callJSON(ctx, "kv_import_problems", map[string]any{"p_after": after, "p_limit": limit, "p_failed": failed}, into)
}

// Migration is one that is open or was closed.
type Migration struct {
	Source   string          `json:"source"`
	Options  json.RawMessage `json:"options"`
	Rules    []string        `json:"rules"`
	Holder   string          `json:"holder,omitempty"`
	Listed   *int            `json:"listed,omitempty"`
	Run      json.RawMessage `json:"run,omitempty"` // the result of the last run
	OpenedAt time.Time       `json:"opened_at,omitzero"`
	ClosedAt *time.Time      `json:"closed_at,omitempty"`
	AtWork   bool            `json:"at_work"`
}

// MigrationStatus is where the migration of a database is.
type MigrationStatus struct {
	Open         bool                `json:"open"`
	Migration    *Migration          `json:"migration,omitempty"` // nil: there was none
	Entries      int                 `json:"entries"`
	States       map[ImportState]int `json:"states"`
	Noted        int                 `json:"noted"`   // entries of which something is to be known
	Deleted      int                 `json:"deleted"` // keys that callers deleted since it was opened
	Outbox       int                 `json:"outbox"`  // entries of the outbox
	Verification json.RawMessage     `json:"verification,omitempty"`
}

// MigrationStatus counts.
func (s *Supabase) MigrationStatus(ctx context.Context) (status MigrationStatus, err error) {
	err = s.callJSON(ctx, "kv_migration_status", map[string]any{}, &status)
	return status, err
}

// Migration is the one that is open or was closed last, without counting; nil where there was none.
func (s *Supabase) Migration(ctx context.Context) (m *Migration, err error) {
	err = s.callJSON(ctx, "kv_migration_brief", map[string]any{}, &m)
	return m, err
}

// VerificationAdd keeps the result of a verification.
func (s *Supabase) VerificationAdd(ctx context.Context, result any) error {
	text, err := json.Marshal(result)
	if err != nil {
		return err
	}
	_, err = s.call(ctx, "kv_verification_add", map[string]any{"p_result": string(text)})
	return err
}

// Digest is what verification asks of an entry: nothing of it leaves the database but SHA-256 sums.
type Digest struct {
	Key      string `json:"key"`
	Value    string `json:"value"`    // of the text that a reader gets, in hexadecimal
	Indexes  string `json:"indexes"`  // of the pairs; see kv_digest_pairs
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

// ComparedReads is what an instance's compared reads found since it last told.
type ComparedReads struct {
	Request     uuid.UUID        `json:"p_request"` // counted once, however often it arrives
	Primary     string           `json:"p_primary"` // the store that answered: "blobs" or "supabase"
	Matched     int              `json:"p_matched"`
	Differed    int              `json:"p_differed"`
	Unanswered  int              `json:"p_unanswered"` // by the other store
	Differences []ReadDifference `json:"p_differences"`
}

// ReadDifference is a key that a compared read found not alike in the stores. The digests are of the values; empty where there was none.
type ReadDifference struct {
	At            time.Time `json:"at"`
	Function      string    `json:"function"`
	Kind          string    `json:"kind"` // in the other store: missing, extra, different, order
	KeyHash       string    `json:"key_hash"`
	PrimaryDigest string    `json:"primary_digest,omitempty"`
	OtherDigest   string    `json:"other_digest,omitempty"`
}

// AddCompared keeps what compared reads found.
func (s *Supabase) AddCompared(ctx context.Context, c ComparedReads) error {
	if c.Differences == nil {
		c.Differences = []ReadDifference{}
	}
	_, err := s.call(ctx, "kv_compared", c)
	return err
}

// Readiness is the evidence for a switch, or for the way back.
type Readiness struct {
	Now           time.Time       `json:"now"`
	Primary       *string         `json:"primary"`        // the store that answered the last compared read
	ComparedSince *time.Time      `json:"compared_since"` // since when that store's reads are compared
	Hours         []ComparedHour  `json:"hours"`
	Kinds         map[string]int  `json:"kinds"` // differences, by function and kind
	Outbox        int             `json:"outbox"`
	OutboxWaiting int             `json:"outbox_waiting"` // older than a minute
	Primaries     map[string]int  `json:"outbox_primaries"`
	AtWork        bool            `json:"at_work"`
	Run           json.RawMessage `json:"run,omitempty"`
	Unmigratable  int             `json:"unmigratable"`
	Verification  json.RawMessage `json:"verification,omitempty"`
	VerifiedAt    *time.Time      `json:"verified_at"`
}

// ComparedHour is what the compared reads of an hour found.
type ComparedHour struct {
	Hour       time.Time `json:"hour"`
	Primary    string    `json:"primary"`
	Matched    int       `json:"matched"`
	Differed   int       `json:"differed"`
	Unanswered int       `json:"unanswered"`
}

// Readiness collects what the last so much time has shown.
func (s *Supabase) Readiness(ctx context.Context, of time.Duration) (r Readiness, err error) {
	err = s.callJSON(ctx, "kv_readiness", map[string]any{"p_hours": of.Hours()}, &r)
	return r, err
}
