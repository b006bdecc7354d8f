// Package backup writes the entries of a store into one file, checks such a file, and restores it into either store.
package backup

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gofrs/flock"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/entries"
	"netlify-supabase-kv/pkg/migrate/sources"
	"netlify-supabase-kv/pkg/stream"
)

// Options say how to write a backup.
type Options struct {
	Force    bool             // write over a file that exists
	Progress sources.Progress // may be nil
}

// Result is what a backup has.
type Result struct {
	File    string    `json:"file"`
	Version int       `json:"version"` // of the format
	Of      Store     `json:"of"`
	Store   string    `json:"store"`  // as callers name it
	Source  string    `json:"source"` // the site or the database
	At      time.Time `json:"at"`     // when it was begun
	Seconds float64   `json:"seconds"`
	Entries int       `json:"entries"`
	Bytes   int64     `json:"bytes"`  // of the values
	Size    int64     `json:"size"`   // of the file, in bytes
	SHA256  string    `json:"sha256"` // of the file's lines before its manifest
	// Unreadable are blobs that were there and are not in the file.
	Unreadable []entries.Problem `json:"unreadable"`
	Gone       int               `json:"gone"` // keys that were listed, and gone when they were read
}

// Complete reports whether everything that was in the store is in the file.
func (r Result) Complete() bool { return len(r.Unreadable) == 0 }

// ErrRemaining: the work was done, and something is left that could not be. The result says what.
var ErrRemaining = errors.New("not everything could be done")

func orNoProgress(p sources.Progress) sources.Progress {
	if p == nil {
		return sources.NoProgress{}
	}
	return p
}

// Blobs writes all entries of a source into one file, which gets its name once it is whole and on the disk. It may
// run beside writes: each entry is as it was at the moment when it was read. Where blobs cannot be read, the file has
// all others, and the error is [ErrRemaining]. With any other error there is no file, and one that was there is as it
// was.
func Blobs(ctx context.Context, source sources.Source, file string, o Options) (Result, error) {
	b := &backup{o: o, header: header{Of: OfBlobs, Store: source.StoreName(), Source: source.Name()}}
	return b.write(ctx, file, func(ctx context.Context) error { return b.blobs(ctx, source) })
}

// Supabase is [Blobs] of a database. One without entries makes a backup without entries.
func Supabase(ctx context.Context, target entries.Target, file string, o Options) (Result, error) {
	b := &backup{o: o, header: header{Of: OfSupabase, Store: target.Supabase.StoreName(), Source: target.Name}}
	return b.write(ctx, file, func(ctx context.Context) error { return b.supabase(ctx, target.Supabase) })
}

// backup is one that is being written.
type backup struct {
	o          Options
	file       string
	header     header
	to         *writer
	unreadable []entries.Problem
	gone       int
}

func (b *backup) write(ctx context.Context, file string, fill func(context.Context) error) (result Result, err error) {
	b.o.Progress = orNoProgress(b.o.Progress)
	b.file, b.header.Format, b.header.Version, b.header.At = file, format, version, time.Now().UTC()
	partial, unlock, err := b.create(file)
	if err != nil {
		return result, err
	}
	defer unlock()
	defer func() {
		if partial != nil {
			_ = partial.Close()
			_ = os.Remove(partial.Name())
		}
	}()
	b.to = newWriter(partial)
	if err := b.to.write(b.header); err != nil {
		return result, fmt.Errorf("write the backup: %w", err)
	}
	if err := fill(ctx); err != nil {
		return result, err
	}
	manifest, err := b.to.finish(b.problems(), b.gone)
	if err == nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err == nil {
		err = b.keep(partial, file)
	}
	if err != nil {
		return result, fmt.Errorf("write the backup: %w", err)
	}
	partial = nil
	return b.result(file, manifest)
}

// create begins the file under another name. Only its owner may read it, since it has everything that is stored. What
// a backup that was killed has left there is written over.
func (b *backup) create(file string) (partial *os.File, unlock func(), err error) {
	if err := b.absent(file); err != nil {
		return nil, nil, err
	}
	lock := flock.New(file + ".partial")
	locked, err := lock.TryLock()
	if err == nil && !locked {
		return nil, nil, errors.Join(fmt.Errorf("%s.partial is being written by another backup", file), lock.Close())
	}
	if err == nil { // only now: before, it could be the file of a backup that ends just then, under its last name
		partial, err = os.OpenFile(file+".partial", os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("create the backup: %w", err), lock.Close())
	}
	return partial, func() { _ = lock.Close() }, nil
}

