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

// Refused is an answer of kv-query that is none to go on from.
type Refused struct {
	Status  int
	Code    string // what the function said, for programs
	Message string // and for people
}

func (r *Refused) Error() string {
	return fmt.Sprintf("kv-query answered %d: %s", r.Status, r.Message)
}

// tooMuch tells whether fewer entries at once may go through.
func tooMuch(err error) bool {
	var refused *Refused
	return errors.As(err, &refused) && (refused.Status == http.StatusRequestEntityTooLarge || refused.Status == http.StatusGatewayTimeout)
}

// passing are statuses after which the same request may go through soon.
var passing = []int{http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable}

// notConfigured is the code of a 503 that stays until somebody sets what it names.
const notConfigured = "not_configured"

// Silent is a server that stopped sending.
type Silent struct {
	For   time.Duration // how long it had sent nothing
	After int           // bytes of the answer
}

func (s *Silent) Error() string {
	if s.After == 0 {
		return fmt.Sprintf("kv-query sent nothing for %s", s.For)
	}
	return fmt.Sprintf("kv-query sent nothing for %s, after %d bytes of an answer", s.For, s.After)
}

// DefaultStall is longer than Netlify lets a function think before the first byte of its answer: 60 s.
const DefaultStall = 75 * time.Second

// defaultPatience is how long a request is repeated.
const defaultPatience = 2 * time.Minute

type client struct {
	http       *http.Client
	url, token string
	stall      time.Duration
	patience   time.Duration
	warn       func(string)
}

func newClient(o Options, patience time.Duration) *client {
	c := &client{http: o.Client, url: strings.TrimRight(o.URL, "/") + "/.netlify/functions/kv-query", token: o.Token,
		stall: cmp.Or(o.Stall, DefaultStall), patience: patience, warn: o.Warn}
	if c.http == nil {
		// A connection of HTTP/2 whose other side is gone would be used for the next attempt as well.
		c.http = &http.Client{Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: time.Minute,
			HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
		}}
	}
	return c
}

// page is one answer.
type page struct {
	body    []byte
	count   int
	hasMore bool
	cursor  string
	notices []string // their codes
}

// ask sends a query, again while what went wrong may pass.
func (c *client) ask(ctx context.Context, query map[string]json.RawMessage) (page, error) {
	body, err := json.Marshal(query)
	if err != nil {
		return page{}, fmt.Errorf("write the query as JSON: %w", err)
	}
	var last error
	a, err := backoff.Retry(ctx, func() (page, error) {
		a, err := c.once(ctx, body)
		last = err
		var silent *Silent
		if errors.As(err, &silent) && c.warn != nil {
			c.warn(err.Error() + ": asking again")
		}
		var refused *Refused
		if errors.As(err, &refused) && (!slices.Contains(passing, refused.Status) || refused.Code == notConfigured) {
			return a, backoff.Permanent(err)
		}
		var wait *backoff.RetryAfterError
		if errors.As(err, &wait) {
			last = fmt.Errorf("kv-query answered 429: too many requests")
		}
		return a, err
	}, backoff.WithMaxElapsedTime(c.patience))
	if err != nil && ctx.Err() == nil && last != nil {
		err = last
	}
	return a, err
}

func (c *client) once(ctx context.Context, body []byte) (page, error) {
	ctx, heard := listen(ctx, c.stall)
	defer heard.stop()
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
		return page{}, heard.explain(ctx, err)
	}
	defer response.Body.Close()
	heard.again()
	text, err := io.ReadAll(io.TeeReader(response.Body, heard))
	if err != nil {
		return page{}, heard.explain(ctx, fmt.Errorf("the answer broke off after %d bytes: %w", len(text), err))
	}
	if response.StatusCode != http.StatusOK {
		if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && slices.Contains(passing, response.StatusCode) {
			return page{}, backoff.RetryAfter(seconds)
		}
		return page{}, refused(response.StatusCode, text)
	}
	a := page{body: text, hasMore: response.Header.Get("X-KV-Has-More") == "true", cursor: response.Header.Get("X-KV-Next-Cursor"),
		notices: strings.Split(response.Header.Get("X-KV-Notice"), ", ")}
	if a.count, err = strconv.Atoi(response.Header.Get("X-KV-Count")); err != nil && response.Header.Get("Content-Disposition") != "" {
		return page{}, &Refused{response.StatusCode, "", "without X-KV-Count: something between here and the function drops its headers"}
	}
	return a, nil
}

// listener ends a request's context when nothing was heard for too long. What is written to it was heard.
type listener struct {
	stall  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
	bytes  int
}

var errSilent = errors.New("nothing was heard")

func listen(ctx context.Context, stall time.Duration) (context.Context, *listener) {
	ctx, cancel := context.WithCancelCause(ctx)
	l := &listener{stall: stall, cancel: cancel}
	l.timer = time.AfterFunc(stall, func() { cancel(errSilent) })
	return ctx, l
}

func (l *listener) again() { l.timer.Reset(l.stall) }

func (l *listener) Write(p []byte) (int, error) {
	l.bytes += len(p)
	l.again()
	return len(p), nil
}

// explain is what ended a request: its error, or silence.
func (l *listener) explain(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errSilent) {
		return &Silent{l.stall, l.bytes}
	}
	return err
}

func (l *listener) stop() {
	l.timer.Stop()
	l.cancel(nil)
}

func refused(status int, body []byte) *Refused {
	var e struct{ Error, Code string }
	if json.Unmarshal(body, &e) != nil || e.Error == "" {
		e.Error = http.StatusText(status) + ", and not in words of kv-query: is this the address of the site?"
	}
	return &Refused{status, e.Code, e.Error}
}
