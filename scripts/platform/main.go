// Command platform runs everything that the project needs on one machine: Postgres, PostgREST, a stand-in for Netlify Blobs, and the
// functions. The Makefile's targets up, down, reset and dev call it.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"netlify-supabase-kv/scripts/platform/internal/say"
)

// The exit statuses: 1 when it ran but something is not as asked, 2 when it could not run.
const (
	exitDiffers = 1
	exitFailed  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := newCommand().ExecuteContext(ctx)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err() // whatever failed did so because of the signal
	}
	stop()
	os.Exit(exitStatus(err))
}

// exitStatus prints what is to be printed and gives the status. A command that was run passes its own on.
func exitStatus(err error) int {
	var ran commandError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errDown):
		return exitDiffers
	case errors.As(err, &ran):
		return ran.status
	case errors.Is(err, context.Canceled):
		say.Print(os.Stderr, errors.New("interrupted; what had been started is stopped"))
		return exitFailed
	default:
		say.Print(os.Stderr, err)
		return exitFailed
	}
}
