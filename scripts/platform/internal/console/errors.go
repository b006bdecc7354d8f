package console

import (
	"errors"
	"fmt"
	"io"
)

// Hint is an error that knows the way out.
type Hint struct {
	Err error
	Try string // a sentence, or a command to type
}

func (h *Hint) Error() string { return h.Err.Error() }

// Unwrap gives the cause.
func (h *Hint) Unwrap() error { return h.Err }

// Try adds to err what the reader can do about it.
func Try(err error, format string, args ...any) error {
	return &Hint{Err: err, Try: fmt.Sprintf(format, args...)}
}

// Print writes err for a person: what was wrong, then what to try.
func Print(w io.Writer, err error) {
	fmt.Fprintf(w, "Error: %v\n", err)
	var hint *Hint
	if errors.As(err, &hint) {
		fmt.Fprintf(w, "Try:   %s\n", hint.Try)
	}
}
