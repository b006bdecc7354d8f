package migrate

import (
	"context"
	"sync"
	"time"
)

// patience is how long a request is repeated before its failure counts: a service that restarts or limits its rate gets that time.
const patience = 5 * time.Minute

// calm is how many requests have to go well before one more may be under way at a time.
const calm = 50

// gate lets some requests at a time through. A service that limits its rate halves their number and keeps all of them waiting
// for as long as it said; from then on it grows again, slowly (additive increase, multiplicative decrease, as in TCP).
type gate struct {
	mu      sync.Mutex
	free    *sync.Cond
	inside  int
	allowed int
	most    int
	well    int
	until   time.Time
}

func newGate(most int) *gate {
	g := &gate{allowed: most, most: most}
	g.free = sync.NewCond(&g.mu)
	return g
}

// enter waits for a place.
func (g *gate) enter(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.free.Broadcast()
	})
	defer stop()
	g.mu.Lock()
	for g.inside >= g.allowed && ctx.Err() == nil {
		g.free.Wait()
	}
	g.inside++
	wait := time.Until(g.until)
	g.mu.Unlock()
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		g.leave()
		return ctx.Err()
	}
	return nil
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.well++; g.well >= calm && g.allowed < g.most {
		g.allowed, g.well = g.allowed+1, 0
	}
	g.free.Broadcast()
}

// limit is told that the service turned a request down for a while.
func (g *gate) limit(wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	until := time.Now().Add(wait)
	if until.After(g.until.Add(time.Second)) { // requests that were under way together are one occasion
		g.allowed = max(1, g.allowed/2)
		g.until = until
	}
	g.well = 0
}
