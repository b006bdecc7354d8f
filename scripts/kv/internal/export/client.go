package export

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Refused is a response of kv-query that ends the export.
type Refused struct {
	Status  int
	Code    string // the function's error code
	Message string // the function's error message
}

func (r *Refused) Error() string {
	return fmt.Sprintf("kv-query answered %d: %s", r.Status, r.Message)
}

// needsSmallerPage reports whether a request for fewer entries may succeed.
func needsSmallerPage(err error) bool {
	var refused *Refused
	return errors.As(err, &refused) && (refused.Status == http.StatusRequestEntityTooLarge || refused.Status == http.StatusGatewayTimeout)
}

// transient are the statuses after which the same request may soon succeed.
var transient = []int{http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable}

// notConfigured is the code of a 503 that stays until somebody sets a variable.
const notConfigured = "not_configured"

// Stalled is the error for a server that stopped sending.
type Stalled struct {
	For   time.Duration // time without a byte
	After int           // bytes of the response until then
}

func (s *Stalled) Error() string {
	if s.After == 0 {
		return fmt.Sprintf("kv-query sent nothing for %s", s.For)
	}
	return fmt.Sprintf("kv-query sent nothing for %s after %d bytes of a response", s.For, s.After)
}

// DefaultStall is longer than the 60 s that Netlify gives a function until the first byte of its response.
const DefaultStall = 75 * time.Second

// defaultRetryTime is how long a request is retried.
const defaultRetryTime = 2 * time.Minute

type client struct {
	http       *http.Client
	url, token string
	stall      time.Duration
	retryTime  time.Duration
	warn       func(string)
}

func newClient(o Options, retryTime time.Duration) *client {
	c := &client{http: o.Client, url: strings.TrimRight(o.URL, "/") + "/.netlify/functions/kv-query", token: o.Token,
		stall: cmp.Or(o.Stall, DefaultStall), retryTime: retryTime, warn: o.Warn}
	if c.http == nil {
		// Pings detect a dead HTTP/2 connection, which the next attempt would otherwise use again.
		c.http = &http.Client{Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: time.Minute,
			HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
		}}
	}
	return c
}

// page is one response.
type page struct {
	body    []byte
	count   int
	hasMore bool
	cursor  string
	notices []string // codes
}

// ask sends a query, and retries transient failures.
func (c *client) ask(ctx context.Context, query map[string]json.RawMessage) (page, error) {
	body, err := json.Marshal(query)
	if err != nil {
		return page{}, fmt.Errorf("write the query as JSON: %w", err)
	}
	var last error
	a, err := backoff.Retry(ctx, func() (page, error) {
		a, err := c.once(ctx, body)
		last = err
		var refused *Refused
		if errors.As(err, &refused) {
			last = refused // without the time to wait
			if !slices.Contains(transient, refused.Status) || refused.Code == notConfigured {
				return a, backoff.Permanent(refused)
			}
		}
		return a, err
	}, backoff.WithMaxElapsedTime(c.retryTime), backoff.WithNotify(func(_ error, _ time.Duration) {
		if c.warn != nil {
			c.warn(last.Error() + ": retrying")
		}
	}))
	if err != nil && ctx.Err() == nil && last != nil {
		err = last
	}
	return a, err
}

func (c *client) once(ctx context.Context, body []byte) (page, error) {
	ctx, watch := watchStall(ctx, c.stall)
	defer watch.stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return page{}, backoff.Permanent(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return page{}, watch.cause(ctx, err)
	}
	defer response.Body.Close()
	watch.reset()
	text, err := io.ReadAll(io.TeeReader(response.Body, watch))
	if err != nil {
		return page{}, watch.cause(ctx, fmt.Errorf("the response ended early, after %d bytes: %w", len(text), err))
	}
	if response.StatusCode != http.StatusOK {
		err := error(refused(response.StatusCode, text))
		if seconds, notSeconds := strconv.Atoi(response.Header.Get("Retry-After")); notSeconds == nil {
			err = errors.Join(err, backoff.RetryAfter(seconds))
		}
		return page{}, err
	}
	a := page{body: text, hasMore: response.Header.Get("X-KV-Has-More") == "true", cursor: response.Header.Get("X-KV-Next-Cursor"),
		notices: strings.Split(response.Header.Get("X-KV-Notice"), ", ")}
	if a.count, err = strconv.Atoi(response.Header.Get("X-KV-Count")); err != nil && response.Header.Get("Content-Disposition") != "" {
		return page{}, &Refused{response.StatusCode, "", "no X-KV-Count: something between here and the function drops its headers"}
	}
	return a, nil
}

// stallWatch cancels a request's context after too long without a byte. The response's bytes are written to it.
type stallWatch struct {
	stall  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
	bytes  int
}

var errStalled = errors.New("the server stopped sending")

func watchStall(ctx context.Context, stall time.Duration) (context.Context, *stallWatch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &stallWatch{stall: stall, cancel: cancel}
	w.timer = time.AfterFunc(stall, func() { cancel(errStalled) })
	return ctx, w
}

func (w *stallWatch) reset() { w.timer.Reset(w.stall) }

func (w *stallWatch) Write(p []byte) (int, error) {
	w.bytes += len(p)
	w.reset()
	return len(p), nil
}

// cause returns why a request ended: a stall, or else err.
func (w *stallWatch) cause(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errStalled) {
		return &Stalled{w.stall, w.bytes}
	}
	return err
}

func (w *stallWatch) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

func refused(status int, body []byte) *Refused {
	var e struct{ Error, Code string }
	if json.Unmarshal(body, &e) != nil || e.Error == "" {
		e.Error = http.StatusText(status) + ", without an error message of kv-query: is this the site's address?"
	}
	return &Refused{status, e.Code, e.Error}
}
