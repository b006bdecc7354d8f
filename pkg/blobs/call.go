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

// acceptSigned requests a signed URL from the API instead of a value (SIGNED_URL_ACCEPT_HEADER in @netlify/blobs).
const acceptSigned = "application/json;type=signed-url"

// call is one operation. Each attempt sends it anew.
type call struct {
	op       string // as in [Error]
	method   string
	key      string     // "" for the store
	query    url.Values // of a list
	header   http.Header
	metadata string // as a header's value
	body     []byte
	most     int64 // bytes of the response's body, beyond which it is [ErrTooLarge]; 0: no limit

	conditional bool // the header has a condition
}

// response is one that was read completely.
type response struct {
	op          string
	signed      bool // it came from a signed URL
	conditional bool // it is to a conditional write
	status      int
	header      http.Header
	body        []byte
	secrets     []string // must not be in a message
}

// run makes attempts until judge returns a result, or an error that is not transient. If the context's access is
// refused, it starts again with the client's own, if there is one.
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

// attempt sends the call once. Its errors are transient unless the access itself is wrong.
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
		header.Set(MetadataHeader, call.metadata)
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
		got.secrets = append(got.secrets, u.RawQuery) // the signature, which a message could quote alone
	}
	return got, nil
}

// signs reports whether the call goes through a signed URL (getFinalRequest in @netlify/blobs).
func (a Access) signs(call call) bool {
	return !a.edge() && call.key != "" && (call.method == http.MethodGet || call.method == http.MethodPut)
}

// sign returns the signed URL for the call, which takes it without the token.
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
		return nil, got.malformed("the response has no signed URL")
	}
	return parseAddress(to.URL)
}

// unexpected returns the [*Error] for a status that does not mean success.
func (r response) unexpected() error {
	e := &Error{Op: r.op, Status: r.status, Message: r.message(), RetryAfter: r.retryAfter(time.Now())}
	if r.isTransient() {
		return &upstream.TransientError{Err: e, After: e.RetryAfter}
	}
	return e
}

// isTransient is the list of statuses that another attempt may not get.
func (r response) isTransient() bool {
	switch r.status {
	case http.StatusTooManyRequests:
		return true
	case http.StatusForbidden: // an expired signed URL
		return r.signed
	case http.StatusConflict: // S3 refuses one of two simultaneous conditional writes, whatever their conditions
		return r.conditional
	}
	return r.status >= 500
}

// malformed returns the error for a successful status with a useless body: a gateway's page, as during maintenance.
func (r response) malformed(message string) error {
	return &upstream.TransientError{Err: &Error{Op: r.op, Status: r.status, Message: message}}
}

// maxMessageBytes bounds what [Error.Message] quotes of the service's message.
const maxMessageBytes = 300

// message returns the service's message and request id, which are headers, as in @netlify/blobs. It never quotes a
// body: those of signed URLs quote the request.
func (r response) message() string {
	text := cmp.Or(r.header.Get("X-Nf-Error"), strings.ToLower(http.StatusText(r.status)), "not a response of Netlify Blobs")
	if id := r.header.Get("X-Nf-Request-Id"); id != "" {
		text += ", request " + id
	}
	text = strings.ToValidUTF8(text, "") // before the search: removing bytes could complete a secret
	for _, secret := range r.secrets {
		text = strings.ReplaceAll(text, secret, "…")
	}
	return strings.ToValidUTF8(text[:min(len(text), maxMessageBytes)], "")
}

// retryAfter returns how long the service asks to wait, or 0: Retry-After, else X-RateLimit-Reset in seconds of Unix
// time (retry.ts in @netlify/blobs). Every response has a reset, which asks to wait only with status 429.
func (r response) retryAfter(now time.Time) time.Duration {
	wait, ok := upstream.RetryAfter(r.header, now)
	if !ok && r.status == http.StatusTooManyRequests {
		wait = upstream.Wait(r.resetAt().Sub(upstream.Now(r.header, now)))
	}
	return wait
}

// resetAt returns when the service starts counting again; the zero time if it does not say.
func (r response) resetAt() time.Time {
	reset, err := strconv.ParseInt(r.header.Get("X-RateLimit-Reset"), 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(reset, 0)
}

// mayHaveApplied reports whether the service may have applied the attempt that ended so.
func mayHaveApplied(got response, err error) bool {
	var none *noResponseError
	return got.status >= 500 || errors.As(err, &none)
}
