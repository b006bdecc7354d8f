package kv

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"netlify-supabase-kv/pkg/upstream"
)

// responseType is the media type of the kv_* functions' responses. PostgREST passes such text through unchanged.
const responseType = "application/vnd.kv+json"

// postgrestError is a response that is not a kv_* function's: an error of PostgREST or Postgres, or a gateway's page.
type postgrestError struct {
	Status     int
	Code       string // SQLSTATE, PGRST… or a gateway's; "" when the body has none
	Message    string
	Page       bool // the body is not JSON
	RetryAfter time.Duration
}

// Error omits the messages of data errors (class 22), which quote values.
func (e *postgrestError) Error() string {
	message := e.Message
	if strings.HasPrefix(e.Code, "22") {
		message = "(left out: it may quote a value)"
	}
	return fmt.Sprintf("status %d, code %q: %s", e.Status, e.Code, message)
}

// schemePrefix begins the scheme of addresses that go through [postgrestTransport]. The Supabase client takes no
// transport: it uses http.DefaultTransport, and returns errors as text without their status.
const schemePrefix = "kv+"

// register makes http.DefaultTransport serve the scheme. The standard library's transport supports that. A transport
// that a library for monitoring has put in its place is wrapped, and still gets every other request.
var register = sync.OnceFunc(func() {
	ours := &postgrestTransport{base: upstream.Transport}
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

// CloseIdleConnections is called by [http.Client.CloseIdleConnections].
func (t *schemeTransport) CloseIdleConnections() {
	if closer, ok := t.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		closer.CloseIdleConnections()
	}
}

// viaPostgREST returns the project's address for the Supabase client, whose requests then go through
// [postgrestTransport].
func viaPostgREST(u *url.URL) string {
	register()
	return schemePrefix + u.String()
}

// postgrestTransport passes on responses of the kv_* functions, and turns every other one into a [*postgrestError].
type postgrestTransport struct{ base http.RoundTripper }

func (t *postgrestTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	address := *r.URL
	address.Scheme = strings.TrimPrefix(address.Scheme, schemePrefix)
	r = r.WithContext(r.Context()) // a shallow copy, since a RoundTripper must not change its request
	r.URL, r.Header = &address, neededHeaders(r.Header)
	if body, ok := r.Context().Value(bodyKey{}).([]byte); ok {
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		r.Body, _ = r.GetBody()
		r.ContentLength = int64(len(body))
	}
	response, err := t.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	mediaType, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if response.StatusCode == http.StatusOK && mediaType == responseType {
		return response, nil
	}
	return nil, readPostgrestError(response)
}

// bodyKey is the context's key for the body of a request.
type bodyKey struct{}

// withBody returns a context whose request has the body, in place of the one that the client makes.
func withBody(ctx context.Context, body []byte) context.Context {
	return context.WithValue(ctx, bodyKey{}, body)
}

// needlessHeaders are sent by the Supabase client and not needed to call a function. PostgREST takes 30 µs to read
// them.
var needlessHeaders = []string{"Prefer", "Accept-Profile", "X-Client-Info"}

// secretKeyPrefix begins keys that are not JWTs, which Supabase accepts in the header apikey alone
// (https://supabase.com/docs/guides/api/api-keys).
const secretKeyPrefix = "sb_"

func neededHeaders(all http.Header) http.Header {
	needed := make(http.Header, len(all))
	for name, values := range all {
		if !slices.Contains(needlessHeaders, name) {
			needed[name] = values
		}
	}
	if strings.HasPrefix(all.Get("Apikey"), secretKeyPrefix) {
		needed.Del("Authorization")
	}
	return needed
}

// maxErrorBytes bounds how much of an error is read. PostgREST's are short.
const maxErrorBytes = 64 << 10

func readPostgrestError(response *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(response.Body, maxErrorBytes))
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return fmt.Errorf("read the answer with status %d: %w", response.StatusCode, err)
	}
	e := &postgrestError{Status: response.StatusCode, Message: "not a response of PostgREST", Page: !json.Valid(body)}
	var fields struct {
		Code    *string // a gateway's own errors may have none
		Message string
	}
	if json.Unmarshal(body, &fields) == nil && fields.Code != nil {
		e.Code, e.Message = cmp.Or(*fields.Code, codeConnectionLost), fields.Message
	}
	e.RetryAfter, _ = upstream.RetryAfter(response.Header, time.Now())
	return e
}
