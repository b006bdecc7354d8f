package migration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate"
	"netlify-supabase-kv/pkg/migrate/entries"
	"netlify-supabase-kv/pkg/migrate/migratetest"
	"netlify-supabase-kv/pkg/migrate/sources/sourcetest"
	"netlify-supabase-kv/scripts/internal/cli"
)

// program runs the command with a Blobs server and an empty database.
type program struct {
	*sourcetest.Site
	t        *testing.T
	database *migratetest.Database
	dir      string
}

func newProgram(t *testing.T) *program {
	t.Helper()
	return &program{Site: sourcetest.NewSite(t), t: t, database: migratetest.NewDatabase(t), dir: filepath.Join(t.TempDir(), "migration")}
}

// flags name the stores; a flag given later overrides them.
func (p *program) flags() []string {
	return []string{
		"--site", p.Access.SiteID, "--token", p.Access.APIToken, "--api-url", p.Access.APIURL,
		"--supabase-url", p.database.URL, "--supabase-key", p.database.Key,
	}
}

// environment names the stores in variables.
func (p *program) environment() []string {
	return []string{
		"NETLIFY_SITE_ID=" + p.Access.SiteID, "NETLIFY_BLOBS_TOKEN=" + p.Access.APIToken, "NETLIFY_BLOBS_API_URL=" + p.Access.APIURL,
		"SUPABASE_URL=" + p.database.URL, "SUPABASE_SERVICE_ROLE_KEY=" + p.database.Key,
	}
}

// rules writes a file of rules.
func (p *program) rules(lines ...string) (file string) {
	p.t.Helper()
	file = filepath.Join(p.t.TempDir(), "rules.txt")
	require.NoError(p.t, os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600))
	return file
}

// do runs the command, requires an exit status and returns the output.
func (p *program) do(status int, args ...string) string {
	p.t.Helper()
	out, err := run(p.t, append(p.flags(), args...)...)
	var stderr bytes.Buffer
	require.Equal(p.t, status, cli.ExitStatus("migrate-kv-store", err, false, &stderr), "%v: %s %s", args, out, &stderr)
	for _, secret := range []string{p.Access.APIToken, p.database.Key} {
		require.NotContains(p.t, out+stderr.String(), secret)
	}
	return out + stderr.String()
}

func TestMigrationFromBlobs(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	for i := range 120 {
		p.Set(fmt.Sprintf("session:%03d", i), fmt.Sprintf(`{"n":%d}`, i))
	}
	p.Set("index:sessions", `["001","002","gone"]`)
	p.Set("other/001", `{}`)
	p.Set("text", "hello")
	backup := filepath.Join(t.TempDir(), "backup.ndjson.gz")

	require.Contains(t, p.do(0, "backup", "--out", backup), "entries       123 with")
	require.Contains(t, p.do(2, "backup", "--out", backup), "exists")
	require.Contains(t, p.do(0, "backup", "--check", backup), "sha256")
	require.Contains(t, p.do(0, "status", "--dir", p.dir), "there was none")
	require.Contains(t, p.do(2, "report", "--dir", p.dir), "nothing to report")

	plan := p.do(0, "plan", "--dir", p.dir)
	require.Contains(t, plan, "would migrate 123, skip 0, fail 0")
	require.Contains(t, plan, "1 with 3 members; 0 rules fit all members of their index")
	require.Contains(t, plan, filepath.Join(p.dir, entries.RulesFile))
	require.Contains(t, p.do(0, "run", "--dry-run", "--dir", p.dir), "would migrate 123")
	status := p.do(0, "status")
	require.Contains(t, status, "0 entries")
	require.NotContains(t, status, "last", "there was neither a run nor a verification")
	require.Contains(t, p.do(1, "ready", "--require", "0"), "verification  there was none: kv migrate verify")

	rules := p.rules("index:sessions=session:{member}")
	output := p.do(0, "run", "--dir", p.dir, "--rules", rules)
	require.Contains(t, output, "123 migrated")
	require.Contains(t, output, "rules         1, of "+rules+"\n              index:sessions=session:{member}")
	require.Contains(t, output, "rules name 2 entries, and 1 that are not there")
	require.Contains(t, p.do(2, "run", "--dir", p.dir, "--skip-non-json"), "is another one")
	require.Contains(t, p.do(0, "run", "--dir", t.TempDir()), "rules         1, of the migration's last run", "from another machine")
	require.Contains(t, p.do(0, "verify", "--dir", p.dir), "identical     123")
	require.Contains(t, p.do(0, "status", "--dir", p.dir), "last verify")
	require.Contains(t, p.do(0, "report", "--dir", p.dir), "# Migration report")
	require.FileExists(t, filepath.Join(p.dir, migrate.ReportJSON))
	require.FileExists(t, filepath.Join(p.dir, migrate.ReportMarkdown))

	_, err := p.database.SQL.Exec(t.Context(), "update public.kv_store set value = '{}' where key = 'session:007'")
	require.NoError(t, err)
	var v migrate.Verification
	out, err := run(t, append(p.flags(), "verify", "--dir", p.dir, "--json")...)
	var incomplete *cli.Incomplete
	require.ErrorAs(t, err, &incomplete)
	require.NoError(t, json.Unmarshal([]byte(out), &v))
	require.Equal(t, 1, v.Different)
	var printed strings.Builder
	printVerification(&printed, v)
	require.Contains(t, printed.String(), `different "session:007": value`)
	require.Contains(t, p.do(0, "verify", "--dir", p.dir, "--repair", "--primary", "blobs"), "repaired      1")
	require.Empty(t, p.do(0, "verify", "--dir", p.dir, "--quiet"))

	require.Contains(t, p.do(0, "close"), "The migration is closed.")
	require.Contains(t, p.do(0, "close"), "No migration was open")
	require.Contains(t, p.do(0, "status"), "none is open")

	_, err = p.database.SQL.Exec(t.Context(), "delete from public.kv_store where key in ('session:001', 'session:002')")
	require.NoError(t, err)
	require.Contains(t, p.do(0, "restore", backup, "--to", "supabase", "--rules", rules), "restored      2")
	require.Contains(t, p.do(0, "verify", "--dir", p.dir, "--rules", rules), "identical     123", "a closed migration provides no options")
	require.Contains(t, p.do(2, "run", "--dir", p.dir), "run --anew")
	require.NoError(t, p.Client.Delete(t.Context(), "session:003"))
	p.Set("session:004", `{"newer":true}`)
	require.Contains(t, p.do(1, "restore", backup, "--to", "blobs"), `differs "session:004"`)
	_, err = p.Client.Get(t.Context(), "session:003")
	require.NoError(t, err)
	require.Contains(t, p.do(0, "backup", "--from", "supabase", "--out", backup+"2"), "entries       123")
}

