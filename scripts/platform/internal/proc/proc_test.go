package proc

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofrs/flock"
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

func TestEndKillsAProcessThatIgnoresSIGTERM(t *testing.T) {
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

// TestAProcessThatIsGoneHoldsNothing: the first thread of a killed process can be a zombie while other threads still
// hold its ports and locks.
func TestAProcessThatIsGoneHoldsNothing(t *testing.T) {
	if file := os.Getenv("PROC_HOLD"); file != "" {
		hold(t, file)
		return
	}
	file := filepath.Join(t.TempDir(), "lock")
	for range 4 {
		cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), "PROC_HOLD="+file)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, Start(cmd))
		line, err := bufio.NewReader(out).ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "held\n", line)
		process, alive := Identify(cmd.Process.Pid)
		require.True(t, alive)
		require.NoError(t, Kill(process.PID))
		require.True(t, process.WaitGone(10*time.Second))
		lock := flock.New(file)
		free, err := lock.TryLock()
		require.NoError(t, err)
		require.True(t, free, "a process that is gone holds no lock")
		require.NoError(t, lock.Close())
		_ = cmd.Wait()
	}
}

// hold locks the file, prints that, and waits to be killed. Its memory and threads make its end take a while.
func hold(t *testing.T, file string) {
	lock := flock.New(file)
	held, err := lock.TryLock()
	require.NoError(t, err)
	require.True(t, held)
	memory := make([]byte, 64<<20)
	for i := 0; i < len(memory); i += os.Getpagesize() {
		memory[i] = 1
	}
	for range 20 {
		go func() {
			runtime.LockOSThread()
			for {
				time.Sleep(time.Millisecond)
			}
		}()
	}
	time.Sleep(50 * time.Millisecond)
	fmt.Println("held")
	time.Sleep(time.Minute)
	runtime.KeepAlive(memory)
	runtime.KeepAlive(lock)
}

func TestChildIsRestartedUntilItsContextEnds(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var pids []int
	third := make(chan struct{})
	child := &Child{Output: &strings.Builder{},
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
	case <-time.After(time.Minute):
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

func TestRunReturnsTheLastOfWhatWasPrinted(t *testing.T) {
	t.Parallel()
	printed, err := Run(t.Context(), exec.Command("sh", "-c", "yes first | head -c 20000; echo; echo last; exit 3"))
	require.EqualError(t, err, "exit status 3")
	require.True(t, strings.HasSuffix(printed, "\nlast"), printed)
	require.Len(t, printed, tailBytes-1, "without the line break at its end")
}

func TestRunKillsWhatItStartedWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := Run(ctx, exec.Command("sh", "-c", "sleep 60 & sleep 60; wait"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(began), 30*time.Second)
}
