package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// knock sends a request to PostgREST with a key, or with none.
func knock(t *testing.T, key, method, path, text string) *answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, site.supabaseURL+"/rest/v1"+path, bytes.NewReader([]byte(text)))
	require.NoError(t, err)
	if key != "" {
		req.Header.Set("apikey", key)
		req.Header.Set("Authorization", "Bearer "+key)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Prefer", "return=representation")
	res, err := client.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return &answer{request: method + " " + path, status: res.StatusCode, header: res.Header, body: body}
}

// TestOutsidersGetNothing: with the public key of a project, or none, PostgREST gives no way to an entry.
func TestOutsidersGetNothing(t *testing.T) {
	if site.supabaseURL == "" || site.anonKey == "" || site.serviceKey == "" {
		t.Skip("SUPABASE_URL, SUPABASE_ANON_KEY and SUPABASE_SERVICE_ROLE_KEY are not all set: this test knocks at PostgREST")
	}
	t.Parallel()
	prefix := newPrefix(t)
	key := prefix + "k"
	upsert(t, key, `{"secret":"top"}`, index{prefix + "i", "member-of-i"})

	// What there is to knock at, as PostgREST tells it to the service role.
	described := knock(t, site.serviceKey, http.MethodGet, "/", "")
	require.Equal(t, http.StatusOK, described.status, "%v", described)
	var api struct {
		Paths map[string]map[string]struct {
			Parameters []struct {
				Name, In string
				Schema   struct {
					Properties map[string]struct{ Type, Format string }
				}
			}
		}
	}
	require.NoError(t, json.Unmarshal(described.body, &api))
	require.Contains(t, api.Paths, "/kv_store")
	require.Contains(t, api.Paths, "/rpc/kv_upsert")

	for name, outsider := range map[string]string{"Anon": site.anonKey, "NoKey": "", "BadKey": "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.x"} {
		t.Run(name, func(t *testing.T) {
			refused := func(a *answer) {
				t.Helper()
				require.NotContains(t, string(a.body), "top", "%v", a)
				require.NotContains(t, string(a.body), "member-of-i", "%v", a)
				require.Contains(t, []int{http.StatusUnauthorized, http.StatusForbidden}, a.status, "%v", a)
			}
			for path, methods := range api.Paths {
				if rpc, ok := strings.CutPrefix(path, "/rpc/"); ok && strings.HasPrefix(rpc, "kv_") {
					arguments := map[string]any{}
					for _, p := range methods["post"].Parameters {
						for name, property := range p.Schema.Properties {
							arguments[name] = argument(key, property.Type, property.Format)
						}
					}
					text, err := json.Marshal(arguments)
					require.NoError(t, err)
					refused(knock(t, outsider, http.MethodPost, path, string(text)))
					continue
				}
				if !strings.HasPrefix(path, "/kv_") {
					continue
				}
				refused(knock(t, outsider, http.MethodGet, path, ""))
				refused(knock(t, outsider, http.MethodGet, path+"?select=count", ""))
				refused(knock(t, outsider, http.MethodPost, path, `{}`))
			}
			where := "/kv_store?key=eq." + url.QueryEscape(key)
			refused(knock(t, outsider, http.MethodPost, "/kv_store", `{"key":`+quote(prefix+"new")+`,"value":{}}`))
			refused(knock(t, outsider, http.MethodPatch, where, `{"value":{}}`))
			refused(knock(t, outsider, http.MethodDelete, where, ""))
			refused(knock(t, outsider, http.MethodPut, where, `{"key":`+quote(key)+`,"value":{}}`))
			refused(knock(t, outsider, http.MethodPost, "/rpc/kv_upsert", `{"p_key":`+quote(key)+`,"p_value":"{}"}`))
			refused(knock(t, outsider, http.MethodPost, "/rpc/kv_get", `{"p_key":`+quote(key)+`}`))
			refused(knock(t, outsider, http.MethodGet, "/rpc/kv_get?p_key="+url.QueryEscape(key), ""))
			refused(knock(t, outsider, http.MethodPost, "/rpc/kv_delete", `{"p_key":`+quote(key)+`}`))
		})
	}
	holds(t, key, `{"secret":"top"}`)
	require.Equal(t, prefixed(prefix, "i", "k"), keys(t, "prefix", prefix), "nothing was written or deleted")
}

// argument makes up a value for a parameter that PostgREST describes.
func argument(key, kind, format string) any {
	switch {
	case kind == "integer", kind == "number":
		return 1
	case kind == "boolean":
		return false
	case kind == "array", strings.HasSuffix(format, "[]"):
		return []any{}
	case strings.HasPrefix(format, "json"):
		return map[string]any{}
	case format == "uuid":
		return "00000000-0000-0000-0000-000000000000"
	case strings.HasPrefix(format, "timestamp"):
		return "2026-01-01T00:00:00Z"
	case format == "xid8", format == "bigint":
		return "1"
	}
	return key
}

// TestGrants: the same as the database has it, for both roles that the public can have.
func TestGrants(t *testing.T) {
	db := database(t)
	t.Parallel()
	for _, row := range []struct{ name, query string }{
		{"TablesWithoutRowSecurity", `select c.relname::text from pg_class c
			where c.relnamespace = 'public'::regnamespace and c.relname like 'kv\_%' and c.relkind in ('r', 'p') and not c.relrowsecurity`},
		{"Policies", `select tablename || ': ' || policyname from pg_policies where schemaname = 'public' and tablename like 'kv\_%'`},
		{"TablePrivileges", `select r || ' may ' || p || ' ' || c.relname from pg_class c, unnest(array['anon', 'authenticated']) r,
				unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) p
			where c.relnamespace = 'public'::regnamespace and c.relname like 'kv\_%' and c.relkind in ('r', 'p', 'v', 'm') and has_table_privilege(r, c.oid, p)`},
		{"SequencePrivileges", `select r || ' may ' || p || ' ' || c.relname from pg_class c, unnest(array['anon', 'authenticated']) r, unnest(array['usage', 'select', 'update']) p
			where c.relnamespace = 'public'::regnamespace and c.relname like 'kv\_%' and c.relkind = 'S' and has_sequence_privilege(r, c.oid, p)`},
		{"FunctionPrivileges", `select r || ' may execute ' || f.oid::regprocedure from pg_proc f, unnest(array['anon', 'authenticated']) r
			where f.pronamespace = 'public'::regnamespace and f.proname like 'kv\_%' and has_function_privilege(r, f.oid, 'execute')`},
		{"FunctionsThatRunAsTheirOwner", `select f.oid::regprocedure::text from pg_proc f
			where f.pronamespace = 'public'::regnamespace and f.proname like 'kv\_%' and f.prosecdef`},
	} {
		t.Run(row.name, func(t *testing.T) {
			rows, err := db.Query(t.Context(), row.query)
			require.NoError(t, err)
			found, err := pgx.CollectRows(rows, pgx.RowTo[string])
			require.NoError(t, err)
			require.Empty(t, found, "there must be none")
		})
	}
}
