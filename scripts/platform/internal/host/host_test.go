package host

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/scripts/platform/internal/proc"
)

// program is testdata/lambda, built once: a function with the real client of the Runtime API.
var program string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "host-test-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "bootstrap")
		cmd := exec.Command("go", "build", "-tags", "lambda.norpc", "-o", program, "./testdata/lambda")
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build testdata/lambda: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// site is a running host with the function f.
type site struct {
	*httptest.Server
	host *Host
	log  *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newSite makes a site whose function does not run yet.
func newSite(t *testing.T, change func(*Options)) *site {
	t.Helper()
	s := &site{log: &lockedBuffer{}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	o := Options{Programs: map[string]string{"f": program}, RuntimeAddress: listener.Addr().String(), Instances: 2, Timeout: time.Minute, Output: s.log, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Site:   Site{ID: "site", Context: "dev", Blobs: "e30="},
		Config: Config{Redirects: []Redirect{{From: "/api/f/*", To: "/.netlify/functions/f/:splat", Status: 200}}}}
	if change != nil {
		change(&o)
	}
	s.host = New(o)
	runtime := &http.Server{Handler: http.HandlerFunc(s.host.ServeRuntime)}
	go func() { _ = runtime.Serve(listener) }()
	s.Server = httptest.NewServer(s.host)
	t.Cleanup(func() {
		s.Close()
		s.host.Close()
		_ = runtime.Close()
	})
	return s
}

func (s *site) start(t *testing.T) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return s.host.Start(ctx)
}

func running(t *testing.T, change func(*Options)) *site {
	t.Helper()
	s := newSite(t, change)
	require.NoError(t, s.start(t))
	return s
}

func (s *site) get(t *testing.T, query string) (*http.Response, string) {
	t.Helper()
	return s.do(t, http.MethodGet, "/.netlify/functions/f?"+query, nil, "")
}

func (s *site) do(t *testing.T, method, path string, body io.Reader, contentType string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, body)
	require.NoError(t, err)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := s.Client().Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(content)
}

func lambdaError(kind, message string) string {
	text, _ := json.Marshal(map[string]string{"errorType": kind, "errorMessage": message})
	return string(text) + "\n"
}

func TestRequestReachesTheFunctionUnderARewrite(t *testing.T) {
	t.Parallel()
	s := running(t, nil)
	resp, body := s.do(t, http.MethodPost, "/api/f/a%2Fb?x=1&x=2", strings.NewReader(`{"a":1}`), "application/json")
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Equal(t, "application/json", resp.Header.Get("Content-Type"))
	require.Regexp(t, `^f-[01]-1$`, resp.Header.Get(InstanceHeader))
	var e event
	require.NoError(t, json.Unmarshal([]byte(body), &e))
	require.Equal(t, "/api/f/a%2Fb", e.Path)
	require.Equal(t, "x=1&x=2", e.RawQuery)
	require.Equal(t, `{"a":1}`, *e.Body)
}

func TestInstancesTakeTurnsAndStayWarm(t *testing.T) {
	t.Parallel()
	s := running(t, func(o *Options) { o.Instances = 3 })
	f := s.host.functions["f"]
	seen := map[string]int{}
	for range 9 {
		require.Eventually(t, func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return len(f.idle) == 3
		}, time.Minute, time.Millisecond, "every instance asks for its next request")
		resp, _ := s.get(t, "")
		seen[resp.Header.Get(InstanceHeader)]++
	}
	require.Equal(t, map[string]int{"f-0-1": 3, "f-1-1": 3, "f-2-1": 3}, seen)
}

func TestOneInvocationAtATimePerInstance(t *testing.T) {
	t.Parallel()
	s := running(t, func(o *Options) { o.Instances = 1 })
	began := time.Now()
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			resp, _ := s.get(t, "do=sleep&n=100ms")
			require.Equal(t, http.StatusOK, resp.StatusCode)
		})
	}
	all.Wait()
	require.GreaterOrEqual(t, time.Since(began), 300*time.Millisecond)
}

