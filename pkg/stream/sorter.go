// Package stream works on streams that are larger than memory: it sorts them, reads them side by side in the order of their keys, and does
// something with each of their things, some at a time, in order.
package stream

import (
	"bufio"
	"cmp"
	"container/heap"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"os"
	"slices"
	"strings"
)

// sortMemory is how many bytes of records a Sorter holds before it writes them to its file.
const sortMemory = 4 << 20

// Record is what a [Sorter] sorts: by key, then by data.
type Record struct{ Key, Data string }

func (r Record) compare(other Record) int {
	return cmp.Or(strings.Compare(r.Key, other.Key), strings.Compare(r.Data, other.Data))
}

// Sorter sorts any number of records in bounded memory. Sorted runs of them lie in a file that has no name, so that nothing is left of it
// when the process ends.
type Sorter struct {
	dir    string
	memory int // sortMemory, but for tests
	held   []Record
	bytes  int
	file   *os.File
	runs   [][2]int64 // from and to, in the file
}

// NewSorter returns a sorter whose file, if it needs one, is made in the directory if that is there already, else in that of the system.
func NewSorter(dir string) *Sorter {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		dir = ""
	}
	return &Sorter{dir: dir, memory: sortMemory}
}

// Add takes a record.
func (s *Sorter) Add(key, data string) error {
	s.held = append(s.held, Record{key, data})
	s.bytes += len(key) + len(data) + 32
	if s.bytes < s.memory {
		return nil
	}
	return s.spill()
}

func (s *Sorter) spill() error {
	slices.SortFunc(s.held, Record.compare)
	if s.file == nil {
		file, err := os.CreateTemp(s.dir, ".kv-sort-*")
		if err != nil {
			return err
		}
		if err := os.Remove(file.Name()); err != nil {
			return errors.Join(err, file.Close())
		}
		s.file = file
	}
	from, err := s.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(s.file, 1<<16)
	var length []byte
	for _, r := range s.held {
		for _, text := range []string{r.Key, r.Data} {
			length = binary.AppendUvarint(length[:0], uint64(len(text)))
			_, _ = out.Write(length)
			_, _ = out.WriteString(text)
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	to, err := s.file.Seek(0, io.SeekCurrent)
	s.runs = append(s.runs, [2]int64{from, to})
	clear(s.held)
	s.held, s.bytes = s.held[:0], 0
	return err
}

// Close ends the use of the file.
func (s *Sorter) Close() {
	if s != nil && s.file != nil {
		_ = s.file.Close()
	}
}

// All are the records in order. It may be called again, and not while records are added.
func (s *Sorter) All() iter.Seq2[Record, error] {
	slices.SortFunc(s.held, Record.compare)
	return func(yield func(Record, error) bool) {
		var m merge
		for _, run := range s.runs {
			r := &sortedRun{in: bufio.NewReaderSize(io.NewSectionReader(s.file, run[0], run[1]-run[0]), 1<<15)}
			if err := m.start(r); err != nil {
				yield(Record{}, err)
				return
			}
		}
		_ = m.start(&sortedRun{held: s.held})
		heap.Init(&m)
		for len(m) > 0 {
			if !yield(m[0].now, nil) {
				return
			}
			more, err := m[0].next()
			switch {
			case err != nil:
				yield(Record{}, err)
				return
			case more:
				heap.Fix(&m, 0)
			default:
				heap.Pop(&m)
			}
		}
	}
}

// sortedRun is a run that is being read: of the file, or what is held in memory.
type sortedRun struct {
	now  Record
	in   *bufio.Reader
	held []Record
}

func (r *sortedRun) next() (more bool, err error) {
	if r.in == nil {
		if len(r.held) == 0 {
			return false, nil
		}
		r.now, r.held = r.held[0], r.held[1:]
		return true, nil
	}
	if r.now.Key, err = readText(r.in); errors.Is(err, io.EOF) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	r.now.Data, err = readText(r.in)
	return true, err
}

func readText(in *bufio.Reader) (string, error) {
	length, err := binary.ReadUvarint(in)
	if err != nil {
		return "", err
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(in, text); err != nil {
		return "", io.ErrUnexpectedEOF
	}
	return string(text), nil
}

// merge has the run with the least Record first.
type merge []*sortedRun

func (m *merge) start(r *sortedRun) error {
	more, err := r.next()
	if more {
		*m = append(*m, r)
	}
	return err
}
func (m merge) Len() int           { return len(m) }
func (m merge) Less(i, j int) bool { return m[i].now.compare(m[j].now) < 0 }
func (m merge) Swap(i, j int)      { m[i], m[j] = m[j], m[i] }
func (m *merge) Push(x any)        { *m = append(*m, x.(*sortedRun)) }
func (m *merge) Pop() any {
	last := (*m)[len(*m)-1]
	*m = (*m)[:len(*m)-1]
	return last
}
