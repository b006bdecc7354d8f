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

// Gateway stands in for the API gateway of a Supabase project, for /rest/v1 alone. Tests can have it misbehave: see
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
			r.Out.URL.RawQuery = r.In.URL.RawQuery       // as it came: a proxy that cleans it up changes what PostgREST is asked
			r.Out.Close = r.In.Method == http.MethodHead // PostgREST 12.0.2 breaks the connection after a HEAD that it refused
			g.authorize(r.Out)
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if errors.Is(err, context.Canceled) {
				return // the client went away
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

// ServeHTTP asks for a key, then forwards.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == controlPath {
		g.serveControl(w, r)
		return
	}
	if r.URL.Path != prefix && !strings.HasPrefix(r.URL.Path, prefix+"/") {
		refuse(w, http.StatusNotFound, "no Route matched with those values")
		return
	}
	switch key := r.Header.Get("Apikey"); {
	case key == "":
		refuse(w, http.StatusUnauthorized, "No API key found in request")
		return
	case g.token(key) == "":
		refuse(w, http.StatusUnauthorized, "Invalid API key")
		return
	}
	// PostgREST may answer before it has read the request, and a proxy that is still sending then cuts the answer
	// short.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			refuse(w, http.StatusRequestEntityTooLarge, "Request size limit exceeded")
		} // else the client broke off, and nobody reads an answer
		return
	}
	setBody(r, body)
	if fault, turn, hit := g.faults.next(); hit {
		g.misbehave(w, r, fault, turn)
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
	// With GetBody the transport sends again on a fresh connection when PostgREST had closed an idle one.
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
}

// token gives the JWT that a key stands for, or nothing for a key of another project.
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

// authorize gives PostgREST a JWT: the caller's own, or the one that the key stands for.
func (g *Gateway) authorize(r *http.Request) {
	bearer, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !found || strings.HasPrefix(bearer, "sb_") {
		r.Header.Set("Authorization", "Bearer "+g.token(r.Header.Get("Apikey")))
	}
	r.Header.Del("Apikey")
}

// unreachable answers as the hosted gateway does: 503 when there is nothing to connect to, 502 when a connection
// broke.
func unreachable(w http.ResponseWriter, err error) {
	if errors.Is(err, syscall.ECONNREFUSED) {
		refuse(w, http.StatusServiceUnavailable, "PostgREST is not running; it is being restarted")
		return
	}
	refuse(w, http.StatusBadGateway, "An invalid response was received from the upstream server")
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": message})
}
