package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// standIn responds as the functions do, except for the requests that broken changes.
func standIn(t *testing.T, broken func(r *http.Request) (status int, body string)) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status, body := broken(r); status != 0 {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
			return
		}
		switch q := r.URL.Query(); r.URL.Path {
		case getPath:
			fmt.Fprintf(w, `{"key":%q,"value":{},"exists":true}`, q.Get("key"))
		case listPath:
			keys, data := []string{}, []string{}
			for n := range 100 {
				key := fmt.Sprintf(`"%sdoc-%02d"`, q.Get("prefix"), n)
				keys, data = append(keys, key), append(data, key+":{}")
			}
			fmt.Fprintf(w, `{"keys":[%s],"count":100,"data":{%s}}`, strings.Join(keys, ","), strings.Join(data, ","))
		case queryPath:
			_, _ = io.WriteString(w, `{"results":[{}],"count":1}`)
		default:
			_, _ = io.WriteString(w, `{"ok":true,"key":"k"}`)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

func TestTheLoadTellsWhatIsWrong(t *testing.T) {
	for name, tt := range map[string]struct {
		broken func(r *http.Request) (int, string)
		says   string
	}{
		"Nothing": {func(*http.Request) (int, string) { return 0, "" }, ""},
		"AnError": {func(r *http.Request) (int, string) {
			return onPath(r, queryPath, 502, `{"code":"database_unreachable"}`)
		}, "database_unreachable"},
		"NotFound":   {func(r *http.Request) (int, string) { return onPath(r, getPath, 404, `{"exists":false}`) }, "404"},
		"AnotherKey": {func(r *http.Request) (int, string) { return onPath(r, getPath, 200, `{"key":"other","exists":true}`) }, "not what was asked for"},
		"AShortList": {func(r *http.Request) (int, string) {
			return onPath(r, listPath, 200, `{"keys":[],"count":0,"data":{}}`)
		}, "not what was asked for"},
		"HalfAnAnwer": {func(r *http.Request) (int, string) { return onPath(r, getPath, 200, `{"key":`) }, "not JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("KV_BASE_URL", standIn(t, tt.broken).URL)
			t.Setenv("KV_HOST_URL", "")
			f := flags{users: 20, duration: 600 * time.Millisecond, think: 30 * time.Millisecond, window: 200 * time.Millisecond, entries: 200, seed: 1}
			var out strings.Builder
			err := run(t.Context(), f, &out, io.Discard)
			if tt.says == "" {
				require.NoError(t, err)
				for _, line := range []string{"kv-get", "kv-list", "kv-upsert", "kv-query", "0s to 200ms", "400ms to 600ms", "no errors"} {
					require.Contains(t, out.String(), line)
				}
				require.NotContains(t, out.String(), "600ms to", "what begins at the very end is not a window of its own")
				return
			}
			var broken brokenPromises
			require.True(t, errors.As(err, &broken), "%v", err)
			require.Contains(t, err.Error(), tt.says)
		})
	}
}

func onPath(r *http.Request, path string, status int, body string) (int, string) {
	if r.URL.Path == path {
		return status, body
	}
	return 0, ""
}

func TestGrowthIsToldFromFillingUp(t *testing.T) {
	filled, leaks := instance{samples: []float64{7, 30, 60, 60, 61, 62, 60}}, instance{samples: []float64{7, 15, 30, 45, 60, 75, 90}}
	filled.sum()
	leaks.sum()
	require.False(t, filled.grows())
	require.True(t, leaks.grows())
	require.Equal(t, 7.0, leaks.Start)
	require.Equal(t, 90.0, leaks.End)
	require.Equal(t, 62.0, filled.Most)
}

func TestTheDocumentationShowsARun(t *testing.T) {
	t.Parallel()
	r := results{Users: 1000, Think: 4, Duration: 60, CPUs: 2, Seed: 7, Requests: 15_000, Rate: 250.2,
		Kinds:     []latency{{"kv-get", 7000, 5, 50, 60, 90, 120}},
		Windows:   []latency{{"0s to 5s", 1200, 9, 90, 100, 200, 300}, {"5s to 10s", 1300, 6, 60, 70, 95, 130}},
		Instances: []instance{{Name: "kv-get/0", Requests: 3500, Start: 10, Most: 14.25, End: 12}}}
	dir := t.TempDir()
	file := filepath.Join(dir, "BENCHMARKS.md")
	require.NoError(t, os.WriteFile(file, []byte("<!-- bench: load -->\n<!-- /bench -->\n<!-- bench: plot load -->\n<!-- /bench -->\n"), 0o600))
	require.NoError(t, r.writeDocs(dir))
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, line := range []string{
		"1,000 users for 1m0s, a request each every 4s on average, 2 CPUs, seed 7: 15,000 requests, 250 a second, 0 errors. No instance took more than 14.2 MB.",
		"| kv-get | 7,000 | 5.00 | 50.0 | 60.0 | 90.0 | 120.0 |",
		"(benchmarks/load.svg)",
	} {
		require.Contains(t, string(text), line)
	}
	svg, err := os.ReadFile(filepath.Join(dir, "benchmarks", "load.svg"))
	require.NoError(t, err)
	require.Contains(t, string(svg), ">p99<")
}
