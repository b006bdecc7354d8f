package blobstest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// errCondition means that the condition of a write did not hold.
var errCondition = errors.New("the condition does not hold")

// errClosed means that the storage takes no more writes.
var errClosed = errors.New("the store is closed")

// header is the first line of a blob's file, as JSON; the value follows it as it was sent. Memory holds its [entry].
type header struct {
	entry
	Store    string `json:"store"`
	Metadata string `json:"metadata,omitempty"`
}

// entry is what lists and conditions need of a blob. It never changes once it is in the index.
type entry struct {
	Key  string `json:"key"`
	Etag string `json:"etag"`
	Gen  int64  `json:"gen"` // when it was written, in nanoseconds, made unique
	Size int64  `json:"size"`
}

func (e *entry) modified() time.Time { return time.Unix(0, e.Gen).UTC() }

// condition is a write's condition on the blob that it replaces.
type condition struct {
	onlyIfNew   bool
	onlyIfMatch string // an etag, or empty
}

func (c condition) holds(e *entry) bool {
	if c.onlyIfNew && e != nil {
		return false
	}
	return c.onlyIfMatch == "" || e != nil && e.Etag == c.onlyIfMatch
}

// storage keeps one file per blob under values/, named by a hash because keys can be anything, and a sorted index in
// memory. A file is written under tmp/, synced and renamed, so that it is complete or absent.
type storage struct {
	dir    string
	now    func() time.Time
	closed atomic.Bool

	keys [256]sync.RWMutex // held over a blob's file and its index entry together, by the first byte of the name's hash

	mu     sync.RWMutex // guards the index; never held over the disk
	stores map[string][]*entry
	gen    int64
}

