package migrate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
)

// Progress is told how far a long piece of work is. Its methods may be called by several goroutines.
type Progress interface {
	// Stage begins with a name and how many things there are to do.
	Stage(name string, total int)
	// Done says that so many more are done, and how many of these failed.
	Done(n, failed int)
}

// Target is where entries go.
type Target struct {
	Name     string // its address, without a secret
	Supabase *kv.Supabase
}

// NewTarget returns a target that waits for a database that restarts.
func NewTarget(name string, supabase *kv.Supabase) Target {
	return Target{Name: name, Supabase: supabase.WithBackgroundRetries(patience)}
}

// RunOptions say how to migrate.
type RunOptions struct {
	Options
	Dir       string // of the journal and the reports
	BatchSize int    // entries of one transaction
	Progress  Progress
}

const (
	// DefaultBatchSize is how many entries go into one transaction.
	DefaultBatchSize = 100
	// MaxBatchSize keeps a transaction short.
	MaxBatchSize = 1000
	// maxBatchBytes bounds the values of a batch, unless one alone is larger.
	maxBatchBytes = 1 << 20
	// writers is how many batches are on their way to the database at once.
	writers = 4
	// maxPasses bounds how often the source is listed again because something had changed.
	maxPasses = 5
	// holdEvery is how often a run says that it is still there; it is believed for a minute.
	holdEvery = 15 * time.Second
	// drain is how long a run waits for mirrored writes that are under way.
	drain = 15 * time.Second
)

// ErrEmptySource: there is not one blob.
var ErrEmptySource = errors.New("the source has no blobs at all: a wrong NETLIFY_SITE_ID or --store looks the same as an empty one. Nothing was changed")

// ErrClosed: what the database knew of the rows and of deletes is gone, so a further run could bring back what callers deleted.
var ErrClosed = errors.New("the migration of this directory was closed. To begin another one, which takes what Supabase has for newer and brings what it lacks, use another --dir")

// Run brings what the source has and the journal does not into the target, until a list of the source has nothing new. It can be
// ended at any moment, and run again. The result is also in the directory, as the report that [WriteReport] makes.
func Run(ctx context.Context, source Source, target Target, o RunOptions) (result Result, err error) {
	if err := errors.Join(o.Validate(), o.validateBatch()); err != nil {
		return result, err
	}
	status, err := target.Supabase.ImportStatus(ctx)
	if err != nil {
		return result, fmt.Errorf("ask the target: %w", err)
	}
	journal, err := OpenJournal(o.Dir, Header{
		Version: journalVersion, Run: uuid.New(), Source: source.Name(), Target: target.Name, Lineage: status.Lineage, Options: o.Options,
	})
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, journal.Close()) }()
	if status.Run == nil && len(journal.Records) > 0 {
		return result, ErrClosed
	}
	r := &run{source: source, target: target, o: o, journal: journal, started: time.Now(), askedBefore: requestsOf(source)}
	release, err := r.open(ctx)
	if err != nil {
		return result, err
	}
	defer release()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var holding sync.WaitGroup
	holding.Go(func() { r.hold(ctx, stop) })
	defer holding.Wait()
	defer stop(nil)

	err = r.passes(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	result = r.result(err)
	if writeErr := writeJSON(resultPath(o.Dir), result); writeErr != nil {
		err = errors.Join(err, fmt.Errorf("write the result: %w", writeErr))
	}
	return result, err
}

func (o RunOptions) validateBatch() error {
	if o.BatchSize < 1 || o.BatchSize > MaxBatchSize {
		return fmt.Errorf("the batch size must be 1 to %d, got %d", MaxBatchSize, o.BatchSize)
	}
	return nil
}

// run is one run of a migration.
type run struct {
	source  Source
	target  Target
	o       RunOptions
	journal *Journal
	started time.Time

	list    []blobs.Listed
	indexes *Indexes
	changed int // entries, by the present pass
	// Of this run: blobs read, entries written, entries removed.
	read, written, removed int

	askedBefore int // requests that the source had made when the run began

	mu sync.Mutex // journal and counters

	opening sync.Mutex
	session uuid.UUID // of the present pass: what an earlier one sent and is late is refused
}

