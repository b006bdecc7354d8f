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

// controlPath controls the fault: PUT sets a [Fault], DELETE clears it, GET shows it. Each returns how many requests
// the fault has hit. It requires the service_role key.
const controlPath = "/_platform/fault"

// Fault is a failure of the gateway that hits a share of the requests.
type Fault struct {
	Kind   FaultKind `json:"kind"`
	Share  float64   `json:"share"`            // of the requests, over 0 and up to 1
	Delay  int       `json:"delay,omitempty"`  // of FaultDelay, and at most of FaultLate, in milliseconds
	Status int       `json:"status,omitempty"` // of FaultStatus
	Code   string    `json:"code,omitempty"`   // of FaultStatus: the response is PostgREST's error with this code instead of a page
	After  int       `json:"after,omitempty"`  // of FaultStatus: seconds of its Retry-After
	Seed   uint64    `json:"seed,omitempty"`   // determines which requests are hit, given their order
}

// FaultKind is what happens to a request.
type FaultKind string

// The faults. Reset, drop and late end the connection with a TCP reset.
const (
	FaultDelay   FaultKind = "delay"   // the request is forwarded later
	FaultStatus  FaultKind = "status"  // the response has an error status; nothing is forwarded
	FaultReset   FaultKind = "reset"   // the connection is reset; nothing is forwarded
	FaultDrop    FaultKind = "drop"    // the request is forwarded, and the connection is reset in place of the response
	FaultLate    FaultKind = "late"    // the connection is reset, and the request is forwarded after a random delay
	FaultGarbage FaultKind = "garbage" // the response is not PostgREST's, or is cut; half of the requests are forwarded
)

func (f Fault) validate() error {
	switch {
	case !(f.Share > 0 && f.Share <= 1):
		return fmt.Errorf("share must be above 0 and up to 1, got %v", f.Share)
	case (f.Kind == FaultDelay || f.Kind == FaultLate) && f.Delay <= 0:
		return fmt.Errorf("delay must be above 0, got %d", f.Delay)
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

// faults is the current fault, if any, and the number of requests it has hit.
type faults struct {
	mu     sync.Mutex
	on     bool
	fault  Fault
	random *rand.Rand
	hits   int
}

// next reports whether the next request is hit, and how many were hit before. It chooses the delay of FaultLate.
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

func (f *faults) writeStatus(w http.ResponseWriter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"on": f.on, "hits": f.hits})
}

func (g *Gateway) serveControl(w http.ResponseWriter, r *http.Request) {
	if key := r.Header.Get("Apikey"); key == "" || g.token(key) != g.keys.ServiceRole {
		writeError(w, http.StatusUnauthorized, "this takes the service_role key")
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
			writeError(w, http.StatusBadRequest, err.Error())
			return
		}
		g.faults.set(fault)
	default:
		writeError(w, http.StatusMethodNotAllowed, "GET, PUT or DELETE")
		return
	}
	g.faults.writeStatus(w)
}

// inject applies the fault to the request.
func (g *Gateway) inject(w http.ResponseWriter, r *http.Request, fault Fault, turn int) {
	switch fault.Kind {
	case FaultDelay:
		select {
		case <-time.After(time.Duration(fault.Delay) * time.Millisecond):
			g.forward.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	case FaultStatus:
		writeFaultStatus(w, fault)
	case FaultReset:
		reset(w)
	case FaultDrop:
		g.forward.ServeHTTP(newDiscarded(), r)
		reset(w)
	case FaultLate:
		late := r.Clone(context.WithoutCancel(r.Context())) // the body is in memory
		time.AfterFunc(time.Duration(fault.Delay)*time.Millisecond, func() { g.forward.ServeHTTP(newDiscarded(), late) })
		reset(w)
	case FaultGarbage:
		g.writeGarbage(w, r, turn)
	}
}

// writeGarbage writes each kind of garbage in turn. For the third and the fourth kind, the request was forwarded.
func (g *Gateway) writeGarbage(w http.ResponseWriter, r *http.Request, turn int) {
	switch turn % 4 {
	case 0: // as during a hosted maintenance
		page(w, http.StatusOK)
	case 1: // JSON of some other server
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"ok":true}`))
	case 2:
		response := newDiscarded()
		g.forward.ServeHTTP(response, r)
		maps.Copy(w.Header(), response.header)
		w.Header().Set("Content-Length", strconv.Itoa(response.body.Len()+1)) // cuts even an empty one
		w.WriteHeader(response.status)
		_, _ = w.Write(response.body.Bytes()[:response.body.Len()/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler) // closes the connection without the rest
	case 3: // noise with the requested content type
		g.forward.ServeHTTP(newDiscarded(), r)
		wanted, _, _ := strings.Cut(r.Header.Get("Accept"), ",")
		w.Header().Set("Content-Type", wanted)
		_, _ = w.Write([]byte{0xff, 0xfe, 0x00, 0x1f, 0x8b, '<', '%'})
	}
}

// writeFaultStatus responds as Supabase's gateway does, with an HTML page, or with a code as PostgREST behind it.
func writeFaultStatus(w http.ResponseWriter, fault Fault) {
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
	_, _ = fmt.Fprintf(w, "<html><head><title>%d</title></head><body>This is the gateway.</body></html>", status)
}

// reset ends the connection with a TCP reset, as a restarted load balancer does.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2 shares its connection
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// discarded is a response that is not passed on.
type discarded struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func newDiscarded() *discarded { return &discarded{header: http.Header{}, status: http.StatusOK} }

func (d *discarded) Header() http.Header         { return d.header }
func (d *discarded) WriteHeader(status int)      { d.status = status }
func (d *discarded) Write(p []byte) (int, error) { return d.body.Write(p) }
