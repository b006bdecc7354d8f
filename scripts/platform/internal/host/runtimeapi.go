package host

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Functions' programs are clients of the Runtime API. Each instance has its own path before /2018-06-01, so that the
// host knows which one asks for work. AWS_LAMBDA_RUNTIME_API carries that path after the port.

// ServeRuntime serves the Runtime API to instances.
func (h *Host) ServeRuntime(w http.ResponseWriter, r *http.Request) {
	token, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	in := h.byToken(token)
	if in == nil {
		http.Error(w, "no such instance", http.StatusForbidden)
		return
	}
	switch parts := strings.Split(rest, "/"); {
	case rest == "2018-06-01/runtime/invocation/next" && r.Method == http.MethodGet:
		h.serveNext(w, r, in)
	case rest == "2018-06-01/runtime/init/error" && r.Method == http.MethodPost:
		h.serveInitError(w, r, in)
	case len(parts) == 5 && strings.HasPrefix(rest, "2018-06-01/runtime/invocation/") && r.Method == http.MethodPost:
		h.serveOutcome(w, r, in, parts[3], parts[4])
	case rest == "2020-01-01/extension/register" && r.Method == http.MethodPost:
		w.Header().Set("Lambda-Extension-Identifier", in.token)
		writeJSON(w, http.StatusOK, map[string]string{"functionName": in.function.name, "functionVersion": "$LATEST", "handler": "bootstrap"})
	case rest == "2020-01-01/extension/event/next" && r.Method == http.MethodGet:
		// An extension that registers for no events never receives one.
		select {
		case <-r.Context().Done():
		case <-in.gone:
		}
	default:
		http.Error(w, "not part of the Runtime API", http.StatusNotFound)
	}
}

// serveNext sends the instance its next invocation, and waits for one if there is none.
func (h *Host) serveNext(w http.ResponseWriter, r *http.Request, in *instance) {
	in.function.offer(in)
	select {
	case inv, more := <-in.work:
		if !more {
			// aws-lambda-go exits on any status but 200, through log.Fatal, which writes coverage counters.
			http.Error(w, "no more work", http.StatusGone)
			return
		}
		header := w.Header()
		header.Set("Content-Type", "application/json")
		header.Set("Lambda-Runtime-Aws-Request-Id", inv.id)
		header.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(time.Now().Add(h.Timeout).UnixMilli(), 10))
		header.Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:"+region+":000000000000:function:"+in.function.name)
		header.Set("Lambda-Runtime-Trace-Id", "Root=1-"+strconv.FormatInt(time.Now().Unix(), 16)+"-"+inv.id[:24]+";Sampled=0")
		header.Set("Content-Length", strconv.Itoa(len(inv.event)))
		_, _ = w.Write(inv.event)
	case <-r.Context().Done():
		in.function.forget(in) // it closed the connection, so it has ended or is about to
	}
}

// serveOutcome takes a result or an error.
func (h *Host) serveOutcome(w http.ResponseWriter, r *http.Request, in *instance, id, what string) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxPayload))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		in.function.finish(in, id, outcome{kind: tooLarge})
		// As on Lambda, where aws-lambda-go treats this as fatal and the instance ends.
		writeJSON(w, http.StatusRequestEntityTooLarge, map[string]string{"errorType": "RequestEntityTooLarge",
			"errorMessage": "Exceeded maximum allowed payload size (" + strconv.Itoa(MaxPayload) + " bytes)."})
		return
	case err != nil:
		return // the instance has ended, which is handled elsewhere
	}
	kind := succeeded
	switch what {
	case "response":
	case "error":
		kind = failed
	default:
		http.Error(w, "not part of the Runtime API", http.StatusNotFound)
		return
	}
	if !in.function.finish(in, id, outcome{kind: kind, body: body}) {
		writeJSON(w, http.StatusBadRequest, map[string]string{"errorType": "InvalidRequestID", "errorMessage": "Invalid request ID"})
		return
	}
	writeJSON(w, http.StatusAccepted, map[string]string{"status": "OK"})
}

func (h *Host) serveInitError(w http.ResponseWriter, r *http.Request, in *instance) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	h.printed(in, append([]byte("init error: "), body...))
	writeJSON(w, http.StatusAccepted, map[string]string{"status": "OK"})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
