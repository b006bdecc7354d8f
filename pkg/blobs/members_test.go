package blobs

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHasMembers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text, other string
		has         bool
	}{
		{`["a","b"]`, `["b"]`, true}, {`[ "b" , "a" ]`, `["a","b"]`, true}, {`["\u0061"]`, `["a"]`, true}, {`["a"]`, `[]`, true}, {`["a"]`, `["a",{}]`, true}, {`["a",1]`, `["a",1]`, true}, {`["a",1]`, `["1"]`, false}, {`["a","1"]`, `[1]`, false}, {`[1.0]`, `[1]`, false},
		{`["a"]`, `["a","b"]`, false}, {`[]`, `["a"]`, false}, {`[["a"]]`, `["a"]`, false},
		{``, `["a"]`, false}, {``, `[]`, false}, {`{"a":1}`, `[]`, false}, {`null`, `[]`, false}, {`["a"]`, ``, false}, {`["a"]`, `"a"`, false}, {`["a"]`, `null`, false},
	} {
		require.Equal(t, tt.has, HasMembers(tt.text, tt.other), "%s in %s", tt.other, tt.text)
	}
}
