package backup

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/blobs/blobstest"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate"
	"netlify-supabase-kv/pkg/migrate/entries"
	"netlify-supabase-kv/pkg/migrate/migratetest"
	"netlify-supabase-kv/pkg/migrate/sources"
	"netlify-supabase-kv/pkg/migrate/sources/sourcetest"
	"netlify-supabase-kv/pkg/stream"
)

func TestMain(m *testing.M) { os.Exit(migratetest.Main(m)) }

// database is a test's own.
type database struct{ *migratetest.Database }

func newDatabase(t testing.TB) *database {
	t.Helper()
	return &database{migratetest.NewDatabase(t)}
}

// target is the database as the functions of this package take it.
func (d *database) target() entries.Target { return entries.NewTarget("test", d.Supabase) }

// blobsStore is the entries of a site as a source and as a place to restore to.
type blobsStore struct {
	*sources.Blobs
	site *sourcetest.Site
}

func newBlobsStore(t testing.TB) *blobsStore {
	t.Helper()
	s := sourcetest.NewSite(t)
	return &blobsStore{s.Source(), s}
}

func (s *blobsStore) set(t testing.TB, key, value, metadata string) {
	t.Helper()
	_, err := s.Client.Set(t.Context(), key, []byte(value), blobs.SetOptions{Metadata: metadata})
	require.NoError(t, err)
}

func (s *blobsStore) upsert(t testing.TB, key, value string, indexes ...kv.Index) {
	t.Helper()
	_, err := s.Store.Upsert(t.Context(), kv.Entry{Key: key, Value: value, Indexes: indexes})
	require.NoError(t, err)
}

// everything is what is stored: value and metadata by key.
func (s *blobsStore) everything(t testing.TB) map[string][2]string {
	t.Helper()
	all := map[string][2]string{}
	for listed, err := range s.Client.List(t.Context(), "") {
		require.NoError(t, err)
		blob, err := s.Client.Get(t.Context(), listed.Key)
		require.NoError(t, err, listed.Key)
		all[listed.Key] = [2]string{string(blob.Value), blob.Metadata}
	}
	return all
}

// longKey is as long as Blobs allows.
var longKey = "long/" + strings.Repeat("k", 595)

// odd are values that something on the way might change.
var odd = map[string]string{
	"odd/emoji 👍/🇨🇭":   `{"👍":"🇨🇭"}`,
	`odd/"quotes' & <`: ` { "a" : "<&>\u2028` + "\u2028" + `" } `,
	"odd/spaces  ":     "[ ]\n",
	"odd/nul":          `{"a":"\u0000"}`,
	"odd/huge":         `[1e400,-0,1.0,12345678901234567890]`,
	"odd/twice":        `{"a":1,"a":2}`,
	"odd/surrogate":    `["\ud800"]`,
	"odd/null":         `null`,
	longKey:            `{}`,
}

// large is more than any buffer on the way.
var large = `{"a":"` + strings.Repeat("large ", 20_000) + `"}`

// entries puts JSON of all kinds into a site, also as the JavaScript functions wrote it: without metadata, their indexes in arrays.
func (s *blobsStore) entries(t testing.TB) {
	t.Helper()
	for key, value := range odd {
		s.set(t, key, value, "")
	}
	s.set(t, "large", large, "")
	for i := range 120 {
		s.set(t, fmt.Sprintf("session:%03d", i), fmt.Sprintf(`{"n":%d}`, i), `{"of":"others"}`)
	}
	s.set(t, "index:sessions", `["001","002","nobody"]`, "")
	s.upsert(t, "own", `{"own":true}`, kv.Index{Key: "index:own", Member: "b"}, kv.Index{Key: "index:own", Member: "a,\"{}\\"},
		kv.Index{Key: "index:own", Member: kv.NumberMember("7.0")}, kv.Index{Key: "index:own", Member: "7.0"})
	var many []kv.Index
	for i := range 100 {
		many = append(many, kv.Index{Key: "index:many", Member: kv.TextMember(fmt.Sprintf("member %03d of those that do not fit into metadata", i))})
	}
	s.upsert(t, "many", `{"many":true}`, many...)
}

// others puts in what is no JSON.
func (s *blobsStore) others(t testing.TB) {
	t.Helper()
	s.set(t, "other/empty", "", "")
	s.set(t, "other/binary", "\x00\xff\xfe{\n}\r\n", `{"a":" b "}`)
	s.set(t, "other/text", "no JSON\nat all", "")
}

