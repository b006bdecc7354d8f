package mirror

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

// deployment is the instances that serve requests. During a deploy, the old and the new ones do.
type deployment struct {
	mu     sync.RWMutex
	stores []kv.Store
	turn   atomic.Int64
	// calls is held by every caller during its writes, so that the stores can be compared between writes.
	calls sync.RWMutex
	made  [callers]atomic.Int64 // finished calls, by caller
}

const callers = 4

func (d *deployment) any() kv.Store {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.stores[int(d.turn.Add(1))%len(d.stores)]
}

// phase waits until every caller has made some more calls.
func (d *deployment) phase(t *testing.T) {
	t.Helper()
	const each = 3
	var want [callers]int64
	for i := range want {
		want[i] = d.made[i].Load() + each
	}
	require.Eventually(t, func() bool {
		for i := range want {
			if d.made[i].Load() < want[i] {
				return false
			}
		}
		return true
	}, 2*time.Minute, time.Millisecond, "the callers went on")
}

// roll deploys the next instances: beside the old ones for a phase, and then alone.
func (d *deployment) roll(t *testing.T, next ...kv.Store) {
	t.Helper()
	d.mu.Lock()
	before := d.stores
	d.stores = append(slices.Clone(before), next...)
	d.mu.Unlock()
	d.phase(t)
	d.mu.Lock()
	d.stores = next
	d.mu.Unlock()
	d.phase(t)
}

// caller counts up its own entries through any instance, and requires to read what was acknowledged.
func (d *deployment) caller(t *testing.T, p *pairTest, number int, stop <-chan struct{}) (written int) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return n
		default:
		}
		if !d.call(t, p, number, n) {
			return n
		}
		d.made[number].Add(1)
	}
}

// call writes, reads and sometimes deletes one entry. It returns false on a failure.
func (d *deployment) call(t *testing.T, p *pairTest, number, n int) bool {
	d.calls.RLock()
	defer d.calls.RUnlock()
	ctx := context.WithoutCancel(t.Context())
	key := fmt.Sprintf("%scaller%d/%d", p.prefix, number, n%5)
	entry := kv.Entry{Key: key, Value: fmt.Sprintf(`{"n":%d}`, n), Indexes: []kv.Index{{Key: p.prefix + "index", Member: kv.TextMember(fmt.Sprintf("c%d-%d", number, n))}}}
	if _, err := d.any().Upsert(ctx, entry); err != nil {
		t.Errorf("caller %d, write %d: %v", number, n, err)
		return false
	}
	value, err := d.any().Get(ctx, key)
	if err != nil || value != entry.Value {
		t.Errorf("caller %d was told that %s was written, and reads %q (%v)", number, entry.Value, value, err)
		return false
	}
	if n%7 != 3 {
		return true
	}
	if _, err := d.any().Delete(ctx, key); err != nil {
		t.Errorf("caller %d, delete %d: %v", number, n, err)
		return false
	}
	if value, err := d.any().Get(ctx, key); kv.CodeOf(err) != kv.CodeNotFound {
		t.Errorf("caller %d deleted write %d, and reads %q (%v)", number, n, value, err)
		return false
	}
	return true
}

// TestSwitchAndRollbackUnderTraffic goes from Blobs to Supabase and back, as docs/MIGRATION.md and docs/ROLLBACK.md say.
// No caller gets an error, and no acknowledged write is lost.
func TestSwitchAndRollbackUnderTraffic(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	ctx := t.Context()
	for i := range 50 { // from before the switch
		_, err := p.Blobs.Upsert(ctx, kv.Entry{Key: fmt.Sprintf("%sold/%02d", p.prefix, i), Value: fmt.Sprintf(`{"old":%d}`, i),
			Indexes: []kv.Index{{Key: p.prefix + "index", Member: kv.TextMember(fmt.Sprint("old-", i))}}})
		require.NoError(t, err)
	}
	blobsOnly := []kv.Store{p.Blobs, p.instance().Blobs}
	blobsMirrored := []kv.Store{NewBlobsPrimary(p.instance()), NewBlobsPrimary(p.instance())}
	supabaseMirrored := []kv.Store{NewSupabasePrimary(p.instance()), NewSupabasePrimary(p.instance())}

	d := &deployment{stores: blobsOnly}
	stop := make(chan struct{})
	written := make([]int, callers)
	var group sync.WaitGroup
	t.Cleanup(func() { // if the test fails early
		select {
		case <-stop:
		default:
			close(stop)
		}
		group.Wait()
	})
	for number := range callers {
		group.Go(func() { written[number] = d.caller(t, p, number, stop) })
	}
	requireAlike := func(step string) {
		t.Helper()
		d.calls.Lock()
		defer d.calls.Unlock()
		require.Empty(t, p.unlike(), step)
	}
	d.phase(t)
	d.roll(t, blobsMirrored...) // 1. mirror on
	p.copyEverything()          // 2. migrate the rest
	requireAlike("3. verify")
	d.roll(t, supabaseMirrored...) // 4. the switch
	requireAlike("after the switch")
	d.roll(t, blobsMirrored...) // 5. the way back
	requireAlike("after the way back")
	d.roll(t, blobsOnly...)
	close(stop)
	group.Wait()
	require.Empty(t, p.log.String(), "every copy was confirmed")

	value, err := p.Blobs.Get(ctx, p.prefix+"index")
	require.NoError(t, err)
	var members []string
	require.NoError(t, json.Unmarshal([]byte(value), &members))
	for number, n := range written {
		t.Logf("caller %d wrote %d times", number, n)
		require.Greater(t, n, 20)
		for i := range n {
			require.Contains(t, members, fmt.Sprintf("c%d-%d", number, i), "a member that was acknowledged")
		}
	}
	for i := range 50 {
		require.Contains(t, members, fmt.Sprint("old-", i))
		value, err := p.Blobs.Get(ctx, fmt.Sprintf("%sold/%02d", p.prefix, i))
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf(`{"old":%d}`, i), value)
	}
}

// copyEverything stands in for the migration: it copies each blob like a write of it. Of the growing index entry it
// copies the members.
func (p *pairTest) copyEverything() {
	p.t.Helper()
	var list struct{ Keys []string }
	text, err := p.Blobs.List(p.t.Context(), kv.ListQuery{Prefix: p.prefix})
	require.NoError(p.t, err)
	require.NoError(p.t, json.Unmarshal([]byte(text), &list))
	for _, key := range list.Keys {
		entries, err := p.Supabase.AddOutboxEntries(p.t.Context(), []string{key})
		require.NoError(p.t, err)
		require.NoError(p.t, p.toSupabase(p.t.Context(), entries[0], strings.HasSuffix(key, "/index"), nil))
		require.NoError(p.t, p.Supabase.RemoveOutboxEntries(p.t.Context(), entries))
	}
}

// unlike lists differences. Members that were added during a switch may be in another order.
func (p *pairTest) unlike() []difference {
	sorted := func(c map[string]json.RawMessage) contents {
		for key, value := range c {
			var members []string
			if strings.HasSuffix(key, "/index") && json.Unmarshal(value, &members) == nil {
				slices.Sort(members)
				c[key], _ = json.Marshal(members)
			}
		}
		return contents{values: c}
	}
	return sorted(p.everything(p.Supabase)).differences(sorted(p.everything(p.Blobs)))
}
