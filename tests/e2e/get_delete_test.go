package e2e

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestGetForms: the ways to name a key in a URL.
func TestGetForms(t *testing.T) {
	t.Parallel()
	prefix := newPrefix()
	for _, row := range []struct {
		name, key string // the stored key
		path      string // the path that requests it; PREFIX stands for the prefix, ESCAPED for the prefix with escaped slashes
		localOnly bool   // a proxy may normalize such a path
	}{
		{"Query", "plain", getPath + "?key=PREFIXplain", false},
		{"QueryEscaped", "a/b c", getPath + "?key=ESCAPEDa%2Fb%20c", false},
		{"QueryPlusIsASpace", "plus space", getPath + "?key=PREFIXplus+space", false},
		{"QueryEscapedPlus", "plus+sign", getPath + "?key=PREFIXplus%2Bsign", false},
		{"QueryEscapedPercent", "100%25", getPath + "?key=PREFIX100%2525", false},
		{"QueryRepeatedLastWins", "last", getPath + "?key=PREFIXfirst&key=PREFIXlast", false},
		{"QueryBesideUnknownParameters", "unknown", getPath + "?Key=x&k=1&key=PREFIXunknown&sessionId=7&includeValues=1", false},
		{"QueryWinsOverPath", "query", getPath + "/PREFIXpath?key=PREFIXquery", false},
		{"EmptyQueryLeavesThePath", "path", getPath + "/PREFIXpath?key=", false},
		{"Path", "plain", getPath + "/PREFIXplain", false},
		{"PathWithEscapedSlashes", "a/b", getPath + "/ESCAPEDa%2Fb", false},
		{"PathWithSlashes", "a/b", getPath + "/PREFIXa/b", false},
		{"PathWithLowerCaseEscapes", "a/b", getPath + "/ESCAPEDa%2fb", false},
		{"PathSpace", "a b", getPath + "/PREFIXa%20b", false},
		{"PathPlusIsAPlus", "a+b", getPath + "/PREFIXa+b", false},
		{"PathEscapedPlus", "a+b", getPath + "/PREFIXa%2Bb", false},
		{"PathDecodedOnce", "100%25", getPath + "/PREFIX100%2525", false},
		{"PathDecodedOnceSlash", "a%2Fb", getPath + "/PREFIXa%252Fb", false},
		{"PathQuestionMark", "what?", getPath + "/PREFIXwhat%3F", false},
		{"PathHash", "a#b", getPath + "/PREFIXa%23b", false},
		{"PathEmoji", "😀", getPath + "/PREFIX%F0%9F%98%80", false},
		{"PathColonAndFriends", "a:b;c,d=e&f@g$h!i'j(k)*l~m", getPath + "/PREFIXa:b;c,d=e&f@g$h!i'j(k)*l~m", false},
		{"PathQuotes", `"a\b"`, getPath + "/PREFIX%22a%5Cb%22", false},
		{"PathOfFunctionName", "kv-get/x", getPath + "/PREFIXkv-get/x", false},
		{"PathOfRewrite", "api/kv/get/x", getPath + "/PREFIXapi/kv/get/x", false},
		{"PathUnknownParameters", "plain", getPath + "/PREFIXplain?sessionId=1", false},
		{"PathDotSegments", "a/../b", getPath + "/ESCAPEDa%2F..%2Fb", true},
		{"PathEndsInSlash", "dir/", getPath + "/ESCAPEDdir%2F", true},
		{"PathDoubleSlash", "a//b", getPath + "/ESCAPEDa%2F%2Fb", true},
		{"PathNewline", "a\nb", getPath + "/PREFIXa%0Ab", true},
		{"RewrittenQuery", "plain", "/api/kv/get?key=PREFIXplain", false},
		{"RewrittenPath", "plain", "/api/kv/get/PREFIXplain", false},
		{"RewrittenPathWithEscapedSlashes", "a/b", "/api/kv/get/ESCAPEDa%2Fb", false},
		{"RewrittenPathWithSlashes", "a/b", "/api/kv/get/PREFIXa/b", false},
		{"RewrittenPathPlusIsAPlus", "a+b", "/api/kv/get/PREFIXa+b", false},
		{"RewrittenPathEmoji", "😀", "/api/kv/get/PREFIX%F0%9F%98%80", false},
		{"RewrittenPathOfRewrite", "api/kv/get/x", "/api/kv/get/PREFIXapi/kv/get/x", false},
		{"RewrittenPathDecodedOnce", "100%25", "/api/kv/get/PREFIX100%2525", true},
		{"RewrittenPathQuestionMark", "what?", "/api/kv/get/PREFIXwhat%3F", true},
		{"RewrittenQueryWinsOverPath", "query", "/api/kv/get/PREFIXpath?key=PREFIXquery", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if row.localOnly {
				needsHost(t)
			}
			key := prefix + row.key
			upsert(t, key, `{"of":`+quote(key)+`}`)
			path := strings.NewReplacer("PREFIX", prefix, "ESCAPED", url.PathEscape(prefix)).Replace(row.path)
			call(t, http.MethodGet, path, fresh).
				is(t, http.StatusOK, `{"key":`+quote(key)+`,"value":{"of":`+quote(key)+`},"exists":true,"timestamp":"now"}`)
		})
	}
}