func backUp(t testing.TB, s sources.Source) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "backup.ndjson.gz")
	result, err := Blobs(t.Context(), s, file, Options{})
	require.NoError(t, err)
	checked, err := Check(t.Context(), file)
	require.NoError(t, err)
	require.Equal(t, result, checked)
	return file
}

var restoreOptions = RestoreOptions{Options: entries.Options{IndexPrefix: entries.DefaultIndexPrefix}}

func TestABackupOfBlobsBringsEveryByteBack(t *testing.T) {
	t.Parallel()
	from, to := newBlobsStore(t), newBlobsStore(t)
	from.entries(t)
	from.others(t)
	file := backUp(t, from)
	require.NoFileExists(t, file+".partial")
	want := from.everything(t)

	dry := restoreOptions
	dry.DryRun = true
	result, err := RestoreBlobs(t.Context(), file, to.Blobs, dry)
	require.NoError(t, err)
	require.Equal(t, [3]int{len(want), 0, 0}, [3]int{result.Written, result.Same, result.Different})
	require.Empty(t, to.everything(t))

	result, err = RestoreBlobs(t.Context(), file, to.Blobs, restoreOptions)
	require.NoError(t, err)
	require.Equal(t, [3]int{len(want), 0, 0}, [3]int{result.Written, result.Same, result.Different})
	require.Equal(t, want, to.everything(t))
	blob, err := to.Client.Get(t.Context(), "many")
	require.NoError(t, err)
	state, err := to.Store.State(t.Context(), "many", blob)
	require.NoError(t, err, "the blob that holds its indexes is there too")
	require.Len(t, state.Indexes, 100)

	result, err = RestoreBlobs(t.Context(), file, to.Blobs, restoreOptions)
	require.NoError(t, err)
	require.Equal(t, [3]int{0, len(want), 0}, [3]int{result.Written, result.Same, result.Different}, "again")
}

func TestABackupOfBlobsBecomesEntriesInSupabase(t *testing.T) {
	t.Parallel()
	from, d := newBlobsStore(t), newDatabase(t)
	from.entries(t)
	file := backUp(t, from)
	result, err := RestoreSupabase(t.Context(), file, d.target(), restoreOptions)
	require.NoError(t, err)
	require.Equal(t, len(from.everything(t)), result.Written)
	v, err := migrate.Verify(t.Context(), from, d.target(), migrate.VerifyOptions{Options: restoreOptions.Options, Rules: restoreOptions.Rules, Progress: sources.NoProgress{}})
	require.NoError(t, err)
	require.True(t, v.Same(), "%+v", v.Found)
	require.Equal(t, result.Written, v.Identical)

	result, err = RestoreSupabase(t.Context(), file, d.target(), restoreOptions)
	require.NoError(t, err)
	require.Equal(t, [2]int{0, v.Identical}, [2]int{result.Written, result.Same}, "again")
}

// The file in the place of the store: planned, migrated and verified as the store itself.
func TestABackupIsASource(t *testing.T) {
	t.Parallel()
	from, d := newBlobsStore(t), newDatabase(t)
	from.entries(t)
	source, err := NewSource(t.Context(), backUp(t, from))
	require.NoError(t, err)
	target, dir := d.target(), t.TempDir()
	plan, err := migrate.Plan(t.Context(), source, &target, migrate.PlanOptions{Options: restoreOptions.Options, Progress: sources.NoProgress{}})
	require.NoError(t, err)
	result, err := migrate.Run(t.Context(), source, target, migrate.RunOptions{Options: restoreOptions.Options, Rules: restoreOptions.Rules, Dir: dir, BatchSize: 10, Progress: sources.NoProgress{}})
	require.NoError(t, err)
	require.Equal(t, plan.Migratable, result.States[kv.ImportImported])
	for _, of := range []sources.Source{source, from} {
		v, err := migrate.Verify(t.Context(), of, target, migrate.VerifyOptions{Options: restoreOptions.Options, Rules: restoreOptions.Rules, Progress: sources.NoProgress{}})
		require.NoError(t, err)
		require.True(t, v.Same(), "%+v", v.Found)
		_, err = d.Supabase.MigrationClose(t.Context()) // it is of the file
		require.NoError(t, err)
	}
	var got []sources.Item
	for item, err := range source.Read(t.Context(), stream.Of([]blobs.Listed{{Key: "a was not"}, {Key: "own"}, {Key: "~ never was"}})) {
		require.NoError(t, err)
		got = append(got, item)
	}
	require.Len(t, got, 3)
	require.Equal(t, `{"own":true}`, string(got[1].Blob.Value))
	require.True(t, got[0].Missing && got[2].Missing)
	for item, err := range source.Read(t.Context(), stream.Of([]blobs.Listed{{Key: "own"}, {Key: "p"}})) {
		require.NoError(t, err)
		require.Equal(t, "own", item.Key)
		break // whoever has enough ends it
	}
}

