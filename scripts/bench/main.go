// Command bench measures the functions on a running platform and prints tables. `make bench` starts a platform for it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/schollz/progressbar/v3"
	"github.com/shirou/gopsutil/v4/mem"
	"github.com/spf13/cobra"

	"netlify-supabase-kv/scripts/bench/internal/bench"
	"netlify-supabase-kv/scripts/bench/report"
)

// The exit statuses: 1 when a promise is broken, 2 when it could not run.
const (
	exitBroken = 1
	exitFailed = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := command().ExecuteContext(ctx)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "Error:", err)
	if bench.IsBroken(err) {
		os.Exit(exitBroken)
	}
	os.Exit(exitFailed)
}

type flags struct {
	parts                    []string
	entries, concurrency     []int
	rounds, requests, starts int
	seed                     uint64
	out, from, compare, docs string
	functions, profile, only string
	modules                  string
}

// parts are the parts of a measurement.
var parts = []string{"alternatives", "entries", "storage", "operations", "stores", "cold", "cache"}

func command() *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure the functions on a running platform",
		Long: `Measure the functions inside an invocation, and the alternatives in the same run.

It writes and deletes entries under "bench/" in the Supabase project that SUPABASE_URL, SUPABASE_SERVICE_ROLE_KEY and
DATABASE_URL name, and in Netlify Blobs. "make bench" starts empty ones for it.`,
		Example: `  make bench
  make bench SCALE=full
  make bench ARGS='--parts operations --entries 10000 --rounds 200 --compare old.json'
  make bench ARGS='--docs docs'`,
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr()) },
	}
	s := c.Flags()
	s.StringSliceVar(&f.parts, "parts", parts, "what to measure")
	s.StringVar(&f.only, "only", "", "measure only the operations whose names match this regular expression")
	s.IntSliceVar(&f.entries, "entries", []int{10_000, 100_000}, "how many entries the store holds, one size after the other")
	s.IntSliceVar(&f.concurrency, "concurrency", []int{1, 10}, "how many calls at a time")
	s.IntVar(&f.rounds, "rounds", 500, "calls of each operation in each way; of the slow ones fewer")
	s.IntVar(&f.requests, "requests", 20_000, "requests of each load of the cache")
	s.IntVar(&f.starts, "starts", 50, "starts of each function")
	s.Uint64Var(&f.seed, "seed", uint64(time.Now().UnixNano()&0x7fffffff), "repeats the requests of a run")
	s.StringVar(&f.functions, "functions", "", "folder with <function>/bootstrap to start (default: what KV_HOST_URL runs)")
	s.StringVar(&f.modules, "modules", "", "folder with an installed @supabase/supabase-js (default: `platform packages bench`)")
	s.StringVar(&f.out, "out", "", "a file for the results as JSON")
	s.StringVar(&f.from, "from", "", "show the results in this file instead of measuring")
	s.StringVar(&f.compare, "compare", "", "a file with older results to compare with")
	s.StringVar(&f.docs, "docs", "", "folder whose BENCHMARKS.md gets the tables")
	s.StringVar(&f.profile, "cpuprofile", "", "a file for a profile of this process, for go tool pprof")
	return c
}

func (f flags) check() error {
	for name, n := range map[string]int{"rounds": f.rounds - 9, "requests": f.requests - 99, "starts": f.starts} {
		if n < 1 {
			return fmt.Errorf("--%s is too small for a meaningful result", name)
		}
	}
	for _, n := range f.entries {
		if err := bench.CheckEntries(n); err != nil {
			return fmt.Errorf("--entries: %w", err)
		}
	}
	for _, n := range f.concurrency {
		if n < 1 || n > 50 {
			return fmt.Errorf("--concurrency must be 1 to 50, got %d", n)
		}
	}
	for _, part := range f.parts {
		if !slices.Contains(parts, part) {
			return fmt.Errorf("--parts must be of %v, got %q", parts, part)
		}
	}
	if _, err := regexp.Compile(f.only); err != nil {
		return fmt.Errorf("--only: %w", err)
	}
	return nil
}