func TestGetRefuses(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, path, text string }{
		{"ErrNoKey", getPath, "Missing key parameter"},
		{"ErrEmptyKey", getPath + "?key=", "Missing key parameter"},
		{"ErrKeyInWrongCase", getPath + "?Key=a", "Missing key parameter"},
		{"ErrNoPath", getPath + "/", "Missing key parameter"},
		{"ErrRewrittenNoKey", "/api/kv/get", "Missing key parameter"},
		{"ErrRewrittenNoPath", "/api/kv/get/", "Missing key parameter"},
		{"ErrKeyNullCharacter", getPath + "?key=a%00b", ""},
		{"ErrPathNullCharacter", getPath + "/a%00b", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			a := call(t, http.MethodGet, row.path)
			a.isError(t, http.StatusBadRequest)
			if row.text != "" {
				a.isExactError(t, http.StatusBadRequest, row.text)
			}
		})
	}
	t.Run("ErrNotFound", func(t *testing.T) {
		t.Parallel()
		absent(t, newPrefix()+"é <none> \"😀\"")
	})
	t.Run("ErrBytesThatAreNotText", func(t *testing.T) {
		t.Parallel()
		for _, path := range []string{getPath + "?key=a%ff", getPath + "/a%ff", getPath + "/a%ed%a0%80", getPath + "?key=%c0%af"} {
			a := call(t, http.MethodGet, path)
			require.Contains(t, []int{http.StatusBadRequest, http.StatusNotFound}, a.status, "%v", a)
		}
	})
	t.Run("ErrBadPercentEncoding", func(t *testing.T) {
		t.Parallel()
		for _, path := range []string{getPath + "/%zz", getPath + "/100%", getPath + "/%2", getPath + "?key=%zz", getPath + "?key=100%", "/api/kv/get/%zz"} {
			a, err := exchange(http.MethodGet, path)
			require.NoError(t, err)
			// A server in between may refuse such a path before it reaches a function.
			require.Less(t, a.status, 500, "%v", a)
			require.NotEqual(t, http.StatusOK, a.status, "%v", a)
			if a.header.Get("Access-Control-Allow-Origin") != "" {
				require.NoError(t, a.keepsPromises())
			}
		}
	})
}

