package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"
)

// netlify dev starts a program of its own, local-functions-proxy, for each request to a Go function. That program reads
// a variable that another goroutine of it may not have set yet, and then crashes before it starts the function: of 300
// requests on a busy machine, three did. Tests cannot allow for that at each request, so they call netlify dev through a
// proxy that repeats such a request.

// crashed is in the response to a request for which local-functions-proxy crashed.
const crashed = "rapidcore.(*SandboxBuilder).Init("

// maxTries is how often a request is sent. The last response counts, whatever it is.
const maxTries = 10

// startRepeating starts a proxy in front of netlify dev at address. It returns the proxy's address, and what ends it.
// Each repeated request is reported.
func startRepeating(address string, report func(format string, args ...any)) (string, func(), error) {
	target, err := url.Parse(address)
	if err != nil {
		return "", nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	transport := &http.Transport{DisableCompression: true} // whether a response is compressed is up to the client
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: repeating{transport, report},
	}}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	return "http://" + listener.Addr().String(), func() {
		_ = server.Close()
		<-ended
		transport.CloseIdleConnections()
	}, nil
}

type repeating struct {
	http.RoundTripper
	report func(format string, args ...any)
}

func (t repeating) RoundTrip(r *http.Request) (*http.Response, error) {
	var sent []byte
	if r.Body != nil {
		var err error
		if sent, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	for try := 1; ; try++ {
		again := r.Clone(r.Context())
		if again.Body = http.NoBody; len(sent) > 0 {
			again.Body = io.NopCloser(bytes.NewReader(sent))
		}
		response, err := t.RoundTripper.RoundTrip(again)
		if err != nil || response.StatusCode != http.StatusInternalServerError {
			return response, err
		}
		body, err := io.ReadAll(response.Body)
		if err = errors.Join(err, response.Body.Close()); err != nil {
			return nil, err
		}
		if try == maxTries || !bytes.Contains(body, []byte(crashed)) {
			response.Body = io.NopCloser(bytes.NewReader(body))
			return response, nil
		}
		t.report("repeated   %s %s, since netlify dev crashed before it started the function", r.Method, r.URL.Path)
	}
}
