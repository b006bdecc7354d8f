package migration

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
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate"
	"netlify-supabase-kv/pkg/migrate/entries"
	"netlify-supabase-kv/pkg/migrate/sources"
	"netlify-supabase-kv/scripts/internal/cli"
)

func planCommand(s *stores) *cobra.Command {
	var o migrate.PlanOptions
	c := &cobra.Command{
		Use:   "plan",
		Short: "Read everything and show what a run would do; neither store is changed",
		Long: `Read every blob, make its entry, and show what a run would do. Neither store is changed.

It also finds rules that fit the members of the index entries, and writes them to ` + entries.RulesFile + ` in --dir. With a
Supabase project it also checks whether the database is ready.`,
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
	target, err := s.targetIfNamed(c.Context())
	if err != nil {
		return err
	}
	bar := s.output.Progress(c.ErrOrStderr())
	o.Progress = bar
	result, err := migrate.Plan(c.Context(), source, target, o)
	bar.Close()
	if err != nil {
		return advise(err)
	}
	if err := report(s, c, o.Dir, result, printPlan); err != nil {
		return err
	}
	if result.Failed > 0 {
		return &cli.Incomplete{Err: fmt.Errorf("%d blobs would not be migrated", result.Failed), Try: "see " + filepath.Join(o.Dir, migrate.ReportMarkdown)}
	}
	return nil
}

func runCommand(s *stores) *cobra.Command {
	o := migrate.RunOptions{}
	var dryRun bool
	var rules string
	c := &cobra.Command{
		Use:   "run",
		Short: "Migrate the entries to Supabase; a further run migrates what changed",
		Long: `Migrate the entries to Supabase: those that no earlier run migrated, and those whose blobs or rules have changed since.

A run can take place while the site is in use, with KV_MIRROR_WRITES=true, and can be killed at any moment: the next run
continues, also from another machine. It does not touch what others wrote to Supabase, and what callers deleted stays
deleted. The migration stays open for further runs until "close".

Rules determine which entry a member of an index names: those of --rules, or else of ` + entries.RulesFile + ` in --dir, or
else of the last run.`,
		Args: cobra.NoArgs,
	}
	transformFlags(c, &o.Options)
	rulesFlag(c, &rules)
	s.sourceFlags(c.Flags())
	dirFlag(c, &o.Dir)
	c.Flags().IntVar(&o.BatchSize, "batch-size", migrate.DefaultBatchSize, fmt.Sprintf("entries of one transaction, 1 to %d", migrate.MaxBatchSize))
	c.Flags().BoolVar(&o.Anew, "anew", false, "begin another migration after one was closed")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "the same as plan")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if dryRun {
			return s.plan(c, migrate.PlanOptions{Options: o.Options, Dir: o.Dir})
		}
		return s.run(c, o, rules)
	}
	return c
}

func (s *stores) run(c *cobra.Command, o migrate.RunOptions, rules string) error {
	if _, err := o.For(s.store); err != nil { // before the rules are read from the database
		return err
	}
	source, closeSource, target, err := s.both(c.Context())
	if err != nil {
		return err
	}
	defer closeSource()
	if s.store == kv.DefaultStore {
		m, err := target.Supabase.Migration(c.Context())
		if err != nil {
			return fmt.Errorf("ask %s: %w", target.Name, err)
		}
		if o.Rules, o.RulesFrom, err = entries.FindRules(rules, o.Dir, m); err != nil {
			return err
		}
	}
	bar := s.output.Progress(c.ErrOrStderr())
	o.Progress = bar
	result, err := migrate.Run(c.Context(), source, target, o)
	bar.Close()
	if err != nil && result.Source == "" { // the run did not begin
		return advise(err)
	}
	if printErr := report(s, c, o.Dir, result, printRun); printErr != nil {
		return errors.Join(err, printErr)
	}
	if err != nil {
		return advise(err)
	}
	if result.Failed > 0 {
		return &cli.Incomplete{Err: fmt.Errorf("%d blobs are not migrated", result.Failed), Try: "see " + filepath.Join(o.Dir, migrate.ReportMarkdown) + "; a further run retries them"}
	}
	return nil
}

