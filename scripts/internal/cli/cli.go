// Package cli is what the commands that people run have in common: exit statuses, how results, errors and progress are shown, and where
// settings come from.
package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"netlify-supabase-kv/pkg/config"
)

// The exit statuses: 1 when it ran and something is found or left, 2 when it could not run or not end.
const (
	ExitLeft   = 1
	ExitFailed = 2
)

// ErrFound ends a command that ran to its end and found something. The command has said what by then.
var ErrFound = errors.New("something is found")

// Left is what a command that ran to its end could not bring in order, and what to try.
type Left struct {
	Err error
	Try string // a sentence, or a command to type
}

func (e *Left) Error() string { return e.Err.Error() }
func (e *Left) Unwrap() error { return e.Err }

// Advised is an error that knows the way out.
type Advised struct {
	Err error
	Try string // a sentence, or a command to type
}

func (e *Advised) Error() string { return e.Err.Error() }
func (e *Advised) Unwrap() error { return e.Err }

// Advise adds to an error what to try.
func Advise(err error, try string) error { return &Advised{err, try} }

// Main runs a program and returns its exit status. Ctrl-C ends it.
func Main(program *cobra.Command) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := program.ExecuteContext(ctx)
	interrupted := ctx.Err() != nil
	stop()
	return ExitStatus(program.Name(), err, interrupted, os.Stderr)
}

// ExitStatus says what went wrong and what to do.
func ExitStatus(program string, err error, interrupted bool, stderr io.Writer) int {
	var left *Left
	var advised *Advised
	switch {
	case err == nil:
		return 0
	case errors.As(err, &left):
		fmt.Fprintln(stderr, "Left: ", err)
		fmt.Fprintln(stderr, "Try:  ", left.Try)
		return ExitLeft
	case interrupted:
		fmt.Fprintln(stderr, "Interrupted. Give the same command again.")
		return ExitFailed
	case errors.Is(err, ErrFound):
		return ExitLeft
	}
	fmt.Fprintln(stderr, "Error:", err)
	try := program + " --help"
	if errors.As(err, &advised) {
		try = advised.Try
	}
	fmt.Fprintln(stderr, "Try:  ", try)
	return ExitFailed
}

// Output says how a command shows what it does.
type Output struct{ Quiet, JSON bool }

// Flags adds the flags of an output.
func (o *Output) Flags(f *pflag.FlagSet) {
	f.BoolVarP(&o.Quiet, "quiet", "q", false, "no progress, no summary")
	f.BoolVar(&o.JSON, "json", false, "print the result as JSON")
}

// Print writes a result: as JSON, in words, or not at all.
func Print[R any](out io.Writer, o Output, result R, words func(io.Writer, R)) error {
	switch {
	case o.JSON:
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(result)
	case !o.Quiet:
		words(out, result)
	}
	return nil
}

// Setting is a flag's value, or else a variable's.
func Setting[T ~string](flag string, variable T) string {
	return cmp.Or(config.Clean(flag), string(variable))
}
