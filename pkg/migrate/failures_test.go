package migrate

import (
	"encoding/json"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/backup"
	"netlify-supabase-kv/pkg/migrate/entries"
	"netlify-supabase-kv/pkg/migrate/sources"
	"netlify-supabase-kv/pkg/mirror"
)

// operations are all that can be asked of this package, each with the error alone.
func (m *migration) operations(blobsBackup, supabaseBackup string) map[string]func() error {
	ctx := m.t.Context()
	restore := backup.RestoreOptions{Options: m.o, Rules: m.rules, Overwrite: true}
	target := entries.Target{Name: "test", Supabase: m.Supabase} // which repeats what fails for fifteen seconds, not for minutes
	return map[string]func() error{
		"plan": func() error {
			_, err := Plan(ctx, m.Source(), &target, PlanOptions{Options: m.o, Dir: m.dir, Progress: sources.NoProgress{}})
			return err
		},
		"run": func() error {
			_, err := Run(ctx, m.Source(), target, RunOptions{Options: m.o, Rules: m.rules, lease: testLease, Dir: m.dir, BatchSize: DefaultBatchSize, Progress: sources.NoProgress{}})
			return err
		},
		"verify": func() error {
			_, err := Verify(ctx, m.Source(), target, VerifyOptions{Options: m.o, Rules: m.rules, Dir: m.dir, Repair: true, Progress: sources.NoProgress{}, rechecks: usualRechecks[:1]})
			return err
		},
		"status": func() error { _, err := ReadStatus(ctx, m.dir, &target); return err },
		"backup of Supabase": func() error {
			_, err := backup.Supabase(ctx, target, filepath.Join(m.t.TempDir(), "b.gz"), backup.Options{})
			return err
		},
		"restore of Blobs":    func() error { _, err := backup.RestoreSupabase(ctx, blobsBackup, target, restore); return err },
		"restore of Supabase": func() error { _, err := backup.RestoreSupabase(ctx, supabaseBackup, target, restore); return err },
	}
}

// TestWhateverTheDatabaseRefusesIsSaid refuses one function after the other, and wants whoever needs it to say so.
func TestWhateverTheDatabaseRefusesIsSaid(t *testing.T) {
	m := newMigration(t)
	m.seed(10)
	m.run()
	dir := t.TempDir()
	blobsBackup, supabaseBackup := filepath.Join(dir, "blobs.gz"), filepath.Join(dir, "supabase.gz")
	_, err := backup.Blobs(t.Context(), m.Source(), blobsBackup, backup.Options{})
	require.NoError(t, err)
	_, err = backup.Supabase(t.Context(), m.target(), supabaseBackup, backup.Options{})
	require.NoError(t, err)
	operations := m.operations(blobsBackup, supabaseBackup)
	for function, needed := range map[string][]string{
		"kv_migration_status": {"run", "status", "backup of Supabase"},
		"kv_migration_brief":  {"plan", "verify", "restore of Blobs"},
		"kv_migration_open":   {"run"},
		"kv_migration_renew":  {"run"},
		"kv_import_page":      {"run"},
		"kv_import_problems":  {"run"},
		"kv_import":           {"run"},
		"kv_digests":          {"verify", "backup of Supabase"},
		"kv_digests_of":       {"verify", "restore of Blobs"},
		"kv_stray_postings":   {"verify"},
		"kv_verification_add": {"verify"},
		"kv_mirror_states":    {"verify", "backup of Supabase", "restore of Supabase"},
		"kv_mirror_copy":      {"verify", "restore of Supabase"},
		"kv_restore":          {"restore of Supabase"},
	} {
		m.Set("sessions/00001", `{"changed":"`+function+`"}`) // there is something to do for each
		m.exec("update public.kv_store set value = $1::text::json where key = 'sessions/00002'", `{"damaged":"`+function+`"}`)
		_, err := m.SQL.Exec(t.Context(), "revoke execute on function public."+function+" from service_role")
		require.NoError(t, err)
		for _, name := range needed {
			require.ErrorContains(t, operations[name](), "Supabase refused the key", "%s without %s", name, function)
		}
		_, err = m.SQL.Exec(t.Context(), "grant execute on function public."+function+" to service_role")
		require.NoError(t, err)
	}
	for _, name := range []string{"run", "verify", "status", "backup of Supabase"} {
		require.NoError(t, operations[name](), name)
	}
	m.requireIdentical()
}

func TestBadOptionsAreSaidBeforeAnythingIsDone(t *testing.T) {
	m := newMigration(t)
	m.seed(3)
	file := filepath.Join(t.TempDir(), "b.gz")
	_, err := backup.Blobs(t.Context(), m.Source(), file, backup.Options{})
	require.NoError(t, err)
	for want, o := range map[string]entries.Options{
		"the index prefix must not be empty": {},
	} {
		m.o = o
		operations := m.operations(file, file)
		for _, name := range []string{"plan", "run", "verify", "restore of Blobs"} {
			require.ErrorContains(t, operations[name](), want, name)
		}
	}
	migration, err := m.Supabase.Migration(t.Context())
	require.NoError(t, err)
	require.Nil(t, migration)
}

