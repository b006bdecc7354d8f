package host

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// MaxPayload is Lambda's limit, and so Netlify's, for an event and for a result, in bytes of JSON.
const MaxPayload = 6 << 20

// Options configure a host.
type Options struct {
	Programs       map[string]string // path by function
	Env            map[string]string // of every function, besides what Lambda sets
	RuntimeAddress string            // host:port of ServeRuntime
	Instances      int               // of each function
	Timeout        time.Duration     // of one invocation
	Config         Config            // of netlify.toml
	Site           Site
	PublishDir     string    // absolute path of the static files
	Output         io.Writer // receives the output of instances, each line after the instance's name
	Log            *slog.Logger
}

// Host runs functions. It serves HTTP requests, and Runtime API requests with [Host.ServeRuntime].
type Host struct {
	Options
	functions map[string]*function
	ctx       context.Context
	cancel    context.CancelFunc

	outputMu sync.Mutex

	mu     sync.RWMutex
	tokens map[string]*instance
}

// New returns a host whose functions do not run yet; see [Host.Start].
func New(o Options) *Host {
	h := &Host{Options: o, functions: map[string]*function{}, tokens: map[string]*instance{}}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	for name, program := range o.Programs {
		h.functions[name] = newFunction(h, name, program)
	}
	return h
}

// Start starts every instance and returns when all are ready, or when one fails to start.
func (h *Host) Start(ctx context.Context) error {
	var all errgroup.Group
	for _, f := range h.functions {
		f.start()
		all.Go(func() error { return f.waitReady(ctx) })
	}
	return all.Wait()
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
	for _, f := range h.functions {
		f.waitStopped()
	}
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

// printed writes a line that an instance printed to the functions' log.
func (h *Host) printed(in *instance, line []byte) {
	h.outputMu.Lock()
	defer h.outputMu.Unlock()
	fmt.Fprintf(h.Output, "%s %s | %s\n", time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), in.Name(), line)
}

// newID returns 32 random hexadecimal digits.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
