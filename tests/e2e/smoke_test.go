package e2e

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSmoke tests what must work in every way of running the site. That includes `netlify dev`, which starts a process
// for every request and passes the request as an argument. The requests avoid its quirks: %25 in a rewritten path, and
// a POST without a Content-Type.
func TestSmoke(t *testing.T) {
	for _, via := range []struct{ name, upsert, list, get, query, delete string }{
		{"Functions", upsertPath, listPath, getPath, queryPath, deletePath},
		{"Rewrites", "/api/kv/upsert", "/api/kv/list", "/api/kv/get", "/api/kv/query", "/api/kv/delete"},
	} {
		t.Run(via.name, func(t *testing.T) {
			t.Parallel()
			prefix := newPrefix()
			odd := `{"z":1.0,"a":[-0,1e400,12345678901234567890],"z":"\u0000\ud800 <&>","é😀":null, "nested" : {}}`
			write := func(key, value, rest string) {
				t.Helper()
				call(t, http.MethodPost, via.upsert, body(`{"key":`+quote(key)+`,"value":`+value+rest+`}`)).
					is(t, http.StatusOK, `{"ok":true,"key":`+quote(key)+`,"timestamp":"now"}`)
			}
			write(prefix+"a", odd, `,"sessionId":"s1"`)
			oddKey := prefix + "b c/%'\"*_\\😀"
			if !keepable(oddKey) {
				oddKey = strings.ReplaceAll(oddKey, "\\", "")
			}
			write(oddKey, `[]`, `,"indexes":[{"key":"`+prefix+`index","member":"m:1"}]`)
			odds := quote(oddKey)

			t.Run("List", func(t *testing.T) {
				call(t, http.MethodGet, via.list+params("prefix", prefix)).
					is(t, http.StatusOK, `{"keys":[`+quote(prefix+"a")+`,`+odds+`,`+quote(prefix+"index")+`],"count":3}`)
			})
			t.Run("ListWithValues", func(t *testing.T) {
				call(t, http.MethodGet, via.list+params("prefix", prefix, "includeValues", "true")).
					is(t, http.StatusOK, `{"keys":[`+quote(prefix+"a")+`,`+odds+`,`+quote(prefix+"index")+`],"count":3,"data":{`+
						quote(prefix+"a")+`:`+odd+`,`+odds+`:[],`+quote(prefix+"index")+`:["m:1"]}}`)
			})
			t.Run("ListByIndex", func(t *testing.T) {
				call(t, http.MethodGet, via.list+params("prefix", prefix, "index", prefix+"index:m:1")).
					is(t, http.StatusOK, `{"keys":[`+odds+`],"count":1}`)
			})
			t.Run("ListOddPrefix", func(t *testing.T) {
				call(t, http.MethodGet, via.list+params("prefix", oddKey)).
					is(t, http.StatusOK, `{"keys":[`+odds+`],"count":1}`)
				call(t, http.MethodGet, via.list+params("prefix", prefix+"_")).
					is(t, http.StatusOK, `{"keys":[],"count":0}`)
			})
			t.Run("ListPage", func(t *testing.T) {
				p := call(t, http.MethodGet, via.list+params("prefix", prefix, "limit", "1")).page(t)
				require.Equal(t, []string{prefix + "a"}, p.Keys)
				require.True(t, p.Pagination.HasMore)
				p = call(t, http.MethodGet, via.list+params("prefix", prefix, "limit", "2", "cursor", *p.Pagination.NextCursor)).page(t)
				require.Equal(t, []string{oddKey, prefix + "index"}, p.Keys)
				require.False(t, p.Pagination.HasMore)
			})
			t.Run("Query", func(t *testing.T) {
				needsSupabase(t)
				one := `{"results":[{"key":` + odds + `,"value":[]}],"count":1,"pagination":{"limit":100,"offset":0,"hasMore":false,"nextCursor":null},"timestamp":"now"}`
				call(t, http.MethodGet, via.query+params("prefix", prefix, "index", prefix+"index:m:1", "index", prefix+"index:none", "match", "any", "select", "key,value")).
					is(t, http.StatusOK, one)
				call(t, http.MethodPost, via.query, body(`{"indexes":{"all":[{"key":`+quote(prefix+"index")+`,"member":"m:1"}],"none":["a:b"]},"select":["key","value"]}`)).
					is(t, http.StatusOK, one)
				call(t, http.MethodGet, via.query+params("prefix", prefix, "aggregate", "count", "aggregate", "sum:a", "groupBy", "index:"+prefix+"index")).
					is(t, http.StatusOK, `{"aggregates":[{"op":"count","value":3},{"op":"sum","path":"a","value":0,"excluded":3}],`+
						`"groups":[{"group":"m:1","aggregates":[{"op":"count","value":1},{"op":"sum","path":"a","value":0,"excluded":1}]}],"timestamp":"now"}`)
				export := call(t, http.MethodGet, via.query+params("prefix", prefix, "indexKey", prefix+"index", "select", "value", "format", "csv"))
				require.Equal(t, "value\r\n[]\r\n", string(export.body))
				require.Equal(t, "false", export.header.Get("X-KV-Has-More"))
				call(t, http.MethodGet, via.query+params("range", "a")).isError(t, http.StatusBadRequest, "range")
			})
			found := `{"key":` + quote(prefix+"a") + `,"value":` + odd + `,"exists":true,"timestamp":"now"}`
			t.Run("GetByQuery", func(t *testing.T) {
				call(t, http.MethodGet, via.get+params("key", prefix+"a"), fresh).is(t, http.StatusOK, found)
			})
			t.Run("GetByPath", func(t *testing.T) {
				call(t, http.MethodGet, via.get+"/"+prefix+"a", fresh).is(t, http.StatusOK, found)
				call(t, http.MethodGet, via.get+"/"+url.PathEscape(prefix+"a"), fresh).is(t, http.StatusOK, found)
			})
			t.Run("GetIndexEntry", func(t *testing.T) {
				call(t, http.MethodGet, via.get+params("key", prefix+"index"), fresh).
					is(t, http.StatusOK, `{"key":`+quote(prefix+"index")+`,"value":["m:1"],"exists":true,"timestamp":"now"}`)
			})
			t.Run("ErrGetNotFound", func(t *testing.T) {
				call(t, http.MethodGet, via.get+params("key", prefix+"none")).isExactError(t, http.StatusNotFound, "Key not found")
			})
			t.Run("ErrGetWithoutKey", func(t *testing.T) {
				call(t, http.MethodGet, via.get).isExactError(t, http.StatusBadRequest, "Missing key parameter")
			})
			t.Run("ErrUpsertMalformed", func(t *testing.T) {
				call(t, http.MethodPost, via.upsert, body(`{"key":`)).isError(t, http.StatusBadRequest)
			})
			t.Run("ErrUpsertString", func(t *testing.T) {
				call(t, http.MethodPost, via.upsert, body(`{"key":"k","value":"text"}`)).
					isExactError(t, http.StatusBadRequest, "key and JSON value required")
			})
			t.Run("ErrListLimit", func(t *testing.T) {
				call(t, http.MethodGet, via.list+params("limit", "ten")).isError(t, http.StatusBadRequest, "limit")
			})
			t.Run("Preflight", func(t *testing.T) {
				for path, methods := range map[string]string{
					via.upsert: "POST, OPTIONS", via.list: "GET, OPTIONS", via.get: "GET, OPTIONS", via.delete: "DELETE, POST, OPTIONS",
				} {
					a := call(t, http.MethodOptions, path)
					require.Equal(t, http.StatusOK, a.status, "%v", a)
					require.Equal(t, methods, a.header.Get("Access-Control-Allow-Methods"), path)
				}
			})
			t.Run("Head", func(t *testing.T) {
				a := call(t, http.MethodHead, via.get+params("key", prefix+"a"), fresh)
				require.Equal(t, http.StatusOK, a.status, "%v", a)
				require.NotEmpty(t, a.header.Get("ETag"))
				require.Equal(t, http.StatusNotFound, call(t, http.MethodHead, via.get+params("key", prefix+"none")).status)
			})
			t.Run("ErrMethod", func(t *testing.T) {
				for path, method := range map[string]string{
					via.upsert: http.MethodGet, via.list: http.MethodPost, via.get: http.MethodPut, via.delete: http.MethodGet,
				} {
					call(t, method, path).isExactError(t, http.StatusMethodNotAllowed, "Method Not Allowed")
				}
			})
			t.Run("Delete", func(t *testing.T) {
				call(t, http.MethodDelete, via.delete+params("key", prefix+"a")).
					is(t, http.StatusOK, `{"ok":true,"key":`+quote(prefix+"a")+`,"deleted":true,"timestamp":"now"}`)
				call(t, http.MethodPost, via.delete, body(`{"key":`+quote(prefix+"a")+`}`)).
					is(t, http.StatusOK, `{"ok":true,"key":`+quote(prefix+"a")+`,"deleted":false,"timestamp":"now"}`)
				call(t, http.MethodPost, via.delete, body(`{"key":`+quote(prefix+"index")+`}`)).
					is(t, http.StatusOK, `{"ok":true,"key":`+quote(prefix+"index")+`,"deleted":true,"timestamp":"now"}`)
				call(t, http.MethodGet, via.list+params("prefix", prefix)).is(t, http.StatusOK, `{"keys":[`+odds+`],"count":1}`)
			})
		})
	}
}
