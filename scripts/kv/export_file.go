package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"netlify-supabase-kv/scripts/kv/internal/export"
)

// exportTarget is where an export goes. A file has its name only once it is whole; until then it is <file>.partial, and <file>.partial.json
// says how far it is.
type exportTarget struct {
	io.Writer
	size    int64
	partial *os.File // nil: standard output
	name    string
	saved   *exportProgress // what <file>.partial.json says; nil: nothing
	export  json.RawMessage
}

// exportProgress is the content of <file>.partial.json.
type exportProgress struct {
	Export   json.RawMessage `json:"export"` // what was asked for: only the same can be gone on with
	Position export.Position `json:"position"`
	Size     int64           `json:"size"` // of <file>.partial up to there, in bytes
}

// open makes the target; with --resume it goes on with what an earlier export left.
func (f *exportFlags) open(stdout io.Writer, o export.Options) (*exportTarget, error) {
	if f.out == "-" && f.resume {
		return nil, errors.New("--resume needs --out: what was written to standard output cannot be looked at")
	}
	if f.out == "-" {
		return &exportTarget{Writer: stdout}, nil
	}
	if _, err := os.Stat(f.out); err == nil && !f.force {
		return nil, fmt.Errorf("%s exists: --force writes over it", f.out)
	}
	asked, err := json.Marshal(map[string]any{"url": o.URL, "query": o.Query, "format": o.Format, "bom": o.BOM})
	if err != nil {
		return nil, err
	}
	t := &exportTarget{name: f.out, export: asked}
	if f.resume {
		if t.saved, err = t.load(); err != nil {
			return nil, err
		}
	}
	if t.saved == nil {
		_ = os.Remove(t.name + ".partial.json")
		t.partial, err = os.Create(t.name + ".partial")
	} else {
		t.partial, err = t.reopen()
	}
	if err != nil {
		return nil, fmt.Errorf("open the file: %w", err)
	}
	t.Writer = t.partial
	return t, nil
}

// load reads how far an earlier export came; nil where there is none.
func (t *exportTarget) load() (*exportProgress, error) {
	text, err := os.ReadFile(t.name + ".partial.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var p exportProgress
	if err != nil || json.Unmarshal(text, &p) != nil {
		return nil, fmt.Errorf("%s.partial.json cannot be read: begin anew, without --resume", t.name)
	}
	if !bytes.Equal(p.Export, t.export) {
		return nil, fmt.Errorf("%s.partial is of another export: begin anew, without --resume", t.name)
	}
	return &p, nil
}

// reopen goes to where everything is written, and forgets what was written after it.
func (t *exportTarget) reopen() (*os.File, error) {
	file, err := os.OpenFile(t.name+".partial", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && info.Size() < t.saved.Size {
		err = fmt.Errorf("%s.partial is shorter than it was: begin anew, without --resume", t.name)
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

// position is where to go on.
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

// save notes that everything up to a position is written.
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
		return fmt.Errorf("write how far the export is: %w", err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("write how far the export is: %w", err)
	}
	t.saved = saved
	return nil
}

// keep gives the file its name, once it is on the disk.
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

// drop ends an export that is not whole: what can be gone on with stays.
func (t *exportTarget) drop() {
	if t.partial == nil {
		return
	}
	_ = t.partial.Close()
	if t.saved == nil {
		_ = os.Remove(t.partial.Name())
		_ = os.Remove(t.name + ".partial.json")
	}
}