func TestADirectoryThatCannotBeWrittenIsSaid(t *testing.T) {
	m := newMigration(t)
	m.seed(3)
	good := m.dir
	m.dir = filepath.Join(good, "file")
	require.NoError(t, os.WriteFile(m.dir, nil, 0o600))
	operations := m.operations("", "")
	for _, name := range []string{"run", "plan", "verify"} {
		require.ErrorContains(t, operations[name](), "write the result", name)
	}
	require.Error(t, operations["status"]())

	m.dir = filepath.Join(good, "result is a directory")
	require.NoError(t, os.MkdirAll(filepath.Join(m.dir, runFile), 0o700))
	require.ErrorContains(t, m.operations("", "")["run"](), "write the result")
	_, err := WriteReport(m.dir)
	require.ErrorContains(t, err, "run.json")
}

func TestTheStatusSaysWhatIsKnown(t *testing.T) {
	m := newMigration(t)
	status, err := ReadStatus(t.Context(), m.dir, nil)
	require.NoError(t, err)
	require.Equal(t, Status{}, status)
	_, err = WriteReport(m.dir)
	require.ErrorIs(t, err, ErrNoReport)

	m.seed(3)
	m.Set("text", "hello")
	m.o.SkipNonJSON = true
	m.alter("alter table public.kv_store add constraint picky check (key <> 'sessions/00002')")
	m.run()
	_, err = Verify(t.Context(), m.Source(), m.target(), VerifyOptions{Options: m.o, Rules: m.rules, Dir: m.dir, Progress: sources.NoProgress{}})
	require.NoError(t, err)
	target := m.target()
	status, err = ReadStatus(t.Context(), m.dir, &target)
	require.NoError(t, err)
	require.True(t, status.Database.Open)
	require.False(t, status.Database.Migration.AtWork)
	require.Equal(t, m.Source().Name(), status.Database.Migration.Source)
	require.Equal(t, 8, *status.Database.Migration.Listed)
	require.Equal(t, map[kv.ImportState]int{kv.ImportImported: 6, kv.ImportFailed: 1, kv.ImportSkipped: 1}, status.Database.States)
	require.True(t, status.Results.Run.Finished)
	require.Equal(t, 1, status.Results.Verification.Skipped)
	require.Equal(t, 1, status.Results.Verification.Missing)
	var kept Result
	require.NoError(t, json.Unmarshal(status.Database.Migration.Run, &kept))
	require.Equal(t, 6, kept.Written, "whoever asks, from any machine")
	var verified Verification
	require.NoError(t, json.Unmarshal(status.Database.Verification, &verified))
	require.Equal(t, 6, verified.Identical)

	report, err := WriteReport(m.dir)
	require.NoError(t, err)
	report.Run.Finished, report.Run.Stopped = false, "the network was away"
	report.Verification.Found = []Difference{{Key: "a`b|c", How: "different", What: "value"}}
	report.Run.Without, report.Run.WithoutRule = []string{"index:a"}, maxShown+1
	page, err := report.Markdown()
	require.NoError(t, err)
	for _, text := range []string{"It stopped: the network was away", `aˋb\|c`, "- `index:a`", "report.json has more", "- `index:by*=sessions/{member}`"} {
		require.Contains(t, page, text)
	}
}

func TestARunThatLostTheMigrationStops(t *testing.T) {
	m := newMigration(t)
	m.seed(300)
	taken := &takeOver{m: m}
	_, err := Run(t.Context(), m.Source(), m.target(), RunOptions{Options: m.o, Rules: m.rules, lease: testLease, Dir: m.dir, BatchSize: 5, Progress: taken})
	require.ErrorIs(t, err, kv.ErrImportTaken)
	m.run()
	m.requireIdentical()
}

// takeOver lets another session in, once, in the middle of a run.
type takeOver struct {
	m         *migration
	migrating atomic.Bool // Done is called by several goroutines
}

func (o *takeOver) Stage(name string, _ int) { o.migrating.Store(name == "migrating") }
func (o *takeOver) Done(int, int) {
	if o.migrating.CompareAndSwap(true, false) {
		o.m.exec("update kv.migration set session = gen_random_uuid()")
	}
}

func TestARepairOfEntriesThatOthersKeepChangingEnds(t *testing.T) {
	m := newMigration(t)
	m.seed(3)
	m.run()
	store := mirror.NewBlobsPrimary(&mirror.Pair{Supabase: m.Supabase, Blobs: m.Store(), Log: discard})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				_, _ = store.Upsert(t.Context(), kv.Entry{Key: "sessions/00001", Value: `{}`})
			}
		}
	}()
	m.exec("update public.kv_store set value = '{\"damaged\":true}' where key = 'sessions/00002'")
	repaired := m.look(true)
	close(stop)
	<-done
	require.NotZero(t, repaired.Repaired)
	m.requireIdentical()
}

func TestAResultThatCannotBeKeptIsToldFirst(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	dir := filepath.Join(file, "kv-migration") // no directory can be made in a file, whoever tries
	_, err := Plan(t.Context(), unread{}, nil, PlanOptions{Options: defaults, Dir: dir, Progress: sources.NoProgress{}})
	require.ErrorContains(t, err, "write the result")
	_, err = Verify(t.Context(), unread{}, entries.Target{}, VerifyOptions{Options: defaults, Dir: dir, Progress: sources.NoProgress{}})
	require.ErrorContains(t, err, "write the result")

	dir = filepath.Join(t.TempDir(), "a", "b")
	require.NoError(t, canWrite(dir))
	require.NoDirExists(t, filepath.Dir(dir), "looking leaves nothing behind")
}

// unread is a source that must not be read.
type unread struct{ sources.Source }

func (unread) Name() string      { return "unread" }
func (unread) StoreName() string { return kv.DefaultStore }
