package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"netlify-supabase-kv/pkg/config"
	"netlify-supabase-kv/pkg/migrate"
)

func planCommand(s *stores) *cobra.Command {
	var o migrate.PlanOptions
	c := &cobra.Command{
		Use:   "plan",
		Short: "Read everything and say what a run would do; neither store is touched",
		Long: `Read every blob, make its entry and its indexes, and say what a run would do. Neither store is touched.

With a Supabase project it also looks whether its database is ready.`,
		Args: cobra.NoArgs,
	}
	transformFlags(c, &o.Options)
	s.sourceFlags(c.Flags())
	dirFlag(c, &o.Dir)
	c.RunE = func(c *cobra.Command, _ []string) error { return s.plan(c, o) }
	return c
}

func (s *stores) plan(c *cobra.Command, o migrate.PlanOptions) error {
	source, closeSource, err := s.source(c.Context())
	if err != nil {
		return err
	}
	defer closeSource()
	var target *migrate.Target
	if s.hasTarget() {
		t, err := s.target(c.Context())
		if err != nil {
			return err
		}
		target = &t
	}
	bar := s.progress(c.ErrOrStderr())
	o.Progress = bar
	result, err := migrate.Plan(c.Context(), source, target, o)
	bar.close()
	if err != nil {
		return err
	}
	if err := say(s, c, o.Dir, result, sayPlan); err != nil {
		return err
	}
	if result.Failed > 0 {
		return &leftError{fmt.Errorf("%d blobs would not be migrated", result.Failed), "see " + filepath.Join(o.Dir, migrate.ReportMarkdown)}
	}
	return nil
}

func runCommand(s *stores) *cobra.Command {
	o := migrate.RunOptions{}
	var dryRun bool
	c := &cobra.Command{
		Use:   "run",
		Short: "Bring the entries into Supabase; again, what changed since",
		Long: `Bring the entries into Supabase: those that the journal does not have, or whose blobs have changed since.

It can run while the site is used, with KV_MIRROR_WRITES=true, and be killed at any moment: the next run goes on. What
others wrote to Supabase is left alone, and what callers deleted stays deleted. The migration stays open for further runs
until "close".`,
		Args: cobra.NoArgs,
	}
	transformFlags(c, &o.Options)
	s.sourceFlags(c.Flags())
	dirFlag(c, &o.Dir)
	c.Flags().IntVar(&o.BatchSize, "batch-size", migrate.DefaultBatchSize, fmt.Sprintf("entries of one transaction, 1 to %d", migrate.MaxBatchSize))
	c.Flags().BoolVar(&dryRun, "dry-run", false, "the same as plan")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if dryRun {
			return s.plan(c, migrate.PlanOptions{Options: o.Options, Dir: o.Dir})
		}
		return s.run(c, o)
	}
	return c
}

func (s *stores) run(c *cobra.Command, o migrate.RunOptions) error {
	source, closeSource, target, err := s.both(c.Context())
	if err != nil {
		return err
	}
	defer closeSource()
	bar := s.progress(c.ErrOrStderr())
	o.Progress = bar
	result, err := migrate.Run(c.Context(), source, target, o)
	bar.close()
	if err != nil && result.Source == "" { // it did not begin
		return err
	}
	if sayErr := say(s, c, o.Dir, result, sayRun); sayErr != nil {
		return errors.Join(err, sayErr)
	}
	if err != nil {
		return err
	}
	if result.Failed > 0 {
		return &leftError{fmt.Errorf("%d blobs are not migrated", result.Failed), "see " + filepath.Join(o.Dir, migrate.ReportMarkdown) + "; a further run tries them again"}
	}
	return nil
}

