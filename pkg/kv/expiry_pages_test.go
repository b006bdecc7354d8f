package kv

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A page depends on the entries that its offset skips, and on whether another one follows. When one of these expires, the change feed
// does not say so.
func TestAPageIsKeptUntilWhatItDependsOnExpires(t *testing.T) {
	t.Parallel()
	c := newCacheTest(t, nil)
	c.Cache.now = time.Now
	ctx, fresh := t.Context(), Uncached(c.store)
	last := strings.Repeat("long", 200)
	put := func(key, value string, ttl time.Duration) {
		_, err := c.store.Apply(ctx, Batch{Operations: []Operation{{Action: ActionPut, Store: DefaultStore, Key: c.prefix + key, Data: []byte(value), TTL: ttl}}})
		require.NoError(t, err)
	}
	// Each page is large: the cache asks only whether it changed.
	text := `"` + strings.Repeat("x", 40<<10) + `"`
	for n := range 4 {
		put(fmt.Sprint("values/", n), text, 0)
	}
	for n := range 100 {
		put(fmt.Sprintf("keys/%s%04d", last, n), "1", 0)
	}
	const lives = 5 * time.Second
	put("values/", text, lives)
	put("keys/z", "1", lives)
	var until time.Time
	require.NoError(t, c.sql.QueryRow(ctx, "select max(expires_at) from public.kv_store where starts_with(key, $1)", c.prefix).Scan(&until))

	reads := map[string]func(Reader) (ReadResult, error){
		"List": func(r Reader) (ReadResult, error) {
			return r.List(ctx, ListQuery{Prefix: c.prefix + "values/", Values: true, Limit: new(2), Offset: new(1)}, Freshness{})
		},
		"Query": func(r Reader) (ReadResult, error) {
			return r.Query(ctx, Query{Prefix: c.prefix + "values/", Limit: 2, Offset: new(1)}, Freshness{})
		},
		"Entries": func(r Reader) (ReadResult, error) {
			q := EntryQuery{Store: DefaultStore, Prefix: c.prefix + "keys/", Limit: 100}
			if r == fresh {
				return c.store.ListEntries(ctx, q, Freshness{})
			}
			return c.ListEntries(ctx, q, Freshness{})
		},
	}
	before := map[string]string{}
	for name, read := range reads {
		result, err := read(c)
		require.NoError(t, err, name)
		require.Greater(t, len(result.Body), c.large, name)
		before[name] = result.Body
	}
	_, err := c.sql.Exec(ctx, "select pg_sleep(extract(epoch from $1 - clock_timestamp()))", until)
	require.NoError(t, err)
	for name, read := range reads {
		want, err := read(fresh)
		require.NoError(t, err, name)
		got, err := read(c)
		require.NoError(t, err, name)
		require.True(t, want.Body == got.Body, "%s: a page that has changed comes from memory: %.300s", name, got.Body)
		require.NotEqual(t, before[name], got.Body, name)
	}
}
