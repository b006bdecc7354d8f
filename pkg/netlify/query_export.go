package netlify

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"netlify-supabase-kv/pkg/kv"
)

// exportFormat is how the answer of a query is written.
type exportFormat struct {
	name        string
	contentType string
	maxLimit    int
	pageBytes   int
	bom         bool // asked for
}

var exportFormats = []exportFormat{
	{name: "json", contentType: "application/json", maxLimit: kv.MaxQueryLimit},
	// Quoting can double a page.
	{name: "csv", contentType: "text/csv; charset=utf-8; header=present", maxLimit: kv.MaxLimit, pageBytes: kv.MaxPageBytes / 2},
	{name: "ndjson", contentType: "application/x-ndjson; charset=utf-8", maxLimit: kv.MaxLimit},
}

// format reads the name of a format; json if it is absent.
func (p part) format() exportFormat {
	name := p.optionalString()
	var names []string
	for _, format := range exportFormats {
		if format.name == cmp.Or(name, "json") {
			return format
		}
		names = append(names, format.name)
	}
	p.refuse(" must be one of %s, got %s", strings.Join(names, ", "), quoted(name))
	return exportFormats[0]
}

// queryAnswer is what the store answers a query with; results and groups keep the bytes of their values.
type queryAnswer struct {
	Results    []json.RawMessage `json:"results"`
	Count      int               `json:"count"`
	Pagination struct {
		HasMore    bool   `json:"hasMore"`
		NextCursor string `json:"nextCursor"`
	} `json:"pagination"`
	Notices []struct {
		Code string `json:"code"`
	} `json:"notices"`
	Aggregates json.RawMessage   `json:"aggregates"`
	Groups     []json.RawMessage `json:"groups"`
}

// answer writes what the store answered to q.
func (f exportFormat) answer(body string, q kv.Query, r *Request) (*Response, error) {
	if f.name == "json" {
		text := append(make([]byte, 0, len(body)+64), strings.TrimSuffix(body, "}")...)
		text = append(text, `,"timestamp":`...)
		return &Response{Status: http.StatusOK, Body: append(kv.AppendString(text, r.Timestamp()), '}')}, nil
	}
	var a queryAnswer
	if err := json.Unmarshal([]byte(body), &a); err != nil {
		return nil, fmt.Errorf("read the answer of kv_query: %w", err)
	}
	export, rows := f.writer(q, a)
	notices := a.noticeCodes()
	for _, row := range rows {
		if err := export.row(row); err != nil {
			return nil, fmt.Errorf("write a row as %s: %w", f.name, err)
		}
	}
	header := map[string]string{
		"Content-Type":        f.contentType,
		"Content-Disposition": `attachment; filename="kv-query.` + f.name + `"`,
		"X-KV-Count":          strconv.Itoa(len(rows)),
		"X-KV-Has-More":       strconv.FormatBool(a.Pagination.HasMore || slices.Contains(notices, "groups_cut")),
	}
	switch cursor := a.Pagination.NextCursor; {
	case len(cursor) > maxCursorHeader:
		notices = append(notices, "no_cursor")
	case cursor != "":
		header["X-KV-Next-Cursor"] = cursor
	}
	if len(notices) > 0 {
		header["X-KV-Notice"] = strings.Join(notices, ", ")
	}
	return &Response{Status: http.StatusOK, Header: header, Body: export.bytes()}, nil
}

// maxCursorHeader bounds a cursor in a header, which gateways do not pass on at any length. A longer one names a number of
// thousands of digits or a key full of control characters; then offset is the way, as for orders without a cursor.
const maxCursorHeader = 6000

func (a queryAnswer) noticeCodes() (codes []string) {
	for _, notice := range a.Notices {
		codes = append(codes, notice.Code)
	}
	return codes
}

// rowWriter writes an export row by row, each the text of a JSON object.
type rowWriter interface {
	row(text json.RawMessage) error
	bytes() []byte
}

// writer returns what writes the rows: entries, groups, or the aggregates of everything as the only one.
func (f exportFormat) writer(q kv.Query, a queryAnswer) (rowWriter, []json.RawMessage) {
	rows := a.Results
	switch {
	case q.GroupBy != "":
		rows = a.Groups
	case len(q.Aggregates) > 0:
		rows = []json.RawMessage{[]byte(`{"aggregates":` + string(a.Aggregates) + `}`)}
	}
	if f.name == "ndjson" {
		return &ndjsonWriter{}, rows
	}
	return newCSVWriter(q, f.bom), rows
}

type ndjsonWriter struct{ buffer bytes.Buffer }

// lineBreaks are what some readers end a line at besides \n: between the tokens of a value \n and \r mean nothing and become spaces;
// the others JSON has within strings alone, where they can be escaped.
var lineBreaks = strings.NewReplacer("\n", " ", "\r", " ", "\u0085", `\u0085`, "\u2028", `\u2028`, "\u2029", `\u2029`)

