package ports

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/scripts/platform/internal/console"
)

func TestParse(t *testing.T) {
	t.Parallel()
	plan, err := Parse("")
	require.NoError(t, err)
	require.Equal(t, Default, plan)
	plan, err = Parse("20000")
	require.NoError(t, err)
	require.Equal(t, Plan{Gateway: 20000, Postgres: 20001, Host: 20002, Dev: 20003, PostgREST: 20004, Admin: 20005, Runtime: 20006, Blobs: 20007, Files: 20008}, plan)
	for _, base := range []string{"x", "80", "65530", "-1", "2e4"} {
		_, err := Parse(base)
		require.ErrorContains(t, err, strconv.Quote(base))
	}
}

func TestAutoFindsFreePorts(t *testing.T) {
	t.Parallel()
	plan, err := Parse(Auto)
	require.NoError(t, err)
	require.GreaterOrEqual(t, plan.Gateway, autoLow)
	require.NoError(t, plan.Check(true, true))
}

func TestAutoGivesNoBlockTwice(t *testing.T) {
	t.Parallel()
	given := map[int]Plan{}
	for range 100 { // of 1,700 blocks: by chance, two would be the same
		plan, err := Parse(Auto)
		require.NoError(t, err)
		_, again := given[plan.Gateway]
		require.False(t, again, "a block on which nothing listens yet is given again")
		given[plan.Gateway] = plan
	}
}

// taken listens on some port.
func taken(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

func TestTakenPortsAreNamedWithAWayOut(t *testing.T) {
	t.Parallel()
	host, blobs := taken(t), taken(t)
	err := Plan{Host: host, Blobs: blobs}.Check(false, false)
	require.EqualError(t, err, fmt.Sprintf("port %d (for the function host) is taken\n       port %d (for the Blobs stand-in) is taken", host, blobs))
	var hint *console.Hint
	require.True(t, errors.As(err, &hint))
	require.Equal(t, "stop the program that has it, or move every port: KV_LOCAL_PORT_BASE=21000 with the same command", hint.Try)
}

func TestOnlyPortsThatAreNeededCount(t *testing.T) {
	t.Parallel()
	plan := Plan{Postgres: taken(t), Dev: taken(t)}
	require.NoError(t, plan.Check(false, false))
	require.ErrorContains(t, plan.Check(true, false), "for Postgres")
	require.ErrorContains(t, plan.Check(false, true), "for netlify dev")
}