func verifyCommand(s *stores) *cobra.Command {
	var o migrate.VerifyOptions
	var first string
	c := &cobra.Command{
		Use:   "verify",
		Short: "Compare both stores anew, by SHA-256",
		Long: `Read every blob and compare its SHA-256 with the one that the database makes of its entry; compare keys, indexes and the
members of index entries. It looks neither at the journal nor at what a run counted. What differs is looked at several
times, since writes may be on their way.

Without flags for it, entries are made of blobs as the runs with this --dir made them.`,
		Args: cobra.NoArgs,
	}
	transformFlags(c, &o.Options)
	s.sourceFlags(c.Flags())
	dirFlag(c, &o.Dir)
	c.Flags().BoolVar(&o.Repair, "repair", false, "make Supabase what Blobs is where they differ; with --first blobs")
	c.Flags().StringVar(&first, "first", "", "the store that answers now; --repair is for blobs alone")
	c.RunE = func(c *cobra.Command, _ []string) error {
		var variables config.Stores
		if err := config.Read(&variables, os.Getenv); err != nil {
			return err
		}
		if o.Repair && s.fromTable != "" {
			return errors.New("--repair is for Blobs: after a change of the table, migrate-kv-store run brings it")
		}
		if o.Repair && (first != "blobs" || variables.UseSupabase) {
			return errors.New("--repair makes Supabase what Blobs is, so it is only for while Blobs answers: say so with --first blobs. While Supabase answers (USE_SUPABASE_KV=true) its entries are the newer ones, and this would undo them")
		}
		if err := optionsOfRuns(c, o.Dir, &o.Options); err != nil {
			return err
		}
		return s.verify(c, o)
	}
	return c
}

// optionsOfRuns takes over the options that the journal was begun with, where no flag says otherwise.
func optionsOfRuns(c *cobra.Command, dir string, o *migrate.Options) error {
	for _, name := range []string{"index-prefix", "index-rule", "wrap-non-json", "skip-non-json"} {
		if c.Flags().Changed(name) {
			return nil
		}
	}
	journal, err := migrate.ReadJournal(dir)
	if err == nil && journal != nil {
		*o = journal.Header.Options
	}
	return err
}

func (s *stores) verify(c *cobra.Command, o migrate.VerifyOptions) error {
	source, closeSource, target, err := s.both(c.Context())
	if err != nil {
		return err
	}
	defer closeSource()
	bar := s.progress(c.ErrOrStderr())
	o.Progress = bar
	v, err := migrate.Verify(c.Context(), source, target, o)
	bar.close()
	if err != nil {
		return err
	}
	if err := say(s, c, o.Dir, v, sayVerification); err != nil {
		return err
	}
	if !v.Same() {
		return &leftError{errors.New("the stores are not identical"), "see " + filepath.Join(o.Dir, migrate.ReportMarkdown) + "; run again, then verify; while Blobs answers, verify --repair --first blobs mends what is left"}
	}
	return nil
}

func statusCommand(s *stores) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "status", Short: "Say where the migration is; nothing is changed", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var target *migrate.Target
			if s.hasTarget() {
				t, err := s.target(c.Context())
				if err != nil {
					return err
				}
				target = &t
			}
			status, err := migrate.ReadStatus(c.Context(), dir, target)
			if err != nil {
				return err
			}
			return print(s, c, status, sayStatus)
		},
	}
	dirFlag(c, &dir)
	return c
}

func reportCommand(s *stores) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "report", Short: "Print the report of the last plan, run and verification", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			report, err := migrate.WriteReport(dir)
			if err != nil {
				return err
			}
			return print(s, c, report, func(out io.Writer, r migrate.Report) {
				page, err := r.Markdown()
				if err != nil {
					page = err.Error()
				}
				fmt.Fprint(out, page)
			})
		},
	}
	dirFlag(c, &dir)
	return c
}

