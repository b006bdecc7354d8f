package proc

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os/exec"
	"syscall"
	"time"
)

// Child is a program that is restarted whenever it ends, until its context ends.
type Child struct {
	Command func() (*exec.Cmd, error)  // a new one for every start
	Stop    syscall.Signal             // asks it to end; 0 means SIGTERM
	Grace   time.Duration              // how long it may take to end; 0 means 5 s
	Output  io.Writer                  // where it prints
	Changed func(pid int, cause error) // called with the pid after a start, and with 0 and the cause after it ended by itself
}

// These bound the pause before a restart. The pause grows until the program runs for steadyAfter.
const (
	restartFirst = 100 * time.Millisecond
	restartMost  = 5 * time.Second
	steadyAfter  = 10 * time.Second
)

// Keep runs the child until ctx ends, then stops it and returns.
func (c *Child) Keep(ctx context.Context) {
	pause := restartFirst
	for ctx.Err() == nil {
		began := time.Now()
		err := c.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > steadyAfter {
			pause = restartFirst
		}
		c.Changed(0, err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, restartMost)
	}
}

// once runs the child until it ends by itself or ctx does.
func (c *Child) once(ctx context.Context) error {
	cmd, err := c.Command()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = c.Output, c.Output
	cmd.WaitDelay = 2 * time.Second // a grandchild may keep the pipe open
	if err := Start(cmd); err != nil {
		return err
	}
	c.Changed(cmd.Process.Pid, nil)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return cause(err)
	case <-ctx.Done():
	}
	c.end(cmd, ended)
	return nil
}

// end asks the process to end, and kills it after the grace period.
func (c *Child) end(cmd *exec.Cmd, ended <-chan error) {
	_ = syscall.Kill(cmd.Process.Pid, cmp.Or(c.Stop, syscall.SIGTERM))
	select {
	case <-ended:
		return
	case <-time.After(cmp.Or(c.Grace, 5*time.Second)):
	}
	_ = KillGroup(cmd.Process.Pid)
	<-ended
}

func cause(err error) error {
	if err == nil {
		return errors.New("it ended by itself with status 0")
	}
	return err
}