// open makes deletes leave their marks from here on, and waits for the mirrored writes of before, whose deletes left none.
func (r *run) open(ctx context.Context) (release func(), err error) {
	supabase := r.target.Supabase
	if err := r.begin(ctx); err != nil {
		return nil, err
	}
	release = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_, _ = supabase.ImportHold(ctx, r.session, true) // else it is over in a minute
	}
	for end := time.Now().Add(drain); ; {
		pending, err := supabase.ImportHold(ctx, r.session, false)
		switch {
		case err == nil && pending == 0:
			return release, nil
		case err == nil && time.Now().After(end):
			err = fmt.Errorf("%d writes have reached Supabase and may not have reached Blobs: work them off with repair --first supabase, then run again", pending)
		case err == nil:
			err = sleep(ctx, 500*time.Millisecond)
		}
		if err != nil {
			release()
			return nil, err
		}
	}
}

// begin opens the migration with a new session.
func (r *run) begin(ctx context.Context) error {
	r.opening.Lock()
	defer r.opening.Unlock()
	session := uuid.New()
	err := r.target.Supabase.ImportOpen(ctx, r.journal.Header.Run, session)
	if err == nil {
		r.session = session
	}
	return err
}

// hold keeps other runs away until the context ends.
func (r *run) hold(ctx context.Context, stop context.CancelCauseFunc) {
	ticker := time.NewTicker(holdEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			r.opening.Lock()
			_, err := r.target.Supabase.ImportHold(ctx, r.session, false)
			r.opening.Unlock()
			if errors.Is(err, kv.ErrImportTaken) {
				stop(err)
				return
			}
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// passes lists the source until nothing of it is new.
func (r *run) passes(ctx context.Context) error {
	retry := true // what failed in an earlier run
	for n := range maxPasses {
		if n > 0 {
			if err := r.begin(ctx); err != nil {
				return err
			}
		}
		if err := r.look(ctx); err != nil {
			return err
		}
		if len(r.list) == 0 { // else all that earlier runs wrote would be taken for deleted
			return ErrEmptySource
		}
		todo, gone, err := r.todo(ctx, retry)
		if err != nil {
			return err
		}
		retry, r.changed = false, 0
		if err := r.pass(ctx, todo, gone); err != nil {
			return err
		}
		if r.changed == 0 {
			return nil
		}
	}
	return nil
}

// look lists the source and reads its index entries.
func (r *run) look(ctx context.Context) (err error) {
	r.o.Progress.Stage("listing", -1)
	if r.list, err = r.source.List(ctx); err != nil {
		return err
	}
	r.indexes, err = readIndexes(ctx, r.source, &r.target, r.list, r.o.Options, r.o.Progress)
	return err
}

// todo are the keys whose blob or indexes are not what the journal has of them, those that the target lacks although it had them,
// and, gone, those that the source has no more.
func (r *run) todo(ctx context.Context, retry bool) (todo []blobs.Listed, gone map[string]bool, err error) {
	listed := make(map[string]bool, len(r.list))
	var known []blobs.Listed
	for _, blob := range r.list {
		listed[blob.Key] = true
		record, ok := r.journal.Records[blob.Key]
		switch {
		case !ok || record.Status == statusImporting || blob.ETag == "" || record.Revision != blob.ETag || record.Indexes != r.extracted(blob.Key), record.Status == statusFailed && retry:
			todo = append(todo, blob)
		case retry && record.Status != statusFailed:
			known = append(known, blob)
		}
	}
	lost, err := r.lost(ctx, known)
	if err != nil {
		return nil, nil, err
	}
	todo, gone = append(todo, lost...), map[string]bool{}
	for key, record := range r.journal.Records {
		if !listed[key] && record.Status != kv.ImportRemoved && record.Status != kv.ImportAbsent && kv.ValidateKey(key) == nil {
			todo = append(todo, blobs.Listed{Key: key})
			gone[key] = true
		}
	}
	return todo, gone, nil
}

// extracted is a digest of the indexes that the index entries give an entry.
func (r *run) extracted(key string) string {
	if pairs := r.indexes.Of(key); len(pairs) > 0 {
		return digestPairs(pairs)[:16]
	}
	return ""
}

// lost are those that the journal has as done and the target no more, as after it was emptied. What others wrote or deleted since
// goes into the journal.
func (r *run) lost(ctx context.Context, known []blobs.Listed) (lost []blobs.Listed, err error) {
	for chunk := range slices.Chunk(known, 1000) {
		keys := make([]string, len(chunk))
		for i, blob := range chunk {
			keys[i] = blob.Key
		}
		states, err := r.target.Supabase.ImportStates(ctx, keys)
		if err != nil {
			return nil, fmt.Errorf("look at what was imported: %w", err)
		}
		var now []Record
		for i, state := range states {
			record := r.journal.Records[chunk[i].Key]
			switch {
			case state == kv.ImportAbsent:
				lost = append(lost, chunk[i])
			case state != kv.ImportedUnchanged && record.Status != state: // live or deleted since
				record.Status = state
				now = append(now, record)
			}
		}
		if err := r.journal.Append(now); err != nil {
			return nil, err
		}
	}
	return lost, nil
}

// pass does the work: blobs are read in parallel, put together to batches, and these imported in parallel.
func (r *run) pass(ctx context.Context, todo []blobs.Listed, gone map[string]bool) error {
	if len(todo) == 0 {
		return nil
	}
	r.o.Progress.Stage("migrating", len(todo))
	group, ctx := errgroup.WithContext(ctx)
	items, batches := make(chan one, writers), make(chan []one)
	group.Go(func() error {
		defer close(items)
		return r.source.Read(ctx, todo, func(ctx context.Context, item Item) error {
			o, err := r.prepare(ctx, item, gone[item.Key])
			if err != nil {
				return err
			}
			select {
			case items <- o:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	group.Go(func() error {
		defer close(batches)
		return r.batch(ctx, items, batches)
	})
	for range writers {
		group.Go(func() error {
			for batch := range batches {
				if err := r.write(ctx, batch); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// one is a key on its way.
type one struct {
	entry
	record  Record
	skip    bool // nothing is to be imported
	gone    bool // the source has it no more
	adopted bool // its row got indexes
}

// prepare makes an entry of what was read.
func (r *run) prepare(ctx context.Context, item Item, listedBefore bool) (one, error) {
	o := one{record: Record{Key: item.Key, Revision: item.ETag, Indexes: r.extracted(item.Key)}}
	if item.Missing {
		o.gone, o.State = true, kv.State{Key: item.Key}
		return o, nil
	}
	if listedBefore { // it is there again
		o.record.Revision = ""
	}
	// The blob may be newer than the list. Its own etag says what was read, and the next list will have that.
	if item.Blob.ETag != "" {
		o.record.Revision = item.Blob.ETag
	}
	e, problem := r.o.transform(item, r.indexes)
	if problem != nil {
		o.skip, o.record.Status, o.record.Problem = true, statusFailed, problem
		if problem.Code == CodeSkipped {
			o.record.Status = CodeSkipped
		}
		return o, nil
	}
	o.entry, o.record.Problem = e, e.note
	r.mu.Lock()
	before, known := r.journal.Records[item.Key]
	r.mu.Unlock()
	if item.Indexes != nil || !known || before.Revision != o.record.Revision {
		return o, nil
	}
	// Only index entries have changed. A member that another entry has brought along since is that one's.
	var err error
	o.State.Indexes, err = withoutClaimed(ctx, r.target, item.Key, o.State.Indexes)
	return o, err
}

// withoutClaimed leaves out the pairs that the target has for other entries, but for those that it has for this one too.
func withoutClaimed(ctx context.Context, target Target, key string, pairs [][2]string) ([][2]string, error) {
	states, err := target.Supabase.States(ctx, []string{key})
	if err != nil {
		return nil, fmt.Errorf("read an entry: %w", err)
	}
	kept := [][2]string{}
	for _, p := range pairs {
		if !slices.Contains(states[0].Indexes, p) {
			claimed, err := isClaimed(ctx, target, key, p)
			if err != nil {
				return nil, err
			}
			if claimed {
				continue
			}
		}
		kept = append(kept, p)
	}
	return kept, nil
}

// isClaimed tells whether the target has the pair for another entry than this one.
func isClaimed(ctx context.Context, target Target, key string, p [2]string) (bool, error) {
	limit := 2
	text, err := target.Supabase.List(ctx, kv.ListQuery{Indexes: []string{p[0] + ":" + p[1]}, Limit: &limit})
	if err != nil {
		return false, fmt.Errorf("look for an index: %w", err)
	}
	var list struct{ Keys []string }
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return false, fmt.Errorf("look for an index: %w", err)
	}
	return slices.ContainsFunc(list.Keys, func(other string) bool { return other != key }), nil
}

// batch puts entries together until there are enough, or enough bytes.
func (r *run) batch(ctx context.Context, items <-chan one, batches chan<- []one) error {
	var batch []one
	bytes := 0
	send := func() error {
		if len(batch) == 0 {
			return nil
		}
		select {
		case batches <- batch:
			batch, bytes = nil, 0
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for o := range items {
		if bytes+len(o.Value) > maxBatchBytes {
			if err := send(); err != nil {
				return err
			}
		}
		batch, bytes = append(batch, o), bytes+len(o.Value)
		if len(batch) >= r.o.BatchSize {
			if err := send(); err != nil {
				return err
			}
		}
	}
	if ctx.Err() != nil { // the reading ended early
		return ctx.Err()
	}
	return send()
}

// write imports a batch and keeps what became of it.
func (r *run) write(ctx context.Context, batch []one) error {
	var states []kv.State
	var importing []int
	for i, o := range batch {
		if !o.skip {
			states, importing = append(states, o.State), append(importing, i)
		}
	}
	if err := r.intend(states); err != nil {
		return err
	}
	done, err := r.importAll(ctx, states)
	if err != nil {
		return err
	}
	for n, i := range importing {
		o := &batch[i]
		o.record.Status = done[n].status
		if done[n].problem != nil {
			o.record.Problem = done[n].problem
		}
	}
	for i := range batch {
		if batch[i].record.Status == kv.ImportLive && !batch[i].gone {
			if batch[i].adopted, err = r.adopt(ctx, batch[i]); err != nil {
				return err
			}
		}
	}
	return r.keep(batch)
}

// intend keeps that the entries are on their way.
func (r *run) intend(states []kv.State) error {
	records := make([]Record, len(states))
	for i, state := range states {
		records[i] = Record{Key: state.Key, Status: statusImporting}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.journal.Append(records)
}

func (r *run) keep(batch []one) error {
	records := make([]Record, len(batch))
	failed, read, written, removed := 0, 0, 0, 0
	for i, o := range batch {
		records[i] = o.record
		if !o.gone {
			read++
		}
		switch {
		case o.record.Status == statusFailed:
			failed++
		case o.record.Status == kv.ImportWritten || o.adopted:
			written++
		case o.record.Status == kv.ImportRemoved:
			removed++
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.journal.Append(records); err != nil {
		return err
	}
	r.read, r.written, r.removed, r.changed = r.read+read, r.written+written, r.removed+removed, r.changed+written+removed
	r.o.Progress.Done(len(batch), failed)
	return nil
}

// outcome is what became of one entry.
type outcome struct {
	status  kv.Imported
	problem *Problem
}

// importAll imports the states. Those that the database refuses are found by halving, and the others imported without them.
func (r *run) importAll(ctx context.Context, states []kv.State) ([]outcome, error) {
	if len(states) == 0 {
		return nil, nil
	}
	done, err := r.target.Supabase.Import(ctx, r.session, states)
	switch {
	case err == nil:
		outcomes := make([]outcome, len(done))
		for i, status := range done {
			outcomes[i].status = status
		}
		return outcomes, nil
	case !entrysFault(ctx, err):
		return nil, fmt.Errorf("import: %w", err)
	case len(states) == 1:
		return []outcome{{statusFailed, &Problem{Key: states[0].Key, Code: CodeRefused, Reason: reasonOf(err), Advice: "change the value in Blobs, and run again"}}}, nil
	}
	half := len(states) / 2
	first, err := r.importAll(ctx, states[:half])
	if err != nil {
		return nil, err
	}
	second, err := r.importAll(ctx, states[half:])
	return append(first, second...), err
}

// entrysFault tells whether an error may be that of one entry, rather than of the database.
func entrysFault(ctx context.Context, err error) bool {
	switch kv.CodeOf(err) {
	case kv.CodeInvalidInput, kv.CodeUnstorableValue, kv.CodeTooLarge:
		return true
	case kv.CodeDeadlineExceeded: // the statement's, where it is not our own
		return ctx.Err() == nil
	}
	return false
}

func reasonOf(err error) string {
	var known *kv.Error
	if errors.As(err, &known) {
		return known.Message
	}
	return err.Error()
}

// adopt gives an entry that somebody wrote meanwhile the indexes that index entries say it has, if the writer did not say which it
// has: an upsert without indexes leaves an entry's as they are. Only where it is the copy of the blob as that is now, which still
// says nothing of its indexes; and with a compare-and-set on what was read before the blob. It tells whether it did.
func (r *run) adopt(ctx context.Context, o one) (bool, error) {
	pairs := r.indexes.Of(o.Key)
	if len(pairs) == 0 || !slices.EqualFunc(o.Indexes, pairs, func(a, b [2]string) bool { return a == b }) {
		return false, nil
	}
	states, err := r.target.Supabase.States(ctx, []string{o.Key})
	if err != nil {
		return false, fmt.Errorf("read an entry: %w", err)
	}
	now := states[0]
	item, err := readOne(ctx, r.source, o.Key)
	if err != nil {
		return false, err
	}
	if now.Revision.IsZero() || now.Value != o.Value || item.Indexes != nil || item.Updated == 0 || item.Updated != now.Updated {
		return false, nil
	}
	lacking := 0
	for _, p := range pairs {
		if !slices.Contains(now.Indexes, p) {
			now.Indexes = append(now.Indexes, p)
			lacking++
		}
	}
	if lacking == 0 {
		return false, nil
	}
	applied, _, err := r.target.Supabase.Copy(ctx, now, now.Revision, false)
	if err != nil {
		return false, fmt.Errorf("give an entry its indexes: %w", err)
	}
	return applied, nil // where it did not, a newer write has come
}

// readIndexes reads the index entries among the listed blobs, and finds which entries their members name. target may be nil; else it
// knows which of them have left since the migration was opened.
func readIndexes(ctx context.Context, source Source, target *Target, list []blobs.Listed, o Options, progress Progress) (*Indexes, error) {
	rules, err := o.rules()
	if err != nil {
		return nil, err
	}
	var candidates []blobs.Listed
	keys := make([]string, len(list))
	for i, blob := range list {
		keys[i] = blob.Key
		if strings.HasPrefix(blob.Key, o.IndexPrefix) {
			candidates = append(candidates, blob)
		}
	}
	progress.Stage("reading indexes", len(candidates))
	var mu sync.Mutex
	var entries []indexEntry
	known := map[kv.Member]kv.Member{} // one text for a member of many indexes
	err = source.Read(ctx, candidates, func(_ context.Context, item Item) error {
		e, isIndex := indexEntry{key: item.Key}, false
		if !item.Missing && item.Err == nil && notJSON(item.Blob.Value) == "" {
			e.elements, isIndex = readElements(string(item.Blob.Value))
		}
		mu.Lock()
		defer mu.Unlock()
		if isIndex {
			for i, element := range e.elements {
				if _, ok := known[element.member]; !ok {
					known[element.member] = element.member
				}
				e.elements[i].member = known[element.member]
			}
			entries = append(entries, e)
		}
		progress.Done(1, 0)
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(entries, func(a, b indexEntry) int { return strings.Compare(a.key, b.key) })
	left, err := readLeft(ctx, target) // after the blobs: who left since they were read is in here
	if err != nil {
		return nil, err
	}
	x := extract(keys, entries, rules, left, nil)
	if len(x.Ambiguous) == 0 || len(x.Ambiguous) > maxListed {
		return x, nil
	}
	own, err := readOwn(ctx, source, list, x.Ambiguous)
	if err != nil {
		return nil, err
	}
	return extract(keys, entries, rules, left, own), nil
}

// leftPage is how many members are asked for at a time.
const leftPage = 10_000

func readLeft(ctx context.Context, target *Target) (map[[2]string]bool, error) {
	left := map[[2]string]bool{}
	if target == nil {
		return left, nil
	}
	for after := [2]string{}; ; {
		page, err := target.Supabase.ImportLeft(ctx, after, leftPage)
		if err != nil {
			return nil, fmt.Errorf("ask which members have left their indexes: %w", err)
		}
		for _, pair := range page {
			left[pair] = true
		}
		if len(page) < leftPage {
			return left, nil
		}
		after = page[len(page)-1]
	}
}

// readOwn reads the entries that ambiguous members may name, and returns the indexes of those that say themselves which they have, as
// whatever was written since the JavaScript functions went.
func readOwn(ctx context.Context, source Source, list []blobs.Listed, ambiguous []Member) (map[string][][2]string, error) {
	named := map[string]bool{}
	for _, member := range ambiguous {
		for _, key := range member.Entries {
			named[key] = true
		}
	}
	var candidates []blobs.Listed
	for _, blob := range list {
		if named[blob.Key] {
			candidates = append(candidates, blob)
		}
	}
	var mu sync.Mutex
	own := map[string][][2]string{}
	err := source.Read(ctx, candidates, func(_ context.Context, item Item) error {
		mu.Lock()
		defer mu.Unlock()
		if item.Indexes != nil {
			own[item.Key] = item.Indexes
		}
		return nil
	})
	return own, err
}

// digestPairs is kv.digest_pairs: SHA-256 of the distinct pairs in order.
func digestPairs(pairs [][2]string) string {
	sorted := slices.Clone(pairs)
	slices.SortFunc(sorted, func(a, b [2]string) int {
		if c := strings.Compare(a[0], b[0]); c != 0 {
			return c
		}
		return strings.Compare(a[1], b[1])
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
