package kv

import (
	"errors"
	"fmt"
	"time"
)

// Code names a kind of failure. Codes are part of the HTTP contract and are never renamed.
type Code string

const (
	CodeInvalidInput        Code = "invalid_input"        // the request is not valid
	CodeUnauthorized        Code = "unauthorized"         // a token is required, and the request's is missing or wrong
	CodeNotFound            Code = "not_found"            // there is no entry under the key
	CodeMethodNotAllowed    Code = "method_not_allowed"   // the function does not serve the HTTP method
	CodeConditionFailed     Code = "condition_failed"     // a condition of the request does not hold (If-Match, If-None-Match)
	CodeConflict            Code = "conflict"             // not possible as things are
	CodeNotApplied          Code = "not_applied"          // another operation of the atomic batch failed
	CodeIdempotencyReused   Code = "idempotency_reused"   // the Idempotency-Key came with another request before
	CodeNotJSON             Code = "not_json"             // the bytes are not JSON where JSON must be
	CodeTooLarge            Code = "too_large"            // the response would exceed MaxResponseBytes
	CodeUnstorableValue     Code = "unstorable_value"     // valid JSON that cannot be stored
	CodeDatabaseUnreachable Code = "database_unreachable" // no response, or a malformed one, in several attempts
	CodeNotConfigured       Code = "not_configured"       // a variable or a part of the database is missing or wrong
	CodeUnavailable         Code = "unavailable"          // Supabase does not serve the project: paused, over quota, full
	CodeRateLimited         Code = "rate_limited"         // Supabase or Netlify refuses requests for a time
	CodeDeadlineExceeded    Code = "deadline_exceeded"    // the time allowed was over
	CodeInternal            Code = "internal"             // a bug
)

// Codes lists every code.
var Codes = []Code{
	CodeInvalidInput, CodeUnauthorized, CodeNotFound, CodeMethodNotAllowed, CodeConditionFailed, CodeConflict,
	CodeNotApplied, CodeIdempotencyReused, CodeNotJSON, CodeTooLarge,
	CodeUnstorableValue, CodeDatabaseUnreachable, CodeNotConfigured, CodeUnavailable, CodeRateLimited, CodeDeadlineExceeded, CodeInternal,
}

// Error keeps what a caller may read (Code, Message, RetryAfter) apart from what only the log may hold (Op, Err).
type Error struct {
	Code    Code
	Message string // what is wrong and what to do
	Op      string // the operation that failed, as in "kv_upsert"
	Err     error  // the cause
	// RetryAfter is how long to wait before a retry; 0: not known.
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

// Invalid returns a [CodeInvalidInput] error with a message that is formatted as by [fmt.Sprintf].
func Invalid(format string, args ...any) *Error {
	return &Error{Code: CodeInvalidInput, Message: fmt.Sprintf(format, args...)}
}

// CodeOf returns the code of the [*Error] in err's chain, [CodeInternal] without one, and "" for nil.
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
