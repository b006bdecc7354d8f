package mirror

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzContents checks that a body does not differ from itself, and that what one store lacks is extra in the other.
func FuzzContents(f *testing.F) {
	for _, seed := range [][2]string{{`{"keys":["a","b"],"data":{"a":1.0,"b":{"x":[1]}}}`, `{"keys":["b"],"data":{"b":{ "x" : [1] }}}`}, {`{"keys":["a"]}`, `[]`}, {`{"keys":null,"data":null}`, `{"keys":["a"],"data":{"a":1e400}}`}, {``, `x`}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, one, other string) {
		a, b := listContents(one), listContents(other)
		require.Empty(t, a.differences(a))
		there, back := a.differences(b), b.differences(a)
		require.Len(t, back, len(there))
		opposite := map[string]string{"missing": "extra", "extra": "missing", "different": "different"}
		for i, difference := range there {
			require.Equal(t, difference.Key, back[i].Key)
			require.Equal(t, opposite[difference.How], back[i].How)
		}
	})
}

// FuzzSameJSON checks that a value equals itself with other space, and never an array that holds it.
func FuzzSameJSON(f *testing.F) {
	for _, text := range []string{`{"a":[1,2.0,"\u0061"]}`, `null`, `-0`, `"\ud800"`, `1e400`, `{"a":1,"a":2}`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !json.Valid([]byte(text)) {
			return
		}
		spaced := append(append(json.RawMessage(" \n"), text...), "\t "...)
		require.True(t, sameJSON(json.RawMessage(text), spaced))
		require.False(t, sameJSON(json.RawMessage(text), json.RawMessage("["+text+"]")))
	})
}
