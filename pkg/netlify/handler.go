package netlify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/config"
	"netlify-supabase-kv/pkg/kv"
)

// Endpoint is one function.
type Endpoint struct {
	Name string // for the log, as in kv-list
	// Reads are the methods that only read: KV_READ_TOKEN is enough for them. HEAD comes with GET. Browsers must
	// revalidate the responses of an endpoint that has any.
	Reads []string
	// Writes are the methods that may change entries.
	Writes []string
	// Stats returns the counters of the cache; nil without a cache.
	Stats func() kv.CacheStats
	// Refuse adds headers to the response to an error; nil adds none.
	Refuse func(header map[string]string, e *kv.Error, status int, now time.Time)
	Run    func(ctx context.Context, r *Request) (*Response, error)
}

// methods are those that the endpoint serves, besides OPTIONS and HEAD.
func (e Endpoint) methods() []string { return slices.Concat(e.Reads, e.Writes) }

// Handler serves an endpoint. It implements lambda.Handler.
type Handler struct {
	endpoint Endpoint
	access   access
	log      *slog.Logger
	now      func() time.Time
}

// Handle returns the handler of an endpoint, with the environment's tokens and a log on standard output.
func Handle(endpoint Endpoint) *Handler { return HandleWithLog(endpoint, newLog()) }

// HandleWithLog is [Handle] with another log.
func HandleWithLog(endpoint Endpoint, log *slog.Logger) *Handler {
	var tokens config.Access
	_ = config.Read(&tokens, os.Getenv) // any text is one
	return &Handler{
		endpoint: endpoint,
		access:   accessFrom(tokens),
		log:      log,
		now:      time.Now,
	}
}

func newLog() *slog.Logger { return slog.New(slog.NewJSONHandler(os.Stdout, nil)) }

// responseReserve is the part of the invocation's time that is left for the response that says the time is over.
const responseReserve = 500 * time.Millisecond

// Invoke returns the response to one event. The error is always nil: every failure becomes a response.
func (h *Handler) Invoke(ctx context.Context, event []byte) ([]byte, error) {
	start := h.now()
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-responseReserve))
		defer cancel()
	}
	request := Request{now: h.now}
	response, err := h.run(ctx, event, &request)
	if err != nil {
		response = h.refuse(err)
	}
	err = response.err // an endpoint may have made the response to an error itself
	took := h.now().Sub(start)
	response.Header = h.headers(&request, response)
	response.Header["Server-Timing"] = serverTiming(response.result, took)
	encoded, fits := response.encode()
	if !fits {
		err = &kv.Error{Code: kv.CodeTooLarge, Message: "the answer does not fit into the 6 MB of a response, with its quotes and backslashes escaped:" +
			" page with limit, leave values out, or keep a large value in parts"}
		refused := h.refuse(err)
		refused.result = response.result
		response = refused
		response.Header = h.headers(&request, response)
		encoded, _ = response.encode()
	}
	if request.head {
		response.dropBody()
		encoded, _ = response.encode()
	}
	h.logRequest(ctx, &request, response, err, h.now().Sub(start))
	return encoded, nil
}

// refuse returns the response to an error.
func (h *Handler) refuse(err error) *Response {
	response := errorResponse(err, h.now())
	if h.endpoint.Refuse != nil {
		h.endpoint.Refuse(response.Header, publicError(err), response.Status, h.now())
	}
	return response
}

// run decodes the event and runs the endpoint. A panic becomes an error.
func (h *Handler) run(ctx context.Context, event []byte, request *Request) (response *Response, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
		}
	}()
	if err := decodeEvent(event, request); err != nil {
		return nil, kv.Invalid("the event must be an HTTP request as Netlify sends it")
	}
	if request.HTTPMethod == http.MethodHead { // like GET, without the body (RFC 9110, section 9.3.2)
		request.head, request.HTTPMethod = true, http.MethodGet
	}
	switch {
	case request.HTTPMethod == http.MethodOptions:
		return &Response{Status: http.StatusOK}, nil
	case !slices.Contains(h.endpoint.methods(), request.HTTPMethod):
		return nil, &kv.Error{Code: kv.CodeMethodNotAllowed, Message: "Method Not Allowed"}
	}
	if err := h.access.check(request.Headers.Authorization, slices.Contains(h.endpoint.Reads, request.HTTPMethod)); err != nil {
		return nil, err
	}
	return h.endpoint.Run(blobs.WithEvent(ctx, request.Blobs, request.Headers.SiteID), request)
}

