// Package report writes results: tables for a terminal, and the same for the documentation.
package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
)

// Table is a table with a title. The first columns are text, the others numbers.
type Table struct {
	Title  string
	Texts  int // how many columns are text
	Header []string
	Rows   [][]string
	Notes  []string // below the table
}

// Print prints the table for a terminal.
func (t Table) Print(w io.Writer) error {
	fmt.Fprintf(w, "\n%s\n\n", t.Title)
	cells := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	widths := make([]int, t.Texts)
	for _, row := range append([][]string{t.Header}, t.Rows...) {
		for i := range widths {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	for _, row := range append([][]string{t.Header}, t.Rows...) {
		for i, cell := range row {
			if i < t.Texts {
				cell += strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)) // since the writer aligns all columns to the right
			}
			fmt.Fprint(cells, cell, "\t")
		}
		fmt.Fprintln(cells)
	}
	if err := cells.Flush(); err != nil {
		return err
	}
	for _, note := range t.Notes {
		fmt.Fprintf(w, "\n%s\n", note)
	}
	return nil
}

// Markdown returns the table for the documentation.
func (t Table) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "**%s**\n\n", t.Title)
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(t.Header)
	rule := make([]string, len(t.Header))
	for i := range rule {
		if rule[i] = "---"; i >= t.Texts {
			rule[i] = "--:"
		}
	}
	line(rule)
	for _, row := range t.Rows {
		line(row)
	}
	for _, note := range t.Notes {
		fmt.Fprintf(&b, "\n%s\n", note)
	}
	return b.String()
}

// Thousands formats a number with commas.
func Thousands(n int) string { return humanize.Comma(int64(n)) }

// Millis formats milliseconds with at least three significant digits, and 0 as a dash.
func Millis(v float64) string {
	switch {
	case v == 0:
		return "–"
	case v < 0.1:
		return fmt.Sprintf("%.4f", v)
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.1f", v)
}