func (b *backup) absent(file string) error {
	info, err := os.Stat(file)
	switch {
	case err != nil: // creating it says what is wrong
		return nil
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a file that a backup could be put in the place of", file)
	case !b.o.Force:
		return fmt.Errorf("%s exists: name another file, or say by force that it may be written over", file)
	}
	return nil
}

// keep gives the file its name, once it is on the disk.
func (b *backup) keep(partial *os.File, file string) error {
	if err := errors.Join(partial.Sync(), partial.Close()); err != nil {
		return err
	}
	if err := b.absent(file); err != nil { // it may have come meanwhile
		return err
	}
	if err := os.Rename(partial.Name(), file); err != nil {
		return err
	}
	return syncDir(filepath.Dir(file))
}

func (b *backup) problems() []entries.Problem {
	slices.SortStableFunc(b.unreadable, func(x, y entries.Problem) int { return strings.Compare(x.Key, y.Key) })
	return b.unreadable
}

func (b *backup) result(file string, m manifest) (Result, error) {
	r, err := newResult(file, b.header, m)
	if err == nil && !r.Complete() {
		err = fmt.Errorf("%w: %d blobs could not be read, and are not in %s", ErrRemaining, len(r.Unreadable), file)
	}
	return r, err
}

func newResult(file string, h header, m manifest) (Result, error) {
	r := Result{
		File: file, Version: h.Version, Of: h.Of, Store: h.Store, Source: h.Source, At: h.At, Seconds: m.Ended.Sub(h.At).Seconds(),
		Entries: m.Entries, Bytes: m.Bytes, SHA256: m.SHA256, Unreadable: m.Unreadable, Gone: m.Gone,
	}
	if r.Unreadable == nil {
		r.Unreadable = []entries.Problem{}
	}
	info, err := os.Stat(file)
	if err != nil {
		return r, fmt.Errorf("look at the backup: %w", err)
	}
	r.Size = info.Size()
	return r, nil
}

// blobs writes what a source has. Blobs that go while it is read are left out.
func (b *backup) blobs(ctx context.Context, source sources.Source) error {
	if _, ok := source.(*Source); ok {
		return errors.New("a backup of a backup would not have all of it: copy the file")
	}
	l, err := sources.List(ctx, source, filepath.Dir(b.file), b.o.Progress)
	if err != nil {
		return err
	}
	defer l.Close()
	b.o.Progress.Stage("backing up", l.Blobs)
	for item, err := range source.Read(ctx, l.All()) {
		failed := 0
		switch {
		case err != nil:
			return err
		case item.Missing:
			b.gone++
		default:
			err = b.item(item)
		}
		if errors.Is(err, errUnkept) {
			failed = 1
		} else if err != nil {
			return err
		}
		b.o.Progress.Done(1, failed)
	}
	return nil
}

// errUnkept: the problem is noted.
var errUnkept = errors.New("the blob is not in the backup")

func (b *backup) item(item sources.Item) error {
	if problem := unkeepable(item); problem != nil {
		return b.leave(*problem)
	}
	l := &entryLine{
		Key: item.Key, ETag: strings.ToValidUTF8(item.Blob.ETag, "\uFFFD"), ContentType: strings.ToValidUTF8(item.Blob.ContentType, "\uFFFD"),
		Metadata: item.Blob.Metadata, LastModified: item.LastModified.UTC(), Indexes: item.Indexes, Created: item.Created, Updated: item.Updated,
	}
	l.setValue(item.Blob.Value)
	return b.entry(l)
}

func (b *backup) entry(l *entryLine) error {
	err := b.to.entry(l)
	if errors.Is(err, errTooLarge) {
		return b.leave(entries.Problem{Key: l.Key, Code: entries.CodeUnreadable, Reason: err.Error(), Advice: "copy the blob by other means"})
	}
	if err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	return nil
}

func (b *backup) leave(problem entries.Problem) error {
	b.unreadable = append(b.unreadable, problem)
	return errUnkept
}