func (f flags) run(ctx context.Context, out, progress io.Writer) (err error) {
	if err := f.check(); err != nil {
		return err
	}
	var older bench.Results
	if f.compare != "" { // before the run, which takes minutes
		if older, err = bench.Read(f.compare); err != nil {
			return err
		}
	}
	var r bench.Results
	if f.from != "" {
		r, err = bench.Read(f.from)
	} else {
		r, err = f.measure(ctx, progress)
	}
	if r.Machine != (bench.Machine{}) { // also what was measured before an error, or Ctrl-C
		err = errors.Join(err, report.WriteJSON(f.out, r))
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s, seed %d\n", r.Machine, r.Seed)
	tables := r.Tables()
	if f.compare != "" {
		tables = append([]report.Table{bench.Compare(older, r)}, tables...)
	}
	for _, t := range tables {
		if err := t.Print(out); err != nil {
			return err
		}
	}
	if f.docs != "" {
		if err := r.WriteDocs(f.docs); err != nil {
			return err
		}
	}
	return r.Kept()
}

// measure runs the requested parts.
func (f flags) measure(ctx context.Context, progress io.Writer) (r bench.Results, err error) {
	r = bench.Results{At: time.Now().UTC(), Seed: f.seed}
	for _, name := range []string{"SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "DATABASE_URL"} {
		if os.Getenv(name) == "" {
			return r, fmt.Errorf("%s is not set\nTry:   make bench, which starts a platform of its own", name)
		}
	}
	project, err := bench.Open(ctx, bench.Project{URL: os.Getenv("SUPABASE_URL"), Key: os.Getenv("SUPABASE_SERVICE_ROLE_KEY"),
		Database: os.Getenv("DATABASE_URL"), Site: os.Getenv("KV_BASE_URL")})
	if err != nil {
		return r, err
	}
	defer project.Close()
	if r.Machine, err = machine(ctx, project); err != nil {
		return r, err
	}
	if f.profile != "" {
		file, err := os.Create(f.profile)
		if err != nil {
			return r, err
		}
		defer func() { _ = file.Close() }()
		if err := pprof.StartCPUProfile(file); err != nil {
			return r, err
		}
		defer pprof.StopCPUProfile()
	}
	m := measurement{flags: f, project: project, progress: progress, results: &r}
	if m.conn, err = project.Connect(ctx); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, m.conn.Close(context.WithoutCancel(ctx))) }()
	err = m.run(ctx)
	return r, err
}

// measurement is a running measurement.
type measurement struct {
	flags
	project  *bench.Project
	conn     *pgx.Conn
	progress io.Writer
	results  *bench.Results
}

func (m measurement) run(ctx context.Context) error {
	if slices.Contains(m.parts, "storage") {
		if err := m.storage(ctx); err != nil {
			return fmt.Errorf("storage: %w", err)
		}
	}
	if slices.Contains(m.parts, "operations") {
		undo, err := bench.IndexScores(ctx, m.conn)
		if err != nil {
			return fmt.Errorf("make ranges fast: %w", err)
		}
		defer func() { _ = undo(context.WithoutCancel(ctx)) }()
		for _, entries := range m.entries {
			if err := m.filled(ctx, entries, m.operations); err != nil {
				return err
			}
		}
	}
	if err := m.beside(ctx, "alternatives", "bench", m.project.MeasureAlternatives, &m.results.Alternatives); err != nil {
		return err
	}
	if err := m.beside(ctx, "entries", "clients", m.project.MeasureEntries, &m.results.Entries); err != nil {
		return err
	}
	if slices.Contains(m.parts, "stores") || slices.Contains(m.parts, "cold") {
		if err := m.filled(ctx, slices.Min(m.entries), m.deployed); err != nil {
			return err
		}
	}
	if slices.Contains(m.parts, "cache") {
		return m.cache(ctx)
	}
	return nil
}

