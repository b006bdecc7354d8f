package backup

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"
	"unicode/utf8"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/entries"
	"netlify-supabase-kv/pkg/migrate/sources"
)

// A backup is one gzip file of lines, each a JSON object: a header, one line for each entry in the order of their
// keys, and a manifest with the SHA-256 of all lines before it. `gunzip` and any JSON reader get everything out of
// it.
const (
	format  = "netlify-supabase-kv-backup"
	version = 2 // changes when older programs could not read a backup; of version 1 see unwrap
	// maxLine bounds a line in bytes, and so what a reader of the file has to hold.
	maxLine = 256 << 20
	// maxPlainKey is how far into a line its key is looked for before a decoder is; longer ones are rare.
	maxPlainKey = 1 << 10
)

// Store is the store that a backup was made of.
type Store string

// The stores.
const (
	OfBlobs    Store = "blobs"
	OfSupabase Store = "supabase"
)

// header is the first line.
type header struct {
	Format  string    `json:"format"`
	Version int       `json:"version"`
	Of      Store     `json:"of"`
	Store   string    `json:"store"` // its name in the site or the database; in version 1 it is kv
	Source  string    `json:"source"`
	At      time.Time `json:"at"` // of the beginning
}

func (h header) check() error {
	switch {
	case h.Version == version && h.Store == "":
		return errors.New("its header names no store")
	case h.Format != format:
		return fmt.Errorf("it is no backup: its format is %q, not %q", h.Format, format)
	case h.Version != 1 && h.Version != version:
		return fmt.Errorf("its version is %d, and this program reads version %d: use the program that wrote it, or a newer one", h.Version, version)
	case h.Of != OfBlobs && h.Of != OfSupabase:
		return fmt.Errorf("it is of %q, which is neither %s nor %s", h.Of, OfBlobs, OfSupabase)
	}
	return nil
}

// entryLine is an entry. Its key is first, so that a line can be told without reading its value.
type entryLine struct {
	Key         string         `json:"key"`
	ETag        string         `json:"etag,omitempty"`        // of a blob, as [sources.Blobs] gives it
	Revision    kv.RowRevision `json:"revision,omitzero"`     // of an entry in Supabase
	ContentType string         `json:"contentType,omitempty"` // of a blob, as the service gave it
	Metadata    string         `json:"metadata,omitempty"`    // its JSON text, byte for byte
	Expires     int64          `json:"expires,omitempty"`     // of an entry in Supabase, in microseconds since 1970; 0: never
	// LastModified is what the list of the blobs said.
	LastModified time.Time   `json:"last_modified,omitzero"`
	Indexes      [][2]string `json:"indexes,omitzero"` // null: not known
	IsIndex      bool        `json:"is_index,omitempty"`
	Created      int64       `json:"created,omitempty"` // microseconds since 1970; 0: not known
	Updated      int64       `json:"updated,omitempty"`
	Size         int64       `json:"size"`   // bytes of the value
	SHA256       string      `json:"sha256"` // of the value, in hexadecimal
	// One of these is the value: Text where it is UTF-8, else Base64.
	Text   *string `json:"value,omitempty"`
	Base64 *string `json:"base64,omitempty"`

	value []byte
}

func hexSHA256(value []byte) string {
	sum := sha256.Sum256(value)
	return hex.EncodeToString(sum[:])
}

// setValue takes the value with what is said of it.
func (l *entryLine) setValue(value []byte) {
	l.value, l.Size, l.SHA256 = value, int64(len(value)), hexSHA256(value)
	if utf8.Valid(value) {
		text := string(value)
		l.Text = &text
		return
	}
	encoded := base64.StdEncoding.EncodeToString(value)
	l.Base64 = &encoded
}

// readValue checks the value against what the line says of it.
func (l *entryLine) readValue() (err error) {
	switch {
	case (l.Text == nil) == (l.Base64 == nil):
		return errors.New("it must have value or base64, and not both")
	case l.Text != nil:
		l.value = []byte(*l.Text)
	default:
		if l.value, err = base64.StdEncoding.Strict().DecodeString(*l.Base64); err != nil {
			return fmt.Errorf("base64 cannot be decoded: %w", err)
		}
	}
	switch {
	case int64(len(l.value)) != l.Size:
		return fmt.Errorf("the value has %d bytes, and the line says %d", len(l.value), l.Size)
	case hexSHA256(l.value) != l.SHA256:
		return errors.New("the value does not have the SHA-256 that the line says")
	}
	l.Text, l.Base64 = nil, nil // the memory is better used
	return nil
}

// listed is the line as a list of blobs has it. Its etag changes with the entry, whichever store it was of.
func (l *entryLine) listed() blobs.Listed {
	listed := blobs.Listed{Key: l.Key, ETag: l.ETag, Size: l.Size, LastModified: l.LastModified}
	if !l.Revision.IsZero() {
		listed.ETag = l.Revision.String()
	}
	return listed
}

