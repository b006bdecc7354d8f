package kv

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// answerType is the media type of the kv_* functions' answers; PostgREST passes such text through untouched.
const answerType = "application/vnd.kv+json"

// answerError is an answer that is not one of ours: PostgREST's or Postgres's error, or a gateway's page.
type answerError struct {
	Status     int
	Code       string // SQLSTATE or PGRST…; empty when the body was not PostgREST's
	Message    string
	RetryAfter time.Duration
}

// Error leaves out the messages of data errors (class 22), which quote values.
func (e *answerError) Error() string {
	message := e.Message
	if strings.HasPrefix(e.Code, "22") {
		message = "(left out: it may quote a value)"
	}
	return fmt.Sprintf("status %d, code %q: %s", e.Status, e.Code, message)
}

// codeConnectionLost, connection_failure, stands for the empty code that PostgREST 12 gives, with status 400, where Postgres ended the
// connection in the middle of a statement, as after a crash of another backend: no SQLSTATE came with that.
const codeConnectionLost = "08006"

var (
	// PostgREST: cannot connect (000–002: docs "Errors", group 0), no connection free in the pool (003).
	// Postgres: deadlock, lock not available, too many connections, shutting down, crashed, starting up; and
	// serialization failure, which no function of ours raises.
	transientCodes    = []string{codeConnectionLost, "PGRST000", "PGRST001", "PGRST002", "PGRST003", "40P01", "55P03", "53300", "57P01", "57P02", "57P03", "40001"}
	transientStatuses = []int{http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout}
)

// transient goes by code first: PostgREST answers a deadlock with status 500. A success that is none of ours is a gateway's
// page, as during maintenance.
func (e *answerError) transient() bool {
	if e.Code != "" {
		return slices.Contains(transientCodes, e.Code)
	}
	return slices.Contains(transientStatuses, e.Status) || e.Status < 300
}

// meaning is what a caller is told.
func (e *answerError) meaning() (Code, string) {
	switch e.Code {
	case "PT400": // raised by a function, in words for the caller
		return CodeInvalidInput, e.Message
	case "PT409": // likewise
		return CodeConditionFailed, e.Message
	case "PT413":
		return CodeTooLarge, e.Message
	case "23514": // a check of the table
		return CodeInvalidInput, "the database refused the key or an index as too long"
	case "22P02", "22P05", "22003", "54001", "54000": // not JSON for Postgres; nested too deeply for its stack
		return CodeUnstorableValue, "the database cannot store the value"
	case "57014": // canceled by statement_timeout
		return CodeDeadlineExceeded, messageDeadline
	case "PGRST202", "42883", "42P01": // no such function or table
		return CodeNotConfigured, "the database lacks the kv_* functions: apply supabase/migrations (supabase db push)"
	case "PGRST301", "PGRST302", "PGRST303", "42501": // bad token, no token, expired token, no privilege
		return CodeNotConfigured, messageRefused
	}
	switch {
	case e.Code == "" && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden):
		return CodeNotConfigured, messageRefused
	case e.Code == "" && e.Status < 500:
		return CodeDatabaseUnreachable, messageNonsense
	case e.Code == "" || e.transient():
		return CodeDatabaseUnreachable, messageUnreachable
	}
	return CodeDatabaseUnreachable, messageFailed
}

// The Supabase client offers no way to give it a transport: it uses http.DefaultTransport, and reports errors as text
// without their status. Requests of a scheme of our own are served differently there, without changing any other.
const schemePrefix = "kv+"

// The standard library's transport can be told so. One that something else, as a library for monitoring, has put in its place cannot, and
// gets one in front of it that leaves it every other request.
var register = sync.OnceFunc(func() {
	ours := &postgrestTransport{base: NewTransport()}
	if standard, ok := http.DefaultTransport.(*http.Transport); ok {
		standard.RegisterProtocol(schemePrefix+"http", ours)
		standard.RegisterProtocol(schemePrefix+"https", ours)
		return
	}
	http.DefaultTransport = &schemeTransport{RoundTripper: http.DefaultTransport, ours: ours}
})

type schemeTransport struct {
	http.RoundTripper
	ours *postgrestTransport
}

func (t *schemeTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasPrefix(r.URL.Scheme, schemePrefix) {
		return t.ours.RoundTrip(r)
	}
	return t.RoundTripper.RoundTrip(r)
}

// CloseIdleConnections is what [http.Client.CloseIdleConnections] asks for.
func (t *schemeTransport) CloseIdleConnections() {
	if closer, ok := t.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		closer.CloseIdleConnections()
	}
}

// viaPostgREST returns the address under which the Supabase client's requests go through postgrestTransport.
func viaPostgREST(u *url.URL) string {
	register()
	return schemePrefix + u.String()
}

// NewTransport returns a transport for an instance that may be frozen between two requests: it keeps connections for less time than any
// gateway does, because such an instance cannot see that the other side has closed one. It asks for nothing to be compressed: PostgREST
// takes time to read the wish, and gateways give what they compress another etag.
func NewTransport() *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		ForceAttemptHTTP2:   true,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 3 * time.Second},
		TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     50 * time.Second,
		DisableCompression:  true,
	}
}

// postgrestTransport passes on answers of the kv_* functions, and makes every other answer an [*answerError].
type postgrestTransport struct{ base http.RoundTripper }

func (t *postgrestTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	address := *r.URL
	address.Scheme = strings.TrimPrefix(address.Scheme, schemePrefix)
	r = r.WithContext(r.Context()) // a shallow copy: a request that was given is not to be changed
	r.URL, r.Header = &address, neededHeaders(r.Header)
	response, err := t.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	mediaType, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if response.StatusCode == http.StatusOK && mediaType == answerType {
		return response, nil
	}
	return nil, readAnswerError(response)
}

// needlessHeaders are what the Supabase client sends and a call of a function does not need. PostgREST takes 30 µs to read them.
var needlessHeaders = []string{"Prefer", "Accept-Profile", "X-Client-Info"}

func neededHeaders(all http.Header) http.Header {
	needed := make(http.Header, len(all))
	for name, values := range all {
		if !slices.Contains(needlessHeaders, name) {
			needed[name] = values
		}
	}
	return needed
}

// maxErrorBytes bounds how much of an error is read: PostgREST's are short, and a gateway's page tells nothing.
const maxErrorBytes = 64 << 10

// maxRetryAfter bounds how many seconds a Retry-After is taken to ask for. It is beyond the time of any request, and a
// number that anybody may send does not overflow.
const maxRetryAfter = 3600

func readAnswerError(response *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(response.Body, maxErrorBytes))
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return fmt.Errorf("read the answer with status %d: %w", response.StatusCode, err)
	}
	e := &answerError{Status: response.StatusCode, Message: "not an answer of PostgREST"}
	var fields struct {
		Code    *string // a gateway's own errors have none
		Message string
	}
	if json.Unmarshal(body, &fields) == nil && fields.Code != nil {
		e.Code, e.Message = cmp.Or(*fields.Code, codeConnectionLost), fields.Message
	}
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.RetryAfter = time.Duration(min(seconds, maxRetryAfter)) * time.Second
	}
	return e
}
