package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"time"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/migrate/sources"
)

// Source is a backup as a [sources.Source].
type Source struct {
	Result Result // of the check

	info os.FileInfo // of the file that was checked
}

// NewSource checks the whole file as [Check] does.
func NewSource(ctx context.Context, file string) (s *Source, err error) {
	s = &Source{}
	if s.Result, err = Check(ctx, file); err != nil {
		return nil, err
	}
	if s.info, err = os.Stat(file); err != nil {
		return nil, fmt.Errorf("look at the backup: %w", err)
	}
	return s, nil
}

// Name implements [sources.Source]. A copy of the file under another name has the same.
func (s *Source) Name() string {
	return fmt.Sprintf("backup of %s at %s (%.8s)", s.Result.Source, s.Result.At.Format(time.RFC3339), s.Result.SHA256)
}

// StoreName implements [sources.Source].
func (s *Source) StoreName() string { return s.Result.Store }

// List implements [sources.Source].
func (s *Source) List(ctx context.Context) iter.Seq2[blobs.Listed, error] {
	return func(yield func(blobs.Listed, error) bool) {
		for l, err := range s.lines(ctx, nil) {
			if err != nil {
				yield(blobs.Listed{}, err)
				return
			}
			if !yield(l.listed(), nil) {
				return
			}
		}
	}
}

// Read implements [sources.Source]. It reads the file once, up to the last of the blobs, and holds one value at a
// time.
func (s *Source) Read(ctx context.Context, list iter.Seq2[blobs.Listed, error]) iter.Seq2[sources.Item, error] {
	return func(yield func(sources.Item, error) bool) {
		wanted, stop := iter.Pull2(list)
		defer stop()
		listed, err, more := wanted()
		give := func(item sources.Item) bool { // and go to the next that is wanted
			if !yield(item, nil) {
				return false
			}
			listed, err, more = wanted()
			return more && err == nil
		}
		goOn := more && err == nil
		if goOn {
			for l, lineErr := range s.lines(ctx, func(key string) bool { return key >= listed.Key }) {
				if lineErr != nil {
					yield(sources.Item{}, lineErr)
					return
				}
				for goOn && listed.Key < l.Key {
					goOn = give(sources.Item{Listed: listed, Missing: true})
				}
				if goOn && listed.Key == l.Key {
					goOn = give(l.item(s.Result))
				}
				if !goOn {
					break
				}
			}
		}
		for goOn { // those behind the last line
			goOn = give(sources.Item{Listed: listed, Missing: true})
		}
		if err != nil {
			yield(sources.Item{}, err)
		}
	}
}

// open opens the file, if it is still the one that was checked.
func (s *Source) open() (*os.File, error) {
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

// errEnough ends what has found everything.
var errEnough = errors.New("everything was found")

// lines are the lines of the wanted keys, in order; wanted nil: of all.
func (s *Source) lines(ctx context.Context, wanted func(key string) bool) iter.Seq2[*entryLine, error] {
	return func(yield func(*entryLine, error) bool) {
		file, err := s.open()
		if err != nil {
			yield(nil, err)
			return
		}
		defer file.Close()
		err = eachLine(ctx, file, maxLine, func(number int, line []byte) error {
			if number == 1 || bytes.HasPrefix(line, []byte(manifestStart)) {
				return nil
			}
			key, err := lineKey(line)
			if err != nil || wanted != nil && !wanted(key) {
				return err
			}
			l, err := parseEntry(line)
			if err == nil && s.Result.Version == 1 && s.Result.Of == OfSupabase {
				l.unwrap()
			}
			if err == nil && !yield(l, nil) {
				return errEnough
			}
			return err
		})
		switch {
		case err == nil || errors.Is(err, errEnough):
		case ctx.Err() != nil:
			yield(nil, ctx.Err())
		default:
			yield(nil, fmt.Errorf("read the backup %s: %w", s.Result.File, err))
		}
	}
}
