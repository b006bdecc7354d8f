package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestValuesComeBackAsWritten writes values that a JSON parser would change or refuse. kv-get and kv-list must return
// them byte for byte.
func TestValuesComeBackAsWritten(t *testing.T) {
	t.Parallel()
	digits := strings.Repeat("1234567890", 40)
	for _, row := range []struct{ name, value string }{
		{"Null", `null`},
		{"EmptyArray", `[]`},
		{"EmptyObject", `{}`},
		{"Object", `{"a":1}`},
		{"KeyOrder", `{"z":1,"a":2,"m":{"y":1,"b":2},"10":1,"9":2}`},
		{"DuplicateKeys", `{"a":1,"a":2,"b":{"c":1,"c":1}}`},
		{"EmptyKey", `{"":{"":""}}`},
		{"ProtoKeys", `{"__proto__":{"a":1},"constructor":null,"toString":[]}`},
		{"InnerWhitespace", "{ \"a\" :\t[ 1 ,\r\n 2 ] ,\n\"b\" : { } }"},
		{"OneDotZero", `[1.0,1.10,100.000]`},
		{"NegativeZero", `[-0,-0.0,-0e0]`},
		{"TwentyDigits", `[12345678901234567890,-98765432109876543210,9007199254740993]`},
		{"BeyondDouble", `[1e400,-1E+400,1e-400,0e400]`},
		{"ExponentSpellings", `[1e5,1E5,1e+5,1e05,1.5E-07]`},
		{"ExponentOf400Digits", `[1e` + digits + `,1e-` + digits + `]`},
		{"NumberOf400Digits", `[` + digits + `,0.` + digits + `,` + digits + `.` + digits + `]`},
		{"NumericEdges", `[1e131071,1e131072,1e-16383,1e-16384,1e2147483648]`},
		{"NullCharacter", `{"a\u0000b":"\u0000","c":["x\u0000"]}`},
		{"LoneSurrogates", `{"\ud800":"\udfff","a":"\ud83d","b":"\ude00\ud83d"}`},
		{"EscapedPair", `["\ud83d\ude00","\uD83D\uDE00","😀"]`},
		{"EscapeSpellings", `["\/","/","\u0041","A","\u00e9","é","\b\f\n\r\t","\u000a","\"\\"]`},
		{"HTML", `["<script>&amp;</script>","\u003c"]`},
		{"LineSeparators", "[\"\u2028\u2029\",\"\\u2028\"]"},
		{"Delete", "[\"\u007f\u0080\u0085\"]"},
		{"Noncharacters", "[\"\uffff\ufffe\U0010ffff\ufdd0\",\"\ufffd\",\"\ufeff\"]"},
		{"Unnormalised", "[\"e\u0301\",\"\u00e9\",\"ﬁ\",\"İi\"]"},
		{"Emoji", `{"👩‍👩‍👧‍👦":"🏳️‍🌈","flag":"🇨🇭"}`},
		{"Quotes", `["'","\"","''","$$","\\\\","\\'","%s","%%","$1","?"]`},
		{"SQL", `{"a":"'; drop table kv_store; --"}`},
		{"LooksLikeAnAnswer", `{"key":"k","value":[1],"exists":false,"timestamp":"never"}`},
		{"LooksLikeAnEvent", `{"isBase64Encoded":true,"body":"eA=="}`},
		{"LongString", `["` + strings.Repeat("a😀\\n", 5000) + `"]`},
		{"ManyKeys", manyKeys(5000)},
		{"Nested1000", nested(1000)},
		{"NestedObjects1000", strings.Repeat(`{"a":`, 1000) + `1` + strings.Repeat(`}`, 1000)},
		{"Nested2000", nested(2000)},
		{"OneMegabyte", megabyte()},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			key := newPrefix() + "k"
			upsert(t, key, row.value)
			holds(t, key, row.value)
			list(t, "prefix", key, "includeValues", "true").
				is(t, http.StatusOK, `{"keys":[`+quote(key)+`],"count":1,"data":{`+quote(key)+`:`+row.value+`}}`)

			// Overwriting an existing value gives the same.
			upsert(t, key, `{"other":[true,false]}`)
			upsert(t, key, row.value)
			holds(t, key, row.value)
		})
	}
}

func nested(levels int) string {
	return strings.Repeat("[", levels) + strings.Repeat("]", levels)
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `%c"key %d":%d.0`, "{,"[min(i, 1)], n-i, i)
	}
	return b.String() + "}"
}

