package postgres

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

func TestMigrationsAreFoundInOrder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"20260102000000_b.sql", "20260101000000_a.sql", "README.md", "seed.sql", "20260103000000_c.down.txt"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("select 1"), 0o644))
	}
	found, err := migrations(dir)
	require.NoError(t, err)
	require.Equal(t, []migration{
		{file: filepath.Join(dir, "20260101000000_a.sql"), version: "20260101000000", name: "a", sql: "select 1"},
		{file: filepath.Join(dir, "20260102000000_b.sql"), version: "20260102000000", name: "b", sql: "select 1"},
	}, found)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "20260101000000_again.sql"), nil, 0o644))
	_, err = migrations(dir)
	require.ErrorContains(t, err, "two migrations have the version 20260101000000")
	found, err = migrations(filepath.Join(dir, "none"))
	require.NoError(t, err)
	require.Empty(t, found)
}

func TestFailureIsLocated(t *testing.T) {
	t.Parallel()
	m := migration{file: "/x/supabase/migrations/1_a.sql", sql: "-- ä\nselect\n  foo;"}
	err := located(m, &pgconn.PgError{Message: `column "foo" does not exist`, Code: "42703", Position: 15})
	require.EqualError(t, err, `supabase/migrations/1_a.sql:3:3: column "foo" does not exist (SQLSTATE 42703)`)
	err = located(m, &pgconn.PgError{Message: "no", Code: "P0001", Where: "PL/pgSQL function f()"})
	require.EqualError(t, err, "supabase/migrations/1_a.sql: no (SQLSTATE P0001); PL/pgSQL function f()")
}
