package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func post(t testing.TB, path, text string, options ...option) *response {
	t.Helper()
	return call(t, http.MethodPost, path, append([]option{body(text)}, options...)...)
}

func TestUpsertCreatesAndUpdates(t *testing.T) {
	t.Parallel()
	key := newPrefix() + "k"
	created := upsert(t, key, `{"n":1}`)
	holds(t, key, `{"n":1}`)
	updated := upsert(t, key, `{"n":2}`)
	holds(t, key, `{"n":2}`)
	require.NotEqual(t, created.header.Get("X-KV-Version"), updated.header.Get("X-KV-Version"), "each write has its version")

	upsert(t, key, `{"n":2}`)
	holds(t, key, `{"n":2}`)
	require.Equal(t, []string{key}, keys(t, "prefix", key), "an update adds no second entry")
}

// TestUpsertBody: bodies that are accepted. KEY stands for the test's key.
func TestUpsertBody(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, body string
		value      string // stored afterwards
	}{
		{"OK", `{"key":"KEY","value":{"a":1}}`, `{"a":1}`},
		{"ValueFirst", `{"value":[1],"key":"KEY"}`, `[1]`},
		{"NullIsAValue", `{"key":"KEY","value":null}`, `null`},
		{"UnknownFields", `{"key":"KEY","value":[1],"sessionId":"s","Key":"x","VALUE":5,"ttl":{"deep":[1e999]},"":0}`, `[1]`},
		{"UnknownFieldsFirst", `{"key2":1,"Value":"x","kEy":7,"key":"KEY","value":[1]}`, `[1]`},
		{"EscapedFieldNames", `{"k\u0065y":"KEY","\u0076alue":[1]}`, `[1]`},
		{"RepeatedFieldLastWins", `{"key":"not this","value":5,"key":"KEY","value":[2]}`, `[2]`},
		{"IndexesNull", `{"key":"KEY","value":[1],"indexes":null}`, `[1]`},
		{"IndexesString", `{"key":"KEY","value":[1],"indexes":"a:b"}`, `[1]`},
		{"IndexesNumber", `{"key":"KEY","value":[1],"indexes":7}`, `[1]`},
		{"IndexesObject", `{"key":"KEY","value":[1],"indexes":{"key":"a","member":"b"}}`, `[1]`},
		{"IndexesEmpty", `{"key":"KEY","value":[1],"indexes":[]}`, `[1]`},
		{"IndexElementsThatAreNone", `{"key":"KEY","value":[1],"indexes":[null,1,"a:b",[],{},true,{"key":"","member":"m"},` +
			`{"key":"KEYx","member":""},{"key":"KEYx"},{"member":"m"},{"key":0,"member":"m"},{"key":"KEYx","member":0},{"key":"KEYx","member":-0.0},` +
			`{"key":"KEYx","member":false},{"key":{},"member":""},{"Key":"KEYx","Member":"m"},{"key":"KEYx","member":null}]}`, `[1]`},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			prefix := newPrefix()
			key := prefix + "k"
			post(t, upsertPath, strings.ReplaceAll(row.body, "KEY", key)).
				is(t, http.StatusOK, `{"ok":true,"key":`+quote(key)+`,"timestamp":"now"}`)
			holds(t, key, row.value)
			require.Equal(t, []string{key}, keys(t, "prefix", prefix), "nothing else was written")
		})
	}
}

func TestUpsertContentTypes(t *testing.T) {
	t.Parallel()
	for _, contentType := range []string{"application/json", "application/json; charset=utf-8", "text/plain;charset=UTF-8", "application/octet-stream"} {
		t.Run(strings.ReplaceAll(contentType, "/", "-"), func(t *testing.T) {
			t.Parallel()
			key := newPrefix() + "ké😀"
			value := `{"a":"é😀<\u0000>","n":1.0}`
			post(t, upsertPath, upsertBody(key, value), header("Content-Type", contentType)).
				is(t, http.StatusOK, `{"ok":true,"key":`+quote(key)+`,"timestamp":"now"}`)
			holds(t, key, value)
		})
	}
}

