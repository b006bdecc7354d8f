package blobs

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

var (
	// ErrNotFound means that there is no blob under the key.
	ErrNotFound = errors.New("blobs: there is no such blob")
	// ErrConditionFailed means that IfMatch or IfNew did not hold, and nothing was written.
	ErrConditionFailed = errors.New("blobs: the condition of the write does not hold")
	// ErrTooLarge means that the blob has more bytes than the limit of [Client.GetUpTo].
	ErrTooLarge = errors.New("blobs: the blob is too large")
	// ErrNoAccess means that neither the context nor the client has a usable [Access].
	ErrNoAccess = errors.New("blobs: no access: the function's event has none, so set NETLIFY_BLOBS_TOKEN and NETLIFY_SITE_ID")
)

// Error is a response that an operation cannot use. It never contains a token, a signed URL or a value.
type Error struct {
	Op         string        // get, head, set, delete or list
	Status     int           // the HTTP status
	Message    string        // the service's message, or the text of the status
	RetryAfter time.Duration // how long the service asks to wait; 0: it does not say
}

func (e *Error) Error() string {
	text := fmt.Sprintf("blobs: %s: status %d: %s", e.Op, e.Status, e.Message)
	if e.RetryAfter > 0 {
		text += fmt.Sprintf(" (again after %s)", e.RetryAfter.Round(time.Second))
	}
	return text
}

// Refused reports whether the service did not accept the token, or not for the site.
func Refused(err error) bool {
	var answer *Error
	return errors.As(err, &answer) && (answer.Status == http.StatusUnauthorized || answer.Status == http.StatusForbidden)
}

// noResponseError is a request that was sent and got no complete response. It may have been applied.
type noResponseError struct {
	op  string
	err error
}

func (e *noResponseError) Error() string { return "blobs: " + e.op + ": " + e.err.Error() }
func (e *noResponseError) Unwrap() error { return e.err }
