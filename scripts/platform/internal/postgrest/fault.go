package postgrest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// controlPath takes orders to misbehave: PUT with a [Fault] begins, DELETE ends, GET looks. Each answers how many
// requests the fault has hit. It wants the service_role key, as what it does to a database is no less than what that
// key can do.
const controlPath = "/_platform/fault"

// Fault is what a gateway does to requests on a bad day. What it spares goes through as always.
type Fault struct {
	Kind   FaultKind `json:"kind"`
	Share  float64   `json:"share"`            // of the requests, over 0 and up to 1
	Delay  int       `json:"delay,omitempty"`  // of FaultDelay, and at most of FaultLate, in milliseconds
	Status int       `json:"status,omitempty"` // of FaultStatus
	Code   string    `json:"code,omitempty"`   // of FaultStatus: the answer is an error of PostgREST's with this code, and no page
	After  int       `json:"after,omitempty"`  // of FaultStatus: the seconds of its Retry-After
	Seed   uint64    `json:"seed,omitempty"`   // which requests are hit, for one order of arrival
}

// FaultKind says what happens to a request.
type FaultKind string

// The faults. Reset, drop and late end the connection with a TCP reset.
const (
	FaultDelay   FaultKind = "delay"   // it is forwarded later
	FaultStatus  FaultKind = "status"  // it is answered with a status, and not forwarded
	FaultReset   FaultKind = "reset"   // the connection is reset, and nothing is forwarded
	FaultDrop    FaultKind = "drop"    // it is forwarded, PostgREST answers, and the connection is reset instead of passing that on
	FaultLate    FaultKind = "late"    // the connection is reset, and the request arrives all the same, after a random delay
	FaultGarbage FaultKind = "garbage" // the answer is none of PostgREST's, or is cut in the middle; by turns forwarded and not
)

func (f Fault) validate() error {
	switch {
	case !(f.Share > 0 && f.Share <= 1):
		return fmt.Errorf("share must be over 0 and up to 1, got %v", f.Share)
	case (f.Kind == FaultDelay || f.Kind == FaultLate) && f.Delay <= 0:
		return fmt.Errorf("delay must be over 0, got %d", f.Delay)
	case f.Kind == FaultStatus && (f.Status < 400 || f.Status > 599):
		return fmt.Errorf("status must be 400 to 599, got %d", f.Status)
	case f.After < 0:
		return fmt.Errorf("after must not be negative, got %d", f.After)
	}
	switch f.Kind {
	case FaultDelay, FaultStatus, FaultReset, FaultDrop, FaultLate, FaultGarbage:
		return nil
	}
	return fmt.Errorf("there is no fault %q", f.Kind)
}

// faults is the fault that is on, if any, and what it did.
type faults struct {
	mu     sync.Mutex
	on     bool
	fault  Fault
	random *rand.Rand
	hits   int
}

// next tells whether the next request is hit, and how many were before it. The delay of FaultLate is chosen for it.
func (f *faults) next() (fault Fault, turn int, hit bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.on || f.random.Float64() >= f.fault.Share {
		return Fault{}, 0, false
	}
	f.hits++
	fault = f.fault
	if fault.Kind == FaultLate {
		fault.Delay = 1 + f.random.IntN(fault.Delay)
	}
	return fault, f.hits - 1, true
}

func (f *faults) set(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on, f.fault, f.hits = true, fault, 0
	f.random = rand.New(rand.NewPCG(fault.Seed, 0))
}

func (f *faults) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on = false
}

func (f *faults) answer(w http.ResponseWriter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"on": f.on, "hits": f.hits})
}

func (g *Gateway) serveControl(w http.ResponseWriter, r *http.Request) {
	if key := r.Header.Get("Apikey"); key == "" || g.token(key) != g.keys.ServiceRole {
		refuse(w, http.StatusUnauthorized, "this takes the service_role key")
		return
	}
	switch r.Method {
	case http.MethodGet:
	case http.MethodDelete:
		g.faults.clear()
	case http.MethodPut:
		var fault Fault
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&fault)
		if err == nil {
			err = fault.validate()
		}
		if err != nil {
			refuse(w, http.StatusBadRequest, err.Error())
			return
		}
		g.faults.set(fault)
	default:
		refuse(w, http.StatusMethodNotAllowed, "GET, PUT or DELETE")
		return
	}
	g.faults.answer(w)
}

// misbehave does to the request what the fault says.
func (g *Gateway) misbehave(w http.ResponseWriter, r *http.Request, fault Fault, turn int) {
	switch fault.Kind {
	case FaultDelay:
		select {
		case <-time.After(time.Duration(fault.Delay) * time.Millisecond):
			g.forward.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	case FaultStatus:
		answerStatus(w, fault)
	case FaultReset:
		reset(w)
	case FaultDrop:
		g.forward.ServeHTTP(newKept(), r)
		reset(w)
	case FaultLate:
		late := r.Clone(context.WithoutCancel(r.Context())) // the body is in memory
		time.AfterFunc(time.Duration(fault.Delay)*time.Millisecond, func() { g.forward.ServeHTTP(newKept(), late) })
		reset(w)
	case FaultGarbage:
		g.garble(w, r, turn)
	}
}

// garble gives each kind of garbage in turn. Only where the true answer is cut, and in the last kind, has PostgREST
// done what it was asked.
func (g *Gateway) garble(w http.ResponseWriter, r *http.Request, turn int) {
	switch turn % 4 {
	case 0: // as during a hosted maintenance
		page(w, http.StatusOK)
	case 1: // an answer of something else that speaks JSON
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"ok":true}`))
	case 2:
		answer := newKept()
		g.forward.ServeHTTP(answer, r)
		maps.Copy(w.Header(), answer.header)
		w.Header().Set("Content-Length", strconv.Itoa(answer.body.Len()+1)) // so that even an empty one is cut
		w.WriteHeader(answer.status)
		_, _ = w.Write(answer.body.Bytes()[:answer.body.Len()/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler) // closes the connection without the rest
	case 3: // noise that says it is what was asked for
		g.forward.ServeHTTP(newKept(), r)
		wanted, _, _ := strings.Cut(r.Header.Get("Accept"), ",")
		w.Header().Set("Content-Type", wanted)
		_, _ = w.Write([]byte{0xff, 0xfe, 0x00, 0x1f, 0x8b, '<', '%'})
	}
}

// answerStatus answers as Supabase's gateway does (a page, of Cloudflare's or its own) or, with a code, as PostgREST
// behind it.
func answerStatus(w http.ResponseWriter, fault Fault) {
	if fault.After > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(fault.After))
	}
	if fault.Code == "" {
		page(w, fault.Status)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(fault.Status)
	_ = json.NewEncoder(w).Encode(map[string]any{"code": fault.Code, "message": "a fault of the platform", "details": nil, "hint": nil})
}

func page(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "<html><head><title>%d</title></head><body>The gateway says so.</body></html>", status)
}

// reset ends the connection with a TCP reset, as a load balancer does that was restarted.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2 has no connection of its own to reset
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// kept is an answer that is not passed on.
type kept struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func newKept() *kept { return &kept{header: http.Header{}, status: http.StatusOK} }

func (k *kept) Header() http.Header         { return k.header }
func (k *kept) WriteHeader(status int)      { k.status = status }
func (k *kept) Write(p []byte) (int, error) { return k.body.Write(p) }
