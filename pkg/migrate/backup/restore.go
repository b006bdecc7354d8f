package backup

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/entries"
	"netlify-supabase-kv/pkg/migrate/sources"
	"netlify-supabase-kv/pkg/stream"
)

// RestoreOptions say how to restore.
type RestoreOptions struct {
	// Options say how entries of Supabase are made of blobs. They count only where a backup of Blobs goes into
	// Supabase.
	entries.Options
	Rules     entries.Rules    // likewise
	Overwrite bool             // also entries that are there and differ
	DryRun    bool             // only count what would be done
	Progress  sources.Progress // may be nil
}

// restoreParallel is how many chunks are under way at once, which suits a service in use.
const restoreParallel = 8

// RestoreResult is what a restore did; of a dry run, what it would have done.
type RestoreResult struct {
	Backup  Result `json:"backup"`
	Target  string `json:"target"`
	DryRun  bool   `json:"dry_run,omitempty"`
	Written int    `json:"written"` // entries that were missing, and with Overwrite those that differed
	Same    int    `json:"same"`    // entries that were there already, with the same value and indexes or metadata
	// Differing are keys whose entries differ and were left as they are: at most [entries.MaxListed] of them, in
	// order. The number is of all.
	Different int      `json:"different"`
	Differing []string `json:"differing"`
	// Failures are entries that the store cannot keep; at most [entries.MaxListed] of them. Failed counts all.
	Failed   int               `json:"failed"`
	Failures []entries.Problem `json:"failures"`
	Skipped  int               `json:"skipped"` // not JSON, and that was said to be fine; or expired by now
}

// RestoreBlobs brings the entries of a backup into the store of the same name in Netlify Blobs: of a backup of Blobs, and
// of any store but kv, the bytes and the metadata of each entry; of the store kv in Supabase what mirrored writes would
// have made of its entries. Content types are not restored: the service sets its own. Entries that expire are refused.
//
// Nothing is written unless the whole file is in order. Missing entries are written; those that differ are left and
// listed, unless o.Overwrite. Every write is conditional on what was seen before, so that one that comes meanwhile
// stays. Nothing is deleted. It can be ended and run again. The error is [ErrRemaining] where entries differ or
// cannot be kept.
func RestoreBlobs(ctx context.Context, file string, target *sources.Blobs, o RestoreOptions) (RestoreResult, error) {
	source, r, err := openRestore(ctx, file, target.StoreName(), target.Name(), o)
	if err != nil {
		return RestoreResult{}, err
	}
	there := iter.Seq2[blobs.Listed, error](stream.None[blobs.Listed])
	l, err := sources.List(ctx, target, "", r.o.Progress)
	switch {
	case err == nil:
		defer l.Close()
		there = l.All()
	case !errors.Is(err, sources.ErrEmpty):
		return r.result, err
	}
	to := &blobsRestore{restore: r, target: target, of: source.Result.Of}
	return r.run(ctx, source, there, stream.None, 1, to.write)
}

// RestoreSupabase is [RestoreBlobs] into Supabase. Entries are made of a backup of Blobs as a run makes them, with
// the indexes that the rules find in the backup's index entries; those of a backup of Supabase are what they were.
func RestoreSupabase(ctx context.Context, file string, target entries.Target, o RestoreOptions) (RestoreResult, error) {
	source, r, err := openRestore(ctx, file, target.Supabase.StoreName(), target.Name, o)
	if err != nil {
		return RestoreResult{}, err
	}
	if _, err := target.Supabase.Migration(ctx); err != nil {
		return r.result, fmt.Errorf("ask the target: %w", err)
	}
	to, derived := &supabaseRestore{restore: r, target: target}, iter.Seq2[entries.Derived, error](stream.None[entries.Derived])
	if source.Result.Of == OfBlobs && r.o.IndexPrefix != "" {
		l, err := sources.List(ctx, source, "", r.o.Progress)
		if err != nil {
			return r.result, err
		}
		defer l.Close()
		d, err := entries.Derive(ctx, source, l, r.o.Options, o.Rules, "", r.o.Progress)
		if err != nil {
			return r.result, err
		}
		defer d.Close()
		derived = d.All()
	}
	return r.run(ctx, source, stream.None, derived, restoreChunk, to.write)
}

