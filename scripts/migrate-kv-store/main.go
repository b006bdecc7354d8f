// Command migrate-kv-store brings the entries of Netlify Blobs into Supabase: it backs up, plans, migrates, verifies and reports;
// and it repairs what mirrored writes left unconfirmed.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate"
)

// The exit statuses: 1 when it ran and something is left, 2 when it could not run or could not end.
const (
	exitLeft   = 1
	exitFailed = 2
)

// leftError is what a command that ran to its end could not bring in order.
type leftError struct {
	error
	try string
}

func (e *leftError) Unwrap() error { return e.error }

// gcPercent keeps the memory of a migration of 100,000 entries well under 200 MB (the standard of 100 takes a third more).
const gcPercent = 50

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	interrupted := ctx.Err() != nil
	stop()
	os.Exit(exitStatus(err, interrupted, os.Stderr))
}

// exitStatus says what went wrong and what to do.
func exitStatus(err error, interrupted bool, stderr io.Writer) int {
	var left *leftError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &left):
		fmt.Fprintln(stderr, "Left: ", err)
		fmt.Fprintln(stderr, "Try:  ", left.try)
		return exitLeft
	case interrupted:
		fmt.Fprintln(stderr, "Interrupted. The same command goes on where it was.")
		return exitFailed
	}
	fmt.Fprintln(stderr, "Error:", err)
	fmt.Fprintln(stderr, "Try:  ", advice(err))
	return exitFailed
}

func advice(err error) string {
	var held *kv.ImportHeld
	var silent *silentError
	switch {
	case errors.As(err, &silent):
		return "look whether SUPABASE_URL (or --supabase-url) is the project's address, as in https://<project>.supabase.co; if it is, the same command again when it answers"
	case errors.As(err, &held), errors.Is(err, migrate.ErrBusy):
		return "migrate-kv-store status"
	case kv.CodeOf(err) == kv.CodeDatabaseUnreachable:
		return "the same command again when the database answers; it goes on where it was"
	}
	return "migrate-kv-store --help, and docs/MIGRATION.md"
}

func command() *cobra.Command {
	var s stores
	root := &cobra.Command{
		Use:   "migrate-kv-store",
		Short: "Bring the entries of Netlify Blobs into Supabase",
		Long: `Bring the entries of Netlify Blobs into Supabase. docs/MIGRATION.md is the way through it:

  migrate-kv-store backup --out kv-backup.ndjson.gz
  migrate-kv-store plan
  migrate-kv-store run
  migrate-kv-store verify

Nothing here ever deletes a blob. Every command can be ended at any time and given again: plan and
backup begin anew, the others go on where they were.

Exit status: 0, all is well; 1, it ran and something is left, which it says; 2, it could not run or not end.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	s.flags(root.PersistentFlags())
	root.AddGroup(&cobra.Group{ID: "migrate", Title: "To migrate:"}, &cobra.Group{ID: "keep", Title: "To keep:"})
	for _, c := range []*cobra.Command{planCommand(&s), runCommand(&s), verifyCommand(&s), statusCommand(&s), reportCommand(&s), closeCommand(&s)} {
		c.GroupID = "migrate"
		root.AddCommand(c)
	}
	for _, c := range []*cobra.Command{backupCommand(&s), restoreCommand(&s), repairCommand(&s)} {
		c.GroupID = "keep"
		root.AddCommand(c)
	}
	return root
}
