//go:build unix

package proc

import (
	"os/exec"
	"syscall"
)

// Ask asks a process to end.
func Ask(pid int) error { return syscall.Kill(pid, syscall.SIGTERM) }

// Kill ends a process at once.
func Kill(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }

// Interrupt asks a process group to end as Ctrl-C would.
func Interrupt(pid int) error { return syscall.Kill(-pid, syscall.SIGINT) }

// AskGroup asks a process and everything it started in its group to end.
func AskGroup(pid int) error { return syscall.Kill(-pid, syscall.SIGTERM) }

// KillGroup ends a process and everything it started in its group at once.
func KillGroup(pid int) error { return syscall.Kill(-pid, syscall.SIGKILL) }

// GroupAlive tells whether any process of the group is left.
func GroupAlive(pid int) bool { return syscall.Kill(-pid, 0) == nil }

// Detach makes cmd outlive this process and its terminal.
func Detach(cmd *exec.Cmd) { attributes(cmd).Setsid = true }

func detachGroup(cmd *exec.Cmd) { attributes(cmd).Setpgid = true }

func attributes(cmd *exec.Cmd) *syscall.SysProcAttr {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	return cmd.SysProcAttr
}

// RunAs makes cmd run as another user, which only root can ask for.
func RunAs(cmd *exec.Cmd, uid, gid uint32) {
	attributes(cmd).Credential = &syscall.Credential{Uid: uid, Gid: gid}
}
