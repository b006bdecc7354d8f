package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"

	"netlify-supabase-kv/pkg/config"
)

// Result is one check with its findings. Its JSON is stable: fields are only ever added.
type Result struct {
	ID       string    `json:"id"`
	Level    Level     `json:"level"`
	Findings []Finding `json:"findings"`
}

// Report is the result of a run. Its JSON is stable: fields are only ever added.
type Report struct {
	Release string        `json:"release"`
	Site    string        `json:"site,omitempty"`
	Counts  map[Level]int `json:"counts"` // of checks
	Checks  []Result      `json:"checks"`
}

// Add adds a check's findings and returns them with secrets masked.
func (r *Report) Add(check Check, findings []Finding, mask *strings.Replacer) Result {
	shown := Result{ID: check.ID, Level: level(findings), Findings: make([]Finding, len(findings))}
	for i, f := range findings {
		shown.Findings[i] = Finding{Level: f.Level, Text: mask.Replace(f.Text), Mend: mask.Replace(f.Mend)}
	}
	if r.Counts == nil {
		r.Counts = map[Level]int{OK: 0, Skip: 0, Warn: 0, Fail: 0}
	}
	r.Counts[shown.Level]++
	r.Checks = append(r.Checks, shown)
	return shown
}

// Write writes the result for people: a line for each finding, and what to do below it.
func (r Result) Write(w io.Writer) error {
	var text strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&text, "%-5s %-20s %s\n", f.Level, r.ID, f.Text)
		if f.Mend != "" {
			fmt.Fprintf(&text, "%-5s %-20s → %s\n", "", "", f.Mend)
		}
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// WriteSummary writes the last line for people.
func (r *Report) WriteSummary(w io.Writer) error {
	_, err := fmt.Fprintf(w, "\n%d checks: %d ok, %d warn, %d fail, %d skip\n", len(r.Checks), r.Counts[OK], r.Counts[Warn], r.Counts[Fail], r.Counts[Skip])
	return err
}

// WriteJSON writes the report as one document.
func (r *Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(r)
}

// Mask replaces secrets in the input's variables with ***, in case a message from elsewhere quotes one.
func (in *Input) Mask() *strings.Replacer {
	var pairs []string
	hide := func(secret string) {
		if secret = strings.TrimSpace(secret); len(secret) >= 4 { // a shorter one protects nothing, and may be part of ordinary words
			pairs = append(pairs, secret, "***")
		}
	}
	for _, name := range config.Secrets(config.Functions{}) {
		hide(in.Getenv(name))
		for _, one := range strings.Split(in.Getenv(name), ",") {
			hide(one)
		}
	}
	hide(in.DatabaseURL)
	if u, err := url.Parse(in.DatabaseURL); err == nil && u.User != nil {
		password, _ := u.User.Password()
		hide(password)
	}
	return strings.NewReplacer(pairs...)
}
