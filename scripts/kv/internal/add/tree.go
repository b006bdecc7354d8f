package add

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// tree is a folder with pending changes. Names are relative to it, with slashes.
type tree struct {
	root    string
	changed map[string]*file // nil for a removed file
}

type file struct {
	content []byte
	mode    fs.FileMode
}

func newTree(root string) *tree { return &tree{root: root, changed: map[string]*file{}} }

func (t *tree) disk(name string) string { return filepath.Join(t.root, filepath.FromSlash(name)) }

// read returns a file's content with pending changes; nil if there is no such file.
func (t *tree) read(name string) ([]byte, error) {
	if f, ok := t.changed[name]; ok {
		if f == nil {
			return nil, nil
		}
		return f.content, nil
	}
	return t.readDisk(name)
}

func (t *tree) readDisk(name string) ([]byte, error) {
	content, err := os.ReadFile(t.disk(name))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR) {
		return nil, nil
	}
	if err == nil && content == nil {
		content = []byte{}
	}
	return content, err
}

// write sets the content. A file that exists keeps its mode.
func (t *tree) write(name string, content []byte, mode fs.FileMode) {
	t.changed[name] = &file{content: content, mode: mode}
}

func (t *tree) remove(name string) { t.changed[name] = nil }

// exists reports whether a file or folder will exist after the changes.
func (t *tree) exists(name string) bool {
	for changed, f := range t.changed {
		if f != nil && (changed == name || strings.HasPrefix(changed, name+"/")) {
			return true
		}
	}
	info, err := os.Lstat(t.disk(name))
	if err != nil {
		return false
	}
	if !info.IsDir() {
		f, ok := t.changed[name]
		return !ok || f != nil
	}
	return t.holdsMore(name)
}

// holdsMore reports whether a folder on disk keeps any content after the changes, or was empty before them.
func (t *tree) holdsMore(name string) bool {
	entries, err := os.ReadDir(t.disk(name))
	if err != nil || len(entries) == 0 {
		return err == nil
	}
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return t.exists(path.Join(name, e.Name())) })
}

// Change is one file that differs from the disk.
type Change struct {
	File   string `json:"file"`
	Action string `json:"action"` // added, changed or removed
	Bytes  int    `json:"bytes"`  // size of the new content
	new    *file
}

// changes returns the files that differ from the disk, sorted by name.
func (t *tree) changes() ([]Change, error) {
	var found []Change
	for _, name := range slices.Sorted(maps.Keys(t.changed)) {
		old, err := t.readDisk(name)
		if err != nil {
			return nil, err
		}
		c := Change{File: name, new: t.changed[name]}
		switch {
		case c.new == nil && old == nil, c.new != nil && old != nil && bytes.Equal(c.new.content, old):
			continue
		case c.new == nil:
			c.Action = "removed"
		case old == nil:
			c.Action, c.Bytes = "added", len(c.new.content)
		default:
			c.Action, c.Bytes = "changed", len(c.new.content)
		}
		found = append(found, c)
	}
	return found, nil
}

// missingFolders returns the folders to make, outermost first.
func (t *tree) missingFolders() []string {
	found := map[string]bool{}
	for name, f := range t.changed {
		if f == nil {
			continue
		}
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if info, err := os.Stat(t.disk(dir)); err != nil || !info.IsDir() {
				found[dir] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(found), outermostFirst)
}

func outermostFirst(a, b string) int {
	return cmp.Or(cmp.Compare(strings.Count(a, "/"), strings.Count(b, "/")), cmp.Compare(a, b))
}

// apply writes the changes. Removals come first, because a file may replace a folder of the same name. Of folders, the
// empty ones are removed.
func (t *tree) apply(ctx context.Context, changes []Change, folders []string) error {
	for _, c := range changes {
		if c.new == nil {
			if err := os.Remove(t.disk(c.File)); err != nil {
				return err
			}
		}
	}
	for _, dir := range slices.Backward(folders) {
		if entries, err := os.ReadDir(t.disk(dir)); err == nil && len(entries) == 0 {
			if err := os.Remove(t.disk(dir)); err != nil {
				return err
			}
		}
	}
	for _, c := range changes {
		if err := ctx.Err(); err != nil {
			return err
		}
		if c.new != nil {
			if err := t.replace(c.File, c.new); err != nil {
				return fmt.Errorf("write %s: %w", c.File, err)
			}
		}
	}
	return nil
}

// replace writes a file atomically. It follows a symbolic link and replaces the file that the link names.
func (t *tree) replace(name string, f *file) error {
	to, mode := t.disk(name), f.mode
	if real, err := filepath.EvalSymlinks(to); err == nil {
		to = real
	}
	if info, err := os.Stat(to); err == nil {
		mode = info.Mode().Perm()
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	part := to + ".kv-add"
	if err := os.WriteFile(part, f.content, 0o600); err != nil {
		return err
	}
	return errors.Join(os.Chmod(part, mode), os.Rename(part, to))
}
