package migrate

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/backup"
	"netlify-supabase-kv/pkg/migrate/entries"
	"netlify-supabase-kv/pkg/migrate/sources"
	"netlify-supabase-kv/pkg/stream"
)

// unruly is a source in which some blobs cannot be read, and others go after they were listed.
type unruly struct {
	*sources.Blobs
	unreadable, gone []string
}

func (s *unruly) List(ctx context.Context) iter.Seq2[blobs.Listed, error] {
	return func(yield func(blobs.Listed, error) bool) {
		for _, key := range slices.Concat(s.unreadable, s.gone) {
			if !yield(blobs.Listed{Key: key, ETag: "e"}, nil) {
				return
			}
		}
		for l, err := range s.Blobs.List(ctx) {
			if !yield(l, err) {
				return
			}
		}
	}
}

func (s *unruly) Read(ctx context.Context, list iter.Seq2[blobs.Listed, error]) iter.Seq2[sources.Item, error] {
	return stream.Ordered(ctx, 4, list, func(blobs.Listed) int64 { return 0 }, func(ctx context.Context, listed blobs.Listed) sources.Item {
		switch {
		case slices.Contains(s.gone, listed.Key):
			return sources.Item{Listed: listed, Missing: true}
		case slices.Contains(s.unreadable, listed.Key):
			return sources.Item{Listed: listed, Err: errors.New("status 500")}
		}
		item, err := sources.ReadOne(ctx, s.Blobs, listed)
		if err != nil {
			return sources.Item{Listed: listed, Err: err}
		}
		return item
	})
}

// keys are those that the source lists.
func (s *unruly) keys(t *testing.T) (keys []string) {
	t.Helper()
	for blob, err := range s.List(t.Context()) {
		require.NoError(t, err)
		keys = append(keys, blob.Key)
	}
	return keys
}

// entries are the keys that the database has.
func (m *migration) entries() []string {
	m.t.Helper()
	rows, err := m.SQL.Query(m.t.Context(), "select key from public.kv_store")
	require.NoError(m.t, err)
	keys, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(m.t, err)
	return keys
}

// distinct is how many different ones there are.
func distinct(lists ...[]string) int {
	all := slices.Concat(lists...)
	slices.Sort(all)
	return len(slices.Compact(all))
}

func requireAddsUp(t *testing.T, r Result, keys int, when string) {
	t.Helper()
	sum := 0
	for _, n := range r.States {
		sum += n
	}
	require.Equal(t, keys, sum, "%s: each key has one state: %v", when, r.States)
	if r.Finished {
		require.Equal(t, r.Members, r.Named+r.Unnamed+r.Unruled+r.Unusable, "%s: a rule is used for each member, or there is stream.None, or it can be none", when)
	}
	require.Equal(t, r.States[kv.ImportFailed], r.Failed, when)
}

func (v Verification) sum() int {
	return v.Identical + v.Missing + v.Extra + v.Different + v.Unmigratable + v.Skipped + v.Gone
}

