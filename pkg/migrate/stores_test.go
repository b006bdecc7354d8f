package migrate

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/backup"
	"netlify-supabase-kv/pkg/migrate/entries"
	"netlify-supabase-kv/pkg/migrate/sources"
	"netlify-supabase-kv/pkg/migrate/sources/sourcetest"
)

// another is a store beside kv, of the same site and for the same database.
type another struct {
	*migration
	name   string
	client *blobs.Client
}

func (m *migration) another(name string) *another {
	return &another{m, name, blobs.NewClient(name).WithDefault(m.Access).WithEncodedKeys()}
}

func (a *another) set(key, value, metadata string) {
	a.t.Helper()
	_, err := a.client.Set(a.t.Context(), key, []byte(value), blobs.SetOptions{Metadata: metadata})
	require.NoError(a.t, err, key)
}

func (a *another) source() *sources.Blobs {
	source := sources.NewBlobs(a.Access, a.name, 16, sourcetest.Unlimited())
	source.MostBytes = kv.MaxDataBytes
	return source
}

func (a *another) target() entries.Target {
	return entries.NewTarget("test", a.Supabase.WithStore(a.name))
}

func (a *another) run() Result {
	a.t.Helper()
	result, err := Run(a.t.Context(), a.source(), a.target(), RunOptions{Options: a.o, lease: testLease, Dir: a.t.TempDir(), BatchSize: DefaultBatchSize, Progress: sources.NoProgress{}})
	require.NoError(a.t, err)
	return result
}

func (a *another) verify() Verification {
	a.t.Helper()
	v, err := Verify(a.t.Context(), a.source(), a.target(), VerifyOptions{Options: a.o, Progress: sources.NoProgress{}, rechecks: []time.Duration{0}})
	require.NoError(a.t, err)
	return v
}

// read is an entry as kv-entries and kv-blobs-api return it.
func (a *another) read(key string) (kv.EntryResult, error) {
	return a.Supabase.GetEntry(a.t.Context(), a.name, key, kv.Freshness{})
}

func (a *another) put(op kv.Operation) {
	a.t.Helper()
	op.Action, op.Store = kv.ActionPut, a.name
	result, err := a.Supabase.Apply(a.t.Context(), kv.Batch{Operations: []kv.Operation{op}})
	require.NoError(a.t, err)
	require.Nil(a.t, result.Results[0].Err)
}

// anotherBlobs are bytes and metadata of a store that knows neither JSON nor indexes.
var anotherBlobs = map[string][2]string{
	"a/b":         {"\x00\xff\x01", `{"of":"a/b"}`},
	"text":        {"héllo\r\n", ""},
	"json":        {`{ "a": 1.0, "a": 1e400 }`, `{"half":"\ud800","nul":"\u0000","twice":1,"twice":2}`},
	"empty":       {"", `{ "spaces" : [ 1.0 , 2 ] }`},
	"index:users": {`["json"]`, `{}`},
	"q?x#y":       {"1", ""},
	"50%41":       {"2", `{"encoded":true}`},
	`back\slash`:  {"3", ""},
	"ours":        {`[]`, `{"v":"db.1.0","c":1,"u":2,"i":[["a","b"]],"s":"none"}`},
	"deep":        {strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001), ""},
}

func TestAnotherStoreArrivesAsItIs(t *testing.T) {
	m := newMigration(t)
	m.Set("text", `{"store":"kv"}`)
	m.run()
	a := m.another("sessions")
	for key, blob := range anotherBlobs {
		a.set(key, blob[0], blob[1])
	}
	plan, err := Plan(t.Context(), a.source(), nil, PlanOptions{Options: a.o, Dir: t.TempDir(), Progress: sources.NoProgress{}})
	require.NoError(t, err)
	require.Equal(t, len(anotherBlobs), plan.Migratable, plan.Failures)
	require.Empty(t, plan.RulesFile)
	require.Empty(t, plan.Indexes)
	result := a.run()
	require.Equal(t, []int{len(anotherBlobs), 0}, []int{result.Written, result.Failed}, result.Failures)
	for key, blob := range anotherBlobs {
		entry, err := a.read(key)
		require.NoError(t, err, key)
		require.Equal(t, blob[0], string(entry.Data), key)
		metadata, _ := kv.CompactMetadata(blob[1])
		require.Equal(t, strings.TrimSuffix(metadata, "{}"), entry.Metadata, key)
	}
	v := a.verify()
	require.True(t, v.Same(), v.Found)
	require.Equal(t, []int{len(anotherBlobs), len(anotherBlobs)}, []int{v.Identical, v.Entries}, "without the store kv")
	require.Equal(t, 1, m.requireIdentical().Entries, "without the other store")
	require.Zero(t, a.run().Read, "nothing had changed")

	a.set("text", "héllo\r\n", `{"only":"metadata"}`)
	a.set("json", "\xff", "")
	v = a.verify()
	require.Equal(t, 2, v.Different)
	require.Equal(t, []string{"value, metadata", "metadata"}, []string{v.Found[0].What, v.Found[1].What})
	require.Equal(t, 2, a.run().Written)
	require.NoError(t, a.client.Delete(t.Context(), "deep"))
	require.Equal(t, 1, a.run().Removed)
	require.True(t, a.verify().Same())
}

