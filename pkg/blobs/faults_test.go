package blobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"

	"netlify-supabase-kv/pkg/blobs/blobstest"

	"netlify-supabase-kv/pkg/upstream"
)

// TestTransientFaults runs every operation many times on a service that fails at a rate.
func TestTransientFaults(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		faults  blobstest.Faults
		counts  []string
		apiOnly bool
	}{
		"ServerError": {blobstest.Faults{ServerError: 0.3}, []string{"server_error"}, false},
		"Delayed":     {blobstest.Faults{Delayed: 0.3, DelayMS: 20}, []string{"delayed"}, false},
		"CutOff":      {blobstest.Faults{CutOff: 0.3}, []string{"cut_off"}, false},
		"LostAnswer":  {blobstest.Faults{LostAnswer: 0.3}, []string{"lost_answer"}, false},
		"ExpiredURL":  {blobstest.Faults{ExpiredURL: 0.3}, []string{"expired_url"}, true},
		"All": {
			blobstest.Faults{ServerError: 0.1, Delayed: 0.1, DelayMS: 10, CutOff: 0.1, LostAnswer: 0.1, ExpiredURL: 0.1},
			[]string{"server_error", "delayed", "cut_off", "lost_answer"}, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachWay(t, blobstest.Options{PageSize: 10}, func(t *testing.T, s *standIn, c *Client) {
				if tt.apiOnly && c.fallback.edge() {
					t.Skip("the edge has no signed URLs")
				}
				faults := tt.faults
				faults.Seed = 1
				end := s.setFaults(t, faults)
				everything(t, c)
				counts := end()
				for _, fault := range tt.counts {
					require.Positive(t, counts[fault], fault)
				}
			})
		})
	}
}

