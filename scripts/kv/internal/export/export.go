// Package export writes every entry that a query of kv-query finds, however many there are. It follows the cursor page
// by page and joins the pages.
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

// Formats are the output formats: CSV (RFC 4180), one JSON object a line, or one JSON array.
var Formats = []string{"csv", "ndjson", "json"}

// MaxPage is the largest number of entries that kv-query returns in one response.
const MaxPage = 10_000

// Options describe an export.
type Options struct {
	// URL is the address of the functions, as in https://your-site.netlify.app. Token is the bearer token, if there is
	// one.
	URL, Token string
	// Query is the body of a kv-query request without limit, cursor, offset and format.
	Query map[string]json.RawMessage
	// Format is one of [Formats].
	Format string
	// Page is the number of entries in one request, 1 to [MaxPage]. It is halved if a response is too late or too
	// large.
	Page int
	// BOM begins a CSV file with a byte order mark, by which Excel recognizes UTF-8.
	BOM bool
	// Stall is how long a server may send nothing before a request is retried; 0 means [DefaultStall].
	Stall     time.Duration
	retryTime time.Duration // 0 means defaultRetryTime
	// From is where an earlier export of the same query stopped. Its output precedes the output of this one.
	From Position
	// Saved, if set, receives each position up to which everything is written.
	Saved func(Position) error
	// Client defaults to one that detects dead connections.
	Client *http.Client
	// Progress receives the number of entries written so far. Warn receives messages for the user.
	Progress func(written int)
	Warn     func(message string)
}

// Position is a point between two pages of an export. The zero value is before the first page.
type Position struct {
	Entries int    `json:"entries"`          // written so far
	Cursor  string `json:"cursor,omitempty"` // of kv-query; "" if the order has no cursor: then Entries is the offset
}

// paging are the fields of a query that the export sets itself.
var paging = []string{"limit", "cursor", "offset", "format", "bom"}

// Validate checks the options without a request.
func (o Options) Validate() error {
	for _, name := range paging {
		if o.Query[name] != nil {
			return fmt.Errorf("the query must not have %s: the export sets it for each page", name)
		}
	}
	switch {
	case o.Query["aggregate"] != nil:
		return errors.New("the query must not have aggregate: kv-query returns aggregates in one response (format=csv)")
	case !slices.Contains(Formats, o.Format):
		return fmt.Errorf("format must be one of %v, got %q", Formats, o.Format)
	case o.Page < 1 || o.Page > MaxPage:
		return fmt.Errorf("page must be 1 to %d, got %d", MaxPage, o.Page)
	}
	return nil
}

// Count asks kv-query for the number of entries to export.
func Count(ctx context.Context, o Options) (int, error) {
	query := maps.Clone(o.Query)
	delete(query, "select")
	delete(query, "sort")
	query["aggregate"] = json.RawMessage(`[{"op":"count"}]`)
	a, err := newClient(o, 1).ask(ctx, query) // without retries: the count is only for a progress bar
	if err != nil {
		return 0, err
	}
	var counted struct{ Aggregates []struct{ Value int } }
	if err := json.Unmarshal(a.body, &counted); err != nil || len(counted.Aggregates) != 1 {
		return 0, fmt.Errorf("kv-query answered a count with %.100q", a.body)
	}
	return counted.Aggregates[0].Value, nil
}

// Run writes all entries to w and returns their number, including those before o.From. After an error the output is
// incomplete, and another export can continue from the last position that o.Saved received.
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
	client, page, warned := newClient(o, cmp.Or(o.retryTime, defaultRetryTime)), o.Page, false
	var shown []string // notices
	if o.From.Cursor != "" {
		query["cursor"] = quote(o.From.Cursor)
	} else if written > 0 {
		query["offset"] = json.RawMessage(fmt.Sprint(written))
	}
	for {
		query["limit"] = json.RawMessage(fmt.Sprint(page))
		a, err := client.ask(ctx, query)
		if needsSmallerPage(err) && page > 1 {
			page = max(page/2, 1)
			continue
		}
		if err != nil {
			return written, err
		}
		if a.count == 0 && a.hasMore {
			return written, errors.New("kv-query returned no entries but announced more: it is not the kv-query of this project")
		}
		n, err := out.page(a.body)
		written += n
		if err == nil && n != a.count {
			err = fmt.Errorf("kv-query returned %d entries but announced %d: something between here and the function changes its responses", n, a.count)
		}
		if err != nil {
			return written, err
		}
		o.Progress(written)
		for _, code := range a.notices {
			if message := notices[code]; message != "" && !slices.Contains(shown, code) {
				o.Warn(message)
				shown = append(shown, code)
			}
		}
		switch {
		case !a.hasMore:
			return written, out.end()
		case a.cursor != "":
			query["cursor"] = quote(a.cursor)
		default:
			if !warned {
				o.Warn("this order has no cursor, so the export pages by offset: entries written or deleted meanwhile shift the pages")
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

// notices are the notices of kv-query that an export passes on: the file may lack entries that the user expects.
var notices = map[string]string{
	"not_searched": "some entries were not searched and are not in the file, because their values are over 200 kB; kv-query reports how many",
	"replaced":     "some values contain something that the database cannot hold, such as U+0000, and the query sees a replacement for it; kv-query reports in how many entries",
}

func quote(text string) json.RawMessage {
	quoted, _ := json.Marshal(text) // a string always has a JSON form
	return quoted
}

// joiner joins pages.
type joiner struct {
	w      io.Writer
	format string
	rows   bool // rows have been written
}

// page writes a page and returns its number of entries.
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
				return 0, fmt.Errorf("kv-query answered with invalid CSV: %w", err)
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

// elements writes lines as elements of an array and returns their number.
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
