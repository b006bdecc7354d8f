// Command bench measures the functions on a running platform and prints tables; `make bench` gives it one of its own.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/scripts/bench/internal/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

type flags struct {
	requests int
	seed     uint64
	out      string
}

func command() *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure the functions on a running platform",
		Long: `Measure what the functions take inside an invocation, with what they are compared to in the same run.

It writes and deletes entries under "bench/" in the Supabase project that SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY
name. "make bench" starts an empty one for it.`,
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error { return run(c.Context(), f, c.OutOrStdout()) },
	}
	c.Flags().IntVar(&f.requests, "requests", 20_000, "requests of each load")
	c.Flags().Uint64Var(&f.seed, "seed", uint64(time.Now().UnixNano()&0x7fffffff), "repeats a load")
	c.Flags().StringVar(&f.out, "out", "", "a file for the results as JSON")
	return c
}

// results is the JSON document of a run.
type results struct {
	At    time.Time           `json:"at"`
	CPUs  int                 `json:"cpus"`
	Go    string              `json:"go"`
	Seed  uint64              `json:"seed"`
	Cache []bench.CacheResult `json:"cache"`
}

func run(ctx context.Context, f flags, out io.Writer) error {
	if f.requests < 100 {
		return fmt.Errorf("--requests must be at least 100, got %d", f.requests)
	}
	store, err := kv.NewSupabase(os.Getenv("SUPABASE_URL"), os.Getenv("SUPABASE_SERVICE_ROLE_KEY"))
	if err != nil {
		return fmt.Errorf("%w\nTry:   make bench, which starts a platform of its own", err)
	}
	r := results{At: time.Now().UTC(), CPUs: runtime.NumCPU(), Go: runtime.Version(), Seed: f.seed}
	for _, load := range bench.CacheLoads(f.requests, f.seed) {
		result, err := runCacheLoad(ctx, store, load)
		if err != nil {
			return fmt.Errorf("%s: %w", load.Name, err)
		}
		r.Cache = append(r.Cache, result)
	}
	printCache(out, r)
	if f.out != "" {
		if err := write(f.out, r); err != nil {
			return err
		}
	}
	return kept(r)
}

// kept is an error where a promise of docs/CACHE.md does not hold.
func kept(r results) error {
	for _, c := range r.Cache {
		if c.HitToMiss > maxHitToMiss {
			return fmt.Errorf("%s: an answer from memory takes %.3f times one from the database, and %.2f is promised", c.Load.Name, c.HitToMiss, maxHitToMiss)
		}
		if c.Load.Name == bench.HotKeys && c.HitRatio < minHitRatio {
			return fmt.Errorf("%s: %.0f %% were answered from memory, and %.0f %% are promised", c.Load.Name, 100*c.HitRatio, 100*minHitRatio)
		}
	}
	return nil
}

// What is promised, at p50 and for the hot keys.
const (
	maxHitToMiss = 0.05
	minHitRatio  = 0.80
)

func write(file string, r results) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

func runCacheLoad(ctx context.Context, store *kv.Supabase, load bench.CacheLoad) (result bench.CacheResult, err error) {
	prefix := "bench/" + uuid.NewString() + "/"
	defer func() { err = errors.Join(err, remove(context.WithoutCancel(ctx), prefix)) }()
	bar := progressbar.NewOptions(load.Requests, progressbar.OptionSetWriter(terminal()), progressbar.OptionSetDescription(load.Name),
		progressbar.OptionThrottle(200*time.Millisecond), progressbar.OptionClearOnFinish(), progressbar.OptionShowCount())
	defer func() { err = errors.Join(err, bar.Finish()) }()
	return load.Run(ctx, store, prefix, func(done int) { _ = bar.Set(done) })
}

// terminal is where progress is shown: nowhere, unless somebody is looking.
func terminal() io.Writer {
	if info, err := os.Stderr.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return io.Discard
	}
	return os.Stderr
}

// remove deletes what a benchmark wrote, in one statement where there is a way to the database.
func remove(ctx context.Context, prefix string) error {
	address := os.Getenv("DATABASE_URL")
	if address == "" {
		fmt.Fprintf(os.Stderr, "DATABASE_URL is not set: the entries under %s stay\n", prefix)
		return nil
	}
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, "delete from public.kv_store where starts_with(key, $1)", prefix)
	return err
}

func printCache(out io.Writer, r results) {
	fmt.Fprintf(out, "The cache of kv-get, ms inside the invocation (%d CPUs, %s, seed %d)\n\n", r.CPUs, r.Go, r.Seed)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "load\thit ratio\t\tcalls\tmean\tp50\tp95\tp99\t")
	for _, c := range r.Cache {
		first := fmt.Sprintf("%s\t%.1f %%", c.Load.Name, 100*c.HitRatio)
		for _, row := range []struct {
			name string
			l    bench.Latency
		}{{"with the cache", c.Cached}, {"from memory", c.Hits}, {"from the database", c.Misses}, {"without a cache", c.Uncached}} {
			fmt.Fprintf(w, "%s\t%s\t%d\t%.3f\t%.3f\t%.3f\t%.3f\t\n", first, row.name, row.l.Calls, row.l.Mean, row.l.P50, row.l.P95, row.l.P99)
			first = "\t"
		}
	}
	_ = w.Flush()
	for _, c := range r.Cache {
		fmt.Fprintf(out, "\n%s: from memory takes %.4f times what the database takes (p50; at most %.2f is promised)", c.Load.Name, c.HitToMiss, maxHitToMiss)
	}
	fmt.Fprintln(out)
}