// everything writes, lists, reads and deletes 30 blobs, three at a time.
func everything(t *testing.T, c *Client) {
	t.Helper()
	want := []string{}
	eachKey := func(run func(key string) error) {
		var wg sync.WaitGroup
		for part := range 3 {
			wg.Go(func() {
				for i := range 10 {
					if err := run(fmt.Sprint("k/", part, i)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	for i := range 30 {
		want = append(want, fmt.Sprint("k/", i/10, i%10))
	}
	eachKey(func(key string) error {
		etag, err := c.Set(t.Context(), key, []byte("first of "+key), SetOptions{IfNew: true, Metadata: `{"n":1}`})
		if err != nil {
			return err
		}
		_, err = c.Set(t.Context(), key, []byte("value of "+key), SetOptions{IfMatch: etag, Metadata: `{"n":2}`})
		return err
	})
	require.Equal(t, want, keys(t, c, "k/"))
	eachKey(func(key string) error {
		got, err := c.Get(t.Context(), key)
		if err == nil && (string(got.Value) != "value of "+key || got.Metadata != `{"n":2}`) {
			err = fmt.Errorf("%s holds %q with %q", key, got.Value, got.Metadata)
		}
		head, headErr := c.Head(t.Context(), key)
		if head.ETag != got.ETag {
			err = errors.Join(err, errors.New("another etag"))
		}
		return errors.Join(err, headErr)
	})
	eachKey(func(key string) error { return c.Delete(t.Context(), key) })
	require.Empty(t, keys(t, c, ""))
}

func TestChangesAreAppliedOnceDespiteLostResponses(t *testing.T) {
	t.Parallel()
	eachWay(t, blobstest.Options{}, func(t *testing.T, s *standIn, c *Client) {
		end := s.setFaults(t, blobstest.Faults{Seed: 1, LostAnswer: 0.4, Methods: []string{"PUT"}})
		o, value := SetOptions{IfNew: true, Metadata: `{"by":"one"}`}, ""
		for i := range 40 { // the only writer, so that no condition may fail
			value += fmt.Sprint(" ", i)
			etag, err := c.Set(t.Context(), "list", []byte(value), o)
			require.NoError(t, err, "change %d", i)
			o = SetOptions{IfMatch: etag, Metadata: o.Metadata}
		}
		require.Positive(t, end()["lost_answer"])
		requireMembers(t, c, 40)
		_, err := c.Set(t.Context(), "list", nil, o) // the etag is that of the last write
		require.NoError(t, err)
	})
}

func TestConcurrentAppendsDespiteLostResponses(t *testing.T) {
	t.Parallel()
	eachWay(t, blobstest.Options{}, func(t *testing.T, s *standIn, c *Client) {
		end := s.setFaults(t, blobstest.Faults{Seed: 1, LostAnswer: 0.2, ServerError: 0.1, Methods: []string{"PUT"}})
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if err := add(t.Context(), c, fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.Positive(t, end()["lost_answer"])
		requireMembers(t, c, 20)
	})
}

// TestConditionFailsAfterALostResponse loses the response to a first attempt; a second one gets 412.
func TestConditionFailsAfterALostResponse(t *testing.T) {
	t.Parallel()
	const etag = `"etag"`
	ours := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", etag)
		w.Header().Set("X-Amz-Meta-User", "b64;e30=")
		_, _ = w.Write([]byte("ours"))
	}
	for name, tt := range map[string]struct {
		metadata string
		answers  []http.HandlerFunc
		won      bool
		asked    int
	}{
		"Ours":                 {"{}", []http.HandlerFunc{lost, status(412), ours}, true, 3},
		"OursAfter502":         {"{}", []http.HandlerFunc{status(502), status(412), ours}, true, 3},
		"OursAtLength":         {"{}", []http.HandlerFunc{lost, status(412), status(503), status(412), status(500), status(412), ours}, true, 7},
		"NoneIsLikeEmpty":      {"", []http.HandlerFunc{lost, status(412), ours}, true, 3},
		"OtherValue":           {"{}", []http.HandlerFunc{lost, status(412), text("theirs")}, false, 3},
		"OtherMetadata":        {`{"a":1}`, []http.HandlerFunc{lost, status(412), ours}, false, 3},
		"Gone":                 {"{}", []http.HandlerFunc{lost, status(412), status(404)}, false, 3},
		"TurnedDownNotLost":    {"{}", []http.HandlerFunc{status(429), status(412), ours}, false, 2},
		"ConflictNotLost":      {"{}", []http.HandlerFunc{status(409), status(412), ours}, false, 2},
		"AnsweredTheFirstTime": {"{}", []http.HandlerFunc{status(412), ours}, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, asked := script(t, tt.answers...)
			got, err := c.Set(t.Context(), "a", []byte("ours"), SetOptions{IfMatch: `"before"`, Metadata: tt.metadata})
			if tt.won {
				require.NoError(t, err)
				require.Equal(t, etag, got)
			} else {
				require.ErrorIs(t, err, ErrConditionFailed)
			}
			require.Equal(t, tt.asked, asked())
		})
	}

	// If the request for a signed URL gets no response, nothing was written.
	c, asked := script(t, lost, status(503), signs, status(412), text("ours"))
	_, err := viaAPI(c).Set(t.Context(), "a", []byte("ours"), SetOptions{IfNew: true})
	require.Equal(t, ErrConditionFailed, err)
	require.Equal(t, 4, asked())

	c, _ = script(t, lost, status(412), status(401))
	_, err = c.Set(t.Context(), "a", []byte("ours"), SetOptions{IfNew: true})
	require.Equal(t, &Error{Op: "set", Status: 401, Message: "unauthorized"}, err)
}

func TestClientWaitsForRateLimits(t *testing.T) {
	t.Parallel()
	eachWay(t, blobstest.Options{}, func(t *testing.T, s *standIn, c *Client) {
		end := s.setFaults(t, blobstest.Faults{Seed: 1, RateLimited: 0.2, RetryAfterSeconds: 1})
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if _, err := c.Set(t.Context(), fmt.Sprint(i), nil, SetOptions{IfNew: true}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.Positive(t, end()["rate_limited"])
		require.GreaterOrEqual(t, time.Since(start), time.Second)
		require.Len(t, keys(t, c, ""), 20)
	})
}

func TestTooLongAWaitIsReturnedToTheCaller(t *testing.T) {
	t.Parallel()
	want := &Error{Op: "get", Status: 429, Message: "too many requests", RetryAfter: time.Hour}
	c, asked := script(t, status(429, "Retry-After", "3600"))
	_, err := c.Get(t.Context(), "a")
	require.Equal(t, want, err)
	require.EqualError(t, err, "blobs: get: status 429: too many requests (again after 1h0m0s)")
	require.Equal(t, 1, asked())

	c.retry.Total = 2 * time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = c.Get(ctx, "a")
	require.Equal(t, want, err)
	require.NoError(t, ctx.Err())
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	const day = "Mon, 23 Nov 2026 "
	now, err := http.ParseTime(day + "07:00:00 GMT")
	require.NoError(t, err)
	in := func(d time.Duration) string { return strconv.FormatInt(now.Add(d).Unix(), 10) }
	for name, tt := range map[string]struct {
		status  int
		headers []string
		want    time.Duration
	}{
		"Seconds":              {429, []string{"Retry-After", "7"}, 7 * time.Second},
		"SecondsOfA503":        {503, []string{"Retry-After", "7"}, 7 * time.Second},
		"Date":                 {503, []string{"Retry-After", day + "07:01:00 GMT"}, time.Minute},
		"Reset":                {429, []string{"X-RateLimit-Reset", in(time.Minute)}, time.Minute},
		"RetryAfterGoesBefore": {429, []string{"Retry-After", "7", "X-RateLimit-Reset", in(time.Minute)}, 7 * time.Second},
		"ServersOwnClock":      {429, []string{"Date", day + "09:00:00 GMT", "X-RateLimit-Reset", in(2*time.Hour + time.Second)}, time.Second},
		"ResetOfA503":          {503, []string{"X-RateLimit-Reset", in(time.Minute)}, 0}, // every response has one
		"Past":                 {429, []string{"X-RateLimit-Reset", in(-time.Minute)}, 0},
		"PastDate":             {429, []string{"Retry-After", day + "06:00:00 GMT"}, 0},
		"Negative":             {429, []string{"Retry-After", "-1"}, 0},
		"Nonsense":             {429, []string{"Retry-After", "soon", "X-RateLimit-Reset", "soon"}, 0},
		"None":                 {429, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := response{status: tt.status, header: http.Header{}}
			for i := 0; i < len(tt.headers); i += 2 {
				a.header.Set(tt.headers[i], tt.headers[i+1])
			}
			require.Equal(t, tt.want, a.retryAfter(now))
		})
	}
}

func TestExpiredSignedURLsAreReplaced(t *testing.T) {
	t.Parallel()
	c, asked := script(t, signs, status(403), signs, status(403), signs, text("value"))
	got, err := viaAPI(c).Get(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, "value", string(got.Value))
	require.Equal(t, 6, asked())
}

func TestMaintenancePagesAreRepeated(t *testing.T) {
	t.Parallel()
	c, asked := script(t, text("<html>"), text(`{"blobs":[{"key":"a"}],"next_cursor":"2"}`), text(`{"blobs":`), text(`{"blobs":[{"key":"b"}]}`))
	require.Equal(t, []string{"a", "b"}, keys(t, c, ""))
	require.Equal(t, 4, asked())

	hurried := patient
	hurried.Total = time.Second
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"NoList":         {text("<html>"), "the response is not a list"},
		"OneCursorAgain": {text(`{"next_cursor":"2"}`), "the list repeats its cursor"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _ := script(t, tt.answer)
			for _, err := range c.withRetry(hurried, c.fallback).List(t.Context(), "") {
				require.Equal(t, &Error{Op: "list", Status: 200, Message: tt.want}, err)
			}
		})
	}
	c, _ = script(t, text("<html>"))
	_, err := viaAPI(c.withRetry(hurried, c.fallback)).Get(t.Context(), "a")
	require.Equal(t, &Error{Op: "get", Status: 200, Message: "the response has no signed URL"}, err)
	c, asked = script(t, text(`{"url":"secret"}`))
	_, err = viaAPI(c).Get(t.Context(), "a")
	require.EqualError(t, err, "the address of Blobs is not one of http or https")
	require.Equal(t, 1, asked())
}

func TestHungConnectionLeavesTimeForAnother(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		retry upstream.Policy
		limit time.Duration // of the context
	}{
		"OfTheTotal":   {upstream.Policy{FirstPause: 1, MaxPause: 1, Total: 3 * time.Second}, time.Minute},
		"OfTheContext": {upstream.Policy{FirstPause: 1, MaxPause: 1, Total: time.Minute}, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, asked := script(t, hung, text("value"))
			ctx, cancel := context.WithTimeout(t.Context(), tt.limit)
			defer cancel()
			got, err := c.withRetry(tt.retry, c.fallback).Get(ctx, "a")
			require.NoError(t, err)
			require.Equal(t, "value", string(got.Value))
			require.Equal(t, 2, asked())
		})
	}
}

func TestContextEndsRequests(t *testing.T) {
	t.Parallel()
	c, _ := script(t, hung)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := c.Get(ctx, "a")
	require.ErrorIs(t, err, context.DeadlineExceeded)

	// Canceled during a wait between attempts, without a deadline.
	ctx, cancel = context.WithCancel(t.Context())
	c, _ = script(t, func(w http.ResponseWriter, r *http.Request) { cancel(); status(429, "Retry-After", "30")(w, r) })
	_, err = c.Get(ctx, "a")
	require.ErrorIs(t, err, context.Canceled)

	c, asked := script(t, text("value"))
	_, err = c.Set(ctx, "a", nil, SetOptions{})
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, asked())
}

