package host

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// function is a program and its instances. The instance that is idle longest works next: round-robin while none is
// busy.
type function struct {
	host    *Host
	name    string
	program string // its path
	slots   []*slot

	mu      sync.Mutex
	idle    []*instance   // waiting in the Runtime API for work, longest first
	waiting []*invocation // waiting for an instance, longest first
	failing string        // why the last starts failed, when nothing but failed starts has happened since
}

// invocation is one request on its way through a function.
type invocation struct {
	id       string
	event    []byte
	assigned chan *instance // gets the instance once there is one
	result   chan outcome   // gets the one outcome
}

// outcome is how an invocation ended.
type outcome struct {
	kind outcomeKind
	body []byte // the function's answer or error
}

type outcomeKind int

const (
	answered   outcomeKind = iota // the function answered
	failed                        // the function reported an error
	tooLarge                      // the answer was over the limit
	died                          // the process ended first
	unanswered                    // the function asked for more work without an answer
)

func newInvocation(id string, event []byte) *invocation {
	return &invocation{id: id, event: event, assigned: make(chan *instance, 1), result: make(chan outcome, 1)}
}

// end gives the outcome; only the first counts.
func (inv *invocation) end(o outcome) {
	select {
	case inv.result <- o:
	default:
	}
}

// submit hands the invocation to the instance that has been idle longest, or lets it wait for one.
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

// withdraw takes back an invocation that no instance has taken yet.
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

// offer is called when an instance asks for work: it gets the invocation that waits longest, or becomes idle.
func (f *function) offer(in *instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if in.current != nil { // it asks for more without having answered
		in.current.end(outcome{kind: unanswered})
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

// forget removes an instance that will not ask for work again and ends what it was doing.
func (f *function) forget(in *instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unlist(in)
	if in.current != nil {
		in.current.end(outcome{kind: died})
		in.current = nil
	}
}

// unlist takes an instance out of the idle ones; the caller holds the lock.
func (f *function) unlist(in *instance) {
	for i, other := range f.idle {
		if other == in {
			f.idle = append(f.idle[:i], f.idle[i+1:]...)
			return
		}
	}
}

// finish gives the outcome of the instance's invocation with this id, and tells whether it was the one.
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

// fail notes why the instances do not start; requests that wait are told at once instead of at their deadline.
func (f *function) fail(reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failing = reason
	for _, inv := range f.waiting {
		inv.end(outcome{kind: died, body: []byte(reason)})
	}
	f.waiting = nil
}

// broken tells why the function cannot answer at all.
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

// start brings up the instances.
func (f *function) start() {
	for _, s := range f.slots {
		go s.keep(f.host.ctx)
	}
}

// restart replaces one slot's instance, or with number < 0 every one, and waits until the new ones are ready.
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

// waitStopped waits for the end of every instance after the host's context has ended.
func (f *function) waitStopped() {
	for _, s := range f.slots {
		<-s.done
	}
}

// drainIdle is how long an idle instance may take to exit after it was told that there is no more work.
const drainIdle = 2 * time.Second
