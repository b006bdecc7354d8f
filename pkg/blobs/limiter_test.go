package blobs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs/blobstest"
	"netlify-supabase-kv/pkg/kv"
)

func TestLimiterKeepsItsRate(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		limiter   func() *Limiter
		perMinute int
		steadily  int // at least so many a minute
	}{
		"Functions":      {func() *Limiter { return NewLimiter(300, window) }, 300, 150},
		"Migration":      {func() *Limiter { return NewBackgroundLimiter(180, window) }, 180, 160},
		"One":            {func() *Limiter { return NewLimiter(1, window) }, 2, 1}, // one at once and one later
		"More":           {func() *Limiter { return NewLimiter(10_000, window) }, 10_000, 5_000},
		"MigrationOfTen": {func() *Limiter { return NewBackgroundLimiter(10, window) }, 10, 9},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := tt.limiter()
				const minutes = 5
				end := time.Now().Add(minutes * window)
				var mu sync.Mutex
				var passed []time.Time
				var group sync.WaitGroup
				for range 24 {
					group.Go(func() {
						for l.wait(t.Context(), "get", end) == nil {
							mu.Lock()
							passed = append(passed, time.Now())
							mu.Unlock()
						}
					})
				}
				group.Wait()
				require.Equal(t, len(passed), l.Asked())
				require.GreaterOrEqual(t, len(passed), minutes*tt.steadily)
				for i := tt.perMinute; i < len(passed); i++ {
					require.Greater(t, passed[i].Sub(passed[i-tt.perMinute]), window-10*time.Millisecond, "request %d", i)
				}
			})
		})
	}
}

func TestLimiterWithoutARate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, l := range []*Limiter{NewLimiter(0, window), NewBackgroundLimiter(0, window)} {
			start := time.Now()
			for range 10_000 {
				require.NoError(t, l.wait(t.Context(), "get", time.Now()))
			}
			require.Zero(t, time.Since(start))
		}
	})
}

func TestLimiterWaitsForTheReset(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		status             int
		remaining          string
		functions, working time.Duration // how long each kind waits
	}{
		"MuchIsLeft":     {200, "400", 0, 0},
		"AQuarterIsLeft": {200, "125", 0, 30 * time.Second},
		"NothingIsLeft":  {200, "0", 30 * time.Second, 30 * time.Second},
		"TurnedDown":     {429, "0", 30 * time.Second, 30 * time.Second},
		"NotSaid":        {200, "", 0, 0},
		"Nonsense":       {200, "none", 0, 0},
		"NotFound":       {404, "0", 30 * time.Second, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for l, want := range map[*Limiter]time.Duration{NewLimiter(0, window): tt.functions, NewBackgroundLimiter(0, window): tt.working} {
					start := time.Now()
					l.learn(response{status: tt.status, header: http.Header{
						"X-Ratelimit-Limit": {"500"}, "X-Ratelimit-Remaining": {tt.remaining},
						"X-Ratelimit-Reset": {strconv.FormatInt(start.Add(30*time.Second).Unix(), 10)},
					}})
					require.NoError(t, l.wait(t.Context(), "get", start.Add(time.Hour)))
					require.Equal(t, want, time.Since(start))
				}
			})
		})
	}

	synctest.Test(t, func(t *testing.T) { // a success with an odd reset pauses for at most a window
		l, start := NewLimiter(0, window), time.Now()
		l.learn(response{status: 200, header: http.Header{
			"X-Ratelimit-Limit": {"500"}, "X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {strconv.FormatInt(start.UnixMilli(), 10)},
		}})
		require.NoError(t, l.wait(t.Context(), "get", start.Add(time.Hour)))
		require.Equal(t, window, time.Since(start))
	})
}

func TestLimiterRefusesTooLongAWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(2, window)
		start := time.Now()
		require.NoError(t, l.wait(t.Context(), "get", start))
		err := l.wait(t.Context(), "get", start.Add(15*time.Second))
		var limited *Error
		require.ErrorAs(t, err, &limited)
		require.Equal(t, http.StatusTooManyRequests, limited.Status)
		require.Equal(t, time.Minute, limited.RetryAfter)
		require.Zero(t, time.Since(start))
		require.Equal(t, 1, l.Asked())

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, l.wait(ctx, "get", start.Add(time.Hour)), context.DeadlineExceeded)

		time.Sleep(time.Minute) // a canceled wait has returned its place
		require.NoError(t, l.wait(t.Context(), "get", time.Now()))
	})
}

