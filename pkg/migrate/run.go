package migrate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/entries"
	"netlify-supabase-kv/pkg/migrate/sources"
	"netlify-supabase-kv/pkg/stream"
)

// RunOptions say how to migrate.
type RunOptions struct {
	entries.Options
	Rules     entries.Rules
	RulesFrom string // which file these are of; see [entries.FindRules]
	Dir       string // for the report; "" keeps none
	BatchSize int    // entries of one transaction
	Anew      bool   // begin another migration where one was closed
	Progress  sources.Progress

	lease time.Duration // 0: usualLease
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
	// knownPage is how many keys one call tells what is remembered of.
	knownPage = 1000
	// maxPasses bounds how often the source is listed again because something had changed.
	maxPasses = 5
	// usualLease is for how long a run that was killed keeps others away.
	usualLease = 30 * time.Second
	// drain is how long a run waits for mirrored writes that are under way.
	drain = 15 * time.Second
	// keepBlobs is how long the blobs are to be kept after a migration, for the way back.
	keepBlobs = 7 * 24 * time.Hour
)

// statePending is that, in results alone, of a blob that no run has come to yet.
const statePending kv.ImportState = "pending"

// Result is what a migration has done by the end of a run.
type Result struct {
	Source   string          `json:"source"`
	Target   string          `json:"target"`
	At       time.Time       `json:"at"` // of the run's beginning
	Seconds  float64         `json:"seconds"`
	Finished bool            `json:"finished"`
	Stopped  string          `json:"stopped,omitempty"` // why it ended early
	Options  entries.Options `json:"options"`
	Rules    []string        `json:"rules"`
	// RulesFrom is where these were found.
	RulesFrom string `json:"rules_from"`
	sources.Contents
	// Of this run: blobs read, entries written and entries removed. A key that changes meanwhile counts each time.
	Read    int `json:"read"`
	Written int `json:"written"`
	Removed int `json:"removed"`
	// Requests is how many this run has made to Netlify's API.
	Requests int `json:"requests"`
	// States counts the keys by what became of them, in this run or an earlier one: each blob once, and each key
	// whose blob is gone.
	States map[kv.ImportState]int `json:"states"`
	entries.IndexCounts
	Problems
	KeepBlobsUntil time.Time `json:"keep_blobs_until,omitzero"`
}

// Rate is how many blobs a second the run got through.
func (r Result) Rate() float64 { return float64(r.Read) / max(r.Seconds, 0.001) }

