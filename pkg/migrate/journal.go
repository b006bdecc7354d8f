package migrate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"

	"github.com/gofrs/flock"
	"github.com/google/uuid"

	"netlify-supabase-kv/pkg/kv"
)

// journalVersion changes when older programs could not read a journal.
const journalVersion = 1

// The files of a migration's directory.
const (
	journalFile = "journal.ndjson"
	lockFile    = "lock"
)

// Header is the first line of a journal: what the migration is. Every run of it has the same.
type Header struct {
	Version int       `json:"journal"`
	Run     uuid.UUID `json:"run"`
	Source  string    `json:"source"`
	Target  string    `json:"target"`
	Lineage string    `json:"lineage"` // of the target's database
	Options Options   `json:"options"`
}

// Record is what became of a key.
type Record struct {
	Key      string `json:"k"`
	Revision string `json:"r,omitempty"` // of the blob: its etag
	Indexes  string `json:"x,omitempty"` // digest of the indexes that were extracted
	// Status is a [kv.Imported], or "failed", or "importing".
	Status  kv.Imported `json:"s"`
	Problem *Problem    `json:"p,omitempty"` // why it failed, or what to know of it
}

// statusFailed is the status of what could not be migrated, and why is its problem.
const statusFailed kv.Imported = "failed"

// statusImporting is the status of what may be in the database or not: it is kept before a batch is sent.
const statusImporting kv.Imported = "importing"

// statusPending is the status, in results alone, of a blob that no run has come to yet.
const statusPending kv.Imported = "pending"

// Journal is what a migration has done, in a file that only grows. It has that a batch is on its way before it is, and what became of
// it afterwards; so what a crash leaves open is known, and done again, which changes nothing where it was done.
type Journal struct {
	Header  Header
	Records map[string]Record

	file   *os.File
	lock   *flock.Flock
	failed error // of an earlier write, which may have left a part of a line: nothing is to follow it
}

// ErrBusy: another run has the directory.
var ErrBusy = errors.New("another run is at work in this directory")

// OpenJournal opens the journal of a directory, and begins one where there is none. The header has to be the one that it was begun
// with, apart from its Run; what is different is said. The directory is nobody else's until Close.
func OpenJournal(dir string, header Header) (j *Journal, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the journal: %w", err)
	}
	lock := flock.New(filepath.Join(dir, lockFile))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock the journal: %w", err)
	}
	if !locked {
		return nil, fmt.Errorf("%w: %s", ErrBusy, dir)
	}
	defer func() {
		if err != nil {
			_ = lock.Unlock()
		}
	}()
	file, err := os.OpenFile(filepath.Join(dir, journalFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	defer func() {
		if err != nil {
			_ = file.Close()
		}
	}()
	known, records, whole, err := readJournal(file)
	if err != nil {
		return nil, err
	}
	j = &Journal{Header: header, Records: records, file: file, lock: lock}
	if known == nil {
		return j, j.begin(dir)
	}
	if err := known.check(header); err != nil {
		return nil, err
	}
	j.Header = *known
	if err := file.Truncate(whole); err != nil { // a torn last line
		return nil, fmt.Errorf("repair the journal: %w", err)
	}
	if _, err := file.Seek(whole, io.SeekStart); err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	return j, nil
}

// ReadJournal reads the journal of a directory without holding it; nil where there is none.
func ReadJournal(dir string) (*Journal, error) {
	file, err := os.Open(filepath.Join(dir, journalFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	defer file.Close()
	header, records, _, err := readJournal(file)
	if err != nil || header == nil {
		return nil, err
	}
	return &Journal{Header: *header, Records: records}, nil
}

// begin writes the header. The file has no other name that could be left behind: one without a whole first line is begun anew.
func (j *Journal) begin(dir string) error {
	if err := j.file.Truncate(0); err != nil {
		return fmt.Errorf("begin the journal: %w", err)
	}
	if _, err := j.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("begin the journal: %w", err)
	}
	if err := j.write(j.Header); err != nil {
		return err
	}
	return syncDir(dir)
}

// readJournal reads header and records; header is nil where the first line is not whole. whole is the length of the lines that are.
func readJournal(r io.Reader) (header *Header, records map[string]Record, whole int64, err error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, nil, 0, fmt.Errorf("read the journal: %w", err)
	}
	records = map[string]Record{}
	for number := 1; ; number++ {
		line, rest, found := bytes.Cut(text, []byte("\n"))
		if !found { // nothing, or a line that a crash cut off
			return header, records, whole, nil
		}
		if err := readLine(line, number, &header, records); err != nil {
			return nil, nil, 0, fmt.Errorf("line %d of the journal is damaged (%w): move the directory away and run again; what is in the database already is recognised", number, err)
		}
		whole += int64(len(line)) + 1
		text = rest
	}
}

func readLine(line []byte, number int, header **Header, records map[string]Record) error {
	if number == 1 {
		h := &Header{}
		if err := json.Unmarshal(line, h); err != nil {
			return err
		}
		if h.Version != journalVersion {
			return fmt.Errorf("its version is %d, this program reads %d", h.Version, journalVersion)
		}
		*header = h
		return nil
	}
	var r Record
	if err := json.Unmarshal(line, &r); err != nil {
		return err
	}
	if r.Key == "" || r.Status == "" {
		return errors.New("it is no record")
	}
	records[r.Key] = r
	return nil
}

// check says what is different now.
func (h Header) check(now Header) error {
	if err := h.checkStores(now.Source, now.Target); err != nil {
		return err
	}
	switch {
	case now.Lineage != "" && h.Lineage != now.Lineage:
		return fmt.Errorf("the database at %s is not the one that this migration began with: it was replaced or restored. Use another --dir to migrate into it from the start", now.Target)
	case !reflect.DeepEqual(h.Options, now.Options):
		was, _ := json.Marshal(h.Options)
		is, _ := json.Marshal(now.Options)
		return differs("options", string(was), string(is))
	}
	return nil
}

// checkStores says which of the stores is another one now.
func (h Header) checkStores(source, target string) error {
	switch {
	case h.Source != source:
		return differs("source", h.Source, source)
	case h.Target != target:
		return differs("target", h.Target, target)
	}
	return nil
}

func differs(what, was, is string) error {
	return fmt.Errorf("this directory is of another migration: its %s was %s, and is %s now. Go on with what it was, or use another --dir", what, was, is)
}

// Append keeps records, also through a crash that comes after it returned.
func (j *Journal) Append(records []Record) error {
	lines := make([]any, len(records))
	for i, r := range records {
		lines[i] = r
	}
	if err := j.write(lines...); err != nil {
		return err
	}
	for _, r := range records {
		j.Records[r.Key] = r
	}
	return nil
}

func (j *Journal) write(lines ...any) error {
	if j.failed != nil {
		return j.failed
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	for _, line := range lines {
		if err := encoder.Encode(line); err != nil {
			return fmt.Errorf("write the journal: %w", err)
		}
	}
	_, err := j.file.Write(out.Bytes())
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		j.failed = fmt.Errorf("write the journal: %w", err)
	}
	return j.failed
}

// Close lets others have the directory.
func (j *Journal) Close() error {
	return errors.Join(j.file.Close(), j.lock.Unlock())
}
