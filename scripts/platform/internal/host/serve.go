package host

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxDiscard is how much of a too large request is read and discarded before the response.
const maxDiscard = 64 << 20

// InstanceHeader names the instance that handled the request.
const InstanceHeader = "X-Kv-Instance"

// ServeHTTP routes as Netlify does: functions by their address, then files, then rewrites.
func (h *Host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, controlPrefix) {
		h.serveControl(w, r)
		return
	}
	_, direct := functionOf(r.URL.EscapedPath())
	if !direct && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		if file, ok := static(h.PublishDir, r.URL.Path); ok {
			http.ServeFile(w, withPath(r, "/"), file)
			return
		}
	}
	name, ok := h.Config.route(r.URL.EscapedPath())
	if !ok {
		notFound(w, "Not found")
		return
	}
	f := h.functions[name]
	if f == nil {
		notFound(w, "Function not found: "+name)
		return
	}
	h.invoke(w, r, f)
}

// withPath returns the request with another path. http.ServeFile would redirect /index.html, which Netlify does not.
func withPath(r *http.Request, path string) *http.Request {
	r2 := r.Clone(r.Context())
	r2.URL.Path = path
	return r2
}

// invoke passes a request to an instance of f.
func (h *Host) invoke(w http.ResponseWriter, r *http.Request, f *function) {
	requestID := newID()
	w.Header().Set("X-Nf-Request-Id", requestID)
	payload, err := readEvent(r, h.Site, requestID)
	switch {
	case errors.Is(err, errTooLarge):
		writeError(w, http.StatusRequestEntityTooLarge, "Runtime.RequestTooLarge", fmt.Sprintf("the request is over the %d bytes that a function takes", MaxPayload))
		return
	case err != nil:
		writeError(w, http.StatusBadRequest, "Runtime.BadRequest", "the request ended early")
		return
	}
	if reason := f.broken(); reason != "" {
		writeError(w, http.StatusBadGateway, "Runtime.ExitError", reason)
		return
	}
	inv := newInvocation(requestID, payload)
	f.submit(inv)
	in, o, err := h.await(f, inv)
	if in != nil {
		w.Header().Set(InstanceHeader, in.Name())
	}
	if err != nil {
		h.writeTimeout(w, in, err)
		return
	}
	h.writeOutcome(w, r, in, o)
}

var (
	errTooLarge = errors.New("the event is too large")
	errTimedOut = errors.New("timed out")
	errAllBusy  = errors.New("every instance was busy")
)

// readEvent reads the complete request first, so that no instance waits for a slow client.
func readEvent(r *http.Request, site Site, requestID string) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxPayload+1))
	if err != nil {
		return nil, err
	}
	if len(body) > MaxPayload {
		// A client that is still sending may not see the response, so read on for a while.
		_, _ = io.CopyN(io.Discard, r.Body, maxDiscard)
		return nil, errTooLarge
	}
	payload, err := newEvent(r, body, site, requestID).marshal()
	if err != nil {
		return nil, err
	}
	if len(payload) > MaxPayload {
		return nil, errTooLarge
	}
	return payload, nil
}

// await waits for an instance and for its outcome. As on Lambda, an invocation continues when its client is gone.
func (h *Host) await(f *function, inv *invocation) (*instance, outcome, error) {
	timer := time.NewTimer(h.Timeout)
	defer timer.Stop()
	var in *instance
	select {
	case in = <-inv.assigned:
	case o := <-inv.result:
		select {
		case in = <-inv.assigned: // it began and ended before this goroutine looked
		default: // no instance can start
		}
		return in, o, nil
	case <-timer.C:
		f.withdraw(inv)
		return nil, outcome{}, errAllBusy
	}
	timer.Reset(h.Timeout)
	select {
	case o := <-inv.result:
		return in, o, nil
	case <-timer.C:
		in.kill()
		<-in.gone
		return in, outcome{}, errTimedOut
	}
}