func openRestore(ctx context.Context, file, store, target string, o RestoreOptions) (*Source, *restore, error) {
	o.Progress = orNoProgress(o.Progress)
	o.Progress.Stage("checking the backup", -1)
	source, err := NewSource(ctx, file)
	if err != nil {
		return nil, nil, err
	}
	if source.Result.Of == OfBlobs || store != kv.DefaultStore {
		if o.Options, err = o.For(store); err != nil {
			return nil, nil, err
		}
	}
	if source.Result.Store != store {
		return nil, nil, fmt.Errorf("the backup is of the store %s, and cannot be restored into the store %s", source.Result.Store, store)
	}
	return source, &restore{o: o, result: RestoreResult{
		Backup: source.Result, Target: target, DryRun: o.DryRun, Differing: []string{}, Failures: []entries.Problem{},
	}}, nil
}

// restore is one that is under way.
type restore struct {
	o RestoreOptions

	mu     sync.Mutex
	result RestoreResult
	inARow int // entries that could not be written
}

const (
	// restoreChunk is how many entries one call compares, and one transaction writes.
	restoreChunk = 100
	// restoreBytes bounds the values of such a chunk, unless one alone is larger.
	restoreBytes = 1 << 20
)

// restored is a line of the backup beside what else is known of its key.
type restored struct {
	*entryLine
	there bool        // the target listed the key
	pairs [][2]string // that rules give the entry
}

// run reads the file, and has its entries written in chunks, several at a time.
func (r *restore) run(ctx context.Context, source *Source, there iter.Seq2[blobs.Listed, error], derived iter.Seq2[entries.Derived, error], chunk int,
	write func(context.Context, []restored) error) (RestoreResult, error) {
	r.o.Progress.Stage("restoring", source.Result.Entries)
	err := r.chunks(ctx, lines(ctx, source, there, derived), chunk, write)
	slices.Sort(r.result.Differing)
	if err == nil && r.result.Different+r.result.Failed > 0 {
		err = fmt.Errorf("%w: %d entries differ from the backup and were left, %d cannot be restored", ErrRemaining, r.result.Different, r.result.Failed)
	}
	return r.result, err
}

// lines merges the backup with what is known of its keys.
func lines(ctx context.Context, source *Source, there iter.Seq2[blobs.Listed, error], derived iter.Seq2[entries.Derived, error]) iter.Seq2[restored, error] {
	return func(yield func(restored, error) bool) {
		t, d := stream.NewCursor(there, func(b blobs.Listed) string { return b.Key }), stream.NewCursor(derived, func(d entries.Derived) string { return d.Key })
		defer t.Stop()
		defer d.Stop()
		err := errors.Join(t.Advance(), d.Advance())
		for l, lineErr := range source.lines(ctx, nil) {
			if err = errors.Join(err, lineErr); err == nil {
				err = errors.Join(t.UpTo(l.Key), d.UpTo(l.Key))
			}
			if err != nil {
				yield(restored{}, err)
				return
			}
			_, listed := t.At(l.Key)
			var ruled [][2]string
			if p, ok := d.At(l.Key); ok {
				ruled = p.Pairs
			}
			if !yield(restored{l, listed, ruled}, nil) {
				return
			}
		}
	}
}

func (r *restore) chunks(ctx context.Context, lines iter.Seq2[restored, error], chunk int, write func(context.Context, []restored) error) error {
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(restoreParallel)
	memory := semaphore.NewWeighted(stream.MaxBytesAtOnce)
	var batch []restored
	bytes := int64(0)
	send := func() error {
		lines, weight := batch, min(bytes, stream.MaxBytesAtOnce)
		batch, bytes = nil, 0
		if err := memory.Acquire(groupCtx, weight); err != nil {
			return err
		}
		group.Go(func() error {
			defer memory.Release(weight)
			return write(groupCtx, lines)
		})
		return nil
	}
	var err error
	for l, lineErr := range lines {
		if err = lineErr; err != nil {
			break
		}
		batch, bytes = append(batch, l), bytes+l.Size
		if len(batch) == chunk || bytes >= restoreBytes {
			if err = send(); err != nil {
				break
			}
		}
	}
	if err == nil && len(batch) > 0 {
		err = send()
	}
	if failed := group.Wait(); failed != nil {
		return failed
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// written, same, differs and failed each count an entry.
func (r *restore) written() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Written++
	r.inARow = 0
	r.o.Progress.Done(1, 0)
}

func (r *restore) same() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Same++
	r.o.Progress.Done(1, 0)
}