func TestWhatAnotherStoreCannotTakeIsNamed(t *testing.T) {
	m := newMigration(t)
	a := m.another("files")
	a.set("fits", strings.Repeat("\xff", kv.MaxDataBytes), "")
	a.set("large", strings.Repeat("\xff", kv.MaxDataBytes+1), "")
	a.set("list", "x", `[1]`)
	result := a.run()
	require.Equal(t, []int{1, 2}, []int{result.Written, result.Failed})
	codes := map[string]string{}
	for _, problem := range result.Failures {
		codes[problem.Key] = problem.Code
	}
	require.Equal(t, map[string]string{"large": entries.CodeTooLarge, "list": entries.CodeBadMetadata}, codes)
	require.Equal(t, []int{1, 2}, []int{a.verify().Identical, a.verify().Unmigratable})
	entry, err := a.read("fits")
	require.NoError(t, err)
	require.Len(t, entry.Data, kv.MaxDataBytes)

	_, err = Run(t.Context(), a.source(), m.target(), RunOptions{Options: m.o, BatchSize: 1, Progress: sources.NoProgress{}})
	require.ErrorContains(t, err, "entries of the store files must not become entries of the store kv")
	_, err = Verify(t.Context(), m.Source(), a.target(), VerifyOptions{Options: m.o, Repair: true, Progress: sources.NoProgress{}})
	require.ErrorContains(t, err, "entries of the store kv must not become entries of the store files")
}

// TestEachStoreHasAMigrationOfItsOwn: what callers wrote and deleted stays, in the store where they did.
func TestEachStoreHasAMigrationOfItsOwn(t *testing.T) {
	m := newMigration(t)
	a, b := m.another("a"), m.another("b")
	keys := []string{"changed", "deleted", "expired", "new", "same"}
	for _, store := range []*another{a, b} {
		for _, key := range keys[:3] {
			store.set(key, "blob", "")
		}
		store.set("same", "blob", "")
	}
	for _, key := range keys {
		m.Set(key, `"blob"`)
	}
	m.run()
	a.run()
	b.run()
	a.put(kv.Operation{Key: "changed", Data: []byte("caller")})
	a.put(kv.Operation{Key: "new", Data: []byte("caller")})
	a.put(kv.Operation{Key: "expired", Data: []byte("caller"), TTL: time.Hour})
	m.exec("update public.kv_store set expires_at = clock_timestamp() - interval '1 s' where expires_at is not null")
	_, err := m.Supabase.Apply(t.Context(), kv.Batch{Operations: []kv.Operation{{Action: kv.ActionDelete, Store: "a", Key: "deleted"}}})
	require.NoError(t, err)
	for _, store := range []*another{a, b} {
		for _, key := range keys[:4] {
			store.set(key, "newer", "")
		}
	}
	result := a.run()
	require.Equal(t, map[kv.ImportState]int{kv.ImportForeign: 2, kv.ImportDeleted: 2, kv.ImportImported: 1}, result.States)
	content := func(store *another) (found []string) {
		for _, key := range keys {
			entry, _ := store.read(key)
			found = append(found, string(entry.Data))
		}
		return found
	}
	require.Equal(t, []string{"caller", "", "", "caller", "blob"}, content(a))
	b.run()
	require.Equal(t, []string{"newer", "newer", "newer", "newer", "blob"}, content(b))
	m.requireIdentical()

	status := func(s *kv.Supabase) (open bool, known, entries int) {
		t.Helper()
		now, err := s.MigrationStatus(t.Context())
		require.NoError(t, err)
		for _, n := range now.States {
			known += n
		}
		return now.Open, known, now.Entries
	}
	_, err = a.target().Supabase.MigrationClose(t.Context())
	require.NoError(t, err)
	for store, want := range map[*kv.Supabase][3]any{a.target().Supabase: {false, 0, 3}, b.target().Supabase: {true, 5, 5}, m.Supabase: {true, 5, 5}} {
		open, known, entries := status(store)
		require.Equal(t, want, [3]any{open, known, entries}, store.StoreName())
	}
	_, err = m.Supabase.Apply(t.Context(), kv.Batch{Operations: []kv.Operation{{Action: kv.ActionDelete, Store: "a", Key: "same"}, {Action: kv.ActionDelete, Store: "b", Key: "same"}}})
	require.NoError(t, err)
	require.NotZero(t, b.run().States[kv.ImportDeleted])
	var marks int
	require.NoError(t, m.SQL.QueryRow(t.Context(), "select count(*) from kv.import where deleted").Scan(&marks))
	require.Equal(t, 1, marks, "no migration of the store a is open")
	m.close()
	_, err = b.target().Supabase.MigrationClose(t.Context())
	require.NoError(t, err)
}