func (d *database) digests(t testing.TB) []kv.Digest {
	t.Helper()
	digests, err := d.Supabase.Digests(t.Context(), "", 10_000)
	require.NoError(t, err)
	return digests
}

// entries puts in what Supabase can have: indexes whose members came one by one, an index entry of any name, and odd values.
func (d *database) entries(t testing.TB) {
	t.Helper()
	upsert := func(key, value string, indexes ...kv.Index) {
		t.Helper()
		_, err := d.Supabase.Upsert(t.Context(), kv.Entry{Key: key, Value: value, Indexes: indexes})
		require.NoError(t, err)
	}
	for key, value := range odd {
		upsert(key, value, kv.Index{Key: "of any name", Member: kv.TextMember(key[:5])})
	}
	for i := range keysPage + 10 { // more than a page
		upsert(fmt.Sprintf("e%03d", i), fmt.Sprintf(`{"n":%d}`, i), kv.Index{Key: "index:e", Member: []kv.Member{kv.TextMember(fmt.Sprint(i % 7)), kv.NumberMember(fmt.Sprint(i % 7))}[i%2]})
	}
	upsert("large", large)
	upsert("index:plain", `["an","array"]`)
	upsert("index:mixed", `[1,{"a":2}]`)
}

func TestABackupOfSupabaseBringsItBack(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.entries(t)
	before := d.digests(t)
	times := d.times(t)
	file := filepath.Join(t.TempDir(), "backup.ndjson.gz")
	backup, err := Supabase(t.Context(), d.target(), file, Options{})
	require.NoError(t, err)
	require.Equal(t, len(before), backup.Entries)

	d.Empty(t)
	result, err := RestoreSupabase(t.Context(), file, d.target(), RestoreOptions{})
	require.NoError(t, err)
	require.Equal(t, len(before), result.Written)
	require.Equal(t, before, d.digests(t))
	require.Equal(t, times, d.times(t))
	stray, err := d.Supabase.StrayPostings(t.Context())
	require.NoError(t, err)
	require.Zero(t, stray)
	_, err = d.Supabase.Upsert(t.Context(), kv.Entry{Key: "new", Value: `{}`, Indexes: []kv.Index{{Key: "of any name", Member: "new"}}})
	require.NoError(t, err)
	value, err := d.Supabase.Get(t.Context(), "of any name")
	require.NoError(t, err)
	require.Regexp(t, `^\["odd/.*,"new"\]$|^\["long/.*,"new"\]$`, value, "members go on where they were")
	require.NoError(t, d.SQL.QueryRow(t.Context(), "delete from public.kv_store where key = 'new' returning 'done'").Scan(&value))

	// Into Blobs, and from there back: what differs is the member that was added.
	to := newBlobsStore(t)
	result, err = RestoreBlobs(t.Context(), file, to.Blobs, restoreOptions)
	require.NoError(t, err)
	require.Equal(t, len(before), result.Written)
	result, err = RestoreBlobs(t.Context(), file, to.Blobs, restoreOptions)
	require.NoError(t, err)
	require.Equal(t, len(before), result.Same)
	v, err := migrate.Verify(t.Context(), to, d.target(), migrate.VerifyOptions{Options: restoreOptions.Options, Rules: restoreOptions.Rules, Progress: sources.NoProgress{}})
	require.NoError(t, err)
	require.Equal(t, []migrate.Difference{{Key: "of any name", How: "different", What: "value"}}, v.Found)
}