// item is the line of a backup as a [sources.Source] reads it.
func (l *entryLine) item(of Result) sources.Item {
	listed := l.listed()
	item := sources.Item{
		Listed: listed, Blob: blobs.Blob{Value: l.value, ETag: listed.ETag, Metadata: l.Metadata, ContentType: l.ContentType},
		Indexes: l.Indexes, IsIndex: l.IsIndex, Created: l.Created, Updated: l.Updated,
	}
	if of.Of == OfSupabase {
		item.Metadata, item.ContentType, item.Expires = l.Metadata, l.ContentType, l.Expires
	} else {
		item.Describe(of.Store)
	}
	return item
}

// state is the line for Blobs, of an entry that Supabase had.
func (l *entryLine) state() kv.State {
	return kv.State{Key: l.Key, Revision: l.Revision, Data: l.value, Indexes: l.Indexes, IsIndex: l.IsIndex, Created: l.Created, Updated: l.Updated}
}

// unwrap reads what migrations once made of blobs that are not JSON: {"$blob":<base64>,"contentType":…}. Backups of
// version 1 have that.
func (l *entryLine) unwrap() {
	var wrapped struct {
		Content     []byte  `json:"$blob"`
		ContentType *string `json:"contentType"`
	}
	if unmarshalLine(l.value, &wrapped) != nil || !bytes.HasPrefix(l.value, []byte(`{"$blob":"`)) || utf8.Valid(wrapped.Content) && json.Valid(wrapped.Content) {
		return
	}
	l.value, l.Size = wrapped.Content, int64(len(wrapped.Content))
	if wrapped.ContentType != nil {
		l.ContentType = *wrapped.ContentType
	}
}

// manifest is the last line. A file without one is not whole.
type manifest struct {
	Entries int       `json:"entries"`
	Bytes   int64     `json:"bytes"`  // of all values
	SHA256  string    `json:"sha256"` // of all lines before, each with its line feed
	Ended   time.Time `json:"ended"`
	// Unreadable are blobs that were there and are not in the backup.
	Unreadable []entries.Problem `json:"unreadable,omitempty"`
	Gone       int               `json:"gone,omitempty"` // keys that were listed, and gone when they were read
}

// manifestStart tells a manifest from an entry.
const manifestStart = `{"manifest":`

type manifestLine struct {
	Manifest *manifest `json:"manifest"`
}

// writer writes lines.
type writer struct {
	buffer  *bufio.Writer
	gzip    *gzip.Writer
	sum     hash.Hash
	entries int
	bytes   int64
}

func newWriter(out io.Writer) *writer {
	w := &writer{buffer: bufio.NewWriterSize(out, 1<<16), sum: sha256.New()}
	w.gzip = gzip.NewWriter(w.buffer)
	return w
}

// encodeLine makes a line of v.
func encodeLine(v any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v)
	return out.Bytes(), err
}

// errTooLarge is an entry that no reader of the backup would take.
var errTooLarge = fmt.Errorf("its line in the backup would be longer than %d bytes", maxLine)

// write makes a line of v.
func (w *writer) write(v any) error {
	line, err := encodeLine(v)
	if err != nil {
		return err
	}
	if len(line) > maxLine {
		return errTooLarge
	}
	w.sum.Write(line)
	_, err = w.gzip.Write(line)
	return err
}

// entry writes one. Its key, metadata and indexes are UTF-8.
func (w *writer) entry(l *entryLine) error {
	if err := w.write(l); err != nil {
		return err
	}
	w.entries++
	w.bytes += l.Size
	return nil
}

// finish writes the manifest and ends the file.
func (w *writer) finish(unreadable []entries.Problem, gone int) (manifest, error) {
	m := manifest{
		Entries: w.entries, Bytes: w.bytes, SHA256: hex.EncodeToString(w.sum.Sum(nil)), Ended: time.Now().UTC(), Unreadable: unreadable, Gone: gone,
	}
	line, err := encodeLine(manifestLine{&m})
	if err != nil {
		return m, err
	}
	_, err = w.gzip.Write(line)
	return m, errors.Join(err, w.gzip.Close(), w.buffer.Flush())
}

// eachLine hands out the lines of a gzip file, without their line feeds. A line is good until the next. Errors name
// the line.
func eachLine(ctx context.Context, file io.Reader, limit int, each func(number int, line []byte) error) error {
	unzipped, err := gzip.NewReader(bufio.NewReaderSize(file, 1<<16))
	if err != nil {
		return fmt.Errorf("it is empty, cut off or no gzip file: %w", err)
	}
	lines := bufio.NewReaderSize(unzipped, 1<<16)
	var line []byte
	for number := 1; ; number++ {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		line, err = appendLine(lines, line[:0], limit)
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		}
		if err == nil {
			err = each(number, line)
		}
		if err != nil {
			return &lineError{number, err}
		}
	}
}

// appendLine reads up to a line feed, which it leaves out. [io.EOF] with nothing read is the end.
func appendLine(r *bufio.Reader, line []byte, limit int) ([]byte, error) {
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > limit:
			return line, fmt.Errorf("it is longer than %d bytes", limit)
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, io.EOF) && len(line) == 0:
			return line, io.EOF
		case errors.Is(err, io.EOF):
			return line, errors.New("it ends in the middle")
		case errors.Is(err, io.ErrUnexpectedEOF):
			return line, errors.New("the file ends in the middle of it, or just before: it was cut off")
		case !errors.Is(err, bufio.ErrBufferFull):
			return line, fmt.Errorf("it cannot be unpacked: %w", err)
		}
	}
}

