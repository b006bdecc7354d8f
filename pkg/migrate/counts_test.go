package migrate

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
)

// unruly is a source in which some blobs cannot be read, and others go after they were listed.
type unruly struct {
	*BlobsSource
	unreadable, gone []string
}

func (s *unruly) List(ctx context.Context) ([]blobs.Listed, error) {
	list, err := s.BlobsSource.List(ctx)
	for _, key := range slices.Concat(s.unreadable, s.gone) {
		list = append(list, blobs.Listed{Key: key, ETag: "e"})
	}
	slices.SortFunc(list, func(a, b blobs.Listed) int { return strings.Compare(a.Key, b.Key) })
	return list, err
}

func (s *unruly) Read(ctx context.Context, list []blobs.Listed, each func(context.Context, Item) error) error {
	var others []blobs.Listed
	for _, listed := range list {
		item := Item{Listed: listed, Missing: slices.Contains(s.gone, listed.Key)}
		if slices.Contains(s.unreadable, listed.Key) {
			item.Err = errors.New("status 500")
		}
		if !item.Missing && item.Err == nil {
			others = append(others, listed)
		} else if err := each(ctx, item); err != nil {
			return err
		}
	}
	return s.BlobsSource.Read(ctx, others, each)
}

// keys are those that the source lists.
func (s *unruly) keys(t *testing.T) (keys []string) {
	t.Helper()
	list, err := s.List(t.Context())
	require.NoError(t, err)
	for _, blob := range list {
		keys = append(keys, blob.Key)
	}
	return keys
}

// entries are the keys that the database has.
func (m *migration) entries() []string {
	m.t.Helper()
	rows, err := m.sql.Query(m.t.Context(), "select key from public.kv_store")
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
	for _, n := range r.Statuses {
		sum += n
	}
	require.Equal(t, keys, sum, "%s: each key has one status: %v", when, r.Statuses)
	require.Equal(t, r.Members, r.Resolved+r.AmbiguousCount+r.UnresolvedCount, "%s: each member names one entry, or several, or none", when)
	require.Equal(t, r.Statuses[statusFailed], r.Failed, when)
}

func (v Verification) sum() int {
	return v.Identical + v.Missing + v.Extra + v.Different + len(v.Left) + v.Gone
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
		m.set(key, value)
	}
	source := &unruly{m.source(), []string{"cannot/1", "cannot/2"}, []string{"gone/1", "gone/2", "gone/3"}}
	listed := source.keys(t)
	require.Len(t, listed, 30+5+8+5)

	plan, err := Plan(ctx, source, nil, PlanOptions{Options: m.o, Progress: silence{}})
	require.NoError(t, err)
	requireAddsUp(t, plan, len(listed), "plan")
	require.Equal(t, len(listed), plan.Blobs)
	require.Equal(t, len(listed)-3, plan.Read)
	require.Equal(t, map[kv.Imported]int{plannedStatus: 41, statusFailed: 4, kv.ImportAbsent: 3}, plan.Statuses)
	require.Equal(t, 2*30+6, plan.Members, "one that an index has twice is one")

	// A run that is ended in the middle has blobs that it did not come to.
	run := func(ctx context.Context, progress Progress) Result {
		t.Helper()
		result, err := Run(ctx, source, m.target(), RunOptions{Options: m.o, Dir: m.dir, BatchSize: 5, Progress: progress})
		require.Equal(t, result.Finished, err == nil, err)
		journal, err := ReadJournal(m.dir)
		require.NoError(t, err)
		var known []string
		for key := range journal.Records {
			known = append(known, key)
		}
		requireAddsUp(t, result, distinct(source.keys(t), known), "run")
		require.Equal(t, len(source.keys(t)), result.Blobs)
		return result
	}
	cut, cancel := context.WithCancel(ctx)
	first := run(cut, &cancelAfter{n: 10, cancel: cancel})
	require.False(t, first.Finished)
	require.Positive(t, first.Statuses[statusPending], first.Statuses)
	second := run(ctx, silence{})
	require.Equal(t, map[kv.Imported]int{kv.ImportWritten: 41, statusFailed: 4, kv.ImportAbsent: 3}, withoutSame(second.Statuses))
	require.Len(t, m.entries(), 41)

	// Callers write, delete and leave an index; blobs go, come and change; then the database is damaged.
	for key, indexes := range map[string][]kv.Index{"live": nil, "sessions/00003": {}, "left/by": {}} {
		_, err := m.supabase.Upsert(ctx, kv.Entry{Key: key, Value: `{"live":1}`, Indexes: indexes})
		require.NoError(t, err)
	}
	for _, key := range []string{"sessions/00004", "never was"} {
		_, err := m.supabase.Delete(ctx, key)
		require.NoError(t, err)
	}
	m.remove("sessions/00005")
	m.set("sessions/00006", `{"changed":1}`)
	m.set("never was", `{}`)
	third := run(ctx, silence{})
	require.Equal(t, []int{1, 1}, []int{third.Written, third.Removed})
	require.Equal(t, map[kv.Imported]int{
		kv.ImportWritten: 37, kv.ImportRemoved: 1, kv.ImportLive: 2, kv.ImportDeleted: 2, statusFailed: 4, kv.ImportAbsent: 3,
	}, withoutSame(third.Statuses))

	for _, key := range []string{"p%41", "q?x"} { // which Blobs cannot keep
		_, err := m.supabase.Upsert(ctx, kv.Entry{Key: key, Value: `{}`})
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
		v, err := Verify(ctx, source, m.target(), VerifyOptions{Options: m.o, Dir: m.dir, Repair: repair, Progress: silence{}, rechecks: []time.Duration{0}})
		require.NoError(t, err)
		require.Equal(t, []int{len(source.keys(t)), entries, before}, []int{v.Blobs, v.Entries, v.Keys})
		require.Equal(t, v.Keys, v.sum(), "each key is one of these: %+v", v)
		require.Len(t, v.Found, v.Missing+v.Extra+v.Different)
		require.Equal(t, m.identical(source), v.Identical)
		return v
	}
	found := verify(false)
	require.Equal(t, 2, found.Stray, "a posting that lacks does not make up for one too many")
	require.Equal(t, []int{4, 3}, []int{len(found.Left), found.Gone})
	require.Equal(t, []int{4, 1, 6}, []int{found.Missing, found.Extra, found.Different}, "%+v", found.Found)
	repaired := verify(true)
	require.Equal(t, len(found.Found)-len(repaired.Found), repaired.Repaired)
	require.NotZero(t, repaired.Repaired)
	members := 0
	for _, key := range m.entries() {
		if states, err := m.supabase.States(ctx, []string{key}); strings.HasPrefix(key, DefaultIndexPrefix) {
			require.NoError(t, err)
			elements, _ := readElements(states[0].Value)
			members += len(elements)
		}
	}
	require.Equal(t, members, repaired.Members)

	status, err := ReadStatus(ctx, m.dir, ptr(m.target()))
	require.NoError(t, err)
	sum := 0
	for _, n := range status.Statuses {
		sum += n
	}
	require.Equal(t, status.Journal.Keys, sum)
	require.Len(t, m.entries(), status.Database.Entries)
	var deleted int
	require.NoError(t, m.sql.QueryRow(ctx, "select count(*) from kv.import where deleted").Scan(&deleted))
	require.Equal(t, deleted, status.Database.Deleted)

	m.requireBackupsAddUp(source)
}

