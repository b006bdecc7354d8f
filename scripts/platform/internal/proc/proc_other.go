//go:build !linux

package proc

import (
	"os/exec"
	"strconv"
	"syscall"

	"github.com/shirou/gopsutil/v4/process"
)

func start(cmd *exec.Cmd) error { return cmd.Start() }

// SetDeathSignal does nothing: only Linux signals the children of a process that dies. Elsewhere the next command ends
// them.
func SetDeathSignal(*exec.Cmd, syscall.Signal) {}

// ReapOrphans does nothing: only a Linux container may lack a first process that waits for orphans.
func ReapOrphans() {}

func startOf(pid int) (string, bool) {
	p, err := process.NewProcess(int32(pid))
	if err != nil {
		return "", false
	}
	created, err := p.CreateTime()
	if err != nil {
		return "", false
	}
	return strconv.FormatInt(created, 10), true
}
