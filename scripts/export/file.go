package main

import (
	"fmt"
	"io"
	"os"
)

// target is where an export goes. A file has its name only once it is whole.
type target struct {
	io.Writer
	size    int64
	partial *os.File // nil: standard output
	name    string
}

func (f *flags) open(stdout io.Writer) (*target, error) {
	if f.out == "-" {
		return &target{Writer: stdout}, nil
	}
	if _, err := os.Stat(f.out); err == nil && !f.force {
		return nil, fmt.Errorf("%s exists: --force writes over it", f.out)
	}
	partial, err := os.Create(f.out + ".partial")
	if err != nil {
		return nil, fmt.Errorf("create the file: %w", err)
	}
	return &target{Writer: partial, partial: partial, name: f.out}, nil
}

func (t *target) Write(p []byte) (int, error) {
	n, err := t.Writer.Write(p)
	t.size += int64(n)
	return n, err
}

// keep gives the file its name, once it is on the disk.
func (t *target) keep() error {
	if t.partial == nil {
		return nil
	}
	if err := t.partial.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", t.name, err)
	}
	if err := t.partial.Close(); err != nil {
		return fmt.Errorf("write %s: %w", t.name, err)
	}
	if err := os.Rename(t.partial.Name(), t.name); err != nil {
		return fmt.Errorf("name the file %s: %w", t.name, err)
	}
	t.partial = nil
	return nil
}

// drop removes what was not kept.
func (t *target) drop() {
	if t.partial != nil {
		_ = t.partial.Close()
		_ = os.Remove(t.partial.Name())
	}
}
