package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// outsider is somebody who sends requests to PostgREST with the project's public key, another token, or neither.
type outsider struct{ key, token string }

// knock sends a request to PostgREST as an outsider.
func knock(t *testing.T, by outsider, method, path, text string) *response {
	t.Helper()
	skipIfStopped(t)
	req, err := http.NewRequestWithContext(t.Context(), method, site.supabaseURL+"/rest/v1"+path, bytes.NewReader([]byte(text)))
	require.NoError(t, err)
	if by.key != "" {
		req.Header.Set("apikey", by.key)
	}
	if by.token != "" {
		req.Header.Set("Authorization", "Bearer "+by.token)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Prefer", "return=representation")
	res, err := client.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return &response{request: method + " " + path, status: res.StatusCode, header: res.Header, body: body}
}

// TestOutsidersGetNothing: PostgREST gives no access to entries with the project's public key, a signed-in user's
// token, an unsigned token, or no token.
func TestOutsidersGetNothing(t *testing.T) {
	db := database(t)
	secret := os.Getenv("SUPABASE_JWT_SECRET")
	if site.supabaseURL == "" || site.anonKey == "" || site.serviceKey == "" || secret == "" {
		t.Skip("SUPABASE_URL, SUPABASE_ANON_KEY, SUPABASE_SERVICE_ROLE_KEY and SUPABASE_JWT_SECRET are not all set: this test sends requests to PostgREST")
	}
	t.Parallel()
	prefix := newPrefix()
	key := prefix + "k"
	upsert(t, key, `{"secret":"top"}`, index{prefix + "i", "member-of-i"})

	// All tables and functions in the database, including overloads and those that PostgREST's description leaves out.
	type function struct {
		Name    string
		Names   []string
		Types   []string
		Trigger bool
	}
	rows, err := db.Query(t.Context(), `select f.proname::text, coalesce(f.proargnames[1:f.pronargs], '{}'), array(select format_type(a, null) from unnest(f.proargtypes) with ordinality as u(a, n) order by n),
			f.prorettype = 'trigger'::regtype
		from pg_proc f where f.pronamespace = 'public'::regnamespace and ($1 or f.proname like 'kv\_%')
			and not exists (select from pg_depend d where d.objid = f.oid and d.deptype = 'e')`, site.hostURL != "")
	require.NoError(t, err)
	functions, err := pgx.CollectRows(rows, pgx.RowToStructByPos[function])
	require.NoError(t, err)
	require.Greater(t, len(functions), 20)
	type table struct{ Name, Column string }
	rows, err = db.Query(t.Context(), `select c.relname::text, (select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
				and a.attgenerated = '' and a.attidentity = '' order by a.attnum limit 1)
		from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f') and ($1 or c.relname like 'kv\_%')`, site.hostURL != "")
	require.NoError(t, err)
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[table])
	require.NoError(t, err)
	require.NotEmpty(t, tables)
	rows, err = db.Query(t.Context(), `select '/' || relname from pg_class where relnamespace = 'kv'::regnamespace and relkind in ('r', 'S')
		union all select '/rpc/' || proname from pg_proc where pronamespace = 'kv'::regnamespace`)
	require.NoError(t, err)
	internal, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Greater(t, len(internal), 50)

	in := func(seconds int64) jwt.MapClaims {
		return jwt.MapClaims{"role": "service_role", "exp": time.Now().Unix() + seconds}
	}
	sign := func(method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
		token, err := jwt.NewWithClaims(method, claims).SignedString(key)
		require.NoError(t, err)
		return token
	}
	user := jwt.MapClaims{"role": "authenticated", "aud": "authenticated", "sub": "00000000-0000-0000-0000-000000000001", "exp": time.Now().Unix() + 3600}
	anybody := []int{http.StatusUnauthorized}
	for name, c := range map[string]struct {
		by       outsider
		statuses []int
		code     string // SQLSTATE if the request reaches Postgres: insufficient privilege
	}{
		"Anon":            {outsider{site.anonKey, site.anonKey}, anybody, "42501"},
		"AnonKeyAlone":    {outsider{site.anonKey, ""}, anybody, "42501"},
		"SignedIn":        {outsider{site.anonKey, sign(jwt.SigningMethodHS256, []byte(secret), user)}, []int{http.StatusForbidden}, "42501"},
		"NoKey":           {outsider{}, anybody, ""},
		"NoKeyButAToken":  {outsider{"", site.serviceKey}, anybody, ""},
		"KeyOfAnother":    {outsider{"eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.x", ""}, anybody, ""},
		"SignedByAnother": {outsider{site.anonKey, sign(jwt.SigningMethodHS256, []byte("x"+secret), in(3600))}, anybody, ""},
		"NotSigned":       {outsider{site.anonKey, sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, in(3600))}, anybody, ""},
		"Expired":         {outsider{site.anonKey, sign(jwt.SigningMethodHS256, []byte(secret), in(-3600))}, anybody, ""},
	} {
		t.Run(name, func(t *testing.T) {
			refused := func(a *response) {
				t.Helper()
				require.NotContains(t, string(a.body), "top", "%v", a)
				require.NotContains(t, string(a.body), "member-of-i", "%v", a)
				require.Contains(t, c.statuses, a.status, "%v", a)
				if c.code != "" {
					var e struct{ Code string }
					require.NoError(t, json.Unmarshal(a.body, &e), "%v", a)
					require.Equal(t, c.code, e.Code, "%v", a)
				}
			}
			for _, f := range functions {
				arguments := map[string]any{}
				for i, name := range f.Names {
					arguments[name] = argument(key, f.Types[i])
				}
				text, err := json.Marshal(arguments)
				require.NoError(t, err)
				a := knock(t, c.by, http.MethodPost, "/rpc/"+f.Name, string(text))
				if f.Trigger && c.code != "" { // PostgREST does not expose trigger functions
					require.Equal(t, http.StatusNotFound, a.status, "%v", a)
					continue
				}
				refused(a)
			}
			for _, table := range tables {
				path, where := "/"+table.Name, "/"+table.Name+"?"+table.Column+"=not.is.null"
				refused(knock(t, c.by, http.MethodGet, path, ""))
				refused(knock(t, c.by, http.MethodGet, path+"?select=count", ""))
				refused(knock(t, c.by, http.MethodGet, where, ""))
				refused(knock(t, c.by, http.MethodPost, path, `{}`))
				refused(knock(t, c.by, http.MethodPost, path, `{"`+table.Column+`":null}`))
				refused(knock(t, c.by, http.MethodPatch, where, `{"`+table.Column+`":null}`))
				refused(knock(t, c.by, http.MethodDelete, where, ""))
			}
			where := "/kv_store?key=eq." + url.QueryEscape(key)
			refused(knock(t, c.by, http.MethodPut, where, `{"key":`+quote(key)+`,"value":{}}`))
			refused(knock(t, c.by, http.MethodGet, "/rpc/kv_get?p_key="+url.QueryEscape(key), ""))
			if c.code == "" {
				return
			}
			// The schema kv, the catalog and Postgres' own functions have no address.
			for _, path := range append(internal, "/pg_class", "/pg_roles", "/rpc/nextval", "/rpc/setval", "/rpc/pg_read_file", "/rpc/set_config", "/rpc/query_to_xml") {
				require.Equal(t, http.StatusNotFound, knock(t, c.by, http.MethodGet, path, "").status, path)
			}
		})
	}
	holds(t, key, `{"secret":"top"}`)
	require.Equal(t, prefixed(prefix, "i", "k"), keys(t, "prefix", prefix), "nothing was written or deleted")
}

