package schema

import (
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

// PostgREST's sessions on Supabase load the extension safeupdate. It refuses an update or a delete without a condition
// with error 21000, also inside a function. It is written in C, and the local platform does not have it. Two checks
// stand in for it: the texts of all functions are searched for such statements, also in what they execute; and every
// statement that a test runs as PostgREST does is seen as safeupdate sees it, the tree that Postgres makes of it
// (https://github.com/eradman/pg-safeupdate: the hook post_parse_analyze).

func TestNoFunctionUpdatesOrDeletesWithoutACondition(t *testing.T) {
	t.Parallel()
	rows, err := newDatabase(t).owner(t).Query(t.Context(), `
		select p.oid::regprocedure::text, prosrc from pg_proc as p join pg_namespace as n on n.oid = pronamespace
		where nspname in ('public', 'kv') and prolang in (select oid from pg_language where lanname in ('sql', 'plpgsql'))`)
	require.NoError(t, err)
	functions := 0
	var name, text string
	_, err = pgx.ForEachRow(rows, []any{&name, &text}, func() error {
		functions++
		require.Empty(t, unconditional(text), "%s: Supabase refuses this; write `where true` where all rows are meant", name)
		return nil
	})
	require.NoError(t, err)
	require.Greater(t, functions, 50, "functions that were read")
}

var (
	// A comment, a quoted name, or a string (in quotation marks, where '' may stand, or in dollars), with what is in
	// it.
	lexeme   = regexp.MustCompile(`(?s)--[^\n]*|/\*.*?\*/|"[^"]*"|'((?:[^']|'')*)'|\$\w*\$(.*?)\$\w*\$`)
	group    = regexp.MustCompile(`\([^()]*\)`)
	changing = regexp.MustCompile(`\bdelete\s+from\b|\bupdate\s+\S+(?:\s+as\s+\w+)?\s+set\b`)
	where    = regexp.MustCompile(`\bwhere\b`)
)

// unconditional returns the update and delete statements without a condition in an SQL text, and in its strings, which
// may be executed. It takes more for a statement than Postgres, never less.
func unconditional(sql string) (found []string) {
	sql = lexeme.ReplaceAllStringFunc(strings.ToLower(sql), func(part string) string {
		inside := lexeme.FindStringSubmatch(part)
		found = append(found, unconditional(strings.ReplaceAll(inside[1], "''", "'")+inside[2])...)
		return " value "
	})
	look := func(part string) string {
		for statement := range strings.SplitSeq(part, ";") {
			if changing.MatchString(statement) && !where.MatchString(statement) {
				found = append(found, strings.Join(strings.Fields(statement), " "))
			}
		}
		return " value "
	}
	for group.MatchString(sql) { // from the inside out
		sql = group.ReplaceAllStringFunc(sql, look)
	}
	look(sql)
	return found
}

func TestStatementsWithoutAConditionAreFound(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]int{
		"delete from t":                                1,
		"DELETE FROM t;":                               1,
		"delete from t where true":                     0,
		"delete from t -- where true\n":                1,
		"delete from t /* where */":                    1,
		`delete from "where"`:                          1,
		"delete from t using (select 1 where true) x":  1,
		"delete from t; select 1 where true":           1,
		"update t set a = 1":                           1,
		"update t set a = (select 1 where true)":       1,
		"update t set a = 'where'":                     1,
		"update t as x set a = 1 from u where x.b = 2": 0,
		"with gone as (delete from t returning a) select a from gone where true": 1,
		"with some as (select a where true) update t set a = 1":                  1,
		"select a from t for update":                                             0,
		"select a from t for no key update":                                      0,
		"insert into t values (1) on conflict (a) do update set a = 2":           0,
		"create trigger x after insert or update on t":                           0,
		"execute 'delete from t'":                                                1,
		"execute format('update %I set a = 1', v_name)":                          1,
		"execute 'delete from t where a = ''x'''":                                0,
		"execute $x$ delete from t $x$":                                          1,
		"raise exception 'an update is under way'":                               0,
		"if a then delete from t; end if":                                        1,
	} {
		require.Len(t, unconditional(sql), want, sql)
	}
}

