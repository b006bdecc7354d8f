package supervisor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"

	"netlify-supabase-kv/scripts/platform/internal/layout"
	"netlify-supabase-kv/scripts/platform/internal/ports"
	"netlify-supabase-kv/scripts/platform/internal/postgres"
	"netlify-supabase-kv/scripts/platform/internal/proc"
	"netlify-supabase-kv/scripts/platform/internal/say"
)

// Platform is what commands do to one platform.
type Platform struct {
	Checkout layout.Checkout
	Home     layout.Home
	Out      *say.Printer
	lifeline io.Closer // the other end of the supervisor's standard input, while this process lives
}

// Lock keeps other commands away until the returned function is called. A second `up` waits for the first.
func (p *Platform) Lock(ctx context.Context) (unlock func(), err error) {
	if err := p.Home.Make(); err != nil {
		return nil, err
	}
	lock := flock.New(p.Home.Lock())
	if held, err := lock.TryLock(); err != nil {
		return nil, err
	} else if !held {
		step := p.Out.Step("waiting for another command on this platform")
		defer step.Drop()
		if _, err := lock.TryLockContext(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
	return func() { _ = lock.Unlock() }, nil
}

// CheckPorts fails early, before anything is installed or built, when a platform that has to start could not.
func (p *Platform) CheckPorts(ctx context.Context, plan ports.Plan, database bool) error {
	if state, running := p.Running(); running && state.Ports == plan {
		return nil
	}
	return plan.Check(ctx, database)
}

// Running gives the state of a platform that runs.
func (p *Platform) Running() (State, bool) {
	state, found := ReadState(p.Home)
	return state, found && state.Running()
}

// Up makes the platform run as spec says, and returns when it does. The caller holds the lock. With spec.Lifeline the platform ends
// with this process unless it ran before.
func (p *Platform) Up(ctx context.Context, spec Spec) (State, error) {
	program, fingerprint, err := p.install()
	if err != nil {
		return State{}, fmt.Errorf("install the supervisor: %w", err)
	}
	spec.Program = fingerprint // after a pull, the old supervisor must not go on
	state, running := p.Running()
	if running && state.Ready {
		old, err := ReadSpec(p.Home)
		if err == nil && !old.needsRestart(spec) {
			state, err := p.follow(ctx, state, spec)
			if !errors.Is(err, errSilent) || !goneSoon(ctx, state.Supervisor) {
				return state, err
			}
		}
	}
	// What does not become ready, or has to move, starts over.
	if err := p.Stop(ctx); err != nil {
		return State{}, err
	}
	if err := spec.Ports.Check(ctx, spec.Supabase == nil); err != nil {
		return State{}, err
	}
	if err := writeSpec(p.Home, spec); err != nil {
		return State{}, err
	}
	return p.launch(ctx, spec, program)
}

// errSilent is how an order to a supervisor ends that does not answer.
var errSilent = errors.New("the supervisor does not answer")

// goneSoon tells whether a supervisor that does not answer is dying: one that was killed a moment ago is still in the process list.
func goneSoon(ctx context.Context, supervisor proc.Identity) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return supervisor.WaitGone(ctx)
}

// follow lets a running supervisor catch up with spec.
func (p *Platform) follow(ctx context.Context, state State, spec Spec) (State, error) {
	if err := writeSpec(p.Home, spec); err != nil {
		return State{}, err
	}
	step := p.Out.Step("looking for what changed")
	defer step.Drop()
	if err := order(ctx, state, orderFollow); err != nil {
		return state, err
	}
	step.Drop()
	state, _ = ReadState(p.Home)
	migrations := *state.part(partMigrations)
	if migrations.Done != nothingApplied && migrations.Done != "" {
		p.Out.Line("%s", migrations.Done)
	}
	if migrations.Warning != "" {
		p.Out.Line("%s", migrations.Warning)
	}
	return state, nil
}

// order asks a running supervisor for something.
func order(ctx context.Context, state State, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, state.Address+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set(tokenHeader, state.Token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", errSilent, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	var no refusal
	if err := json.NewDecoder(resp.Body).Decode(&no); err != nil {
		return fmt.Errorf("the supervisor answered %s", resp.Status)
	}
	return no.err()
}

func (r refusal) err() error {
	if r.Try != "" {
		return say.Try(errors.New(r.Error), "%s", r.Try)
	}
	return errors.New(r.Error)
}

// launch starts a supervisor and waits until everything is ready. When ctx ends first, it stops what it began.
func (p *Platform) launch(ctx context.Context, spec Spec, program string) (State, error) {
	cmd, err := p.serveCommand(spec, program)
	if err != nil {
		return State{}, err
	}
	output, err := proc.OpenLog(p.Home.Log("platform"))
	if err != nil {
		return State{}, err
	}
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output // what Go prints when it crashes
	if err := cmd.Start(); err != nil {
		return State{}, fmt.Errorf("start the supervisor: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	state, err := p.waitReady(ctx, cmd.Process.Pid, ended)
	if err != nil {
		p.abandon(cmd.Process.Pid, ended)
		return State{}, err
	}
	return state, nil
}

// abandon stops a supervisor that this command started, and whatever it has started.
func (p *Platform) abandon(pid int, ended <-chan struct{}) {
	select {
	case <-ended: // by itself, and its pid may be someone else's by now
	default:
		_ = proc.Ask(pid)
	}
	select {
	case <-ended:
	case <-time.After(stopPatience):
		_ = proc.Kill(pid)
		<-ended
	}
	p.endLeftovers()
}

// serveCommand is this program again, as the supervisor: with a copy of its own, since `go run` removes the one it made.
func (p *Platform) serveCommand(spec Spec, program string) (*exec.Cmd, error) {
	cmd := exec.Command(program, "serve", "--home", p.Home.Dir)
	cmd.Dir = p.Checkout.Root
	proc.Detach(cmd)
	if !spec.Lifeline {
		return cmd, nil
	}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.lifeline = pipe
	return cmd, nil
}

// install copies this program into .local/bin, and gives the copy's path and fingerprint. It replaces an older one by renaming, since
// that may be running.
func (p *Platform) install() (path, fingerprint string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", "", err
	}
	name := "kv-platform"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	to := filepath.Join(p.Checkout.Local(), "bin", name)
	content, err := os.ReadFile(self)
	if err != nil {
		return "", "", err
	}
	sum := sha256.Sum256(content)
	fingerprint = hex.EncodeToString(sum[:8])
	if have, err := os.ReadFile(to); err == nil && bytes.Equal(have, content) {
		return to, fingerprint, nil
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return "", "", err
	}
	fresh := fmt.Sprintf("%s.%d", to, os.Getpid())
	if err := os.WriteFile(fresh, content, 0o755); err != nil {
		return "", "", err
	}
	return to, fingerprint, os.Rename(fresh, to)
}

// waitReady shows the parts as they come up.
func (p *Platform) waitReady(ctx context.Context, pid int, ended <-chan struct{}) (State, error) {
	show := &shower{out: p.Out, shown: map[string]bool{}}
	defer show.close()
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for {
		state, found := ReadState(p.Home)
		if found && state.Supervisor.PID == pid {
			show.update(state)
			if state.Ready {
				return state, nil
			}
		}
		select {
		case <-ctx.Done():
			return State{}, ctx.Err()
		case <-ended:
			return State{}, p.lastWords(pid)
		case <-tick.C:
		}
	}
}

// lastWords is why a supervisor ended before it was ready.
func (p *Platform) lastWords(pid int) error {
	if state, found := ReadState(p.Home); found && state.Supervisor.PID == pid && state.Error != "" {
		return refusal{Error: state.Error, Try: state.Try}.err()
	}
	return say.Try(errors.New("the supervisor ended before it was ready"), "read %s", p.Home.Log("platform"))
}

// shower turns states into progress lines.
type shower struct {
	out   *say.Printer
	shown map[string]bool
	now   string
	step  *say.Step
}

func (s *shower) update(state State) {
	for _, part := range state.Parts {
		if s.shown[part.Name] || part.Doing == "" {
			continue
		}
		if s.now != part.Name {
			s.close()
			s.now, s.step = part.Name, s.out.Step(part.Doing)
		}
		if part.Phase != Ready {
			return
		}
		s.shown[part.Name] = true
		s.step.Done(part.Done)
		if part.Warning != "" {
			s.out.Line("%s", part.Warning)
		}
		s.now, s.step = "", nil
	}
}

func (s *shower) close() {
	if s.step != nil {
		s.step.Drop()
	}
	s.now, s.step = "", nil
}

// stopPatience is how long a supervisor may take to stop: Postgres writes everything out first.
const stopPatience = 75 * time.Second

// Stop ends the platform and waits until nothing of it is left. Without one it does nothing. The caller holds the lock.
func (p *Platform) Stop(ctx context.Context) error {
	state, found := ReadState(p.Home)
	if !found {
		return nil
	}
	if state.Running() {
		step := p.Out.Step("stopping")
		defer step.Drop()
		if err := p.askToStop(ctx, state); err != nil {
			return err
		}
	}
	p.endLeftovers()
	return nil
}

func (p *Platform) askToStop(ctx context.Context, state State) error {
	asking, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if order(asking, state, orderStop) != nil {
		_ = proc.Ask(state.Supervisor.PID) // it is just starting, or stuck
	}
	waiting, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	if state.Supervisor.WaitGone(waiting) {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	state.Supervisor.End(time.Second)
	return nil
}

// endLeftovers ends what a supervisor that was killed has left, and removes its state.
func (p *Platform) endLeftovers() {
	state, found := ReadState(p.Home)
	if !found || state.Running() {
		return
	}
	for i := len(state.Parts) - 1; i >= 0; i-- {
		if part := state.Parts[i]; part.Process.PID != 0 {
			part.Process.End(20 * time.Second)
		}
	}
	_ = removeIfThere(p.Home.State())
	_ = removeIfThere(p.Home.Env())
}

// Erase removes the data and the logs of a platform that is stopped. Its keys stay, so that nothing that knows them breaks.
func (p *Platform) Erase() error {
	return errors.Join(p.EraseData(), os.RemoveAll(p.Home.Logs()), p.Home.Make())
}

// EraseData removes the database and the blobs of a platform that is stopped.
func (p *Platform) EraseData() error {
	return errors.Join(postgres.Remove(p.Home), os.RemoveAll(p.Home.Blobs()))
}

// Adopted tells whether an `up` has taken over a platform that a command with a lifeline had started.
func (p *Platform) Adopted() bool {
	spec, err := ReadSpec(p.Home)
	return err == nil && !spec.Lifeline
}
