package doctor

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	supabase "netlify-supabase-kv/supabase"
)

const (
	applyMigrations = "apply supabase/migrations: README.md, Deploying to Netlify and Supabase"
	// ownColumns identify our kv_store: its first migration creates them, and another table is unlikely to have them.
	ownColumns = "revision and index_pairs"
)

func checkTable(_ context.Context, in *Input) []Finding {
	d := in.database()
	foreign := fail("the database has a table kv_store that is not ours: it lacks the columns "+ownColumns,
		"move it out of the way (create schema before; alter table public.kv_store set schema before), apply the migrations, and migrate its rows: docs/MIGRATION.md")
	if h := d.best(); h != nil {
		for _, t := range h.Tables {
			if strings.HasSuffix(t.Name, ".kv_store") && !(slices.Contains(t.Columns, "revision") && slices.Contains(t.Columns, "index_pairs")) {
				return foreign
			} else if strings.HasSuffix(t.Name, ".kv_store") {
				return ok("%s is ours", t.Name)
			}
		}
		return ok("the table does not exist yet")
	}
	switch {
	case d.table == nil:
		return d.unknown()
	case d.table.status == 200:
		return ok("public.kv_store is ours")
	case d.table.code() == "42703":
		return foreign
	case d.table.code() == "42P01" || d.table.code() == "PGRST205":
		return ok("the table does not exist yet")
	}
	return skip("not checked: PostgREST did not report its columns (%s)", d.table.code())
}

func checkMigrations(_ context.Context, in *Input) (findings []Finding) {
	d := in.database()
	needed, err := readSchema(supabase.Migrations, "migrations")
	if err != nil {
		return fail(err.Error(), "build kv from a whole checkout")
	}
	h := d.best()
	switch {
	case h == nil && d.lacksHealth():
		return fail(fmt.Sprintf("the migrations are not applied, or not up to %s: the function kv_health is missing", path.Base(needed.files[len(needed.files)-1])), applyMigrations)
	case h == nil:
		return d.unknown()
	case h.Revision > needed.revision:
		return fail(fmt.Sprintf("the database is of a newer release: its newest migration is %s, and this release's is %s", h.Revision, needed.revision),
			"deploy the functions of that release, and run its kv doctor")
	}
	diff := needed.compare(h)
	switch {
	case diff.none:
		return fail("no migration is applied", applyMigrations)
	case len(diff.files) > 0:
		findings = append(findings, Finding{Fail, fmt.Sprintf("not applied, or only partly: %s (the database lacks %s)", list(diff.files), list(slices.Concat(diff.missing, diff.older))), applyMigrations})
	}
	if d.lacksHealth() && len(diff.files) == 0 {
		findings = append(findings, Finding{Fail, "PostgREST does not know the functions in the database", "run: notify pgrst, 'reload schema'"})
	}
	if len(diff.other) > 0 {
		findings = append(findings, Finding{Fail, "not as any migration defines it: " + list(diff.other), "restore the definition in supabase/migrations, or use the database that belongs to this release"})
	}
	if len(diff.extra) > 0 {
		findings = append(findings, Finding{Warn, "not part of this release: " + list(diff.extra), "keep it if it is yours; drop it if an older release left it"})
	}
	if len(findings) == 0 {
		return ok("%d files, up to %s", len(needed.files), needed.revision)
	}
	return findings
}

// list joins names, and abbreviates a long list.
func list(names []string) string {
	const few = 4
	if len(names) > few {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
	}
	return strings.Join(names, ", ")
}

func checkGrants(ctx context.Context, in *Input) (findings []Finding) {
	d := in.database()
	if d.reached != nil && d.reached.code() == "42501" {
		findings = append(findings, Finding{Fail, "the key's role may not call kv_health", "run the grants in supabase/migrations again, and: grant usage on schema public to service_role"})
	}
	h := d.best()
	switch {
	case h == nil && findings != nil:
		return findings
	case h == nil:
		return d.unknown()
	case level(checkTable(ctx, in)) == Fail:
		return skip("not checked: kv_store is not ours")
	}
	if d.health != nil && h.Role != serviceRole {
		findings = append(findings, Finding{Fail, fmt.Sprintf("the key has the role %s instead of %s", h.Role, serviceRole), rightKey})
	}
	if !h.Bypass {
		findings = append(findings, Finding{Fail, "service_role does not bypass row security, so it finds no entry", "run: alter role service_role bypassrls"})
	}
	return slices.Concat(findings, lackingGrants(h), openGrants(h))
}

