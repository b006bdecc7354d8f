//go:build unix

package proc

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestIdentity(t *testing.T) {
	t.Parallel()
	self, ok := Identify(os.Getpid())
	require.True(t, ok)
	require.True(t, self.Alive())
	stranger := Identity{PID: self.PID, Started: "another time"}
	require.False(t, stranger.Alive())
	stranger.End(0) // or this test would end here
	_, ok = Identify(0)
	require.False(t, ok)
}

func TestEndKillsWhoDoesNotListen(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sh", "-c", `trap "" TERM; while :; do sleep 0.05; done`)
	require.NoError(t, Start(cmd))
	waited := make(chan struct{})
	go func() { defer close(waited); _ = cmd.Wait() }()
	process, ok := Identify(cmd.Process.Pid)
	require.True(t, ok)
	process.End(200 * time.Millisecond)
	require.False(t, process.Alive())
	<-waited
}

func TestChildIsStartedAgainUntilTheEnd(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var pids []int
	third := make(chan struct{})
	child := &Child{Name: "sleep", Output: &strings.Builder{},
		Command: func() (*exec.Cmd, error) { return exec.Command("sleep", "60"), nil },
		Changed: func(pid int, _ error) {
			mu.Lock()
			defer mu.Unlock()
			if pid == 0 {
				return
			}
			pids = append(pids, pid)
			if len(pids) == 3 {
				close(third)
				return
			}
			_ = Kill(pid)
		}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); child.Keep(ctx) }()
	select {
	case <-third:
	case <-time.After(10 * time.Second):
		t.Fatal("it was not started three times")
	}
	cancel()
	<-done
	for _, pid := range pids {
		_, alive := Identify(pid)
		require.False(t, alive)
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	var got []string
	l := NewLines(func(line []byte) { got = append(got, string(line)) })
	for _, part := range []string{"a", "b\nc\n", "\n", "d"} {
		_, err := l.Write([]byte(part))
		require.NoError(t, err)
	}
	require.NoError(t, l.Close())
	require.Equal(t, []string{"ab", "c", "", "d"}, got)
}

func TestTailKeepsTheEnd(t *testing.T) {
	t.Parallel()
	tail := NewTail(8)
	_, err := tail.Write([]byte("first\nsecond\n\n"))
	require.NoError(t, err)
	require.Equal(t, "second", tail.LastLine())
}
