package supervisor

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"netlify-supabase-kv/scripts/platform/internal/say"
)

// Orders that a running supervisor takes. Everything else at its address is the Runtime API of the function host.
const (
	orderPrefix = "/_control/"
	orderFollow = orderPrefix + "follow" // look at the spec again
	orderStop   = orderPrefix + "stop"

	tokenHeader = "X-Platform-Token"
)

// refusal is how a failed order is answered.
type refusal struct {
	Error string `json:"error"`
	Try   string `json:"try,omitempty"`
}

func (s *supervisor) serveControl(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, orderPrefix) {
		s.serveRuntime(w, r)
		return
	}
	if subtle.ConstantTimeCompare([]byte(r.Header.Get(tokenHeader)), []byte(s.state.Token)) != 1 {
		http.Error(w, "not for you", http.StatusForbidden)
		return
	}
	switch r.URL.Path {
	case orderFollow:
		// A command that is interrupted must not leave a half-followed spec.
		answer(w, s.follow(context.WithoutCancel(r.Context())))
	case orderStop:
		answer(w, nil)
		s.end()
	default:
		http.NotFound(w, r)
	}
}

func (s *supervisor) serveRuntime(w http.ResponseWriter, r *http.Request) {
	if h := s.runtime.Load(); h != nil {
		h.ServeRuntime(w, r)
		return
	}
	http.Error(w, "no functions run", http.StatusServiceUnavailable)
}

func answer(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err == nil {
		_, _ = w.Write([]byte("{}\n"))
		return
	}
	out := refusal{Error: err.Error()}
	var hint *say.Hint
	if errors.As(err, &hint) {
		out.Try = hint.Try
	}
	w.WriteHeader(http.StatusConflict)
	_ = json.NewEncoder(w).Encode(out)
}
