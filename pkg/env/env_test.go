package env

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const name = "KV_TEST_VARIABLE"

func TestWhatPastingLeavesAroundAValueIsNotPartOfIt(t *testing.T) {
	for given, want := range map[string]string{
		"": "", "x": "x", " x\r\n": "x", "\u00a0x\u200b\ufeff": "x", `"x"`: "x", ` ' x ' `: "x", `"`: `"`, `""`: "", `"x`: `"x`, `x"`: `x"`, `"a","b"`: `"a","b"`,
		`'x"`: `'x"`, `"it's"`: "it's", `""x""`: `""x""`, " \t ": "",
	} {
		t.Setenv(name, given)
		require.Equal(t, want, Text(name), "%q", given)
	}
	t.Setenv(name, "  ")
	require.Equal(t, "otherwise", Or(name, "otherwise"), "empty is not set")
}

func TestABooleanIsTakenWhereItIsPlain(t *testing.T) {
	for want, texts := range map[bool][]string{
		true: {"true", "TRUE", "True ", ` "true"`, "1", "t", "yes", "Y", "on", "on\n"}, false: {"false", "False ", "'false'", "0", "f", "no", "N", "OFF"},
	} {
		for _, text := range texts {
			t.Setenv(name, text)
			got, err := Bool(name, !want)
			require.NoError(t, err, text)
			require.Equal(t, want, got, "%q", text)
		}
	}
	for _, text := range []string{"tru", "2", "maybe", "true false", "null", "truthy", "-1", "00"} {
		t.Setenv(name, text)
		_, err := Bool(name, true)
		require.EqualError(t, err, name+" must be true or false", "and the value is not repeated")
	}
	t.Setenv(name, " ")
	got, err := Bool(name, true)
	require.NoError(t, err)
	require.True(t, got)
}

func TestNumbersTimesAndLists(t *testing.T) {
	t.Setenv(name, " 7 ")
	n, err := Number(name, 1, 1, 10, "small")
	require.NoError(t, err)
	require.Equal(t, 7, n)
	large, err := Number[int64](name, 1, 1, math.MaxInt64, "large")
	require.NoError(t, err)
	require.Equal(t, int64(7), large)
	d, err := Duration(name, time.Second, 0, "a time")
	require.NoError(t, err)
	require.Equal(t, 7*time.Second, d)
	t.Setenv(name, `"0.5"`)
	share, err := Number[float64](name, 0, 0, 1, "a share")
	require.NoError(t, err)
	require.InDelta(t, 0.5, share, 0)
	t.Setenv(name, "250MS")
	d, err = Duration(name, 0, 0, "a time")
	require.NoError(t, err)
	require.Equal(t, 250*time.Millisecond, d)
	for _, text := range []string{"0", "11", "1.5", "many", "NaN", "1e400", "-1"} {
		t.Setenv(name, text)
		_, err := Number(name, 1, 1, 10, "1 to 10")
		require.EqualError(t, err, name+" must be 1 to 10", text)
	}
	for _, text := range []string{"-1s", "soon", "NaN", "Inf", "1e300", "1 s"} {
		t.Setenv(name, text)
		_, err := Duration(name, 0, 0, "a time")
		require.EqualError(t, err, name+" must be a time", text)
	}
	t.Setenv(name, `" a b ,p/*,,*, "`)
	require.Equal(t, []string{"a b", "p/*", "*"}, List(name))
	t.Setenv(name, " , ")
	require.Empty(t, List(name))
}
