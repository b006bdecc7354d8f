// Command export writes everything that a query of kv-query finds into one file, as CSV, NDJSON or JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"netlify-supabase-kv/pkg/config"
	"netlify-supabase-kv/scripts/export/internal/export"
)

// The exit statuses: 1 when it ran and could not end, 2 when it could not begin.
const (
	exitUnfinished = 1
	exitFailed     = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := command().ExecuteContext(ctx)
	var unfinished *unfinishedError
	switch {
	case err == nil:
		return
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "Interrupted; the file asked for was not touched.")
		resume(err)
		os.Exit(exitUnfinished)
	case errors.As(err, &unfinished):
		report(err)
		resume(err)
		os.Exit(exitUnfinished)
	}
	report(err)
	os.Exit(exitFailed)
}

// resume says how to go on, where there is something to go on with.
func resume(err error) {
	var unfinished *unfinishedError
	if errors.As(err, &unfinished) && unfinished.kept > 0 {
		fmt.Fprintf(os.Stderr, "Try:   the same command with --resume, which goes on after the %d entries that are written\n", unfinished.kept)
	}
}

// report says what was wrong and what to do.
func report(err error) {
	fmt.Fprintln(os.Stderr, "Error:", err)
	var refused *export.Refused
	switch {
	case errors.As(err, &refused) && refused.Status == http.StatusUnauthorized:
		fmt.Fprintln(os.Stderr, "Try:   --token, or KV_READ_TOKEN in the environment")
	case errors.As(err, &refused) && refused.Status == http.StatusNotFound:
		fmt.Fprintln(os.Stderr, "Try:   --url with the address of a site that has kv-query")
	case errors.As(err, &refused), errors.As(err, new(*unfinishedError)):
	default:
		fmt.Fprintln(os.Stderr, "Try:   make export ARGS=--help")
	}
}

// unfinishedError is one that came after the export had begun.
type unfinishedError struct {
	error
	kept int // entries that --resume goes on after
}

func (e *unfinishedError) Unwrap() error { return e.error }

type flags struct {
	url, token, out, format, query    string
	prefix, search, where, sort, pick string
	indexes                           []string
	page                              int
	stall                             time.Duration
	bom, noBOM, force, quiet, asJSON  bool
	resume                            bool
}

func command() *cobra.Command {
	var f flags
	var variables config.Programs
	_ = config.Read(&variables, os.Getenv) // any text is one
	c := &cobra.Command{
		Use:   "export",
		Short: "Write everything that a query finds into one file",
		Long: `Walks the pages of kv-query and writes them as one file: CSV, NDJSON (one JSON object a line) or one JSON array.

The file appears under its name when it is whole; until then it is <file>.partial. What an export that failed or was interrupted
leaves there, --resume goes on with.`,
		Example: `  make export ARGS='--prefix docs/ --out docs.ndjson'
  make export ARGS='--index type:order --select key,value.total,createdAt --out orders.csv'
  make export ARGS="--query '{\"search\":\"tea\"}' --format csv" > tea.csv`,
		Args: cobra.NoArgs, SilenceErrors: true, SilenceUsage: true,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr()) },
	}
	s := c.Flags()
	s.StringVar(&f.url, "url", variables.BaseURL, "where the functions answer [KV_BASE_URL]")
	s.StringVar(&f.token, "token", "", "bearer token, if the site has one [KV_READ_TOKEN, KV_API_TOKEN]")
	s.StringVarP(&f.out, "out", "o", "-", "the file to write; - is standard output")
	s.StringVar(&f.format, "format", "", "csv, ndjson or json (default: by the ending of --out, else ndjson)")
	s.StringVar(&f.query, "query", "", "body of kv-query as JSON, or @file; the flags below add to it")
	s.StringVar(&f.prefix, "prefix", "", "keys that begin with this")
	s.StringArrayVar(&f.indexes, "index", nil, "entries of this <key>:<member>; repeat it, and all must match")
	s.StringVar(&f.search, "search", "", "words, \"a phrase\", or, -not")
	s.StringVar(&f.where, "where", "", `conditions as JSON: [{"path":"score","op":"gte","value":10}]`)
	s.StringVar(&f.sort, "sort", "", "path, or path:desc (default: key)")
	s.StringVar(&f.pick, "select", "", "fields, with commas between: key,value.title,createdAt (default: all)")
	s.IntVar(&f.page, "page", 5000, fmt.Sprintf("entries per request, 1 to %d", export.MaxPage))
	s.BoolVar(&f.bom, "bom", false, "begin with a byte order mark, for Excel (default for a .csv file)")
	s.BoolVar(&f.noBOM, "no-bom", false, "begin without one")
	s.DurationVar(&f.stall, "stall", export.DefaultStall, "ask again after so long without a byte; two minutes later the export ends")
	s.BoolVar(&f.resume, "resume", false, "go on with the <file>.partial that an export with the same flags left")
	s.BoolVar(&f.force, "force", false, "write over a file that exists")
	s.BoolVarP(&f.quiet, "quiet", "q", false, "say nothing but errors")
	s.BoolVar(&f.asJSON, "json", false, "say what was done as JSON, on standard error")
	c.MarkFlagsMutuallyExclusive("bom", "no-bom")
	return c
}

