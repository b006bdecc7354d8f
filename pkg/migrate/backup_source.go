package migrate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"netlify-supabase-kv/pkg/blobs"
)

// BackupSource is a backup as a [Source].
type BackupSource struct {
	Result BackupResult // of the check

	list []blobs.Listed
	info os.FileInfo // of the file that was checked
}

// NewBackupSource checks the whole file as [CheckBackup] does.
func NewBackupSource(ctx context.Context, file string) (*BackupSource, error) {
	s := &BackupSource{}
	var err error
	s.Result, err = checkBackup(ctx, file, func(l *backupLine) error {
		s.list = append(s.list, l.listed())
		return nil
	})
	if err != nil {
		return nil, err
	}
	if s.info, err = os.Stat(file); err != nil {
		return nil, fmt.Errorf("look at the backup: %w", err)
	}
	slices.SortFunc(s.list, func(a, b blobs.Listed) int { return strings.Compare(a.Key, b.Key) })
	return s, nil
}

// Name implements [Source]. A copy of the file under another name has the same.
func (s *BackupSource) Name() string {
	return fmt.Sprintf("backup of %s at %s (%.8s)", s.Result.Source, s.Result.At.Format(time.RFC3339), s.Result.SHA256)
}

// List implements [Source].
func (s *BackupSource) List(context.Context) ([]blobs.Listed, error) {
	return slices.Clone(s.list), nil
}

// errEnough ends a scan that has found everything.
var errEnough = errors.New("everything was found")

// Read implements [Source]. It reads the file once, up to the last of the blobs, and holds one value at a time.
func (s *BackupSource) Read(ctx context.Context, list []blobs.Listed, each func(context.Context, Item) error) error {
	wanted := make(map[string]blobs.Listed, len(list))
	for _, listed := range list {
		wanted[listed.Key] = listed
	}
	err := s.scan(ctx, wanted, func(l *backupLine) error { return each(ctx, l.item()) })
	if err != nil {
		return err
	}
	for _, listed := range wanted { // the scan has left those that the file lacks
		if err := each(ctx, Item{Listed: listed, Missing: true}); err != nil {
			return err
		}
	}
	return nil
}

// open opens the file, if it is still the one that was checked.
func (s *BackupSource) open() (*os.File, error) {
	file, err := os.Open(s.Result.File)
	if err != nil {
		return nil, fmt.Errorf("open the backup: %w", err)
	}
	info, err := file.Stat()
	if err == nil && (!os.SameFile(info, s.info) || info.Size() != s.info.Size() || !info.ModTime().Equal(s.info.ModTime())) {
		err = fmt.Errorf("the backup %s was changed after it was checked: begin again", s.Result.File)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// scan hands out the lines of the wanted keys, and takes these out of wanted.
func (s *BackupSource) scan(ctx context.Context, wanted map[string]blobs.Listed, each func(*backupLine) error) error {
	if len(wanted) == 0 {
		return nil
	}
	file, err := s.open()
	if err != nil {
		return err
	}
	defer file.Close()
	var failed error // each's own
	err = eachLine(ctx, file, maxBackupLine, func(number int, line []byte) error {
		if number == 1 || bytes.HasPrefix(line, []byte(manifestStart)) {
			return nil
		}
		key, err := lineKey(line)
		if err != nil {
			return err
		}
		if _, ok := wanted[key]; !ok {
			return nil
		}
		l, err := parseEntry(line)
		if err != nil {
			return err
		}
		delete(wanted, key)
		if failed = each(l); failed != nil {
			return failed
		}
		if len(wanted) == 0 {
			return errEnough
		}
		return nil
	})
	switch {
	case failed != nil:
		return failed
	case err == nil || errors.Is(err, errEnough):
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("read the backup %s: %w", s.Result.File, err)
}