// TestABlobThatWasWrappedGoesBackAsItWas: migrations once made JSON of blobs that are not, and backups of version 1 have that.
func TestABlobThatWasWrappedGoesBackAsItWas(t *testing.T) {
	t.Parallel()
	d, to := newDatabase(t), newBlobsStore(t)
	lines := []string{`{"format":"netlify-supabase-kv-backup","version":1,"of":"supabase","source":"test","at":"2026-12-01T00:00:00Z"}`}
	size := 0
	for _, e := range [][2]string{
		{"gone", `{"$blob":"/wA=","contentType":null}`}, {"own", `{"$blob":"e30=","contentType":null}`}, {"there", `{"$blob":"aGVsbG8sIG5vdCBqc29u","contentType":"text/plain"}`},
	} {
		text, err := json.Marshal(e[1])
		require.NoError(t, err)
		size += len(e[1])
		lines = append(lines, fmt.Sprintf(`{"key":%q,"revision":"aaaaaaaa.1.0","indexes":[],"size":%d,"sha256":%q,"value":%s}`, e[0], len(e[1]), hexSHA256([]byte(e[1])), text))
	}
	text := strings.Join(lines, "\n") + "\n"
	text += fmt.Sprintf(`{"manifest":{"entries":3,"bytes":%d,"sha256":%q,"ended":"2026-12-01T00:00:01Z"}}`, size, hexSHA256([]byte(text))) + "\n"
	file := filepath.Join(t.TempDir(), "backup.ndjson.gz")
	require.NoError(t, os.WriteFile(file, zip(text), 0o600))

	to.set(t, "there", "hello, not json", "")
	result, err := RestoreBlobs(t.Context(), file, to.Blobs, restoreOptions)
	require.NoError(t, err)
	require.Equal(t, []int{1, 2}, []int{result.Same, result.Written}, "what is there is left alone")
	_, err = RestoreSupabase(t.Context(), file, d.target(), restoreOptions)
	require.NoError(t, err)
	for key, want := range map[string]string{"there": "hello, not json", "gone": "\xff\x00", "own": `{"$blob":"e30=","contentType":null}`} { // no run wrapped {}
		blob, err := to.Client.Get(t.Context(), key)
		require.NoError(t, err)
		require.Equal(t, want, string(blob.Value), key)
		entry, err := d.Supabase.GetEntry(t.Context(), kv.DefaultStore, key, kv.Freshness{})
		require.NoError(t, err)
		require.Equal(t, want, string(entry.Data), key)
	}
}

// times are those of creation and update.
func (d *database) times(t testing.TB) (text string) {
	t.Helper()
	require.NoError(t, d.SQL.QueryRow(t.Context(), "select string_agg(concat_ws(' ', key, created_at, updated_at), ',' order by key) from public.kv_store").Scan(&text))
	return text
}

func TestABackupOfAnEmptyDatabase(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	file := filepath.Join(t.TempDir(), "backup.ndjson.gz")
	_, err := Supabase(t.Context(), d.target(), file, Options{})
	require.NoError(t, err)
	result, err := RestoreSupabase(t.Context(), file, d.target(), RestoreOptions{})
	require.NoError(t, err)
	require.Zero(t, result.Written)
}

func TestRestoringIntoSupabaseLeavesWhatDiffers(t *testing.T) {
	t.Parallel()
	from, d := newBlobsStore(t), newDatabase(t)
	from.set(t, "a", `{"a":1}`, "")
	from.set(t, "b", `{"b":1}`, "")
	from.set(t, "c", `{"c":1}`, "")
	from.others(t)
	file := backUp(t, from)
	for key, value := range map[string]string{"a": `{"a":1}`, "b": `{"b":2}`, "d": `{}`} {
		_, err := d.Supabase.Upsert(t.Context(), kv.Entry{Key: key, Value: value})
		require.NoError(t, err)
	}
	result, err := RestoreSupabase(t.Context(), file, d.target(), restoreOptions)
	require.ErrorIs(t, err, ErrRemaining)
	require.Equal(t, [4]int{4, 1, 1, 0}, [4]int{result.Written, result.Same, result.Different, result.Failed}, "%+v", result.Failures)
	require.Equal(t, []string{"b"}, result.Differing)
	overwrite := restoreOptions
	overwrite.Overwrite, overwrite.SkipNonJSON = true, true
	result, err = RestoreSupabase(t.Context(), file, d.target(), overwrite)
	require.NoError(t, err)
	require.Equal(t, [4]int{1, 2, 0, 3}, [4]int{result.Written, result.Same, result.Different, result.Skipped})
	for key, want := range map[string]string{"a": `{"a":1}`, "b": `{"b":1}`, "c": `{"c":1}`, "d": `{}`} {
		value, err := d.Supabase.Get(t.Context(), key)
		require.NoError(t, err)
		require.Equal(t, want, value)
	}

	// A write that comes after the comparison stays, although everything is to be written over.
	r := &supabaseRestore{restore: &restore{o: overwrite}, target: d.target()}
	r.o.Progress = sources.NoProgress{}
	digests, err := d.Supabase.DigestsOf(t.Context(), []string{"a"})
	require.NoError(t, err)
	_, err = d.Supabase.Upsert(t.Context(), kv.Entry{Key: "a", Value: `{"newer":1}`})
	require.NoError(t, err)
	old, newer := kv.State{Key: "a", Value: `{"old":1}`, Indexes: [][2]string{}}, kv.State{Key: "a", Value: `{"newer":1}`, Indexes: [][2]string{}}
	_, write, err := r.choose(t.Context(), old, &digests[0])
	require.NoError(t, err)
	require.False(t, write)
	require.NoError(t, r.copy(t.Context(), []kv.CopyOver{{State: old}}))
	require.NoError(t, r.copy(t.Context(), []kv.CopyOver{{State: newer}}))
	require.Equal(t, [3]int{0, 1, 2}, [3]int{r.result.Written, r.result.Same, r.result.Different})
	value, err := d.Supabase.Get(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, `{"newer":1}`, value)
}

