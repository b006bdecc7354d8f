package kv

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"time"

	"netlify-supabase-kv/pkg/upstream"
)

// defaultRetry gives a restarting database the seconds it needs, and leaves callers time to handle a clear error
// after that. An attempt may take longer than Supabase's statement timeout (8 s), and a second one can follow one
// that hung.
var defaultRetry = upstream.Policy{
	FirstPause: 40 * time.Millisecond, MaxPause: time.Second, Attempt: 10 * time.Second, Total: 15 * time.Second,
}

// call calls a function of the database, which must be safe to repeat, and returns the text of its response.
func (s *Supabase) call(ctx context.Context, function string, args any) (string, error) {
	return s.callWith(ctx, s.retry, function, args, func(string) error { return nil })
}

// callJSON calls a function of the database, which must be safe to repeat, and decodes its response.
func (s *Supabase) callJSON(ctx context.Context, function string, args, into any) error {
	_, err := s.callWith(ctx, s.retry, function, args, func(text string) error { return decodeResponse(function, text, into) })
	return err
}

// callWith also repeats a call whose response accept refuses: it may have come from something in front of the
// database.
//
// It uses From(…).Insert(…) because the client's Rpc takes no context, and returns one call's error from all later
// calls.
func (s *Supabase) callWith(ctx context.Context, retry upstream.Policy, function string, args any, accept func(string) error) (string, error) {
	body, err := encodeBody(args)
	if err != nil {
		return "", callError(function, err)
	}
	ctx = withBody(ctx, body)
	text, err := upstream.Retry(ctx, retry, func(ctx context.Context) (string, error) {
		text, _, err := s.client.From("rpc/"+function).Insert(nil, false, "", "representation", "").ExecuteStringWithContext(ctx)
		if err == nil {
			err = accept(text)
		}
		return text, markTransient(err)
	})
	if err != nil {
		return "", callError(function, err)
	}
	return text, nil
}

// encodeBody returns the JSON text of arguments. The client would escape <, > and &, and make six bytes of each.
func encodeBody(args any) ([]byte, error) {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(args)
	return bytes.TrimSuffix(body.Bytes(), []byte("\n")), err
}

func decodeResponse(function, text string, into any) error {
	if err := json.Unmarshal([]byte(text), into); err != nil {
		e := malformedResponse(function)
		e.Err = err
		return e
	}
	return nil
}

func malformedResponse(function string) *Error {
	return &Error{Code: CodeDatabaseUnreachable, Message: messageMalformed, Op: function}
}

// callError is the only place that turns the failure of a call into an [*Error].
func callError(function string, err error) *Error {
	e := &Error{Code: CodeDatabaseUnreachable, Message: messageUnreachable, Op: function, Err: err}
	var response *postgrestError
	var malformed *Error
	var timeout *upstream.TimeoutError
	switch {
	case errors.As(err, &malformed):
		e = malformed
	case errors.As(err, &response):
		failure := response.failure()
		e.Code, e.Message, e.RetryAfter = failure.is, cmp.Or(failure.says, response.Message), response.RetryAfter
	case errors.As(err, &timeout):
		e.Code, e.Message = CodeDeadlineExceeded, messageDeadline
	}
	return e
}

const (
	messageUnreachable = "the database could not be reached; try again in a moment"
	messageFailed      = "the database failed to answer; its log says why"
	messageMalformed   = "the database gave an answer that cannot be understood; try again in a moment"
	messageRefused     = "Supabase refused the key: SUPABASE_SERVICE_ROLE_KEY must be the project's service_role or secret key"
	messageDeadline    = "the time allowed for the request was over before the database answered; ask for less, or try again"

	messageQueryValue    = "the database cannot compare with a value of the query: a number is too large, or it is nested too deeply"
	messageQueryDeadline = "the query took longer than it may: narrow it by prefix or by an index, ask for fewer entries, or make the path" +
		" that it compares or sorts by fast with kv_index_path"
)
