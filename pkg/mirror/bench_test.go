package mirror

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

// BenchmarkUpsertsIntoALargeIndex adds a member to an index that has many, in one store and mirrored.
func BenchmarkUpsertsIntoALargeIndex(b *testing.B) {
	p := newPair(b)
	for name, store := range map[string]kv.Store{"SupabaseAlone": p.Supabase, "BlobsAlone": p.Blobs, "SupabaseFirst": NewSupabasePrimary(p.Pair), "BlobsFirst": NewBlobsPrimary(p.Pair)} {
		for _, members := range []int{100, 1_000, 10_000, 100_000} {
			index := fmt.Sprint(p.prefix, "index/", name, members)
			p.fill(index, members)
			next := 0
			b.Run(fmt.Sprint(name, "/", members), func(b *testing.B) {
				for b.Loop() {
					next++
					member := fmt.Sprint("new-", next)
					_, err := store.Upsert(b.Context(), kv.Entry{Key: p.prefix + name + member, Value: "{}", Indexes: []kv.Index{{Key: index, Member: kv.TextMember(member)}}})
					require.NoError(b, err)
				}
			})
		}
	}
	b.Log(len(p.outbox()), "copies timed out")
}

// fill writes an index entry to both stores, like a migration.
func (p *pairTest) fill(index string, members int) {
	p.t.Helper()
	var array strings.Builder
	for i := range members {
		fmt.Fprintf(&array, `,"session-%08d-abcdef"`, i)
	}
	applied, _, err := p.Supabase.Copy(p.t.Context(), kv.State{Key: index, Value: "[" + array.String()[1:] + "]", IsIndex: true}, kv.RowRevision{}, false)
	require.NoError(p.t, err)
	require.True(p.t, applied)
	states, err := p.Supabase.States(p.t.Context(), []string{index})
	require.NoError(p.t, err)
	written, err := p.Pair.Blobs.Write(p.t.Context(), states[0], "")
	require.NoError(p.t, err)
	require.True(p.t, written)
}
