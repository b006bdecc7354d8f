//go:build !linux

package proc

import (
	"os/exec"
	"strconv"
	"syscall"

	"github.com/shirou/gopsutil/v4/process"
)

func start(cmd *exec.Cmd) error { return cmd.Start() }

// SetDeathSignal does nothing, since only Linux signals the children of a process that ends.
func SetDeathSignal(*exec.Cmd, syscall.Signal) {}

// ReapOrphans does nothing. Only in a container on Linux may there be no first process that waits for orphans.
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