func TestAnotherStoreIsReadyOnceItIsVerified(t *testing.T) {
	m := newMigration(t)
	a := m.another("sessions")
	a.set("x", "\xff", `{"a":1}`)
	ready := func() Readiness {
		t.Helper()
		r, err := Ready(t.Context(), a.target(), Bar{Require: DefaultRequired, For: DefaultFor})
		require.NoError(t, err)
		return r
	}
	m.Set("kv", "{}")
	m.run()
	m.requireIdentical()
	a.run()
	require.False(t, ready().Ready, "the verification is that of another store")
	a.verify()
	r := ready()
	require.True(t, r.Ready, r.Checks)
	require.Equal(t, "the store sessions is ready to be read from Supabase", r.Verdict())
	a.set("x", "changed", "")
	a.verify()
	require.Equal(t, "the store sessions is not ready to be read from Supabase", ready().Verdict())
}

func TestABackupOfAnotherStoreGoesIntoEitherStore(t *testing.T) {
	m := newMigration(t)
	ctx := t.Context()
	a := m.another("sessions")
	for key, blob := range anotherBlobs {
		a.set(key, blob[0], blob[1])
	}
	dir := t.TempDir()
	ofBlobs, ofSupabase := dir+"/blobs.gz", dir+"/supabase.gz"
	_, err := backup.Blobs(ctx, a.source(), ofBlobs, backup.Options{})
	require.NoError(t, err)
	o := backup.RestoreOptions{Options: m.o}
	restored, err := backup.RestoreSupabase(ctx, ofBlobs, a.target(), o)
	require.NoError(t, err)
	require.Equal(t, len(anotherBlobs), restored.Written)
	require.True(t, a.verify().Same())
	restored, err = backup.RestoreSupabase(ctx, ofBlobs, a.target(), o)
	require.NoError(t, err)
	require.Equal(t, len(anotherBlobs), restored.Same)

	a.put(kv.Operation{Key: "typed", Data: []byte("<svg/>"), ContentType: "image/svg+xml", Metadata: `{"m":1}`, Indexes: []kv.Index{{Key: "kind", Member: "image"}}})
	a.put(kv.Operation{Key: "expires", Data: []byte("\xff"), TTL: time.Hour})
	contents := func() map[string]string {
		t.Helper()
		rows, err := m.SQL.Query(ctx, `select key, concat_ws('|', value, left(data::text, 30), content_type, metadata, expires_at, indexes, index_pairs, is_index, created_at) from public.kv_store`)
		require.NoError(t, err)
		found := map[string]string{}
		for rows.Next() {
			var key, text string
			require.NoError(t, rows.Scan(&key, &text))
			found[key] = text
		}
		return found
	}
	before := contents()
	_, err = backup.Supabase(ctx, a.target(), ofSupabase, backup.Options{})
	require.NoError(t, err)
	m.Empty(t)
	_, err = backup.RestoreSupabase(ctx, ofSupabase, a.target(), o)
	require.NoError(t, err)
	require.Equal(t, before, contents(), "types, metadata, expiry and indexes, too")
	m.exec("update public.kv_store set metadata = '{}' where starts_with(kv.bare_key(key), 'typed')")
	restored, err = backup.RestoreSupabase(ctx, ofSupabase, a.target(), o)
	require.ErrorIs(t, err, backup.ErrRemaining)
	require.Equal(t, []string{"typed"}, restored.Differing, "its metadata")

	elsewhere := sourcetest.NewSite(t)
	to := sources.NewBlobs(elsewhere.Access, "sessions", 4, sourcetest.Unlimited())
	restored, err = backup.RestoreBlobs(ctx, ofSupabase, to, o)
	require.ErrorIs(t, err, backup.ErrRemaining)
	require.Equal(t, []int{len(anotherBlobs) + 2, 1}, []int{restored.Written, restored.Failed}, restored.Failures)
	require.Contains(t, restored.Failures[0].Reason, "expires")
	for _, key := range slices.Sorted(maps.Keys(anotherBlobs)) {
		blob, err := to.Client.Get(ctx, key)
		require.NoError(t, err)
		require.Equal(t, anotherBlobs[key][0], string(blob.Value), key)
		metadata, _ := kv.CompactMetadata(anotherBlobs[key][1])
		require.True(t, blobs.SameMetadata(metadata, blob.Metadata), key)
	}
	_, err = backup.RestoreSupabase(ctx, ofSupabase, m.target(), o)
	require.ErrorContains(t, err, "the backup is of the store sessions, and cannot be restored into the store kv")
}
