package host

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// function is a program and its instances. The instance that has been idle longest is next, which is round-robin while
// none is busy.
type function struct {
	host    *Host
	name    string
	program string // its path
	slots   []*slot

	mu      sync.Mutex
	idle    []*instance   // waiting for work in the Runtime API, longest first
	waiting []*invocation // waiting for an instance, longest first
	failing string        // why the last starts failed; empty after a start that succeeded
}

// invocation is one request on its way through a function.
type invocation struct {
	id       string
	event    []byte
	assigned chan *instance // receives the instance
	result   chan outcome   // receives the outcome
}

// outcome is how an invocation ended.
type outcome struct {
	kind outcomeKind
	body []byte // the function's result or error
}

type outcomeKind int

const (
	succeeded outcomeKind = iota // the function returned a result
	failed                       // the function reported an error
	tooLarge                     // the result was over the limit
	died                         // the process ended first
	abandoned                    // the function asked for more work without returning anything
)

func newInvocation(id string, event []byte) *invocation {
	return &invocation{id: id, event: event, assigned: make(chan *instance, 1), result: make(chan outcome, 1)}
}

// end sets the outcome. Only the first one counts.
func (inv *invocation) end(o outcome) {
	select {
	case inv.result <- o:
	default:
	}
}

// submit passes the invocation to the instance that has been idle longest, or queues it.
func (f *function) submit(inv *invocation) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.idle) == 0 {
		f.waiting = append(f.waiting, inv)
		return
	}
	first := f.idle[0]
	f.idle = f.idle[1:]
	first.take(inv)
}

// withdraw removes an invocation from the queue.
func (f *function) withdraw(inv *invocation) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, w := range f.waiting {
		if w == inv {
			f.waiting = append(f.waiting[:i], f.waiting[i+1:]...)
			return
		}
	}
}

// offer is called when an instance asks for work. It assigns the oldest queued invocation, or lists the instance as
// idle.
func (f *function) offer(in *instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if in.current != nil { // it asks for more without having returned anything
		in.current.end(outcome{kind: abandoned})
		in.current = nil
	}
	f.failing = ""
	in.markReady()
	if in.draining {
		in.dismiss()
		return
	}
	if len(f.waiting) > 0 {
		next := f.waiting[0]
		f.waiting = f.waiting[1:]
		in.take(next)
		return
	}
	f.idle = append(f.idle, in)
}

// forget removes an instance that has ended, and ends its invocation.
func (f *function) forget(in *instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unlist(in)
	if in.current != nil {
		in.current.end(outcome{kind: died})
		in.current = nil
	}
}

// unlist removes an instance from the idle ones. The caller holds the lock.
func (f *function) unlist(in *instance) {
	for i, other := range f.idle {
		if other == in {
			f.idle = append(f.idle[:i], f.idle[i+1:]...)
			return
		}
	}
}

// finish sets the outcome of the instance's current invocation, and reports whether that one has this id.
func (f *function) finish(in *instance, id string, o outcome) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if in.current == nil || in.current.id != id {
		return false
	}
	in.current.end(o)
	in.current = nil
	return true
}

// fail records why the instances do not start, and ends the queued invocations at once.
func (f *function) fail(reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failing = reason
	for _, inv := range f.waiting {
		inv.end(outcome{kind: died, body: []byte(reason)})
	}
	f.waiting = nil
}

// broken returns why no instance starts; empty while one does.
func (f *function) broken() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failing
}

func newFunction(h *Host, name, program string) *function {
	f := &function{host: h, name: name, program: program}
	for n := range h.Instances {
		f.slots = append(f.slots, &slot{function: f, number: n, done: make(chan struct{})})
	}
	return f
}

// start starts the instances.
func (f *function) start() {
	for _, s := range f.slots {
		go s.keep(f.host.ctx)
	}
}

// restart replaces the instance of one slot, or of every slot if number < 0, and waits until the new ones are ready.
func (f *function) restart(ctx context.Context, number int) error {
	var chosen []*slot
	for _, s := range f.slots {
		if number < 0 || s.number == number {
			chosen = append(chosen, s)
		}
	}
	var all errgroup.Group
	for _, s := range chosen {
		all.Go(func() error { return s.restart(ctx) })
	}
	return all.Wait()
}

// waitStopped waits until every instance has ended. The host's context has ended before.
func (f *function) waitStopped() {
	for _, s := range f.slots {
		<-s.done
	}
}

// drainIdle is how long an idle instance may take to exit after it was told to.
const drainIdle = 2 * time.Second
