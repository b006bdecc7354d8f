// Package export writes everything that a query of kv-query finds, however much it is: it walks the cursor, page by page,
// and puts the pages together to one whole.
package export

import (
	"bytes"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"
)

// Formats are what can be written: CSV as RFC 4180 has it, one JSON object a line, or one JSON array.
var Formats = []string{"csv", "ndjson", "json"}

// MaxPage is the most entries that kv-query gives in one answer.
const MaxPage = 10_000

// Options say what to export.
type Options struct {
	// URL is where the functions answer, as in https://your-site.netlify.app; Token is the bearer token, if there is one.
	URL, Token string
	// Query is a body of kv-query, without limit, cursor, offset and format.
	Query map[string]json.RawMessage
	// Format is one of [Formats].
	Format string
	// Page is how many entries to ask for at once, 1 to [MaxPage]. It is halved where an answer comes too late or is too large.
	Page int
	// BOM begins a CSV with a byte order mark, which tells Excel that it is UTF-8.
	BOM bool
	// Stall is how long a server may send nothing before it is asked again; 0: [DefaultStall].
	Stall    time.Duration
	patience time.Duration // 0: defaultPatience
	// From is where an earlier export of the same query stopped; what it wrote is in front of what this one writes.
	From Position
	// Saved is told, if it is there, each position up to which everything is written.
	Saved func(Position) error
	// Client is one of our own where it is nil.
	Client *http.Client
	// Progress is told how many entries are written. Warn is told what the reader should know.
	Progress func(written int)
	Warn     func(message string)
}

// Position is between two pages of an export. The zero value is before the first.
type Position struct {
	Entries int    `json:"entries"`          // that are written
	Cursor  string `json:"cursor,omitempty"` // of kv-query; "" where the order has none, and Entries is the offset
}

// paging are the fields of a query that the walk sets itself.
var paging = []string{"limit", "cursor", "offset", "format", "bom"}

// Validate checks what can be checked without asking.
func (o Options) Validate() error {
	for _, name := range paging {
		if o.Query[name] != nil {
			return fmt.Errorf("the query must not have %s: the export walks all pages by itself", name)
		}
	}
	switch {
	case o.Query["aggregate"] != nil:
		return errors.New("the query must not have aggregate: kv-query answers one in one answer (format=csv)")
	case !slices.Contains(Formats, o.Format):
		return fmt.Errorf("format must be one of %v, got %q", Formats, o.Format)
	case o.Page < 1 || o.Page > MaxPage:
		return fmt.Errorf("page must be 1 to %d, got %d", MaxPage, o.Page)
	}
	return nil
}

// Count asks how many entries there are to export.
func Count(ctx context.Context, o Options) (int, error) {
	query := maps.Clone(o.Query)
	delete(query, "select")
	delete(query, "sort")
	query["aggregate"] = json.RawMessage(`[{"op":"count"}]`)
	a, err := newClient(o, 1).ask(ctx, query) // once: it is for a progress bar
	if err != nil {
		return 0, err
	}
	var counted struct{ Aggregates []struct{ Value int } }
	if err := json.Unmarshal(a.body, &counted); err != nil || len(counted.Aggregates) != 1 {
		return 0, fmt.Errorf("kv-query answered a count with %.100q", a.body)
	}
	return counted.Aggregates[0].Value, nil
}

