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
}

// answer is a response that was read to its end.
type response struct {
	op      string
	signed  bool // by a signed URL
	status  int
	header  http.Header
	body    []byte
	secrets []string // not to be quoted
}

// run makes attempts at the call until judge has a result or an error that is not [passing]. Where the way that the context gives is
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
		policy.admit = func(ctx context.Context, end time.Time) error { return c.limiter.wait(ctx, call.op, end) }
	}
	return retry(ctx, policy, func(ctx context.Context) (T, error) {
		got, err := c.attempt(ctx, a, call)
		return judge(ctx, got, err)
	})
}

// attempt sends the call once. Its errors are [passing], except for what is wrong with the access.
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
		return response{}, transientError{error: fmt.Errorf("blobs: %s: %w", call.op, err), mayHaveApplied: true}
	case !a.edge() && !signed:
		c.limiter.learn(got)
	}
	got.op, got.signed, got.secrets = call.op, signed, []string{u.String(), a.token()}
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
		return nil, transientError{error: fmt.Errorf("blobs: %s: ask for a signed URL: %w", call.op, err)}
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

// unexpected makes an [*Error] of an answer whose status means no success, and marks it [passing] where that may change.
func (a response) unexpected() error {
	e := &Error{Op: a.op, Status: a.status, Message: a.message(), RetryAfter: a.retryAfter(time.Now())}
	if a.status == http.StatusTooManyRequests || a.status >= 500 || a.signed && a.status == http.StatusForbidden {
		return transientError{error: e, wait: e.RetryAfter}
	}
	return e
}

// nonsense is for a success that is none: a gateway's page, as during maintenance.
func (a response) malformed(message string) error {
	return transientError{error: &Error{Op: a.op, Status: a.status, Message: message}}
}

// maxMessageBytes bounds what is taken over of the service's own sentence.
const maxMessageBytes = 300

// message is the service's own sentence and its id for the request, both in headers, as @netlify/blobs reads them. Bodies
// are left alone: those behind signed URLs quote the request.
func (a response) message() string {
	text := cmp.Or(a.header.Get("X-Nf-Error"), strings.ToLower(http.StatusText(a.status)), "not an answer of Netlify Blobs")
	if id := a.header.Get("X-Nf-Request-Id"); id != "" {
		text += ", request " + id
	}
	text = strings.ToValidUTF8(text, "") // first: what is left when bytes are taken out could be a secret
	for _, secret := range a.secrets {
		text = strings.ReplaceAll(text, secret, "…")
	}
	return strings.ToValidUTF8(text[:min(len(text), maxMessageBytes)], "")
}

// retryAfter is how long the service asks to wait, 0 if it does not: Retry-After in seconds or as a date, and with 429 also
// X-RateLimit-Reset, a second in Unix time (retry.ts in @netlify/blobs). Dates are held against the service's own clock.
// It is at most maxRetryAfter.
func (a response) retryAfter(now time.Time) time.Duration {
	return min(max(0, a.askedToWait(now)), maxRetryAfter)
}

// maxRetryAfter is beyond the time of any request.
const maxRetryAfter = time.Hour

func (a response) askedToWait(now time.Time) time.Duration {
	now = a.clock(now)
	text := a.header.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil {
		return time.Duration(min(seconds, int(maxRetryAfter/time.Second))) * time.Second // a larger number could overflow
	}
	if date, err := http.ParseTime(text); err == nil {
		return date.Sub(now)
	}
	if a.status != http.StatusTooManyRequests { // others have a reset too, and do not mean it
		return 0
	}
	return a.resetAt().Sub(now)
}

// clock is the service's own, if it tells.
func (a response) clock(now time.Time) time.Time {
	if date, err := http.ParseTime(a.header.Get("Date")); err == nil {
		return date
	}
	return now
}

// resetAt is when the service begins to count anew; long ago where it does not say.
func (a response) resetAt() time.Time {
	reset, err := strconv.ParseInt(a.header.Get("X-RateLimit-Reset"), 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(reset, 0)
}

// mayHaveBeenDone tells whether the attempt that ended so could have been carried out.
func mayHaveApplied(got response, err error) bool {
	var again transientError
	return got.status >= 500 || errors.As(err, &again) && again.mayHaveApplied
}