func (m measurement) storage(ctx context.Context) (err error) {
	entries := slices.Min(m.entries)
	prefix := "bench/" + uuid.NewString()[:8] + "/" // keys of a typical length
	defer func() { err = errors.Join(err, m.remove(context.WithoutCancel(ctx), prefix)) }()
	m.printf("measuring  the storage of %d entries", entries)
	m.results.Storage, err = bench.MeasureStorage(ctx, m.conn, prefix, entries)
	if errors.Is(err, bench.ErrNotEmpty) {
		m.printf("left out   storage: %v", err)
		return nil
	}
	return err
}

// filled calls do with a store of a number of entries, which it removes afterwards.
func (m measurement) filled(ctx context.Context, entries int, do func(context.Context, bench.Data) error) (err error) {
	d := bench.Data{Prefix: prefix(), Entries: entries}
	defer func() { err = errors.Join(err, m.remove(context.WithoutCancel(ctx), d.Prefix)) }()
	m.printf("filling    %d entries", entries)
	if err := d.Fill(ctx, m.conn); err != nil {
		return fmt.Errorf("fill: %w", err)
	}
	return do(ctx, d)
}

func (m measurement) operations(ctx context.Context, d bench.Data) error {
	only := regexp.MustCompile(m.only)
	for _, concurrency := range m.concurrency {
		for _, op := range bench.Operations() {
			if !only.MatchString(op.Name) {
				continue
			}
			m.printf("measuring  %s, %d at a time, %d entries", op.Name, concurrency, d.Entries)
			result, err := m.project.Measure(ctx, d, op, m.rounds, concurrency, m.seed)
			if err != nil {
				return err
			}
			m.results.Operations = append(m.results.Operations, result)
			if err := m.remove(ctx, d.Prefix+"new/"); err != nil {
				return err
			}
		}
	}
	operations := min(thousand, 10*m.rounds)
	m.printf("measuring  %d operations, %d entries", operations, d.Entries)
	result, err := m.project.MeasureThousand(ctx, d, operations, m.seed)
	if err != nil {
		return err
	}
	m.results.Thousand = append(m.results.Thousand, result)
	return nil
}

