package migrate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"netlify-supabase-kv/pkg/kv"
)

// BackupOptions say how to write a backup.
type BackupOptions struct {
	Force    bool     // write over a file that exists
	Progress Progress // may be nil
}

// BackupResult is what a backup has.
type BackupResult struct {
	File    string    `json:"file"`
	Of      BackupOf  `json:"of"`
	Source  string    `json:"source"` // the name of the store
	At      time.Time `json:"at"`     // when it was begun
	Seconds float64   `json:"seconds"`
	Entries int       `json:"entries"`
	Bytes   int64     `json:"bytes"`  // of the values
	Size    int64     `json:"size"`   // of the file, in bytes
	SHA256  string    `json:"sha256"` // of the file's lines before its manifest
	// Unreadable are blobs that were there and are not in the file.
	Unreadable []Problem `json:"unreadable"`
	Gone       int       `json:"gone"` // keys that were listed, and gone when they were read
}

// Complete tells whether everything that was in the store is in the file.
func (r BackupResult) Complete() bool { return len(r.Unreadable) == 0 }

// ErrLeft: the work was done, and something is left that could not be. The result says what.
var ErrLeft = errors.New("not everything could be done")

// silence is nobody who wants to know.
type silence struct{}

func (silence) Stage(string, int) {}
func (silence) Done(int, int)     {}

func orSilence(p Progress) Progress {
	if p == nil {
		return silence{}
	}
	return p
}

// Backup writes all entries of a source into one file, which gets its name once it is whole and on the disk. It may run beside
// writes: each entry is as it was at the moment when it was read. Where blobs cannot be read, the file has all others, and the error
// is [ErrLeft]. With any other error there is no file, and one that was there is as it was.
func Backup(ctx context.Context, source Source, file string, o BackupOptions) (BackupResult, error) {
	b := &backup{o: o, header: backupHeader{Of: OfBlobs, Source: source.Name()}}
	return b.write(ctx, file, func(ctx context.Context) error { return b.blobs(ctx, source) })
}

// BackupSupabase is [Backup] of a database. One without entries makes a backup without entries.
func BackupSupabase(ctx context.Context, target Target, file string, o BackupOptions) (BackupResult, error) {
	b := &backup{o: o, header: backupHeader{Of: OfSupabase, Source: target.Name}}
	return b.write(ctx, file, func(ctx context.Context) error { return b.supabase(ctx, target.Supabase) })
}

// backup is one that is being written.
type backup struct {
	o      BackupOptions
	header backupHeader
	to     *backupWriter

	mu         sync.Mutex
	unreadable []Problem
	gone       int
}

func (b *backup) write(ctx context.Context, file string, fill func(context.Context) error) (result BackupResult, err error) {
	b.o.Progress = orSilence(b.o.Progress)
	b.header.Format, b.header.Version, b.header.At = backupFormat, backupVersion, time.Now().UTC()
	partial, err := b.create(file)
	if err != nil {
		return result, err
	}
	defer func() {
		if partial != nil {
			_ = partial.Close()
			_ = os.Remove(partial.Name())
		}
	}()
	b.to = newBackupWriter(partial)
	if err := b.to.header(b.header); err != nil {
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

// create begins the file under another name. Only its owner may read it, since it has everything that is stored.
func (b *backup) create(file string) (*os.File, error) {
	if err := b.absent(file); err != nil {
		return nil, err
	}
	partial, err := os.OpenFile(file+".partial", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("%s.partial exists: another backup is being written, or one was killed: if none is, remove it", file)
	}
	if err != nil {
		return nil, fmt.Errorf("create the backup: %w", err)
	}
	return partial, nil
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

func (b *backup) problems() []Problem {
	slices.SortStableFunc(b.unreadable, func(x, y Problem) int { return strings.Compare(x.Key, y.Key) })
	return b.unreadable
}

func (b *backup) result(file string, m backupManifest) (BackupResult, error) {
	r := newBackupResult(file, b.header, m)
	info, err := os.Stat(file)
	if err != nil {
		return r, fmt.Errorf("look at the backup: %w", err)
	}
	r.Size = info.Size()
	if !r.Complete() {
		return r, fmt.Errorf("%w: %d blobs could not be read, and are not in %s", ErrLeft, len(r.Unreadable), file)
	}
	return r, nil
}

func newBackupResult(file string, h backupHeader, m backupManifest) BackupResult {
	r := BackupResult{
		File: file, Of: h.Of, Source: h.Source, At: h.At, Seconds: m.Ended.Sub(h.At).Seconds(),
		Entries: m.Entries, Bytes: m.Bytes, SHA256: m.SHA256, Unreadable: m.Unreadable, Gone: m.Gone,
	}
	if r.Unreadable == nil {
		r.Unreadable = []Problem{}
	}
	return r
}

// blobs writes what a source has. Blobs that go while it is read are left out.
func (b *backup) blobs(ctx context.Context, source Source) error {
	if _, ok := source.(*BackupSource); ok {
		return errors.New("a backup of a backup would not have all of it: copy the file")
	}
	b.o.Progress.Stage("listing", -1)
	list, err := source.List(ctx)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return ErrEmptySource
	}
	b.o.Progress.Stage("backing up", len(list))
	return source.Read(ctx, list, func(_ context.Context, item Item) error {
		if item.Missing {
			b.missing()
			b.o.Progress.Done(1, 0)
			return nil
		}
		err := b.item(item)
		if errors.Is(err, errUnkept) {
			b.o.Progress.Done(1, 1)
			return nil
		}
		b.o.Progress.Done(1, 0)
		return err
	})
}

// errUnkept: the problem is noted.
var errUnkept = errors.New("the blob is not in the backup")

func (b *backup) item(item Item) error {
	if problem := unkeepable(item); problem != nil {
		return b.leave(*problem)
	}
	l := &backupLine{
		Key: item.Key, ETag: strings.ToValidUTF8(item.Blob.ETag, "\uFFFD"), ContentType: strings.ToValidUTF8(item.Blob.ContentType, "\uFFFD"),
		Metadata: item.Blob.Metadata, LastModified: item.LastModified.UTC(), Indexes: item.Indexes, Created: item.Created, Updated: item.Updated,
	}
	l.setValue(item.Blob.Value)
	return b.entry(l)
}

func (b *backup) entry(l *backupLine) error {
	err := b.to.entry(l)
	if errors.Is(err, errTooLarge) {
		return b.leave(Problem{Key: l.Key, Code: CodeUnreadable, Reason: err.Error(), Advice: "copy the blob by other means"})
	}
	if err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	return nil
}

func (b *backup) leave(problem Problem) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unreadable = append(b.unreadable, problem)
	return errUnkept
}

// missing counts a key that was gone when it was read.
func (b *backup) missing() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gone++
}

