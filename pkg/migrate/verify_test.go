package migrate

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/migratetest"
	"netlify-supabase-kv/pkg/migrate/sources"
	"netlify-supabase-kv/pkg/mirror"
)

// TestDamageIsFoundEveryTime plants each kind of damage MIGRATE_TEST_DAMAGES times.
func TestDamageIsFoundEveryTime(t *testing.T) {
	m := newMigration(t)
	m.seed(60)
	m.Set("deep/one:00001", `{"a":[1,2,3]}`) // in no index
	m.run()
	m.requireIdentical()
	rounds, random := migratetest.Share(t, "MIGRATE_TEST_DAMAGES", 1), rand.New(rand.NewPCG(migratetest.Seed(t, "MIGRATE_TEST_SEED"), 0))
	key := func() string { return fmt.Sprintf("sessions/%05d", 2+random.IntN(58)) }
	damages := map[string]struct {
		how, what string
		plant     func(key string)
	}{
		"one byte": {"different", "value", func(key string) {
			m.exec(`update public.kv_store set value = replace(value::text, '1.0', '1.1')::json where key = $1`, key)
		}},
		"a space": {"different", "value", func(key string) {
			m.exec(`update public.kv_store set value = replace(value::text, ', ', ',')::json where key = $1`, key)
		}},
		"a lost key":   {"missing", "", func(key string) { m.exec("delete from public.kv_store where key = $1", key) }},
		"an extra key": {"extra", "", func(key string) { m.exec("insert into public.kv_store (key, value) values ($1, '{}')", key+"x") }},
		"a renamed key": {"", "", func(key string) {
			m.exec("update public.kv_store set key = key || 'y' where key = $1", key)
		}},
		"a swapped member of the entry": {"different", "indexes", func(key string) {
			m.exec(`update public.kv_store set index_pairs[1][2] = '00099' where key = $1`, key)
		}},
		"a lost index of the entry": {"different", "indexes", func(key string) {
			m.exec(`update public.kv_store set index_pairs = index_pairs[1:1] where key = $1`, key)
		}},
		"a posting that lacks": {"different", "postings", func(key string) {
			m.exec(`delete from kv.posting where key = $1 and (index_key, member) in (select index_key, member from kv.posting where key = $1 limit 1)`, key)
		}},
		"two swapped members of an index": {"different", "value", func(string) {
			m.exec(`with two as (select member, position, lead(member, 1) over w as other, row_number() over w as n from kv.member where index_key = 'index:by1' window w as (order by position))
				update kv.member as k set position = (select position from kv.member where index_key = 'index:by1' and member = case when k.member = two.member then two.other else two.member end)
				from two where two.n = 3 and k.index_key = 'index:by1' and k.member in (two.member, two.other)`)
		}},
		"a lost member of an index": {"different", "value", func(string) {
			m.exec(`delete from kv.member where (index_key, member) in (select index_key, member from kv.member where index_key = 'index:by2' limit 1)`)
		}},
		"an extra member of an index": {"different", "value", func(string) {
			m.exec(`insert into kv.member (index_key, member) values ('index:by3', 'nobody')`)
		}},
	}
	for name, damage := range damages {
		for range rounds {
			damage.plant(key())
			v := m.look(false)
			require.False(t, v.Same(), name)
			if damage.how != "" {
				require.Len(t, v.Found, 1, name)
				require.Equal(t, damage.how, v.Found[0].How, name)
				require.Equal(t, damage.what, v.Found[0].What, name)
			}
			repaired := m.look(true)
			require.True(t, repaired.Same(), "%s: %v", name, repaired.Found)
			require.NotZero(t, repaired.Repaired, name)
			require.True(t, m.look(false).Same(), name)
		}
	}
	m.exec(`insert into kv.posting (index_key, member, key) values ('index:by1', '', 'nobody')`)
	v := m.look(false)
	require.False(t, v.Same(), "a posting that no entry has")
	require.Equal(t, 1, v.Stray)
}

// look verifies where nobody writes: once more is enough.
func (m *migration) look(repair bool) Verification {
	m.t.Helper()
	v, err := Verify(m.t.Context(), m.Source(), m.target(), VerifyOptions{Options: m.o, Rules: m.rules, Repair: repair, Progress: sources.NoProgress{}, rechecks: []time.Duration{0}})
	require.NoError(m.t, err)
	return v
}

func TestVerifyWaitsForWritesThatAreUnderWay(t *testing.T) {
	m := newMigration(t)
	m.seed(20)
	m.run()
	store := mirror.NewBlobsPrimary(&mirror.Pair{Supabase: m.Supabase, Blobs: m.Store(), Log: discard})
	m.Set("sessions/00001", `{"a":"copy that is late"}`)
	looks := 0
	late := stages(func(name string) {
		if name != "looking again" {
			return
		}
		if looks++; looks == 2 {
			_, err := store.Upsert(t.Context(), kv.Entry{Key: "sessions/00001", Value: `{"a":"copy that is late"}`})
			require.NoError(t, err)
		}
	})
	v, err := Verify(t.Context(), m.Source(), m.target(), VerifyOptions{Options: m.o, Rules: m.rules, Progress: late})
	require.NoError(t, err)
	require.True(t, v.Same(), v.Found)
	require.Equal(t, 2, looks)
}

// stages is told of the stages of a piece of work.
type stages func(name string)

func (s stages) Stage(name string, _ int) { s(name) }
func (stages) Done(int, int)              {}

func TestThePagesOfAVerificationMissNothing(t *testing.T) {
	m := newMigration(t)
	m.seed(45)
	m.run()
	verify := func(page int) Verification {
		t.Helper()
		v, err := Verify(t.Context(), m.Source(), m.target(), VerifyOptions{Options: m.o, Rules: m.rules, Progress: sources.NoProgress{}, rechecks: []time.Duration{0}, page: page})
		require.NoError(t, err)
		return v
	}
	for _, page := range []int{1, 20, 25, 49, 50, 51} { // 50 entries: whole pages, too
		v := verify(page)
		require.True(t, v.Same(), v.Found)
		require.Equal(t, 50, v.Entries)
	}
	m.exec("insert into public.kv_store (key, value) values ('~last', '{}'), ('!first', '{}')")
	m.Set("~~missing", "{}")
	for _, page := range []int{1, 26, 51, 52} {
		v := verify(page)
		require.Equal(t, []int{2, 1}, []int{v.Extra, v.Missing})
	}
}

func TestAKeyThatBlobsCannotKeepIsCalledThat(t *testing.T) {
	m := newMigration(t)
	m.Set("a", `{}`)
	m.run()
	_, err := m.Supabase.Upsert(t.Context(), kv.Entry{Key: "p%41", Value: `{}`})
	require.NoError(t, err)
	v := m.look(false)
	require.Equal(t, []Difference{{Key: "p%41", How: "different", What: "key, which Netlify Blobs cannot keep: store it under another"}}, v.Found)
}
