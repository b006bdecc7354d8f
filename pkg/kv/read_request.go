package kv

import (
	"errors"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// readRequest is a valid call of one of the functions that read.
type readRequest struct {
	function string // kv_get, kv_list or kv_query
	args     string // a JSON object; equal requests have equal texts
	scope    scope
	within   time.Duration // for the only attempt; 0: the store's retry policy applies
}

// scope is the part of the key space that a result depends on: one key, or all keys with a prefix.
type scope struct {
	text string
	one  bool // text is a key
}

// encodeArgs returns the JSON text of arguments, all of which can be marshaled.
func encodeArgs(args any) string {
	text, err := jsonv2.Marshal(args, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic(err)
	}
	return string(text)
}

func getRequest(key string) (readRequest, error) {
	if err := ValidateKey(key); err != nil {
		return readRequest{}, err
	}
	args := encodeArgs(struct {
		Key string `json:"p_key"`
	}{key})
	return readRequest{function: "kv_get", args: args, scope: scope{text: key, one: true}}, nil
}

// checkFound returns [CodeNotFound] for kv_get's response without an entry, which is empty.
func checkFound(value string) error {
	if value == "" {
		return &Error{Code: CodeNotFound, Message: "Key not found", Op: "kv_get"}
	}
	return nil
}

func listRequest(q ListQuery) (readRequest, error) {
	if err := q.Validate(); err != nil {
		return readRequest{}, err
	}
	query := q.query().complete()
	query.Limit = q.query().Limit // there is no default
	args := encodeArgs(struct {
		Query    Query  `json:"p_query"`
		Values   bool   `json:"p_values"`
		Question string `json:"p_question"`
	}{query, q.Values, q.Question()})
	return readRequest{function: "kv_list", args: args, scope: scope{text: q.Prefix}}, nil
}

func queryRequest(q Query) (readRequest, error) {
	if err := q.Validate(); err != nil {
		return readRequest{}, err
	}
	args := encodeArgs(struct {
		Query    Query  `json:"p_query"`
		Question string `json:"p_question"`
	}{q.complete(), q.question()})
	// The database gets a second to report its own timeout.
	return readRequest{function: "kv_query", args: args, scope: scope{text: q.Prefix}, within: MaxQueryTime + time.Second}, nil
}

// rewordError replaces the messages that mean something else for a query.
func (r readRequest) rewordError(err error) {
	var e *Error
	switch {
	case r.function != "kv_query" || !errors.As(err, &e):
	case e.Code == CodeDeadlineExceeded:
		e.Message = messageQueryDeadline
	case e.Code == CodeUnstorableValue: // a query stores nothing
		e.Code, e.Message = CodeInvalidInput, messageQueryValue
	}
}

// foundNothing reports whether the body has no entry. Lists may be empty and count as found.
func (r readRequest) foundNothing(body string) bool {
	return r.function == "kv_get" && body == "" || r.function == "kv_query" && strings.HasPrefix(body, `{"results":[],`)
}

// check refuses a body that was cut off: lists and queries end with a brace.
func (r readRequest) check(body string) error {
	if r.function != "kv_get" && !strings.HasSuffix(body, "}") {
		return malformedResponse(r.function)
	}
	return nil
}
