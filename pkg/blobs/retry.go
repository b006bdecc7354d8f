package blobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// retryPolicy repeats what failed for a passing reason, after pauses that double and are jittered by half.
type retryPolicy struct {
	first, longest time.Duration // pauses
	total          time.Duration // for all attempts and pauses; no attempt takes longer than half of what is left
	attempt        time.Duration // or than this, unless it is 0
	// admit is asked before each attempt, and waits until it may be made, or returns an error if that would be after the end.
	admit func(ctx context.Context, end time.Time) error
}

var defaultRetry = retryPolicy{first: 100 * time.Millisecond, longest: 2 * time.Second, total: 15 * time.Second}

// retry returns what the first attempt returns that does not end with [passing], or else the last error that was more than
// the end of an attempt's time; if there was none, context.DeadlineExceeded. When the context has ended, the error says so too.
func retry[T any](ctx context.Context, p retryPolicy, attempt func(context.Context) (T, error)) (none T, _ error) {
	if err := ctx.Err(); err != nil {
		return none, err
	}
	end := time.Now().Add(p.total)
	deadline, ok := ctx.Deadline()
	if ok = ok && deadline.Before(end); ok {
		end = deadline
	}
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval, pauses.Multiplier = p.first, p.longest, 2
	var last error
	result, err := backoff.Retry(ctx, func() (T, error) {
		if p.admit != nil {
			if err := p.admit(ctx, end); err != nil {
				last = cmp.Or(last, err)
				return none, backoff.Permanent(err)
			}
		}
		longest := time.Until(end) / 2
		if p.attempt > 0 {
			longest = min(longest, p.attempt)
		}
		result, err := once(ctx, longest, attempt)
		if last == nil || !errors.Is(err, context.DeadlineExceeded) { // the last attempts have little time, and tell only that
			last = err
		}
		var again transientError
		switch {
		case err == nil:
			return result, nil
		case !errors.As(err, &again):
			return none, backoff.Permanent(err)
		case again.wait > 0: // and not all who were told the same at the same moment
			return none, &backoff.RetryAfterError{Duration: again.wait + rand.N(p.first+1)} // #nosec G404 -- jitter
		}
		return none, err
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(max(time.Until(end), 1))) // 0 would be for ever
	if err == nil {
		return result, nil
	}
	var again transientError
	if !errors.As(last, &again) {
		return none, last
	}
	if ctx.Err() != nil && !errors.Is(again.error, ctx.Err()) {
		return none, &endedError{ctx.Err(), again.error}
	}
	if ok && errors.Is(again.error, context.DeadlineExceeded) {
		return none, &outOfTime{again.error}
	}
	return none, again.error // what went wrong, rather than that repeating it ended
}

// outOfTime is the end of the request's time without anything having been seen but that.
type outOfTime struct{ error }

func (e *outOfTime) Unwrap() error { return e.error }

// endedError is the end of the context after something else had gone wrong.
type endedError struct{ context, before error }

func (e *endedError) Error() string   { return fmt.Sprintf("%v; before: %v", e.context, e.before) }
func (e *endedError) Unwrap() []error { return []error{e.context, e.before} }

// once bounds an attempt: a pooled connection that died while the instance was frozen says nothing until TCP gives up, and
// then there must be time for another.
func once[T any](ctx context.Context, longest time.Duration, attempt func(context.Context) (T, error)) (T, error) {
	within, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	return attempt(within)
}
