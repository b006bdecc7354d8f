package host

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// MaxPayload is the limit of Lambda, and so of Netlify, for an event and for an answer, in bytes of their JSON.
const MaxPayload = 6 << 20

// DefaultTimeout is how long Netlify lets a function work on one request.
const DefaultTimeout = 60 * time.Second

// Options are what a host is made of.
type Options struct {
	RuntimeAddress string        // host:port where ServeRuntime can be reached
	Instances      int           // of each function; default 2
	Timeout        time.Duration // of one invocation; default [DefaultTimeout]
	Config         Config        // of netlify.toml
	Site           Site
	PublishDir     string    // absolute; static files
	Output         io.Writer // what instances print, each line with the instance's name in front
	Log            *slog.Logger
}

// Host runs functions. Serve HTTP requests with it and Runtime API requests with [Host.ServeRuntime].
type Host struct {
	runtimeAddress string
	instances      int
	timeout        time.Duration
	log            *slog.Logger
	ctx            context.Context
	cancel         context.CancelFunc

	outputMu sync.Mutex
	output   io.Writer

	mu        sync.RWMutex
	config    Config
	site      Site
	publish   string
	functions map[string]*function
	tokens    map[string]*instance
}

// New makes a host without functions; see [Host.Apply].
func New(o Options) *Host {
	if o.Instances <= 0 {
		o.Instances = 2
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	h := &Host{runtimeAddress: o.RuntimeAddress, instances: o.Instances, timeout: o.Timeout, log: o.Log, output: o.Output,
		config: o.Config, site: o.Site, publish: o.PublishDir, functions: map[string]*function{}, tokens: map[string]*instance{}}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

// Apply makes programs the functions that run: new ones start, others restart when their program or environment changed, and those
// that are gone stop. It returns when every instance is ready, or with what keeps one from it.
func (h *Host) Apply(ctx context.Context, programs map[string]Program) error {
	started, changed, removed := h.sort(programs)
	for _, f := range removed {
		f.end()
	}
	var all sync.WaitGroup
	errs := make(chan error, len(started)+len(changed))
	for _, f := range changed {
		all.Go(func() { errs <- f.restart(ctx, -1) })
	}
	for _, f := range started {
		f.start()
		all.Go(func() { errs <- f.waitReady(ctx) })
	}
	all.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// sort compares what is wanted with what is there.
func (h *Host) sort(programs map[string]Program) (started, changed, removed []*function) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, p := range programs {
		f, there := h.functions[name]
		switch {
		case !there:
			f = newFunction(h, name, p)
			h.functions[name] = f
			started = append(started, f)
		case f.program.Path != p.Path || !maps.Equal(f.program.Env, p.Env):
			f.replace(p)
			changed = append(changed, f)
		}
	}
	for name, f := range h.functions {
		if _, wanted := programs[name]; !wanted {
			delete(h.functions, name)
			removed = append(removed, f)
		}
	}
	return started, changed, removed
}

// waitReady waits until every slot's instance has asked for work.
func (f *function) waitReady(ctx context.Context) error {
	for _, s := range f.slots {
		for {
			if in := s.instance(); in != nil {
				select {
				case <-in.ready:
				case <-in.gone:
					return fmt.Errorf("%s does not start: %s", f.name, f.broken())
				case <-ctx.Done():
					return fmt.Errorf("%s is not ready: %w", in.Name(), ctx.Err())
				}
				break
			}
			if err := pause(ctx, 2*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close stops every instance and waits for it.
func (h *Host) Close() {
	h.cancel()
	h.mu.RLock()
	functions := slices.Collect(maps.Values(h.functions))
	h.mu.RUnlock()
	for _, f := range functions {
		f.end()
	}
}

// Reconfigure changes what is not about functions.
func (h *Host) Reconfigure(c Config, site Site) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.config, h.site = c, site
}

func (h *Host) settings() (Config, Site, string) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.config, h.site, h.publish
}

func (h *Host) function(name string) *function {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.functions[name]
}

func (h *Host) register(in *instance) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tokens[in.token] = in
}

func (h *Host) unregister(in *instance) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.tokens, in.token)
}

func (h *Host) byToken(token string) *instance {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.tokens[token]
}

// printed writes a line of an instance to the functions' log.
func (h *Host) printed(in *instance, line []byte) {
	h.outputMu.Lock()
	defer h.outputMu.Unlock()
	fmt.Fprintf(h.output, "%s %s | %s\n", time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), in.Name(), line)
}

// newID is 32 hexadecimal digits that nobody can guess.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func dirOf(name string) string { return filepath.Dir(name) }
