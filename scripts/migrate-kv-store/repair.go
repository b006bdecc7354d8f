package main

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"netlify-supabase-kv/pkg/mirror"
)

func repairCommand(s *stores) *cobra.Command {
	var first string
	c := &cobra.Command{
		Use:   "repair",
		Short: "Copy what mirrored writes could not",
		Long: `Copy what mirrored writes could not, and remove the traces that they left in kv.outbox.

Each key that has a trace is made in the other store what it is in the first. It can run while the site is used, and again.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return s.repair(c, mirror.Primary(first)) },
	}
	c.Flags().StringVar(&first, "first", "", "the store that answers now: blobs or supabase (required)")
	return c
}

func (s *stores) repair(c *cobra.Command, first mirror.Primary) error {
	if first != mirror.PrimaryBlobs && first != mirror.PrimarySupabase {
		return fmt.Errorf("--first must be blobs or supabase, got %q", first)
	}
	source, err := s.blobsSource()
	if err != nil {
		return err
	}
	target, err := s.target(c.Context())
	if err != nil {
		return err
	}
	pair := &mirror.Pair{Supabase: target.Supabase, Blobs: source.Store, Log: slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))}
	result, err := pair.Repair(c.Context(), first)
	if err != nil && result.Found == 0 {
		return err
	}
	if printErr := print(s, c, result, func(out io.Writer, r mirror.Repairs) {
		fmt.Fprintf(out, "%d found, %d repaired, %d left\n", r.Found, r.Repaired, r.OtherPrimary+r.Failed)
	}); printErr != nil {
		return printErr
	}
	if err != nil {
		return &leftError{fmt.Errorf("%d of the %d traces found are left: %w", result.OtherPrimary+result.Failed, result.Found, err), "the same command again; what is repaired stays repaired"}
	}
	return nil
}
