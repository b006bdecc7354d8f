package cli

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// Bar shows stages on a terminal: done and total, rate, time left, failures. Where nobody looks it shows nothing.
type Bar struct {
	mu     sync.Mutex
	out    io.Writer // nil: nobody looks
	bar    *progressbar.ProgressBar
	name   string
	failed int
}

// Progress returns a bar for a command; without a terminal, or with an output that is quiet, it shows nothing.
func (o Output) Progress(stderr io.Writer) *Bar {
	file, ok := stderr.(*os.File)
	if !ok || o.Quiet {
		return &Bar{}
	}
	if info, err := file.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 || os.Getenv("TERM") == "dumb" {
		return &Bar{}
	}
	return &Bar{out: file}
}

// Shows tells whether anybody looks.
func (b *Bar) Shows() bool { return b.out != nil }

// Stage begins with a name and how many things there are to do; -1: nobody knows.
func (b *Bar) Stage(name string, total int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.out == nil {
		return
	}
	b.end()
	if total == 0 {
		return
	}
	b.name, b.failed = name, 0
	b.bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(b.out), progressbar.OptionSetDescription(name), progressbar.OptionShowCount(),
		progressbar.OptionShowIts(), progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionFullWidth())
}

// Done says that so many more are done, and how many of these failed.
func (b *Bar) Done(n, failed int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bar == nil {
		return
	}
	if failed > 0 {
		b.failed += failed
		b.bar.Describe(fmt.Sprintf("%s, %d failed", b.name, b.failed))
	}
	_ = b.bar.Add(n)
}

func (b *Bar) end() {
	if b.bar != nil {
		_ = b.bar.Clear()
		b.bar = nil
	}
}

// Close takes the bar away.
func (b *Bar) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end()
}