// TestUpsertRefuses: nothing is written, and the message is the one that existing clients depend on.
func TestUpsertRefuses(t *testing.T) {
	t.Parallel()
	const legacy = "key and JSON value required"
	for _, row := range []struct{ name, body, text string }{
		{"ErrEmptyBody", ``, legacy},
		{"ErrEmptyObject", `{}`, legacy},
		{"ErrBodyArray", `[{"key":"KEY","value":{}}]`, legacy},
		{"ErrBodyString", `"KEY"`, legacy},
		{"ErrBodyNumber", `5`, legacy},
		{"ErrBodyNull", `null`, legacy},
		{"ErrBodyTrue", `true`, legacy},
		{"ErrNoKey", `{"value":{}}`, legacy},
		{"ErrKeyEmpty", `{"key":"","value":{}}`, legacy},
		{"ErrKeyNull", `{"key":null,"value":{}}`, legacy},
		{"ErrKeyNumber", `{"key":1,"value":{}}`, legacy},
		{"ErrKeyBoolean", `{"key":true,"value":{}}`, legacy},
		{"ErrKeyArray", `{"key":["KEY"],"value":{}}`, legacy},
		{"ErrKeyObject", `{"key":{"KEY":1},"value":{}}`, legacy},
		{"ErrNoValue", `{"key":"KEY"}`, legacy},
		{"ErrValueString", `{"key":"KEY","value":"text"}`, legacy},
		{"ErrValueEmptyString", `{"key":"KEY","value":""}`, legacy},
		{"ErrValueNumber", `{"key":"KEY","value":0}`, legacy},
		{"ErrValueHugeNumber", `{"key":"KEY","value":1e400}`, legacy},
		{"ErrValueTrue", `{"key":"KEY","value":true}`, legacy},
		{"ErrValueFalse", `{"key":"KEY","value":false}`, legacy},
		{"ErrKeyInWrongCase", `{"Key":"KEY","value":{}}`, legacy},
		{"ErrKeyInUpperCase", `{"\u004bEY":"KEY","value":{}}`, legacy},
		{"ErrValueInWrongCase", `{"key":"KEY","Value":{}}`, legacy},
		{"ErrKeyWithKelvinSign", "{\"\u212aey\":\"KEY\",\"value\":{}}", legacy}, // folds to k
		{"ErrLastValueIsAString", `{"key":"KEY","value":{},"value":"x"}`, legacy},
		{"ErrCutShort", `{"key":"KEY","value":{}`, ""},
		{"ErrNotJSON", `key=KEY&value={}`, ""},
		{"ErrSingleQuotes", `{'key':'KEY','value':{}}`, ""},
		{"ErrTrailingComma", `{"key":"KEY","value":{},}`, ""},
		{"ErrTrailingValue", `{"key":"KEY","value":{}}{"key":"KEY","value":{}}`, ""},
		{"ErrTrailingText", `{"key":"KEY","value":{}} x`, ""},
		{"ErrComment", `{"key":"KEY","value":{}/**/}`, ""},
		{"ErrNaN", `{"key":"KEY","value":[NaN]}`, ""},
		{"ErrInfinity", `{"key":"KEY","value":[-Infinity]}`, ""},
		{"ErrLeadingZero", `{"key":"KEY","value":[01]}`, ""},
		{"ErrPlusSign", `{"key":"KEY","value":[+1]}`, ""},
		{"ErrBareDot", `{"key":"KEY","value":[1.]}`, ""},
		{"ErrControlCharacterInString", "{\"key\":\"KEY\",\"value\":[\"\x01\"]}", ""},
		{"ErrNewlineInString", "{\"key\":\"KEY\",\"value\":[\"a\nb\"]}", ""},
		{"ErrBadEscape", `{"key":"KEY","value":["\x41"]}`, ""},
		{"ErrShortUnicodeEscape", `{"key":"KEY","value":["\u12"]}`, ""},
		{"ErrFormFeedAsSpace", "{\"key\":\"KEY\",\f\"value\":[]}", ""},
		{"ErrBlanksOnly", " \r\n\t", "*"}, // empty or malformed: either way a 400
		{"ErrBrokenUnknownField", `{"key":"KEY","value":{},"other":[}`, ""},
		{"ErrKeyNullCharacter", `{"key":"KEY\u0000","value":{}}`, ""},
		{"ErrKeyLoneSurrogate", `{"key":"KEY\ud800","value":{}}`, ""},
		{"ErrKeyLoneLowSurrogate", `{"key":"KEY\udc00x","value":{}}`, ""},
		{"ErrKeySwappedSurrogates", `{"key":"KEY\ude00\ud83d","value":{}}`, ""},
		{"ErrMemberTrue", `{"key":"KEY","value":{},"indexes":[{"key":"KEYi","member":true}]}`, ""},
		{"ErrMemberObject", `{"key":"KEY","value":{},"indexes":[{"key":"KEYi","member":"a"},{"key":"KEYi","member":{}}]}`, ""},
		{"ErrMemberArray", `{"key":"KEY","value":{},"indexes":[{"key":"KEYi","member":["m"]}]}`, ""},
		{"ErrIndexKeyObject", `{"key":"KEY","value":{},"indexes":[{"key":{"a":1},"member":"m"}]}`, ""},
		{"ErrMemberNullCharacter", `{"key":"KEY","value":{},"indexes":[{"key":"KEYi","member":"a\u0000"}]}`, ""},
		{"ErrMemberLoneSurrogate", `{"key":"KEY","value":{},"indexes":[{"key":"KEYi","member":"\ud83d"}]}`, ""},
		{"ErrIndexKeyNullCharacter", `{"key":"KEY","value":{},"indexes":[{"key":"KEYi\u0000","member":"a"}]}`, ""},
		{"ErrIndexKeyLoneSurrogate", `{"key":"KEY","value":{},"indexes":[{"key":"KEYi\udfff","member":"a"}]}`, ""},
		{"ErrOwnIndex", `{"key":"KEY","value":{},"indexes":[{"key":"KEY","member":"a"}]}`, ""},
		{"ErrOwnIndexSpelledOtherwise", `{"key":"KEYA","value":{},"indexes":[{"key":"KEY\u0041","member":"a"}]}`, ""},
		{"ErrOwnIndexAmongOthers", `{"key":"KEY","value":{},"indexes":[{"key":"KEYi","member":"a"},{"key":"KEY","member":"b"}]}`, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			prefix := newPrefix()
			a := post(t, upsertPath, strings.ReplaceAll(row.body, "KEY", prefix+"k"))
			a.isError(t, http.StatusBadRequest)
			switch row.text {
			case legacy:
				a.isExactError(t, http.StatusBadRequest, legacy)
			case "":
				require.NotEqual(t, legacy, a.errorText(t), "the error must say what is wrong with this body")
			}
			require.Empty(t, keys(t, "prefix", prefix), "nothing may be written")
		})
	}
}

