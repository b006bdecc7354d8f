package kv

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
)

// sampleOf is a value of each kind, some of which nothing is compared with in TestEveryOperator.
var sampleOf = map[rune]string{'n': `null`, 'f': `false`, 't': `true`, '"': `"2"`, '0': `2`, '{': `{"a":2}`, '[': `[2]`}

// TestEveryOperator walks the table of operators through the database and the documentation: an operator that one of them lacks, or
// that has no example here, fails.
func TestEveryOperator(t *testing.T) {
	t.Parallel()
	store, prefix := LiveStore(t), newPrefix(t)
	for key, value := range map[string]string{"a": `{"n":1}`, "b": `{"n":2}`, "c": `{"n":"2"}`, "d": `{"n":[2]}`, "e": `{}`} {
		_, err := store.Upsert(t.Context(), Entry{Key: prefix + key, Value: value})
		require.NoError(t, err)
	}
	found := func(c Condition) (keys string) {
		text, err := store.Query(t.Context(), Query{Prefix: prefix, Where: []Condition{c}, Select: []Field{"key"}})
		require.NoError(t, err, "%s %s %s", c.Path, c.Op, c.Value)
		var answer struct{ Results []struct{ Key string } }
		require.NoError(t, json.Unmarshal([]byte(text), &answer))
		for _, result := range answer.Results {
			keys += strings.TrimPrefix(result.Key, prefix)
		}
		return keys
	}
	docs, err := os.ReadFile("../../docs/QUERIES.md")
	require.NoError(t, err)

	examples := map[Op]struct{ value, want, own string }{ // own: what is found of the key b
		OpEq:       {`2`, "b", "b"},
		OpNe:       {`2`, "acd", "acde"},
		OpGt:       {`1`, "b", "cde"},
		OpGte:      {`1`, "ab", "bcde"},
		OpLt:       {`2`, "a", "a"},
		OpLte:      {`2`, "ab", "ab"},
		OpIn:       {`[1,"2"]`, "ac", "b"},
		OpExists:   {`false`, "e", "abcde"},
		OpContains: {`2`, "bd", "b"},
	}
	for _, o := range operators {
		require.Contains(t, examples, o.op)
		example := examples[o.op]
		require.Equal(t, example.want, found(Condition{"n", o.op, jsontext.Value(example.value)}), o.op)
		own := map[Op]string{OpIn: `["` + prefix + `b"]`, OpExists: `true`}[o.op]
		if own == "" {
			own = `"` + prefix + `b"`
		}
		require.Equal(t, example.own, found(Condition{"key", o.op, jsontext.Value(own)}), o.op)
		require.Contains(t, string(docs), "`"+string(o.op)+"`", "docs/QUERIES.md")
		for kind, sample := range sampleOf {
			c := Condition{"n", o.op, jsontext.Value(sample)}
			if strings.ContainsRune(o.kinds, kind) {
				found(c)
			} else {
				require.EqualError(t, c.validate(), "value must be "+o.takes+" for "+string(o.op))
			}
		}
	}
}
