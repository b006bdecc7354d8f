package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"

	"netlify-supabase-kv/pkg/blobs/blobstest"
	"netlify-supabase-kv/scripts/platform/internal/host"
	"netlify-supabase-kv/scripts/platform/internal/layout"
	"netlify-supabase-kv/scripts/platform/internal/ports"
	"netlify-supabase-kv/scripts/platform/internal/postgres"
	"netlify-supabase-kv/scripts/platform/internal/proc"
	"netlify-supabase-kv/scripts/platform/internal/rest"
	"netlify-supabase-kv/scripts/platform/internal/say"
)

// startLimit bounds one start: recovering after a crash takes Postgres the longest.
const startLimit = 3 * time.Minute

// supervisor is one run of `serve`.
type supervisor struct {
	checkout layout.Checkout
	home     layout.Home
	log      *slog.Logger
	logs     []io.Closer

	mu    sync.Mutex // guards state and its file
	state State

	reload  sync.Mutex // one change at a time
	spec    Spec
	secrets secrets

	stops   []func() // what was started, to be stopped in reverse
	cluster *postgres.Cluster
	rest    rest.PostgREST
	site    host.Site
	access  *blobstest.Access
	host    *host.Host
	runtime atomic.Pointer[host.Host] // the same, for requests that come while it is being made
	end     context.CancelFunc
}

// Serve runs a platform until ctx ends, or until it is asked to stop. It is the `serve` command.
func Serve(ctx context.Context, checkout layout.Checkout, home layout.Home) error {
	lock := flock.New(home.Dir + string(os.PathSeparator) + "serve.lock")
	if held, err := lock.TryLock(); err != nil || !held {
		return errors.Join(errors.New("another supervisor holds this platform"), err)
	}
	defer lock.Unlock()
	spec, err := ReadSpec(home)
	if err != nil {
		return err
	}
	proc.ReapOrphans()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &supervisor{checkout: checkout, home: home, spec: spec, end: cancel}
	defer s.stopAll()
	if err := s.begin(); err != nil {
		return s.giveUp(err)
	}
	if spec.Lifeline {
		go s.watchLifeline()
	}
	if err := s.start(ctx); err != nil {
		if ctx.Err() != nil {
			return s.forget() // asked to stop while starting
		}
		return s.giveUp(err)
	}
	s.change(func(state *State) { state.Ready = true })
	s.log.Info("ready")
	<-ctx.Done()
	s.log.Info("stopping")
	s.stopAll()
	return s.forget()
}

// begin opens logs and the address for orders, and says who is here.
func (s *supervisor) begin() error {
	log, err := s.openLog("platform")
	if err != nil {
		return err
	}
	s.log = slog.New(slog.NewJSONHandler(log, nil))
	self, _ := proc.Identify(os.Getpid())
	s.state = State{Supervisor: self, Address: ports.URL(s.spec.Ports.Control), Token: random(), Ports: s.spec.Ports}
	s.change(func(*State) {})
	if s.secrets, err = loadSecrets(s.home); err != nil {
		return fmt.Errorf("read %s: %w", s.home.Secrets(), err)
	}
	return nil
}

// start brings up every part in order.
func (s *supervisor) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := s.listen(s.spec.Ports.Control, http.HandlerFunc(s.serveControl)); err != nil {
		return err
	}
	if s.spec.Supabase == nil {
		if err := s.startDatabase(ctx); err != nil {
			return err
		}
	}
	if err := s.startBlobs(); err != nil {
		return err
	}
	if err := s.writeEnv(); err != nil {
		return err
	}
	if s.spec.Host {
		return s.startHost(ctx)
	}
	return nil
}

// follow makes what runs be what the spec in the file says. It is called while everything runs.
func (s *supervisor) follow(ctx context.Context) error {
	s.reload.Lock()
	defer s.reload.Unlock()
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	spec, err := ReadSpec(s.home)
	if err != nil {
		return err
	}
	s.spec = spec
	if err := s.writeEnv(); err != nil {
		return err
	}
	if spec.Supabase == nil {
		if err := s.followDatabase(ctx); err != nil {
			return err
		}
	}
	switch {
	case !spec.Host:
		return nil
	case s.host == nil:
		return s.startHost(ctx)
	default:
		return s.applyFunctions(ctx)
	}
}