// unkeepable says why a backup cannot have a blob.
func unkeepable(item sources.Item) *entries.Problem {
	key := strings.ToValidUTF8(item.Key, "\uFFFD")
	switch {
	case item.Err != nil:
		return &entries.Problem{Key: key, Code: entries.CodeUnreadable, Reason: item.Err.Error(), Advice: "back up again; if it stays, read the blob with the Netlify CLI"}
	case key != item.Key || key == "":
		return &entries.Problem{Key: key, Code: entries.CodeBadKey, Reason: "its key is not text in UTF-8", Advice: "copy the blob to another key, and delete this one"}
	case !utf8.ValidString(item.Blob.Metadata):
		return &entries.Problem{Key: key, Code: entries.CodeUnreadable, Reason: "its metadata is not text in UTF-8", Advice: "write the blob again without it"}
	}
	return nil
}

const (
	// keysPage is how many keys one call lists.
	keysPage = 200
	// readChunk is how many entries one call reads: 20 of the largest that the functions take are 120 MB.
	readChunk = 20
	// readers is how many such calls are under way at once.
	readers = 2
)

// supabase writes what a database has.
func (b *backup) supabase(ctx context.Context, from *kv.Supabase) error {
	status, err := from.MigrationStatus(ctx)
	if err != nil {
		return fmt.Errorf("ask the database: %w", err)
	}
	b.o.Progress.Stage("backing up", status.Entries)
	digests := stream.Pages(ctx, keysPage, func(d kv.Digest) string { return d.Key }, func(ctx context.Context, after string) ([]kv.Digest, error) {
		return from.Digests(ctx, after, keysPage)
	})
	type chunk struct {
		states []kv.State
		err    error
	}
	for c, err := range stream.Ordered(ctx, readers, chunksOfKeys(digests), func([]string) int64 { return 0 }, func(ctx context.Context, keys []string) chunk {
		states, err := readStates(ctx, from, keys)
		return chunk{states, err}
	}) {
		if err == nil {
			err = c.err
		}
		if err != nil {
			return fmt.Errorf("read the entries: %w", err)
		}
		for _, s := range c.states {
			if err := b.state(s); err != nil && !errors.Is(err, errUnkept) {
				return err
			}
		}
		b.o.Progress.Done(len(c.states), 0)
	}
	return nil
}

func chunksOfKeys(digests iter.Seq2[kv.Digest, error]) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		var keys []string
		for d, err := range digests {
			if err != nil {
				yield(nil, err)
				return
			}
			if keys = append(keys, d.Key); len(keys) == readChunk {
				if !yield(keys, nil) {
					return
				}
				keys = nil
			}
		}
		if len(keys) > 0 {
			yield(keys, nil)
		}
	}
}

// readStates reads entries. Those that are too much for one response are read in halves.
func readStates(ctx context.Context, from *kv.Supabase, keys []string) (states []kv.State, err error) {
	err = entries.Halve(ctx, keys, func(part []string) error {
		read, err := from.States(ctx, part)
		states = append(states, read...)
		return err
	})
	return states, err
}

func (b *backup) state(s kv.State) error {
	if s.Revision.IsZero() { // it was deleted meanwhile
		b.gone++
		return nil
	}
	l := &entryLine{
		Key: s.Key, Revision: s.Revision, ContentType: s.ContentType, Metadata: s.Metadata, Expires: s.Expires,
		Indexes: s.Indexes, IsIndex: s.IsIndex, Created: s.Created, Updated: s.Updated,
	}
	if l.Indexes == nil {
		l.Indexes = [][2]string{}
	}
	l.setValue(s.Bytes())
	return b.entry(l)
}

// Check reads the whole file, and everything in it is held against its sums. The error says which line is damaged, or
// that the file is not whole. A result with Unreadable is of a file that is whole, and of a store that had more.
func Check(ctx context.Context, file string) (Result, error) {
	opened, err := os.Open(file)
	if err != nil {
		return Result{}, fmt.Errorf("open the backup: %w", err)
	}
	defer opened.Close()
	r, err := read(ctx, opened, maxLine, func(*entryLine) error { return nil })
	if err != nil {
		return Result{}, fmt.Errorf("the backup %s cannot be used: %w", file, err)
	}
	return newResult(file, *r.header, *r.manifest)
}

// syncDir makes names in a directory last. Windows has no such thing, and needs none.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
