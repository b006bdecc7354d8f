//go:build !linux

package proc

import (
	"os/exec"
	"strconv"
	"syscall"

	"github.com/shirou/gopsutil/v4/process"
)

func start(cmd *exec.Cmd) error { return cmd.Start() }

// DieOf chooses the signal that the command gets when this process dies, which only Linux can do. Elsewhere what survives is
// ended by the next command.
func DieOf(*exec.Cmd, syscall.Signal) {}

// ReapOrphans is needed on Linux alone, in containers whose first process waits for nobody.
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
