package blobstest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// FaultsPath is the control route for tests, for this machine only. GET shows the faults and how often each occurred,
// PUT takes [Faults] as JSON and resets the counts, DELETE turns them off.
const FaultsPath = "/_platform/blobs/faults"

// Faults are shares of the requests, from 0 to 1, that fail. All are off at first and after every Open. Sequential
// requests meet the same faults for the same seed.
type Faults struct {
	Seed              uint64   `json:"seed"`
	Methods           []string `json:"methods,omitempty"`   // only these, such as PUT; default all
	RateLimited       float64  `json:"rate_limited"`        // 429 with Retry-After and X-RateLimit-Reset; not applied
	RetryAfterSeconds int      `json:"retry_after_seconds"` // for those headers; default 1
	ServerError       float64  `json:"server_error"`        // 500, 502, 503 or 504; not applied
	Delayed           float64  `json:"delayed"`             // delayed, then handled as usual
	DelayMS           int      `json:"delay_ms"`            // at most 60000
	CutOff            float64  `json:"cut_off"`             // the body of a GET is truncated
	LostAnswer        float64  `json:"lost_answer"`         // applied, but the connection is closed without a response
	ExpiredURL        float64  `json:"expired_url"`         // the signed URL has already expired

	// Limit is how many requests the API accepts in one window, as documented by Netlify. Any more are 429 and not
	// applied, and every response has X-RateLimit-Limit, -Remaining and -Reset. Requests to the edge and to signed URLs
	// do not count. 0: no limit.
	Limit    int `json:"limit"`
	WindowMS int `json:"window_ms"` // default 60000; whole seconds, which is how the headers count
}

func (f Faults) check() error {
	for _, share := range []float64{f.RateLimited, f.ServerError, f.Delayed, f.CutOff, f.LostAnswer, f.ExpiredURL} {
		if !(share >= 0 && share <= 1) {
			return fmt.Errorf("a share has to be 0 to 1, got %v", share)
		}
	}
	if f.DelayMS < 0 || f.DelayMS > 60_000 {
		return errors.New("delay_ms has to be 0 to 60000")
	}
	if f.Limit < 0 || f.WindowMS < 0 || f.WindowMS%1000 != 0 {
		return errors.New("limit has to be 0 or more, and window_ms whole seconds")
	}
	return nil
}

// fault is what happens to one request.
type fault struct {
	response           *response // instead of applying it
	delay              time.Duration
	cut, lost, expired bool
}

type faults struct {
	mu     sync.Mutex
	set    Faults
	random *rand.Rand // nil while they are off
	counts map[string]int

	window int64 // in which used requests came
	used   int
}

// limited counts a request to the API, sets the headers about the limit, and reports whether it is exceeded. Windows
// begin at whole multiples of their length since 1970.
func (f *faults) limited(header http.Header, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.random == nil || f.set.Limit == 0 {
		return false
	}
	length := int64(cmp.Or(f.set.WindowMS, 60_000) / 1000)
	if window := now.Unix() / length; window != f.window {
		f.window, f.used = window, 0
	}
	f.used++
	f.counts["asked"]++
	f.counts["most_in_a_window"] = max(f.counts["most_in_a_window"], f.used)
	header.Set("X-Ratelimit-Limit", strconv.Itoa(f.set.Limit))
	header.Set("X-Ratelimit-Remaining", strconv.Itoa(max(0, f.set.Limit-f.used)))
	header.Set("X-Ratelimit-Reset", strconv.FormatInt((f.window+1)*length, 10))
	if f.used > f.set.Limit {
		f.counts["over_limit"]++
		return true
	}
	return false
}

// draw chooses a fault. It always uses the same number of random values, so that shares do not affect each other.
func (f *faults) draw(method string) (out fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.random == nil || len(f.set.Methods) > 0 && !slices.ContainsFunc(f.set.Methods, func(m string) bool {
		return strings.EqualFold(m, method)
	}) {
		return out
	}
	strikes := func(name string, share float64) bool {
		hit := f.random.Float64() < share
		if hit {
			f.counts[name]++
		}
		return hit
	}
	if strikes("delayed", f.set.Delayed) {
		out.delay = time.Duration(f.set.DelayMS) * time.Millisecond
	}
	out.cut = strikes("cut_off", f.set.CutOff)
	out.lost = strikes("lost_answer", f.set.LostAnswer)
	out.expired = strikes("expired_url", f.set.ExpiredURL)
	status := []int{500, 502, 503, 504}[f.random.IntN(4)]
	if strikes("server_error", f.set.ServerError) {
		a := failed(failf(status, "a fault that was asked for"))
		out.response = &a
	}
	if strikes("rate_limited", f.set.RateLimited) {
		wait := max(f.set.RetryAfterSeconds, 1)
		a := failed(failf(http.StatusTooManyRequests, "a fault that was asked for"))
		a.header.Set("Retry-After", strconv.Itoa(wait))
		a.header.Set("X-Ratelimit-Reset", strconv.FormatInt(time.Now().Add(out.delay).Unix()+int64(wait), 10))
		out.response = &a
	}
	return out
}

func (f *faults) serve(w http.ResponseWriter, r *http.Request) {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		failed(failf(http.StatusForbidden, "faults can only be set from this machine")).write(w)
		return
	}
	switch r.Method {
	case http.MethodGet:
	case http.MethodPut: // not POST, which any web page can send
		var set Faults
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16))
		d.DisallowUnknownFields()
		err := d.Decode(&set)
		if err == nil {
			err = set.check()
		}
		if err != nil {
			failed(failf(http.StatusBadRequest, "the faults cannot be read: %v", err)).write(w)
			return
		}
		f.mu.Lock()
		f.window, f.used = 0, 0
		f.set, f.random, f.counts = set, rand.New(rand.NewPCG(set.Seed, 0)), map[string]int{} // #nosec G404 -- to be repeated from its seed
		f.mu.Unlock()
	case http.MethodDelete:
		f.mu.Lock()
		f.set, f.random = Faults{}, nil
		f.mu.Unlock()
	default:
		failed(failf(http.StatusMethodNotAllowed, "GET, PUT or DELETE")).write(w)
		return
	}
	f.mu.Lock()
	a, err := asJSON(map[string]any{"faults": f.set, "counts": f.counts})
	f.mu.Unlock()
	if err != nil {
		a = failed(err)
	}
	a.write(w)
}
