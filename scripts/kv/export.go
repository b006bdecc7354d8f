package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"netlify-supabase-kv/pkg/config"
	"netlify-supabase-kv/scripts/internal/cli"
	"netlify-supabase-kv/scripts/kv/internal/export"
)

// adviseExport adds what to do about an export that could not begin.
func adviseExport(err error) error {
	var refused *export.Refused
	switch {
	case errors.As(err, &refused) && refused.Status == http.StatusUnauthorized:
		return &cli.Advised{Err: err, Try: "--token, or KV_READ_TOKEN in the environment"}
	case errors.As(err, &refused) && refused.Status == http.StatusNotFound:
		return &cli.Advised{Err: err, Try: "--url with the address of a site that serves kv-query"}
	}
	return &cli.Advised{Err: err, Try: "kv export --help"}
}

// unfinished is the error of an export that began and did not finish; --resume continues after the entries kept so
// far.
func unfinished(err error, kept int) error {
	var advised *cli.Advised
	incomplete := &cli.Incomplete{Err: err, Try: "the same command again"}
	if errors.As(adviseExport(err), &advised) && errors.As(err, new(*export.Refused)) {
		incomplete.Try = advised.Try
	}
	if kept > 0 {
		incomplete.Try = fmt.Sprintf("the same command with --resume, which continues after the %d entries written so far", kept)
	}
	return incomplete
}

type exportFlags struct {
	url, token, out, format, query    string
	prefix, search, where, sort, pick string
	indexes                           []string
	page                              int
	stall                             time.Duration
	bom, noBOM, force, resume         bool
	output                            cli.Output
}

func exportCommand() *cobra.Command {
	var f exportFlags
	var variables config.Programs
	_ = config.Read(&variables, os.Getenv) // any text is valid
	c := &cobra.Command{
		Use:   "export",
		Short: "Write every entry that a query finds to one file",
		Long: `Reads the pages of kv-query and writes one file: CSV, NDJSON (one JSON object a line) or one JSON array.

The file gets its name when it is complete; until then it is <file>.partial. After a failure or Ctrl-C, --resume
continues with that file.`,
		Example: `  kv export --prefix docs/ --out docs.ndjson
  kv export --index type:order --select key,value.total,createdAt --out orders.csv
  kv export --query '{"search":"tea"}' --format csv > tea.csv`,
		Args: cobra.NoArgs, SilenceErrors: true, SilenceUsage: true,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr()) },
	}
	s := c.Flags()
	s.StringVar(&f.url, "url", variables.BaseURL, "the address of the functions [KV_BASE_URL]")
	s.StringVar(&f.token, "token", "", "bearer token, if the site has one [KV_READ_TOKEN, KV_API_TOKEN]")
	s.StringVarP(&f.out, "out", "o", "-", "the file to write; - is standard output")
	s.StringVar(&f.format, "format", "", "csv, ndjson or json (default: the extension of --out, else ndjson)")
	s.StringVar(&f.query, "query", "", "body of a kv-query request as JSON, or @file; the flags below add to it")
	s.StringVar(&f.prefix, "prefix", "", "keys that begin with this")
	s.StringArrayVar(&f.indexes, "index", nil, "entries with this <key>:<member>; if repeated, all must match")
	s.StringVar(&f.search, "search", "", "words, \"a phrase\", or, -not")
	s.StringVar(&f.where, "where", "", `conditions as JSON: [{"path":"score","op":"gte","value":10}]`)
	s.StringVar(&f.sort, "sort", "", "path, or path:desc (default: key)")
	s.StringVar(&f.pick, "select", "", "fields separated by commas: key,value.title,createdAt (default: all)")
	s.IntVar(&f.page, "page", 5000, fmt.Sprintf("entries per request, 1 to %d", export.MaxPage))
	s.BoolVar(&f.bom, "bom", false, "begin the file with a byte order mark, for Excel (default for a .csv file)")
	s.BoolVar(&f.noBOM, "no-bom", false, "begin the file without a byte order mark")
	s.DurationVar(&f.stall, "stall", export.DefaultStall, "retry a request after this long without a byte; the export fails after two minutes of retries")
	s.BoolVar(&f.resume, "resume", false, "continue the <file>.partial that an export with the same flags left")
	s.BoolVar(&f.force, "force", false, "overwrite an existing file")
	f.output.Flags(s) // the result goes to standard error: standard output may be the file
	c.MarkFlagsMutuallyExclusive("bom", "no-bom")
	return c
}