func TestMigrationOfAnotherStore(t *testing.T) {
	p := newProgram(t)
	t.Chdir(t.TempDir()) // where the reports are, without --dir
	client := blobs.NewClient("sessions").WithDefault(p.Access)
	for _, key := range []string{"a", "index:b"} {
		_, err := client.Set(t.Context(), key, []byte("\xff"+key), blobs.SetOptions{Metadata: `{"of":"` + key + `"}`})
		require.NoError(t, err)
	}
	p.Set("a", `{}`)
	require.Contains(t, p.do(0, "run"), "1 migrated")

	sessions := func(command string, more ...string) []string {
		return append([]string{command, "--store", "sessions"}, more...)
	}
	require.NotContains(t, p.do(0, sessions("plan")...), "rules")
	require.Contains(t, p.do(0, sessions("status")...), "there was none")
	require.Contains(t, p.do(1, sessions("ready")...), "the store sessions is not ready")
	output := p.do(0, sessions("run")...)
	require.Contains(t, output, "2 migrated")
	require.NotContains(t, output, "rules")
	require.Contains(t, p.do(0, sessions("verify")...), "identical     2")
	require.Contains(t, p.do(0, sessions("ready")...), "the store sessions is ready")
	require.Contains(t, p.do(0, sessions("status")...), "store sessions")
	report := p.do(0, sessions("report")...)
	require.Contains(t, report, "store sessions")
	require.NotContains(t, report, "Indexes")
	require.NoFileExists(t, filepath.Join("kv-migration-sessions", entries.RulesFile))
	require.NotContains(t, p.do(0, "report"), "store sessions", "the reports of the store kv are its own")
	entry, err := p.database.Supabase.GetEntry(t.Context(), "sessions", "index:b", kv.Freshness{})
	require.NoError(t, err)
	require.Equal(t, []string{"\xffindex:b", `{"of":"index:b"}`}, []string{string(entry.Data), entry.Metadata})

	require.Contains(t, p.do(0, sessions("backup", "--from", "supabase", "--out", "s.gz")...), "entries       2")
	require.Contains(t, p.do(2, "restore", "s.gz", "--to", "blobs"), "the backup is of the store sessions")
	require.NoError(t, client.Delete(t.Context(), "a"))
	require.Contains(t, p.do(0, sessions("restore", "s.gz", "--to", "blobs")...), "restored      1")
	blob, err := client.Get(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, []string{"\xffa", `{"of":"a"}`}, []string{string(blob.Value), blob.Metadata})
	require.Contains(t, p.do(0, sessions("close")...), "is closed")
	require.Contains(t, p.do(0, "status"), "open since", "that of the store kv")
}