func TestTotalEndsRequests(t *testing.T) {
	t.Parallel()
	for name, total := range map[string]time.Duration{"Short": time.Second, "None": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hurried := patient
			hurried.Total = total
			c, _ := script(t, status(503))
			_, err := c.withRetry(hurried, c.fallback).Get(t.Context(), "a")
			if total == 0 { // not even for one attempt
				require.ErrorIs(t, err, context.DeadlineExceeded)
				return
			}
			require.Equal(t, &Error{Op: "get", Status: 503, Message: "service unavailable"}, err)
		})
	}
}

func TestErrorsHoldNoSecrets(t *testing.T) {
	t.Parallel()
	hurried := patient
	hurried.Total = time.Second
	quotes := func(w http.ResponseWriter, r *http.Request) { // S3 does so in the body; the header is stricter
		address := "http://" + r.Host + r.URL.String()
		w.Header().Set("X-Nf-Error", "no use for "+address+" with "+token)
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, address+token+"the-secret-value")
	}
	parts := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Nf-Error", "signature of "+r.URL.RawQuery+", token "+token[:3]+"\xae"+token[3:])
		w.WriteHeader(http.StatusBadRequest)
	}
	cut := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "the-secret-value")
	}
	for name, then := range map[string]http.HandlerFunc{
		"Quoted": quotes, "QuotedInPart": parts, "Lost": lost, "Cut": cut, "Hung": hung, "Refused": status(503), "Redirected": status(302, "Location", "/?"+signature),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _ := script(t, func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/bucket/") {
					then(w, r)
				} else {
					signs(w, r)
				}
			})
			c = viaAPI(c.withRetry(hurried, c.fallback))
			_, err := c.Get(t.Context(), "a")
			_, setErr := c.Set(t.Context(), "a", []byte("the-secret-value"), SetOptions{Metadata: `"the-secret-value"`})
			for _, err := range []error{err, setErr} {
				require.Error(t, err)
				require.NotContains(t, fmt.Sprintf("%v %+v %#v", err, err, err), "the-secret")
				require.NotContains(t, err.Error(), "/bucket/")
			}
		})
	}
	c := NewClient("kv").withRetry(hurried, Access{SiteID: "s", EdgeURL: "http://127.0.0.1:1", EdgeToken: token})
	_, err := c.Get(t.Context(), "a")
	require.ErrorContains(t, err, "blobs: get: ")
	require.NotContains(t, err.Error(), token)
}

func TestStoreReportsTheCauseRatherThanATimeout(t *testing.T) {
	t.Parallel()
	for name, seen := range map[string]struct {
		attempts []http.HandlerFunc
		want     kv.Code
	}{
		"ItFailsAllTheTime":  {[]http.HandlerFunc{status(503)}, kv.CodeDatabaseUnreachable},
		"ItFailsThenHangs":   {[]http.HandlerFunc{status(503), hung}, kv.CodeDatabaseUnreachable},
		"ItHangsAllTheTime":  {[]http.HandlerFunc{hung}, kv.CodeDeadlineExceeded},
		"ItAsksToWaitLonger": {[]http.HandlerFunc{status(503, "Retry-After", "60")}, kv.CodeDatabaseUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _ := script(t, seen.attempts...)
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			_, err := NewStore(c, c).Get(ctx, "a")
			require.Equal(t, seen.want, kv.CodeOf(err), "got %v", err)
		})
	}
}