func TestDelete(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, method, path string
		body               func(key string) string
	}{
		{"DeleteQuery", http.MethodDelete, deletePath + "?key=ESCAPED", nil},
		{"DeleteQueryBesideEmptyParameters", http.MethodDelete, deletePath + "?a=&key=ESCAPED&b=", nil},
		{"PostBody", http.MethodPost, deletePath, func(key string) string { return `{"key":` + quote(key) + `}` }},
		{"RewrittenDeleteQuery", http.MethodDelete, "/api/kv/delete?key=ESCAPED", nil},
		{"RewrittenPostBody", http.MethodPost, "/api/kv/delete", func(key string) string { return `{"key":` + quote(key) + `}` }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			prefix := newPrefix()
			key, other := prefix+"a b+c/%é😀", prefix+"a b+c/%é😀2"
			upsert(t, key, `[1]`)
			upsert(t, other, `[2]`)
			options := []option{fresh}
			if row.body != nil {
				options = append(options, body(row.body(key)))
			}
			path := strings.ReplaceAll(row.path, "ESCAPED", url.QueryEscape(key))
			for _, deleted := range []string{"true", "false"} {
				call(t, row.method, path, options...).
					is(t, http.StatusOK, `{"ok":true,"key":`+quote(key)+`,"deleted":`+deleted+`,"timestamp":"now"}`)
				absent(t, key)
				require.Equal(t, []string{other}, keys(t, "prefix", prefix), "only the key itself is deleted")
			}
			upsert(t, key, `[3]`)
			holds(t, key, `[3]`)
		})
	}
}

func TestDeleteRefuses(t *testing.T) {
	t.Parallel()
	const missing = "Missing key parameter"
	for _, row := range []struct{ name, method, query, body, text string }{
		{"ErrNoKey", http.MethodDelete, "", "", missing},
		{"ErrEmptyKey", http.MethodDelete, "?key=", "", missing},
		{"ErrKeyInWrongCase", http.MethodDelete, "?KEY=a", "", `"KEY" is not a parameter of kv-delete: did you mean key?`},
		{"ErrUnknownParameter", http.MethodDelete, "?key=a&sessionId=1", "", `"sessionId" is not a parameter of kv-delete: did you mean key?`},
		{"ErrRepeatedKey", http.MethodDelete, "?key=a&key=b", "", "key must be given once, got 2"},
		{"ErrUnknownField", http.MethodPost, "", `{"key":"a","prefix":"b"}`, `"prefix" is not a field of kv-delete: did you mean key?`},
		{"ErrParameterOfAPost", http.MethodPost, "?key=b", `{"key":"a"}`, `"key" is given as a parameter: a POST is read from its body alone`},
		{"ErrNullCharacter", http.MethodDelete, "?key=a%00", "", ""},
		{"ErrEmptyBody", http.MethodPost, "", "", missing},
		{"ErrEmptyObject", http.MethodPost, "", `{}`, missing},
		{"ErrBodyArray", http.MethodPost, "", `["a"]`, missing},
		{"ErrBodyString", http.MethodPost, "", `"a"`, missing},
		{"ErrBodyNull", http.MethodPost, "", `null`, missing},
		{"ErrBodyKeyEmpty", http.MethodPost, "", `{"key":""}`, missing},
		{"ErrBodyKeyNull", http.MethodPost, "", `{"key":null}`, missing},
		{"ErrBodyKeyNumber", http.MethodPost, "", `{"key":7}`, missing},
		{"ErrBodyKeyArray", http.MethodPost, "", `{"key":["a"]}`, missing},
		{"ErrBodyKeyInWrongCase", http.MethodPost, "", `{"Key":"a"}`, `"Key" is not a field of kv-delete: did you mean key?`},
		{"ErrBodyNullCharacter", http.MethodPost, "", `{"key":"a\u0000"}`, ""},
		{"ErrBodyLoneSurrogate", http.MethodPost, "", `{"key":"a\ud800"}`, ""},
		{"ErrMalformed", http.MethodPost, "", `{"key":`, ""},
		{"ErrTrailingValue", http.MethodPost, "", `{"key":"a"} {"key":"b"}`, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			a := call(t, row.method, deletePath+row.query, body(row.body))
			a.isError(t, http.StatusBadRequest)
			if row.text != "" {
				a.isExactError(t, http.StatusBadRequest, row.text)
			}
		})
	}
}