func (f *flags) run(ctx context.Context, stdout, stderr io.Writer) error {
	o, err := f.options()
	if err != nil {
		return err
	}
	o.Warn = func(message string) {
		if !f.quiet {
			fmt.Fprintln(stderr, "Note: ", message)
		}
	}
	file, err := f.open(stdout, o)
	if err != nil {
		return err
	}
	defer file.drop()
	o.From, o.Saved = file.position(), file.save

	o.Progress = func(int) {}
	bar := f.bar(ctx, o, stderr)
	if bar != nil {
		o.Progress = func(written int) { _ = bar.Set(written) }
	}
	start := time.Now()
	written, err := export.Run(ctx, file, o)
	if err == nil {
		err = file.keep()
	}
	if err != nil {
		return &unfinishedError{err, file.position().Entries}
	}
	if bar != nil {
		_ = bar.Clear()
	}
	f.summary(stderr, written, file.size, time.Since(start))
	return nil
}

// options reads the flags into what to export.
func (f *flags) options() (export.Options, error) {
	o := export.Options{URL: f.url, Token: f.token, Format: f.format, Page: f.page, Stall: f.stall, Query: map[string]json.RawMessage{}}
	if o.Token == "" {
		var tokens config.Access
		_ = config.Read(&tokens, os.Getenv) // any text is one
		if all := append(tokens.Read, tokens.API...); len(all) > 0 {
			o.Token = all[0]
		}
	}
	if !strings.HasPrefix(o.URL, "http://") && !strings.HasPrefix(o.URL, "https://") {
		return o, fmt.Errorf("--url must be an address like https://your-site.netlify.app, got %q", o.URL)
	}
	if f.stall <= 0 {
		return o, fmt.Errorf("--stall must be a time above 0, as in %s, got %s", export.DefaultStall, f.stall)
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

func (f *flags) addQuery(query map[string]json.RawMessage) error {
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
			return fmt.Errorf("%s is in --query already", name)
		}
		raw, err := json.Marshal(value)
		if err != nil {
			return err
		}
		query[name] = raw
	}
	return nil
}

// bar shows how far it is, where somebody is looking; nil where nobody is. It knows the whole if that can be counted.
func (f *flags) bar(ctx context.Context, o export.Options, stderr io.Writer) *progressbar.ProgressBar {
	terminal, ok := stderr.(*os.File)
	if !ok || f.quiet || f.asJSON {
		return nil
	}
	if info, err := terminal.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	total, err := export.Count(ctx, o)
	if err != nil || total == 0 {
		total = -1 // unknown: the export itself will say what is wrong
	}
	return progressbar.NewOptions(total, progressbar.OptionSetWriter(terminal), progressbar.OptionSetDescription("exporting"), progressbar.OptionShowCount(),
		progressbar.OptionShowIts(), progressbar.OptionSetItsString("entries"), progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(100*time.Millisecond))
}

func (f *flags) summary(stderr io.Writer, written int, size int64, took time.Duration) {
	switch {
	case f.asJSON:
		_ = json.NewEncoder(stderr).Encode(map[string]any{"entries": written, "bytes": size, "seconds": took.Seconds(), "out": f.out})
	case !f.quiet:
		fmt.Fprintf(stderr, "exported   %d entries, %d bytes, in %s: %s\n", written, size, took.Round(10*time.Millisecond), f.out)
	}
}
