// Package proc starts programs that end with this one, identifies processes, and keeps programs running.
//
// A platform must leave no processes behind. When its process is asked to stop, it stops its children in order. When
// it is killed, the kernel signals them on Linux; elsewhere the next command identifies and ends them.
package proc

import (
	"context"
	"os/exec"
	"syscall"
	"time"
)

// Identity identifies a process. A pid alone does not, since it is reused.
type Identity struct {
	PID     int    `json:"pid"`
	Started string `json:"started"` // opaque; equal only for the same process
}

// Identify returns the identity of a running process, and false when there is none with this pid.
func Identify(pid int) (Identity, bool) {
	if pid <= 0 {
		return Identity{}, false
	}
	started, ok := startOf(pid)
	return Identity{PID: pid, Started: started}, ok
}

// Alive reports whether the process still runs.
func (i Identity) Alive() bool {
	now, ok := Identify(i.PID)
	return ok && now == i
}

// Signal signals the process, but never another one with the same pid.
func (i Identity) Signal(signal syscall.Signal) {
	if i.Alive() {
		_ = syscall.Kill(i.PID, signal)
	}
}

// WaitGone waits up to limit for the process to end, and reports whether it has.
func (i Identity) WaitGone(limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for i.Alive() {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(20 * time.Millisecond)
	}
	return true
}

// End asks the process to stop, and kills it when it still runs after limit.
func (i Identity) End(limit time.Duration) {
	i.Signal(syscall.SIGTERM)
	if !i.WaitGone(limit) {
		i.Signal(syscall.SIGKILL)
		i.WaitGone(5 * time.Second)
	}
}

// Start starts cmd in its own process group, so that Ctrl-C reaches only this process, which stops cmd in order. On
// Linux, cmd is killed when this process ends in any way; [SetDeathSignal] chooses another signal.
func Start(cmd *exec.Cmd) error {
	attributes(cmd).Setpgid = true
	return start(cmd)
}

// StartHere is [Start] without the group, for a command that uses this terminal and gets its Ctrl-C.
func StartHere(cmd *exec.Cmd) error {
	attributes(cmd)
	return start(cmd)
}

// Run runs cmd to its end and returns the end of its output. When ctx ends first, it kills cmd and its group.
func Run(ctx context.Context, cmd *exec.Cmd) (printed string, err error) {
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = 2 * time.Second // a grandchild may keep the pipe open
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := Start(cmd); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = KillGroup(cmd.Process.Pid) })
	defer stop()
	err = cmd.Wait()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return out.text(), err
}

// Ask asks a process to end.
func Ask(pid int) error { return syscall.Kill(pid, syscall.SIGTERM) }

// Kill ends a process at once.
func Kill(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }

// InterruptGroup asks a process group to end as Ctrl-C would.
func InterruptGroup(pid int) error { return syscall.Kill(-pid, syscall.SIGINT) }

// KillGroup ends a process and everything it started in its group at once.
func KillGroup(pid int) error { return syscall.Kill(-pid, syscall.SIGKILL) }

// GroupAlive reports whether any process of the group is left.
func GroupAlive(pid int) bool { return syscall.Kill(-pid, 0) == nil }

// Detach makes cmd outlive this process and its terminal.
func Detach(cmd *exec.Cmd) { attributes(cmd).Setsid = true }

// RunAs makes cmd run as another user, which only root can ask for.
func RunAs(cmd *exec.Cmd, uid, gid uint32) {
	attributes(cmd).Credential = &syscall.Credential{Uid: uid, Gid: gid}
}

func attributes(cmd *exec.Cmd) *syscall.SysProcAttr {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	return cmd.SysProcAttr
}
