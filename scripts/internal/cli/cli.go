// Package cli holds what the command-line programs share: exit statuses, the output of results, errors and progress,
// and the source of settings.
package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"netlify-supabase-kv/pkg/config"
)

// The exit statuses. ExitProblems: the command ran to its end, and found or left problems. ExitFailed: it could not run
// or finish. ExitClosedPipe: nobody reads its output any more, as after | head.
const (
	ExitProblems   = 1
	ExitFailed     = 2
	ExitClosedPipe = 128 + int(syscall.SIGPIPE)
)

// ErrFound ends a command that ran to its end and found problems. The command has already printed them.
var ErrFound = errors.New("problems were found")

// Incomplete is the error of a command that ran to its end and left something undone, with what to try.
type Incomplete struct {
	Err error
	Try string // a sentence, or a command to type
}

func (e *Incomplete) Error() string { return e.Err.Error() }
func (e *Incomplete) Unwrap() error { return e.Err }

// Advised is an error with what to try.
type Advised struct {
	Err error
	Try string // a sentence, or a command to type
}

func (e *Advised) Error() string { return e.Err.Error() }
func (e *Advised) Unwrap() error { return e.Err }

// Advise adds what to try to an error.
func Advise(err error, try string) error { return &Advised{err, try} }

// Main runs a program and returns its exit status. Ctrl-C ends it, and so do a closed terminal and a closed pipe, which
// would otherwise kill it before it could tidy up.
func Main(program *cobra.Command) int {
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as it is under nohup
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	piped, stopPiped := signal.NotifyContext(ctx, syscall.SIGPIPE)
	defer stopPiped()
	err := program.ExecuteContext(piped)
	var write *fs.PathError // the write may fail before the signal arrives; that of a connection is no PathError
	closed := piped.Err() != nil || errors.As(err, &write) && errors.Is(write, syscall.EPIPE)
	if closed && ctx.Err() == nil {
		return ExitClosedPipe
	}
	return ExitStatus(program.Name(), err, ctx.Err() != nil, os.Stderr)
}

// ExitStatus prints what went wrong and what to try, and returns the exit status.
func ExitStatus(program string, err error, interrupted bool, stderr io.Writer) int {
	var incomplete *Incomplete
	var advised *Advised
	switch {
	case err == nil:
		return 0
	case errors.As(err, &incomplete):
		fmt.Fprintln(stderr, "Error:", err)
		fmt.Fprintln(stderr, "Try:  ", incomplete.Try)
		return ExitProblems
	case interrupted:
		fmt.Fprintln(stderr, "Interrupted. Run the same command again.")
		return ExitFailed
	case errors.Is(err, ErrFound):
		return ExitProblems
	}
	fmt.Fprintln(stderr, "Error:", err)
	try := program + " --help"
	if errors.As(err, &advised) {
		try = advised.Try
	}
	fmt.Fprintln(stderr, "Try:  ", try)
	return ExitFailed
}

// Output is how a command prints its progress and result.
type Output struct{ Quiet, JSON bool }

// Flags adds the flags --quiet and --json.
func (o *Output) Flags(f *pflag.FlagSet) {
	f.BoolVarP(&o.Quiet, "quiet", "q", false, "no progress, no summary")
	f.BoolVar(&o.JSON, "json", false, "print the result as JSON")
}

// Print writes a result as JSON, as text, or not at all.
func Print[R any](out io.Writer, o Output, result R, words func(io.Writer, R)) error {
	switch {
	case o.JSON:
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(result)
	case !o.Quiet:
		var text bytes.Buffer
		words(&text, result)
		_, err := out.Write(text.Bytes())
		return err
	}
	return nil
}

// Setting returns a flag's value or, if that is empty, a variable's.
func Setting[T ~string](flag string, variable T) string {
	return cmp.Or(config.Clean(flag), string(variable))
}
