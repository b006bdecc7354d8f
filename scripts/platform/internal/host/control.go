package host

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// controlPrefix begins addresses that Netlify does not have. Tests use them to find out whether they run against this
// host.
const controlPrefix = "/_platform/"

// Instance describes one instance to tests.
type Instance struct {
	Function   string `json:"function"`
	Instance   int    `json:"instance"` // the slot
	Generation int    `json:"generation"`
	Name       string `json:"name"` // the value of X-KV-Instance
	PID        int    `json:"pid"`  // 0 while it is being replaced
	Busy       bool   `json:"busy"`
	Requests   int    `json:"requests"`
}

// describe lists every instance.
func (h *Host) describe() []Instance {
	list := []Instance{}
	for _, name := range slices.Sorted(maps.Keys(h.functions)) {
		for _, s := range h.functions[name].slots {
			if in := s.instance(); in != nil {
				list = append(list, in.describe())
			}
		}
	}
	return list
}

func (in *instance) describe() Instance {
	in.function.mu.Lock()
	defer in.function.mu.Unlock()
	return Instance{Function: in.function.name, Instance: in.slot, Generation: in.generation, Name: in.Name(),
		PID: in.pid, Busy: in.current != nil, Requests: in.requests}
}

func (h *Host) serveControl(w http.ResponseWriter, r *http.Request) {
	if !fromHere(r) {
		writeLambdaError(w, http.StatusForbidden, "Forbidden", "only programs on this machine may use this address, not pages of another site")
		return
	}
	switch strings.TrimPrefix(r.URL.Path, controlPrefix) {
	case "healthz":
		writeJSON(w, http.StatusOK, map[string]bool{"ok": true})
	case "instances":
		writeJSON(w, http.StatusOK, map[string]any{"instances": h.describe()})
	case "restart":
		h.serveRestart(w, r)
	default:
		writeLambdaError(w, http.StatusNotFound, "NotFound", "the host has healthz, instances and restart")
	}
}

// fromHere refuses requests of web pages: without it, any page open in a browser on this machine could restart
// functions.
func fromHere(r *http.Request) bool {
	name, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		name = r.Host
	}
	ip := net.ParseIP(name)
	local := name == "localhost" || (ip != nil && ip.IsLoopback())
	return local && r.Header.Get("Origin") == "" && r.Header.Get("Sec-Fetch-Site") == ""
}

// serveRestart replaces instances and responds when the new ones are ready.
func (h *Host) serveRestart(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		writeLambdaError(w, http.StatusMethodNotAllowed, "MethodNotAllowed", "restart takes POST")
		return
	}
	chosen, number, err := h.chosen(r)
	if err != nil {
		writeLambdaError(w, http.StatusBadRequest, "BadRequest", err.Error())
		return
	}
	for _, f := range chosen {
		if err := f.restart(r.Context(), number); err != nil {
			writeLambdaError(w, http.StatusBadGateway, "Runtime.ExitError", err.Error())
			return
		}
	}
	writeJSON(w, http.StatusOK, map[string]any{"instances": h.describe()})
}

// chosen reads function and instance from the query. Without them, it returns all functions.
func (h *Host) chosen(r *http.Request) ([]*function, int, error) {
	number := -1
	if text := r.FormValue("instance"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n >= h.Instances {
			return nil, 0, fmt.Errorf("instance must be 0 to %d, got %q", h.Instances-1, text)
		}
		number = n
	}
	name := r.FormValue("function")
	if name == "" && number >= 0 {
		return nil, 0, errors.New("instance needs function, too")
	}
	if name == "" {
		return slices.Collect(maps.Values(h.functions)), number, nil
	}
	f := h.functions[name]
	if f == nil {
		return nil, 0, fmt.Errorf("there is no function %q", name)
	}
	return []*function{f}, number, nil
}
