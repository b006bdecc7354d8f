package blobs

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

var (
	// ErrNotFound: there is no blob under the key.
	ErrNotFound = errors.New("blobs: there is no such blob")
	// ErrConditionFailed: the blob was not as IfMatch or IfNew asked for, and nothing was written.
	ErrConditionFailed = errors.New("blobs: the condition of the write does not hold")
	// ErrTooLarge: the blob has more bytes than were asked for, and was not read to its end.
	ErrTooLarge = errors.New("blobs: the blob is too large")
	// ErrNoAccess: neither the context nor the client says how to get to the blobs.
	ErrNoAccess = errors.New("blobs: no access: the function's event has none, so set NETLIFY_BLOBS_TOKEN and NETLIFY_SITE_ID")
)

// Error is an answer that an operation cannot use. It never contains a token, a signed URL or a value.
type Error struct {
	Op         string        // what was being done: get, head, set, delete, list
	Status     int           // of HTTP
	Message    string        // the service's own sentence, or what its status stands for
	RetryAfter time.Duration // how long the service asks to wait; 0 when it does not say
}

func (e *Error) Error() string {
	text := fmt.Sprintf("blobs: %s: status %d: %s", e.Op, e.Status, e.Message)
	if e.RetryAfter > 0 {
		text += fmt.Sprintf(" (again after %s)", e.RetryAfter.Round(time.Second))
	}
	return text
}

// Refused tells whether the error is that of a service which does not take the token, or not for the site.
func Refused(err error) bool {
	var answer *Error
	return errors.As(err, &answer) && (answer.Status == http.StatusUnauthorized || answer.Status == http.StatusForbidden)
}

// noResponseError is a request that went out and whose answer did not come, so that it may have been carried out.
type noResponseError struct {
	op  string
	err error
}

func (e *noResponseError) Error() string { return "blobs: " + e.op + ": " + e.err.Error() }
func (e *noResponseError) Unwrap() error { return e.err }
