package migration

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/mirror"
	"netlify-supabase-kv/scripts/internal/cli"
)

func repairCommand(s *stores) *cobra.Command {
	var primary string
	c := &cobra.Command{
		Use:   "repair",
		Short: "Copy the entries that mirrored writes could not",
		Long: `Copy the entries that mirrored writes could not, and remove their outbox entries.

For each key with an outbox entry, the other store gets what the primary has. The command can run while the site is in
use, and again.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return s.repair(c, mirror.Primary(primary)) },
	}
	c.Flags().StringVar(&primary, "primary", "", "the store that answers now: blobs or supabase (required)")
	return c
}

func (s *stores) repair(c *cobra.Command, primary mirror.Primary) error {
	if s.store != kv.DefaultStore {
		return fmt.Errorf("repair is for the store kv alone: writes to the store %s are not mirrored, so nothing of it waits", s.store)
	}
	if primary != mirror.PrimaryBlobs && primary != mirror.PrimarySupabase {
		return fmt.Errorf("--primary must be blobs or supabase, got %q", primary)
	}
	source, err := s.blobsSource(c.Context())
	if err != nil {
		return err
	}
	target, err := s.target(c.Context())
	if err != nil {
		return err
	}
	pair := &mirror.Pair{Supabase: target.Supabase, Blobs: source.Store, Log: slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))}
	result, err := pair.Repair(c.Context(), primary)
	if err != nil && result.Found == 0 {
		return err
	}
	if printErr := cli.Print(c.OutOrStdout(), s.output, result, func(out io.Writer, r mirror.Repairs) {
		fmt.Fprintf(out, "%d found, %d repaired, %d remaining\n", r.Found, r.Repaired, r.OtherPrimary+r.Failed)
	}); printErr != nil {
		return printErr
	}
	if err != nil {
		return &cli.Incomplete{Err: fmt.Errorf("%d of the %d outbox entries found are left: %w", result.OtherPrimary+result.Failed, result.Found, err), Try: "the same command again; repaired entries stay repaired"}
	}
	return nil
}
