// Command migrate-kv-store brings Netlify Blobs and Supabase together. In this version it repairs what mirrored writes left
// unconfirmed.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"netlify-supabase-kv/pkg/mirror"
	"netlify-supabase-kv/pkg/netlify"
)

// The exit statuses: 1 when it ran and something is left, 2 when it could not run.
const (
	exitLeft   = 1
	exitFailed = 2
)

// leftError is what a run could not bring to an end.
type leftError struct{ error }

func (e *leftError) Unwrap() error { return e.error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := command().ExecuteContext(ctx)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "Error:", err)
	var left *leftError
	if errors.As(err, &left) {
		fmt.Fprintln(os.Stderr, "Try:   the same command again; what is repaired stays repaired")
		os.Exit(exitLeft)
	}
	fmt.Fprintln(os.Stderr, "Try:   migrate-kv-store --help, and docs/ROLLBACK.md")
	os.Exit(exitFailed)
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "migrate-kv-store",
		Short: "Bring Netlify Blobs and Supabase together",
		Long: `Bring Netlify Blobs and Supabase together.

The stores are those of the environment: SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY; NETLIFY_SITE_ID and
NETLIFY_BLOBS_TOKEN, a personal access token. NETLIFY_BLOBS_API_URL is for a local Blobs server.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(repairCommand())
	return root
}

func repairCommand() *cobra.Command {
	var first string
	var asJSON bool
	c := &cobra.Command{
		Use:   "repair",
		Short: "Copy what mirrored writes could not",
		Long: `Copy what mirrored writes could not, and remove the traces that they left in kv_outbox.

Each key that has a trace is made in the other store what it is in the first. It can run while the site is used, and again.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return repair(c.Context(), mirror.First(first), asJSON, c.OutOrStdout())
		},
	}
	c.Flags().StringVar(&first, "first", "", "the store that answers now: blobs or supabase (required)")
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}

func repair(ctx context.Context, first mirror.First, asJSON bool, out io.Writer) error {
	if first != mirror.FirstBlobs && first != mirror.FirstSupabase {
		return fmt.Errorf("--first must be blobs or supabase, got %q", first)
	}
	pair, err := netlify.PairFromEnv(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	found, repaired, err := pair.Repair(ctx, first)
	if asJSON {
		_ = json.NewEncoder(out).Encode(map[string]int{"found": found, "repaired": repaired, "left": found - repaired})
	} else {
		fmt.Fprintf(out, "%d found, %d repaired, %d left\n", found, repaired, found-repaired)
	}
	switch {
	case err != nil && found == 0:
		return err
	case err != nil:
		return &leftError{fmt.Errorf("%d of %d traces are left: %w", found-repaired, found, err)}
	}
	return nil
}
