package kv

import (
	"errors"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// read is one read of the database, checked and ready to be sent.
type readRequest struct {
	function string // kv_get, kv_list or kv_query
	args     string // a JSON object, the same text for the same request
	scope    scope
	within   time.Duration // how long it may take, in one attempt; 0: as long as the context and the retries allow
}

// scope is the part of the key space that an answer depends on: one key, or all keys with a prefix.
type scope struct {
	text string
	one  bool
}

// encodeArgs makes the arguments' text. What this package passes as arguments can always be marshaled.
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

// missing makes the error of kv_get's answer for a key that has no entry.
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
	question := q.Question()
	q = q.complete()
	args := listArgs{
		Prefix: q.Prefix, Values: q.Values, Limit: q.Limit, Offset: q.Offset,
		Sort: strings.TrimSuffix(string(q.Sort.Path), "At"), Descending: q.Sort.Descending,
		Indexes: q.Indexes, IndexKeys: q.IndexKeys, Question: question,
	}
	if q.After != nil {
		args.AfterKey = &q.After.Key
		if micros, ok := q.After.Micros(); ok {
			args.AfterAt = &micros
		}
	}
	return readRequest{function: "kv_list", args: encodeArgs(args), scope: scope{text: q.Prefix}}, nil
}

type listArgs struct {
	Prefix     string   `json:"p_prefix"`
	Values     bool     `json:"p_values"`
	Limit      *int     `json:"p_limit"`
	Offset     *int     `json:"p_offset"`
	Sort       string   `json:"p_sort"`
	Descending bool     `json:"p_descending"`
	AfterKey   *string  `json:"p_after_key"`
	AfterAt    *int64   `json:"p_after_at"`
	Indexes    []string `json:"p_indexes"`
	IndexKeys  []string `json:"p_index_keys"`
	Question   string   `json:"p_question"`
}

func queryRequest(q Query) (readRequest, error) {
	if err := q.Validate(); err != nil {
		return readRequest{}, err
	}
	args := encodeArgs(struct {
		Query queryArgs `json:"p_query"`
	}{q.args()})
	// A second more than the database takes, so that it can say so itself.
	return readRequest{function: "kv_query", args: args, scope: scope{text: q.Prefix}, within: MaxQueryTime + time.Second}, nil
}

// explain puts into the words of a query what the database said of one.
func (r readRequest) rewordError(err error) {
	var e *Error
	switch {
	case r.function != "kv_query" || !errors.As(err, &e):
	case e.Code == CodeDeadlineExceeded:
		e.Message = messageQueryDeadline
	case e.Code == CodeUnstorableValue: // nothing was to be stored
		e.Code, e.Message = CodeInvalidInput, messageQueryValue
	}
}

// foundNothing tells whether an answer says that there is no entry under the key, or none that the query asks for.
func (r readRequest) foundNothing(body string) bool {
	return r.function == "kv_get" && body == "" || r.function == "kv_query" && strings.HasPrefix(body, `{"results":[],`)
}

// check finds a body that cannot be an answer: lists and queries are answered with an object.
func (r readRequest) check(body string) error {
	if r.function != "kv_get" && !strings.HasSuffix(body, "}") {
		return malformedResponse(r.function)
	}
	return nil
}
