package kv

import (
	"cmp"
	"errors"
	"strconv"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// readRequest is a valid call of one of the functions that read.
type readRequest struct {
	function string // kv_get, kv_list, kv_query, kv_entry or kv_entry_list
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

// readBody is a response to a read.
type readBody struct {
	text string
	// expires is how long it is true, from the moment when it was written: then the first of the entries in it expires.
	// 0 means that none does.
	expires time.Duration
}

func getRequest(space, key string) (readRequest, error) { return keyRequest("kv_get", space, key) }

func entryRequest(space, key string) (readRequest, error) { return keyRequest("kv_entry", space, key) }

func keyRequest(function, space, key string) (readRequest, error) {
	if err := ValidateKey(key); err != nil {
		return readRequest{}, err
	}
	key = space + key
	args := encodeArgs(struct {
		Key string `json:"p_key"`
	}{key})
	return readRequest{function: function, args: args, scope: scope{text: key, one: true}}, nil
}

// checkFound returns [CodeNotFound] for the response of a read of one key without an entry, which is empty.
func (r readRequest) checkFound(body readBody) error {
	if body.text == "" {
		return &Error{Code: CodeNotFound, Message: "Key not found", Op: r.function}
	}
	return nil
}

func listRequest(space string, q ListQuery) (readRequest, error) {
	if err := q.Validate(); err != nil {
		return readRequest{}, err
	}
	query := q.query().complete()
	query.Limit = q.query().Limit // there is no default
	args := encodeArgs(struct {
		Query    Query  `json:"p_query"`
		Values   bool   `json:"p_values"`
		Question string `json:"p_question"`
	}{query.in(space), q.Values, q.Question()})
	return readRequest{function: "kv_list", args: args, scope: scope{text: spacePrefix(space, q.Prefix)}}, nil
}

func queryRequest(namespace string, q Query) (readRequest, error) {
	if err := q.Validate(); err != nil {
		return readRequest{}, err
	}
	space := space(namespace, cmp.Or(q.Store, DefaultStore))
	args := encodeArgs(struct {
		Query    Query  `json:"p_query"`
		Question string `json:"p_question"`
	}{q.complete().in(space), q.question()})
	// The database gets a second to report its own timeout.
	return readRequest{function: "kv_query", args: args, scope: scope{text: spacePrefix(space, q.Prefix)}, within: MaxQueryTime + time.Second}, nil
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
	return body == "" || r.function == "kv_query" && strings.HasPrefix(body, `{"results":[],`)
}

// expiryMark begins the line that says when a response expires (kv.expiry_line).
const expiryMark = "\x02"

// readBody reads a response, and refuses one that cannot be the function's, or was cut off.
func (r readRequest) readBody(text string) (body readBody, err error) {
	body.text = text
	if line, found := strings.CutPrefix(text, expiryMark); found {
		line, body.text, _ = strings.Cut(line, "\n")
		milliseconds, err := strconv.ParseInt(line, 10, 64)
		if err != nil || milliseconds < 0 {
			return readBody{}, malformedResponse(r.function)
		}
		body.expires = max(time.Duration(min(milliseconds, int64(MaxTTL/time.Millisecond)))*time.Millisecond, 1)
	}
	if !r.isWhole(body.text) {
		return readBody{}, malformedResponse(r.function)
	}
	return body, nil
}

// isWhole reports whether a text begins and ends as a response of the function does. It looks at nothing in between,
// since a response may be megabytes. An empty text is that of a key without an entry.
func (r readRequest) isWhole(text string) bool {
	switch {
	case !r.scope.one: // lists and queries
		return strings.HasSuffix(text, "}")
	case text == "":
		return true
	case r.function == "kv_entry":
		return strings.HasPrefix(text, "{") && strings.Contains(text, "\n")
	}
	value := strings.Trim(text, " \t\r\n")
	return value != "" && strings.IndexByte(`{["-0123456789tfn`, value[0]) >= 0 && strings.IndexByte(`}]"0123456789el`, value[len(value)-1]) >= 0
}
