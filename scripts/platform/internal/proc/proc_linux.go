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

// starts carries commands to the one thread that starts them all.
var starts = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		// The kernel sends the parent-death signal when the *thread* that forked ends, not the process. This one never
		// does.
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

// startOf reads the start time in clock ticks since boot, and the boot it counts from.
func startOf(pid int) (string, bool) {
	p, ok := stat(pid)
	if !ok || p.gone() {
		return "", false
	}
	return bootID() + "/" + p.ticks, true
}

// status is what matters here of /proc/<pid>/stat, see proc_pid_stat(5).
type status struct {
	state   string // of the first thread
	parent  int
	threads int
	ticks   string // when it started
}

// gone tells whether nothing of the process is left but its exit status. A zombie with other threads is not: until the
// last of them has ended, the process keeps its files, ports and locks.
func (s status) gone() bool { return s.state == "X" || s.state == "Z" && s.threads <= 1 }

func stat(pid int) (status, bool) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return status{}, false
	}
	end := bytes.LastIndexByte(content, ')') // of the program's name, which may hold anything
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

// reaper waits for orphans of our children. In a container nothing else may: a dead backend of a killed Postgres would
// stay a zombie for ever.
type reaper struct {
	mu   sync.RWMutex
	ours map[int]bool
}

var reaped = &reaper{ours: map[int]bool{}}

// start remembers the child under the lock that the reaper takes, so that it never waits for what os/exec waits for.
func (r *reaper) start(cmd *exec.Cmd) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	r.ours[cmd.Process.Pid] = true
	return nil
}

// ReapOrphans makes this process the one that orphaned descendants fall to, and waits for them from then on. Every
// child must then be started through [Start].
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