func TestRestoringIntoBlobsLeavesWhatDiffers(t *testing.T) {
	t.Parallel()
	from, to := newBlobsStore(t), newBlobsStore(t)
	from.set(t, "a", `{"a":1}`, `{"m":1}`)
	from.set(t, "b", `{"b":1}`, "")
	from.set(t, "c", `{"c":1}`, `{"m":1}`)
	from.set(t, "d", `{"d":"`+strings.Repeat("larger than a chunk ", restoreBytes/20)+`"}`, "")
	file := backUp(t, from)
	to.set(t, "a", `{"a":1}`, `{"m":1}`)
	to.set(t, "b", `{"b":2}`, "")
	to.set(t, "c", `{"c":1}`, `{"m":2}`)
	to.set(t, "e", `{}`, "")
	result, err := RestoreBlobs(t.Context(), file, to.Blobs, restoreOptions)
	require.ErrorIs(t, err, ErrRemaining)
	require.Equal(t, [3]int{1, 1, 2}, [3]int{result.Written, result.Same, result.Different})
	require.Equal(t, []string{"b", "c"}, result.Differing)
	overwrite := restoreOptions
	overwrite.Overwrite = true
	result, err = RestoreBlobs(t.Context(), file, to.Blobs, overwrite)
	require.NoError(t, err)
	require.Equal(t, [3]int{2, 2, 0}, [3]int{result.Written, result.Same, result.Different})
	want := from.everything(t)
	want["e"] = [2]string{`{}`, ""}
	require.Equal(t, want, to.everything(t), "nothing is deleted")

	// Written after the list, and after the comparison.
	r := &blobsRestore{restore: &restore{o: overwrite}, target: to.Blobs, of: OfBlobs}
	r.o.Progress = sources.NoProgress{}
	before, err := to.Client.Get(t.Context(), "b")
	require.NoError(t, err)
	to.set(t, "b", `{"newer":1}`, "")
	line := &entryLine{Key: "b", value: []byte(`{"old":1}`)}
	require.NoError(t, r.one(t.Context(), restored{entryLine: line}))
	require.NoError(t, r.put(t.Context(), line, before.ETag))
	require.NoError(t, to.Client.Delete(t.Context(), "b"))
	require.NoError(t, r.put(t.Context(), line, before.ETag))
	require.Equal(t, [3]int{0, 0, 3}, [3]int{r.result.Written, r.result.Same, r.result.Different})
	_, err = to.Client.Get(t.Context(), "b")
	require.ErrorIs(t, err, blobs.ErrNotFound)
}

func TestKeysThatBlobsCannotKeepAreReported(t *testing.T) {
	t.Parallel()
	d, to := newDatabase(t), newBlobsStore(t)
	bad := []string{"/lead", "a?b", "a#b", `a\b`, "a%41b", "a/../b", strings.Repeat("k", 601)}
	for _, key := range append([]string{"good"}, bad...) {
		_, err := d.Supabase.Upsert(t.Context(), kv.Entry{Key: key, Value: `{}`})
		require.NoError(t, err)
	}
	file := filepath.Join(t.TempDir(), "backup.ndjson.gz")
	_, err := Supabase(t.Context(), d.target(), file, Options{})
	require.NoError(t, err)
	result, err := RestoreBlobs(t.Context(), file, to.Blobs, restoreOptions)
	require.ErrorIs(t, err, ErrRemaining)
	require.Equal(t, [2]int{1, len(bad)}, [2]int{result.Written, result.Failed})
	for _, problem := range result.Failures {
		require.Equal(t, entries.CodeBadKey, problem.Code)
		require.Contains(t, bad, problem.Key)
	}
}

func TestABackupThatEndsEarlyLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "backup")
	source := &sourcetest.Memory{Items: []sources.Item{sourcetest.Item("a", "{}"), sourcetest.Item("b", "{}")}}
	ctx, cancel := context.WithCancel(t.Context())
	source.Each = func(n int) error {
		if n == 1 {
			require.FileExists(t, file+".partial")
			cancel()
		}
		return nil
	}
	_, err := Blobs(ctx, source, file, Options{})
	require.ErrorIs(t, err, context.Canceled)
	failure := errors.New("the source fails")
	source.Each = func(int) error { return failure }
	_, err = Blobs(t.Context(), source, file, Options{})
	require.ErrorIs(t, err, failure)
	_, err = Blobs(t.Context(), &sourcetest.Memory{}, file, Options{})
	require.ErrorIs(t, err, sources.ErrEmpty)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)

	// A file that is there stays as it is, whatever happens.
	require.NoError(t, os.WriteFile(file, []byte("mine"), 0o600))
	_, err = Blobs(t.Context(), source, file, Options{Force: true})
	require.ErrorIs(t, err, failure)
	source.Each = nil
	_, err = Blobs(t.Context(), source, file, Options{})
	require.ErrorContains(t, err, "exists")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "mine", string(text))
	source.Each = func(int) error { return nil }
	_, err = Blobs(t.Context(), source, file, Options{Force: true})
	require.NoError(t, err)
	_, err = Check(t.Context(), file)
	require.NoError(t, err)

	// It comes while the backup is written.
	late := filepath.Join(dir, "late")
	source.Each = func(int) error { return os.WriteFile(late, []byte("mine"), 0o600) }
	_, err = Blobs(t.Context(), source, late, Options{})
	require.ErrorContains(t, err, "exists")
	require.NoFileExists(t, late+".partial")
	_, err = Blobs(t.Context(), source, dir, Options{Force: true})
	require.ErrorContains(t, err, "not a file")

	// What a backup that was killed has left is written over, and what another one is writing is not.
	other := filepath.Join(dir, "other")
	require.NoError(t, os.WriteFile(other+".partial", bytes.Repeat([]byte("left"), 1000), 0o600))
	lock := flock.New(other + ".partial")
	locked, err := lock.TryLock()
	require.NoError(t, err)
	require.True(t, locked)
	source.Each = nil
	_, err = Blobs(t.Context(), source, other, Options{})
	require.ErrorContains(t, err, "being written by another backup")
	require.NoError(t, lock.Close())
	_, err = Blobs(t.Context(), source, other, Options{})
	require.NoError(t, err)
	_, err = Check(t.Context(), other)
	require.NoError(t, err)
	require.NoFileExists(t, other+".partial")
}

func TestWhatCannotBeReadIsReportedInTheFile(t *testing.T) {
	t.Parallel()
	unreadable := sourcetest.Item("b", "")
	unreadable.Err = errors.New("status 500")
	strange := sourcetest.Item("c", "{}")
	strange.Blob.Metadata = "\"\xff\""
	gone := sourcetest.Item("d", "")
	gone.Missing = true
	file := filepath.Join(t.TempDir(), "backup")
	source := &sourcetest.Memory{Items: []sources.Item{sourcetest.Item("a", "{}"), unreadable, strange, gone, sourcetest.Item("\xff", "{}")}}
	result, err := Blobs(t.Context(), source, file, Options{})
	require.ErrorIs(t, err, ErrRemaining)
	require.Equal(t, 1, result.Entries)
	require.False(t, result.Complete())
	checked, err := Check(t.Context(), file)
	require.NoError(t, err)
	require.Equal(t, result, checked)
	var keys []string
	for _, problem := range checked.Unreadable {
		keys = append(keys, problem.Key)
	}
	require.Equal(t, []string{"b", "c", "\uFFFD"}, keys)
}

