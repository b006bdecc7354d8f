package kv

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// ImportState is what became of an entry of the source.
type ImportState string

const (
	ImportImported ImportState = "imported" // the row is unchanged since the import
	ImportForeign  ImportState = "foreign"  // a caller wrote the row, which is kept
	ImportDeleted  ImportState = "deleted"  // a caller deleted it while the migration was open
	ImportRemoved  ImportState = "removed"  // imported earlier and removed, since the source lost it
	ImportAbsent   ImportState = "absent"   // neither store has it
	ImportFailed   ImportState = "failed"   // it could not be converted
	ImportSkipped  ImportState = "skipped"  // it was not to be imported
	ImportLost     ImportState = "lost"     // it was imported, and its row is gone without a delete

	// More specific results of Import.
	ImportWritten ImportState = "written" // imported, and the row changed
	ImportSame    ImportState = "same"    // imported, and the row was the same
	ImportIndexed ImportState = "indexed" // foreign, and given the indexes that rules derive
)

// ErrImportTaken means that another run has taken over the migration, or it was closed.
var ErrImportTaken = errors.New("another run has taken over the migration, or it was closed")

// ErrImportAtWork means that the migration cannot be closed during a run.
var ErrImportAtWork = errors.New("a run of the migration is at work: end it first; one that was killed is out of the way in half a minute")

// MigrationHeld means that another run holds the lease.
type MigrationHeld struct {
	Holder string
	For    time.Duration
}

func (e *MigrationHeld) Error() string {
	return fmt.Sprintf("another run of the migration is at work on this database (%s); if it was killed, it is out of the way in %s", e.Holder, e.For.Round(time.Second))
}

// MigrationClosed means that the migration was closed, and its knowledge of rows and deletes is gone.
type MigrationClosed struct{ At time.Time }

func (e *MigrationClosed) Error() string {
	return fmt.Sprintf("the migration was closed on %s. Another one takes what Supabase has for newer, and brings what it lacks, also what callers deleted", e.At.UTC().Format(time.DateTime))
}

// MigrationDiffers means that the open migration has another source or other options.
type MigrationDiffers struct {
	Source  string
	Options json.RawMessage
}

func (e *MigrationDiffers) Error() string {
	return fmt.Sprintf("the migration that is open in this database is another one: from %s, with the options %s. Go on with these, or close it first", e.Source, e.Options)
}

// Opening describes one pass of a run.
type Opening struct {
	Source  string
	Options any
	Rules   []string
	Session uuid.UUID // of this pass, which alone may import from now on
	Own     uuid.UUID // of the run's previous pass
	Holder  string    // describes this run to others
	Lease   time.Duration
	Anew    bool // start a new migration after a closed one
}

// MigrationOpen opens the migration, or continues it. Until [Supabase.MigrationClose], the database remembers
// deletes. If it cannot be opened, the error is a [*MigrationHeld], [*MigrationClosed] or [*MigrationDiffers].
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
		"p_lease": o.Lease.Seconds(), "p_own": o.Own, "p_anew": o.Anew, "p_space": s.storeSpace(),
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

// Renewal extends a run's lease, and stores its progress.
type Renewal struct {
	Session uuid.UUID
	Lease   time.Duration // 0: ends the lease
	Listed  *int          // entries of the source; nil: unchanged
	Run     any           // the run's result; nil: unchanged
}

// MigrationRenew extends the lease that keeps other runs away, or returns [ErrImportTaken]. pending is the number of
// writes from before the migration that may not have reached the source, whose deletes the database does not remember.
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

// MigrationClose ends the migration and forgets what it knew of the keys. wasOpen is false without one. During a run
// it returns [ErrImportAtWork].
func (s *Supabase) MigrationClose(ctx context.Context) (wasOpen bool, err error) {
	err = s.callJSON(ctx, "kv_migration_close", s.ofStore(), &wasOpen)
	if CodeOf(err) == CodeConflict {
		return false, ErrImportAtWork
	}
	return wasOpen, err
}

