package host

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"netlify-supabase-kv/scripts/platform/internal/proc"
)

// slot is a place for one instance of a function. When the instance ends, the slot starts the next one.
type slot struct {
	function *function
	number   int
	done     chan struct{} // closed when the slot starts no more instances

	mu         sync.Mutex
	current    *instance
	generation int
}

// instance is one process of a function.
type instance struct {
	function   *function
	slot       int
	generation int
	token      string           // its path in the Runtime API
	work       chan *invocation // receives the next invocation; closed when there is none to come
	ready      chan struct{}    // closed when it has asked for work the first time
	gone       chan struct{}    // closed when the process has ended and its failure is recorded

	// Guarded by the function's lock.
	pid       int
	current   *invocation
	draining  bool
	dismissed bool
	requests  int
}

// Name is the value of X-KV-Instance: function, slot, generation.
func (in *instance) Name() string {
	return fmt.Sprintf("%s-%d-%d", in.function.name, in.slot, in.generation)
}

// take assigns an invocation to the instance. The caller holds the function's lock; the instance is waiting for work.
func (in *instance) take(inv *invocation) {
	in.current = inv
	in.requests++
	inv.assigned <- in
	in.work <- inv
}

// dismiss tells the instance that there is no more work. The caller holds the function's lock.
func (in *instance) dismiss() {
	if !in.dismissed {
		in.dismissed = true
		close(in.work)
	}
}

// markReady records that the instance has finished its init. The caller holds the function's lock.
func (in *instance) markReady() {
	select {
	case <-in.ready:
	default:
		close(in.ready)
	}
}

// drain lets the instance finish its invocation and exit by itself, so that Go writes coverage counters.
func (in *instance) drain() {
	f := in.function
	f.mu.Lock()
	defer f.mu.Unlock()
	in.draining = true
	if in.current == nil {
		f.unlist(in)
		in.dismiss()
	}
}

func (in *instance) busy() bool {
	in.function.mu.Lock()
	defer in.function.mu.Unlock()
	return in.current != nil
}

// kill ends the process at once. It does nothing before the start and after the end.
func (in *instance) kill() {
	in.function.mu.Lock()
	defer in.function.mu.Unlock()
	if in.pid != 0 {
		_ = proc.KillGroup(in.pid)
	}
}

// These bound the pause before a program that dies during its init is started again.
const (
	startPauseFirst = 100 * time.Millisecond
	startPauseMost  = 5 * time.Second
)

// keep holds an instance in the slot until ctx ends.
func (s *slot) keep(ctx context.Context) {
	defer close(s.done)
	pause := startPauseFirst
	for ctx.Err() == nil {
		in := s.next()
		err := in.run(ctx)
		worked := false
		select {
		case <-in.ready:
			worked = true
		default:
		}
		if !worked && ctx.Err() == nil {
			s.function.fail(fmt.Sprintf("%s ended before it was ready (%v)", in.Name(), err))
		}
		close(in.gone) // last, because those who wait for it read the failure next
		switch {
		case ctx.Err() != nil:
			return
		case worked: // the next one starts at once
			pause = startPauseFirst
			continue
		}
		s.function.host.Log.Error("function does not start", "instance", in.Name(), "error", fmt.Sprint(err), "pause", pause.String())
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, startPauseMost)
	}
}

// next creates the slot's next instance.
func (s *slot) next() *instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generation++
	s.current = &instance{
		function: s.function, slot: s.number, generation: s.generation, token: newID(),
		work: make(chan *invocation, 1), ready: make(chan struct{}), gone: make(chan struct{}),
	}
	return s.current
}

// instance returns the current instance, or nil before the first.
func (s *slot) instance() *instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// run starts the process and waits for its end.
func (in *instance) run(ctx context.Context) error {
	h := in.function.host
	defer in.function.forget(in)
	h.register(in)
	defer h.unregister(in)
	lines := proc.NewLines(func(line []byte) { h.printed(in, line) })
	defer lines.Close()
	cmd := in.command()
	cmd.Stdout, cmd.Stderr = lines, lines
	cmd.WaitDelay = drainIdle
	if err := proc.Start(cmd); err != nil {
		return err
	}
	in.setPID(cmd.Process.Pid)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer in.setPID(0)
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	in.drain()
	select {
	case <-ended:
	case <-time.After(drainIdle):
		in.kill()
		<-ended
	}
	return ctx.Err()
}

func (in *instance) setPID(pid int) {
	in.function.mu.Lock()
	defer in.function.mu.Unlock()
	in.pid = pid
}

// memorySize is the memory of a function on Netlify, in megabytes.
const memorySize = "1024"

// command runs the program with the variables of Lambda and of the function, and none of the platform's own
// environment.
func (in *instance) command() *exec.Cmd {
	f := in.function
	cmd := exec.Command(f.program)
	cmd.Dir = filepath.Dir(f.program)
	env := map[string]string{
		"AWS_LAMBDA_RUNTIME_API":          f.host.RuntimeAddress + "/" + in.token,
		"AWS_LAMBDA_FUNCTION_NAME":        f.name,
		"AWS_LAMBDA_FUNCTION_VERSION":     "$LATEST",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": memorySize,
		"AWS_LAMBDA_LOG_GROUP_NAME":       "/aws/lambda/" + f.name,
		"AWS_LAMBDA_LOG_STREAM_NAME":      in.Name(),
		"AWS_LAMBDA_INITIALIZATION_TYPE":  "on-demand",
		"AWS_EXECUTION_ENV":               "AWS_Lambda_provided.al2023",
		"AWS_REGION":                      region,
		"AWS_DEFAULT_REGION":              region,
		"LAMBDA_TASK_ROOT":                cmd.Dir,
		"_HANDLER":                        "bootstrap",
		"PATH":                            "/usr/local/bin:/usr/bin:/bin",
		"LANG":                            "en_US.UTF-8",
		"TZ":                              ":UTC",
	}
	maps.Copy(env, f.host.Env)
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// region is the one that most Netlify sites use.
const region = "us-east-2"

// restart replaces the instance and waits until the next one is ready.
func (s *slot) restart(ctx context.Context) error {
	old := s.instance()
	if old == nil {
		return nil
	}
	old.drain()
	if err := old.waitGone(ctx); err != nil {
		return err
	}
	for {
		in := s.instance()
		if in == old { // the next one is about to be created
			if err := pause(ctx, 5*time.Millisecond); err != nil {
				return err
			}
			continue
		}
		select {
		case <-in.ready:
			return nil
		case <-in.gone:
			return fmt.Errorf("%s does not start: %s", in.Name(), s.function.broken())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// waitGone waits until a drained instance has ended. It kills one that does not exit soon after its invocation.
func (in *instance) waitGone(ctx context.Context) error {
	for in.busy() {
		select {
		case <-in.gone:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	select {
	case <-in.gone:
		return nil
	case <-time.After(drainIdle):
		in.kill()
	case <-ctx.Done():
		return ctx.Err()
	}
	<-in.gone
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
