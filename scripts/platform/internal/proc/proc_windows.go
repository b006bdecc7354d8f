package proc

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// Ask ends a process: Windows has no way to ask one without a window.
func Ask(pid int) error { return Kill(pid) }

// Kill ends a process at once.
func Kill(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Kill()
}

// Interrupt ends a process and what it started.
func Interrupt(pid int) error { return KillGroup(pid) }

// AskGroup ends a process and what it started.
func AskGroup(pid int) error { return KillGroup(pid) }

// KillGroup ends a process and what it started.
func KillGroup(pid int) error {
	return exec.Command("taskkill", "/T", "/F", "/PID", strconv.Itoa(pid)).Run()
}

// GroupAlive tells whether the process runs.
func GroupAlive(pid int) bool {
	_, ok := Identify(pid)
	return ok
}

// Detach makes cmd outlive this process's console.
func Detach(cmd *exec.Cmd) { detachGroup(cmd) }

func detachGroup(cmd *exec.Cmd) { attributes(cmd).CreationFlags = syscall.CREATE_NEW_PROCESS_GROUP }

func attributes(cmd *exec.Cmd) *syscall.SysProcAttr {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	return cmd.SysProcAttr
}

// RunAs does nothing: only root on Unix has to become someone else.
func RunAs(*exec.Cmd, uint32, uint32) {}