// watchLifeline stops everything when whoever started this is gone, however it went; unless an `up` has made it permanent since.
func (s *supervisor) watchLifeline() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	s.reload.Lock()
	defer s.reload.Unlock()
	if s.spec.Lifeline {
		s.log.Info("the command that this ran for has ended")
		s.end()
	}
}

// listen serves one address until the end.
func (s *supervisor) listen(port int, handler http.Handler) error {
	listener, err := net.Listen("tcp", ports.Address(port))
	if err != nil {
		return say.Try(fmt.Errorf("listen: %w", err), "PORT_BASE=20000 with the same command moves every port")
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 30 * time.Second, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("server ended", "port", port, "error", err.Error())
		}
	}()
	s.stops = append(s.stops, func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			_ = server.Close()
		}
	})
	return nil
}

// stopAll stops what was started, last first.
func (s *supervisor) stopAll() {
	for len(s.stops) > 0 {
		last := s.stops[len(s.stops)-1]
		s.stops = s.stops[:len(s.stops)-1]
		last()
	}
	for _, log := range s.logs {
		_ = log.Close()
	}
	s.logs = nil
}

// keep starts a child that is restarted when it ends, and stopped at the end.
func (s *supervisor) keep(child *proc.Child, part string) {
	child.Changed = func(pid int, cause error) { s.childChanged(part, pid, cause) }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		child.Keep(ctx)
	}()
	s.stops = append(s.stops, func() {
		cancel()
		<-done
	})
}

func (s *supervisor) childChanged(name string, pid int, cause error) {
	s.change(func(state *State) {
		part := state.part(name)
		if pid == 0 {
			part.Phase, part.Process, part.Problem = Restarting, proc.Identity{}, cause.Error()
			part.Stops++
			return
		}
		part.Process, _ = proc.Identify(pid)
		if part.Phase == Restarting {
			part.Phase = Ready
		}
	})
	if cause != nil {
		s.log.Error("ended by itself, starting it again", "part", name, "error", cause.Error())
		return
	}
	s.log.Info("started", "part", name, "pid", pid)
}

// change changes the state and writes it down.
func (s *supervisor) change(f func(*State)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.state)
	if err := writeJSON(s.home.State(), s.state); err != nil && s.log != nil {
		s.log.Error("write state", "error", err.Error())
	}
}

// part gives the part with this name, a new one if need be.
func (s *State) part(name string) *Part {
	for i := range s.Parts {
		if s.Parts[i].Name == name {
			return &s.Parts[i]
		}
	}
	s.Parts = append(s.Parts, Part{Name: name, Phase: Starting})
	return &s.Parts[len(s.Parts)-1]
}

// during shows a part as being started while f runs. done is for people, and known only afterwards.
func (s *supervisor) during(name, doing string, f func() (done string, err error)) error {
	s.change(func(state *State) {
		p := state.part(name)
		p.Phase, p.Doing, p.Problem = Starting, doing, ""
	})
	done, err := f()
	if err != nil {
		s.change(func(state *State) { state.part(name).Problem = err.Error() })
		return err
	}
	s.change(func(state *State) {
		p := state.part(name)
		p.Phase, p.Done, p.Problem = Ready, done, ""
	})
	return nil
}

// giveUp leaves the reason where the command that waits can read it.
func (s *supervisor) giveUp(err error) error {
	if s.log != nil {
		s.log.Error("giving up", "error", err.Error())
	}
	s.change(func(state *State) {
		state.Error, state.Ready = err.Error(), false
		var hint *say.Hint
		if errors.As(err, &hint) {
			state.Try = hint.Try
		}
	})
	return err
}

// forget removes what says that a platform is here.
func (s *supervisor) forget() error {
	return errors.Join(removeIfThere(s.home.Env()), removeIfThere(s.home.State()))
}

func (s *supervisor) openLog(name string) (*os.File, error) {
	f, err := proc.OpenLog(s.home.Log(name))
	if err == nil {
		s.logs = append(s.logs, f)
	}
	return f, err
}