// Run brings what the source has and the database does not remember into it, until a list of the source has nothing
// new. It can be ended at any moment, and run again, from anywhere. The result is also in the directory, as the
// report that [WriteReport] makes.
func Run(ctx context.Context, source sources.Source, target entries.Target, o RunOptions) (result Result, err error) {
	if o.Options, err = o.For(source.StoreName()); err != nil {
		return result, err
	}
	if err := target.Takes(source); err != nil {
		return result, err
	}
	if o.BatchSize < 1 || o.BatchSize > MaxBatchSize {
		return result, fmt.Errorf("the batch size must be 1 to %d, got %d", MaxBatchSize, o.BatchSize)
	}
	if err := canWrite(o.Dir); err != nil {
		return result, err
	}
	r := &run{source: source, target: target, o: o, lease: cmp.Or(o.lease, usualLease), askedBefore: sources.Requests(source)}
	r.result = Result{Source: source.Name(), Target: target.Name, At: time.Now().UTC(), Options: o.Options, Rules: o.Rules.Strings(), RulesFrom: o.RulesFrom,
		States: map[kv.ImportState]int{}, Problems: newProblems()}
	if err := r.open(ctx); err != nil {
		return result, err
	}
	ctx, stop := context.WithCancelCause(ctx)
	var renewing sync.WaitGroup
	renewing.Go(func() { r.renew(ctx, stop) })
	err = r.passes(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	stop(nil)
	renewing.Wait()
	err = errors.Join(err, r.end(context.WithoutCancel(ctx), err))
	return r.result, err
}

// run is one run of a migration.
type run struct {
	source      sources.Source
	target      entries.Target
	o           RunOptions
	lease       time.Duration
	askedBefore int // requests that the source had made when the run began

	mu      sync.Mutex
	result  Result
	changed int                    // entries, by the present pass
	ended   map[kv.ImportState]int // the states of all keys, after a pass that ended early

	opening sync.Mutex
	session uuid.UUID // of the present pass: what an earlier one sent and is late is refused
}

// open makes deletes leave their marks from here on, and waits for the mirrored writes of before, whose deletes left
// none.
func (r *run) open(ctx context.Context) error {
	err := r.begin(ctx)
	var held *kv.MigrationHeld
	if errors.As(err, &held) { // perhaps by a run that was killed, and then for no longer than that
		r.o.Progress.Stage("waiting for another run", -1)
		if err := sleep(ctx, held.For+100*time.Millisecond); err != nil {
			return err
		}
		err = r.begin(ctx)
	}
	if err != nil {
		return err
	}
	for end := time.Now().Add(drain); ; {
		pending, err := r.target.Supabase.MigrationRenew(ctx, kv.Renewal{Session: r.session, Lease: r.lease})
		switch {
		case err == nil && pending == 0:
			return nil
		case err == nil && time.Now().After(end):
			err = fmt.Errorf("%d writes have reached Supabase and may not have reached Blobs: work them off with repair --primary supabase, then run again", pending)
		case err == nil:
			err = sleep(ctx, 500*time.Millisecond)
		}
		if err != nil {
			r.release(context.WithoutCancel(ctx), nil)
			return err
		}
	}
}

// begin opens the migration for another pass.
func (r *run) begin(ctx context.Context) error {
	r.opening.Lock()
	defer r.opening.Unlock()
	host, _ := os.Hostname()
	session := uuid.New()
	err := r.target.Supabase.MigrationOpen(ctx, kv.Opening{
		Source: r.source.Name(), Options: r.o.Options, Rules: r.result.Rules, Session: session, Own: r.session,
		Holder: fmt.Sprintf("process %d on %s", os.Getpid(), host), Lease: r.lease, Anew: r.o.Anew,
	})
	if err == nil {
		r.session = session
	}
	return err
}

// renew keeps other runs away until the context ends.
func (r *run) renew(ctx context.Context, stop context.CancelCauseFunc) {
	ticker := time.NewTicker(r.lease / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			r.opening.Lock()
			_, err := r.target.Supabase.MigrationRenew(ctx, kv.Renewal{Session: r.session, Lease: r.lease})
			r.opening.Unlock()
			if errors.Is(err, kv.ErrImportTaken) {
				stop(err)
				return
			}
		}
	}
}

// release lets others take over, and keeps the result.
func (r *run) release(ctx context.Context, result any) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, _ = r.target.Supabase.MigrationRenew(ctx, kv.Renewal{Session: r.session, Run: result}) // else it is over when the lease is
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
	for n := range maxPasses {
		if n > 0 {
			if err := r.begin(ctx); err != nil {
				return err
			}
		}
		if err := r.pass(ctx, n == 0); err != nil {
			return err
		}
		if r.changed == 0 {
			return nil
		}
	}
	return nil
}

// pass brings what is new in a list of the source. retry: also what failed in an earlier run.
func (r *run) pass(ctx context.Context, retry bool) error {
	l, err := sources.List(ctx, r.source, r.o.Dir, r.o.Progress)
	if err != nil { // of an empty source, too: else all that earlier runs wrote would be taken for deleted
		return err
	}
	defer l.Close()
	r.result.Contents = l.Contents
	r.changed, r.result.Problems = 0, newProblems()
	if _, err := r.target.Supabase.MigrationRenew(ctx, kv.Renewal{Session: r.session, Lease: r.lease, Listed: &l.Blobs}); err != nil {
		return err
	}
	derived, err := entries.Derive(ctx, r.source, l, r.o.Options, r.o.Rules, r.o.Dir, r.o.Progress)
	if err != nil {
		return err
	}
	defer derived.Close()
	err = r.move(ctx, l, derived, retry)
	r.result.IndexCounts = derived.Counts
	if err != nil {
		r.countStates(context.WithoutCancel(ctx), l)
	}
	return err
}

