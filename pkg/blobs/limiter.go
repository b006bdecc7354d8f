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

// Limiter keeps the requests of one process to Netlify's API below a rate, and holds them back while the service's own count says so.
// The clients of one token share one. Requests to the edge and to signed URLs do not count: Netlify limits those of its API, to 500 a
// minute for a token.
//
// Other processes with the same token cannot be seen from here. What they use shows in the service's headers: X-RateLimit-Limit,
// X-RateLimit-Remaining, and X-RateLimit-Reset, a second in Unix time ("Rate limiting" in Netlify's API guide).
type Limiter struct {
	pace  *rate.Limiter
	leave float64 // share of the service's limit that is left to others
	asked atomic.Int64

	mu    sync.Mutex
	until time.Time // the service wants no request before
}

// DefaultRate is how many requests a minute an instance of a function makes, and DefaultBackgroundRate how many the migration: together
// fewer than Netlify allows.
const (
	DefaultRate           = 300
	DefaultBackgroundRate = 180
)

// window is the time that Netlify's limit is for.
const window = time.Minute

// NewLimiter returns a limiter for work that somebody waits for: in any time of the length per it lets so many requests pass, half of
// which may come at once; all of them where requests is 0.
func NewLimiter(requests int, per time.Duration) *Limiter {
	return newLimiter(requests, requests/2, per, 0)
}

// NewBackgroundLimiter returns a limiter for work that can wait: in any time of the length per it lets so many requests pass, most of
// them evenly spread, and none while only a quarter of the service's limit is left; that is for others. Where requests is 0 it sets no
// rate of its own.
func NewBackgroundLimiter(requests int, per time.Duration) *Limiter {
	return newLimiter(requests, requests/10, per, 0.25)
}

// newLimiter lets atOnce requests pass at once; those that are refilled within the time make up the rest.
func newLimiter(requests, atOnce int, per time.Duration, leave float64) *Limiter {
	atOnce = max(1, atOnce)
	every := rate.Inf
	if requests > 0 {
		every = rate.Limit(float64(max(1, requests-atOnce)) / per.Seconds())
	}
	return &Limiter{pace: rate.NewLimiter(every, atOnce), leave: leave}
}

// Asked is how many requests have passed.
func (l *Limiter) Asked() int { return int(l.asked.Load()) }

// wait returns when the next request may go out. Where that would be after end, it returns at once what the service would answer to
// too many requests: an [*Error] with status 429 and the time to wait.
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

// room is how many requests can pass by then, if nobody else makes any.
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

// learn takes what an answer says of the service's own count.
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

// untilReset is how long the service's count goes on, if not more than the share of its limit is left; else 0.
func (r response) untilReset(now time.Time, share float64) time.Duration {
	limit, limitErr := strconv.Atoi(r.header.Get("X-RateLimit-Limit"))
	remaining, remainingErr := strconv.Atoi(r.header.Get("X-RateLimit-Remaining"))
	if limitErr != nil || remainingErr != nil || float64(remaining) > share*float64(limit) {
		return 0
	}
	return max(0, r.resetAt().Sub(upstream.Now(r.header, now)))
}