// The service's minute takes a second in this test.
func TestDefaultRatesFitIntoNetlifysLimit(t *testing.T) {
	t.Parallel()
	s := newStandIn(t, blobstest.Options{})
	c := clientOf(s.api())
	c.retry = defaultRetry
	_, err := c.Set(t.Context(), "k", []byte("{}"), SetOptions{})
	require.NoError(t, err)
	end := s.setFaults(t, blobstest.Faults{Limit: 500, WindowMS: 1000})
	var group sync.WaitGroup
	for _, limiter := range []*Limiter{NewLimiter(DefaultRate, time.Second), NewBackgroundLimiter(DefaultBackgroundRate, time.Second)} {
		limited := c.WithLimiter(limiter)
		for range 8 {
			group.Go(func() {
				for range 60 {
					if _, err := limited.Get(t.Context(), "k"); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	group.Wait()
	require.Equal(t, 960, end()["asked"], "none was turned down and asked again")
}

func TestListThatCannotEndInTimeIsRefused(t *testing.T) {
	t.Parallel()
	s := newStandIn(t, blobstest.Options{})
	c := clientOf(s.api())
	for i := range 30 {
		_, err := c.Set(t.Context(), fmt.Sprint("k", i), []byte("{}"), SetOptions{})
		require.NoError(t, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	limit := 10
	for _, q := range []kv.ListQuery{{Values: true}, {Sort: kv.SortKey{Path: "updatedAt"}}, {IndexKeys: []string{"i"}}} {
		limited := c.WithLimiter(NewLimiter(24, 10*time.Minute))
		store := NewStore(limited, limited)
		_, err := store.List(ctx, q)
		require.Equal(t, kv.CodeTooLarge, kv.CodeOf(err), "%v", err)
		require.ErrorContains(t, err, "30 requests to Netlify's API, which takes about 12")
		require.Equal(t, 1, limited.limiter.Asked())
		_, err = store.List(ctx, kv.ListQuery{Values: true, Limit: &limit})
		require.NoError(t, err)
	}
	edge := clientOf(s.edge(t)).WithLimiter(NewLimiter(1, time.Hour))
	_, err := NewStore(edge, edge).List(ctx, kv.ListQuery{Values: true})
	require.NoError(t, err)
}

func TestOnlyRequestsToTheAPIAreLimited(t *testing.T) {
	t.Parallel()
	s := newStandIn(t, blobstest.Options{})
	end := s.setFaults(t, blobstest.Faults{Limit: 1_000_000})
	api, edge := clientOf(s.api()), clientOf(s.edge(t))
	api.limiter, edge.limiter = NewLimiter(0, window), NewLimiter(1, window)
	for _, c := range []*Client{edge, api} {
		for range 3 {
			_, err := c.Set(t.Context(), "k", []byte("{}"), SetOptions{})
			require.NoError(t, err)
			_, err = c.Get(t.Context(), "k")
			require.NoError(t, err)
			_, err = c.Head(t.Context(), "k")
			require.NoError(t, err)
			require.Len(t, keys(t, c, ""), 1)
			require.NoError(t, c.Delete(t.Context(), "k"))
		}
	}
	require.Zero(t, edge.limiter.Asked())
	require.Equal(t, 15, api.limiter.Asked(), "one for each operation: the signed URLs are not counted")
	require.Equal(t, 15, end()["asked"])
}

func TestRateLimitPausesOtherRequests(t *testing.T) {
	t.Parallel()
	reset := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-RateLimit-Reset", strconv.FormatInt(time.Now().Add(40*time.Second).Unix(), 10))
		status(429)(w, r)
	}
	c, asked := script(t, reset)
	c = viaAPI(c)
	c.retry = defaultRetry
	for range 3 {
		_, err := c.Get(t.Context(), "a")
		var limited *Error
		require.True(t, errors.As(err, &limited), err)
		require.Equal(t, 429, limited.Status)
		require.InDelta(t, 40, limited.RetryAfter.Seconds(), 20)
	}
	require.Equal(t, 1, asked(), "the service said when to ask again")
}

func TestGetUpToStopsAtItsLimit(t *testing.T) {
	t.Parallel()
	const most = 1 << 20
	for name, length := range map[string]string{"WithLength": "5000000000", "WithoutLength": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var sent atomic.Int64
			c, asked := script(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet {
					return
				}
				if length != "" {
					w.Header().Set("Content-Length", length)
				}
				part := make([]byte, 64<<10)
				for sent.Load() < 5_000_000_000 {
					n, err := w.Write(part)
					if sent.Add(int64(n)); err != nil {
						return
					}
				}
			})
			c = c.WithBackgroundRetries(10 * time.Minute)
			store := NewStore(c, c)
			for i, read := range []func() error{
				func() error { _, err := c.GetUpTo(t.Context(), "a", most); return err },
				func() error { _, err := store.Get(t.Context(), "a"); return err },
				func() error { _, _, err := store.Read(t.Context(), "a"); return err },
				func() error {
					_, err := store.Upsert(t.Context(), kv.Entry{Key: "b", Value: "{}", Indexes: []kv.Index{{Key: "a", Member: "b"}}})
					return err
				},
			} {
				sent.Store(0)
				before := asked()
				err := read()
				require.ErrorIs(t, err, ErrTooLarge)
				if i > 0 {
					require.Equal(t, kv.CodeTooLarge, kv.CodeOf(err))
				}
				require.LessOrEqual(t, asked()-before, 3, "asking again would not help")
				require.Less(t, sent.Load(), int64(maxReadBytes+16<<20), "and what the network holds")
			}
		})
	}
	c, _ := script(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "12345") })
	got, err := c.GetUpTo(t.Context(), "a", 5)
	require.NoError(t, err)
	require.Equal(t, "12345", string(got.Value))
	_, err = c.GetUpTo(t.Context(), "a", 4)
	require.ErrorIs(t, err, ErrTooLarge)
}