// argument returns some value for a parameter of a type.
func argument(key, kind string) any {
	switch {
	case strings.HasSuffix(kind, "[]"):
		return []any{}
	case kind == "integer", kind == "bigint", kind == "smallint", kind == "numeric", kind == "double precision":
		return 1
	case kind == "boolean":
		return false
	case kind == "json", kind == "jsonb":
		return map[string]any{}
	case kind == "uuid":
		return "00000000-0000-0000-0000-000000000000"
	case strings.HasPrefix(kind, "timestamp"):
		return "2026-01-01T00:00:00Z"
	case kind == "xid8":
		return "1"
	}
	return key
}

// TestGrants checks the same in the database, for both roles that the public can have.
func TestGrants(t *testing.T) {
	db := database(t)
	t.Parallel()
	const ours = `(n.nspname = 'kv' or n.nspname = 'public' and %s like 'kv\_%%')`
	relations := `from pg_class c join pg_namespace n on n.oid = c.relnamespace and ` + fmt.Sprintf(ours, "c.relname")
	functions := `from pg_proc f join pg_namespace n on n.oid = f.pronamespace and ` + fmt.Sprintf(ours, "f.proname")
	const roles = ` cross join unnest(array['anon', 'authenticated']) r `
	for _, row := range []struct{ name, query string }{
		{"TablesWithoutRowSecurity", `select c.relname::text ` + relations + ` where c.relkind in ('r', 'p') and not c.relrowsecurity`},
		{"Policies", `select polname || ' on ' || c.relname ` + relations + ` join pg_policy on polrelid = c.oid`},
		{"SchemaPrivileges", `select r from unnest(array['anon', 'authenticated']) r where has_schema_privilege(r, 'kv', 'usage')`},
		{"TablePrivileges", `select r || ' may ' || p || ' ' || c.relname ` + relations + roles + `
			cross join unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) p
			where c.relkind in ('r', 'p', 'v', 'm') and has_table_privilege(r, c.oid, p)`},
		{"SequencePrivileges", `select r || ' may ' || p || ' ' || c.relname ` + relations + roles + `
			cross join unnest(array['usage', 'select', 'update']) p where c.relkind = 'S' and has_sequence_privilege(r, c.oid, p)`},
		{"FunctionPrivileges", `select r || ' may execute ' || f.oid::regprocedure ` + functions + roles + `
			where n.nspname = 'public' and has_function_privilege(r, f.oid, 'execute')`},
		{"FunctionsThatRunAsTheirOwner", `select f.oid::regprocedure::text ` + functions + ` where f.prosecdef`},
	} {
		t.Run(row.name, func(t *testing.T) {
			rows, err := db.Query(t.Context(), row.query)
			require.NoError(t, err)
			found, err := pgx.CollectRows(rows, pgx.RowTo[string])
			require.NoError(t, err)
			require.Empty(t, found, "the public must have no privileges")
		})
	}
}

