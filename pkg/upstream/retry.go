package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Policy says how often and for how long [Retry] repeats a call.
type Policy struct {
	// FirstPause and MaxPause bound the pauses between attempts, which double and vary at random by half.
	FirstPause, MaxPause time.Duration
	// Total bounds the time in which attempts begin.
	Total time.Duration
	// Attempt bounds one attempt; 0: half of the time left. An attempt also never takes more than half of the time
	// left until the context's deadline: a connection that died while the instance was frozen is silent until TCP
	// gives up, and another attempt must still be possible.
	Attempt time.Duration
	// Unlimited lets an attempt take all the time left, for a call that must not be repeated because it was slow.
	Unlimited bool
	// Admit, if set, is called before each attempt. It waits until the attempt may be made. An error, as when that
	// would be after end, ends the call.
	Admit func(ctx context.Context, end time.Time) error
}

// TransientError marks a failure that another attempt may not meet.
type TransientError struct {
	Err   error
	After time.Duration // how long the service asks to wait; 0: it does not say
}

func (e *TransientError) Error() string { return e.Err.Error() }
func (e *TransientError) Unwrap() error { return e.Err }

// TimeoutError is returned when the context's time was over and no attempt had failed in any other way.
type TimeoutError struct{ Err error }

func (e *TimeoutError) Error() string { return e.Err.Error() }
func (e *TimeoutError) Unwrap() error { return e.Err }

// Retry makes attempts until one succeeds or fails with anything but a [*TransientError], or the time is over. Then
// it returns the last failure that was more than a timeout, without its mark: the last attempts have little time, and
// tell only that.
func Retry[T any](ctx context.Context, p Policy, attempt func(context.Context) (T, error)) (none T, err error) {
	if err := ctx.Err(); err != nil {
		return none, &TimeoutError{err}
	}
	end := time.Now().Add(p.Total)
	deadline, bounded := ctx.Deadline()
	if bounded = bounded && deadline.Before(end); bounded {
		end = deadline
	}
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval, pauses.Multiplier = p.FirstPause, p.MaxPause, 2
	var seen error
	for {
		if err := p.admit(ctx, end); err != nil {
			seen = cmp.Or(seen, err)
			break
		}
		within, cancel := p.attemptContext(ctx, end)
		result, err := attempt(within)
		cancel()
		var transient *TransientError
		if err == nil || !errors.As(err, &transient) {
			return result, err
		}
		if seen == nil || isTimeout(seen) || !isTimeout(err) {
			seen = transient.Err
		}
		pause := pauses.NextBackOff()
		if transient.After > 0 { // not everybody who was told the same at the same moment
			pause = transient.After + rand.N(p.FirstPause+1) // #nosec G404 -- jitter
			pauses.Reset()
		}
		if time.Now().Add(pause).After(end) || !sleep(ctx, pause) {
			break
		}
	}
	switch timeout := isTimeout(seen); {
	case timeout && (bounded || ctx.Err() != nil):
		return none, &TimeoutError{seen}
	case !timeout && errors.Is(ctx.Err(), context.Canceled):
		return none, fmt.Errorf("%w; before: %w", ctx.Err(), seen)
	}
	return none, seen
}

func (p Policy) admit(ctx context.Context, end time.Time) error {
	if p.Admit == nil {
		return nil
	}
	return p.Admit(ctx, end)
}

// attemptContext bounds one attempt.
func (p Policy) attemptContext(ctx context.Context, end time.Time) (context.Context, context.CancelFunc) {
	if p.Unlimited {
		return context.WithCancel(ctx)
	}
	longest := cmp.Or(p.Attempt, time.Until(end)/2)
	if deadline, ok := ctx.Deadline(); ok {
		longest = min(longest, time.Until(deadline)/2)
	}
	return context.WithTimeout(ctx, longest)
}

// sleep returns false if the context ended first.
func sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// isTimeout reports whether an error says only that a time was over, the attempt's or the caller's.
func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
