package proc

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// starts passes work to the one thread that starts all commands.
var starts = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		// The kernel sends the parent-death signal when the *thread* that forked ends. This one never ends.
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

func start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr.Pdeathsig == 0 {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	done := make(chan error, 1)
	starts() <- func() { done <- reaped.start(cmd) }
	return <-done
}

// SetDeathSignal chooses the signal that cmd gets when this process dies; without it, SIGKILL.
func SetDeathSignal(cmd *exec.Cmd, signal syscall.Signal) { attributes(cmd).Pdeathsig = signal }

// startOf returns the start time in clock ticks since boot, with the id of that boot.
func startOf(pid int) (string, bool) {
	p, ok := stat(pid)
	if !ok || p.gone() {
		return "", false
	}
	return bootID() + "/" + p.ticks, true
}

// status has some fields of /proc/<pid>/stat; see proc_pid_stat(5).
type status struct {
	state   string // of the first thread
	parent  int
	threads int
	ticks   string // when it started
}

// gone reports whether the process has ended. A zombie with other threads has not: until the last of them has ended,
// the process keeps its files, ports and locks.
func (s status) gone() bool { return s.state == "X" || s.state == "Z" && s.threads <= 1 }

func stat(pid int) (status, bool) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return status{}, false
	}
	end := bytes.LastIndexByte(content, ')') // ends the program's name, which may contain anything
	fields := strings.Fields(string(content[end+1:]))
	if end < 0 || len(fields) < 20 {
		return status{}, false
	}
	parent, parentErr := strconv.Atoi(fields[1])
	threads, threadsErr := strconv.Atoi(fields[17])
	return status{state: fields[0], parent: parent, threads: threads, ticks: fields[19]}, parentErr == nil && threadsErr == nil
}

var bootID = sync.OnceValue(func() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown-boot"
	}
	return strings.TrimSpace(string(id))
})

// reaper waits for orphaned descendants. In a container there may be nothing else that does: the backends of a killed
// Postgres would stay zombies forever.
type reaper struct {
	mu   sync.RWMutex
	ours map[int]bool
}

var reaped = &reaper{ours: map[int]bool{}}

// start registers the child under the reaper's lock, so that the reaper never waits for a child of os/exec.
func (r *reaper) start(cmd *exec.Cmd) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	r.ours[cmd.Process.Pid] = true
	return nil
}

// ReapOrphans makes this process the parent of orphaned descendants, and waits for them from then on. All children
// must be started with this package.
func ReapOrphans() {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return
	}
	go func() {
		for range time.Tick(time.Second) {
			reaped.sweep()
		}
	}()
}

func (r *reaper) sweep() {
	r.mu.Lock()
	defer r.mu.Unlock()
	self := os.Getpid()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || r.ours[pid] {
			continue
		}
		if p, ok := stat(pid); ok && p.parent == self && p.gone() {
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		}
	}
	for pid := range r.ours {
		if syscall.Kill(pid, 0) == syscall.ESRCH {
			delete(r.ours, pid)
		}
	}
}