func verifyCommand(s *stores) *cobra.Command {
	var o migrate.VerifyOptions
	var primary, rules string
	c := &cobra.Command{
		Use:   "verify",
		Short: "Compare both stores by SHA-256",
		Long: `Read every blob and compare its SHA-256 with the one that the database computes of the entry; compare keys, indexes and the
members of index entries. It uses nothing that a run recorded. It compares differences several times, since writes may
be in progress.

Unless flags say otherwise, blobs become entries as in the migration's runs, with the rules of the last run.`,
		Args: cobra.NoArgs,
	}
	transformFlags(c, &o.Options)
	rulesFlag(c, &rules)
	s.sourceFlags(c.Flags())
	dirFlag(c, &o.Dir)
	c.Flags().BoolVar(&o.Repair, "repair", false, "copy differences from Blobs to Supabase; needs --primary blobs")
	c.Flags().StringVar(&primary, "primary", "", "the store that answers now; --repair needs blobs")
	c.RunE = func(c *cobra.Command, _ []string) error {
		var variables config.Stores
		if err := config.Read(&variables, os.Getenv); err != nil {
			return err
		}
		if o.Repair && s.fromTable != "" {
			return errors.New("--repair is for Blobs: after a change of the table, use kv migrate run")
		}
		if o.Repair && (primary != "blobs" || variables.UseSupabase) {
			return errors.New("--repair copies from Blobs to Supabase, so it is only for while Blobs answers: say so with --primary blobs. While Supabase answers (USE_SUPABASE_KV=true) its entries are newer, and a repair would undo them")
		}
		return s.verify(c, o, rules)
	}
	return c
}

func (s *stores) verify(c *cobra.Command, o migrate.VerifyOptions, rules string) error {
	source, closeSource, target, err := s.both(c.Context())
	if err != nil {
		return err
	}
	defer closeSource()
	if s.store == kv.DefaultStore {
		m, err := target.Supabase.Migration(c.Context())
		if err != nil {
			return fmt.Errorf("ask %s: %w", target.Name, err)
		}
		asInRuns := !c.Flags().Changed("index-prefix") && !c.Flags().Changed("skip-non-json")
		if asInRuns && m != nil && m.ClosedAt == nil {
			if err := json.Unmarshal(m.Options, &o.Options); err != nil {
				return fmt.Errorf("read the options of the migration: %w", err)
			}
		}
		if o.Rules, _, err = entries.FindRules(rules, "", m); err != nil {
			return err
		}
	}
	bar := s.output.Progress(c.ErrOrStderr())
	o.Progress = bar
	v, err := migrate.Verify(c.Context(), source, target, o)
	bar.Close()
	if err != nil {
		return advise(err)
	}
	if err := report(s, c, o.Dir, v, printVerification); err != nil {
		return err
	}
	if !v.Same() {
		try := "see " + filepath.Join(o.Dir, migrate.ReportMarkdown) + "; run again, then verify"
		if s.store == kv.DefaultStore {
			try += "; while Blobs answers, verify --repair --primary blobs repairs the rest"
		}
		return &cli.Incomplete{Err: errors.New("the stores are not identical"), Try: try}
	}
	return nil
}

func statusCommand(s *stores) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "status", Short: "Show the state of the migration; nothing is changed", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			target, err := s.targetIfNamed(c.Context())
			if err != nil {
				return err
			}
			status, err := migrate.ReadStatus(c.Context(), dir, target)
			if err != nil {
				return err
			}
			return cli.Print(c.OutOrStdout(), s.output, status, printStatus)
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
			found, err := migrate.WriteReport(dir)
			if err != nil {
				return err
			}
			page, err := found.Markdown()
			if err != nil {
				return err
			}
			return cli.Print(c.OutOrStdout(), s.output, found, func(out io.Writer, _ migrate.Report) { fmt.Fprint(out, page) })
		},
	}
	dirFlag(c, &dir)
	return c
}

