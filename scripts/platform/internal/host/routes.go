package host

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"netlify-supabase-kv/scripts/platform/internal/console"
)

// Redirect is one [[redirects]] of netlify.toml. The host supports rewrites, which have status 200.
type Redirect struct {
	From   string `toml:"from"`
	To     string `toml:"to"`
	Status int    `toml:"status"`
	Force  bool   `toml:"force"`
}

// Config is what the host needs of netlify.toml.
type Config struct {
	Publish   string // folder of static files, relative to the site
	Redirects []Redirect
}

// ReadConfig reads netlify.toml. A redirect that this host would treat differently from Netlify is an error.
func ReadConfig(file string) (Config, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return Config{}, err
	}
	return parseConfig(content)
}

func parseConfig(content []byte) (Config, error) {
	var file struct {
		Build struct {
			Publish string `toml:"publish"`
		} `toml:"build"`
		Redirects []Redirect `toml:"redirects"`
	}
	if err := toml.Unmarshal(content, &file); err != nil {
		return Config{}, fmt.Errorf("netlify.toml: %w", err)
	}
	for _, r := range file.Redirects {
		if err := r.check(); err != nil {
			return Config{}, console.Try(fmt.Errorf("netlify.toml: redirect from %q: %w", r.From, err),
				"rewrite it, or make scripts/platform/internal/host treat it as Netlify does")
		}
	}
	return Config{Publish: file.Build.Publish, Redirects: file.Redirects}, nil
}

func (r Redirect) check() error {
	star := strings.Index(r.From, "*")
	switch {
	case r.Status != http.StatusOK:
		return fmt.Errorf("the local host only does rewrites (status = 200), not %d", r.Status)
	case !strings.HasPrefix(r.From, "/") || !strings.HasPrefix(r.To, "/"):
		return errors.New("from and to must be paths on this site")
	case star >= 0 && (star != len(r.From)-1 || !strings.HasSuffix(r.From, "/*")):
		return errors.New("a * is supported only as the last segment")
	}
	for segment := range strings.SplitSeq(r.From, "/") {
		if strings.LastIndex(segment, ":") > 0 || segment == ":" || segment == ":splat" {
			return errors.New("a placeholder must be a whole segment, such as :id")
		}
	}
	return nil
}

// match returns the path that a request is rewritten to. As on Netlify, a trailing slash is ignored, a placeholder
// matches one segment, and * also matches the empty string.
func (r Redirect) match(path string) (string, bool) {
	base, wild := strings.CutSuffix(strings.TrimSuffix(r.From, "/"), "/*")
	to, rest := r.To, path
	for segment := range strings.SplitSeq(strings.TrimPrefix(base, "/"), "/") {
		if base == "" {
			break
		}
		given, _, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
		switch {
		case !strings.HasPrefix(rest, "/"):
			return "", false
		case strings.HasPrefix(segment, ":") && given != "":
			to = strings.ReplaceAll(to, segment, given)
		case segment != given:
			return "", false
		}
		rest = rest[1+len(given):]
	}
	if !wild {
		return to, rest == "" || rest == "/"
	}
	return strings.ReplaceAll(to, ":splat", strings.TrimPrefix(rest, "/")), true
}

// functionsPrefix is where Netlify serves every function.
const functionsPrefix = "/.netlify/functions/"

// functionOf returns the name in a path like /.netlify/functions/kv-get/some/key.
func functionOf(path string) (string, bool) {
	rest, found := strings.CutPrefix(path, functionsPrefix)
	name, _, _ := strings.Cut(rest, "/")
	return name, found && name != ""
}

// route returns the name of the function for an encoded path, if there is one.
func (c Config) route(path string) (string, bool) {
	if name, ok := functionOf(path); ok {
		return name, true
	}
	for _, r := range c.Redirects {
		if to, ok := r.match(path); ok {
			return functionOf(to)
		}
	}
	return "", false
}

// static returns the file of a path in the publish folder. Dot segments never lead out of that folder.
func static(dir, path string) (string, bool) {
	if dir == "" || strings.Contains(path, "\\") || strings.ContainsRune(path, 0) {
		return "", false
	}
	name := filepath.Join(dir, filepath.Clean("/"+path))
	info, err := os.Stat(name)
	if err == nil && info.IsDir() {
		name = filepath.Join(name, "index.html")
		info, err = os.Stat(name)
	}
	return name, err == nil && info.Mode().IsRegular()
}
