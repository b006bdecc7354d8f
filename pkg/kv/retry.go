package kv

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// retryPolicy repeats what failed for a passing reason, after pauses that double and are jittered by half.
type retryPolicy struct {
	first, longest time.Duration // pauses
	attempt        time.Duration // no attempt takes longer, or than half of the time that is left; 0: see whole
	total          time.Duration // no attempt begins after it
}

// whole lets an attempt take all the time there is, for work that is not to be begun again because it was slow.
func (p retryPolicy) withoutAttemptLimit() retryPolicy {
	p.attempt = 0
	return p
}

// do repeats the operation until it succeeds, fails for good, or the next attempt would begin after the context's deadline. Then it
// returns what was seen last, rather than that time was over: the last attempts have little of it, and tell only that.
func (p retryPolicy) do(ctx context.Context, operation func(context.Context) (string, error)) (string, error) {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval, pauses.Multiplier = p.first, p.longest, 2
	longest := p.total
	deadline, ok := ctx.Deadline()
	if ok = ok && time.Until(deadline) < longest; ok {
		longest = max(time.Until(deadline), 1) // 0 would be for ever
	}
	var seen error
	text, err := backoff.Retry(ctx, func() (string, error) {
		attempt, cancel := p.attemptContext(ctx)
		defer cancel()
		text, err := operation(attempt)
		if seen == nil || isClock(seen) || !isClock(err) {
			seen = err
		}
		switch {
		case err == nil:
			return text, nil
		case !transient(ctx, err):
			return "", backoff.Permanent(err)
		}
		var answer *postgrestError
		if errors.As(err, &answer) && answer.RetryAfter > 0 {
			return "", backoff.RetryAfter(int(answer.RetryAfter.Seconds()))
		}
		return "", err
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(longest))
	switch {
	case err == nil:
		return text, nil
	case seen == nil:
		return "", err
	case isClock(seen) && (ok || ctx.Err() != nil):
		return "", &outOfTime{seen}
	}
	return "", seen
}

// outOfTime is the end of the request's time without anything having been seen but that.
type outOfTime struct{ error }

func (e *outOfTime) Unwrap() error { return e.error }

// isClock tells whether an error says only that time was over: an attempt's, or the request's.
func isClock(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// attemptContext bounds an attempt: a pooled connection that died while the instance was frozen says nothing until TCP
// gives up, and then there must be time for another.
func (p retryPolicy) attemptContext(ctx context.Context) (context.Context, context.CancelFunc) {
	if p.attempt == 0 {
		return context.WithCancel(ctx)
	}
	longest := p.attempt
	if deadline, ok := ctx.Deadline(); ok {
		longest = min(longest, time.Until(deadline)/2)
	}
	return context.WithTimeout(ctx, longest)
}

// transient tells whether the same call may succeed soon. An answer says so itself; without one it was the connection,
// or the attempt's own deadline, unless the whole time is over.
func transient(ctx context.Context, err error) bool {
	var answer *postgrestError
	if errors.As(err, &answer) {
		return answer.failure().again
	}
	return ctx.Err() == nil
}
