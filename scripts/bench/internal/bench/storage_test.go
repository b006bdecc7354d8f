package bench

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/migrate/migratetest"
)

func TestMain(m *testing.M) { os.Exit(migratetest.Main(m)) }

func TestStorageIsThatOfAnEmptyDatabase(t *testing.T) {
	d := migratetest.NewDatabase(t)
	const entries = 500
	results, err := MeasureStorage(t.Context(), d.SQL, "bench/", entries)
	require.NoError(t, err)
	require.Len(t, results, len(storageValues))
	for i, s := range results {
		require.InEpsilon(t, storageValues[i], s.Value(), 0.1)
		require.Greater(t, s.Rows, 2*int64(entries*s.Value())/3, "the text is in it, compressed at most")
		for part, bytes := range map[string]int64{"indexes": s.Indexes, "postings": s.Postings, "members": s.Members, "log": s.Log} {
			require.Positive(t, bytes, "%s of values of %d bytes", part, s.Value())
		}
		if i > 0 {
			require.Less(t, s.Times(), results[i-1].Times(), "larger values take less beside their text")
		}
	}
	_, err = d.SQL.Exec(t.Context(), "insert into public.kv_store (key, value) values ('a', '1')")
	require.NoError(t, err)
	_, err = MeasureStorage(t.Context(), d.SQL, "bench/", entries)
	require.ErrorIs(t, err, ErrNotEmpty)
}