// TestBodiesThatAreNotText sends bytes that are not UTF-8. As application/octet-stream they arrive in base64 and are
// refused; with other types the platform repairs them first.
func TestBodiesThatAreNotText(t *testing.T) {
	t.Parallel()
	octets := header("Content-Type", "application/octet-stream")
	for _, row := range []struct{ name, key, value string }{
		{"ErrBadByteInValue", "k", "[\"a\xffb\"]"},
		{"ErrBadByteInKey", "k\xff", "[]"},
		{"ErrOverlongSlash", "k", "[\"\xc0\xaf\"]"},
		{"ErrEncodedSurrogate", "k", "[\"\xed\xa0\x80\"]"},
		{"ErrCutSequence", "k", "[\"\xf0\x9f\x98\"]"},
		{"ErrBeyondUnicode", "k", "[\"\xf4\x90\x80\x80\"]"},
		{"ErrLatin1", "k", "[\"caf\xe9\"]"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			prefix := newPrefix()
			text := `{"key":"` + prefix + row.key + `","value":` + row.value + `}`
			post(t, upsertPath, text, octets).isError(t, http.StatusBadRequest)
			require.Empty(t, keys(t, "prefix", prefix), "nothing may be written")

			a := post(t, upsertPath, text)
			require.Contains(t, []int{http.StatusOK, http.StatusBadRequest}, a.status, "as application/json: %v", a)
		})
	}
	t.Run("BadByteInUnknownField", func(t *testing.T) {
		t.Parallel()
		post(t, upsertPath, "{\"key\":\""+newPrefix()+"k\",\"value\":{},\"other\":\"\xff\"}", octets).isError(t, http.StatusBadRequest)
	})
	t.Run("UTF16", func(t *testing.T) {
		t.Parallel()
		post(t, upsertPath, "\xff\xfe{\x00}\x00", octets).isError(t, http.StatusBadRequest)
	})
	t.Run("ByteOrderMark", func(t *testing.T) {
		t.Parallel()
		for _, contentType := range []string{"application/json", "application/octet-stream"} {
			key := newPrefix() + "k"
			a := post(t, upsertPath, "\ufeff"+upsertBody(key, `[1]`), header("Content-Type", contentType))
			require.Contains(t, []int{http.StatusOK, http.StatusBadRequest}, a.status, "%v", a)
			if a.status == http.StatusOK {
				holds(t, key, `[1]`)
			}
		}
	})
	t.Run("BytesOnly", func(t *testing.T) {
		t.Parallel()
		for _, path := range []string{upsertPath, deletePath} {
			post(t, path, "\x00\x01\x02\xff", octets).isError(t, http.StatusBadRequest)
			post(t, path, "\x1f\x8b\x08\x00", octets).isError(t, http.StatusBadRequest)
		}
	})
}

