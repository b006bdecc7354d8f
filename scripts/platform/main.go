// Command platform runs everything that the project needs on one machine: Postgres, PostgREST, a stand-in for Netlify
// Blobs, and the functions. The Makefile's targets up, down, reset and dev call it.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"netlify-supabase-kv/scripts/platform/internal/console"
)

// exitFailed is the exit status when the platform could not run.
const exitFailed = 2

// errReported is returned after the error itself was printed.
var errReported = errors.New("reported")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	status := report(ctx, os.Stderr, newCommand().ExecuteContext(ctx))
	stop()
	os.Exit(status)
}

// report prints the error and returns the exit status. The status of a command that `run` ran is passed on.
func report(ctx context.Context, w io.Writer, err error) int {
	var ran commandError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errReported):
	case ctx.Err() != nil: // the signal is the cause of any error
		console.Print(w, errors.New("interrupted; what had been started is stopped"))
	case errors.As(err, &ran):
		return ran.status
	default:
		console.Print(w, err)
	}
	return exitFailed
}
