// Command load simulates many users of a site and reports latencies, errors and the functions' memory. `make load`
// starts a platform for it. It knows only the HTTP contract.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"netlify-supabase-kv/scripts/bench/report"
)

// The exit statuses: 1 when a promise was broken, 2 when it could not run.
const (
	exitBroken = 1
	exitFailed = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "Error:", err)
	var broken brokenPromises
	if errors.As(err, &broken) {
		os.Exit(exitBroken)
	}
	fmt.Fprintln(os.Stderr, "Try:   make load, which starts a platform of its own")
	os.Exit(exitFailed)
}

// brokenPromises are the promises that the load broke.
type brokenPromises []string

func (b brokenPromises) Error() string { return strings.Join(b, "\n       ") }

type flags struct {
	users    int
	duration time.Duration
	think    time.Duration
	window   time.Duration
	entries  int
	seed     uint64
	maxRSS   int
	out      string
	docs     string
}

func command() *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use:   "load",
		Short: "Simulate many users of a site",
		Long: `Sends the requests of --users users to the site at KV_BASE_URL for --duration. 70 % of the requests read (45 % kv-get, 25 % kv-list
of a hundred entries), 20 % are upserts with two indexes, 10 % are queries by index.

The load is closed: each user waits for a response before its next request, and begins a request every --think on average (evenly
from half to one and a half times that). So 1,000 users with 4 s send 250 requests a second while responses take less than that, and
fewer when they take longer. No request waits in a queue without a user. Some entries are requested more often than others (Zipf).

The exit status is 1 if any response was not the expected 200, if an instance ended, or if an instance used more memory than --max-rss
or kept growing. The memory is watched only where KV_HOST_URL is a local function host.

It writes entries under "load/" and deletes them at the end.`,
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error { return run(c.Context(), f, c.OutOrStdout(), c.ErrOrStderr()) },
	}
	s := c.Flags()
	s.IntVar(&f.users, "users", 1000, "users at the same time")
	s.DurationVar(&f.duration, "duration", time.Minute, "how long the load lasts")
	s.DurationVar(&f.think, "think", 4*time.Second, "average time between the beginnings of a user's requests")
	s.DurationVar(&f.window, "window", 5*time.Second, "of the table of latencies over time")
	s.IntVar(&f.entries, "entries", 2000, "entries that the users share")
	s.Uint64Var(&f.seed, "seed", uint64(time.Now().UnixNano()&0x7fffffff), "repeats the users' requests")
	s.IntVar(&f.maxRSS, "max-rss", 128, "MB that an instance may use; Netlify's limit is 1,024")
	s.StringVar(&f.out, "out", "", "a file for the results as JSON")
	s.StringVar(&f.docs, "docs", "", "folder whose BENCHMARKS.md gets the tables and a plot")
	return c
}

func (f flags) validate() error {
	switch {
	case os.Getenv("KV_BASE_URL") == "":
		return errors.New("KV_BASE_URL is not set")
	case f.users < 1 || f.entries < 100:
		return errors.New("there must be at least one user and a hundred entries")
	case f.think <= 0 || f.window <= 0 || f.duration < f.window:
		return errors.New("--think and --window must be over 0, and --duration at least one window")
	}
	return nil
}

// results is the JSON document of a run.
type results struct {
	At        time.Time  `json:"at"`
	CPUs      int        `json:"cpus"`
	Go        string     `json:"go"`
	Seed      uint64     `json:"seed"`
	Users     int        `json:"users"`
	Think     float64    `json:"think_s"`
	Duration  float64    `json:"duration_s"`
	Requests  uint64     `json:"requests"`
	Rate      float64    `json:"requests_per_s"`
	Errors    int        `json:"errors"`
	Kinds     []latency  `json:"kinds"`
	Windows   []latency  `json:"windows"`
	Instances []instance `json:"instances"`
}

func run(ctx context.Context, f flags, out, progress io.Writer) error {
	if err := f.validate(); err != nil {
		return err
	}
	s := newSite(f)
	fmt.Fprintf(out, "load       %d users, a request each every %s, %s, seed %d\n", f.users, f.think, f.duration, f.seed)
	if err := s.fill(ctx); err != nil {
		return fmt.Errorf("write the entries: %w", err)
	}
	defer s.clear()
	memory, err := watchMemory(ctx, os.Getenv("KV_HOST_URL"))
	if err != nil {
		return fmt.Errorf("look at the instances: %w", err)
	}
	seen := s.attack(ctx, progress)
	instances, memoryErrs := memory.end(f.maxRSS)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	r := results{At: time.Now().UTC(), CPUs: runtime.NumCPU(), Go: runtime.Version(), Seed: f.seed, Users: f.users, Think: f.think.Seconds(),
		Duration: f.duration.Seconds(), Requests: seen.total.Requests, Rate: seen.total.Rate, Errors: seen.errors,
		Kinds: seen.kindLatencies(), Windows: seen.windowLatencies(f.window), Instances: instances}
	if err := errors.Join(r.print(out), report.WriteJSON(f.out, r)); err != nil {
		return err
	}
	if f.docs != "" {
		if err := r.writeDocs(f.docs); err != nil {
			return err
		}
	}
	broken := append(seen.broken(), memoryErrs...)
	if len(broken) > 0 {
		return broken
	}
	fmt.Fprintf(out, "\n%d requests, %.0f a second, no errors\n", r.Requests, r.Rate)
	return nil
}
