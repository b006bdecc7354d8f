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
	// Log gets a line for each write whose copy is not confirmed, with no key in it.
	Log *slog.Logger
	// Timeout bounds what a write takes longer for its copy; 0: 5 s.
	Timeout time.Duration
}

const (
	// parallel bounds how many keys of one write are copied at a time.
	parallel = 8
	// rounds bounds how often one copy begins again because others keep writing the key; each of them copies it too.
	rounds = 50
)

// errUnsettled is a copy that others overtook too often. Its trace stays.
var errUnsettled = errors.New("others keep changing the entry")

// copied runs the copying that follows a write, and logs what is not confirmed. The caller of the function is not told: the
// first store has the write, and the trace says that the other may lack it.
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

// each copies the traces' keys, some at a time, and goes on with the others where one fails.
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

// errOtherPrimary is an outbox entry from before the stores were switched: which of them has the newer entry, only a person can tell.
var errOtherPrimary = errors.New("it was left while the other store answered: compare what both have under the key, write what is right, and delete the row")

// Repairs is what [Pair.Repair] did with the traces that it found.
type Repairs struct {
	Found        int `json:"found"`         // the sum of the others
	Repaired     int `json:"repaired"`      // copied, and the trace removed
	OtherPrimary int `json:"other_primary"` // left while the other store answered: for a person to decide
	Failed       int `json:"failed"`        // left: to be tried again
}

// Repair works off the traces that are left, in the direction that first names, and leaves those of the other direction. An error
// says why traces stayed, or why no more could be asked for; what was repaired until then stays repaired.
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

// First is the store that answers.
type Primary string

const (
	PrimaryBlobs    Primary = "blobs"
	PrimarySupabase Primary = "supabase"
)
