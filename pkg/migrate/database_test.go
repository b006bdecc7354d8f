package migrate

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/migratetest"
)

// database is a test's own; see [migratetest.Database].
type database struct {
	supabase *kv.Supabase
	sql      *pgx.Conn
	url, key string
	ownerURL string
}

func newDatabase(t testing.TB) *database {
	t.Helper()
	d := migratetest.NewDatabase(t)
	return &database{d.Supabase, d.SQL, d.URL, d.Key, d.OwnerURL}
}

// target is the database as the functions of this package take it.
func (d *database) target() Target { return NewTarget("test", d.supabase) }

// empty removes everything, as if the database were new.
func (d *database) empty(t testing.TB) {
	t.Helper()
	for _, table := range []string{"kv.migration", "kv.import", "public.kv_store", "kv.outbox"} { // members and postings follow their entries
		_, err := d.sql.Exec(t.Context(), "delete from "+table)
		require.NoError(t, err)
	}
}

func TestADatabaseOfItsOwn(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	_, err := d.supabase.Upsert(t.Context(), kv.Entry{Key: "a", Value: `{"n":1.0}`, Indexes: []kv.Index{{Key: "i", Member: "m"}}})
	require.NoError(t, err)
	digests, err := d.supabase.Digests(t.Context(), "", 10)
	require.NoError(t, err)
	require.Len(t, digests, 2)
	d.empty(t)
	digests, err = d.supabase.Digests(t.Context(), "", 10)
	require.NoError(t, err)
	require.Empty(t, digests)
}
