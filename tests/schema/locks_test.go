package schema

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// Transactions that share a row lock cost a MultiXact each, which is written to disk and kept until the table is
// frozen. Every upsert adds to existing indexes, so that must not happen there.
func TestAHotIndexCostsNoMultiXacts(t *testing.T) {
	t.Parallel()
	const writers = 16
	seconds := time.Duration(number(t, "KV_SCHEMA_HOT_SECONDS", 0)) * time.Second
	d := newDatabase(t)
	watch := d.superuser(t)
	upsert(t, watch, "first", `{}`, pairs{{"hot", "m"}, {"warm", "m"}})
	const count = "select mxid_age('1'::xid)::bigint" // their number so far, on this server
	slru := func() string {
		return one[string](t, watch, `select concat_ws(' ', sum(blks_zeroed), 'zeroed', sum(blks_hit), 'hit', sum(blks_read), 'read', sum(blks_written), 'written')
			from pg_stat_slru where name ilike 'multixact%'`)
	}
	wal := func() int64 { return one[int64](t, watch, "select pg_current_wal_insert_lsn() - '0/0'::pg_lsn") }
	began, before, slruBefore, walBefore := time.Now(), one[int64](t, watch, count), slru(), wal()
	var calls, most atomic.Int64
	together(t, d, writers+1, func(i int, conn *pgx.Conn) error {
		if i == writers {
			for calls.Load() < writers*50 || time.Since(began) < seconds {
				var members int64
				err := conn.QueryRow(context.Background(), `
					select count(*) from public.kv_store as s, pg_get_multixact_members(s.xmax) where s.key = 'hot' and s.xmax::text <> '0'`).Scan(&members)
				if err == nil { // otherwise xmax is a transaction
					most.Store(max(most.Load(), members))
				}
			}
			return nil
		}
		for n := 0; n < 50 || time.Since(began) < seconds; n++ {
			_, err := conn.Exec(context.Background(), "select public.kv_upsert($1, '{}', $2)",
				fmt.Sprintf("k%d", i), [][]string{{"hot", fmt.Sprintf("%d.%d", i, n)}, {"warm", fmt.Sprintf("%d.%d", i, n)}})
			if err != nil {
				return err
			}
			calls.Add(1)
		}
		return nil
	})
	took, made := time.Since(began), one[int64](t, watch, count)-before
	t.Logf("%d calls in %v (%.0f/s), %d MultiXacts on the server, %d members at most; pg_stat_slru from %s to %s; %.0f bytes of WAL a call", calls.Load(), took.Round(time.Millisecond),
		float64(calls.Load())/took.Seconds(), made, most.Load(), slruBefore, slru(), float64(wal()-walBefore)/float64(calls.Load()))
	require.Len(t, members(t, watch, "hot"), int(calls.Load())+1)
	require.Zero(t, most.Load(), "the index entry's row was held by several at once")
}
