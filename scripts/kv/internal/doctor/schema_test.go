package doctor

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	supabase "netlify-supabase-kv/supabase"
)

// TestMigrationsAreReadAsPostgresReadsThem: kv doctor expects exactly what the migrations create in an empty database.
func TestMigrationsAreReadAsPostgresReadsThem(t *testing.T) {
	t.Parallel()
	address := os.Getenv("DATABASE_URL")
	require.NotEmpty(t, address, "DATABASE_URL is not set: `make test` runs these tests on a platform of its own; after `make up`, `. .local/env` has the address of the local one")
	needed, err := readSchema(supabase.Migrations, "migrations")
	require.NoError(t, err)
	h, err := directly(t.Context(), address)
	require.NoError(t, err)

	require.Equal(t, difference{}, needed.compare(h), "readSchema cannot parse a migration, or the platform's database is older than the files")
	for name := range h.objects() {
		if _, known := needed.objects[name]; !known && !strings.HasPrefix(name, "index ") { // constraints create indexes, and so does kv_index_path
			require.Fail(t, "readSchema does not find in the migrations: "+name)
		}
	}
	require.Equal(t, needed.revision, h.Revision, "the newest migration must redefine kv.schema_version() with its own version")
	require.True(t, h.Bypass)
	require.Empty(t, openGrants(h))
	require.Empty(t, lackingGrants(h))
	require.Greater(t, len(needed.granted), 50, "grants to service_role")
	for line := range needed.granted {
		require.Contains(t, h.Access, line)
	}
}

func TestStatementsOfMigrations(t *testing.T) {
	t.Parallel()
	s := &schema{objects: map[string]object{}, older: map[string][]string{}, granted: map[string]bool{}, defaults: map[string]string{}}
	s.read("1.sql", `
alter default privileges in schema kv grant execute on functions to service_role;
alter default privileges in schema kv grant all on tables to service_role;
-- create function public.kv_no() returns text
create function public.kv_a(p_a text,
    p_b integer default 1) returns text
    language sql as $$
create table public.kv_not_one (
)
$$;
create table public.kv_t (
    key text,
    n   integer not null,
    constraint kv_t_key check (n > 0)
);
create unique index kv_t_n on public.kv_t (n);
create trigger kv_t_changed after insert or update of key
    on public.kv_t for each row execute function public.kv_a();
grant all on table public.kv_t to service_role;
grant execute on function public.kv_a(text, public.kv_type), public.kv_b() to service_role;
`)
	s.read("2.sql", `
create or replace function public.kv_a(p_a text) returns text language sql as $_$ select '$$' $_$;
alter table public.kv_t add column m integer;
create table kv.t (
    key text
);
create function kv.f() returns text language sql as $$ $$;
create function kv.gone() returns void language sql as $$ $$;
drop function kv.gone();
drop trigger kv_t_changed on public.kv_t;
drop index public.kv_t_n;
`)
	var names []string
	for name := range s.objects {
		names = append(names, name)
	}
	slices.Sort(names)
	require.Equal(t, []string{"column kv.t.key", "column public.kv_t.key", "column public.kv_t.m", "column public.kv_t.n", "function kv.f", "function public.kv_a", "table kv.t", "table public.kv_t"}, names)
	require.Equal(t, object{"2.sql", digest(" select '$$' ")}, s.objects["function public.kv_a"])
	require.Equal(t, []string{"1.sql"}, s.older["function public.kv_a "+digest("\ncreate table public.kv_not_one (\n)\n")])
	require.Equal(t, map[string]bool{
		"service_role select public.kv_t": true, "service_role insert public.kv_t": true, "service_role update public.kv_t": true, "service_role delete public.kv_t": true,
		"service_role execute public.kv_a": true, "service_role execute public.kv_b": true,
		"service_role select kv.t": true, "service_role insert kv.t": true, "service_role update kv.t": true, "service_role delete kv.t": true,
		"service_role execute kv.f": true,
	}, s.granted)
}

// TestFunctionsAreThoseOfTheProject compares the list of functions with the folder and with netlify.toml.
func TestFunctionsAreThoseOfTheProject(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir("../../../../functions")
	require.NoError(t, err)
	var there, known []string
	for _, entry := range entries {
		there = append(there, entry.Name())
	}
	for _, f := range functions {
		known = append(known, f.name)
	}
	require.ElementsMatch(t, there, known)

	text, err := os.ReadFile("../../../../netlify.toml")
	require.NoError(t, err)
	var rules, expected []string
	for _, m := range regexp.MustCompile(`from = "(/api/kv/[^"]*)"\s+to = "([^"]*)"`).FindAllStringSubmatch(string(text), -1) {
		rules = append(rules, m[1]+" "+m[2])
	}
	for _, f := range functions {
		if f.path != "" {
			expected = append(expected, f.short()+" "+f.direct())
		}
		if f.wild {
			expected = append(expected, f.short()+"/* "+f.direct()+"/:splat")
		}
	}
	require.ElementsMatch(t, expected, rules)
}

func TestChecksAreDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../../../docs/DOCTOR.md")
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, check := range Checks {
		require.Regexp(t, `^[a-z]+(-[a-z]+)*$`, check.ID)
		require.False(t, seen[check.ID], "two checks are named %s", check.ID)
		seen[check.ID] = true
		require.Contains(t, string(page), "| `"+check.ID+"` |", "docs/DOCTOR.md has a line for each check")
	}
}