func importError(err error) error {
	if err != nil && CodeOf(err) == CodeConflict {
		return ErrImportTaken
	}
	return err
}

// ImportEntry is an entry of the source.
type ImportEntry struct {
	State                // without bytes if the source lost the entry; IsIndex: the value may be an array of members
	Revision string      // in the source
	Derived  string      // digest of the indexes that rules derive
	Silent   bool        // the source holds no information about indexes
	Not      ImportState // [ImportFailed] or [ImportSkipped]: only remember this state
	Problem  any         // why, or what to note; nil: nothing
}

// Import writes all of the entries or none, remembers them, and returns what became of each. Keys must be distinct.
// Nil Indexes keep the row's. If Postgres refuses a value, all fail with [CodeUnstorableValue] or [CodeInvalidInput].
func (s *Supabase) Import(ctx context.Context, session uuid.UUID, entries []ImportEntry) (done []ImportState, err error) {
	args := importArgs{Session: session}
	for _, e := range entries {
		var problem *string
		if e.Problem != nil {
			text, err := json.Marshal(e.Problem)
			if err != nil {
				return nil, err
			}
			problem = orNil(string(text))
		}
		args.add(s.storeSpace(), e.State)
		args.Derived = append(args.Derived, orNil(e.Derived))
		args.Silent = append(args.Silent, e.Silent)
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
	columns
	Session   uuid.UUID      `json:"p_session"`
	Derived   []*string      `json:"p_derived"`
	Silent    []bool         `json:"p_silent"`
	States    []*ImportState `json:"p_states"`
	Revisions []*string      `json:"p_revisions"`
	Problems  []*string      `json:"p_problems"`
}

// columns are many entries as the database takes them: an array for each column.
type columns struct {
	Keys         []string  `json:"p_keys"`
	Values       []*string `json:"p_values"`
	Data         []*string `json:"p_data"`
	ContentTypes []*string `json:"p_content_types"`
	Metadata     []*string `json:"p_metadata"`
	Pairs        []*string `json:"p_pairs"`
	IsIndex      []bool    `json:"p_is_index"`
	Created      []*int64  `json:"p_created"`
	Updated      []*int64  `json:"p_updated"`
}

func (c *columns) add(space string, s State) {
	var pairs *string
	if s.Indexes != nil {
		pairs = orNil(arrayOfPairs(s.Indexes))
	}
	content := s.content()
	c.Keys, c.Values, c.Data = append(c.Keys, space+s.Key), append(c.Values, content.Value), append(c.Data, content.Data)
	c.ContentTypes, c.Metadata = append(c.ContentTypes, content.ContentType), append(c.Metadata, content.Metadata)
	c.Pairs, c.IsIndex = append(c.Pairs, pairs), append(c.IsIndex, s.IsIndex)
	c.Created, c.Updated = append(c.Created, orNil(s.Created)), append(c.Updated, orNil(s.Updated))
}

// CopyOver is an entry to be written over the revision Over; zero: there must be no entry.
type CopyOver struct {
	State
	Over RowRevision
}

// CopyAll writes entries with distinct keys in one transaction, like [Supabase.Copy]. applied says for each whether
// its revision was the expected one.
func (s *Supabase) CopyAll(ctx context.Context, copies []CopyOver) (applied []bool, err error) {
	var args struct {
		columns
		Expected []RowRevision `json:"p_expected"`
		Expires  []*int64      `json:"p_expires"`
	}
	for _, c := range copies {
		args.add(s.storeSpace(), c.State)
		args.Expected, args.Expires = append(args.Expected, c.Over), append(args.Expires, orNil(c.Expires))
	}
	err = s.callJSON(ctx, "kv_restore", args, &applied)
	if err == nil && len(applied) != len(copies) {
		err = malformedResponse("kv_restore")
	}
	return applied, err
}

// arrayOfPairs returns the text of a Postgres array: {{"key","member"},...}.
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

// Known is what the migration remembers of an entry of the source.
type Known struct {
	Key, Revision, Derived string
	State                  ImportState // its present state; empty if only callers wrote the key
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

// ImportPage returns what the migration remembers of up to limit keys after one, in their order.
func (s *Supabase) ImportPage(ctx context.Context, after string, limit int) (page []Known, err error) {
	err = s.callJSON(ctx, "kv_import_page", s.pageOf(after, limit), &page)
	return page, err
}

// ImportProblems decodes the problems of up to limit keys after one into a slice: of those that failed, or of the
// others.
func (s *Supabase) ImportProblems(ctx context.Context, after string, limit int, failed bool, into any) error {
	args := s.pageOf(after, limit)
	args["p_failed"] = failed
	return s.callJSON(ctx, "kv_import_problems", args, into)
}

// ofStore are the arguments of a function that is about the store as a whole.
func (s *Supabase) ofStore() map[string]any { return map[string]any{"p_space": s.storeSpace()} }

// pageOf are the arguments of a function that is about up to limit keys of the store after one.
func (s *Supabase) pageOf(after string, limit int) map[string]any {
	return map[string]any{"p_space": s.storeSpace(), "p_after": s.storeSpace() + after, "p_limit": limit}
}

// Migration is an open or a closed migration.
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

// MigrationStatus is the state of a database's migration.
type MigrationStatus struct {
	Open         bool                `json:"open"`
	Migration    *Migration          `json:"migration,omitempty"` // nil without one
	Entries      int                 `json:"entries"`
	States       map[ImportState]int `json:"states"`
	Noted        int                 `json:"noted"`   // entries with a note
	Deleted      int                 `json:"deleted"` // keys that callers have deleted since it was opened
	Outbox       int                 `json:"outbox"`  // outbox entries
	Verification json.RawMessage     `json:"verification,omitempty"`
}

// MigrationStatus returns the migration's state and counts.
func (s *Supabase) MigrationStatus(ctx context.Context) (status MigrationStatus, err error) {
	err = s.callJSON(ctx, "kv_migration_status", s.ofStore(), &status)
	return status, err
}

// Migration returns the migration that is open or was closed last, without counts; nil without one.
func (s *Supabase) Migration(ctx context.Context) (m *Migration, err error) {
	err = s.callJSON(ctx, "kv_migration_brief", s.ofStore(), &m)
	return m, err
}

// VerificationAdd stores the result of a verification.
func (s *Supabase) VerificationAdd(ctx context.Context, result any) error {
	text, err := json.Marshal(result)
	if err != nil {
		return err
	}
	args := s.ofStore()
	args["p_result"] = string(text)
	_, err = s.call(ctx, "kv_verification_add", args)
	return err
}

// Digest is what verification reads of an entry. No value leaves the database, only SHA-256 sums.
type Digest struct {
	Key      string `json:"key"`
	Value    string `json:"value"`    // of the bytes that readers get, in hexadecimal
	Metadata string `json:"metadata"` // of the metadata's text; "" without any, and for {}
	Indexes  string `json:"indexes"`  // of the pairs; see kv_digest_pairs
	Unposted int    `json:"unposted"` // missing postings, because of which queries by index miss the entry
	Document bool   `json:"document"` // queries see the present value
	Search   bool   `json:"search"`   // full text finds it
}

// DigestOf is what [Digest] says of the bytes, the metadata and the indexes of an entry.
func DigestOf(s State) Digest {
	value := sha256.Sum256(s.Bytes())
	d := Digest{Key: s.Key, Value: hex.EncodeToString(value[:]), Indexes: DigestPairs(s.Indexes)}
	if s.Metadata != "" && s.Metadata != "{}" {
		metadata := sha256.Sum256([]byte(s.Metadata))
		d.Metadata = hex.EncodeToString(metadata[:])
	}
	return d
}

// Alike reports whether both are of the same bytes, metadata and indexes.
func (d Digest) Alike(other Digest) bool {
	return d.Value == other.Value && d.Metadata == other.Metadata && d.Indexes == other.Indexes
}

// DigestPairs is kv.digest_pairs: SHA-256 of the distinct pairs in order.
func DigestPairs(pairs [][2]string) string {
	sorted := slices.Clone(pairs)
	slices.SortFunc(sorted, func(a, b [2]string) int {
		return cmp.Or(strings.Compare(a[0], b[0]), strings.Compare(a[1], b[1]))
	})
	sum := sha256.New()
	for _, p := range slices.Compact(sorted) {
		for _, text := range p {
			sum.Write(strconv.AppendInt(nil, int64(len(text)), 10))
			sum.Write([]byte{':'})
			sum.Write([]byte(text))
		}
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// Digests returns those of up to limit entries after a key, in the order of their keys.
func (s *Supabase) Digests(ctx context.Context, after string, limit int) (digests []Digest, err error) {
	err = s.callJSON(ctx, "kv_digests", s.pageOf(after, limit), &digests)
	return digests, err
}

// DigestsOf returns those of the keys that exist, in the order of the keys.
func (s *Supabase) DigestsOf(ctx context.Context, keys []string) (digests []Digest, err error) {
	err = s.callJSON(ctx, "kv_digests_of", map[string]any{"p_keys": inSpace(s.storeSpace(), keys)}, &digests)
	return digests, err
}

// StrayPostings counts the postings that no entry's indexes have, because of which queries find wrong entries.
func (s *Supabase) StrayPostings(ctx context.Context) (count int, err error) {
	err = s.callJSON(ctx, "kv_stray_postings", s.ofStore(), &count)
	return count, err
}

// ComparedReads are the outcomes of an instance's compared reads since it recorded the last ones.
type ComparedReads struct {
	Request     uuid.UUID        `json:"p_request"` // the same request counts once
	Primary     string           `json:"p_primary"` // "blobs" or "supabase"
	Matched     int              `json:"p_matched"`
	Differed    int              `json:"p_differed"`
	Unanswered  int              `json:"p_unanswered"` // the other store did not answer
	Differences []ReadDifference `json:"p_differences"`
}

// ReadDifference is a key about which the stores differed. The digests are of the values; "" without a value.
type ReadDifference struct {
	At            time.Time `json:"at"`
	Function      string    `json:"function"`
	Kind          string    `json:"kind"` // in the other store: missing, extra, different, order
	KeyHash       string    `json:"key_hash"`
	PrimaryDigest string    `json:"primary_digest,omitempty"`
	OtherDigest   string    `json:"other_digest,omitempty"`
}

// AddCompared records the outcomes of compared reads.
func (s *Supabase) AddCompared(ctx context.Context, c ComparedReads) error {
	if c.Differences == nil {
		c.Differences = []ReadDifference{}
	}
	_, err := s.call(ctx, "kv_compared", c)
	return err
}

// Readiness is the evidence for a switch or a rollback.
type Readiness struct {
	Now           time.Time       `json:"now"`
	Primary       *string         `json:"primary"`        // of the last compared read
	ComparedSince *time.Time      `json:"compared_since"` // when comparing with that primary began
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

// ComparedHour counts the compared reads of an hour.
type ComparedHour struct {
	Hour       time.Time `json:"hour"`
	Primary    string    `json:"primary"`
	Matched    int       `json:"matched"`
	Differed   int       `json:"differed"`
	Unanswered int       `json:"unanswered"`
}

// Readiness collects the evidence of the last period.
func (s *Supabase) Readiness(ctx context.Context, period time.Duration) (r Readiness, err error) {
	args := s.ofStore()
	args["p_hours"] = period.Hours()
	err = s.callJSON(ctx, "kv_readiness", args, &r)
	return r, err
}
