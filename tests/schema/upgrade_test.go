package schema

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// releases are the migrations that each release added. A released file is never edited: a change is a new file.
var releases = []struct {
	version string
	files   []string
	sum     string // SHA-256 of the files' texts, one after the other; set when the release is cut, and never changed
}{
	{"1.0.0", []string{
		"20261201000000_create_entries.sql",
		"20261201010000_create_documents.sql",
		"20261201020000_create_postings_and_members.sql",
		"20261201030000_create_change_log.sql",
		"20261201040000_create_reading.sql",
		"20261201050000_create_writing.sql",
		"20261201060000_create_path_indexes.sql",
		"20261201070000_create_query_plans.sql",
		"20261201080000_create_queries.sql",
		"20261201083000_create_lists.sql",
		"20261201085000_create_batches.sql",
		"20261201090000_create_mirror.sql",
		"20261201100000_create_migration.sql",
		"20261201110000_create_health.sql",
	}, ""},
}

func TestReleasedMigrationsStayAsTheyAre(t *testing.T) {
	t.Parallel()
	names, err := migrationNames()
	require.NoError(t, err)
	for i, release := range releases {
		require.GreaterOrEqual(t, len(names), len(release.files))
		require.Equal(t, release.files, names[:len(release.files)], "the files of %s, and none between them or before", release.version)
		names = names[len(release.files):]
		if release.sum == "" {
			require.Equal(t, len(releases)-1, i, "only the release that is being made may be without a sum")
			require.Empty(t, names, "files that the release that is being made does not list")
			continue
		}
		sum := sha256.New()
		for _, name := range release.files {
			text, err := os.ReadFile(filepath.Join(migrationsDir, name))
			require.NoError(t, err)
			sum.Write(text)
		}
		require.Equal(t, release.sum, hex.EncodeToString(sum.Sum(nil)), "a file of release %s was edited: put the change into a new one", release.version)
	}
}

// The content of a database of a release is the same after the migrations of all later releases.
func TestUpgradeKeepsEverything(t *testing.T) {
	t.Parallel()
	names, err := migrationNames()
	require.NoError(t, err)
	var applied []string
	for _, release := range releases {
		applied = append(applied, release.files...)
		t.Run("From"+release.version, func(t *testing.T) {
			t.Parallel()
			d, before := filledDatabase(t, applied)
			require.NoError(t, apply(t.Context(), d.name, names[len(applied):]))
			requireUpgraded(t, d, before)
		})
	}
}

// The test above finds what a migration loses: these migrations might come, good and bad ones.
func TestUpgradeTellsGoodMigrationsFromBad(t *testing.T) {
	t.Parallel()
	names, err := migrationNames()
	require.NoError(t, err)
	for name, migration := range map[string]string{
		"AColumn": `alter table public.kv_store add column note text not null default '';
			alter table public.kv_store disable trigger user;
			update public.kv_store set note = 'x' where key >= 'b';
			alter table public.kv_store enable trigger user;
			select public.kv_enable_logging()`,
		"ATableMadeAnew": `
			create table kv.posting_new (like kv.posting including all);
			insert into kv.posting_new select * from kv.posting;
			drop table kv.posting;
			alter table kv.posting_new rename to posting;`,
		"AFunction": `create or replace function kv.log_retention() returns interval language sql immutable as $$ select interval '2 hours' $$`,
	} {
		t.Run("Good/"+name, func(t *testing.T) {
			t.Parallel()
			d, before := filledDatabase(t, names)
			exec(t, d.owner(t), migration)
			requireUpgraded(t, d, before)
		})
	}
	for name, migration := range map[string]string{
		"revisions": `update public.kv_store set replaced = replaced where true`, // which is a write like any other
		"values":    `update public.kv_store set value = document::json where key = 'odd'`,
		"indexes":   `delete from kv.posting where member = 'blue'`,
		"numbers":   `delete from kv.member where starts_with(member, chr(1))`,
		"order":     `update kv.member set position = -position where true`,
		"times":     `update public.kv_store set created_at = now() where key = 'a'`,
		"outbox":    `delete from kv.outbox where primary_store = 'blobs'`,
		"migration": `delete from kv.migration where true`,
		"marks":     `delete from kv.import where deleted`,
		"requests":  `update kv.log set request = null where true`,
		"outcomes":  `update kv.log set missed = null where true`,
		"search":    `alter table public.kv_store disable trigger user; update public.kv_store set search = null where true`,
		"paths":     `select public.kv_unindex_path('score')`,
	} {
		t.Run("Bad/"+name, func(t *testing.T) {
			t.Parallel()
			d, before := filledDatabase(t, names)
			exec(t, d.owner(t), migration)
			require.NotEmpty(t, differences(before, d.contents(t)))
		})
	}
}