func (r *restore) differs(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Different++
	if len(r.result.Differing) < entries.MaxListed {
		r.result.Differing = append(r.result.Differing, key)
	}
	r.o.Progress.Done(1, 0)
}

func (r *restore) failed(p entries.Problem) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.Code == entries.CodeSkipped {
		r.result.Skipped++
		r.o.Progress.Done(1, 0)
		return
	}
	r.result.Failed++
	if len(r.result.Failures) < entries.MaxListed {
		r.result.Failures = append(r.result.Failures, p)
	}
	r.o.Progress.Done(1, 1)
}

// expired counts an entry that nobody would see any more.
func (r *restore) expired(l restored) bool {
	if l.Expires == 0 || l.Expires > time.Now().UnixMicro() {
		return false
	}
	r.failed(entries.Problem{Key: l.Key, Code: entries.CodeSkipped, Reason: "it has expired"})
	return true
}

// tooMany counts an entry that was refused, and reports whether so many were in a row that it must be the service.
func (r *restore) tooMany() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inARow++
	return r.inARow > sources.MaxFailuresInARow
}

// supabaseRestore writes into Supabase.
type supabaseRestore struct {
	*restore
	target entries.Target
}

func (r *supabaseRestore) write(ctx context.Context, lines []restored) error {
	var states []kv.State
	var keys []string
	for _, l := range lines {
		if r.expired(l) {
			continue
		}
		e, problem := r.o.Transform(l.item(r.result.Backup), l.pairs)
		if problem != nil {
			r.failed(*problem)
			continue
		}
		states, keys = append(states, e.State), append(keys, e.Key)
	}
	if len(keys) == 0 {
		return nil
	}
	there, err := r.target.Digests(ctx, keys)
	if err != nil {
		return err
	}
	var copies []kv.CopyOver
	for _, state := range states {
		over, write, err := r.choose(ctx, state, there[state.Key])
		if err != nil {
			return err
		}
		if write {
			copies = append(copies, kv.CopyOver{State: state, Over: over})
		}
	}
	return r.copy(ctx, copies)
}

// choose says whether an entry is to be written, and over what. digest is of the one that was there; nil: none was.
func (r *supabaseRestore) choose(ctx context.Context, state kv.State, digest *kv.Digest) (over kv.RowRevision, write bool, err error) {
	switch {
	case digest == nil:
		return over, true, nil
	case isOf(state, digest):
		r.same()
		return over, false, nil
	case !r.o.Overwrite:
		r.differs(state.Key)
		return over, false, nil
	}
	now, err := r.target.State(ctx, state.Key)
	if err == nil && !now.Revision.IsZero() && !isOf(now, digest) {
		r.settle(now, state) // it is not what was compared
		return over, false, nil
	}
	return now.Revision, err == nil, err
}

// isOf reports whether the digest is that of the entry.
func isOf(state kv.State, digest *kv.Digest) bool {
	return kv.DigestOf(state).Alike(*digest)
}

// copy writes entries in one transaction, each over the revision that was seen. Where another write has come
// meanwhile, that one stays. Those that the database refuses are left out.
func (r *supabaseRestore) copy(ctx context.Context, copies []kv.CopyOver) error {
	if len(copies) == 0 || r.o.DryRun {
		for range copies {
			r.written()
		}
		return nil
	}
	return entries.Halve(ctx, copies, func(part []kv.CopyOver) error {
		applied, err := r.target.Supabase.CopyAll(ctx, part)
		switch {
		case err == nil:
			return r.count(ctx, part, applied)
		case len(part) > 1 || !entries.IsEntryFault(ctx, err):
			return fmt.Errorf("write the entries: %w", err)
		case r.tooMany():
			return fmt.Errorf("the database refuses one entry after the other: %w", err)
		}
		r.failed(entries.Problem{Key: part[0].Key, Code: entries.CodeRefused, Reason: entries.ReasonOf(err), Advice: "it stays in the backup"})
		return nil
	})
}

// count counts the copies, which were applied or found another write.
func (r *supabaseRestore) count(ctx context.Context, copies []kv.CopyOver, applied []bool) error {
	for i, applied := range applied {
		if applied {
			r.written()
			continue
		}
		now, err := r.target.State(ctx, copies[i].Key)
		if err != nil {
			return err
		}
		r.settle(now, copies[i].State)
	}
	return nil
}

// settle counts what another has written meanwhile.
func (r *supabaseRestore) settle(now, state kv.State) {
	if !now.Revision.IsZero() && kv.DigestOf(now).Alike(kv.DigestOf(state)) {
		r.same()
		return
	}
	r.differs(state.Key)
}

