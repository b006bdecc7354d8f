package kv

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// TestNothingIsSeenAfterItsExpiry writes entries that live 0.3 to 3 seconds, while others read them through warm caches.
// Each value holds the time of its expiry. No read that began after that time, by the database's clock, may show it.
func TestNothingIsSeenAfterItsExpiry(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	prefix := newPrefix(t)
	length := time.Duration(setting(t, "EXPIRY_TEST_SECONDS", 4)) * time.Second
	seed := seedOf(t)
	ended := time.Now().Add(length)
	var group sync.WaitGroup
	defer group.Wait()

	write := func(ctx context.Context, n uint64) {
		store, clock, r := LiveStore(t), liveSQL(t), rand.New(rand.NewPCG(seed, n))
		for i := 0; time.Now().Before(ended); i++ {
			expires := databaseTime(ctx, t, clock).Add(time.Duration(300+r.IntN(2700)) * time.Millisecond).Truncate(time.Millisecond)
			_, err := store.Apply(ctx, Batch{Operations: []Operation{{Action: ActionPut, Store: DefaultStore, Key: fmt.Sprint(prefix, r.IntN(12)), Expires: expires,
				Data: fmt.Appendf(nil, `{"until":%d,"word":"present"}`, expires.UnixMilli()), Indexes: []Index{{Key: prefix + "index", Member: "m"}}}}})
			if err != nil {
				t.Errorf("write: %v", err)
				return
			}
		}
	}
	read := func(ctx context.Context, n uint64) {
		config := DefaultCache
		config.MaxStale = time.Minute // whatever else changes, an expiry shows at once
		cache, clock, r := NewCache(LiveStore(t), config), liveSQL(t), rand.New(rand.NewPCG(seed, n))
		for time.Now().Before(ended) {
			began := databaseTime(ctx, t, clock)
			body, err := anyRead(ctx, cache, r, prefix)
			if err != nil && CodeOf(err) != CodeNotFound {
				t.Errorf("read: %v", err)
				return
			}
			for _, part := range strings.Split(body, `"until":`)[1:] {
				var until int64
				if strings.HasPrefix(part, "null") { // the index entry
					continue
				}
				if _, err := fmt.Sscanf(part, "%d", &until); err != nil || until <= began.UnixMilli() {
					t.Errorf("a read that began at %d shows an entry that expired at %d (%v): %.200s", began.UnixMilli(), until, err, body)
					return
				}
			}
		}
	}
	for n := range uint64(3) {
		group.Go(func() { write(ctx, n) })
		group.Go(func() { read(ctx, n+100) })
	}
}

func databaseTime(ctx context.Context, t *testing.T, conn *pgx.Conn) (now time.Time) {
	if err := conn.QueryRow(ctx, "select clock_timestamp()").Scan(&now); err != nil {
		t.Errorf("read the database's clock: %v", err)
	}
	return now
}

// anyRead makes one of the reads that show values, or count entries.
func anyRead(ctx context.Context, c *Cache, r *rand.Rand, prefix string) (string, error) {
	key := fmt.Sprint(prefix, r.IntN(12))
	query := Query{Prefix: prefix}
	switch r.IntN(8) {
	case 0:
		result, err := c.Get(ctx, key, Freshness{})
		return result.Body, err
	case 1:
		result, err := c.GetEntry(ctx, DefaultStore, key, Freshness{})
		return string(result.Data), err
	case 2:
		result, err := c.List(ctx, ListQuery{Prefix: prefix, Values: true}, Freshness{})
		return result.Body, err
	case 3:
		result, err := c.List(ctx, ListQuery{Prefix: prefix, Values: true, Indexes: []string{prefix + "index:m"}}, Freshness{})
		return result.Body, err
	case 4:
		query.Search = Search{{{Text: "present"}}}
	case 5:
		query.Sort = []SortKey{{Path: "until"}}
	case 6:
		query.Indexes = &IndexFilter{All: []IndexFilter{{Exact: Index{Key: prefix + "index", Member: "m"}}}}
	case 7: // the least "until" among those that count
		query.Aggregates, query.GroupBy = []Aggregate{{Op: "count"}}, "until"
		result, err := c.Query(ctx, query, Freshness{})
		return strings.ReplaceAll(result.Body, `{"group":`, `{"until":`), err
	}
	result, err := c.Query(ctx, query, Freshness{})
	return result.Body, err
}

// TestWhatExpiredIsRemoved: writes remove it faster than they could write it, and nobody has to ask.
func TestWhatExpiredIsRemoved(t *testing.T) {
	t.Parallel()
	store := LiveStore(t)
	for name, c := range map[string]struct {
		writes int // at most, until all is removed
		write  func(ctx context.Context, key string) error
	}{
		"single writes": {20_000, func(ctx context.Context, key string) error {
			_, err := store.Upsert(ctx, Entry{Key: key, Value: "{}"})
			return err
		}},
		"batches": {50, func(ctx context.Context, key string) error { // 2,000 entries
			var puts []Operation
			for i := range 40 {
				puts = append(puts, Operation{Action: ActionPut, Store: DefaultStore, Key: fmt.Sprint(key, i), Data: []byte("{}")})
			}
			_, err := store.Apply(ctx, Batch{Operations: puts})
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, conn, prefix := t.Context(), liveSQL(t), newPrefix(t)
			_, err := conn.Exec(ctx, `insert into public.kv_store (key, value, expires_at, index_pairs)
				select $1 || n, '{}', clock_timestamp() - interval '1 day', array[array[$1 || 'index', n::text]] from generate_series(1, 1000) as n`, prefix)
			require.NoError(t, err)
			left, writes := 0, 0
			for ; writes < c.writes; writes++ {
				if writes%10 == 0 {
					require.NoError(t, conn.QueryRow(ctx, "select count(*) from public.kv_store where starts_with(key, $1) and expires_at is not null", prefix).Scan(&left))
					if left == 0 {
						break
					}
				}
				require.NoError(t, c.write(ctx, prefix+"other"))
			}
			require.Zero(t, left, "entries that expired a day ago, after %d writes", writes)
			var postings int
			require.NoError(t, conn.QueryRow(ctx, "select count(*) from kv.posting where starts_with(key, $1)", prefix).Scan(&postings))
			require.Zero(t, postings, "their postings")
		})
	}
}

// TestARemovalSkipsLockedEntries: a removal takes only rows that nobody has locked.
func TestARemovalSkipsLockedEntries(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	conn, prefix := liveSQL(t), newPrefix(t)
	_, err := conn.Exec(ctx, `insert into public.kv_store (key, value, expires_at) values ($1, '{}', clock_timestamp() - interval '100 years')`, prefix+"k")
	require.NoError(t, err)
	tx, err := conn.Begin(ctx)
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback(context.WithoutCancel(ctx))) }()
	_, err = tx.Exec(ctx, "select from public.kv_store where key = $1 for update", prefix+"k")
	require.NoError(t, err)
	other := liveSQL(t)
	_, err = other.Exec(ctx, "set lock_timeout = '30s'")
	require.NoError(t, err)
	_, err = other.Exec(ctx, "select kv.remove_expired(100)")
	require.NoError(t, err, "a removal waits for a lock")
}
