package console

import (
	"errors"
	"fmt"
	"io"
)

// Hint is an error with advice.
type Hint struct {
	Err error
	Try string // a sentence, or a command to type
}

func (h *Hint) Error() string { return h.Err.Error() }

// Unwrap returns the cause.
func (h *Hint) Unwrap() error { return h.Err }

// Try adds advice to err.
func Try(err error, format string, args ...any) error {
	return &Hint{Err: err, Try: fmt.Sprintf(format, args...)}
}

// Print writes err for a person, then its advice.
func Print(w io.Writer, err error) {
	fmt.Fprintf(w, "Error: %v\n", err)
	var hint *Hint
	if errors.As(err, &hint) {
		fmt.Fprintf(w, "Try:   %s\n", hint.Try)
	}
}