func closeCommand(s *stores) *cobra.Command {
	return &cobra.Command{
		Use:   "close",
		Short: "End the migration: the database forgets what it kept for further runs",
		Long: `End the migration after the last run. The database forgets which rows were imported and which keys were deleted meanwhile,
and no longer marks deletes. Entries are not changed. A later run needs --anew, and does not touch existing entries.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			target, err := s.target(c.Context())
			if err != nil {
				return err
			}
			wasOpen, err := target.Supabase.MigrationClose(c.Context())
			if err != nil {
				return advise(err)
			}
			return cli.Print(c.OutOrStdout(), s.output, map[string]bool{"closed": wasOpen}, func(out io.Writer, _ map[string]bool) {
				if !wasOpen {
					fmt.Fprintf(out, "No migration was open in %s.\n", target.Name)
					return
				}
				fmt.Fprintln(out, "The migration is closed.")
			})
		},
	}
}

// advise adds what to do to an error.
func advise(err error) error {
	var held *kv.MigrationHeld
	var closed *kv.MigrationClosed
	var unreachable *unreachableError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &unreachable):
		return &cli.Advised{Err: err, Try: "check that SUPABASE_URL (or --supabase-url) is the project's address, as in https://<project>.supabase.co; if it is, run the same command again when the project answers"}
	case errors.As(err, &held), errors.Is(err, kv.ErrImportAtWork):
		return &cli.Advised{Err: err, Try: "kv migrate status"}
	case errors.As(err, &closed):
		return &cli.Advised{Err: err, Try: "kv migrate run --anew, if that is what you want"}
	case kv.CodeOf(err) == kv.CodeDatabaseUnreachable:
		return &cli.Advised{Err: err, Try: "the same command again when the database answers; it continues where it stopped"}
	}
	return &cli.Advised{Err: err, Try: "kv migrate --help, and docs/MIGRATION.md"}
}

// report prints a result and updates the report in the directory.
func report[R any](s *stores, c *cobra.Command, dir string, result R, words func(io.Writer, R)) error {
	if _, err := migrate.WriteReport(dir); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return cli.Print(c.OutOrStdout(), s.output, result, func(out io.Writer, result R) {
		words(out, result)
		fmt.Fprintf(out, "report        %s\n", filepath.Join(dir, migrate.ReportMarkdown))
	})
}

func printPlan(out io.Writer, p migrate.Planned) {
	printContents(out, p.Source, p.Target, p.Contents)
	fmt.Fprintf(out, "would migrate %s, skip %s, fail %s; %s gone meanwhile\n", count(p.Migratable), count(p.Skipped), count(p.Failed), count(p.Absent))
	if p.Unanswerable > 0 {
		fmt.Fprintf(out, "too large     %s: over the 6 MB of a response, so the functions cannot return them; the largest are in the report\n", count(p.Unanswerable))
	}
	entries, members, active := 0, 0, 0
	for _, index := range p.Indexes {
		entries, members = entries+index.Indexes, members+index.Members
		for _, rule := range index.Rules {
			if rule.Active {
				active++
			}
		}
	}
	if p.RulesFile != "" { // else the store has no indexes
		fmt.Fprintf(out, "indexes       %s with %s members; %s rules fit all members of their index\n", count(entries), count(members), count(active))
		fmt.Fprintf(out, "rules         %s: review it before the first run\n", p.RulesFile)
	}
	printRequests(out, p.Requests)
	fmt.Fprintf(out, "a run and a verification may take %s\n", duration(p.EstimatedSeconds))
}

func printRun(out io.Writer, r migrate.Result) {
	printContents(out, r.Source, r.Target, r.Contents)
	fmt.Fprintf(out, "this run      read %s in %s, %s a second; wrote %s, removed %s\n",
		count(r.Read), duration(r.Seconds), count(int(r.Rate())), count(r.Written), count(r.Removed))
	fmt.Fprintf(out, "in all        %s\n", states(r.States))
	if r.RulesFrom != "" { // else the store has no indexes
		printIndexes(out, r)
	}
	printRequests(out, r.Requests)
	if r.Finished {
		fmt.Fprintf(out, "keep blobs    until %s at least\n", r.KeepBlobsUntil.Format(time.DateOnly))
	}
}

func printIndexes(out io.Writer, r migrate.Result) {
	fmt.Fprintf(out, "rules         %s, of %s\n", count(len(r.Rules)), r.RulesFrom)
	for _, rule := range r.Rules[:min(len(r.Rules), 10)] {
		fmt.Fprintf(out, "              %s\n", rule)
	}
	fmt.Fprintf(out, "indexes       %s with %s members: rules name %s entries, and %s that are not there\n",
		count(r.IndexCounts.Entries), count(r.Members), count(r.Named), count(r.Unnamed))
	if r.Unruled > 0 {
		fmt.Fprintf(out, "              %s with %s members have no rule: no entry gets these; see the report\n", count(r.WithoutRule), count(r.Unruled))
	}
}

// states describes the outcome for the source's entries.
func states(n map[kv.ImportState]int) string {
	return fmt.Sprintf("%s migrated, %s left to newer writes, %s deleted meanwhile, %s skipped, %s failed, %s gone, %s still to do",
		count(n[kv.ImportImported]), count(n[kv.ImportForeign]), count(n[kv.ImportDeleted]), count(n[kv.ImportSkipped]), count(n[kv.ImportFailed]),
		count(n[kv.ImportRemoved]+n[kv.ImportAbsent]), count(n["pending"]+n[kv.ImportLost]))
}

// printRequests prints nothing for a source that makes no requests to Netlify.
func printRequests(out io.Writer, n int) {
	if n > 0 {
		fmt.Fprintf(out, "asked         %s requests to Netlify's API\n", count(n))
	}
}

func printContents(out io.Writer, source, target string, c sources.Contents) {
	fmt.Fprintf(out, "source        %s: %s blobs, %s\n", source, count(c.Blobs), humanize.IBytes(uint64(c.Bytes)))
	if target != "" {
		fmt.Fprintf(out, "target        %s\n", target)
	}
}

func printVerification(out io.Writer, v migrate.Verification) {
	fmt.Fprintf(out, "compared      %s blobs with %s entries in %s\n", count(v.Blobs), count(v.Entries), duration(v.Seconds))
	fmt.Fprintf(out, "identical     %s, with %s members of index entries\n", count(v.Identical), count(v.Members))
	fmt.Fprintf(out, "differences   %s missing, %s extra, %s different; %s not to be migrated, %s skipped, %s gone meanwhile\n",
		count(v.Missing), count(v.Extra), count(v.Different), count(v.Unmigratable), count(v.Skipped), count(v.Gone))
	if v.Repaired > 0 {
		fmt.Fprintf(out, "repaired      %s\n", count(v.Repaired))
	}
	if v.Stray > 0 {
		fmt.Fprintf(out, "postings      %s too many: docs/MIGRATION.md, What can go wrong\n", count(v.Stray))
	}
	printRequests(out, v.Requests)
	const shown = 10
	for _, d := range v.Found[:min(shown, len(v.Found))] {
		fmt.Fprintf(out, "  %s %q", d.How, d.Key)
		if d.What != "" {
			fmt.Fprintf(out, ": %s", d.What)
		}
		fmt.Fprintln(out)
	}
}

func printStatus(out io.Writer, s migrate.Status) {
	if d := s.Database; d != nil {
		fmt.Fprintf(out, "database      %s entries; %s writes wait in the outbox\n", count(d.Entries), count(d.Outbox))
		switch m := d.Migration; {
		case m == nil:
			fmt.Fprintln(out, "migration     there was none")
		case m.ClosedAt != nil:
			fmt.Fprintf(out, "migration     none is open; one was closed at %s\n", m.ClosedAt.UTC().Format(time.RFC3339))
		default:
			fmt.Fprintf(out, "migration     open since %s, from %s\n", m.OpenedAt.UTC().Format(time.RFC3339), m.Source)
			if m.AtWork {
				fmt.Fprintf(out, "              a run is at work: %s\n", m.Holder)
			}
			if m.Listed != nil {
				fmt.Fprintf(out, "              the source has %s entries\n", count(*m.Listed))
			}
			fmt.Fprintf(out, "in all        %s; callers deleted %s\n", states(d.States), count(d.Deleted))
		}
		var run *migrate.Result
		if d.Migration != nil {
			_ = json.Unmarshal(d.Migration.Run, &run)
		}
		if run != nil {
			fmt.Fprintf(out, "last run      %s: %s\n", run.At.Format(time.RFC3339), map[bool]string{true: "finished", false: "stopped; run again"}[run.Finished])
		}
		var v *migrate.Verification
		if _ = json.Unmarshal(d.Verification, &v); v != nil {
			fmt.Fprintf(out, "last verify   %s: %s\n", v.At.Format(time.RFC3339), map[bool]string{true: "identical", false: "differences"}[v.Identity])
		}
	}
	if s.Results == nil {
		fmt.Fprintln(out, "reports       none in this directory")
	}
}

func count(n int) string { return humanize.Comma(int64(n)) }

func duration(seconds float64) string {
	return (time.Duration(seconds*1000) * time.Millisecond).Round(100 * time.Millisecond).String()
}