func TestFunctionSeesOnlyItsOwnEnvironment(t *testing.T) {
	t.Setenv("SECRET_OF_THE_SHELL", "1")
	s := running(t, func(o *Options) { o.Instances, o.Env = 1, map[string]string{"KV_X": "y"} })
	_, body := s.get(t, "do=env")
	lines := strings.Split(body, "\n")
	require.Contains(t, lines, "KV_X=y")
	require.Contains(t, lines, "AWS_LAMBDA_FUNCTION_NAME=f")
	require.Contains(t, lines, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=1024")
	require.NotContains(t, body, "SECRET_OF_THE_SHELL")
}

func TestResponseOfAFunction(t *testing.T) {
	t.Parallel()
	s := running(t, nil)
	resp, body := s.get(t, "do=headers")
	require.Equal(t, 201, resp.StatusCode)
	require.Equal(t, "\x00\x01\xff", body)
	require.Equal(t, "1", resp.Header.Get("X-One"))
	require.Equal(t, []string{"a", "b"}, resp.Header["X-Many"])

	resp, body = s.get(t, "do=nothing")
	require.Equal(t, 304, resp.StatusCode)
	require.Equal(t, `"x"`, resp.Header.Get("ETag"))
	require.Empty(t, body)

	resp, body = s.do(t, http.MethodHead, "/.netlify/functions/f?do=headers", nil, "")
	require.Equal(t, 201, resp.StatusCode)
	require.Equal(t, int64(3), resp.ContentLength)
	require.Empty(t, body)

	resp, _ = s.do(t, http.MethodHead, "/.netlify/functions/f?do=length&n=42", nil, "")
	require.Equal(t, int64(42), resp.ContentLength, "to HEAD, the function says how long the body would be")
	resp, _ = s.get(t, "do=length&n=42")
	require.Equal(t, int64(0), resp.ContentLength, "to GET, what is sent counts")
	require.NotContains(t, resp.Header, "Access-Control-Allow-Origin", "the host adds it to no function's answer")
}

// TestEveryPageMayReadTheHostsOwnResponses: without the header, a browser would report a failed connection.
func TestEveryPageMayReadTheHostsOwnResponses(t *testing.T) {
	t.Parallel()
	s := running(t, nil)
	for name, c := range map[string]struct {
		method, path string
		body         io.Reader
		status       int
	}{
		"TooLarge":     {http.MethodPost, "/api/f/x", strings.NewReader(strings.Repeat("x", MaxPayload+1)), http.StatusRequestEntityTooLarge},
		"NoFunction":   {http.MethodGet, "/.netlify/functions/none", nil, http.StatusNotFound},
		"NoAddress":    {http.MethodGet, "/api/none", nil, http.StatusNotFound},
		"FunctionFail": {http.MethodGet, "/.netlify/functions/f?do=fail", nil, http.StatusBadGateway},
		"FunctionExit": {http.MethodGet, "/.netlify/functions/f?do=exit", nil, http.StatusBadGateway},
	} {
		resp, _ := s.do(t, c.method, c.path, c.body, "text/plain")
		require.Equal(t, c.status, resp.StatusCode, name)
		require.Equal(t, []string{"*"}, resp.Header.Values("Access-Control-Allow-Origin"), name)
	}
	resp, _ := s.do(t, http.MethodGet, "/_platform/none", nil, "")
	require.Equal(t, http.StatusNotFound, resp.StatusCode)
	require.NotContains(t, resp.Header, "Access-Control-Allow-Origin", "the control addresses are for no page")
}

func TestFailuresOfAFunction(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, query, body string
	}{
		{"ReportedError", "do=fail", `{"errorMessage":"asked to","errorType":"errorString"}`},
		{"BadStatus", "do=badstatus", lambdaError("Runtime.InvalidResponse", "error decoding lambda response: invalid status code returned from lambda: 7")},
		{"Exit", "do=exit", lambdaError("Runtime.ExitError", "the function's process ended before it answered")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := running(t, nil)
			resp, body := s.get(t, tt.query)
			require.Equal(t, http.StatusBadGateway, resp.StatusCode)
			require.Equal(t, tt.body, body)
			resp, _ = s.get(t, "")
			require.Equal(t, http.StatusOK, resp.StatusCode)
		})
	}
}

func TestPanicIsReportedAndTheInstanceReplaced(t *testing.T) {
	t.Parallel()
	s := running(t, func(o *Options) { o.Instances = 1 })
	resp, body := s.get(t, "do=panic")
	require.Equal(t, http.StatusBadGateway, resp.StatusCode)
	require.Contains(t, body, `"errorMessage":"asked to"`)
	require.Equal(t, "f-0-1", resp.Header.Get(InstanceHeader))
	resp, _ = s.get(t, "")
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Equal(t, "f-0-2", resp.Header.Get(InstanceHeader))
	require.Contains(t, s.log.String(), "f-0-1 | ")
}

