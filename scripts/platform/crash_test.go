package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/scripts/platform/internal/proc"
)

// TestCachesDoNotOutliveACrashOfPostgres: a crash undoes transactions that were not on disk yet, although a cache may
// have read them, and their ids are reused. The test is here because it needs a Postgres that it can kill.
func TestCachesDoNotOutliveACrashOfPostgres(t *testing.T) {
	p := newProject(t)
	migrations, err := filepath.Glob("../../supabase/migrations/*.sql")
	require.NoError(t, err)
	require.NotEmpty(t, migrations)
	for _, file := range migrations {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		write(t, p.checkout.Root, "supabase/migrations/"+filepath.Base(file), string(content))
	}
	p.up(t)
	env := p.variables(t)
	store, err := kv.NewSupabase(env["SUPABASE_URL"], env["SUPABASE_SERVICE_ROLE_KEY"])
	require.NoError(t, err)
	admin := connect(t, env["DATABASE_ADMIN_URL"])
	for _, sql := range []string{"alter system set wal_writer_delay = '10s'", "select pg_reload_conf()"} { // leaves time to crash
		_, err := admin.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	large := func(text string) string { return `["` + text + strings.Repeat("x", 100_000) + `"]` } // large answers stay in memory until the change feed names their key

	for name, crash := range map[string]func(t *testing.T, backend uint32){
		"OfTheServer":      func(t *testing.T, _ uint32) { require.NoError(t, proc.Kill(p.processes(t).Processes["postgres"].PID)) },
		"OfOneBackendOnly": func(t *testing.T, backend uint32) { require.NoError(t, proc.Kill(int(backend))) },
	} {
		t.Run(name, func(t *testing.T) {
			config := kv.DefaultCache
			config.MaxStale = 0
			cache := kv.NewCache(store, config)
			get := func() kv.ReadResult {
				t.Helper()
				answer, err := cache.Get(t.Context(), name, kv.Freshness{})
				require.NoError(t, err)
				return answer
			}
			put(t, store, name, large("safe"))
			require.Equal(t, large("safe"), get().Body)
			require.Equal(t, kv.SourceRevalidated, get().Source, "it is in memory")

			lost := false
			for range 20 {
				if lost = losesWhatWasRead(t, env, name, large("lost"), get, crash); lost {
					break
				}
			}
			require.True(t, lost, "none of the crashes lost a transaction")
			for range 30 { // reuses the ids of the lost transactions
				put(t, store, "other", `{}`)
			}
			answer := get()
			require.True(t, large("safe") == answer.Body, "the cache does not have the lost value, got %.20s", answer.Body)
			require.Equal(t, kv.SourceMiss, answer.Source)
		})
	}
}

// losesWhatWasRead writes a value without waiting for the disk, reads it through the cache and crashes Postgres. It
// returns false if the value was on disk, after restoring the old one.
func losesWhatWasRead(t *testing.T, env map[string]string, key, value string, get func() kv.ReadResult, crash func(*testing.T, uint32)) bool {
	t.Helper()
	epochBefore, err := epoch(t, env)
	require.NoError(t, err)
	conn := connect(t, env["DATABASE_URL"])
	before := get().Body
	_, err = conn.Exec(t.Context(), "set synchronous_commit = off")
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "update public.kv_store set value = $2 where key = $1", key, value)
	require.NoError(t, err)
	require.True(t, value == get().Body, "the cache has seen it")
	crash(t, conn.PgConn().PID())
	require.Eventually(t, func() bool { // Postgres may notice the crash a little later
		now, err := epoch(t, env)
		return err == nil && now != epochBefore
	}, 2*time.Minute, 20*time.Millisecond, "Postgres answers again after the crash")
	store, err := kv.NewSupabase(env["SUPABASE_URL"], env["SUPABASE_SERVICE_ROLE_KEY"])
	require.NoError(t, err)
	after, err := store.Get(t.Context(), key)
	require.NoError(t, err)
	if after == value {
		put(t, store, key, before)
		return false
	}
	require.True(t, before == after)
	return true
}

// epoch returns the epoch of the change feed.
func epoch(t *testing.T, env map[string]string) (epoch string, err error) {
	conn, err := pgx.Connect(t.Context(), env["DATABASE_ADMIN_URL"])
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	err = conn.QueryRow(t.Context(), "select kv.epoch()").Scan(&epoch)
	return epoch, err
}

func put(t *testing.T, store *kv.Supabase, key, value string) {
	t.Helper()
	_, err := store.Upsert(t.Context(), kv.Entry{Key: key, Value: value})
	require.NoError(t, err)
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}