func TestABackupEndsWhereBlobsStayAway(t *testing.T) {
	t.Parallel()
	from := newBlobsStore(t)
	from.set(t, "a", "{}", "")
	from.site.Faults(&blobstest.Faults{ServerError: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	file := filepath.Join(t.TempDir(), "backup")
	_, err := Blobs(ctx, from, file, Options{})
	require.Error(t, err)
	require.NoFileExists(t, file)
	require.NoFileExists(t, file+".partial")
}

// small is a backup of a few entries, and what is in it.
func small(t testing.TB) (zipped []byte, text string) {
	t.Helper()
	binary := sourcetest.Item("k/2", "\x00\xff")
	binary.Blob.Metadata, binary.Blob.ContentType, binary.Indexes = `{"m":1}`, "application/octet-stream", [][2]string{{"i", "m"}}
	file := filepath.Join(t.TempDir(), "backup")
	_, err := Blobs(t.Context(), &sourcetest.Memory{Items: []sources.Item{sourcetest.Item("k/1", `{"a":"é"}`), binary, sourcetest.Item("k/3", "")}}, file, Options{})
	require.NoError(t, err)
	zipped, err = os.ReadFile(file)
	require.NoError(t, err)
	return zipped, unzip(t, zipped)
}

func unzip(t testing.TB, zipped []byte) string {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(zipped))
	require.NoError(t, err)
	text, err := io.ReadAll(r)
	require.NoError(t, err)
	return string(text)
}

// zippers are used again: making one takes longer than what it does here.
var zippers = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

func zip(text string) []byte {
	var out bytes.Buffer
	w := zippers.Get().(*gzip.Writer)
	defer zippers.Put(w)
	w.Reset(&out)
	_, _ = w.Write([]byte(text))
	_ = w.Close()
	return out.Bytes()
}

// contentOf is everything that a reader hands out, apart from when the backup ended: only gzip's own sum is over that.
func contentOf(ctx context.Context, zipped []byte, limit int) (string, error) {
	var out strings.Builder
	r, err := read(ctx, bytes.NewReader(zipped), limit, func(l *entryLine) error {
		item := l.item(Result{Of: OfSupabase})
		fmt.Fprintf(&out, "%q %q %v %v %v %v %v\n", item.Blob, l.Revision, item.Listed, item.Indexes, item.Created, item.Updated, item.Expires)
		return nil
	})
	if err == nil {
		r.manifest.Ended = time.Time{}
		fmt.Fprintf(&out, "%v %v", *r.header, *r.manifest)
	}
	return out.String(), err
}

// TestDamageAnywhereIsFound damages a backup at every byte, or at one of MIGRATE_TEST_STRIDE.
func TestDamageAnywhereIsFound(t *testing.T) {
	t.Parallel()
	zipped, text := small(t)
	stride := max(1, migratetest.Share(t, "MIGRATE_TEST_STRIDE", 5))
	begin := int(migratetest.Seed(t, "MIGRATE_TEST_SEED") % uint64(stride))
	want, err := contentOf(t.Context(), zipped, maxLine)
	require.NoError(t, err)
	harmless := 0
	for i := begin; i < len(zipped); i += stride {
		for _, flip := range []byte{0x01, 0x20, 0x80, 0xff} {
			damaged := bytes.Clone(zipped)
			damaged[i] ^= flip
			got, err := contentOf(t.Context(), damaged, maxLine)
			if err == nil {
				harmless++
				require.Equal(t, want, got, "byte %d", i)
			}
		}
		_, err := contentOf(t.Context(), zipped[:i], maxLine)
		require.Error(t, err, "cut off after %d bytes", i)
	}
	require.Less(t, harmless, 4*10, "of gzip's header alone")

	// Inside of gzip nothing but our own sums finds it.
	for i := begin; i < len(text); i += stride {
		for _, flip := range []byte{0x01, 0x02, 0x20} {
			damaged := []byte(text)
			damaged[i] ^= flip
			got, err := contentOf(t.Context(), zip(string(damaged)), maxLine)
			if err == nil {
				require.Equal(t, want, got, "byte %d", i)
			}
		}
		_, err := contentOf(t.Context(), zip(text[:i]), maxLine)
		require.Error(t, err, "cut off after %d bytes", i)
	}
}

func TestDamageIsNamed(t *testing.T) {
	t.Parallel()
	_, text := small(t)
	lines := strings.SplitAfter(text, "\n")
	replace := func(old, new string) string {
		require.Contains(t, text, old)
		return strings.Replace(text, old, new, 1)
	}
	for name, tt := range map[string]struct {
		text, want string
	}{
		"Empty":            {"", "it is empty"},
		"NoManifest":       {strings.Join(lines[:4], ""), "it has no manifest"},
		"TornLine":         {text[:len(text)-10], "line 5: it ends in the middle"},
		"OtherFormat":      {replace(format, "x"), `line 1: it is no backup: its format is "x"`},
		"OtherVersion":     {replace(`"version":2`, `"version":3,"new":1`), "line 1: its version is 3"},
		"OtherStore":       {replace(`"of":"blobs"`, `"of":"x"`), "line 1: it is of"},
		"NoStore":          {replace(`"store":"kv",`, ``), "line 1: its header names no store"},
		"HeaderNoJSON":     {"x" + text, "line 1: it is no header"},
		"EntryTwice":       {strings.Join([]string{lines[0], lines[1], lines[1], lines[4]}, ""), `line 3: the key "k/1" does not come after the one before`},
		"EntryLost":        {strings.Join([]string{lines[0], lines[1], lines[4]}, ""), "line 3: there are 1 entries, and the manifest says 3"},
		"OtherOrder":       {strings.Join([]string{lines[0], lines[2], lines[1], lines[3], lines[4]}, ""), `line 3: the key "k/1" does not come after the one before`},
		"OtherValue":       {replace("é", "è"), "line 2: the entry \"k/1\": the value does not have the SHA-256"},
		"OtherMetadata":    {replace(`{\"m\":1}`, `{\"m\":2}`), "line 5: the lines before do not have the SHA-256"},
		"OtherSize":        {replace(`"size":10`, `"size":11`), "the value has 10 bytes, and the line says 11"},
		"BadBase64":        {replace(`"base64":"AP8="`, `"base64":"AP9="`), "line 3: the entry \"k/2\": base64 cannot be decoded"},
		"NoValue":          {replace(`,"base64":"AP8="`, ``), "line 3: the entry \"k/2\": it must have value or base64"},
		"UnknownField":     {replace(`"base64"`, `"base65"`), "line 3: it is not what was expected"},
		"NoKey":            {replace(`{"key":"k/2"`, `{"kex":"k/2"`), "line 3: it does not begin with a key"},
		"TwoKeys":          {replace(`"etag":"e"`, `"key":"e"`), "line 2: it has two keys"},
		"BytesOfManifest":  {replace(`"bytes":12`, `"bytes":13`), "line 5: the values have 12 bytes"},
		"EmptyManifest":    {strings.Join(lines[:4], "") + "{\"manifest\":null}\n", "line 5: the manifest is empty"},
		"AfterManifest":    {text + lines[1], "line 6: something follows the manifest"},
		"AfterAnEntry":     {replace("}\n{\"key\":\"k/2\"", "}{}\n{\"key\":\"k/2\""), "line 2: something follows its JSON"},
		"LongLine":         {replace("é", strings.Repeat("e", 3000)), "line 2: it is longer than 2000 bytes"},
		"NotAnObjectThere": {lines[0] + "[]\n", "line 2: it does not begin with a key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := contentOf(t.Context(), zip(tt.text), 2000)
			require.ErrorContains(t, err, tt.want)
		})
	}
	_, err := contentOf(t.Context(), []byte(text), 2000)
	require.ErrorContains(t, err, "no gzip file")
}

