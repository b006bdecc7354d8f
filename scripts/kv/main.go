// Command kv is the one program that people run beside the functions: it brings them into a site that exists.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// The exit statuses: 1 when it ran and something is found, 2 when it could not run or not end.
const (
	exitFound  = 1
	exitFailed = 2
)

// errFound ends a command that ran to its end and found something. The command has said what by then.
var errFound = errors.New("something is found")

// triedError is an error that knows the way out.
type triedError struct {
	error
	try string // a sentence, or a command to type
}

func (e *triedError) Unwrap() error { return e.error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	interrupted := ctx.Err() != nil
	stop()
	os.Exit(exitStatus(err, interrupted, os.Stderr))
}

// exitStatus says what went wrong and what to do.
func exitStatus(err error, interrupted bool, stderr io.Writer) int {
	var tried *triedError
	switch {
	case err == nil:
		return 0
	case interrupted:
		fmt.Fprintln(stderr, "Interrupted. The same command begins anew.")
		return exitFailed
	case errors.Is(err, errFound):
		return exitFound
	}
	fmt.Fprintln(stderr, "Error:", err)
	if errors.As(err, &tried) {
		fmt.Fprintln(stderr, "Try:  ", tried.try)
	} else {
		fmt.Fprintln(stderr, "Try:   kv --help")
	}
	return exitFailed
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "kv",
		Short: "What people run beside the functions",
		Long: `What people run beside the functions. From a checkout: make kv ARGS='<command> …'.

Exit status: 0, all is well; 1, it ran and something is found, which it says; 2, it could not run or not end.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(addCommand(), removeCommand(), doctorCommand())
	return root
}
