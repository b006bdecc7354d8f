package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/gofrs/flock"

	"netlify-supabase-kv/scripts/kv/internal/export"
)

// exportTarget is where an export goes. A file gets its name when it is complete; until then it is <file>.partial, and
// <file>.partial.json holds the progress.
type exportTarget struct {
	io.Writer
	size    int64
	partial *os.File     // nil: standard output
	lock    *flock.Flock // of partial
	name    string
	saved   *exportProgress // the content of <file>.partial.json; nil if there is none
	export  json.RawMessage
}

// exportProgress is the content of <file>.partial.json.
type exportProgress struct {
	Export   json.RawMessage `json:"export"` // the options: only an export with the same ones can continue
	Position export.Position `json:"position"`
	Size     int64           `json:"size"` // of <file>.partial up to that position, in bytes
}

// open makes the target; with --resume it continues the file of an earlier export.
func (f *exportFlags) open(stdout io.Writer, o export.Options) (*exportTarget, error) {
	if f.out == "-" && f.resume {
		return nil, errors.New("--resume needs --out: standard output cannot be read back")
	}
	if f.out == "-" {
		return &exportTarget{Writer: stdout}, nil
	}
	switch info, err := os.Stat(f.out); {
	case f.out == "":
		return nil, errors.New("--out must name a file, or - for standard output, got \"\"")
	case err == nil && !info.Mode().IsRegular(): // the export would take its place
		return nil, fmt.Errorf("%s is not a regular file: name another, or - for standard output", f.out)
	case err == nil && !f.force:
		return nil, fmt.Errorf("%s exists: --force overwrites it", f.out)
	}
	asked, err := json.Marshal(map[string]any{"url": o.URL, "query": o.Query, "format": o.Format, "bom": o.BOM})
	if err != nil {
		return nil, err
	}
	t := &exportTarget{name: f.out, export: asked, lock: flock.New(f.out+".partial", flock.SetPermissions(0o666))}
	if err := t.begin(f.resume); err != nil {
		return nil, errors.Join(err, t.lock.Close())
	}
	return t, nil
}

// begin opens <file>.partial, which no other export may be writing.
func (t *exportTarget) begin(resume bool) error {
	locked, err := t.lock.TryLock()
	switch {
	case err != nil:
		return fmt.Errorf("open the file: %w", err)
	case !locked:
		return fmt.Errorf("%s.partial is being written by another export", t.name)
	case resume:
		if t.saved, err = t.load(); err != nil {
			return err
		}
	}
	if t.saved == nil {
		_ = os.Remove(t.name + ".partial.json")
		t.partial, err = os.Create(t.name + ".partial")
	} else {
		t.partial, err = t.reopen()
	}
	if err != nil {
		return fmt.Errorf("open the file: %w", err)
	}
	t.Writer = t.partial
	return nil
}

// load reads the progress of an earlier export; nil if there is none.
func (t *exportTarget) load() (*exportProgress, error) {
	text, err := os.ReadFile(t.name + ".partial.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var p exportProgress
	if err != nil || json.Unmarshal(text, &p) != nil {
		return nil, fmt.Errorf("%s.partial.json cannot be read: start over without --resume", t.name)
	}
	if !bytes.Equal(p.Export, t.export) {
		return nil, fmt.Errorf("%s.partial is of another export: start over without --resume", t.name)
	}
	return &p, nil
}

// reopen opens <file>.partial at the saved position and truncates what follows.
func (t *exportTarget) reopen() (*os.File, error) {
	file, err := os.OpenFile(t.name+".partial", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && info.Size() < t.saved.Size {
		err = fmt.Errorf("%s.partial is shorter than it was: start over without --resume", t.name)
	}
	if err == nil {
		err = file.Truncate(t.saved.Size)
	}
	if err == nil {
		t.size, err = file.Seek(t.saved.Size, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// position is where the export continues.
func (t *exportTarget) position() export.Position {
	if t.saved == nil {
		return export.Position{}
	}
	return t.saved.Position
}

func (t *exportTarget) Write(p []byte) (int, error) {
	n, err := t.Writer.Write(p)
	t.size += int64(n)
	return n, err
}

// save records that everything up to a position is written.
func (t *exportTarget) save(at export.Position) error {
	if t.partial == nil {
		return nil
	}
	saved := &exportProgress{t.export, at, t.size}
	text, err := json.Marshal(saved)
	if err != nil {
		return err
	}
	name := t.name + ".partial.json"
	if err := os.WriteFile(name+".new", text, 0o600); err != nil {
		return fmt.Errorf("write the export's progress: %w", err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("write the export's progress: %w", err)
	}
	t.saved = saved
	return nil
}

// keep syncs the file to disk and gives it its name.
func (t *exportTarget) keep() error {
	if t.partial == nil {
		return nil
	}
	if err := t.partial.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", t.name, err)
	}
	if err := t.partial.Close(); err != nil {
		return fmt.Errorf("write %s: %w", t.name, err)
	}
	if err := os.Rename(t.partial.Name(), t.name); err != nil {
		return fmt.Errorf("name the file %s: %w", t.name, err)
	}
	t.partial, t.saved = nil, nil
	_ = os.Remove(t.name + ".partial.json")
	return nil
}

// drop closes the file of an unfinished export. A file that --resume can continue stays.
func (t *exportTarget) drop() {
	if t.lock != nil {
		defer func() { _ = t.lock.Close() }()
	}
	if t.partial == nil {
		return
	}
	_ = t.partial.Close()
	if t.saved == nil {
		_ = os.Remove(t.partial.Name())
		_ = os.Remove(t.name + ".partial.json")
	}
}
