package migratetest

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// Share is how much of something a test does: what the environment says, or else the share of the short run. `make
// test-long` sets the variables to the whole; .env.example lists them.
func Share(t testing.TB, variable string, short int) int {
	t.Helper()
	return int(number(t, variable, uint64(short)))
}

// Seed begins what is random in a test, and is logged: the environment repeats it.
func Seed(t testing.TB, variable string) uint64 {
	t.Helper()
	seed := number(t, variable, rand.Uint64()>>1)
	t.Logf("repeat with %s=%d", variable, seed)
	return seed
}

func number(t testing.TB, variable string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	require.NoError(t, err, variable)
	return n
}
