package kv

import (
	"errors"
	"fmt"
	"time"
)

// Code names a kind of failure. Codes are part of the HTTP contract and are never renamed.
type Code string

const (
	CodeInvalidInput        Code = "invalid_input"        // the caller sent something that cannot be understood
	CodeUnauthorized        Code = "unauthorized"         // a token is configured, and the caller's is missing or wrong
	CodeNotFound            Code = "not_found"            // there is no entry under the key
	CodeMethodNotAllowed    Code = "method_not_allowed"   // the function does not answer this HTTP method
	CodeConditionFailed     Code = "condition_failed"     // a condition that the caller set did not hold
	CodeTooLarge            Code = "too_large"            // the answer does not fit into a response
	CodeUnstorableValue     Code = "unstorable_value"     // JSON, but not to be stored
	CodeDatabaseUnreachable Code = "database_unreachable" // no answer, or nonsense, although it was asked again
	CodeNotConfigured       Code = "not_configured"       // the environment or the database lacks something
	CodeUnavailable         Code = "unavailable"          // the service behind this one does not serve the project: paused, over quota, full
	CodeRateLimited         Code = "rate_limited"         // a service behind this one takes no more requests for now
	CodeDeadlineExceeded    Code = "deadline_exceeded"    // the time allowed was over first
	CodeInternal            Code = "internal"             // a bug
)

// Codes are all codes.
var Codes = []Code{
	CodeInvalidInput, CodeUnauthorized, CodeNotFound, CodeMethodNotAllowed, CodeConditionFailed, CodeTooLarge,
	CodeUnstorableValue, CodeDatabaseUnreachable, CodeNotConfigured, CodeUnavailable, CodeRateLimited, CodeDeadlineExceeded, CodeInternal,
}

// Error keeps what a caller may read (Code, Message, RetryAfter) apart from what only the log may (Op, Err).
type Error struct {
	Code    Code
	Message string // what was wrong and what to do
	Op      string // what was being done, as in "kv_upsert"
	Err     error  // the cause
	// RetryAfter is when asking again may help; 0: nobody knows.
	RetryAfter time.Duration
}

func (e *Error) Error() string {
	text := string(e.Code) + ": " + e.Message
	if e.Op != "" {
		text = e.Op + ": " + text
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// Invalid returns a [CodeInvalidInput] error with the message, which is formatted as by [fmt.Sprintf].
func Invalid(format string, args ...any) *Error {
	return &Error{Code: CodeInvalidInput, Message: fmt.Sprintf(format, args...)}
}

// CodeOf returns the code of err: [CodeInternal] when there is no [*Error] in its chain, and "" for nil.
func CodeOf(err error) Code {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Code
	default:
		return CodeInternal
	}
}
