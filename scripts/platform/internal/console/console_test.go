package console

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPlainStepPrintsOnceItIsTrue(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	step := Plain(&b).Step("starting Postgres")
	require.Empty(t, b.String())
	step.Done("started    Postgres")
	step.Drop()
	require.Regexp(t, `^started    Postgres +\d+\.\d s\n$`, b.String())
}

func TestDroppedStepPrintsNothing(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	Plain(&b).Step("starting Postgres").Drop()
	require.Empty(t, b.String())
}

func TestElapsed(t *testing.T) {
	t.Parallel()
	for want, d := range map[string]time.Duration{"0.4 s": 400 * time.Millisecond, "12 s": 12 * time.Second, "3 min 5 s": 185 * time.Second} {
		require.Equal(t, want, Elapsed(d))
	}
}

func TestPrint(t *testing.T) {
	t.Parallel()
	cause := errors.New("port 1 is taken")
	var b bytes.Buffer
	Print(&b, fmt.Errorf("start: %w", Try(cause, "KV_LOCAL_PORT_BASE=%d", 20000)))
	require.Equal(t, "Error: start: port 1 is taken\nTry:   KV_LOCAL_PORT_BASE=20000\n", b.String())
	require.ErrorIs(t, Try(cause, "x"), cause)
	b.Reset()
	Print(&b, cause)
	require.Equal(t, "Error: port 1 is taken\n", b.String())
}
