package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A request for which netlify dev's own program crashed is sent again, as it was. Every other response is passed on.
func TestRequestsAreRepeatedWhenNetlifyDevCrashed(t *testing.T) {
	// What netlify dev sent then, shortened.
	const crash = "Error: Command failed with exit code 2: local-functions-proxy --event {} --timeout 30s\n" +
		"panic: runtime error: invalid memory address or nil pointer dereference\ngoroutine 1 [running]:\n" +
		"go.amzn.com/lambda/rapidcore.(*SandboxBuilder).Init(0xc000066690, 0xc0000d3e20, 0x7530)\n"
	for name, c := range map[string]struct {
		method, body string
		responses    []string // to one request after the other; empty: 200
		status, want int      // how many requests netlify dev got
	}{
		"no crash":         {"PUT", "x", []string{""}, 200, 1},
		"one crash":        {"PUT", "x", []string{crash, ""}, 200, 2},
		"two, and no body": {"GET", "", []string{crash, crash, ""}, 200, 3},
		"another error":    {"PUT", "x", []string{"panic: of the function", ""}, 500, 1},
		"crashes for ever": {"PUT", "x", slices.Repeat([]string{crash}, maxTries), 500, maxTries},
	} {
		t.Run(name, func(t *testing.T) {
			got := 0
			dev := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				response := c.responses[got]
				got++
				body, err := io.ReadAll(r.Body)
				if err != nil || r.Method != c.method || string(body) != c.body || r.ContentLength != int64(len(c.body)) ||
					r.RequestURI != "/a%2Fb?c=1" || r.Header.Get("X-TTL") != "3" {
					t.Errorf("request %d: %s %s %q, %d bytes, %v %v", got, r.Method, r.RequestURI, body, r.ContentLength, r.Header, err)
				}
				if response != "" {
					w.WriteHeader(http.StatusInternalServerError)
				}
				_, _ = io.WriteString(w, response)
			}))
			t.Cleanup(dev.Close)
			reports := 0
			address, end, err := startRepeating(dev.URL, func(string, ...any) { reports++ })
			require.NoError(t, err)
			t.Cleanup(end)
			request, err := http.NewRequestWithContext(t.Context(), c.method, address+"/a%2Fb?c=1", strings.NewReader(c.body))
			require.NoError(t, err)
			request.Header.Set("X-TTL", "3")
			response, err := http.DefaultClient.Do(request)
			require.NoError(t, err)
			body, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			require.Equal(t, c.status, response.StatusCode)
			require.Equal(t, c.responses[c.want-1], string(body))
			require.Equal(t, c.want, got, "requests that netlify dev got")
			require.Equal(t, c.want-1, reports, "reported requests")
		})
	}
}
