package blobs

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"netlify-supabase-kv/pkg/upstream"
)

// Limiter keeps one process's requests to Netlify's API below a rate, and pauses them while the service says that its
// limit is reached. The clients of one token share a limiter. Requests to the edge and to signed URLs do not count:
// Netlify limits those to its API, to 500 a minute for a token.
//
// What other processes with the same token use shows in the service's headers: X-RateLimit-Limit,
// X-RateLimit-Remaining, and X-RateLimit-Reset in seconds of Unix time ("Rate limiting" in Netlify's API guide).
type Limiter struct {
	pace  *rate.Limiter
	leave float64 // share of the service's limit that is left to other processes
	asked atomic.Int64

	mu    sync.Mutex
	until time.Time // the service takes no request before
}

// DefaultRate and DefaultBackgroundRate are requests a minute, of an instance of a function and of the migration.
// Together they stay below Netlify's limit.
const (
	DefaultRate           = 300
	DefaultBackgroundRate = 180
)

// window is the period of Netlify's limit.
const window = time.Minute

// NewLimiter returns a limiter for requests that a caller waits for. It lets so many requests pass in any period per,
// half of them at once. With 0 it sets no rate.
func NewLimiter(requests int, per time.Duration) *Limiter {
	return newLimiter(requests, requests/2, per, 0)
}

// NewBackgroundLimiter returns a limiter for background work. It lets so many requests pass in any period per, a
// tenth of them at once, and none while less than a quarter of the service's limit is left. With 0 it sets no rate.
func NewBackgroundLimiter(requests int, per time.Duration) *Limiter {
	return newLimiter(requests, requests/10, per, 0.25)
}

// newLimiter lets atOnce requests pass at once, and the rest of the requests at an even pace.
func newLimiter(requests, atOnce int, per time.Duration, leave float64) *Limiter {
	atOnce = max(1, atOnce)
	every := rate.Inf
	if requests > 0 {
		every = rate.Limit(float64(max(1, requests-atOnce)) / per.Seconds())
	}
	return &Limiter{pace: rate.NewLimiter(every, atOnce), leave: leave}
}

// Asked returns how many requests have passed.
func (l *Limiter) Asked() int { return int(l.asked.Load()) }

// wait waits until the next request may be sent. If that is after end, it returns at once the [*Error] that the
// service would return: status 429 and the time to wait.
func (l *Limiter) wait(ctx context.Context, op string, end time.Time) error {
	now := time.Now()
	turn := l.pace.ReserveN(now, 1)
	at := now.Add(turn.DelayFrom(now))
	for {
		if held := l.heldUntil(); held.After(at) {
			at = held
		}
		pause := at.Sub(now)
		switch {
		case pause <= 0:
			l.asked.Add(1)
			return nil
		case at.After(end):
			turn.CancelAt(now)
			return &Error{Op: op, Status: http.StatusTooManyRequests, RetryAfter: pause,
				Message: fmt.Sprintf("not asked, since Netlify's API may not be asked for another %s", pause.Round(time.Millisecond))}
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			turn.CancelAt(time.Now())
			return ctx.Err()
		}
		now = time.Now()
	}
}

// room returns how many requests can pass until end, if no other is made.
func (l *Limiter) room(end time.Time) float64 {
	now := time.Now()
	from := now
	if held := l.heldUntil(); held.After(from) {
		from = held
	}
	if from.After(end) {
		return 0
	}
	return l.pace.TokensAt(from) + float64(l.pace.Limit())*end.Sub(from).Seconds()
}

func (l *Limiter) heldUntil() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.until
}

// learn takes over the service's own count from a response.
func (l *Limiter) learn(a response) {
	now := time.Now()
	pause := a.retryAfter(now)
	if a.status != http.StatusTooManyRequests {
		pause = min(a.untilReset(now, l.leave), window)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if until := now.Add(pause); pause > 0 && until.After(l.until) {
		l.until = until
	}
}

// untilReset returns the time until the service starts counting again, if at most the share of its limit is left;
// else 0.
func (r response) untilReset(now time.Time, share float64) time.Duration {
	limit, limitErr := strconv.Atoi(r.header.Get("X-RateLimit-Limit"))
	remaining, remainingErr := strconv.Atoi(r.header.Get("X-RateLimit-Remaining"))
	if limitErr != nil || remainingErr != nil || float64(remaining) > share*float64(limit) {
		return 0
	}
	return max(0, r.resetAt().Sub(upstream.Now(r.header, now)))
}
