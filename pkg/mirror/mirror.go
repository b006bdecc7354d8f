package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
)

// Pair is the two stores.
type Pair struct {
	Supabase *kv.Supabase
	Blobs    *blobs.Store
	// Log gets a line, without keys, for each write whose copy is not confirmed.
	Log *slog.Logger
	// Timeout bounds how much longer a write takes because of its copy; 0: 5 s.
	Timeout time.Duration
}

const (
	// parallel is how many keys of one write are copied at a time.
	parallel = 8
	// rounds bounds how often one copy starts over because other writers change the key; each of them copies it too.
	rounds = 50
)

// errUnsettled means that a copy started over too often. Its outbox entry stays.
var errUnsettled = errors.New("others keep changing the entry")

// copyAfterWrite runs the copying that follows a write, and logs a failure. The write itself has succeeded: the
// primary has it, and an outbox entry says that the other store may lack it.
func (p *Pair) copyAfterWrite(ctx context.Context, direction string, do func(context.Context) error) {
	timeout := p.Timeout
	if timeout == 0 {
		timeout = 5 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := do(ctx); err != nil {
		p.logFailure(direction, err)
	}
}

func (p *Pair) logFailure(direction string, err error) {
	p.Log.LogAttrs(context.Background(), slog.LevelError, "mirror failed",
		slog.String("direction", direction), slog.String("code", string(kv.CodeOf(err))), slog.String("error", err.Error()))
}

// each copies the keys of outbox entries, some at a time, and goes on after a failure.
func each(ctx context.Context, entries []kv.OutboxEntry, copy func(context.Context, kv.OutboxEntry) error) error {
	var group errgroup.Group
	group.SetLimit(parallel)
	failures := make([]error, len(entries))
	for i, entry := range entries {
		group.Go(func() error {
			failures[i] = copy(ctx, entry)
			return nil
		})
	}
	_ = group.Wait()
	return errors.Join(failures...)
}

// errOtherPrimary is for an outbox entry from before the stores were switched. Which store has the newer entry, only
// a person can decide.
var errOtherPrimary = errors.New("it was added while the other store was primary: compare what both have under the key, write what is right, and delete the row")

// Repairs counts the outbox entries that [Pair.Repair] found, by what it did with them.
type Repairs struct {
	Found        int `json:"found"`         // the sum of the others
	Repaired     int `json:"repaired"`      // copied and removed
	OtherPrimary int `json:"other_primary"` // kept, because the other store was primary: for a person to decide
	Failed       int `json:"failed"`        // kept, to be tried again
}

// Repair copies from the primary store for every outbox entry, and removes the entry. It keeps those that were added
// while the other store was primary. The error says why entries were kept, or could not be read. What was repaired
// before an error stays repaired.
func (p *Pair) Repair(ctx context.Context, primary Primary) (r Repairs, err error) {
	const batch = 500
	direction := p.toBlobs
	if primary == PrimaryBlobs {
		direction = p.repairSupabase
	}
	var mu sync.Mutex
	count := func(n *int) {
		mu.Lock()
		defer mu.Unlock()
		*n++
	}
	for after := int64(0); ; {
		entries, listErr := p.Supabase.OutboxEntries(ctx, after, batch)
		if listErr != nil || len(entries) == 0 {
			return r, errors.Join(err, listErr)
		}
		after = entries[len(entries)-1].ID
		r.Found += len(entries)
		err = errors.Join(err, each(ctx, entries, func(ctx context.Context, entry kv.OutboxEntry) error {
			if entry.Primary != string(primary) {
				count(&r.OtherPrimary)
				return fmt.Errorf("outbox entry %d: %w", entry.ID, errOtherPrimary)
			}
			if err := direction(ctx, entry); err != nil {
				count(&r.Failed)
				return fmt.Errorf("outbox entry %d: %w", entry.ID, err)
			}
			count(&r.Repaired)
			return nil
		}))
	}
}

// Primary names the store that answers requests.
type Primary string

const (
	PrimaryBlobs    Primary = "blobs"
	PrimarySupabase Primary = "supabase"
)