// TestEveryCountAddsUp takes a site with every kind of entry that there is through all commands, and holds what they report against
// what is counted beside them.
func TestEveryCountAddsUp(t *testing.T) {
	m := newMigration(t)
	ctx := t.Context()
	m.seed(30)
	for key, value := range map[string]string{
		"text": "hello", "empty": "", "nul": `{"a":"\u0000"}`, "left/by": `{}`, "x:twin": `{}`, "y:twin": `{}`, "index:number": `{"a":1}`,
		"index:odd": `["nobody","twin","","\ud800","nul","nul","left/by"]`,
	} {
		m.Set(key, value)
	}
	source := &unruly{m.Source(), []string{"cannot/1", "cannot/2"}, []string{"gone/1", "gone/2", "gone/3"}}
	listed := source.keys(t)
	require.Len(t, listed, 30+5+8+5)

	plan, err := Plan(ctx, source, nil, PlanOptions{Options: m.o, Progress: sources.NoProgress{}})
	require.NoError(t, err)
	require.Equal(t, len(listed), plan.Blobs)
	require.Equal(t, []int{43, 0, 2, 3}, []int{plan.Migratable, plan.Skipped, plan.Failed, plan.Absent})
	members := 0
	for _, index := range plan.Indexes {
		members += index.Members
	}
	require.Equal(t, 2*30+6, members, "one that an index has twice is one")

	// A run that is ended in the middle has blobs that it did not come to.
	run := func(ctx context.Context, progress sources.Progress) Result {
		t.Helper()
		result, err := Run(ctx, source, m.target(), RunOptions{Options: m.o, Rules: m.rules, lease: testLease, Dir: m.dir, BatchSize: 5, Progress: progress})
		require.Equal(t, result.Finished, err == nil, err)
		known, err := m.Supabase.ImportPage(t.Context(), "", 1000)
		require.NoError(t, err)
		var remembered []string
		for _, k := range known {
			if k.State != "" {
				remembered = append(remembered, k.Key)
			}
		}
		requireAddsUp(t, result, distinct(source.keys(t), remembered), "run")
		require.Equal(t, len(source.keys(t)), result.Blobs)
		return result
	}
	cut, cancel := context.WithCancel(ctx)
	first := run(cut, &cancelAfter{n: 10, cancel: cancel})
	require.False(t, first.Finished)
	require.Positive(t, first.States[statePending], first.States)
	second := run(ctx, sources.NoProgress{})
	require.Equal(t, map[kv.ImportState]int{kv.ImportImported: 43, kv.ImportFailed: 2, kv.ImportAbsent: 3}, second.States)
	require.Len(t, m.entries(), 43)

	// Callers write, delete and leave an index; blobs go, come and change; then the database is damaged.
	for key, indexes := range map[string][]kv.Index{"live": nil, "sessions/00003": {}, "left/by": {}} {
		_, err := m.Supabase.Upsert(ctx, kv.Entry{Key: key, Value: `{"live":1}`, Indexes: indexes})
		require.NoError(t, err)
	}
	for _, key := range []string{"sessions/00004", "never was"} {
		_, err := m.Supabase.Delete(ctx, key)
		require.NoError(t, err)
	}
	m.Remove("sessions/00005")
	m.Set("sessions/00006", `{"changed":1}`)
	m.Set("never was", `{}`)
	third := run(ctx, sources.NoProgress{})
	require.Equal(t, []int{1, 1}, []int{third.Written, third.Removed})
	require.Equal(t, map[kv.ImportState]int{
		kv.ImportImported: 39, kv.ImportRemoved: 1, kv.ImportForeign: 2, kv.ImportDeleted: 2, kv.ImportFailed: 2, kv.ImportAbsent: 3,
	}, third.States)

	for _, key := range []string{"p%41", "q?x"} { // which Blobs cannot keep
		_, err := m.Supabase.Upsert(ctx, kv.Entry{Key: key, Value: `{}`})
		require.NoError(t, err)
	}
	m.exec("delete from public.kv_store where key in ('sessions/00010', 'sessions/00011')")
	m.exec(`update public.kv_store set value = '{"damaged":1}' where key = 'sessions/00012'`)
	m.exec("delete from kv.posting where key = 'sessions/00013' and member <> ''")
	m.exec("insert into kv.posting (index_key, member, key) values ('index:by1', 'x', 'nobody'), ('index:by1', 'x', 'sessions/00014')")

	verify := func(repair bool) Verification {
		t.Helper()
		before := distinct(source.keys(t), m.entries())
		entries := len(m.entries())
		v, err := Verify(ctx, source, m.target(), VerifyOptions{Options: m.o, Rules: m.rules, Dir: m.dir, Repair: repair, Progress: sources.NoProgress{}, rechecks: []time.Duration{0}})
		require.NoError(t, err)
		require.Equal(t, []int{len(source.keys(t)), entries, before}, []int{v.Blobs, v.Entries, v.Keys})
		require.Equal(t, v.Keys, v.sum(), "each key is one of these: %+v", v)
		require.Len(t, v.Found, v.Missing+v.Extra+v.Different)
		require.Equal(t, m.identical(source), v.Identical)
		return v
	}
	found := verify(false)
	require.Equal(t, 2, found.Stray, "a posting that lacks does not make up for one too many")
	require.Equal(t, []int{2, 3}, []int{found.Unmigratable, found.Gone})
	require.Equal(t, []int{4, 1, 6}, []int{found.Missing, found.Extra, found.Different}, "%+v", found.Found)
	repaired := verify(true)
	require.Equal(t, len(found.Found)-len(repaired.Found), repaired.Repaired)
	require.NotZero(t, repaired.Repaired)
	members = 0
	for _, key := range m.entries() {
		if states, err := m.Supabase.States(ctx, []string{key}); strings.HasPrefix(key, entries.DefaultIndexPrefix) {
			require.NoError(t, err)
			var elements []json.RawMessage
			_ = json.Unmarshal([]byte(states[0].Value), &elements) // fails where it is no array
			members += len(elements)
		}
	}
	require.Equal(t, members, repaired.Members)

	status, err := ReadStatus(ctx, m.dir, ptr(m.target()))
	require.NoError(t, err)
	require.Len(t, m.entries(), status.Database.Entries)
	var deleted int
	require.NoError(t, m.SQL.QueryRow(ctx, "select count(*) from kv.import where deleted").Scan(&deleted))
	require.Equal(t, deleted, status.Database.Deleted)

	m.requireBackupsAddUp(source)
}