func ptr[T any](v T) *T { return &v }

// withoutSame counts what was there already as written: which of both it is depends on when a run was ended.
func withoutSame(statuses map[kv.Imported]int) map[kv.Imported]int {
	counted := map[kv.Imported]int{}
	for status, n := range statuses {
		if status == kv.ImportSame {
			status = kv.ImportWritten
		}
		counted[status] += n
	}
	return counted
}

// identical counts the blobs whose entries have their value, their indexes and all postings.
func (m *migration) identical(source Source) (n int) {
	m.t.Helper()
	list, err := source.List(m.t.Context())
	require.NoError(m.t, err)
	target := m.target()
	x, err := readIndexes(m.t.Context(), source, &target, list, m.o, silence{})
	require.NoError(m.t, err)
	for _, blob := range list {
		item, err := readOne(m.t.Context(), source, blob.Key)
		require.NoError(m.t, err)
		states, err := m.supabase.States(m.t.Context(), []string{blob.Key})
		require.NoError(m.t, err)
		digests, err := m.supabase.DigestsOf(m.t.Context(), []string{blob.Key})
		require.NoError(m.t, err)
		pairs := item.Indexes
		if pairs == nil {
			pairs = x.Of(blob.Key)
		}
		if item.Err == nil && !item.Missing && len(digests) == 1 && states[0].Value == string(item.Blob.Value) &&
			digestPairs(states[0].Indexes) == digestPairs(pairs) && digests[0].Unposted == 0 {
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
	b, err := Backup(ctx, source, file, BackupOptions{})
	require.ErrorIs(t, err, ErrLeft)
	require.Equal(t, []int{listed, 4, 3}, []int{b.Entries + len(b.Unreadable) + b.Gone, len(b.Unreadable), b.Gone})
	checked, err := CheckBackup(ctx, file)
	require.NoError(t, err)
	require.Equal(t, b, checked)
	for _, overwrite := range []bool{false, true} {
		o := restoreOptions
		o.Overwrite = overwrite
		into, err := RestoreSupabase(ctx, file, m.target(), o)
		require.ErrorIs(t, err, ErrLeft)
		require.Equal(t, b.Entries, into.Written+into.Same+into.Different+into.Failed+into.Skipped, "%+v", into)
		require.Len(t, into.Differing, into.Different)
		require.Len(t, into.Failures, into.Failed)
	}

	file = filepath.Join(t.TempDir(), "supabase.gz")
	b, err = BackupSupabase(ctx, m.target(), file, BackupOptions{})
	require.NoError(t, err)
	require.Equal(t, []int{len(m.entries()), 0, 0}, []int{b.Entries, len(b.Unreadable), b.Gone})
	into, err := RestoreBlobs(ctx, file, m.source(), restoreOptions)
	require.ErrorIs(t, err, ErrLeft)
	require.Equal(t, b.Entries, into.Written+into.Same+into.Different+into.Failed+into.Skipped, "%+v", into)
	require.Equal(t, 2, into.Failed, "keys that Blobs cannot keep")
}

func TestIdenticalKeysAreCountedBesideThoseThatBlobsCannotKeep(t *testing.T) {
	m := newMigration(t)
	m.set("a", `{}`)
	m.set("b", `{}`)
	m.run()
	for _, key := range []string{"p%41", "q?x"} {
		_, err := m.supabase.Upsert(t.Context(), kv.Entry{Key: key, Value: `{}`})
		require.NoError(t, err)
	}
	v := m.look(false)
	require.Equal(t, []int{2, 2, 4}, []int{v.Identical, v.Different, v.Keys}, "%+v", v.Found)
}