// lineError is what is wrong with a line, counted from 1.
type lineError struct {
	number int
	error
}

func (e *lineError) Error() string { return fmt.Sprintf("line %d: %v", e.number, e.error) }
func (e *lineError) Unwrap() error { return e.error }

// unmarshalLine reads exactly one JSON value that has no other fields than v.
func unmarshalLine(line []byte, v any) error {
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(v); err != nil {
		return fmt.Errorf("it is not what was expected: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows its JSON")
	}
	return nil
}

// lineKey is the key of an entry's line. Most need no decoder, which would cost more than unpacking the line does.
func lineKey(line []byte) (key string, err error) {
	if rest, ok := bytes.CutPrefix(line, []byte(`{"key":"`)); ok {
		end := bytes.IndexAny(rest[:min(len(rest), maxPlainKey)], "\\\"")
		if end > 0 && rest[end] == '"' && utf8.Valid(rest[:end]) {
			return string(rest[:end]), nil
		}
	}
	decoder := json.NewDecoder(bytes.NewReader(line))
	for _, want := range []json.Token{json.Delim('{'), "key"} {
		if got, err := decoder.Token(); err != nil || got != want {
			return "", errors.New("it does not begin with a key")
		}
	}
	got, err := decoder.Token()
	key, ok := got.(string)
	if err != nil || !ok || key == "" {
		return "", errors.New("it does not begin with a key")
	}
	return key, nil
}

// parseEntry reads the line of an entry, and checks its value.
func parseEntry(line []byte) (*entryLine, error) {
	key, err := lineKey(line)
	if err != nil {
		return nil, err
	}
	var l entryLine
	if err := unmarshalLine(line, &l); err != nil {
		return nil, err
	}
	if l.Key != key {
		return nil, errors.New("it has two keys")
	}
	if err := l.readValue(); err != nil {
		return nil, fmt.Errorf("the entry %q: %w", l.Key, err)
	}
	return &l, nil
}

// reader checks the lines of a backup, in their order.
type reader struct {
	header   *header
	manifest *manifest
	sum      hash.Hash
	entries  int
	last     string // the key before
	bytes    int64
	each     func(*entryLine) error
}

// errNoManifest is a file that was not written to its end.
var errNoManifest = errors.New("it has no manifest at its end: it is incomplete, as of a backup that was ended, and parts of it may be missing")

// read checks everything, and hands out every entry. What it has handed out is only known to be right once it returns
// nil.
func read(ctx context.Context, file io.Reader, limit int, each func(*entryLine) error) (*reader, error) {
	r := &reader{sum: sha256.New(), each: each}
	if err := eachLine(ctx, file, limit, r.line); err != nil {
		return nil, err
	}
	switch {
	case r.header == nil:
		return nil, errors.New("it is empty")
	case r.manifest == nil:
		return nil, errNoManifest
	}
	return r, nil
}

func (r *reader) line(number int, line []byte) error {
	if r.manifest != nil {
		return errors.New("something follows the manifest")
	}
	if number > 1 && bytes.HasPrefix(line, []byte(manifestStart)) {
		return r.end(line)
	}
	r.sum.Write(line)
	r.sum.Write([]byte{'\n'})
	if number == 1 {
		return r.begin(line)
	}
	entry, err := parseEntry(line)
	if err != nil {
		return err
	}
	if entry.Key <= r.last {
		return fmt.Errorf("the key %q does not come after the one before", entry.Key)
	}
	r.entries, r.last = r.entries+1, entry.Key
	r.bytes += entry.Size
	return r.each(entry)
}

// begin reads the header. One of another version may have other fields, and is told by its version.
func (r *reader) begin(line []byte) error {
	h := &header{}
	if err := json.Unmarshal(line, h); err != nil {
		return fmt.Errorf("it is no header of a backup: %w", err)
	}
	if err := h.check(); err != nil {
		return err
	}
	r.header = h
	if err := unmarshalLine(line, h); err != nil {
		return err
	}
	h.Store = cmp.Or(h.Store, kv.DefaultStore)
	return nil
}

// end holds what was read against the manifest.
func (r *reader) end(line []byte) error {
	var m manifestLine
	if err := unmarshalLine(line, &m); err != nil {
		return err
	}
	switch {
	case m.Manifest == nil:
		return errors.New("the manifest is empty")
	case m.Manifest.Entries != r.entries:
		return fmt.Errorf("there are %d entries, and the manifest says %d", r.entries, m.Manifest.Entries)
	case m.Manifest.Bytes != r.bytes:
		return fmt.Errorf("the values have %d bytes, and the manifest says %d", r.bytes, m.Manifest.Bytes)
	case m.Manifest.SHA256 != hex.EncodeToString(r.sum.Sum(nil)):
		return errors.New("the lines before do not have the SHA-256 that the manifest says")
	}
	r.manifest = m.Manifest
	return nil
}