// unkeepable says why a backup cannot have a blob.
func unkeepable(item Item) *Problem {
	key := strings.ToValidUTF8(item.Key, "\uFFFD")
	switch {
	case item.Err != nil:
		return &Problem{Key: key, Code: CodeUnreadable, Reason: item.Err.Error(), Advice: "back up again; if it stays, read the blob with the Netlify CLI"}
	case key != item.Key || key == "":
		return &Problem{Key: key, Code: CodeBadKey, Reason: "its key is not text in UTF-8", Advice: "copy the blob to another key, and delete this one"}
	case !utf8.ValidString(item.Blob.Metadata):
		return &Problem{Key: key, Code: CodeUnreadable, Reason: "its metadata is not text in UTF-8", Advice: "write the blob again without it"}
	}
	return nil
}

const (
	// backupPage is how many keys one call lists.
	backupPage = 200
	// backupChunk is how many entries one call reads: 20 of the largest that the functions take are 120 MB.
	backupChunk = 20
	// backupReaders is how many such calls are under way at once.
	backupReaders = 2
)

// supabase writes what a database has.
func (b *backup) supabase(ctx context.Context, from *kv.Supabase) error {
	status, err := from.ImportStatus(ctx)
	if err != nil {
		return fmt.Errorf("ask the database: %w", err)
	}
	b.o.Progress.Stage("backing up", status.Entries)
	for after := ""; ; {
		digests, err := from.Digests(ctx, after, backupPage)
		if err != nil {
			return fmt.Errorf("list the entries: %w", err)
		}
		keys := make([]string, len(digests))
		for i, d := range digests {
			keys[i] = d.Key
		}
		if err := b.page(ctx, from, keys); err != nil {
			return err
		}
		if len(keys) < backupPage {
			return nil
		}
		after = keys[len(keys)-1]
	}
}

// page writes the entries of the keys, some at a time.
func (b *backup) page(ctx context.Context, from *kv.Supabase, keys []string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(backupReaders)
	for len(keys) > 0 {
		chunk := keys[:min(len(keys), backupChunk)]
		keys = keys[len(chunk):]
		group.Go(func() error { return b.states(ctx, from, chunk) })
	}
	return group.Wait()
}

// states writes entries. Those that are too much for one answer are asked for in halves.
func (b *backup) states(ctx context.Context, from *kv.Supabase, keys []string) error {
	states, err := from.States(ctx, keys)
	if err != nil && len(keys) > 1 && entrysFault(ctx, err) {
		half := len(keys) / 2
		if err := b.states(ctx, from, keys[:half]); err != nil {
			return err
		}
		return b.states(ctx, from, keys[half:])
	}
	if err != nil {
		return fmt.Errorf("read the entries: %w", err)
	}
	for _, s := range states {
		if err := b.state(s); err != nil && !errors.Is(err, errUnkept) {
			return err
		}
	}
	b.o.Progress.Done(len(keys), 0)
	return nil
}

func (b *backup) state(s kv.State) error {
	if s.Revision.IsZero() { // it was deleted meanwhile
		b.missing()
		return nil
	}
	l := &backupLine{Key: s.Key, Token: s.Revision, Indexes: s.Indexes, IsIndex: s.IsIndex, Created: s.Created, Updated: s.Updated}
	if l.Indexes == nil {
		l.Indexes = [][2]string{}
	}
	l.setValue([]byte(s.Value))
	return b.entry(l)
}

// CheckBackup reads the whole file, and everything in it is held against its sums. The error says which line is damaged, or that
// the file is not whole. A result with Unreadable is of a file that is whole, and of a store that had more.
func CheckBackup(ctx context.Context, file string) (BackupResult, error) {
	return checkBackup(ctx, file, nil)
}

func checkBackup(ctx context.Context, file string, each func(*backupLine) error) (BackupResult, error) {
	opened, err := os.Open(file)
	if err != nil {
		return BackupResult{}, fmt.Errorf("open the backup: %w", err)
	}
	defer opened.Close()
	r, err := readBackup(ctx, opened, maxBackupLine, each)
	if err != nil {
		return BackupResult{}, fmt.Errorf("the backup %s cannot be used: %w", file, err)
	}
	result := newBackupResult(file, *r.header, *r.manifest)
	info, err := opened.Stat()
	if err != nil {
		return BackupResult{}, fmt.Errorf("look at the backup: %w", err)
	}
	result.Size = info.Size()
	return result, nil
}
