package postgrest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// prefix is where Supabase serves PostgREST.
const prefix = "/rest/v1"

// maxBody bounds a request. A value of a few megabytes is the largest thing that is sent.
const maxBody = 64 << 20

// Gateway stands in for the API gateway of a Supabase project, for /rest/v1 only. Tests can inject faults: see
// [Fault].
type Gateway struct {
	keys    Keys
	forward *httputil.ReverseProxy
	faults  faults
}

// NewGateway forwards to PostgREST at target.
func NewGateway(target string, keys Keys, log *slog.Logger) (*Gateway, error) {
	to, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{MaxIdleConns: 256, MaxIdleConnsPerHost: 256, IdleConnTimeout: 30 * time.Second, DisableCompression: true}
	g := &Gateway{keys: keys}
	g.forward = &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.URL.Path = cut(r.In.URL.Path)
			r.Out.URL.RawPath = cut(r.In.URL.RawPath)
			r.Out.URL.RawQuery = r.In.URL.RawQuery       // unchanged: a cleaned-up query may mean something else to PostgREST
			r.Out.Close = r.In.Method == http.MethodHead // PostgREST 12.0.2 breaks the connection after a HEAD that it refused
			g.authorize(r.Out)
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if errors.Is(err, context.Canceled) {
				return // the client is gone
			}
			log.Warn("PostgREST did not answer", "method", r.Method, "error", err.Error())
			unreachable(w, err)
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	return g, nil
}

func cut(path string) string {
	rest := strings.TrimPrefix(path, prefix)
	if path != "" && rest == "" {
		return "/"
	}
	return rest
}

// ServeHTTP checks the key and forwards the request.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == controlPath {
		g.serveControl(w, r)
		return
	}
	if r.URL.Path != prefix && !strings.HasPrefix(r.URL.Path, prefix+"/") {
		writeError(w, http.StatusNotFound, "no Route matched with those values")
		return
	}
	switch key := r.Header.Get("Apikey"); {
	case key == "":
		writeError(w, http.StatusUnauthorized, "No API key found in request")
		return
	case g.token(key) == "":
		writeError(w, http.StatusUnauthorized, "Invalid API key")
		return
	}
	// PostgREST may respond before it has read the request. A proxy that is still sending would then cut the response
	// short.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			writeError(w, http.StatusRequestEntityTooLarge, "Request size limit exceeded")
		} // else the client is gone
		return
	}
	setBody(r, body)
	if fault, turn, hit := g.faults.next(); hit {
		g.inject(w, r, fault, turn)
		return
	}
	g.forward.ServeHTTP(w, r)
}

func setBody(r *http.Request, body []byte) {
	r.ContentLength = int64(len(body))
	r.TransferEncoding = nil
	if len(body) == 0 {
		r.Body = http.NoBody
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	// With GetBody, the transport can retry on a new connection when PostgREST has closed an idle one.
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
}

// token returns the JWT for a key, or "" for a key of another project.
func (g *Gateway) token(key string) string {
	switch key {
	case g.keys.Anon, g.keys.ServiceRole:
		return key
	case g.keys.Secret:
		return g.keys.ServiceRole
	default:
		return ""
	}
}

// authorize sets the JWT for PostgREST: the caller's own, or the one for the key.
func (g *Gateway) authorize(r *http.Request) {
	bearer, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !found || strings.HasPrefix(bearer, "sb_") {
		r.Header.Set("Authorization", "Bearer "+g.token(r.Header.Get("Apikey")))
	}
	r.Header.Del("Apikey")
}

// unreachable responds as the hosted gateway does: 503 when the connection is refused, 502 when it broke.
func unreachable(w http.ResponseWriter, err error) {
	if errors.Is(err, syscall.ECONNREFUSED) {
		writeError(w, http.StatusServiceUnavailable, "PostgREST is not running; it is being restarted")
		return
	}
	writeError(w, http.StatusBadGateway, "An invalid response was received from the upstream server")
}

func writeError(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": message})
}