func (f *exportFlags) run(ctx context.Context, stdout, stderr io.Writer) error {
	o, err := f.options()
	if err != nil {
		return adviseExport(err)
	}
	o.Warn = func(message string) {
		if !f.output.Quiet {
			fmt.Fprintln(stderr, "Note: ", message)
		}
	}
	file, err := f.open(stdout, o)
	if err != nil {
		return adviseExport(err)
	}
	defer file.drop()
	o.From, o.Saved = file.position(), file.save

	bar := f.output.Progress(stderr)
	if bar.Shows() {
		total, err := export.Count(ctx, o)
		if err != nil || total == 0 {
			total = -1 // unknown: the export itself reports the error
		}
		bar.Stage("exporting", total)
	}
	shown := 0
	o.Progress = func(written int) {
		bar.Done(written-shown, 0)
		shown = written
	}
	start := time.Now()
	written, err := export.Run(ctx, file, o)
	bar.Close()
	if err == nil {
		err = file.keep()
	}
	if err != nil {
		return unfinished(err, file.position().Entries)
	}
	return cli.Print(stderr, f.output, exported{written, file.size, time.Since(start).Seconds(), f.out}, func(out io.Writer, e exported) {
		fmt.Fprintf(out, "exported   %s entries, %s bytes, in %.2fs: %s\n", humanize.Comma(int64(e.Entries)), humanize.Comma(e.Bytes), e.Seconds, e.Out)
	})
}

// exported is the result of an export.
type exported struct {
	Entries int     `json:"entries"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
	Out     string  `json:"out"`
}

// options makes the export's options from the flags.
func (f *exportFlags) options() (export.Options, error) {
	o := export.Options{URL: f.url, Token: config.Clean(f.token), Format: f.format, Page: f.page, Stall: f.stall, Query: map[string]json.RawMessage{}}
	if o.Token == "" {
		var tokens config.Access
		_ = config.Read(&tokens, os.Getenv) // any text is valid
		if all := append(tokens.Read, tokens.API...); len(all) > 0 {
			o.Token = all[0]
		}
	}
	if !strings.HasPrefix(o.URL, "http://") && !strings.HasPrefix(o.URL, "https://") {
		return o, fmt.Errorf("--url must be an address like https://your-site.netlify.app, got %q", o.URL)
	}
	if f.stall <= 0 {
		return o, fmt.Errorf("--stall must be a duration above 0, as in %s, got %s", export.DefaultStall, f.stall)
	}
	if ending := strings.TrimPrefix(filepath.Ext(f.out), "."); o.Format == "" && slices.Contains(export.Formats, ending) {
		o.Format = ending
	} else if o.Format == "" {
		o.Format = "ndjson"
	}
	o.BOM = f.bom || !f.noBOM && f.out != "-"
	if err := f.addQuery(o.Query); err != nil {
		return o, err
	}
	return o, o.Validate()
}

func (f *exportFlags) addQuery(query map[string]json.RawMessage) error {
	text := []byte(f.query)
	if name, ok := strings.CutPrefix(f.query, "@"); ok {
		var err error
		if text, err = os.ReadFile(name); err != nil {
			return fmt.Errorf("read --query: %w", err)
		}
	}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &query); err != nil {
			return fmt.Errorf("--query must be a JSON object: %w", err)
		}
	}
	for name, given := range map[string]string{"query": string(text), "prefix": f.prefix, "search": f.search, "sort": f.sort, "select": f.pick,
		"where": f.where, "index": strings.Join(f.indexes, "")} {
		if !utf8.ValidString(given) { // JSON would have U+FFFD in its place, which finds other entries
			return fmt.Errorf("--%s must be UTF-8, got %q", name, given)
		}
	}
	added := map[string]any{}
	for name, value := range map[string]string{"prefix": f.prefix, "search": f.search, "sort": f.sort} {
		if value != "" {
			added[name] = value
		}
	}
	if f.indexes != nil {
		added["indexes"] = map[string]any{"all": f.indexes}
	}
	if f.pick != "" {
		added["select"] = strings.Split(f.pick, ",")
	}
	if f.where != "" {
		if !json.Valid([]byte(f.where)) {
			return errors.New(`--where must be JSON like [{"path":"score","op":"gte","value":10}]`)
		}
		added["where"] = json.RawMessage(f.where)
	}
	for name, value := range added {
		if query[name] != nil {
			return fmt.Errorf("%s is already in --query", name)
		}
		raw, err := json.Marshal(value)
		if err != nil {
			return err
		}
		query[name] = raw
	}
	return nil
}
