package migration

import (
	"context"
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
	"netlify-supabase-kv/scripts/internal/cli"
)

func planCommand(s *stores) *cobra.Command {
	var o migrate.PlanOptions
	c := &cobra.Command{
		Use:   "plan",
		Short: "Read everything and say what a run would do; neither store is touched",
		Long: `Read every blob, make its entry, and say what a run would do. Neither store is touched.

It also finds which rules fit the members of the index entries, and writes these into ` + migrate.RulesFile + ` in --dir. With a
Supabase project it looks whether its database is ready.`,
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
		return &cli.Left{Err: fmt.Errorf("%d blobs would not be migrated", result.Failed), Try: "see " + filepath.Join(o.Dir, migrate.ReportMarkdown)}
	}
	return nil
}

func runCommand(s *stores) *cobra.Command {
	o := migrate.RunOptions{}
	var dryRun bool
	var rules string
	c := &cobra.Command{
		Use:   "run",
		Short: "Bring the entries into Supabase; again, what changed since",
		Long: `Bring the entries into Supabase: those that the database does not remember, or whose blobs or rules have changed since.

It can run while the site is used, with KV_MIRROR_WRITES=true, and be killed at any moment: the next run goes on, also from another
machine. What others wrote to Supabase is left alone, and what callers deleted stays deleted. The migration stays open for
further runs until "close".

Which entry a member of an index names is said by rules: those of --rules, or else of ` + migrate.RulesFile + ` in --dir, or else of the last
run.`,
		Args: cobra.NoArgs,
	}
	transformFlags(c, &o.Options)
	rulesFlag(c, &rules)
	s.sourceFlags(c.Flags())
	dirFlag(c, &o.Dir)
	c.Flags().IntVar(&o.BatchSize, "batch-size", migrate.DefaultBatchSize, fmt.Sprintf("entries of one transaction, 1 to %d", migrate.MaxBatchSize))
	c.Flags().BoolVar(&o.Anew, "anew", false, "begin another migration where one was closed")
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
	if err := o.Validate(); err != nil { // before the database is asked for rules
		return err
	}
	source, closeSource, target, err := s.both(c.Context())
	if err != nil {
		return err
	}
	defer closeSource()
	if err := takeRules(c.Context(), target, rules, o.Dir, &o.Rules, &o.RulesFrom, nil); err != nil {
		return err
	}
	bar := s.output.Progress(c.ErrOrStderr())
	o.Progress = bar
	result, err := migrate.Run(c.Context(), source, target, o)
	bar.Close()
	if err != nil && result.Source == "" { // it did not begin
		return advise(err)
	}
	if printErr := report(s, c, o.Dir, result, printRun); printErr != nil {
		return errors.Join(err, printErr)
	}
	if err != nil {
		return advise(err)
	}
	if result.Failed > 0 {
		return &cli.Left{Err: fmt.Errorf("%d blobs are not migrated", result.Failed), Try: "see " + filepath.Join(o.Dir, migrate.ReportMarkdown) + "; a further run tries them again"}
	}
	return nil
}

// takeRules finds the rules to use and, where options is not nil, the options of the migration that is open.
func takeRules(ctx context.Context, target migrate.Target, file, dir string, rules *migrate.Rules, from *string, options *migrate.Options) error {
	m, err := target.Supabase.Migration(ctx)
	if err != nil {
		return fmt.Errorf("ask %s: %w", target.Name, err)
	}
	if options != nil && m != nil && m.ClosedAt == nil {
		if err := json.Unmarshal(m.Options, options); err != nil {
			return fmt.Errorf("read the options of the migration: %w", err)
		}
	}
	*rules, *from, err = migrate.FindRules(file, dir, m)
	return err
}

