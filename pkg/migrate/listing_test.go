package migrate

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
)

// TestAListThatChangesMeanwhileHasEachKeyOnce: pages that overlap give a key twice, and in no order.
func TestAListThatChangesMeanwhileHasEachKeyOnce(t *testing.T) {
	t.Parallel()
	source := &fake{}
	for _, key := range []string{"b", "a", "c", "b", "\xff", "a", "aa"} {
		source.items = append(source.items, fakeItem(key, "{}"))
	}
	l, err := list(t.Context(), source, "", noProgress{})
	require.NoError(t, err)
	defer l.close()
	var keys []string
	for blob, err := range l.all() {
		require.NoError(t, err)
		keys = append(keys, blob.Key)
	}
	require.Equal(t, []string{"a", "aa", "b", "c", "\xff"}, keys)
	require.Equal(t, len(keys), l.blobs)
	source.items = []Item{fakeItem("small", "1"), fakeItem("large", "12345"), fakeItem("middle", "123")}
	source.items[1].LastModified = time.UnixMicro(1_700_000_000_123_456).UTC()
	l, err = list(t.Context(), source, "", noProgress{})
	require.NoError(t, err)
	require.Equal(t, []Sized{{"large", 5}, {"middle", 3}, {"small", 1}}, l.largest)
	for blob, err := range l.under("la") {
		require.NoError(t, err)
		require.Equal(t, blobs.Listed{Key: "large", Size: 5, LastModified: source.items[1].LastModified}, blob)
	}
}