// filledDatabase makes a database with some migrations and with something of everything, written by the functions of
// the release.
func filledDatabase(t *testing.T, migrations []string) (d *database, contents map[string]string) {
	t.Helper()
	d = emptyDatabase(t)
	require.NoError(t, apply(t.Context(), d.name, migrations))
	conn := d.connect(t)
	exec(t, d.owner(t), "select public.kv_index_path('score')")

	upsert(t, conn, "a", `{"score":1,"title":"Tea mug, blue"}`, pairs{{"color", "blue"}, {"size", "\x015"}, {"size", "5"}, {"a:b", "c:d"}})
	upsert(t, conn, "b", `{"score":2.50,"title":"Tea pot"}`, pairs{{"color", "red"}, {"color", "blue"}})
	upsert(t, conn, "odd", `{"z":1.0,"a":"\u0000","z":1e400000,"b":[]}`, pairs{{"color", "red"}})
	upsert(t, conn, "plain", ` 1 `, nil)
	upsert(t, conn, "list", `["stored",{"an":"object"}]`, nil)
	upsert(t, conn, "c", `{"score":"none"}`, pairs{{"list", "added"}})
	upsert(t, conn, "gone", `{}`, pairs{{"color", "green"}})
	remove(t, conn, "gone")
	exec(t, conn, "update public.kv_store set key = 'renamed' where key = 'b'")

	exec(t, conn, "select public.kv_migration_open('a source', '{}', '{}', $1, 'a test', 60, null, false)", requestID(9))
	exec(t, conn, importOf("{imported,to delete,size,touched}", `{"{\"n\":1.0}",2,"[\"first\",\"5\"]",3}`, "{f,f,t,f}"), requestID(9))
	exec(t, conn, `select public.kv_verification_add('{"checked":1}'), public.kv_compared(gen_random_uuid(), 'blobs', 3, 1, 0,
		'[{"at":"2026-12-01T00:00:00Z","function":"kv_get","kind":"missing","key_hash":"x"}]')`)
	remove(t, conn, "to delete")
	upsert(t, conn, "touched", `4`, nil)
	exec(t, conn, "select public.kv_mirror_begin('{a,nothing}', $1)", requestID(1))
	exec(t, conn, "select public.kv_upsert('once', $1, null, $2, true)", `{"n":1}`, requestID(2))
	exec(t, conn, "select public.kv_upsert('a', $1, '{{color,blue},{owner,me}}', $2, true)", `{"score":3,"title":"Tea mug, green"}`, requestID(3))
	exec(t, conn, "select public.kv_delete('plain 2', $1, true)", requestID(4))
	contents = d.contents(t)
	contents["cursor"] = changes(t, conn, nil).Cursor
	return d, contents
}

// contents returns what callers, the mirror and the migration read.
func (d *database) contents(t *testing.T) map[string]string {
	t.Helper()
	conn := d.connect(t)
	c := map[string]string{
		// These requests were applied already, and change nothing.
		"upsert again": one[string](t, conn, "select (public.kv_upsert('once', $1, null, $2, true)::jsonb - 'version')::text", `{"n":2}`, requestID(2)),
		"delete again": one[string](t, conn, "select (public.kv_delete('a', $1, true)::jsonb - 'version')::text", requestID(4)),
	}
	for name, sql := range map[string]string{
		"states":    "select public.kv_mirror_states(array(select key from public.kv_store order by key))",
		"digests":   "select public.kv_digests('', 1000)",
		"outbox":    "select public.kv_mirror_outbox(0, 1000)",
		"imported":  "select public.kv_import_page('', 1000)",
		"migration": "select (public.kv_migration_status()::jsonb #- '{migration,at_work}')::text",
		"readiness": "select (public.kv_readiness(1000000)::jsonb - '{now,at_work}'::text[])::text",
		"paths":     "select indexdef from pg_indexes where starts_with(indexname, 'kv_path_')",
	} {
		c[name] = strings.Join(all[string](t, conn, sql), "\n")
	}
	c["list"] = kvList(t, conn, true, "")
	for _, filter := range []string{"color:blue", "color:red", "size:5", "a:b:c:d", "list:added"} {
		c["list by "+filter] = kvList(t, conn, false, byIndex([]string{filter}, nil))
	}
	for _, path := range []string{"createdAt", "updatedAt"} {
		c["list by "+path] = kvList(t, conn, false, `"sort":[{"path":"`+path+`"}]`)
	}
	for _, fields := range []string{`"search":` + term("mug"), byScore, `"where":[{"path":"/score","op":"gt","value":1}]`} {
		c["query "+fields] = one[string](t, conn, askQuery, aQuery(t, fields))
	}
	return c
}

// differences returns the names of what changed.
func differences(before, after map[string]string) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if before[name] != after[name] {
			names = append(names, name)
		}
	}
	return names
}

func requireUpgraded(t *testing.T, d *database, before map[string]string) {
	t.Helper()
	after := d.contents(t)
	for _, name := range differences(before, after) {
		require.Equal(t, before[name], after[name], name)
	}
	requireConsistent(t, d.owner(t))
	// Writes still work, and caches see them.
	conn := d.connect(t)
	upsert(t, conn, "after", `{}`, pairs{{"color", "blue"}})
	require.Contains(t, kvList(t, conn, false, byIndex([]string{"color:blue"}, nil)), `"after"`)
	feed := changes(t, conn, before["cursor"])
	require.True(t, feed.All || slices.Contains(feed.Keys, "after"), feed)
}