// stopper ends a restore once so many entries are done.
type stopper struct {
	sources.NoProgress
	left atomic.Int64
	stop context.CancelFunc
}

func (s *stopper) Done(int, int) {
	if s.left.Add(-1) == 0 {
		s.stop()
	}
}

func TestARestoreThatWasEndedGoesOn(t *testing.T) {
	t.Parallel()
	from, to := newBlobsStore(t), newBlobsStore(t)
	from.entries(t)
	file := backUp(t, from)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := restoreOptions
	s := &stopper{stop: cancel}
	s.left.Store(20)
	o.Progress = s
	_, err := RestoreBlobs(ctx, file, to.Blobs, o)
	require.ErrorIs(t, err, context.Canceled)
	some := len(to.everything(t))
	require.GreaterOrEqual(t, some, 20)
	require.Less(t, some, len(from.everything(t)))
	result, err := RestoreBlobs(t.Context(), file, to.Blobs, restoreOptions)
	require.NoError(t, err)
	require.GreaterOrEqual(t, result.Same, some, "a write that was under way may have come later")
	require.Equal(t, from.everything(t), to.everything(t))
}

func TestNothingIsRestoredOfADamagedFile(t *testing.T) {
	t.Parallel()
	to := newBlobsStore(t)
	zipped, _ := small(t)
	file := filepath.Join(t.TempDir(), "backup")
	require.NoError(t, os.WriteFile(file, zipped[:len(zipped)-1], 0o600))
	_, err := RestoreBlobs(t.Context(), file, to.Blobs, restoreOptions)
	require.ErrorContains(t, err, "cut off")
	require.Empty(t, to.everything(t))
	require.NoError(t, os.WriteFile(file, zipped, 0o600))
	source, err := NewSource(t.Context(), file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, zip("another"), 0o600))
	_, err = sources.ReadOne(t.Context(), source, blobs.Listed{Key: "k/1"})
	require.ErrorContains(t, err, "was changed after it was checked")
	_, err = Blobs(t.Context(), source, file+"2", Options{})
	require.ErrorContains(t, err, "copy the file")
}