// countStates counts what is remembered of each key, and the blobs that nothing is, if the database tells in time.
// What was sent last may still be on its way, so each key is looked at once.
func (r *run) countStates(ctx context.Context, l *sources.Listing) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	states := map[kv.ImportState]int{}
	for s, err := range walk(l.All(), stream.None, r.remembered(ctx), stream.None, nil) {
		switch {
		case err != nil:
			return
		case s.known != nil && s.known.State != "":
			states[s.known.State]++
		case s.listed != nil && kv.ValidateKey(s.key) == nil:
			states[statePending]++
		}
	}
	r.ended = states
}

func (r *run) remembered(ctx context.Context) iter.Seq2[kv.Known, error] {
	return stream.Pages(ctx, knownPage, knownKey, func(ctx context.Context, after string) ([]kv.Known, error) {
		page, err := r.target.Supabase.ImportPage(ctx, after, knownPage)
		if err != nil {
			return nil, fmt.Errorf("look at what was imported: %w", err)
		}
		return page, nil
	})
}

// move does the work: blobs are read in parallel, put together to batches, and these imported in parallel.
func (r *run) move(ctx context.Context, l *sources.Listing, derived *entries.Derivation, retry bool) error {
	r.o.Progress.Stage("migrating", l.Blobs)
	group, ctx := errgroup.WithContext(ctx)
	batches := make(chan []kv.ImportEntry)
	group.Go(func() error {
		defer close(batches)
		return r.batch(ctx, r.todo(ctx, l, derived, retry), batches)
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

// todo are the keys whose blob, or what rules give them, is not what is remembered; those whose rows were lost; and
// those that the source has no more.
func (r *run) todo(ctx context.Context, l *sources.Listing, derived *entries.Derivation, retry bool) iter.Seq2[step, error] {
	return func(yield func(step, error) bool) {
		for s, err := range walk(l.All(), derived.All(), r.remembered(ctx), stream.None, derived.Unnamed) {
			if err == nil && s.listed != nil {
				derived.Counts.Named += len(s.pairs)
			}
			if err == nil && !s.isNew(retry) {
				if s.listed != nil {
					r.o.Progress.Done(1, 0)
				}
				continue
			}
			if !yield(s, err) {
				return
			}
		}
	}
}

// isNew reports whether a key is to be looked at.
func (s step) isNew(retry bool) bool {
	switch {
	case s.listed == nil: // gone; once that is remembered there is no revision
		return s.known.Revision != ""
	case s.known == nil || s.listed.ETag == "" || s.known.Revision != s.listed.ETag || s.known.Derived != digestOf(s.pairs):
		return true
	case s.known.State == kv.ImportFailed:
		return retry
	}
	return s.known.State == kv.ImportLost
}

// digestOf tells sets of pairs apart; empty where there are none.
func digestOf(pairs [][2]string) string {
	if len(pairs) == 0 {
		return ""
	}
	return kv.DigestPairs(pairs)[:16]
}

// batch makes entries of the blobs, and puts them together until there are enough, or enough bytes.
func (r *run) batch(ctx context.Context, todo iter.Seq2[step, error], batches chan<- []kv.ImportEntry) error {
	var batch []kv.ImportEntry
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
	for s, err := range readSteps(ctx, r.source, todo) {
		if err != nil {
			return err
		}
		e := r.prepare(s)
		if bytes+len(e.Bytes()) > maxBatchBytes || len(batch) >= r.o.BatchSize {
			if err := send(); err != nil {
				return err
			}
		}
		batch, bytes = append(batch, e), bytes+len(e.Bytes())
	}
	return send()
}

// prepare makes an entry of what was read. The blob may be newer than the list: then its own etag says what was read.
func (r *run) prepare(s seen) kv.ImportEntry {
	e := kv.ImportEntry{State: kv.State{Key: s.key}}
	if s.item.Missing {
		return e
	}
	e.Revision, e.Derived, e.Silent = s.item.Blob.ETag, digestOf(s.pairs), s.item.Indexes == nil
	if e.Revision == "" && s.listed != nil {
		e.Revision = s.listed.ETag
	}
	made, problem := r.o.Transform(s.item, s.pairs)
	if problem != nil {
		e.Key, e.Problem, e.Not = s.key, problem, kv.ImportFailed
		if problem.Code == entries.CodeSkipped {
			e.Not = kv.ImportSkipped
		}
		return e
	}
	e.State = made.State
	if made.Note != nil {
		e.Problem = made.Note
	}
	return e
}

// write imports a batch and counts what became of it. What nothing can be kept of, since no key is like that, is
// counted alone.
func (r *run) write(ctx context.Context, batch []kv.ImportEntry) error {
	var valid []kv.ImportEntry
	for _, e := range batch {
		if kv.ValidateKey(e.Key) == nil {
			valid = append(valid, e)
			continue
		}
		if problem, ok := e.Problem.(*entries.Problem); ok {
			r.mu.Lock()
			r.result.fail(*problem)
			r.mu.Unlock()
		}
	}
	done, err := r.importAll(ctx, valid)
	if err != nil {
		return err
	}
	failed := len(batch) - len(valid)
	r.mu.Lock()
	r.result.Read += failed
	for i, state := range done {
		if e := valid[i]; e.Revision != "" || e.Value != "" || e.Data != nil || e.Not != "" {
			r.result.Read++
		}
		switch state {
		case kv.ImportFailed:
			failed++
		case kv.ImportWritten, kv.ImportIndexed:
			r.result.Written++
			r.changed++
		case kv.ImportRemoved:
			r.result.Removed++
			r.changed++
		}
	}
	r.mu.Unlock()
	r.o.Progress.Done(len(batch), failed)
	return nil
}

// importAll imports the entries. Those that the database refuses are remembered as failed, and the others imported
// without them.
func (r *run) importAll(ctx context.Context, batch []kv.ImportEntry) ([]kv.ImportState, error) {
	done := make([]kv.ImportState, 0, len(batch))
	err := entries.Halve(ctx, batch, func(part []kv.ImportEntry) error {
		states, err := r.target.Supabase.Import(ctx, r.session, part)
		if err != nil && len(part) == 1 && entries.IsEntryFault(ctx, err) {
			e := part[0]
			e.Problem, e.Not, e.Value = &entries.Problem{Key: e.Key, Code: entries.CodeRefused, Reason: entries.ReasonOf(err), Advice: "change the value in Blobs, and run again"}, kv.ImportFailed, ""
			states, err = r.target.Supabase.Import(ctx, r.session, []kv.ImportEntry{e})
		}
		if err != nil {
			return fmt.Errorf("import: %w", err)
		}
		done = append(done, states...)
		return nil
	})
	return done, err
}

// end takes together what the migration has done by now, lets others take over, and writes the result.
func (r *run) end(ctx context.Context, runErr error) (err error) {
	result := &r.result
	result.Finished, result.Seconds = runErr == nil, time.Since(result.At).Seconds()
	result.Requests = sources.Requests(r.source) - r.askedBefore
	if runErr != nil {
		result.Stopped = runErr.Error()
	} else {
		result.KeepBlobsUntil = time.Now().Add(keepBlobs).UTC().Truncate(time.Second)
	}
	asking, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	invalid := result.Problems // of keys that the database cannot remember
	status, err := r.target.Supabase.MigrationStatus(asking)
	if r.ended != nil {
		status.States = r.ended
	}
	if err == nil {
		result.Problems, err = readProblems(asking, r.target, status)
	}
	if err == nil {
		result.States = status.States
		for _, p := range invalid.Failures {
			result.fail(p)
			result.States[kv.ImportFailed]++
		}
	}
	if err != nil && runErr == nil {
		return fmt.Errorf("ask what became of the entries: %w", err)
	}
	brief := *result
	brief.Failures, brief.Notes, brief.Largest, brief.Without, brief.Unresolved = nil, nil, nil, nil, nil
	r.release(ctx, brief)
	if r.o.Dir == "" {
		return nil
	}
	if err := writeJSON(filepath.Join(r.o.Dir, runFile), result); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}
