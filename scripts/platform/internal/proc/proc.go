// Package proc starts programs that end with this one, tells them apart from strangers that were given the same pid later, and
// keeps them running.
//
// A platform is a tree of processes under one supervisor. Three things make sure that nothing of it stays behind: the supervisor
// stops its children in order when it is asked to; on Linux the kernel signals them when it is killed; and what survives elsewhere
// is known by pid and start time, and ended by the next command.
package proc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// Identity is a process that cannot be mistaken for another: a pid alone is given out again.
type Identity struct {
	PID     int    `json:"pid"`
	Started string `json:"started"` // opaque; equal only for the same process
}

// Identify gives the identity of a running process, and false when there is none with this pid.
func Identify(pid int) (Identity, bool) {
	if pid <= 0 {
		return Identity{}, false
	}
	started, ok := startOf(pid)
	return Identity{PID: pid, Started: started}, ok
}

// Alive tells whether this very process still runs.
func (i Identity) Alive() bool {
	now, ok := Identify(i.PID)
	return ok && now == i
}

// WaitGone waits until the process is gone, and tells whether it is.
func (i Identity) WaitGone(ctx context.Context) bool {
	for i.Alive() {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
	return true
}

// End asks the process to stop, waits for patience, then kills it. It never touches a stranger with the same pid.
func (i Identity) End(patience time.Duration) {
	if !i.Alive() {
		return
	}
	_ = Ask(i.PID)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if i.WaitGone(ctx) || !i.Alive() {
		return
	}
	_ = Kill(i.PID)
	ctx, cancel = context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	i.WaitGone(ctx)
}

// Start starts cmd in a process group of its own, so that a Ctrl-C at the terminal does not reach it behind the back of whoever
// stops it in order. On Linux it is killed when this process dies, however it dies; [DieOf] chooses another signal.
func Start(cmd *exec.Cmd) error {
	detachGroup(cmd)
	return start(cmd)
}

// StartHere is [Start] without the group: for a command that reads this terminal and gets its Ctrl-C.
func StartHere(cmd *exec.Cmd) error {
	attributes(cmd)
	return start(cmd)
}

// Tail keeps the last bytes written to it, for saying why a program failed.
type Tail struct {
	mu    sync.Mutex
	limit int
	kept  []byte
}

// NewTail keeps limit bytes.
func NewTail(limit int) *Tail { return &Tail{limit: limit} }

func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - t.limit; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(p), nil
}

// Text is everything kept.
func (t *Tail) Text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.kept))
}

// LastLine is the last line that is not empty.
func (t *Tail) LastLine() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := bytes.Split(bytes.TrimSpace(t.kept), []byte("\n"))
	return string(bytes.TrimSpace(lines[len(lines)-1]))
}

// Lines calls write for every whole line that is written to it. It is safe for use as both outputs of a command.
type Lines struct {
	mu      sync.Mutex
	pending []byte
	write   func(line []byte)
}

// maxLine is where a line without an end is cut, so that a program that prints no line breaks cannot fill the memory.
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

// maxLog is the size at which a log file is put aside when it is next opened.
const maxLog = 20 << 20

// OpenLog opens a log file for appending. One that has grown large becomes <name>.old first, so that logs stay bounded.
func OpenLog(name string) (*os.File, error) {
	if info, err := os.Stat(name); err == nil && info.Size() > maxLog {
		if err := os.Rename(name, name+".old"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// Child is a program that is started again whenever it ends, until its context does.
type Child struct {
	Name    string
	Command func() (*exec.Cmd, error)  // a new one for every start
	Stop    func(pid int) error        // asks it to end; nil for [Ask]
	Grace   time.Duration              // how long it may take to end; 0 means 5 s
	Output  io.Writer                  // where it prints
	Changed func(pid int, cause error) // called with its pid when it starts, with 0 and the cause when it ended by itself
}

// restartFirst and restartMost bound the pause before a program that keeps ending is started again.
const (
	restartFirst = 100 * time.Millisecond
	restartMost  = 5 * time.Second
	steadyAfter  = 10 * time.Second
)

// Keep runs the child until ctx ends, then stops it and returns. Whoever cancels must wait for Keep.
func (c *Child) Keep(ctx context.Context) {
	pause := restartFirst
	for ctx.Err() == nil {
		began := time.Now()
		err := c.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > steadyAfter {
			pause = restartFirst
		}
		c.Changed(0, err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, restartMost)
	}
}

// once runs the child until it ends by itself or ctx does.
func (c *Child) once(ctx context.Context) error {
	cmd, err := c.Command()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = c.Output, c.Output
	cmd.WaitDelay = 2 * time.Second // a grandchild that keeps the pipe open must not keep us
	if err := Start(cmd); err != nil {
		return err
	}
	c.Changed(cmd.Process.Pid, nil)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return cause(err)
	case <-ctx.Done():
	}
	c.end(cmd, ended)
	return nil
}

// end stops the process that once started, in order if it can.
func (c *Child) end(cmd *exec.Cmd, ended <-chan error) {
	stop, grace := c.Stop, c.Grace
	if stop == nil {
		stop = Ask
	}
	if grace == 0 {
		grace = 5 * time.Second
	}
	if stop(cmd.Process.Pid) == nil {
		select {
		case <-ended:
			return
		case <-time.After(grace):
		}
	}
	_ = KillGroup(cmd.Process.Pid)
	<-ended
}

func cause(err error) error {
	if err == nil {
		return errors.New("it ended by itself with status 0")
	}
	return err
}