// injections are texts with a meaning in one of the layers below: SQL and its quoting, Postgres' arrays and documents,
// PostgREST's addresses and filters, and patterns.
var injections = []string{
	`'; drop table kv.member; --`, `' or '1'='1`, `\'; select pg_sleep(20); --`, `$$; select pg_sleep(20); $$`, `") or true --`, `%`, `_`, `*`, `\`, `"`, `'`, `''`,
	`{"a","b"}`, `{}`, `{`, `}`, `,`, `a),or(key.neq.x`, `eq.x`, `key=eq.x&select=*`, `not.is.null`, `../pg_class`, `/rpc/kv_delete?p_key=x`, `%27%20or%201=1--`, `%00`, `null`, `NULL`, `true`,
	`1 union (table pg_authid)`, `(select current_user)`, `${PATH}`, `$HOME`, `{{env}}`, `%s%n`, `:p_key`, `$1`, `E'\x27'`, `U&'\0027'`, `a'||pg_sleep(20)||'b`,
	`--`, `/*`, `*/`, `;`, "line\nbreak\r\nX-Evil: 1", "\u2028", `a & b | !c <-> d:*`, `'a':*`, `lax $.a`, `$.**`, `<script>alert(1)</script>`, `=cmd|' /C calc'!A0`,
}

