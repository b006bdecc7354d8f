package migration

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"netlify-supabase-kv/pkg/migrate/backup"
	"netlify-supabase-kv/pkg/migrate/entries"
	"netlify-supabase-kv/scripts/internal/cli"
)

func backupCommand(s *stores) *cobra.Command {
	var out, from, check string
	var o backup.Options
	c := &cobra.Command{
		Use:   "backup",
		Short: "Write every entry of a store to one file",
		Long: `Write every entry of a store to one compressed file of JSON lines, each with the SHA-256 of its value, and a manifest at the
end. The file gets its name when it is complete; until then it is <file>.partial. The next backup overwrites the
<file>.partial of one that was killed.

A backup can run while the site is in use: each entry has the value that it had when it was read. --check reads a file
and reports whether it is complete.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if check != "" {
				return s.checkBackup(c, check)
			}
			return s.backup(c, from, cmp.Or(out, s.store+"-backup-"+time.Now().Format(time.DateOnly)+".ndjson.gz"), o)
		},
	}
	c.Flags().StringVarP(&out, "out", "o", "", "the file to write (default <store>-backup-<date>.ndjson.gz)")
	c.Flags().StringVar(&from, "from", "blobs", "the store: blobs or supabase")
	c.Flags().BoolVar(&o.Force, "force", false, "overwrite an existing file")
	c.Flags().StringVar(&check, "check", "", "check whether this backup is complete, and write none")
	return c
}

func (s *stores) backup(c *cobra.Command, from, out string, o backup.Options) (err error) {
	bar := s.output.Progress(c.ErrOrStderr())
	o.Progress = bar
	var result backup.Result
	switch from {
	case "blobs":
		source, sourceErr := s.blobsSource(c.Context())
		if sourceErr != nil {
			return sourceErr
		}
		result, err = backup.Blobs(c.Context(), source, out, o)
	case "supabase":
		target, targetErr := s.target(c.Context())
		if targetErr != nil {
			return targetErr
		}
		result, err = backup.Supabase(c.Context(), target, out, o)
	default:
		return fmt.Errorf("--from must be blobs or supabase, got %q", from)
	}
	bar.Close()
	if err != nil && !errors.Is(err, backup.ErrRemaining) {
		return advise(err)
	}
	if printErr := cli.Print(c.OutOrStdout(), s.output, result, printBackup); printErr != nil {
		return printErr
	}
	if err != nil {
		return &cli.Incomplete{Err: err, Try: "the same command again with another --out; the file has all other entries"}
	}
	return nil
}

func (s *stores) checkBackup(c *cobra.Command, file string) error {
	result, err := backup.Check(c.Context(), file)
	if err != nil {
		return err
	}
	return cli.Print(c.OutOrStdout(), s.output, result, printBackup)
}

func printBackup(out io.Writer, r backup.Result) {
	fmt.Fprintf(out, "backup        %s: %s\n", r.File, humanize.IBytes(uint64(r.Size)))
	fmt.Fprintf(out, "of            %s, %s\n", r.Source, r.At.UTC().Format(time.RFC3339))
	fmt.Fprintf(out, "entries       %s with %s, in %s\n", count(r.Entries), humanize.IBytes(uint64(r.Bytes)), duration(r.Seconds))
	fmt.Fprintf(out, "left out      %s that could not be read, %s gone meanwhile\n", count(len(r.Unreadable)), count(r.Gone))
	fmt.Fprintf(out, "sha256        %s\n", r.SHA256)
	for _, problem := range r.Unreadable {
		fmt.Fprintf(out, "  unreadable %q: %s\n", problem.Key, problem.Reason)
	}
}

func restoreCommand(s *stores) *cobra.Command {
	var to, rules string
	var o backup.RestoreOptions
	c := &cobra.Command{
		Use:   "restore <file>",
		Short: "Write the entries of a backup to a store",
		Long: `Write the entries of a backup to a store, whichever store the backup is of. Nothing is written unless the whole file is valid.

The command writes missing entries. It lists entries that differ, and overwrites them only with --overwrite. It deletes
nothing, and keeps what others write meanwhile. It can be interrupted and run again.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return s.restore(c, args[0], to, rules, o) },
	}
	c.Flags().StringVar(&to, "to", "", "the store: blobs or supabase (required)")
	c.Flags().BoolVar(&o.Overwrite, "overwrite", false, "also overwrite entries that differ")
	c.Flags().BoolVar(&o.DryRun, "dry-run", false, "show what would be done, and write nothing")
	transformFlags(c, &o.Options)
	rulesFlag(c, &rules)
	return c
}

func (s *stores) restore(c *cobra.Command, file, to, rules string, o backup.RestoreOptions) (err error) {
	if rules != "" {
		if o.Rules, err = entries.ReadRules(rules); err != nil {
			return err
		}
	}
	bar := s.output.Progress(c.ErrOrStderr())
	o.Progress = bar
	var result backup.RestoreResult
	switch to {
	case "blobs":
		target, targetErr := s.blobsSource(c.Context())
		if targetErr != nil {
			return targetErr
		}
		result, err = backup.RestoreBlobs(c.Context(), file, target, o)
	case "supabase":
		target, targetErr := s.target(c.Context())
		if targetErr != nil {
			return targetErr
		}
		result, err = backup.RestoreSupabase(c.Context(), file, target, o)
	default:
		return fmt.Errorf("--to must be blobs or supabase, got %q", to)
	}
	bar.Close()
	if err != nil && !errors.Is(err, backup.ErrRemaining) {
		return advise(err)
	}
	if printErr := cli.Print(c.OutOrStdout(), s.output, result, printRestore); printErr != nil {
		return printErr
	}
	if err != nil {
		return &cli.Incomplete{Err: err, Try: "--overwrite for those that differ, if the backup is right"}
	}
	return nil
}

func printRestore(out io.Writer, r backup.RestoreResult) {
	verb := "restored"
	if r.DryRun {
		verb = "to restore"
	}
	fmt.Fprintf(out, "%-13s %s into %s; %s were there already, %s skipped\n", verb, count(r.Written), r.Target, count(r.Same), count(r.Skipped))
	fmt.Fprintf(out, "left          %s that differ, %s that cannot be restored\n", count(r.Different), count(r.Failed))
	const shown = 10
	for _, key := range r.Differing[:min(shown, len(r.Differing))] {
		fmt.Fprintf(out, "  differs %q\n", key)
	}
	for _, problem := range r.Failures[:min(shown, len(r.Failures))] {
		fmt.Fprintf(out, "  cannot restore %q: %s\n", problem.Key, problem.Reason)
	}
}