// megabyte returns a document of a little over 1 MB with words, numbers and escapes.
func megabyte() string {
	var b strings.Builder
	random := rand.New(rand.NewPCG(1, 2))
	b.WriteString(`{"items":[`)
	for i := 0; b.Len() < 1<<20; i++ {
		fmt.Fprintf(&b, `%s{"id":%d, "score":%.6f,"text":"word%x 😀 \"%x\"\n","tags":["a","\u0062"]}`,
			[]string{"", ","}[min(i, 1)], i, random.Float64(), random.Uint64(), random.Uint64())
	}
	return strings.ReplaceAll(b.String(), "\n", `\n`) + `]}`
}

// TestWhitespaceAroundValue: whitespace around the value is not part of it.
func TestWhitespaceAroundValue(t *testing.T) {
	t.Parallel()
	key := newPrefix() + "k"
	call(t, http.MethodPost, upsertPath, body("\r\n {\t\"value\" : \n [ 1 ] \t, \"key\":"+quote(key)+" } \n")).
		is(t, http.StatusOK, `{"ok":true,"key":`+quote(key)+`,"timestamp":"now"}`)
	a := get(t, key)
	a.is(t, http.StatusOK, `{"key":`+quote(key)+`,"value":[ 1 ],"exists":true,"timestamp":"now"}`)
}

// TestDeepValues: the 2,001st level is refused, whatever it consists of and however deep the value is.
func TestDeepValues(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, value string }{
		{"Err2001Arrays", nested(2001)},
		{"Err2001Objects", strings.Repeat(`{"a":`, 2001) + `1` + strings.Repeat(`}`, 2001)},
		{"Err2001ObjectsInArrays", strings.Repeat(`[{"a":`, 1000) + `[]` + strings.Repeat(`}]`, 1000)},
		{"ErrDeepBesideShallow", `{"a":[],"b":` + nested(2000) + `,"c":1}`},
		{"Err10001", nested(10_001)},
		{"Err20001", nested(20_001)},
		{"Err100000", nested(100_000)},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			key := newPrefix() + "k"
			upsert(t, key, `["before"]`)
			call(t, http.MethodPost, upsertPath, body(upsertBody(key, row.value))).isError(t, http.StatusUnprocessableEntity)
			holds(t, key, `["before"]`)
		})
	}
	t.Run("BracketsInStringsAreNoLevels", func(t *testing.T) {
		t.Parallel()
		key := newPrefix() + "k"
		value := `["` + strings.Repeat(`[{\"`, 5000) + `"]`
		upsert(t, key, value)
		holds(t, key, value)
	})
	t.Run("WideIsNotDeep", func(t *testing.T) {
		t.Parallel()
		key := newPrefix() + "k"
		value := `[[]` + strings.Repeat(`,[[]],{}`, 5000) + `]`
		upsert(t, key, value)
		holds(t, key, value)
	})
}

// TestValuesThatGrowInTransit: the platform's limit of 6 MB applies after JSON escaping. A stored value can be read,
// or the function reports that it is too large; it is never truncated, and the platform never fails.
func TestValuesThatGrowInTransit(t *testing.T) {
	needsHost(t)
	t.Parallel()
	for _, row := range []struct {
		name, unit string
		bytes      int
	}{
		{"AngleBrackets", `<`, 4_000_000},
		{"LineSeparators", "\u2028", 3_000_000},
		{"EscapedQuotes", `\"`, 2_600_000},
		{"Backslashes", `\\`, 1_500_000},
		{"Emoji", `😀`, 4_000_000},
		{"NullEscapes", `\u0000`, 4_000_000},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			prefix := newPrefix()
			value := `["` + strings.Repeat(row.unit, row.bytes/len(row.unit)) + `"]`
			upsert(t, prefix+"a", value)
			for name, path := range map[string]string{
				"value": getPath + params("key", prefix+"a"),
				"data":  listPath + params("prefix", prefix, "includeValues", "true", "limit", "1"),
			} {
				a := call(t, http.MethodGet, path, fresh)
				if a.status == http.StatusRequestEntityTooLarge {
					t.Logf("%s of %d bytes: %s", row.name, len(value), a.body)
					continue
				}
				require.Equal(t, http.StatusOK, a.status, "%v", a)
				if name == "value" {
					sameBytes(t, []byte(value), a.fields(t)[name], name)
				} else {
					sameBytes(t, []byte(`{`+quote(prefix+"a")+`:`+value+`}`), a.fields(t)[name], name)
				}
			}
		})
	}
}
