package blobs

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs/blobstest"

	"netlify-supabase-kv/pkg/upstream"
)

// patient repeats fast, and long enough for a busy machine.
var patient = upstream.Policy{FirstPause: time.Millisecond, MaxPause: 20 * time.Millisecond, Total: time.Minute}

// standIn is a server that behaves like hosted Blobs.
type standIn struct {
	access blobstest.Access
	url    string
	seen   func(*http.Request) // called for every request; may be nil
}

func newStandIn(t testing.TB, opt blobstest.Options) *standIn {
	t.Helper()
	server, err := blobstest.Open(t.TempDir(), opt)
	require.NoError(t, err)
	s := &standIn{}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.seen != nil {
			s.seen(r)
		}
		server.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	s.url, s.access = h.URL, server.Access(h.URL)
	return s
}

func (s *standIn) edge(t testing.TB) Access {
	t.Helper()
	a, err := AccessFromEvent(s.access.Event, s.access.SiteID)
	require.NoError(t, err)
	return a
}

func (s *standIn) api() Access {
	return Access{SiteID: s.access.SiteID, APIURL: s.access.APIURL, APIToken: s.access.APIToken}
}

func clientOf(a Access) *Client {
	c := NewClient("kv").WithDefault(a)
	c.retry = patient
	return c
}

// eachWay runs the test through the edge and through the API, each on its own stand-in.
func eachWay(t *testing.T, opt blobstest.Options, run func(*testing.T, *standIn, *Client)) {
	t.Helper()
	t.Run("Edge", func(t *testing.T) {
		t.Parallel()
		s := newStandIn(t, opt)
		run(t, s, clientOf(s.edge(t)))
	})
	t.Run("API", func(t *testing.T) {
		t.Parallel()
		s := newStandIn(t, opt)
		run(t, s, clientOf(s.api()))
	})
}

// setFaults turns faults on. The function that it returns turns them off, and returns how often each occurred.
func (s *standIn) setFaults(t *testing.T, f blobstest.Faults) (end func() map[string]int) {
	t.Helper()
	text, err := json.Marshal(f)
	require.NoError(t, err)
	s.control(t, http.MethodPut, text)
	return func() map[string]int { return s.control(t, http.MethodDelete, nil) }
}

func (s *standIn) control(t *testing.T, method string, body []byte) map[string]int {
	t.Helper()
	r, err := http.NewRequest(method, s.url+blobstest.FaultsPath, bytes.NewReader(body))
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)
	var state struct{ Counts map[string]int }
	require.NoError(t, json.NewDecoder(response.Body).Decode(&state))
	return state.Counts
}

// script returns a client whose requests go to one handler after the other, and all further ones to the last. The
// function that it returns counts the requests.
func script(t *testing.T, handlers ...http.HandlerFunc) (*Client, func() int) {
	t.Helper()
	var asked atomic.Int64
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handlers[min(int(asked.Add(1)), len(handlers))-1](w, r)
	}))
	t.Cleanup(h.Close)
	return clientOf(Access{SiteID: "site", EdgeURL: h.URL, EdgeToken: token}), func() int { return int(asked.Load()) }
}

// viaAPI returns the same client through the API.
func viaAPI(c *Client) *Client {
	return c.withRetry(c.retry, Access{SiteID: "site", APIURL: c.fallback.EdgeURL, APIToken: token})
}

func (c *Client) withRetry(p upstream.Policy, a Access) *Client {
	c = c.WithDefault(a)
	c.retry = p
	return c
}

const token = "the-secret-token"

func status(code int, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(code)
	}
}

func text(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"etag"`)
		_, _ = w.Write([]byte(body))
	}
}

// signs responds with an address of its own server.
func signs(w http.ResponseWriter, r *http.Request) {
	_ = json.NewEncoder(w).Encode(map[string]string{"url": "http://" + r.Host + "/bucket/name?signature=" + signature})
}

const signature = "the-secret-signature"

func lost(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// hung responds only once the client has gone. The server notices that after it has read the body.
func hung(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

func keys(t *testing.T, c *Client, prefix string) []string {
	t.Helper()
	got := []string{}
	for l, err := range c.List(context.Background(), prefix) {
		require.NoError(t, err)
		got = append(got, l.Key)
	}
	return got
}
