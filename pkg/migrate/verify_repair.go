package migrate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/sources"
)

// repair makes the entries that differ what the blobs are, and compares these once more.
func (c *comparison) repair(ctx context.Context) error {
	keys := slices.Sorted(maps.Keys(c.differing))
	c.o.Progress.Stage("repairing", len(keys))
	var written []string
	for _, key := range keys {
		wrote, err := c.settle(ctx, c.differing[key])
		if err != nil && !errors.Is(err, errUnsettled) {
			return fmt.Errorf("repair: %w", err)
		}
		if wrote {
			written = append(written, key)
		}
		c.o.Progress.Done(1, 0)
	}
	if err := c.again(ctx); err != nil {
		return err
	}
	for _, key := range written {
		if _, differs := c.differing[key]; !differs {
			c.v.Repaired++
		}
	}
	return nil
}

// errUnsettled is a key that others keep changing.
var errUnsettled = errors.New("others keep changing the entry")

// settle copies a key until the blob has not moved, as mirrored writes do: the entry's revision is read before the
// blob is, the copy is a compare-and-set on it, and the blob is looked at again afterwards. wrote reports whether the
// entry was written or removed.
func (c *comparison) settle(ctx context.Context, d differing) (wrote bool, err error) {
	const rounds = 20
	for range rounds {
		now, err := c.target.State(ctx, d.Key)
		if err != nil {
			return wrote, err
		}
		item, err := sources.ReadOne(ctx, c.source, d.listed)
		if err != nil {
			return wrote, err
		}
		state := kv.State{Key: d.Key}
		if !item.Missing {
			e, problem := c.o.Transform(item, d.pairs)
			if problem != nil {
				return wrote, nil // it stays a difference
			}
			state = e.State
		}
		if strings.Contains(d.What, "postings") { // which follow a change of the indexes alone
			bare := state
			bare.Indexes = [][2]string{}
			if _, _, err := c.target.Supabase.Copy(ctx, bare, now.Revision, false); err != nil {
				return wrote, fmt.Errorf("write the entry: %w", err)
			}
			if now, err = c.target.State(ctx, d.Key); err != nil {
				return wrote, err
			}
		}
		applied, _, err := c.target.Supabase.Copy(ctx, state, now.Revision, false)
		if err != nil {
			return wrote, fmt.Errorf("write the entry: %w", err)
		}
		if !applied {
			continue
		}
		wrote = true
		again, err := sources.ReadOne(ctx, c.source, d.listed)
		if err != nil {
			return wrote, err
		}
		if again.Missing == item.Missing && again.Blob.ETag == item.Blob.ETag && string(again.Blob.Value) == string(item.Blob.Value) {
			return true, nil
		}
	}
	return wrote, errUnsettled
}
