package sources_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/migrate/sources"
	"netlify-supabase-kv/pkg/migrate/sources/sourcetest"
)

// TestAListThatChangesMeanwhileHasEachKeyOnce: pages that overlap give a key twice, and in no order.
func TestAListThatChangesMeanwhileHasEachKeyOnce(t *testing.T) {
	t.Parallel()
	source := &sourcetest.Memory{}
	for _, key := range []string{"b", "a", "c", "b", "\xff", "a", "aa"} {
		source.Items = append(source.Items, sourcetest.Item(key, "{}"))
	}
	l, err := sources.List(t.Context(), source, "", sources.NoProgress{})
	require.NoError(t, err)
	defer l.Close()
	var keys []string
	for blob, err := range l.All() {
		require.NoError(t, err)
		keys = append(keys, blob.Key)
	}
	require.Equal(t, []string{"a", "aa", "b", "c", "\xff"}, keys)
	require.Equal(t, len(keys), l.Blobs)
	source.Items = []sources.Item{sourcetest.Item("small", "1"), sourcetest.Item("large", "12345"), sourcetest.Item("middle", "123")}
	source.Items[1].LastModified = time.UnixMicro(1_700_000_000_123_456).UTC()
	l, err = sources.List(t.Context(), source, "", sources.NoProgress{})
	require.NoError(t, err)
	require.Equal(t, []sources.Sized{{"large", 5}, {"middle", 3}, {"small", 1}}, l.Largest)
	for blob, err := range l.Under("la") {
		require.NoError(t, err)
		require.Equal(t, blobs.Listed{Key: "large", Size: 5, LastModified: source.Items[1].LastModified}, blob)
	}
}