func verifyCommand(s *stores) *cobra.Command {
	var o migrate.VerifyOptions
	var primary, rules string
	c := &cobra.Command{
		Use:   "verify",
		Short: "Compare both stores anew, by SHA-256",
		Long: `Read every blob and compare its SHA-256 with the one that the database makes of its entry; compare keys, indexes and the
members of index entries. It looks at nothing that a run remembers. What differs is looked at several times, since writes may
be on their way.

Without flags for it, entries are made of blobs as the runs of the migration made them, with the rules of the last one.`,
		Args: cobra.NoArgs,
	}
	transformFlags(c, &o.Options)
	rulesFlag(c, &rules)
	s.sourceFlags(c.Flags())
	dirFlag(c, &o.Dir)
	c.Flags().BoolVar(&o.Repair, "repair", false, "make Supabase what Blobs is where they differ; with --primary blobs")
	c.Flags().StringVar(&primary, "primary", "", "the store that answers now; --repair is for blobs alone")
	c.RunE = func(c *cobra.Command, _ []string) error {
		var variables config.Stores
		if err := config.Read(&variables, os.Getenv); err != nil {
			return err
		}
		if o.Repair && s.fromTable != "" {
			return errors.New("--repair is for Blobs: after a change of the table, kv migrate run brings it")
		}
		if o.Repair && (primary != "blobs" || variables.UseSupabase) {
			return errors.New("--repair makes Supabase what Blobs is, so it is only for while Blobs answers: say so with --primary blobs. While Supabase answers (USE_SUPABASE_KV=true) its entries are the newer ones, and this would undo them")
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
	options, from := &o.Options, ""
	for _, name := range []string{"index-prefix", "wrap-non-json", "skip-non-json"} {
		if c.Flags().Changed(name) {
			options = nil
		}
	}
	if err := takeRules(c.Context(), target, rules, "", &o.Rules, &from, options); err != nil {
		return err
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
		return &cli.Left{Err: errors.New("the stores are not identical"), Try: "see " + filepath.Join(o.Dir, migrate.ReportMarkdown) + "; run again, then verify; while Blobs answers, verify --repair --primary blobs mends what is left"}
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
		Long: `End the migration, when no further run is to come: the database forgets which rows were imported and which keys were
deleted meanwhile, and deletes leave no marks any more. Entries are not touched. A later run must say --anew, and leaves alone
all that is there.`,
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

// advise says what to do about an error.
func advise(err error) error {
	var held *kv.MigrationHeld
	var closed *kv.MigrationClosed
	var silent *silentError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &silent):
		return &cli.Advised{Err: err, Try: "look whether SUPABASE_URL (or --supabase-url) is the project's address, as in https://<project>.supabase.co; if it is, the same command again when it answers"}
	case errors.As(err, &held), errors.Is(err, kv.ErrImportAtWork):
		return &cli.Advised{Err: err, Try: "kv migrate status"}
	case errors.As(err, &closed):
		return &cli.Advised{Err: err, Try: "kv migrate run --anew, if that is what you want"}
	case kv.CodeOf(err) == kv.CodeDatabaseUnreachable:
		return &cli.Advised{Err: err, Try: "the same command again when the database answers; it goes on where it was"}
	}
	return &cli.Advised{Err: err, Try: "kv migrate --help, and docs/MIGRATION.md"}
}

// report prints a result and brings the report in the directory up to date.
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
		fmt.Fprintf(out, "too large     %s: more than the 6 MB of an answer, so that the functions cannot give them out; the largest are in the report\n", count(p.Unanswerable))
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
	fmt.Fprintf(out, "indexes       %s with %s members; %s rules fit all members of their index\n", count(entries), count(members), count(active))
	if p.RulesFile != "" {
		fmt.Fprintf(out, "rules         %s: look through it before the first run\n", p.RulesFile)
	}
	printRequests(out, p.Requests)
	fmt.Fprintf(out, "a run and a verification may take %s\n", duration(p.EstimatedSeconds))
}

func printRun(out io.Writer, r migrate.Result) {
	printContents(out, r.Source, r.Target, r.Contents)
	fmt.Fprintf(out, "this run      read %s in %s, %s a second; wrote %s, removed %s\n",
		count(r.Read), duration(r.Seconds), count(int(r.Rate())), count(r.Written), count(r.Removed))
	fmt.Fprintf(out, "in all        %s\n", states(r.States))
	fmt.Fprintf(out, "rules         %s, of %s\n", count(len(r.Rules)), r.RulesFrom)
	for _, rule := range r.Rules[:min(len(r.Rules), 10)] {
		fmt.Fprintf(out, "              %s\n", rule)
	}
	fmt.Fprintf(out, "indexes       %s with %s members: rules name %s entries, and %s that are not there\n",
		count(r.IndexCounts.Entries), count(r.Members), count(r.Named), count(r.Unnamed))
	if r.Unruled > 0 {
		fmt.Fprintf(out, "              %s with %s members have no rule: no entry gets these; see the report\n", count(r.WithoutRule), count(r.Unruled))
	}
	printRequests(out, r.Requests)
	if r.Finished {
		fmt.Fprintf(out, "keep blobs    until %s at least\n", r.KeepBlobsUntil.Format(time.DateOnly))
	}
}

// states says what became of the source's entries.
func states(n map[kv.ImportState]int) string {
	return fmt.Sprintf("%s migrated, %s left to newer writes, %s deleted meanwhile, %s skipped, %s failed, %s gone, %s still to do",
		count(n[kv.ImportImported]), count(n[kv.ImportForeign]), count(n[kv.ImportDeleted]), count(n[kv.ImportSkipped]), count(n[kv.ImportFailed]),
		count(n[kv.ImportRemoved]+n[kv.ImportAbsent]), count(n["pending"]+n[kv.ImportLost]))
}

// printRequests prints nothing of a source that asks Netlify nothing.
func printRequests(out io.Writer, n int) {
	if n > 0 {
		fmt.Fprintf(out, "asked         %s requests to Netlify's API\n", count(n))
	}
}

func printContents(out io.Writer, source, target string, c migrate.Contents) {
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
		var run migrate.Result
		if d.Migration != nil && json.Unmarshal(d.Migration.Run, &run) == nil {
			fmt.Fprintf(out, "last run      %s: %s\n", run.At.Format(time.RFC3339), map[bool]string{true: "finished", false: "stopped; run again"}[run.Finished])
		}
		var v migrate.Verification
		if json.Unmarshal(d.Verification, &v) == nil {
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
