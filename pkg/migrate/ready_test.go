package migrate

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

// TestWhetherToSwitchIsSaidWithTheEvidence takes away one thing after the other that a switch needs.
func TestWhetherToSwitchIsSaidWithTheEvidence(t *testing.T) {
	m := newMigration(t)
	m.seed(3)
	bar := Bar{Require: 100, For: time.Hour}
	ready := func() (r Readiness, missing []string) {
		t.Helper()
		r, err := Ready(t.Context(), m.target(), bar)
		require.NoError(t, err)
		for _, check := range r.Checks {
			require.NotEmpty(t, check.Found)
			if !check.OK {
				missing = append(missing, check.Name)
			}
		}
		require.Equal(t, missing == nil, r.Ready)
		return r, missing
	}
	compared := func(c kv.ComparedReads) kv.ComparedReads {
		t.Helper()
		c.Request, c.Primary = uuid.New(), "blobs"
		require.NoError(t, m.Supabase.AddCompared(t.Context(), c))
		require.NoError(t, m.Supabase.AddCompared(t.Context(), c), "it counts once")
		return c
	}
	_, missing := ready()
	require.Equal(t, []string{"verification", "reads", "time"}, missing)

	m.run()
	_, missing = ready()
	require.Contains(t, missing, "verification", "before the run is none")
	m.requireIdentical()
	compared(kv.ComparedReads{Matched: 60, Unanswered: 1})
	r, missing := ready()
	require.Equal(t, []string{"errors", "reads", "time"}, missing)
	require.Equal(t, 60, r.Evidence.Hours[0].Matched)
	compared(kv.ComparedReads{Matched: 60})
	m.exec("update kv.comparison set at = at - interval '61 minutes' where unanswered > 0")
	_, missing = ready()
	require.Equal(t, []string{"reads"}, missing, "the others are too old")
	bar.Require = 50
	_, missing = ready()
	require.Empty(t, missing)

	m.exec("insert into kv.outbox (key, primary_store, at) values ('a', 'supabase', now() - interval '2 minutes')")
	_, missing = ready()
	require.Equal(t, []string{"outbox", "direction"}, missing)
	m.exec("delete from kv.outbox")
	m.Set("sessions/00001", `{"newer":true}`)
	m.run()
	_, missing = ready()
	require.Equal(t, []string{"verification"}, missing, "a run has changed something since")
	m.requireIdentical()
	m.exec("update public.kv_store set value = '{}' where key = 'sessions/00002'")
	m.look(false)
	_, missing = ready()
	require.Equal(t, []string{"verification"}, missing)
	m.look(true)

	differences := []kv.ReadDifference{{At: time.Now(), Function: "kv-get", Kind: "different", KeyHash: "h", PrimaryDigest: "a", OtherDigest: "b"}}
	compared(kv.ComparedReads{Differed: 1, Differences: differences})
	r, missing = ready()
	require.Equal(t, []string{"differences"}, missing)
	require.Equal(t, map[string]int{"kv-get different": 1}, r.Evidence.Kinds)
	m.exec("delete from kv.comparison")

	// After the switch, what counts is whether Blobs follows.
	bar.Primary = "supabase"
	r, missing = ready()
	require.Empty(t, missing, "verified within a day")
	require.Contains(t, r.Verdict(), "going back to Blobs is safe")
	m.exec("insert into kv.outbox (key, primary_store, at) values ('a', 'supabase', now() - interval '2 minutes')")
	r, missing = ready()
	require.Equal(t, []string{"outbox"}, missing)
	require.Contains(t, r.Verdict(), "is not safe")
	_, err := Ready(t.Context(), m.target(), Bar{Require: -1})
	require.ErrorContains(t, err, "must not be below 0")
}

// TestDifferencesAreBounded: the last ten thousand stay.
func TestDifferencesAreBounded(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	for i := range 51 {
		c := kv.ComparedReads{Request: uuid.New(), Primary: "blobs", Differed: 200}
		for n := range 200 {
			c.Differences = append(c.Differences, kv.ReadDifference{At: time.Now(), Function: "kv-list", Kind: "missing", KeyHash: fmt.Sprint(i, n)})
		}
		require.NoError(t, d.Supabase.AddCompared(t.Context(), c))
	}
	var n int
	require.NoError(t, d.SQL.QueryRow(t.Context(), "select count(*) from kv.difference").Scan(&n))
	require.Equal(t, 10_000, n)
}
