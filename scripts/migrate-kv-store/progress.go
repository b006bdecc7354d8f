package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// bar shows stages on a terminal: done and total, rate, time left, failures. Where nobody looks it says nothing.
type bar struct {
	mu     sync.Mutex
	out    io.Writer // nil: nobody looks
	bar    *progressbar.ProgressBar
	name   string
	failed int
}

func (s *stores) progress(stderr io.Writer) *bar {
	file, ok := stderr.(*os.File)
	if !ok || s.quiet {
		return &bar{}
	}
	if info, err := file.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 || os.Getenv("TERM") == "dumb" {
		return &bar{}
	}
	return &bar{out: file}
}

// Stage implements [migrate.Progress].
func (b *bar) Stage(name string, total int) {
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

// Done implements [migrate.Progress].
func (b *bar) Done(n, failed int) {
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

func (b *bar) end() {
	if b.bar != nil {
		_ = b.bar.Clear()
		b.bar = nil
	}
}

// close takes the bar away.
func (b *bar) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end()
}