// row writes one line.
func (w *ndjsonWriter) row(text json.RawMessage) error {
	_, err := lineBreaks.WriteString(&w.buffer, string(text))
	w.buffer.WriteByte('\n')
	return err
}

func (w *ndjsonWriter) bytes() []byte { return w.buffer.Bytes() }

// csvWriter writes CSV as RFC 4180 has it, with a header row.
type csvWriter struct {
	columns []string
	cells   func(text json.RawMessage) ([]string, error)
	buffer  bytes.Buffer
	csv     *csv.Writer // into the buffer
}

// byteOrderMark tells Excel that a file is UTF-8.
const byteOrderMark = "\ufeff"

func newCSVWriter(q kv.Query, bom bool) *csvWriter {
	w := &csvWriter{}
	if bom {
		w.buffer.WriteString(byteOrderMark)
	}
	switch {
	case len(q.Aggregates) > 0:
		if q.GroupBy != "" {
			w.columns = append(w.columns, "group")
		}
		for _, a := range q.Aggregates {
			column := strings.TrimSuffix(a.Op+":"+string(a.Path), ":")
			w.columns = append(w.columns, column)
			if leavesOut(a.Op) {
				w.columns = append(w.columns, column+" excluded")
			}
		}
		w.cells = func(text json.RawMessage) ([]string, error) { return aggregateCells(text, q.GroupBy != "") }
	default:
		selected := q.Select
		if selected == nil {
			selected = kv.EntryFields
		}
		for _, field := range selected {
			w.columns = append(w.columns, string(field))
		}
		w.cells = func(text json.RawMessage) ([]string, error) { return resultCells(text, w.columns) }
	}
	header := make([]string, len(w.columns))
	for i, column := range w.columns {
		header[i] = harmless(column)
	}
	w.record(header)
	return w
}

func (w *csvWriter) row(text json.RawMessage) error {
	cells, err := w.cells(text)
	if err == nil {
		w.record(cells)
	}
	return err
}

func (w *csvWriter) bytes() []byte { return w.buffer.Bytes() }

// record ends the line with CR LF by itself: csv.Writer's UseCRLF would also change the line breaks inside cells. Writing
// to memory cannot fail.
func (w *csvWriter) record(cells []string) {
	if len(cells) == 1 && cells[0] == "" {
		w.buffer.WriteString(`""` + "\r\n") // an empty line would be no record
		return
	}
	if w.csv == nil {
		w.csv = csv.NewWriter(&w.buffer)
	}
	_ = w.csv.Write(cells)
	w.csv.Flush()
	w.buffer.Truncate(w.buffer.Len() - 1)
	w.buffer.WriteString("\r\n")
}

func resultCells(text json.RawMessage, columns []string) ([]string, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, err
	}
	cells := make([]string, len(columns))
	for i, column := range columns {
		if column == "value" {
			cells[i] = string(fields[column]) // as it was written: null is the value null, not an empty cell
		} else {
			cells[i] = cell(fields[column])
		}
	}
	return cells, nil
}

// leavesOut reports whether an aggregate says how many values it could not use.
func leavesOut(op string) bool { return op != "count" && op != "distinct" }

func aggregateCells(text json.RawMessage, grouped bool) ([]string, error) {
	var row struct {
		Group      json.RawMessage `json:"group"`
		Aggregates []struct {
			Op       string          `json:"op"`
			Value    json.RawMessage `json:"value"`
			Excluded json.RawMessage `json:"excluded"`
		} `json:"aggregates"`
	}
	if err := json.Unmarshal(text, &row); err != nil {
		return nil, err
	}
	var cells []string
	if grouped {
		cells = append(cells, cell(row.Group))
	}
	for _, aggregate := range row.Aggregates {
		cells = append(cells, cell(aggregate.Value))
		if leavesOut(aggregate.Op) {
			cells = append(cells, cell(aggregate.Excluded))
		}
	}
	return cells, nil
}

// cell is a JSON value as a spreadsheet wants it: the text of a string, nothing for null and for what is absent, else JSON.
func cell(text json.RawMessage) string {
	var s string
	switch {
	case len(text) == 0 || string(text) == "null":
		return ""
	case text[0] != '"':
		return string(text)
	case json.Unmarshal(text, &s) != nil:
		return string(text)
	}
	return harmless(s)
}

// formula is what a spreadsheet may take for a formula (OWASP, "CSV Injection"), with any number of apostrophes before it,
// so that one more can be told from those that were there.
var formula = regexp.MustCompile(`^['\s]*[=+\-@＝＋－＠\t\r\n]`)

// harmless puts an apostrophe before a text that a spreadsheet would run.
func harmless(text string) string {
	if formula.MatchString(text) {
		return "'" + text
	}
	return text
}