func TestKilledInstanceIsReplaced(t *testing.T) {
	t.Parallel()
	s := running(t, func(o *Options) { o.Instances = 1 })
	require.NoError(t, proc.Kill(s.host.describe()[0].PID))
	require.Eventually(t, func() bool {
		resp, _ := s.get(t, "")
		return resp.StatusCode == http.StatusOK && resp.Header.Get(InstanceHeader) == "f-0-2"
	}, time.Minute, 10*time.Millisecond)
}

func TestTimeoutEndsTheInstance(t *testing.T) {
	t.Parallel()
	s := running(t, func(o *Options) { o.Instances, o.Timeout = 1, 300*time.Millisecond })
	pid := s.host.describe()[0].PID
	resp, body := s.get(t, "do=sleep&n=1m")
	require.Equal(t, http.StatusGatewayTimeout, resp.StatusCode)
	require.Equal(t, lambdaError("Sandbox.Timedout", "Task timed out after 0.30 seconds"), body)
	require.Equal(t, "f-0-1", resp.Header.Get(InstanceHeader))
	requireGone(t, pid)
	require.Eventually(t, func() bool { // the timeout includes the start of a new instance
		resp, _ := s.get(t, "")
		return resp.StatusCode == http.StatusOK && resp.Header.Get(InstanceHeader) != "f-0-1"
	}, time.Minute, 10*time.Millisecond)
}

func TestRequestsThatFindEveryInstanceBusyWaitTheirTurn(t *testing.T) {
	t.Parallel()
	s := running(t, func(o *Options) { o.Instances, o.Timeout = 1, 4*time.Second })
	slow := func() (int, string) {
		resp, body := s.get(t, "do=sleep&n=2500ms")
		return resp.StatusCode, body
	}
	var all sync.WaitGroup
	for range 2 { // the second waits for the first; neither runs longer than the timeout
		all.Go(func() {
			status, _ := slow()
			if status != http.StatusOK {
				t.Errorf("responded with %d", status)
			}
		})
	}
	f := s.host.functions["f"]
	require.Eventually(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.waiting) == 1
	}, time.Minute, time.Millisecond)
	resp, body := s.get(t, "")
	require.Equal(t, http.StatusGatewayTimeout, resp.StatusCode)
	require.Equal(t, lambdaError("Runtime.Busy", "every instance was busy for 4.00 seconds"), body)
	require.Empty(t, resp.Header.Get(InstanceHeader))
	all.Wait()
}

func TestResponseAtAndOverTheLimit(t *testing.T) {
	t.Parallel()
	s := running(t, func(o *Options) { o.Instances = 1 })
	resp, body := s.get(t, fmt.Sprintf("do=large&n=%d", MaxPayload))
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Greater(t, len(body), MaxPayload-100)
	resp, body = s.get(t, fmt.Sprintf("do=large&n=%d", MaxPayload+1))
	require.Equal(t, http.StatusBadGateway, resp.StatusCode)
	require.Equal(t, lambdaError("Function.ResponseSizeTooLarge", "Response payload size exceeded maximum allowed payload size (6291456 bytes)."), body)
	resp, _ = s.get(t, "")
	require.Equal(t, http.StatusOK, resp.StatusCode)
}

func TestRequestAtAndOverTheLimit(t *testing.T) {
	t.Parallel()
	s := running(t, nil)
	send := func(length int) (int, string) {
		resp, body := s.do(t, http.MethodPost, "/.netlify/functions/f?do=nothing", strings.NewReader(strings.Repeat("x", length)), "text/plain")
		return resp.StatusCode, body
	}
	over := lambdaError("Runtime.RequestTooLarge", "the request is over the 6291456 bytes that a function takes")
	status, _ := send(MaxPayload - 2000)
	require.Equal(t, 304, status)
	for _, length := range []int{MaxPayload - 100, MaxPayload + 1, 3 * MaxPayload} { // the rest of the event counts, too
		status, body := send(length)
		require.Equal(t, http.StatusRequestEntityTooLarge, status)
		require.Equal(t, over, body)
	}
}