// blobsRestore writes into Blobs.
type blobsRestore struct {
	*restore
	target *sources.Blobs
	of     Store
}

func (r *blobsRestore) write(ctx context.Context, lines []restored) error {
	for _, l := range lines {
		if r.expired(l) {
			continue
		}
		err := r.one(ctx, l)
		switch {
		case err == nil:
			continue
		case ctx.Err() != nil:
			return ctx.Err()
		case sources.Refused(err) || r.tooMany():
			return fmt.Errorf("write the blobs: %w", sources.AdviseAccess(err))
		}
		r.failed(entries.Problem{Key: l.Key, Code: entries.CodeRefused, Reason: err.Error(), Advice: "restore again; it stays in the backup"})
	}
	return nil
}

// one restores a blob. An error is that of this blob, or of the service.
func (r *blobsRestore) one(ctx context.Context, l restored) error {
	if err := r.target.Client.ValidateKey(l.Key); err != nil {
		r.failed(entries.Problem{Key: l.Key, Code: entries.CodeBadKey, Reason: err.Error() + ": Netlify Blobs cannot keep it", Advice: "it stays in the backup; restore it into Supabase"})
		return nil
	}
	if l.Expires != 0 {
		r.failed(entries.Problem{Key: l.Key, Code: entries.CodeRefused, Reason: "it expires, and Netlify Blobs would keep it for ever", Advice: "it stays in the backup; restore it into Supabase"})
		return nil
	}
	if !l.there {
		return r.put(ctx, l.entryLine, "")
	}
	return r.compare(ctx, l.entryLine)
}

// compare looks at the blob that is there, and writes over it if that is wanted.
func (r *blobsRestore) compare(ctx context.Context, l *entryLine) error {
	there, same, err := r.look(ctx, l)
	switch {
	case err != nil:
		return err
	case there == nil:
		return r.put(ctx, l, "")
	case same:
		r.same()
		return nil
	case !r.o.Overwrite:
		r.differs(l.Key)
		return nil
	}
	return r.put(ctx, l, blobs.ETagOf(*there))
}

// look reads the blob that is there, nil where there is none, and compares it.
func (r *blobsRestore) look(ctx context.Context, l *entryLine) (there *blobs.Blob, same bool, err error) {
	blob, err := r.target.Client.Get(ctx, l.Key)
	if errors.Is(err, blobs.ErrNotFound) {
		return nil, false, nil
	}
	if err == nil {
		same, err = r.alike(ctx, l, blob)
	}
	return &blob, same, err
}

// alike compares what is restored: the metadata of a blob, but of an entry of Supabase the indexes alone.
func (r *blobsRestore) alike(ctx context.Context, l *entryLine, blob blobs.Blob) (bool, error) {
	if string(blob.Value) != string(l.value) {
		return false, nil
	}
	if r.of == OfBlobs || r.target.Store == nil {
		return blobs.SameMetadata(blob.Metadata, l.Metadata), nil
	}
	state, err := r.target.Store.State(ctx, l.Key, blob)
	return err == nil && kv.DigestPairs(state.Indexes) == kv.DigestPairs(l.Indexes), err
}

// put writes over the blob with the etag; "" where there was none. Where another write has come meanwhile, that one
// stays.
func (r *blobsRestore) put(ctx context.Context, l *entryLine, over string) error {
	if r.o.DryRun {
		r.written()
		return nil
	}
	var applied bool
	var err error
	switch blob := (blobs.Blob{Value: l.value, Metadata: l.Metadata}); {
	case r.target.Store == nil:
		applied, err = r.target.Client.WriteOver(ctx, l.Key, blob, over)
	case r.of == OfSupabase:
		applied, err = r.target.Store.Write(ctx, l.state(), over)
	default:
		applied, err = r.target.Store.WriteBlob(ctx, l.Key, blob, l.Indexes, over)
	}
	switch {
	case err != nil:
		return err
	case applied:
		r.written()
		return nil
	}
	return r.settle(ctx, l)
}

// settle counts what another has written meanwhile; what it removed stays removed.
func (r *blobsRestore) settle(ctx context.Context, l *entryLine) error {
	_, same, err := r.look(ctx, l)
	switch {
	case err != nil:
		return err
	case same:
		r.same()
	default:
		r.differs(l.Key)
	}
	return nil
}
