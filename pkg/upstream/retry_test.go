package upstream

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var errReason = errors.New("the reason")

func transient(err error) error { return &TransientError{Err: err} }

// failing returns an attempt that fails with each error in turn, and with the last one from then on.
func failing(errs ...error) func(context.Context) (int, error) {
	turn := -1
	return func(context.Context) (int, error) {
		turn = min(turn+1, len(errs)-1)
		return turn, errs[turn]
	}
}

func TestRetryReturnsTheReasonRatherThanATimeout(t *testing.T) {
	t.Parallel()
	policy := Policy{FirstPause: time.Second, MaxPause: time.Second, Total: 10 * time.Second}
	for name, errs := range map[string][]error{
		"First":     {transient(errReason), transient(context.DeadlineExceeded)},
		"Second":    {transient(context.DeadlineExceeded), transient(errReason), transient(context.DeadlineExceeded)},
		"Last":      {transient(io.ErrUnexpectedEOF), transient(errReason)},
		"Permanent": {transient(io.ErrUnexpectedEOF), errReason},
	} {
		synctest.Test(t, func(t *testing.T) {
			_, err := Retry(t.Context(), policy, failing(errs...))
			require.Equal(t, errReason, err, name)
		})
	}
}

func TestRetryRepeatsUntilItSucceeds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		after := &TransientError{Err: errReason, After: 3 * time.Second}
		turn, err := Retry(t.Context(), Policy{FirstPause: time.Second, MaxPause: time.Second, Total: time.Minute}, failing(transient(errReason), after, nil))
		require.NoError(t, err)
		require.Equal(t, 2, turn)
		require.GreaterOrEqual(t, time.Since(began), 3500*time.Millisecond, "half a second at least, and what the service asked for")
	})
}

func TestRetryTellsTheCallersTimeFromItsOwn(t *testing.T) {
	t.Parallel()
	hang := func(ctx context.Context) (int, error) {
		<-ctx.Done()
		return 0, transient(ctx.Err())
	}
	var timeout *TimeoutError
	policy := Policy{FirstPause: time.Second, MaxPause: time.Second, Total: 10 * time.Second}
	synctest.Test(t, func(t *testing.T) {
		_, err := Retry(t.Context(), policy, hang)
		require.Equal(t, context.DeadlineExceeded, err, "attempts timed out; the caller has time left")

		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err = Retry(ctx, policy, hang)
		require.ErrorAs(t, err, &timeout)
	})
}

func TestRetryBoundsAttempts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		policy   Policy
		deadline time.Duration
		want     time.Duration
	}{
		"HalfOfTheTotal":     {Policy{Total: 10 * time.Second}, time.Hour, 5 * time.Second},
		"HalfOfTheDeadline":  {Policy{Total: time.Hour, Attempt: time.Minute}, 10 * time.Second, 5 * time.Second},
		"ItsOwn":             {Policy{Total: 15 * time.Second, Attempt: 10 * time.Second}, time.Hour, 10 * time.Second},
		"AllOfTheDeadline":   {Policy{Total: time.Second, Unlimited: true}, time.Hour, time.Hour},
		"HalfOfTheShortTime": {Policy{Total: time.Hour}, 2 * time.Second, time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
			defer cancel()
			_, err := Retry(ctx, c.policy, func(ctx context.Context) (int, error) {
				deadline, ok := ctx.Deadline()
				require.True(t, ok)
				require.Equal(t, c.want, time.Until(deadline), name)
				return 0, nil
			})
			require.NoError(t, err)
		})
	}
}

func TestRetryEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Retry(ctx, Policy{FirstPause: time.Millisecond, MaxPause: time.Millisecond, Total: time.Minute}, func(context.Context) (int, error) {
		cancel()
		return 0, transient(errReason)
	})
	require.EqualError(t, err, "context canceled; before: the reason")
	require.ErrorIs(t, err, context.Canceled)
	_, err = Retry(ctx, Policy{Total: time.Minute}, func(context.Context) (int, error) {
		t.Error("no attempt may begin")
		return 0, nil
	})
	require.ErrorIs(t, err, context.Canceled)
}
