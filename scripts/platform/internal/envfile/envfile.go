// Package envfile writes and reads files of KEY=value lines that a POSIX shell can source.
package envfile

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Pair is one variable. A file keeps the order it was written in.
type Pair struct{ Key, Value string }

var (
	plainKey   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	plainValue = regexp.MustCompile(`^[A-Za-z0-9_./:@%+=,-]*$`)
)

// Write replaces the file atomically. Only its owner may read it, since it holds keys and passwords.
func Write(name, comment string, pairs []Pair) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n", comment)
	for _, p := range pairs {
		line, err := format(p)
		if err != nil {
			return err
		}
		b.WriteString(line)
	}
	return Replace(name, b.Bytes())
}

// Replace replaces a file atomically: a reader sees the old content or the new one. Only its owner may read it.
func Replace(name string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*") // CreateTemp makes it 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(content); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

func format(p Pair) (string, error) {
	switch {
	case !plainKey.MatchString(p.Key):
		return "", fmt.Errorf("%q is not a valid variable name", p.Key)
	case strings.ContainsAny(p.Value, "\n\x00"):
		return "", fmt.Errorf("the value of %s has a line break or NUL, which does not fit in a line", p.Key)
	case plainValue.MatchString(p.Value):
		return p.Key + "=" + p.Value + "\n", nil
	default:
		return p.Key + "='" + strings.ReplaceAll(p.Value, "'", `'\''`) + "'\n", nil
	}
}

// Read returns the variables of a file that [Write] wrote.
func Read(name string) ([]Pair, error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var pairs []Pair
	lines := bufio.NewScanner(bytes.NewReader(content))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, found := strings.Cut(line, "=")
		if !found {
			return nil, fmt.Errorf("%s: %q is not KEY=value", name, line)
		}
		pairs = append(pairs, Pair{Key: key, Value: unquote(value)})
	}
	return pairs, lines.Err()
}

func unquote(value string) string {
	if len(value) >= 2 && strings.HasPrefix(value, "'") && strings.HasSuffix(value, "'") {
		return strings.ReplaceAll(value[1:len(value)-1], `'\''`, "'")
	}
	return value
}

// Strings returns the variables in the form of [os.Environ].
func Strings(pairs []Pair) []string {
	out := make([]string, 0, len(pairs))
	for _, p := range pairs {
		out = append(out, p.Key+"="+p.Value)
	}
	return out
}