// beside measures a part that compares with what a user might choose instead, at the smallest and the largest number of
// entries. It needs a set of packages of `platform packages`.
func (m measurement) beside(ctx context.Context, part, packages string, measure besideMeasurement, results *[]bench.OperationResult) error {
	if !slices.Contains(m.parts, part) {
		return nil
	}
	modules, err := m.install(ctx, packages)
	if err != nil {
		return err
	}
	for _, entries := range slices.Compact([]int{slices.Min(m.entries), slices.Max(m.entries)}) {
		err := m.filled(ctx, entries, func(ctx context.Context, d bench.Data) error {
			for _, concurrency := range m.concurrency {
				m.printf("measuring  %s, %d at a time, %d entries", part, concurrency, entries)
				measured, err := measure(ctx, m.conn, d, modules, m.rounds, concurrency, m.seed)
				if err != nil {
					return err
				}
				*results = append(*results, measured...)
				if err := m.remove(ctx, d.Prefix+"new/"); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
	}
	return nil
}

// install returns the folder of a set of packages.
func (m measurement) install(ctx context.Context, packages string) (string, error) {
	if packages == "bench" && m.modules != "" {
		return m.modules, nil
	}
	m.printf("installing the packages of %s", packages)
	out, err := exec.CommandContext(ctx, "go", "run", "netlify-supabase-kv/scripts/platform", "packages", packages).Output()
	if err != nil {
		return "", fmt.Errorf("install the packages of %s: %w", packages, err)
	}
	return strings.TrimSpace(string(out)), nil
}

type besideMeasurement func(ctx context.Context, conn *pgx.Conn, d bench.Data, modules string, rounds, concurrency int, seed uint64) ([]bench.OperationResult, error)

// thousand is the number of operations whose total time is promised. A short run extrapolates from fewer.
const thousand = 1000

// deployed measures the deployed functions.
func (m measurement) deployed(ctx context.Context, d bench.Data) (err error) {
	if os.Getenv("NETLIFY_BLOBS_TOKEN") != "" {
		defer func() { err = errors.Join(err, m.project.EmptyBlobs(context.WithoutCancel(ctx), d)) }()
	}
	if err := m.stores(ctx, d); err != nil {
		return fmt.Errorf("both stores: %w", err)
	}
	if !slices.Contains(m.parts, "cold") {
		return nil
	}
	var programs map[string]string
	switch host := os.Getenv("KV_HOST_URL"); {
	case m.functions != "":
		programs, err = bench.BinariesIn(m.functions)
	case host == "":
		m.printf("left out   cold starts: neither KV_HOST_URL nor --functions is set")
		return nil
	case runtime.GOOS != "linux":
		m.printf("left out   cold starts: the host's programs can only be found on Linux; elsewhere use --functions")
		return nil
	default:
		programs, err = bench.Binaries(ctx, host)
	}
	if err != nil {
		return err
	}
	m.printf("measuring  %d starts of %d functions", m.starts, len(programs))
	m.results.Cold, err = bench.MeasureCold(ctx, programs, d, m.starts, m.seed)
	return err
}

// stores compares Blobs with Supabase.
func (m measurement) stores(ctx context.Context, d bench.Data) (err error) {
	if !slices.Contains(m.parts, "stores") {
		return nil
	}
	if os.Getenv("NETLIFY_BLOBS_TOKEN") == "" {
		m.printf("left out   Netlify Blobs: NETLIFY_BLOBS_TOKEN is not set")
		return nil
	}
	m.printf("filling    %d entries into Blobs", d.Entries)
	if err := m.project.FillBlobs(ctx, d); err != nil {
		return err
	}
	m.printf("measuring  both stores, %d entries", d.Entries)
	if m.results.Stores, err = m.project.MeasureStores(ctx, d, m.rounds, m.seed); err != nil {
		return err
	}
	return m.remove(ctx, d.Prefix+"new/")
}

func (m measurement) cache(ctx context.Context) error {
	for _, load := range bench.CacheLoads(m.requests, m.seed) {
		m.printf("measuring  the cache: %s", load.Name)
		result, err := m.cacheLoad(ctx, load)
		if err != nil {
			return fmt.Errorf("%s: %w", load.Name, err)
		}
		m.results.Cache = append(m.results.Cache, result)
	}
	return nil
}

func (m measurement) cacheLoad(ctx context.Context, load bench.CacheLoad) (result bench.CacheResult, err error) {
	prefix := prefix()
	defer func() { err = errors.Join(err, m.remove(context.WithoutCancel(ctx), prefix)) }()
	bar := progressbar.NewOptions(load.Requests, progressbar.OptionSetWriter(terminal()), progressbar.OptionSetDescription(load.Name),
		progressbar.OptionThrottle(200*time.Millisecond), progressbar.OptionClearOnFinish(), progressbar.OptionShowCount())
	defer func() { err = errors.Join(err, bar.Finish()) }()
	return load.Run(ctx, m.project.Store(), prefix, func(done int) { _ = bar.Set(done) })
}

func (m measurement) remove(ctx context.Context, prefix string) error {
	return bench.Remove(ctx, m.conn, prefix)
}

func (m measurement) printf(line string, args ...any) { fmt.Fprintf(m.progress, line+"\n", args...) }

// prefix returns the prefix of a part's entries.
func prefix() string { return "bench/" + uuid.NewString() + "/" }

// terminal returns the writer for progress bars, which discards them unless standard error is a terminal.
func terminal() io.Writer {
	if info, err := os.Stderr.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return io.Discard
	}
	return os.Stderr
}

func machine(ctx context.Context, p *bench.Project) (m bench.Machine, err error) {
	m = bench.Machine{CPUs: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version()}
	if memory, err := mem.VirtualMemoryWithContext(ctx); err == nil {
		m.MemoryGB = int((memory.Total + 1<<29) >> 30)
	}
	m.Postgres, m.PostgREST, err = p.Versions(ctx)
	return m, err
}