func closeCommand(s *stores) *cobra.Command {
	return &cobra.Command{
		Use:   "close",
		Short: "End the migration: the database forgets what it kept for further runs",
		Long: `End the migration, when no further run is to come: the database forgets which rows were imported and which keys were
deleted meanwhile, and deletes leave no marks any more. Entries are not touched. A later run begins anew, and leaves alone
all that is there.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			target, err := s.target(c.Context())
			if err != nil {
				return err
			}
			status, err := target.Supabase.ImportStatus(c.Context())
			if err != nil {
				return err
			}
			if err := target.Supabase.ImportClose(c.Context()); err != nil {
				return err
			}
			return print(s, c, map[string]bool{"closed": status.Run != nil}, func(out io.Writer, _ map[string]bool) {
				if status.Run == nil {
					fmt.Fprintf(out, "No migration was open in %s.\n", target.Name)
					return
				}
				fmt.Fprintln(out, "The migration is closed.")
			})
		},
	}
}

// say prints a result and brings the report in the directory up to date.
func say[R any](s *stores, c *cobra.Command, dir string, result R, summary func(io.Writer, R)) error {
	if _, err := migrate.WriteReport(dir); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if err := print(s, c, result, summary); err != nil {
		return err
	}
	if !s.quiet && !s.asJSON {
		fmt.Fprintf(c.OutOrStdout(), "report        %s\n", filepath.Join(dir, migrate.ReportMarkdown))
	}
	return nil
}

// print writes a result: as JSON, in words, or not at all.
func print[R any](s *stores, c *cobra.Command, result R, words func(io.Writer, R)) error {
	switch {
	case s.asJSON:
		encoder := json.NewEncoder(c.OutOrStdout())
		encoder.SetIndent("", "  ")
		return encoder.Encode(result)
	case !s.quiet:
		words(c.OutOrStdout(), result)
	}
	return nil
}

func sayPlan(out io.Writer, r migrate.Result) {
	sayBlobs(out, r)
	fmt.Fprintf(out, "would migrate %s, skip %s, fail %s; %s gone meanwhile\n",
		count(r.Statuses["planned"]), count(r.Statuses["skipped"]), count(r.Failed), count(r.Statuses["absent"]))
	if r.Unanswerable > 0 {
		fmt.Fprintf(out, "too large     %s: more than the 6 MB of an answer, so that the functions cannot give them out; the largest are in the report\n", count(r.Unanswerable))
	}
	sayIndexes(out, r)
	sayRequests(out, r.Requests)
	fmt.Fprintf(out, "a run and a verification may take %s\n", lasted(r.EstimatedSeconds))
}

func sayRun(out io.Writer, r migrate.Result) {
	sayBlobs(out, r)
	fmt.Fprintf(out, "this run      read %s in %s, %s a second; wrote %s, removed %s\n",
		count(r.Read), lasted(r.Seconds), count(int(r.Rate())), count(r.Written), count(r.Removed))
	fmt.Fprintf(out, "in all        %s migrated, %s left to newer writes, %s deleted meanwhile, %s skipped, %s failed, %s gone, %s still to do\n",
		count(r.Statuses["written"]+r.Statuses["same"]), count(r.Statuses["live"]), count(r.Statuses["deleted"]), count(r.Statuses["skipped"]), count(r.Failed),
		count(r.Statuses["removed"]+r.Statuses["absent"]), count(r.Statuses["importing"]+r.Statuses["pending"]))
	sayIndexes(out, r)
	sayRequests(out, r.Requests)
	if r.Finished {
		fmt.Fprintf(out, "keep blobs    until %s at least\n", r.KeepBlobsUntil.Format(time.DateOnly))
	}
}

// sayRequests says nothing of a source that asks Netlify nothing.
func sayRequests(out io.Writer, n int) {
	if n == 0 {
		return
	}
	fmt.Fprintf(out, "asked         %s requests to Netlify's API\n", count(n))
}

func sayBlobs(out io.Writer, r migrate.Result) {
	fmt.Fprintf(out, "source        %s: %s blobs, %s\n", r.Source, count(r.Blobs), humanize.IBytes(uint64(r.Bytes)))
	if r.Target != "" {
		fmt.Fprintf(out, "target        %s\n", r.Target)
	}
}

func sayIndexes(out io.Writer, r migrate.Result) {
	fmt.Fprintf(out, "indexes       %s with %s members: %s name an entry, %s may name several, %s name none\n",
		count(r.IndexEntries), count(r.Members), count(r.Resolved), count(r.AmbiguousCount), count(r.UnresolvedCount))
	if r.MixedCount > 0 {
		fmt.Fprintln(out, "              some name entries of several kinds: look into the report whether that is meant")
	}
}

func sayVerification(out io.Writer, v migrate.Verification) {
	fmt.Fprintf(out, "compared      %s blobs with %s entries in %s\n", count(v.Blobs), count(v.Entries), lasted(v.Seconds))
	fmt.Fprintf(out, "identical     %s, with %s members of index entries\n", count(v.Identical), count(v.Members))
	fmt.Fprintf(out, "differences   %s missing, %s extra, %s different; %s not to be migrated, %s gone meanwhile\n",
		count(v.Missing), count(v.Extra), count(v.Different), count(len(v.Left)), count(v.Gone))
	sayRequests(out, v.Requests)
	if v.Stray != 0 {
		fmt.Fprintf(out, "postings      %s too many\n", count(v.Stray))
	}
	if v.Repaired > 0 {
		fmt.Fprintf(out, "repaired      %s\n", count(v.Repaired))
	}
	const shown = 10
	for i, d := range v.Found {
		if i == shown {
			fmt.Fprintf(out, "  and %s more\n", count(v.Missing+v.Extra+v.Different-shown))
			break
		}
		if d.What != "" {
			fmt.Fprintf(out, "  %s %q: %s\n", d.How, d.Key, d.What)
		} else {
			fmt.Fprintf(out, "  %s %q\n", d.How, d.Key)
		}
	}
}

func sayStatus(out io.Writer, s migrate.Status) {
	if d := s.Database; d != nil {
		fmt.Fprintf(out, "database      %s entries; %s as imported; %s keys deleted meanwhile; outbox %s\n", count(d.Entries), count(d.Imported), count(d.Deleted), count(d.Outbox))
		switch {
		case d.Run == nil:
			fmt.Fprintln(out, "migration     none is open")
		case d.AtWork:
			fmt.Fprintf(out, "migration     open since %s; a run is at work\n", d.OpenedAt.UTC().Format(time.RFC3339))
		default:
			fmt.Fprintf(out, "migration     open since %s\n", d.OpenedAt.UTC().Format(time.RFC3339))
		}
	}
	if j := s.Journal; j != nil {
		fmt.Fprintf(out, "journal       %s keys, from %s to %s\n", count(j.Keys), j.Source, j.Target)
		if s.Database != nil && s.Database.Run != nil && !j.Ours {
			fmt.Fprintln(out, "              the migration that is open was begun elsewhere")
		}
	} else {
		fmt.Fprintln(out, "journal       none in this directory")
	}
	if s.Results != nil && s.Results.Run != nil {
		fmt.Fprintf(out, "last run      %s: %s\n", s.Results.Run.At.Format(time.RFC3339), finished(s.Results.Run.Finished))
	}
	if s.Results != nil && s.Results.Verification != nil {
		same := "identical"
		if !s.Results.Verification.Same() {
			same = "differences"
		}
		fmt.Fprintf(out, "last verify   %s: %s\n", s.Results.Verification.At.Format(time.RFC3339), same)
	}
}

func finished(yes bool) string {
	if yes {
		return "finished"
	}
	return "stopped; run again"
}

func count(n int) string { return humanize.Comma(int64(n)) }

func lasted(seconds float64) string {
	return (time.Duration(seconds*1000) * time.Millisecond).Round(100 * time.Millisecond).String()
}
