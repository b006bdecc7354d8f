package schema

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

// Where Go and SQL have the same limit, Go refuses first, with a message for callers.
func TestLimitsAreThoseOfGo(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	require.Equal(t, kv.MaxResponseBytes, one[int](t, conn, "select kv.response_limit()"))
	require.Equal(t, kv.MaxPageBytes, one[int](t, conn, "select kv.page_limit()"))
	require.Greater(t, one[int](t, conn, "select increment_by from pg_sequences where schemaname = 'kv' and sequencename = 'member_position'"), kv.MaxIndexes)

	timeout := one[string](t, conn, `select split_part(setting, '=', 2) from pg_proc, unnest(proconfig) as setting
		where oid = 'public.kv_query(jsonb, text, text)'::regprocedure and setting like 'statement_timeout=%'`)
	queryTime, err := time.ParseDuration(timeout)
	require.NoError(t, err)
	require.Equal(t, kv.MaxQueryTime, queryTime)

	insert := func(key string) error {
		_, err := conn.Exec(t.Context(), "insert into public.kv_store (key, value) values ($1, '{}')", key)
		return err
	}
	require.NoError(t, insert(strings.Repeat("k", kv.MaxKeyBytes)))
	var refused *pgconn.PgError
	require.ErrorAs(t, insert(strings.Repeat("k", kv.MaxKeyBytes+1)), &refused)
	require.Equal(t, "kv_store_key_length", refused.ConstraintName)

	_, err = conn.Exec(t.Context(), "insert into public.kv_store (key, value) values ('long', json_build_object('t', repeat('ä', 300)))")
	require.NoError(t, err)
	cursor, err := kv.ParseCursor(one[string](t, conn, "select kv.query_cursor($1::jsonb, 'q', 'long')", aQuery(t, `"sort":[{"path":"/t"}]`)))
	require.NoError(t, err)
	require.JSONEq(t, `[1,"`+strings.Repeat("ä", kv.MaxSortText)+`"]`, string(cursor.Position))
}