func ptr[T any](v T) *T { return &v }

// identical counts the blobs whose entries have their value, their indexes and all postings.
func (m *migration) identical(source sources.Source) (n int) {
	m.t.Helper()
	l, err := sources.List(m.t.Context(), source, "", sources.NoProgress{})
	require.NoError(m.t, err)
	d, err := entries.Derive(m.t.Context(), source, l, m.o, m.rules, "", sources.NoProgress{})
	require.NoError(m.t, err)
	for s, err := range walk(l.All(), d.All(), stream.None, stream.None, d.Unnamed) {
		require.NoError(m.t, err)
		item, err := sources.ReadOne(m.t.Context(), source, *s.listed)
		require.NoError(m.t, err)
		states, err := m.Supabase.States(m.t.Context(), []string{s.key})
		require.NoError(m.t, err)
		digests, err := m.Supabase.DigestsOf(m.t.Context(), []string{s.key})
		require.NoError(m.t, err)
		pairs := item.Indexes
		if pairs == nil {
			pairs = s.pairs
		}
		if item.Err == nil && !item.Missing && len(digests) == 1 && string(states[0].Bytes()) == string(item.Blob.Value) &&
			kv.DigestPairs(states[0].Indexes) == kv.DigestPairs(pairs) && digests[0].Unposted == 0 {
			n++
		}
	}
	return n
}

// requireBackupsAddUp backs both stores up, and restores into both.
func (m *migration) requireBackupsAddUp(source *unruly) {
	t, ctx := m.t, m.t.Context()
	source.unreadable = append(source.unreadable, "\xfe", "\xff") // in reports, both are U+FFFD
	listed := len(source.keys(t))
	file := filepath.Join(t.TempDir(), "blobs.gz")
	b, err := backup.Blobs(ctx, source, file, backup.Options{})
	require.ErrorIs(t, err, backup.ErrRemaining)
	require.Equal(t, []int{listed, 4, 3}, []int{b.Entries + len(b.Unreadable) + b.Gone, len(b.Unreadable), b.Gone})
	checked, err := backup.Check(ctx, file)
	require.NoError(t, err)
	require.Equal(t, b, checked)
	for _, overwrite := range []bool{false, true} {
		o := backup.RestoreOptions{Options: m.o, Rules: m.rules, Overwrite: overwrite}
		into, err := backup.RestoreSupabase(ctx, file, m.target(), o)
		require.NoError(t, err, "%+v", into)
		require.Equal(t, b.Entries, into.Written+into.Same+into.Different+into.Failed+into.Skipped, "%+v", into)
		require.Len(t, into.Differing, into.Different)
		require.Len(t, into.Failures, into.Failed)
	}

	file = filepath.Join(t.TempDir(), "supabase.gz")
	b, err = backup.Supabase(ctx, m.target(), file, backup.Options{})
	require.NoError(t, err)
	require.Equal(t, []int{len(m.entries()), 0, 0}, []int{b.Entries, len(b.Unreadable), b.Gone})
	into, err := backup.RestoreBlobs(ctx, file, m.Source(), backup.RestoreOptions{Options: m.o})
	require.ErrorIs(t, err, backup.ErrRemaining)
	require.Equal(t, b.Entries, into.Written+into.Same+into.Different+into.Failed+into.Skipped, "%+v", into)
	require.Equal(t, 2, into.Failed, "keys that Blobs cannot keep")
}

func TestIdenticalKeysAreCountedBesideThoseThatBlobsCannotKeep(t *testing.T) {
	m := newMigration(t)
	m.Set("a", `{}`)
	m.Set("b", `{}`)
	m.run()
	for _, key := range []string{"p%41", "q?x"} {
		_, err := m.Supabase.Upsert(t.Context(), kv.Entry{Key: key, Value: `{}`})
		require.NoError(t, err)
	}
	v := m.look(false)
	require.Equal(t, []int{2, 2, 4}, []int{v.Identical, v.Different, v.Keys}, "%+v", v.Found)
}
