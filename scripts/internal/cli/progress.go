package cli

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// Bar shows the progress of stages on a terminal: done and total, rate, time left and failures.
type Bar struct {
	mu     sync.Mutex
	out    io.Writer // nil without a terminal: then the bar shows nothing
	bar    *progressbar.ProgressBar
	name   string
	failed int
}

// Progress returns a command's bar. It shows nothing without a terminal or with --quiet.
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

// Shows reports whether the bar is visible.
func (b *Bar) Shows() bool { return b.out != nil }

// Stage begins a stage with a name and a total; -1 if the total is unknown.
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

// Done adds n to the number of things done, of which some failed.
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

// Close removes the bar.
func (b *Bar) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end()
}
