package export

import (
	"bytes"
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

type client struct {
	http       *http.Client
	url, token string
	patience   time.Duration // how long a request is repeated
}

func newClient(o Options) *client {
	c := &client{http: o.Client, url: strings.TrimRight(o.URL, "/") + "/.netlify/functions/kv-query", token: o.Token, patience: 2 * time.Minute}
	if c.http == nil {
		c.http = http.DefaultClient
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
		return page{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return page{}, fmt.Errorf("the answer broke off after %d bytes: %w", len(text), err)
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

func refused(status int, body []byte) *Refused {
	var e struct{ Error, Code string }
	if json.Unmarshal(body, &e) != nil || e.Error == "" {
		e.Error = http.StatusText(status) + ", and not in words of kv-query: is this the address of the site?"
	}
	return &Refused{status, e.Code, e.Error}
}
