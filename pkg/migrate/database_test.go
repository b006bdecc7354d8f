package migrate

import (
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/entries"
	"netlify-supabase-kv/pkg/migrate/migratetest"
)

// database is a test's own.
type database struct{ *migratetest.Database }

func newDatabase(t testing.TB) *database {
	t.Helper()
	return &database{migratetest.NewDatabase(t)}
}

// target is the database as the functions of this package take it.
func (d *database) target() entries.Target { return entries.NewTarget("test", d.Supabase) }

func TestADatabaseOfItsOwn(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	_, err := d.Supabase.Upsert(t.Context(), kv.Entry{Key: "a", Value: `{"n":1.0}`, Indexes: []kv.Index{{Key: "i", Member: "m"}}})
	require.NoError(t, err)
	digests, err := d.Supabase.Digests(t.Context(), "", 10)
	require.NoError(t, err)
	require.Len(t, digests, 2)
	d.Empty(t)
	digests, err = d.Supabase.Digests(t.Context(), "", 10)
	require.NoError(t, err)
	require.Empty(t, digests)
}
