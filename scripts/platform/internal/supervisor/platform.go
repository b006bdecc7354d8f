// Package supervisor runs a platform: it starts every part in order, keeps the programs running, and stops them in
// reverse.
//
// `up` runs it in a background process, `run` and `dev` in their own. That process holds the lock of the platform's
// home meanwhile.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"netlify-supabase-kv/pkg/blobs/blobstest"
	"netlify-supabase-kv/scripts/platform/internal/console"
	"netlify-supabase-kv/scripts/platform/internal/layout"
	"netlify-supabase-kv/scripts/platform/internal/ports"
	"netlify-supabase-kv/scripts/platform/internal/postgres"
	"netlify-supabase-kv/scripts/platform/internal/proc"
)

// startLimit bounds one start. Recovery after a crash of Postgres takes the longest.
const startLimit = 3 * time.Minute

// Platform is a running platform.
type Platform struct {
	Checkout layout.Checkout
	Home     layout.Home
	Spec     Spec
	Out      *console.Printer

	log     *slog.Logger
	secrets secrets
	cluster *postgres.Cluster
	blobs   blobstest.Access

	mu    sync.Mutex // guards state and its file
	state state

	parts     stack // everything but the functions
	functions stack
}

// stack holds the stop functions of what was started. They run in reverse.
type stack []func()

func (s *stack) push(stop func()) { *s = append(*s, stop) }

func (s *stack) stop() {
	for i := len(*s) - 1; i >= 0; i-- {
		(*s)[i]()
	}
	*s = nil
}

// Start starts a platform in the home of the lock, and returns when everything is ready. If it fails, it stops what it
// had started.
func Start(ctx context.Context, lock *Lock, checkout layout.Checkout, spec Spec, out *console.Printer) (*Platform, error) {
	proc.ReapOrphans()
	p := &Platform{Checkout: checkout, Home: lock.Home, Spec: spec, Out: out, state: lock.state}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := p.start(ctx); err != nil {
		p.Stop()
		return nil, err
	}
	p.log.Info("ready")
	return p, nil
}

func (p *Platform) start(ctx context.Context) error {
	log, err := p.openLog("platform", &p.parts)
	if err != nil {
		return err
	}
	p.log = slog.New(slog.NewJSONHandler(log, nil))
	if p.secrets, err = loadSecrets(p.Home); err != nil {
		return err
	}
	if p.Spec.Supabase == nil {
		if err := p.startDatabase(ctx); err != nil {
			return err
		}
	}
	if err := p.startBlobs(); err != nil {
		return err
	}
	return p.startFunctions(ctx)
}

// Stop stops everything, last first.
func (p *Platform) Stop() {
	p.functions.stop()
	p.parts.stop()
}

// RestartFunctions restarts the functions with other variables.
func (p *Platform) RestartFunctions(ctx context.Context, variables map[string]string) error {
	p.functions.stop()
	p.Spec.Functions = variables
	return p.startFunctions(ctx)
}

// step shows doing while f runs, then what f returns.
func (p *Platform) step(doing string, f func() (done string, err error)) error {
	step := p.Out.Step(doing)
	defer step.Drop()
	done, err := f()
	if err == nil {
		step.Done(done)
	}
	return err
}

// listen serves one address until the stack is stopped.
func (p *Platform) listen(port int, handler http.Handler, on *stack) error {
	listener, err := net.Listen("tcp", ports.Address(port))
	if err != nil {
		return console.Try(fmt.Errorf("listen: %w", err), "KV_LOCAL_PORT_BASE=20000 with the same command moves every port")
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 30 * time.Second, ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelWarn)}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			p.log.Error("server ended", "port", port, "error", err.Error())
		}
	}()
	on.push(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			_ = server.Close()
		}
	})
	return nil
}

// keep runs a child until the platform stops, and restarts it whenever it ends.
func (p *Platform) keep(name string, child *proc.Child) {
	child.Changed = func(pid int, cause error) { p.childChanged(name, pid, cause) }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		child.Keep(ctx)
	}()
	p.parts.push(func() {
		cancel()
		<-done
	})
}

func (p *Platform) childChanged(name string, pid int, cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pid != 0 {
		p.state.Processes[name], _ = proc.Identify(pid)
		p.log.Info("started", "part", name, "pid", pid)
	} else {
		delete(p.state.Processes, name)
		p.log.Error("ended by itself, starting it again", "part", name, "error", cause.Error())
	}
	if err := writeJSON(p.Home.State(), p.state); err != nil {
		p.log.Error("write state", "error", err.Error())
	}
}

func (p *Platform) openLog(name string, on *stack) (io.Writer, error) {
	f, err := proc.OpenLog(p.Home.Log(name))
	if err == nil {
		on.push(func() { _ = f.Close() })
	}
	return f, err
}