func TestFunctionThatDiesDuringInit(t *testing.T) {
	t.Parallel()
	dies := filepath.Join(t.TempDir(), "dies")
	require.NoError(t, os.WriteFile(dies, nil, 0o644))
	s := newSite(t, func(o *Options) { o.Env = map[string]string{"KV_TEST_DIES_WHILE_EXISTS": dies} })
	require.ErrorContains(t, s.start(t), "f does not start: f-")
	resp, body := s.get(t, "")
	require.Equal(t, http.StatusBadGateway, resp.StatusCode)
	require.Contains(t, body, "ended before it was ready (exit status 3)")
	require.NoError(t, os.Remove(dies))
	require.Eventually(t, func() bool {
		resp, _ := s.get(t, "")
		return resp.StatusCode == http.StatusOK
	}, time.Minute, 20*time.Millisecond, "it is started again until it is ready")
}

func TestRestart(t *testing.T) {
	t.Parallel()
	s := running(t, nil)
	names := func() (list []string) {
		for _, in := range s.host.describe() {
			list = append(list, in.Name)
		}
		return list
	}
	resp, _ := s.do(t, http.MethodPost, "/_platform/restart?function=f&instance=1", nil, "")
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Equal(t, []string{"f-0-1", "f-1-2"}, names())
	resp, _ = s.do(t, http.MethodPost, "/_platform/restart", nil, "")
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Equal(t, []string{"f-0-2", "f-1-3"}, names())
	require.Contains(t, s.log.String(), "410") // aws-lambda-go ended by itself

	for query, status := range map[string]int{"?function=g": 400, "?instance=0": 400, "?function=f&instance=2": 400, "?function=f&instance=x": 400} {
		resp, _ := s.do(t, http.MethodPost, "/_platform/restart"+query, nil, "")
		require.Equal(t, status, resp.StatusCode, query)
	}
	resp, _ = s.do(t, http.MethodGet, "/_platform/restart", nil, "")
	require.Equal(t, http.StatusMethodNotAllowed, resp.StatusCode)
}

// A restart lets the current invocation finish, and requests that arrive meanwhile wait.
func TestRestartLosesNoRequest(t *testing.T) {
	t.Parallel()
	s := running(t, nil)
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, _ := s.get(t, "do=sleep&n=5ms")
				if !requireStatus(t, resp) {
					return
				}
			}
		})
	}
	for range 10 {
		resp, _ := s.do(t, http.MethodPost, "/_platform/restart", nil, "")
		requireStatus(t, resp)
	}
	close(stop)
	all.Wait()
}

func requireGone(t *testing.T, pid int) {
	t.Helper()
	_, alive := proc.Identify(pid)
	require.False(t, alive, "process %d is still there", pid)
}

func requireStatus(t *testing.T, resp *http.Response) bool {
	t.Helper()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("responded with %d", resp.StatusCode)
		return false
	}
	return true
}

func TestCloseLeavesNoProcess(t *testing.T) {
	t.Parallel()
	s := running(t, nil)
	instances := s.host.describe()
	require.Len(t, instances, 2)
	s.host.Close()
	for _, in := range instances {
		requireGone(t, in.PID)
	}
}

// A page in a browser can send requests to any address, and must not be able to restart anything.
func TestControlKeepsPagesOut(t *testing.T) {
	t.Parallel()
	s := running(t, nil)
	for _, header := range []string{"Origin", "Sec-Fetch-Site"} {
		req, err := http.NewRequest(http.MethodPost, s.URL+"/_platform/restart", nil)
		require.NoError(t, err)
		req.Header.Set(header, "https://example.com")
		resp, err := s.Client().Do(req)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, http.StatusForbidden, resp.StatusCode)
	}
	req, err := http.NewRequest(http.MethodGet, s.URL+"/_platform/healthz", nil)
	require.NoError(t, err)
	req.Host = "rebound.example.com"
	resp, err := s.Client().Do(req)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusForbidden, resp.StatusCode)
}

func TestRuntimeAPIKnowsItsInstances(t *testing.T) {
	t.Parallel()
	s := running(t, nil)
	resp, err := http.Get("http://" + s.host.RuntimeAddress + "/stranger/2018-06-01/runtime/invocation/next")
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusForbidden, resp.StatusCode)
}