func (h *Host) writeTimeout(w http.ResponseWriter, in *instance, err error) {
	if errors.Is(err, errTimedOut) {
		h.Log.Warn("function timed out", "instance", in.Name())
		writeError(w, http.StatusGatewayTimeout, "Sandbox.Timedout", fmt.Sprintf("Task timed out after %.2f seconds", h.Timeout.Seconds()))
		return
	}
	writeError(w, http.StatusGatewayTimeout, "Runtime.Busy", fmt.Sprintf("every instance was busy for %.2f seconds", h.Timeout.Seconds()))
}

// writeOutcome writes the response for an outcome.
func (h *Host) writeOutcome(w http.ResponseWriter, r *http.Request, in *instance, o outcome) {
	switch o.kind {
	case succeeded:
		if err := writeResult(w, r.Method, o.body); err != nil {
			h.Log.Warn("function returned an invalid response", "instance", in.Name(), "error", err.Error())
			writeError(w, http.StatusBadGateway, "Runtime.InvalidResponse", "error decoding lambda response: "+err.Error())
		}
	case failed:
		// The function's own error object, as Netlify shows it.
		allowAnyOrigin(w)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadGateway)
		_, _ = w.Write(o.body)
	case tooLarge:
		writeError(w, http.StatusBadGateway, "Function.ResponseSizeTooLarge", fmt.Sprintf("Response payload size exceeded maximum allowed payload size (%d bytes).", MaxPayload))
	case died:
		reason := string(o.body)
		if reason == "" {
			reason = "the function's process ended before it answered"
		}
		writeError(w, http.StatusBadGateway, "Runtime.ExitError", reason)
	case abandoned:
		writeError(w, http.StatusBadGateway, "Runtime.NoResponse", "the function asked for its next request without answering this one")
	}
}

// writeError writes the host's own response in place of a function's.
func writeError(w http.ResponseWriter, status int, kind, message string) {
	allowAnyOrigin(w)
	writeLambdaError(w, status, kind, message)
}

// writeLambdaError writes an error as Lambda does.
func writeLambdaError(w http.ResponseWriter, status int, kind, message string) {
	writeJSON(w, status, map[string]string{"errorType": kind, "errorMessage": message})
}

func notFound(w http.ResponseWriter, message string) {
	allowAnyOrigin(w)
	http.Error(w, message, http.StatusNotFound)
}

// allowAnyOrigin lets pages of any origin read the host's own response. Without it, a browser would report a failed
// connection.
func allowAnyOrigin(w http.ResponseWriter) { w.Header().Set("Access-Control-Allow-Origin", "*") }

// response is the result of a function.
type response struct {
	StatusCode        int                 `json:"statusCode"`
	Headers           map[string]string   `json:"headers"`
	MultiValueHeaders map[string][]string `json:"multiValueHeaders"`
	Body              string              `json:"body"`
	IsBase64Encoded   bool                `json:"isBase64Encoded"`
}

// writeResult writes the result of a function. After an error it has written nothing.
func writeResult(w http.ResponseWriter, method string, result []byte) error {
	var r response
	if err := json.Unmarshal(result, &r); err != nil {
		return err
	}
	if r.StatusCode < 200 || r.StatusCode > 599 {
		return fmt.Errorf("invalid status code returned from lambda: %d", r.StatusCode)
	}
	body := []byte(r.Body)
	if r.IsBase64Encoded {
		decoded, err := base64.StdEncoding.DecodeString(r.Body)
		if err != nil {
			return fmt.Errorf("the body is not base64: %w", err)
		}
		body = decoded
	}
	header := w.Header()
	for name, value := range r.Headers {
		header.Set(name, value)
	}
	for name, values := range r.MultiValueHeaders {
		header.Del(name)
		for _, v := range values {
			header.Add(name, v)
		}
	}
	if header.Get("Content-Type") == "" {
		header.Set("Content-Type", "text/plain; charset=utf-8") // else Go would guess one from the body
	}
	if method != http.MethodHead || len(body) > 0 { // to HEAD, a function may say how long the body would be
		header.Del("Content-Length") // the function's own may not fit what is sent
	}
	if bodyAllowed(r.StatusCode) && header.Get("Content-Length") == "" {
		header.Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(r.StatusCode)
	if bodyAllowed(r.StatusCode) {
		_, _ = w.Write(body)
	}
	return nil
}

func bodyAllowed(status int) bool {
	return status != http.StatusNoContent && status != http.StatusNotModified
}
