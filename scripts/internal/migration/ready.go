package migration

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"netlify-supabase-kv/pkg/config"
	"netlify-supabase-kv/pkg/migrate"
	"netlify-supabase-kv/scripts/internal/cli"
)

func readyCommand(s *stores) *cobra.Command {
	bar := migrate.Bar{Require: migrate.DefaultRequired, For: migrate.DefaultFor}
	c := &cobra.Command{
		Use:   "ready",
		Short: "Report whether it is safe to switch to Supabase, or back, with the evidence",
		Long: `Report whether it is safe to switch to Supabase. The evidence is the last verification, the compared reads (KV_COMPARE_READS)
hour by hour, and the writes that wait in the outbox. After the switch it reports whether going back is still safe.

The primary is the one of the last compared reads, or the one that USE_SUPABASE_KV selects, if that is set here.

Exit status: 0, it is safe; 1, it is not, and the output shows what is missing; 2, it could not be determined.`,
		Args: cobra.NoArgs,
	}
	c.Flags().IntVar(&bar.Require, "require", bar.Require, "how many reads must have been compared")
	c.Flags().DurationVar(&bar.For, "for", bar.For, "how long reads must have been compared without a difference")
	c.RunE = func(c *cobra.Command, _ []string) error {
		var variables config.Stores
		if err := config.Read(&variables, os.Getenv); err != nil {
			return err
		}
		if os.Getenv("USE_SUPABASE_KV") != "" {
			bar.Primary = map[bool]string{true: "supabase", false: "blobs"}[variables.UseSupabase]
		}
		target, err := s.target(c.Context())
		if err != nil {
			return err
		}
		r, err := migrate.Ready(c.Context(), target, bar)
		if err != nil {
			return advise(err)
		}
		if err := cli.Print(c.OutOrStdout(), s.output, r, printReadiness); err != nil {
			return err
		}
		if !r.Ready {
			return &cli.Incomplete{Err: errors.New(r.Verdict()), Try: "fix every line that begins with \"no\", and run the command again; docs/MIGRATION.md, 7. Switch"}
		}
		return nil
	}
	return c
}

func printReadiness(out io.Writer, r migrate.Readiness) {
	for _, check := range r.Checks {
		fmt.Fprintf(out, "%-5s %-13s %s\n", map[bool]string{true: "yes", false: "no"}[check.OK], check.Name, check.Found)
	}
	const shown = 24
	hours := r.Evidence.Hours[max(0, len(r.Evidence.Hours)-shown):]
	if len(hours) > 0 {
		fmt.Fprintln(out, "\nhour              primary   matched  differed  unanswered")
	}
	for _, h := range hours {
		fmt.Fprintf(out, "%-17s %-9s %7d %9d %11d\n", h.Hour.UTC().Format("2006-01-02 15:04"), h.Primary, h.Matched, h.Differed, h.Unanswered)
	}
	fmt.Fprintf(out, "\n%s (%s)\n", r.Verdict(), r.Evidence.Now.UTC().Format(time.RFC3339))
}
