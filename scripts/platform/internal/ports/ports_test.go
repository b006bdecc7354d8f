package ports

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/scripts/platform/internal/say"
)

func TestParse(t *testing.T) {
	t.Parallel()
	plan, err := Parse("")
	require.NoError(t, err)
	require.Equal(t, Default, plan)
	plan, err = Parse("20000")
	require.NoError(t, err)
	require.Equal(t, Plan{Base: 20000, Gateway: 20000, Postgres: 20001, Host: 20002, Dev: 20003, PostgREST: 20004, Admin: 20005, Control: 20006, Blobs: 20007}, plan)
	for _, base := range []string{"x", "80", "65530", "-1", "2e4"} {
		_, err := Parse(base)
		require.ErrorContains(t, err, strconv.Quote(base))
	}
}

func TestAutoFindsFreePorts(t *testing.T) {
	t.Parallel()
	plan, err := Parse(Auto)
	require.NoError(t, err)
	require.NotZero(t, plan.Base)
}

func TestTakenPortIsNamedWithItsOwnerAndAWayOut(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	err = Plan{Host: port}.Check(t.Context(), false)
	require.ErrorContains(t, err, fmt.Sprintf("port %d (for the function host) is taken by ", port))
	require.ErrorContains(t, err, fmt.Sprintf("(pid %d)", os.Getpid()))
	var hint *say.Hint
	require.True(t, errors.As(err, &hint))
	require.Equal(t, "stop that program, or move every port: PORT_BASE=20000 with the same command", hint.Try)
}

func TestPortsOfTheDatabaseCountOnlyWhenItRunsHere(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	plan := Plan{Postgres: l.Addr().(*net.TCPAddr).Port}
	require.NoError(t, plan.Check(t.Context(), false))
	require.ErrorContains(t, plan.Check(t.Context(), true), "for Postgres")
}
