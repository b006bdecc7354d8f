package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/migrate/migratetest"
)

// TestASorterGivesEverythingInOrder: in memory, in a file, and in both.
func TestASorterGivesEverythingInOrder(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(migratetest.Seed(t, "MIGRATE_TEST_SEED"), 0))
	for _, n := range []int{0, 1, 3, 100, 5000} {
		for _, memory := range []int{1, 1000, sortMemory} {
			dir := t.TempDir()
			s := NewSorter(dir)
			s.memory = memory
			var want []Record
			for range n {
				r := Record{strings.Repeat("k", random.IntN(3)) + fmt.Sprint(random.IntN(n)), string(byte(random.IntN(256))) + "\x00\n"}
				want = append(want, r)
				require.NoError(t, s.Add(r.Key, r.Data))
			}
			slices.SortFunc(want, Record.compare)
			for range 2 { // it can be read again
				var got []Record
				for r, err := range s.All() {
					require.NoError(t, err)
					got = append(got, r)
				}
				require.Equal(t, want, got, "%d records, %d bytes of memory", n, memory)
			}
			files, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, files, "nothing is left of it, however it ends")
			s.Close()
		}
	}
	gone := filepath.Join(t.TempDir(), "gone")
	for _, there := range []bool{false, true} { // when the sorter is made
		if there {
			require.NoError(t, os.Mkdir(gone, 0o700))
		}
		s := NewSorter(gone)
		require.NoError(t, os.RemoveAll(gone))
		s.memory = 1
		require.Equal(t, there, s.Add("a", "b") != nil, "without the directory it takes that of the system")
		s.Close()
	}
}

// TestWhatIsDoneSideBySideComesInOrder: ends early, with an error, and where the context does.
func TestWhatIsDoneSideBySideComesInOrder(t *testing.T) {
	t.Parallel()
	numbers := make([]int, 500)
	for i := range numbers {
		numbers[i] = i
	}
	weigh := func(n int) int64 { return int64(n%7) * MaxBytesAtOnce / 4 }
	do := func(_ context.Context, n int) int {
		time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
		return 2 * n
	}
	next := 0
	for n, err := range Ordered(t.Context(), 8, Of(numbers), weigh, do) {
		require.NoError(t, err)
		require.Equal(t, 2*next, n)
		next++
	}
	require.Equal(t, len(numbers), next)
	for n := range Ordered(t.Context(), 8, Of(numbers), weigh, do) {
		if n == 100 {
			break
		}
	}
	failure := errors.New("no more")
	var last error
	for _, err := range Ordered(t.Context(), 8, func(yield func(int, error) bool) { _ = yield(1, nil) && yield(0, failure) }, weigh, do) {
		last = cmp.Or(err, last)
	}
	require.Equal(t, failure, last)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for n, err := range Ordered(ctx, 8, Of(numbers), weigh, do) {
		if n == 20 {
			cancel()
		}
		last = err
	}
	require.ErrorIs(t, last, context.Canceled)
}