// TestNoTextReachesSQL puts each injection into every part of every request. Each is taken literally or refused, no
// request runs pg_sleep, and no response contains what the request may not see or did not ask for.
func TestNoTextReachesSQL(t *testing.T) {
	needsSupabase(t)
	t.Parallel()
	prefix := newPrefix()
	canary := prefix + "canary"
	upsert(t, canary, `{"canary":"sings"}`, index{prefix + "index", "canary"})
	texts := injections
	if site.hostURL == "" || site.writesBlobs || os.Getenv("KV_CACHE_MAX_STALE") != "" {
		texts = texts[:4] // 60 requests for each text: too many for a site that others use
	}
	for _, text := range texts {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			ask := func(method, path string, options ...option) *response {
				t.Helper()
				start := time.Now()
				a := call(t, method, path, append(options, fresh)...)
				require.Less(t, time.Since(start), 15*time.Second, "%v", a)
				require.Contains(t, []int{http.StatusOK, http.StatusBadRequest, http.StatusNotFound}, a.status, "%v", a)
				require.Empty(t, a.header.Get("X-Evil"), "%v", a)
				require.NotContains(t, string(a.body), "sings", "%v", a)
				require.NotContains(t, string(a.body), "SCRAM-SHA", "%v", a)
				require.NotContains(t, string(a.body), "/bin", "%v", a)
				return a
			}

			// A key, a member and a value are taken literally.
			key, value := prefix+"keys/"+text, `{"text":`+quote(text)+`,`+quote(text)+`:[`+quote(text)+`]}`
			if keepable(key) {
				upsert(t, key, value, index{prefix + "index/" + text, text})
				holds(t, key, value)
				require.Equal(t, []string{key}, keys(t, "prefix", key, "index", prefix+"index/"+text+":"+text))
				require.Equal(t, []string{key}, keys(t, "prefix", prefix+"keys/", "indexKey", prefix+"index/"+text))
			}
			within := `"prefix":` + quote(prefix+"keys/")
			if keepable(key) {
				var found struct{ Count int }
				a := ask(http.MethodPost, queryPath, body(`{`+within+`,"where":[{"path":"text","op":"eq","value":`+quote(text)+`}]}`))
				require.NoError(t, json.Unmarshal(a.body, &found))
				require.Equal(t, 1, found.Count, "%v", a)
			}

			// Everywhere else the text finds nothing or is refused.
			require.NotContains(t, keys(t, "prefix", text), canary)
			for _, name := range []string{"prefix", "index", "indexKey", "sortBy", "sortOrder", "limit", "offset", "cursor", "includeValues"} {
				ask(http.MethodGet, listPath+params("prefix", prefix+"none/", name, text))
			}
			ask(http.MethodGet, getPath+params("key", text))
			ask(http.MethodGet, getPath+"/"+url.PathEscape(text))
			for _, name := range []string{"prefix", "index", "indexKey", "match", "q", "search", "where", "range", "select", "sort", "limit", "offset", "cursor", "aggregate", "groupBy", "format", "indexes", "indexKeys"} {
				if name != "prefix" {
					ask(http.MethodGet, queryPath+params("prefix", prefix+"none/", name, text))
				} else {
					ask(http.MethodGet, queryPath+params(name, prefix+"none/"+text))
				}
			}
			ask(http.MethodGet, queryPath+params("prefix", prefix+"none/", "range", text+":1..2"))
			ask(http.MethodGet, queryPath+params("prefix", prefix+"none/", "range", "a:"+text+".."))
			ask(http.MethodGet, queryPath+params("prefix", prefix+"none/", "aggregate", "sum:"+text))
			ask(http.MethodGet, queryPath+params("prefix", prefix+"none/", "groupBy", "index:"+text, "aggregate", "count"))
			for _, part := range []string{
				`"where":[{"path":"canary","op":"ne","value":` + quote(text) + `},{"path":` + quote(text) + `,"op":"exists"}]`, `"where":[{"path":"canary","op":` + quote(text) + `,"value":1}]`,
				`"where":[{"path":` + quote("/"+text) + `,"op":"in","value":[` + quote(text) + `]}]`, `"where":[{"path":"a","op":"contains","value":{` + quote(text) + `:` + quote(text) + `}}]`,
				`"search":` + quote(text), `"search":` + quote(`"`+text+`"*`), `"sort":[{"path":` + quote(text) + `,"order":"desc"}]`, `"sort":[{"path":"a","order":` + quote(text) + `}]`,
				`"select":[` + quote("value."+text) + `,"key"]`, `"select":[` + quote(text) + `]`, `"indexes":{"any":[{"key":` + quote(text) + `,"member":` + quote(text) + `}]}`,
				`"indexes":{"none":[{"key":` + quote(text) + `,"member":` + quote(text) + `}],"all":[` + quote(text+":"+text) + `]}`, `"indexKeys":{"all":[` + quote(text) + `]}`,
				`"aggregate":[{"op":"sum","path":` + quote(text) + `}],"groupBy":` + quote(text), `"aggregate":[{"op":` + quote(text) + `}]`, `"cursor":` + quote(text), `"format":` + quote(text), `"groupBy":` + quote(text),
			} {
				ask(http.MethodPost, queryPath, body(`{`+within+`,`+part+`}`))
			}
			for name, text := range map[string]string{"X-KV-After": text, "If-None-Match": text, "X-KV-Cache": text} {
				if !strings.ContainsAny(text, "\r\n\u2028") {
					ask(http.MethodGet, getPath+params("key", prefix+"none"), header(name, text))
				}
			}
			if keepable(key) {
				remove(t, key, true)
			}
			ask(http.MethodDelete, deletePath+params("key", prefix+"none/"+text))
		})
	}
	t.Cleanup(func() { holds(t, canary, `{"canary":"sings"}`) })
}