// lackingGrants reports privileges that the functions need and service_role lacks.
func lackingGrants(h *health) []Finding {
	needed, err := readSchema(supabase.Migrations, "migrations")
	if err != nil {
		return fail(err.Error(), "build kv from a whole checkout")
	}
	has := h.objects()
	var lacking []string
	for line := range needed.granted {
		name := line[strings.LastIndex(line, " ")+1:]
		_, table := has["table "+name]
		if _, function := has["function "+name]; (table || function) && !slices.Contains(h.Access, line) { // checkMigrations reports missing objects
			lacking = append(lacking, strings.TrimPrefix(line, serviceRole+" "))
		}
	}
	if len(lacking) == 0 {
		return nil
	}
	slices.Sort(lacking)
	return fail("service_role may not "+list(lacking), "grant it with the statements in supabase/migrations")
}

// openGrants reports privileges of roles other than service_role.
func openGrants(h *health) (findings []Finding) {
	var open, unguarded, policies []string
	for _, line := range h.Access {
		if !strings.HasPrefix(line, serviceRole+" ") {
			open = append(open, line)
		}
	}
	for _, t := range h.Tables {
		if !t.Security {
			unguarded = append(unguarded, t.Name)
		}
		for _, policy := range t.Policies {
			policies = append(policies, fmt.Sprintf("%s on %s", policy, t.Name))
		}
	}
	if len(open) > 0 {
		findings = append(findings, Finding{Fail, "open to keys that browsers have: " + list(open), "revoke it from public, anon and authenticated with the statements in supabase/migrations"})
	}
	if len(unguarded) > 0 {
		findings = append(findings, Finding{Fail, "without row security: " + list(unguarded), "run for each: alter table <table> enable row level security"})
	}
	if len(policies) > 0 {
		findings = append(findings, Finding{Warn, "row security has a policy: " + list(policies), "drop it, unless the roles that it names should read or write without the functions"})
	}
	return findings
}

func checkRowCap(_ context.Context, in *Input) []Finding {
	d := in.database()
	switch {
	case d.health != nil:
		return ok("the API returns one row, and every response of the functions is one row")
	case d.reached != nil && d.reached.status == 200 && !d.reached.isPage() && len(strings.TrimSpace(string(d.reached.body))) <= len("null"):
		return fail("the project's API returns no rows", "set Max rows to 1000 (Supabase: Integrations, Data API)")
	}
	return d.unknown()
}

func checkPublications(_ context.Context, in *Input) []Finding {
	h := in.database().best()
	if h == nil {
		return in.database().unknown()
	}
	if len(h.Publications) == 0 {
		return ok("no publication makes updates or deletes fail")
	}
	var tables []string
	for _, p := range h.Publications {
		tables = append(tables, fmt.Sprintf("%s in %s", p[1], p[0]))
	}
	return fail("a publication makes updates and deletes fail on a table without replica identity: "+list(tables),
		"run for each table: alter table <table> replica identity full; or take the kv tables out of the publication")
}

// clockTolerance is the largest difference between clocks that still counts as equal: a response may take that long.
const clockTolerance = 5 * time.Second

func checkClock(_ context.Context, in *Input) []Finding {
	d := in.database()
	if d.health == nil {
		return d.unknown()
	}
	off := func(skew time.Duration) bool { return skew.Abs() > clockTolerance+d.apart }
	switch {
	case !off(d.skew):
		return ok("within %s of this machine's clock", max(d.skew.Abs(), d.apart, time.Millisecond).Round(time.Millisecond))
	case off(d.date):
		return warn(fmt.Sprintf("this machine's clock differs from the database's by %s, and from the gateway's as well", d.skew.Round(time.Second)),
			"set this machine's clock: servers may refuse what it signs, and its dates are wrong")
	}
	return fail(fmt.Sprintf("the database's clock is %s ahead of the gateway's and of this machine's", d.skew.Round(time.Second)),
		"restart the project's database (Supabase: Settings, General); if that does not help, contact Supabase's support")
}
