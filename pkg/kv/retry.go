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
func (p retryPolicy) whole() retryPolicy {
	p.attempt = 0
	return p
}

func (p retryPolicy) do(ctx context.Context, operation func(context.Context) (string, error)) (string, error) {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval, pauses.Multiplier = p.first, p.longest, 2
	var last error
	text, err := backoff.Retry(ctx, func() (string, error) {
		attempt, cancel := p.attemptContext(ctx)
		defer cancel()
		text, err := operation(attempt)
		last = err
		switch {
		case err == nil:
			return text, nil
		case !transient(ctx, err):
			return "", backoff.Permanent(err)
		}
		var answer *answerError
		if errors.As(err, &answer) && answer.RetryAfter > 0 {
			return "", backoff.RetryAfter(int(answer.RetryAfter.Seconds()))
		}
		return "", err
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(p.total))
	if err != nil && last != nil {
		return "", last // what went wrong, rather than that repeating it ended
	}
	return text, err
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
	var answer *answerError
	if errors.As(err, &answer) {
		return answer.failure().again
	}
	return ctx.Err() == nil
}
