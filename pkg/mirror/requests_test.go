package mirror

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/blobs/blobstest"
	"netlify-supabase-kv/pkg/kv"
)

// TestRunbookStatesTheCostOfOperations counts requests to Netlify's API, and compares the runbook's table with them.
func TestRunbookStatesTheCostOfOperations(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/ROLLBACK.md")
	require.NoError(t, err)
	p := newPair(t)
	server, err := blobstest.Open(t.TempDir(), blobstest.Options{})
	require.NoError(t, err)
	limiter := blobs.NewLimiter(0, time.Minute)
	p.throughAPI(server, limiter)
	ctx := t.Context()
	stores := []kv.Store{p.Blobs, NewBlobsPrimary(p.Pair), NewSupabasePrimary(p.Pair)}

	// Each store has twenty entries in two indexes.
	prefix := func(i int) string { return fmt.Sprint(p.prefix, i, "/") }
	entry := func(i int, name string, indexes ...string) kv.Entry {
		e := kv.Entry{Key: prefix(i) + name, Value: `{"n":1}`, Indexes: []kv.Index{}}
		for _, index := range indexes {
			e.Indexes = append(e.Indexes, kv.Index{Key: p.prefix + fmt.Sprint("index", i, index), Member: kv.TextMember(name)})
		}
		return e
	}
	for i, store := range stores {
		for n := range 20 {
			_, err := store.Upsert(ctx, entry(i, fmt.Sprint(n), "a", "b"))
			require.NoError(t, err)
		}
	}
	list := func(q kv.ListQuery) func(int, kv.Store) error {
		return func(i int, store kv.Store) error {
			q.Prefix = prefix(i)
			_, err := store.List(ctx, q)
			return err
		}
	}
	upsert := func(name string, indexes ...string) func(int, kv.Store) error {
		return func(i int, store kv.Store) error {
			_, err := store.Upsert(ctx, entry(i, name, indexes...))
			return err
		}
	}
	for _, operation := range []struct {
		name string
		do   func(int, kv.Store) error
	}{
		{"kv-get", func(i int, store kv.Store) error { _, err := store.Get(ctx, prefix(i)+"1"); return err }},
		{"kv-list, keys alone", list(kv.ListQuery{})},
		{"kv-list of 20 with values", list(kv.ListQuery{Values: true})},
		{"kv-list of 20 by an index or a time", list(kv.ListQuery{Sort: kv.SortKey{Path: "updatedAt"}})},
		{"kv-upsert", upsert("1")},
		{"kv-upsert with one index", upsert("new", "a")},
		{"kv-upsert with two indexes", upsert("newer", "a", "b")},
		{"kv-upsert with two indexes that have the member", upsert("2", "a", "b")},
		{"kv-delete", func(i int, store kv.Store) error { _, err := store.Delete(ctx, prefix(i)+"3"); return err }},
	} {
		counted := make([]int, len(stores))
		for i, store := range stores {
			before := limiter.Asked()
			require.NoError(t, operation.do(i, store), operation.name)
			counted[i] = limiter.Asked() - before
		}
		t.Log(operation.name, counted)
		row := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(operation.name) + ` \| (\d+) \| (\d+) \| (\d+) \|$`).FindStringSubmatch(string(text))
		if row == nil {
			t.Errorf("docs/ROLLBACK.md has no row for %s: %v", operation.name, counted)
			continue
		}
		for i := range stores {
			said, err := strconv.Atoi(row[i+1])
			require.NoError(t, err)
			require.Equal(t, said, counted[i], "%s, column %d", operation.name, i+1)
		}
	}
	require.Empty(t, p.outbox())
}