// TestKeys: a key may be any text, and comes back unchanged.
func TestKeys(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, key string }{
		{"Spaces", " a  b "},
		{"SpaceOnly", " "},
		{"Tab", "a\tb"},
		{"Newline", "a\nb\r\n"},
		{"ControlCharacters", "\x01\x02\x1b\x1f\x7f"},
		{"C1Controls", "\u0080\u009f"},
		{"Percent", "100%"},
		{"PercentEscape", "%41%2F%zz%"},
		{"Plus", "a+b"},
		{"QueryCharacters", "a?b=c&d#e;f"},
		{"Slashes", "a//b/"},
		{"LeadingSlash", "/a"},
		{"DotSegments", "a/../b/./c"},
		{"Dots", ".."},
		{"Backslash", `a\b\\c\u0041`},
		{"Quotes", `'a' "b" ''`},
		{"SQL", `'; drop table kv_store; --`},
		{"PostgRESTOperators", `eq.a,(b),like.*`},
		{"Braces", `{"a":[1]}`},
		{"HTML", `<b>&amp;</b>`},
		{"Emoji", "😀👩‍👩‍👧‍👦"},
		{"Combining", "e\u0301"},
		{"Noncharacter", "\uffff\U0010ffff"},
		{"ReplacementCharacter", "\ufffd"},
		{"ByteOrderMark", "\ufeffa"},
		{"LineSeparator", "\u2028\u2029"},
		{"RightToLeft", "\u202eא"},
		{"Colon", "a:b:c"},
		{"Prototype", "__proto__"},
		{"Constructor", "constructor"},
		{"LooksLikeNumber", "1e3"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			prefix := newPrefix()
			key := prefix + row.key
			upsert(t, key, `["x"]`)
			holds(t, key, `["x"]`)
			list(t, "prefix", prefix, "includeValues", "true").
				is(t, http.StatusOK, `{"keys":[`+quote(key)+`],"count":1,"data":{`+quote(key)+`:["x"]}}`)
			list(t, "prefix", key).is(t, http.StatusOK, `{"keys":[`+quote(key)+`],"count":1}`)
			absent(t, key+"x")
			remove(t, key, true)
			absent(t, key)
		})
	}
	t.Run("NoPrefixBeforePrototype", func(t *testing.T) {
		if site.databaseURL == "" {
			t.Skip("DATABASE_URL is not set: this test writes the key __proto__, so it needs a local site")
		}
		upsert(t, "__proto__", `{"__proto__":1}`)
		t.Cleanup(func() { _, _ = deleteAll("__proto__") })
		holds(t, "__proto__", `{"__proto__":1}`)
		list(t, "prefix", "__proto__", "includeValues", "true").
			is(t, http.StatusOK, `{"keys":["__proto__"],"count":1,"data":{"__proto__":{"__proto__":1}}}`)
		remove(t, "__proto__", true)
	})
	t.Run("KeysThatDifferLittle", func(t *testing.T) {
		t.Parallel()
		prefix := newPrefix()
		all := prefixed(prefix, "a", "A", "a ", " a", "á", "a\u0301", "ａ", "a\u200b", "a/", "a%20", "a+")
		for _, key := range all {
			upsert(t, key, `{"own":`+quote(key)+`}`)
		}
		for _, key := range all {
			holds(t, key, `{"own":`+quote(key)+`}`)
		}
		require.Equal(t, all, keys(t, "prefix", prefix), "keys sort by their UTF-8 bytes")
	})
}