// Run writes all entries to w and returns how many there are, those before o.From included. What was written before an error is not
// whole, and can be gone on with from the last position that o.Saved was told.
func Run(ctx context.Context, w io.Writer, o Options) (written int, err error) {
	if err := o.Validate(); err != nil {
		return 0, err
	}
	written = o.From.Entries
	out := &joiner{w: w, format: o.Format, rows: written > 0}
	if o.BOM && o.Format == "csv" && written == 0 {
		if _, err := io.WriteString(w, "\ufeff"); err != nil {
			return 0, err
		}
	}
	query := maps.Clone(o.Query)
	if query == nil {
		query = map[string]json.RawMessage{}
	}
	query["format"] = json.RawMessage(`"ndjson"`)
	if o.Format == "csv" {
		query["format"] = json.RawMessage(`"csv"`)
	}
	client, page, warned := newClient(o, cmp.Or(o.patience, defaultPatience)), o.Page, false
	var told []string // notices
	if o.From.Cursor != "" {
		query["cursor"] = quote(o.From.Cursor)
	} else if written > 0 {
		query["offset"] = json.RawMessage(fmt.Sprint(written))
	}
	for {
		query["limit"] = json.RawMessage(fmt.Sprint(page))
		a, err := client.ask(ctx, query)
		if tooMuch(err) && page > 1 {
			page = max(page/2, 1)
			continue
		}
		if err != nil {
			return written, err
		}
		if a.count == 0 && a.hasMore {
			return written, errors.New("kv-query says that there is more, but gave nothing: it is not the kv-query of this project")
		}
		n, err := out.page(a.body)
		written += n
		if err == nil && n != a.count {
			err = fmt.Errorf("kv-query gave %d entries and says that it gave %d: something between here and the function changes its answers", n, a.count)
		}
		if err != nil {
			return written, err
		}
		o.Progress(written)
		for _, code := range a.notices {
			if message := notices[code]; message != "" && !slices.Contains(told, code) {
				o.Warn(message)
				told = append(told, code)
			}
		}
		switch {
		case !a.hasMore:
			return written, out.end()
		case a.cursor != "":
			query["cursor"] = quote(a.cursor)
		default:
			if !warned {
				o.Warn("this order has no cursor, so the pages go by offset: entries that come or go meanwhile shift them")
				warned = true
			}
			query["offset"] = json.RawMessage(fmt.Sprint(written))
		}
		if o.Saved != nil && written > 0 {
			if err := o.Saved(Position{written, a.cursor}); err != nil {
				return written, err
			}
		}
	}
}

// notices are those of kv-query that an export passes on: what the file has is not all that somebody may expect in it.
var notices = map[string]string{
	"not_searched": "some entries were not searched, and are not in the file: their values are over 200 kB; kv-query says how many",
	"replaced":     "the query looks at something that the database cannot hold, such as U+0000, and sees something else in its place; kv-query says in how many entries",
}

func quote(text string) json.RawMessage {
	quoted, _ := json.Marshal(text) // a string always can be
	return quoted
}

// joiner puts pages together.
type joiner struct {
	w      io.Writer
	format string
	rows   bool // some were written
}

// page writes a page, and counts its entries.
func (j *joiner) page(body []byte) (entries int, err error) {
	switch j.format {
	case "csv":
		rows := csv.NewReader(bytes.NewReader(body))
		rows.ReuseRecord = true
		if _, err := rows.Read(); err != nil {
			return 0, fmt.Errorf("kv-query answered with CSV without a header: %w", err)
		}
		begin := rows.InputOffset()
		for ; ; entries++ {
			if _, err := rows.Read(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return 0, fmt.Errorf("kv-query answered with what is no CSV: %w", err)
			}
		}
		if j.rows { // every page has the header row
			body = body[begin:]
		}
		j.rows = true
	case "json":
		return j.elements(body)
	default:
		entries = bytes.Count(body, []byte{'\n'})
	}
	_, err = j.w.Write(body)
	return entries, err
}

// elements makes lines the elements of an array, and counts them.
func (j *joiner) elements(lines []byte) (n int, err error) {
	for line := range bytes.Lines(lines) {
		separator := ",\n"
		if !j.rows {
			separator, j.rows = "[\n", true
		}
		if _, err := fmt.Fprintf(j.w, "%s%s", separator, bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func (j *joiner) end() error {
	if j.format != "json" {
		return nil
	}
	end := "\n]\n"
	if !j.rows {
		end = "[]\n"
	}
	_, err := io.WriteString(j.w, end)
	return err
}
