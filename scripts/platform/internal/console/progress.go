// Package console prints progress for the person at the terminal: steps with their duration, and errors with advice.
// It writes to one writer, standard error in practice, so that results can be piped.
package console

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// redrawEvery is the interval at which running steps are redrawn on a terminal.
const redrawEvery = 150 * time.Millisecond

// plainQuiet and plainEvery are for writers that are not terminals. A step that lasts longer than plainQuiet is
// announced, and again every plainEvery with its age: a log of a slow machine shows progress in few lines.
const (
	plainQuiet = 2 * time.Second
	plainEvery = 20 * time.Second
)

// Printer writes steps. The zero value is not usable; see [New].
type Printer struct {
	mu       sync.Mutex
	w        io.Writer
	terminal bool
	steps    []*Step // the running ones, oldest first; a terminal shows them in one line
}

// New writes to f. On a terminal it redraws one line; elsewhere it prints plain lines.
func New(f *os.File) *Printer {
	info, err := f.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
	return &Printer{w: f, terminal: terminal}
}

// Plain writes plain lines to w.
func Plain(w io.Writer) *Printer { return &Printer{w: w} }

// Line prints one line.
func (p *Printer) Line(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal && len(p.steps) > 0 {
		fmt.Fprint(p.w, clearLine)
	}
	fmt.Fprintf(p.w, format+"\n", args...)
}

// clearLine clears the terminal's current line.
const clearLine = "\r\x1b[2K"

// Step is a task that takes time. End it with [Step.Done] or [Step.Drop].
type Step struct {
	p     *Printer
	doing string
	began time.Time
	stop  chan struct{}
	ended sync.WaitGroup
	once  sync.Once
}

// Step begins a step and shows what is being done, as in "installing npm packages".
func (p *Printer) Step(doing string) *Step {
	s := &Step{p: p, doing: doing, began: time.Now(), stop: make(chan struct{})}
	s.ended.Add(1)
	p.mu.Lock()
	p.steps = append(p.steps, s)
	p.mu.Unlock()
	if p.terminal {
		go s.redraw()
	} else {
		go s.announce()
	}
	return s
}

// Done ends the step with a line about the result, as in "installed npm packages".
func (s *Step) Done(done string) {
	if s.end() {
		s.p.Line("%-58s %6s", done, Elapsed(time.Since(s.began)))
	}
}

// Drop ends the step without a line. It does nothing after Done.
func (s *Step) Drop() { s.end() }

func (s *Step) end() (first bool) {
	s.once.Do(func() {
		close(s.stop)
		s.ended.Wait()
		s.p.mu.Lock()
		defer s.p.mu.Unlock()
		s.p.steps = slices.DeleteFunc(s.p.steps, func(other *Step) bool { return other == s })
		first = true
	})
	return first
}

func (s *Step) redraw() {
	defer s.ended.Done()
	tick := time.NewTicker(redrawEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			s.write(clearLine)
			return
		case <-tick.C:
			s.p.redraw()
		}
	}
}

// redraw shows every running step.
func (p *Printer) redraw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, s := range p.steps {
		all = append(all, fmt.Sprintf("%s … %s", s.doing, Elapsed(time.Since(s.began))))
	}
	fmt.Fprint(p.w, clearLine+strings.Join(all, "; "))
}

func (s *Step) announce() {
	defer s.ended.Done()
	wait := plainQuiet
	for {
		select {
		case <-s.stop:
			return
		case <-time.After(wait):
			s.write(fmt.Sprintf("%s … %s\n", s.doing, Elapsed(time.Since(s.began))))
			wait = plainEvery
		}
	}
}

func (s *Step) write(text string) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	io.WriteString(s.p.w, text)
}

// Elapsed formats a duration for people: 0.4 s, 12 s, 3 min 5 s.
func Elapsed(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	default:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
}