func openStorage(dir string, now func() time.Time) (*storage, error) {
	s := &storage{dir: dir, now: now, stores: map[string][]*entry{}}
	if err := os.RemoveAll(filepath.Join(dir, "tmp")); err != nil { // half-written files of a killed process
		return nil, err
	}
	for _, d := range []string{"tmp", "values"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	return s, s.load()
}

// load fills the index from the files' first lines.
func (s *storage) load() error {
	root := filepath.Join(s.dir, "values")
	shards, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(16)
	for _, shard := range shards {
		g.Go(func() error {
			files, err := os.ReadDir(filepath.Join(root, shard.Name()))
			for _, f := range files {
				name := filepath.Join(root, shard.Name(), f.Name())
				h, err := readHeader(name)
				if err != nil {
					return fmt.Errorf("%s is not a blob's whole file (remove it to go on without it): %w", name, err)
				}
				e := h.entry // a copy, so that memory keeps nothing else of the header
				s.mu.Lock()
				s.stores[h.Store] = append(s.stores[h.Store], &e)
				s.gen = max(s.gen, e.Gen)
				s.mu.Unlock()
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, es := range s.stores {
		slices.SortFunc(es, func(a, b *entry) int { return strings.Compare(a.Key, b.Key) })
	}
	return nil
}

func readHeader(name string) (h header, err error) {
	f, err := os.Open(name) // #nosec G304 -- one of the files of the folder that is served
	if err != nil {
		return h, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return h, err
	}
	line, err := bufio.NewReaderSize(f, 1024).ReadBytes('\n')
	if err != nil {
		return h, err
	}
	if err := json.Unmarshal(line, &h); err != nil {
		return h, err
	}
	if got := info.Size() - int64(len(line)); got != h.Size {
		return h, fmt.Errorf("it holds %d bytes of value instead of %d", got, h.Size)
	}
	return h, nil
}

// place returns the file of a blob and its lock.
func (s *storage) place(store, key string) (string, *sync.RWMutex) {
	sum := sha256.Sum256([]byte(store + "\x00" + key))
	name := hex.EncodeToString(sum[:])
	return filepath.Join(s.dir, "values", name[:2], name[2:]), &s.keys[sum[0]]
}

// search returns where key is or would be.
func search(es []*entry, key string) (int, bool) {
	return slices.BinarySearchFunc(es, key, func(e *entry, key string) int { return strings.Compare(e.Key, key) })
}

func (s *storage) entry(store, key string) *entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if i, ok := search(s.stores[store], key); ok {
		return s.stores[store][i]
	}
	return nil
}

// put writes a blob if cond holds, else returns errCondition. The value is on disk when it returns.
func (s *storage) put(store, key string, value []byte, metadata string, cond condition) (*entry, error) {
	name, lock := s.place(store, key)
	lock.Lock()
	defer lock.Unlock()
	if s.closed.Load() {
		return nil, errClosed
	}
	if !cond.holds(s.entry(store, key)) {
		return nil, errCondition
	}
	e := &entry{Key: key, Gen: s.nextGen(), Size: int64(len(value))}
	e.Etag = fmt.Sprintf(`"%x-%x"`, sha256.Sum256(value), e.Gen)
	if err := s.write(name, header{*e, store, metadata}, value); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := search(s.stores[store], key); ok {
		s.stores[store][i] = e
	} else {
		s.stores[store] = slices.Insert(s.stores[store], i, e)
	}
	return e, nil
}

// nextGen is the clock, but never the same or an earlier instant twice.
func (s *storage) nextGen() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gen = max(s.gen+1, s.now().UnixNano())
	return s.gen
}

func (s *storage) write(name string, h header, value []byte) (err error) {
	line, err := json.Marshal(h)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Join(s.dir, "tmp"), "")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(append(line, '\n'))
	if err == nil {
		_, err = f.Write(value)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// get returns a blob, or a nil entry if there is none.
func (s *storage) get(store, key string) (e *entry, metadata string, value []byte, err error) {
	name, lock := s.place(store, key)
	lock.RLock()
	defer lock.RUnlock()
	if e = s.entry(store, key); e == nil {
		return nil, "", nil, nil
	}
	content, err := os.ReadFile(name) // #nosec G304 -- the name is a hash (place)
	if err != nil {
		return nil, "", nil, err
	}
	line, value, _ := bytes.Cut(content, []byte("\n"))
	var h header
	return e, h.Metadata, value, json.Unmarshal(line, &h)
}

// remove deletes a blob. A missing one is not an error.
func (s *storage) remove(store, key string) error {
	name, lock := s.place(store, key)
	lock.Lock()
	defer lock.Unlock()
	if s.closed.Load() {
		return errClosed
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := search(s.stores[store], key); ok {
		s.stores[store] = slices.Delete(s.stores[store], i, i+1)
	}
	return nil
}

// page is a part of a list. Next is the key to go on from, or empty at the end.
type page struct {
	entries     []*entry
	directories []string
	next        string
}

// list returns up to limit entries whose keys begin with prefix, starting at the key from. With directories, keys with a
// slash after the prefix are folded into what precedes it.
func (s *storage) list(store, prefix, from string, directories bool, limit int) page {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var p page
	es := s.stores[store]
	for i, _ := search(es, max(prefix, from)); i < len(es) && strings.HasPrefix(es[i].Key, prefix); {
		key := es[i].Key
		if len(p.entries)+len(p.directories) == limit {
			p.next = key
			break
		}
		if slash := strings.IndexByte(key[len(prefix):], '/'); directories && slash >= 0 {
			dir := key[:len(prefix)+slash]
			p.directories = append(p.directories, dir)
			i, _ = search(es, dir+"0") // the byte after the slash: past everything in the directory
			continue
		}
		p.entries = append(p.entries, es[i])
		i++
	}
	return p
}

// close waits for the writes in progress, and refuses all others.
func (s *storage) close() {
	s.closed.Store(true)
	for i := range s.keys {
		s.keys[i].Lock()
		s.keys[i].Unlock() //lint:ignore SA2001 it waits for whoever holds it
	}
}
