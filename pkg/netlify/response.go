package netlify

import (
	"bytes"
	"encoding/base64"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"netlify-supabase-kv/pkg/kv"
)

// Response is what an endpoint returns: a status, headers beyond those of every response, and a body. The body is JSON
// unless the headers have a Content-Type.
type Response struct {
	Status int
	Header map[string]string
	Body   []byte

	result *kv.ReadResult // that the body was made of; nil for other responses
	err    error          // that the response reports, for the log
}

// statusOf is the only place where a code becomes a status.
var statusOf = map[kv.Code]int{
	kv.CodeInvalidInput:        http.StatusBadRequest,
	kv.CodeUnauthorized:        http.StatusUnauthorized,
	kv.CodeNotFound:            http.StatusNotFound,
	kv.CodeMethodNotAllowed:    http.StatusMethodNotAllowed,
	kv.CodeConditionFailed:     http.StatusPreconditionFailed,
	kv.CodeConflict:            http.StatusConflict,
	kv.CodeNotApplied:          http.StatusFailedDependency,
	kv.CodeIdempotencyReused:   http.StatusUnprocessableEntity,
	kv.CodeNotJSON:             http.StatusUnsupportedMediaType,
	kv.CodeTooLarge:            http.StatusRequestEntityTooLarge,
	kv.CodeUnstorableValue:     http.StatusUnprocessableEntity,
	kv.CodeDatabaseUnreachable: http.StatusBadGateway,
	kv.CodeNotConfigured:       http.StatusServiceUnavailable,
	kv.CodeUnavailable:         http.StatusServiceUnavailable,
	kv.CodeRateLimited:         http.StatusServiceUnavailable,
	kv.CodeDeadlineExceeded:    http.StatusGatewayTimeout,
	kv.CodeInternal:            http.StatusInternalServerError,
}

// publicError returns what a caller may know of an error. A bug's message is a fixed sentence.
func publicError(err error) *kv.Error {
	e := &kv.Error{Code: kv.CodeInternal, Message: "internal error; details are in the function's log"}
	errors.As(err, &e)
	return e
}

// errorResponse returns the response for an error, without what only the log may hold.
func errorResponse(err error, now time.Time) *Response {
	e := publicError(err)
	body := kv.AppendString([]byte(`{"error":`), e.Message)
	body = kv.AppendString(append(body, `,"code":`...), string(e.Code))
	body = kv.AppendString(append(body, `,"timestamp":`...), timestamp(now))
	response := &Response{Status: statusOf[e.Code], Header: map[string]string{}, Body: append(body, '}'), err: err}
	if e.RetryAfter > 0 {
		seconds := int(math.Ceil(e.RetryAfter.Seconds()))
		response.Header["Retry-After"] = strconv.Itoa(seconds)
	}
	return response
}

// dropBody turns the response to GET into one to HEAD, which still says how long the body is.
func (a *Response) dropBody() {
	if a.Status != http.StatusNotModified {
		a.Header["Content-Length"] = strconv.Itoa(len(a.Body))
	}
	a.Body = nil
}

var quote, backslash = []byte{'"'}, []byte{'\\'}

// encode returns the response as the JSON that Netlify expects. It is not ok if that is too large. A body that is not
// text is sent as base64, and so is text with a byte order mark, which some decoders drop. A body that is too large as text, because its quotes are escaped, may fit as base64.
func (a *Response) encode() (response []byte, ok bool) {
	head := append([]byte(`{"statusCode":`), strconv.Itoa(a.Status)...)
	head = append(head, `,"headers":{`...)
	separator := ""
	for name, value := range a.Header {
		head = kv.AppendString(append(head, separator...), name)
		head = kv.AppendString(append(head, ':'), value)
		separator = ","
	}
	head = append(head, `},"body":`...)

	if !utf8.Valid(a.Body) || bytes.HasPrefix(a.Body, []byte(byteOrderMark)) {
		return a.encodeBase64(head)
	}
	// To count what must be escaped is much faster than to grow a large response.
	size := len(head) + len(a.Body) + bytes.Count(a.Body, quote) + bytes.Count(a.Body, backslash) + 64
	response = kv.AppendString(append(make([]byte, 0, size), head...), a.Body)
	response = append(response, `,"isBase64Encoded":false}`...)
	if len(response) <= kv.MaxResponseBytes {
		return response, true
	}
	return a.encodeBase64(head)
}

func (a *Response) encodeBase64(head []byte) (response []byte, ok bool) {
	response = append(make([]byte, 0, len(head)+base64.StdEncoding.EncodedLen(len(a.Body))+64), head...)
	response = base64.StdEncoding.AppendEncode(append(response, '"'), a.Body)
	response = append(response, `","isBase64Encoded":true}`...)
	return response, len(response) <= kv.MaxResponseBytes
}