// watch fails the test for every statement of the connection that safeupdate would refuse.
func watch(t testing.TB) func(*pgx.ConnConfig) {
	var mu sync.Mutex
	var refused []string
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		for _, statement := range refused {
			t.Errorf("Supabase refuses this with error 21000: an update or delete without a condition: %s", statement)
		}
	})
	return seeTrees(func(notice *pgconn.Notice) {
		if refuses(notice.Detail) {
			mu.Lock()
			defer mu.Unlock()
			refused = append(refused, strings.Join(append(relation.FindStringSubmatch(notice.Detail), notice.Where), " "))
		}
	})
}

// seeTrees calls each with the tree of every statement of a connection, also inside functions.
func seeTrees(each func(*pgconn.Notice)) func(*pgx.ConnConfig) {
	return func(config *pgx.ConnConfig) {
		config.RuntimeParams["debug_print_parse"] = "on"
		config.RuntimeParams["debug_pretty_print"] = "off"
		config.RuntimeParams["client_min_messages"] = "log"
		next := config.OnNotice
		config.OnNotice = func(conn *pgconn.PgConn, notice *pgconn.Notice) {
			if strings.HasPrefix(notice.Detail, "{QUERY") {
				each(notice)
			} else if next != nil {
				next(conn, notice)
			}
		}
	}
}

// relation finds the first relation of a tree.
var relation = regexp.MustCompile(`:aliasname \S+`)

// refuses reports whether a tree has, at any depth, an update or a delete whose jointree has no quals. Nodes are
// written as {NAME :field value …}, null as <>. The numbers are those of CmdType in Postgres 15 and 17.
func refuses(tree string) bool {
	type node struct {
		name, field string
		changes     bool // it is a QUERY that updates or deletes
	}
	var stack []node
	for _, token := range treeTokens(tree) {
		top := len(stack) - 1
		switch {
		case token == "{":
			stack = append(stack, node{})
		case top < 0:
		case token == "}":
			stack = stack[:top]
		case stack[top].name == "":
			stack[top].name = token
		case strings.HasPrefix(token, ":"):
			stack[top].field = token
		case stack[top].name == "QUERY" && stack[top].field == ":commandType":
			stack[top].changes = token == "2" || token == "4"
		case token == "<>" && stack[top].field == ":quals" && top > 0 && stack[top-1].changes && stack[top-1].field == ":jointree":
			return true
		}
	}
	return false
}

// treeTokens splits at spaces, braces and parentheses. A backslash escapes one of them.
func treeTokens(tree string) (tokens []string) {
	start := -1
	end := func(i int) {
		if start >= 0 {
			tokens = append(tokens, tree[start:i])
		}
		start = -1
	}
	for i := 0; i < len(tree); i++ {
		switch tree[i] {
		case ' ', '\n', '(', ')':
			end(i)
		case '{', '}':
			end(i)
			tokens = append(tokens, tree[i:i+1])
		case '\\':
			if start < 0 {
				start = i
			}
			i++
		default:
			if start < 0 {
				start = i
			}
		}
	}
	end(len(tree))
	return tokens
}

func TestWhatSafeupdateRefusesIsSeen(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	exec(t, d.owner(t), `
		create function public.clear() returns void language plpgsql as $$ begin delete from public.kv_store; end $$;
		create function public.clear_sql() returns void language sql as $$ update public.kv_store set value = '{}' $$;
		create function public.clear_dynamic() returns void language plpgsql as $$ begin execute 'delete from public.kv_store'; end $$;
		create function public.clear_all() returns void language plpgsql as $$ begin delete from public.kv_store where true; end $$`)
	for sql, want := range map[string]bool{
		"delete from public.kv_store":                                    true,
		"delete from public.kv_store where true":                         false,
		"delete from public.kv_store where key = 'a { b } \\'":           false,
		"update public.kv_store set key = 'b'":                           true,
		"with x as (delete from public.kv_store returning 1) select 1":   true,
		"select public.clear()":                                          true,
		"select public.clear_sql()":                                      true,
		"select public.clear_dynamic()":                                  true,
		"select public.clear_all()":                                      false,
		"insert into public.kv_store (key, value) values ('a', '1')":     false,
		"select 1 as \"{QUERY :commandType 4 :jointree {x :quals <>}}\"": false,
	} {
		got := false
		conn := d.login(t, run.authenticator, seeTrees(func(notice *pgconn.Notice) { got = got || refuses(notice.Detail) }))
		exec(t, conn, "set role service_role")
		exec(t, conn, sql)
		require.Equal(t, want, got, sql)
	}
}
