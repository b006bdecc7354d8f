package migrate

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestALimitHalvesWhatIsUnderWayAndGrowsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(16)
		start := time.Now()
		g.limit(5 * time.Second)
		g.limit(5 * time.Second) // told to another request of the same moment
		require.Equal(t, 8, g.allowed)
		require.NoError(t, g.enter(t.Context()))
		require.GreaterOrEqual(t, time.Since(start), 5*time.Second, "nobody asks before the service said")
		g.leave()
		var inside, most atomic.Int64
		var group sync.WaitGroup
		for range 600 {
			group.Go(func() {
				if g.enter(t.Context()) != nil {
					return
				}
				defer g.leave()
				most.Store(max(most.Load(), inside.Add(1)))
				time.Sleep(time.Millisecond)
				inside.Add(-1)
			})
		}
		group.Wait()
		require.Greater(t, g.allowed, 12)
		require.LessOrEqual(t, most.Load(), int64(16))
		for range 10 {
			g.limit(time.Minute)
			time.Sleep(2 * time.Minute)
		}
		require.Equal(t, 1, g.allowed, "never none")
	})
}

func TestWhoeverWaitsAtTheGateCanBeEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		require.NoError(t, g.enter(t.Context()))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, g.enter(ctx), context.DeadlineExceeded)
		g.leave()
		g.limit(time.Hour)
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, g.enter(ctx), context.DeadlineExceeded)
		require.Zero(t, g.inside)
	})
}
