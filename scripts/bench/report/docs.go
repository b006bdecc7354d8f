package report

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// WriteDocs writes parts, Markdown by name, to BENCHMARKS.md in dir, between the lines "<!-- bench: <name> -->" and
// "<!-- /bench -->". The text between parts stays, and so do parts that are not given.
func WriteDocs(dir string, parts map[string]string) error {
	file := filepath.Join(dir, "BENCHMARKS.md")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s must be there: the tables go between its lines \"<!-- bench: … -->\"", file)
	} else if err != nil {
		return err
	}
	replaced, err := replaceParts(string(text), parts)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(replaced), 0o644)
}

// Markdown writes the tables that have rows.
func Markdown(tables ...Table) string {
	var texts []string
	for _, t := range tables {
		if len(t.Rows) > 0 {
			texts = append(texts, t.Markdown())
		}
	}
	return strings.Join(texts, "\n")
}

const (
	partBegin = "<!-- bench: "
	partEnd   = "<!-- /bench -->"
)

// replaceParts replaces the parts of a text. A part that is not given stays, since a run may leave it out.
func replaceParts(text string, parts map[string]string) (string, error) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, partBegin)
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		name, rest, named := strings.Cut(rest, " -->\n")
		old, rest, ended := strings.Cut(rest, partEnd)
		if !named || !ended || strings.Contains(old, partBegin) {
			return "", fmt.Errorf("%q has no end %q", partBegin+strings.SplitN(name, "\n", 2)[0], partEnd)
		}
		part := old
		if parts[name] != "" {
			part = "\n" + parts[name] + "\n"
		}
		b.WriteString(partBegin + name + " -->\n" + part + partEnd)
		text = rest
	}
}
