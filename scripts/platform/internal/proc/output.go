package proc

import (
	"bytes"
	"os"
	"sync"
)

// tail keeps the last bytes that are written to it, for error messages.
type tail struct {
	mu   sync.Mutex
	kept []byte
}

const tailBytes = 8192

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - tailBytes; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(p), nil
}

func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.kept))
}

// Lines calls write for every whole line that is written to it. It is safe for use as both outputs of a command.
type Lines struct {
	mu      sync.Mutex
	pending []byte
	write   func(line []byte)
}

// maxLine is the length at which a line is split, so that output without line breaks cannot fill the memory.
const maxLine = 1 << 20

// NewLines splits into lines.
func NewLines(write func(line []byte)) *Lines { return &Lines{write: write} }

func (l *Lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	for {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			break
		}
		l.write(append(l.pending, p[:end]...))
		l.pending, p = l.pending[:0], p[end+1:]
	}
	l.pending = append(l.pending, p...)
	if len(l.pending) > maxLine {
		l.write(l.pending)
		l.pending = l.pending[:0]
	}
	return n, nil
}

// Close writes what was left without a line break.
func (l *Lines) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) > 0 {
		l.write(l.pending)
		l.pending = nil
	}
	return nil
}

// maxLog is the size above which a log file is renamed before it is opened.
const maxLog = 20 << 20

// OpenLog opens a log file for appending. It first renames a large one to <name>.old.
func OpenLog(name string) (*os.File, error) {
	if info, err := os.Stat(name); err == nil && info.Size() > maxLog {
		if err := os.Rename(name, name+".old"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}