func TestBadInputIsRefusedBeforeAnythingIsDone(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	for want, args := range map[string][]string{
		"--to must be blobs or supabase":        {"restore", "nothing"},
		"say so with --primary blobs":           {"verify", "--repair"},
		"--from must be blobs or supabase":      {"backup", "--from", "disk"},
		"an index rule is like":                 {"run", "--rules", p.rules("index:a")},
		"the index prefix must not be empty":    {"plan", "--index-prefix", ""},
		"the batch size must be 1 to":           {"run", "--batch-size", "0"},
		"--parallel must be 1 to 64":            {"run", "--parallel", "0"},
		"the source has no blobs at all":        {"run", "--dir", p.dir},
		"unknown flag":                          {"run", "--fast"},
		"unknown command":                       {"nonsense"},
		"SUPABASE_URL must be an address like ": {"run", "--supabase-url", "supabase"},
		"cannot be used":                        {"backup", "--check", filepath.Join("..", "..", "..", "go.mod")},
		"the store must have a name":            {"plan", "--store", ""},
		"must not contain slashes":              {"plan", "--store", "a/b"},
		"go with their deploys":                 {"run", "--store", "deploy:1:a"},
		"--rules is for the store kv alone":     {"run", "--store", "a", "--rules", p.rules("index:a=a/{member}")},
		"--primary is for the store kv alone":   {"repair", "--store", "a", "--primary", "blobs"},
		"repair is for the store kv alone":      {"repair", "--store", "a"},
		"--from-table is for the store kv":      {"plan", "--store", "a", "--from-table", "before.kv_store"},
	} {
		require.Contains(t, p.do(2, args...), want)
	}
	status, err := p.database.Supabase.MigrationStatus(t.Context())
	require.NoError(t, err)
	require.Zero(t, status.Entries)
}

func TestAWrongAddressIsReportedAtOnce(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	for command, address := range map[string]string{"plan": "http://127.0.0.1:1", "close": p.database.URL + "/functions"} {
		require.Contains(t, p.do(2, command, "--supabase-url", address), address+" does not answer as a Supabase project")
	}
	require.Contains(t, p.do(2, "backup", "--api-url", "http://a:b@127.0.0.1:1"), "Error: http://a:xxxxx@127.0.0.1:1 does not answer: ", "not after the five minutes that a restart may take")
}

func TestARepairIsRefusedWhileSupabaseAnswers(t *testing.T) {
	t.Setenv("USE_SUPABASE_KV", "true")
	_, err := run(t, "verify", "--repair", "--primary", "blobs")
	require.ErrorContains(t, err, "would undo them")
}

func TestExitStatusesAndAdvice(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err         error
		interrupted bool
		status      int
		text        string
	}{
		{nil, false, 0, ""},
		{&cli.Incomplete{Err: errors.New("some are left"), Try: "again"}, false, 1, "Error: some are left\nTry:   again\n"},
		{errors.New("x"), true, 2, "Interrupted. Run the same command again.\n"},
		{&kv.MigrationHeld{}, false, 2, "kv migrate status"},
		{&kv.MigrationClosed{}, false, 2, "run --anew"},
		{&kv.Error{Code: kv.CodeDatabaseUnreachable}, false, 2, "when the database answers"},
		{&unreachableError{"https://x.example", &kv.Error{Code: kv.CodeDatabaseUnreachable}}, false, 2, "check that SUPABASE_URL"},
		{errors.New("x"), false, 2, "--help"},
	} {
		var stderr bytes.Buffer
		require.Equal(t, c.status, cli.ExitStatus("migrate-kv-store", advise(c.err), c.interrupted, &stderr))
		require.Contains(t, stderr.String(), c.text)
	}
}

func TestMigrationFromATable(t *testing.T) {
	p := newProgram(t)
	t.Setenv("DATABASE_URL", "") // it has no flag
	from := []string{"--dir", p.dir, "--from-table", "before.kv_store"}
	with := func(command string, more ...string) []string {
		return append(append([]string{command}, from...), more...)
	}
	require.Contains(t, p.do(2, with("run")...), "DATABASE_URL is not set")
	t.Setenv("DATABASE_URL", p.database.OwnerURL)
	require.Contains(t, p.do(2, with("plan")...), "there is no table before.kv_store")
	_, err := p.database.SQL.Exec(t.Context(), `
		create schema before;
		create table before.kv_store (key text primary key, value jsonb, indexes text[]);
		insert into before.kv_store select 'k' || i, '{}', array['i:' || i] from generate_series(1, 30) as i`)
	require.NoError(t, err)
	require.Contains(t, p.do(0, with("plan")...), "would migrate 31, skip 0, fail 0")
	require.Contains(t, p.do(0, with("run")...), "31 migrated")
	require.Contains(t, p.do(0, with("verify")...), "identical     31")
	require.Contains(t, p.do(2, with("verify", "--repair", "--primary", "blobs")...), "--repair is for Blobs")
	require.Contains(t, p.do(2, "verify", "--dir", p.dir), "is another one", "the open migration is from the table")
	require.Contains(t, p.do(0, "close"), "The migration is closed.")
}