// exposedHeaders are the response headers that a browser's script may read. Netlify adds X-Nf-Request-Id.
const exposedHeaders = "Content-Type, Content-Length, Last-Modified, ETag, Age, Server-Timing, X-KV-Metadata, X-KV-Expires," +
	" X-Amz-Meta-User, X-TTL, X-Nf-Error, X-RateLimit-Reset," +
	" X-KV-Version, X-KV-Cache, X-KV-Cache-Stats, X-KV-Compare, X-KV-Count, X-KV-Has-More, X-KV-Next-Cursor, X-KV-Notice, X-KV-Release, Content-Disposition, Retry-After, X-Nf-Request-Id"

// allowedHeaders are the request headers that a browser's script may send: those that the functions read, and those
// that libraries for tracing add (W3C Trace Context and Baggage; Sentry).
const allowedHeaders = "Content-Type, Authorization, Cache-Control, If-Match, If-None-Match, X-KV-After, X-KV-Cache," +
	" X-KV-TTL, X-KV-Expires, X-KV-Metadata, X-Amz-Meta-User, X-TTL, Idempotency-Key, traceparent, tracestate, baggage, sentry-trace"

// preflightSeconds is how long a browser may keep the response to a preflight: two hours, Chromium's maximum.
const preflightSeconds = "7200"

// headers returns the headers of every response, and the response's own.
func (h *Handler) headers(request *Request, response *Response) map[string]string {
	header := map[string]string{
		"Access-Control-Allow-Origin":   "*",
		"Access-Control-Expose-Headers": exposedHeaders,
		"Content-Type":                  "application/json",
		// A browser that opens the address must not show a value as a page.
		"X-Content-Type-Options": "nosniff",
		"X-KV-Release":           kv.Release,
	}
	switch {
	case request.HTTPMethod == http.MethodOptions:
		header["Access-Control-Allow-Methods"] = h.methods()
		header["Access-Control-Allow-Headers"] = allowedHeaders
		header["Access-Control-Max-Age"] = preflightSeconds
	case response.Status == http.StatusMethodNotAllowed:
		header["Allow"] = strings.Replace(h.methods(), "GET", "GET, HEAD", 1)
	}
	if len(h.endpoint.Reads) > 0 {
		header["Cache-Control"] = "no-cache"
		header["Timing-Allow-Origin"] = "*"
	}
	if h.endpoint.Stats != nil && request.HTTPMethod != http.MethodOptions {
		header["X-KV-Cache-Stats"] = cacheStats(h.endpoint.Stats())
	}
	maps.Copy(header, response.Header)
	return header
}

// methods returns what a preflight allows. HEAD needs no permission, like GET (Fetch standard, CORS-safelisted
// methods).
func (h *Handler) methods() string {
	return strings.Join(append(h.endpoint.methods(), http.MethodOptions), ", ")
}

// maxRequestID bounds a request's id in the log, in bytes. Netlify's have 26.
const maxRequestID = 64

// logRequest writes one line, without keys, values and tokens.
func (h *Handler) logRequest(ctx context.Context, request *Request, response *Response, err error, took time.Duration) {
	level, attributes := slog.LevelInfo, []slog.Attr{
		slog.String("function", h.endpoint.Name),
		slog.String("method", request.method()),
		slog.Int("status", response.Status),
		slog.Float64("duration_ms", milliseconds(took)),
		slog.Int("bytes", len(response.Body)),
	}
	if id := request.Headers.RequestID; id != "" { // also in Netlify's log, and in the response's X-Nf-Request-Id
		attributes = append(attributes, slog.String("request_id", id[:min(len(id), maxRequestID)]))
	}
	if response.result != nil {
		attributes = append(attributes, slog.String("cache", string(response.result.Source)), slog.Float64("staleness_ms", milliseconds(response.result.Age)),
			slog.Float64("database_ms", milliseconds(response.result.Database)))
	}
	if h.endpoint.Stats != nil {
		attributes = append(attributes, slog.Any("cache_stats", h.endpoint.Stats()))
	}
	if err != nil {
		attributes = append(attributes, slog.String("code", string(kv.CodeOf(err))))
	}
	if response.Status >= 500 {
		level = slog.LevelError
		attributes = append(attributes, slog.String("error", causeOf(err)))
	}
	h.log.LogAttrs(ctx, level, "request", attributes...)
}

// causeOf returns an error for the log: its operation and its cause, if it has one. The message is for the caller,
// and may name a key.
func causeOf(err error) string {
	var e *kv.Error
	switch {
	case !errors.As(err, &e) || e.Err == nil:
		return err.Error()
	case e.Op == "":
		return e.Err.Error()
	default:
		return e.Op + ": " + e.Err.Error()
	}
}
