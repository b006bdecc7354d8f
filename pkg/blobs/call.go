package blobs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"netlify-supabase-kv/pkg/upstream"
)

// acceptSigned asks the API for a signed URL in place of a value (SIGNED_URL_ACCEPT_HEADER in @netlify/blobs).
const acceptSigned = "application/json;type=signed-url"

// call is one operation, as each of its attempts sends it.
type call struct {
	op       string // as in [Error]
	method   string
	key      string     // "" for the store
	query    url.Values // of a list
	header   http.Header
	metadata string // as a header's value
	body     []byte
	most     int64 // bytes of an answer's body; with more it is [ErrTooLarge]. 0: any number

	conditional bool // the header has a condition
}

// answer is a response that was read to its end.
type response struct {
	op          string
	signed      bool // by a signed URL
	conditional bool // of a conditional write
	status      int
	header      http.Header
	body        []byte
	secrets     []string // not to be quoted
}

// run makes attempts at the call until judge has a result or an error that is not transient. Where the way that the context gives is
// refused, they begin anew by the client's own, if it has one.
func run[T any](
	ctx context.Context, c *Client, call call, judge func(context.Context, response, error) (T, error),
) (none T, _ error) {
	a, from, err := c.access(ctx)
	if err != nil {
		return none, err
	}
	result, err := runBy(ctx, c, a, call, judge)
	if from == nil || !Refused(err) || !c.own(ctx).Usable() {
		return result, err
	}
	from.refused.Store(true)
	return runBy(ctx, c, c.own(ctx), call, judge)
}

func runBy[T any](
	ctx context.Context, c *Client, a Access, call call, judge func(context.Context, response, error) (T, error),
) (T, error) {
	policy := c.retry
	if !a.edge() {
		policy.Admit = func(ctx context.Context, end time.Time) error { return c.limiter.wait(ctx, call.op, end) }
	}
	return upstream.Retry(ctx, policy, func(ctx context.Context) (T, error) {
		got, err := c.attempt(ctx, a, call)
		return judge(ctx, got, err)
	})
}

// attempt sends the call once. Its errors are transient, except for what is wrong with the access.
func (c *Client) attempt(ctx context.Context, a Access, call call) (response, error) {
	if !validHeaderText(a.EdgeToken) || !validHeaderText(a.APIToken) {
		return response{}, errors.New("the token for Blobs has a space, a line break or another character that no token has")
	}
	u, err := a.address(c.store, call.key, call.query)
	if err != nil {
		return response{}, err
	}
	header := maps.Clone(call.header)
	if header == nil {
		header = http.Header{}
	}
	signed := a.signs(call)
	if signed {
		if u, err = c.sign(ctx, a, call, u); err != nil {
			return response{}, err
		}
	} else {
		header.Set("Authorization", "Bearer "+a.token())
	}
	if call.metadata != "" {
		header.Set(headerMetadata, call.metadata)
	}
	got, err := exchange(ctx, call.method, u, header, call.body, call.most)
	switch {
	case errors.Is(err, ErrTooLarge):
		return response{}, err
	case err != nil:
		return response{}, &upstream.TransientError{Err: &noResponseError{call.op, err}}
	case !a.edge() && !signed:
		c.limiter.learn(got)
	}
	got.op, got.signed, got.conditional = call.op, signed, call.conditional
	got.secrets = []string{u.String(), a.token()}
	if signed && u.RawQuery != "" {
		got.secrets = append(got.secrets, u.RawQuery) // the signature, wherever the rest of the address is left out
	}
	return got, nil
}

// signs tells whether the call goes through a signed URL (getFinalRequest in @netlify/blobs).
func (a Access) signs(call call) bool {
	return !a.edge() && call.key != "" && (call.method == http.MethodGet || call.method == http.MethodPut)
}

// sign asks the API for the URL under which the call is made without the token.
func (c *Client) sign(ctx context.Context, a Access, call call, u *url.URL) (*url.URL, error) {
	header := http.Header{"Authorization": {"Bearer " + a.token()}, "Accept": {acceptSigned}}
	if call.metadata != "" {
		header.Set(headerMetadataAPI, call.metadata)
	}
	got, err := exchange(ctx, call.method, u, header, nil, 0)
	if err != nil {
		return nil, &upstream.TransientError{Err: fmt.Errorf("blobs: %s: ask for a signed URL: %w", call.op, err)}
	}
	c.limiter.learn(got)
	got.op, got.secrets = call.op, []string{a.token()}
	if got.status != http.StatusOK {
		return nil, got.unexpected()
	}
	var to struct{ URL string }
	if json.Unmarshal(got.body, &to) != nil || to.URL == "" {
		return nil, got.malformed("the answer has no signed URL")
	}
	return parseAddress(to.URL)
}

// unexpected makes an [*Error] of an answer whose status means no success.
func (r response) unexpected() error {
	e := &Error{Op: r.op, Status: r.status, Message: r.message(), RetryAfter: r.retryAfter(time.Now())}
	if r.isTransient() {
		return &upstream.TransientError{Err: e, After: e.RetryAfter}
	}
	return e
}

// isTransient tells which answers another attempt may not get.
func (r response) isTransient() bool {
	switch r.status {
	case http.StatusTooManyRequests:
		return true
	case http.StatusForbidden: // a signed URL that has expired
		return r.signed
	case http.StatusConflict: // S3 turns down one of two conditional writes that came at once, whatever their conditions
		return r.conditional
	}
	return r.status >= 500
}

// malformed is for an answer whose status means success and whose body does not: a gateway's page, as during maintenance.
func (r response) malformed(message string) error {
	return &upstream.TransientError{Err: &Error{Op: r.op, Status: r.status, Message: message}}
}

// maxMessageBytes bounds what is taken over of the service's own sentence.
const maxMessageBytes = 300

// message is the service's own sentence and its id for the request, both in headers, as @netlify/blobs reads them. Bodies
// are left alone: those behind signed URLs quote the request.
func (r response) message() string {
	text := cmp.Or(r.header.Get("X-Nf-Error"), strings.ToLower(http.StatusText(r.status)), "not an answer of Netlify Blobs")
	if id := r.header.Get("X-Nf-Request-Id"); id != "" {
		text += ", request " + id
	}
	text = strings.ToValidUTF8(text, "") // first: what is left when bytes are taken out could be a secret
	for _, secret := range r.secrets {
		text = strings.ReplaceAll(text, secret, "…")
	}
	return strings.ToValidUTF8(text[:min(len(text), maxMessageBytes)], "")
}

// retryAfter is how long the service asks to wait, 0 if it does not: Retry-After, or else with 429 X-RateLimit-Reset, a second in Unix
// time (retry.ts in @netlify/blobs). Other answers have a reset too, and do not mean it.
func (r response) retryAfter(now time.Time) time.Duration {
	wait, ok := upstream.RetryAfter(r.header, now)
	if !ok && r.status == http.StatusTooManyRequests {
		wait = upstream.Wait(r.resetAt().Sub(upstream.Now(r.header, now)))
	}
	return wait
}

// resetAt is when the service begins to count anew; long ago where it does not say.
func (r response) resetAt() time.Time {
	reset, err := strconv.ParseInt(r.header.Get("X-RateLimit-Reset"), 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(reset, 0)
}

// mayHaveApplied tells whether the attempt that ended so could have been carried out.
func mayHaveApplied(got response, err error) bool {
	var none *noResponseError
	return got.status >= 500 || errors.As(err, &none)
}
