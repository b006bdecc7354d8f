package migrate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/migrate/migratetest"
)

// TestASorterGivesEverythingInOrder: in memory, in a file, and in both.
func TestASorterGivesEverythingInOrder(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(migratetest.Seed(t, "MIGRATE_TEST_SEED"), 0))
	for _, n := range []int{0, 1, 3, 100, 5000} {
		for _, memory := range []int{1, 1000, sortMemory} {
			dir := t.TempDir()
			s := newSorter(dir)
			s.memory = memory
			var want []record
			for range n {
				r := record{strings.Repeat("k", random.IntN(3)) + fmt.Sprint(random.IntN(n)), string(byte(random.IntN(256))) + "\x00\n"}
				want = append(want, r)
				require.NoError(t, s.add(r.key, r.data))
			}
			slices.SortFunc(want, record.compare)
			for range 2 { // it can be read again
				var got []record
				for r, err := range s.all() {
					require.NoError(t, err)
					got = append(got, r)
				}
				require.Equal(t, want, got, "%d records, %d bytes of memory", n, memory)
			}
			files, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, files, "nothing is left of it, however it ends")
			s.close()
		}
	}
	s := newSorter("/none/such")
	s.memory = 1
	require.Error(t, s.add("a", "b"))
}

// TestWhatIsDoneSideBySideComesInOrder: ends early, with an error, and where the context does.
func TestWhatIsDoneSideBySideComesInOrder(t *testing.T) {
	t.Parallel()
	numbers := make([]int, 500)
	for i := range numbers {
		numbers[i] = i
	}
	weigh := func(n int) int64 { return int64(n%7) * maxBytesAtOnce / 4 }
	do := func(_ context.Context, n int) int {
		time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
		return 2 * n
	}
	next := 0
	for n, err := range ordered(t.Context(), 8, all(numbers), weigh, do) {
		require.NoError(t, err)
		require.Equal(t, 2*next, n)
		next++
	}
	require.Equal(t, len(numbers), next)
	for n := range ordered(t.Context(), 8, all(numbers), weigh, do) {
		if n == 100 {
			break
		}
	}
	failure := errors.New("no more")
	var last error
	for _, err := range ordered(t.Context(), 8, func(yield func(int, error) bool) { _ = yield(1, nil) && yield(0, failure) }, weigh, do) {
		last = cmp.Or(err, last)
	}
	require.Equal(t, failure, last)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for n, err := range ordered(ctx, 8, all(numbers), weigh, do) {
		if n == 20 {
			cancel()
		}
		last = err
	}
	require.ErrorIs(t, last, context.Canceled)
}

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
