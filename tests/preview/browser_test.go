package preview

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// page sends requests to the functions, which have another origin, and reports what a script can see of the responses.
const page = `<!doctype html><script type="module">
const base = %q, key = %q, seen = {}
const ask = async (name, path, init) => {
	try {
		const r = await fetch(base + path, init)
		const text = await r.text()
		seen[name] = {status: r.status, etag: r.headers.get('ETag') ?? '', version: r.headers.get('X-KV-Version') ?? '',
			request: r.headers.get('X-Nf-Request-Id') ?? '', length: text.length}
	} catch (error) {
		seen[name] = {error: String(error)}
	}
}
const withTraceparent = {'Content-Type': 'application/json', 'traceparent': '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
	'tracestate': 'vendor=1', 'baggage': 'user=1', 'sentry-trace': '0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1'}
const upsert = value => ({method: 'POST', headers: withTraceparent, body: JSON.stringify({key, value})})
for (const n of [1, 2, 3]) await ask('upsert' + n, '/api/kv/upsert', upsert([n]))
await ask('head', '/api/kv/get?key=' + encodeURIComponent(key), {method: 'HEAD'})
await ask('unchanged', '/api/kv/get?key=' + encodeURIComponent(key), {headers: {'If-None-Match': seen.head.etag}, cache: 'no-store'})
await ask('notFound', '/api/kv/get?key=' + encodeURIComponent(key + '/none'))
await ask('notAllowed', '/api/kv/list', {method: 'POST', body: '{}'})
await ask('tooLarge', '/api/kv/upsert', upsert(['x'.repeat(7_000_000)]))
await ask('noFunction', '/api/kv/none')
await fetch('/seen', {method: 'POST', body: JSON.stringify(seen)})
</script>`

// TestABrowserMayReadEveryResponse uses Chromium where it is installed.
func TestABrowserMayReadEveryResponse(t *testing.T) {
	t.Parallel()
	base, db := site(t)
	browser := ""
	for _, name := range []string{"chromium-headless-shell", "chromium", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			browser = path
			break
		}
	}
	if browser == "" {
		t.Skip("there is no Chromium here")
	}

	var preflights atomic.Int32
	proxy := httputil.NewSingleHostReverseProxy(base)
	functions := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions && r.URL.Path == "/api/kv/upsert" {
			preflights.Add(1)
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(functions.Close)

	type answer struct {
		Status, Length                int
		ETag, Version, Request, Error string
	}
	key := "e2e/" + runID("browser") + "/k"
	t.Cleanup(func() {
		_, _ = db.Exec(context.WithoutCancel(t.Context()), `delete from public.kv_store where key = $1`, key)
	})
	reported := make(chan map[string]answer, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(w, page, functions.URL, key)
	})
	mux.HandleFunc("POST /seen", func(w http.ResponseWriter, r *http.Request) {
		seen := map[string]answer{}
		if err := json.NewDecoder(r.Body).Decode(&seen); err != nil {
			seen["report"] = answer{Error: err.Error()}
		}
		reported <- seen
	})
	app := httptest.NewServer(mux)
	t.Cleanup(app.Close)

	cmd := exec.Command(browser, "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir="+t.TempDir(), "--remote-debugging-port=0", app.URL)
	start(t, cmd, cmd.Environ()) // ends with the test
	var seen map[string]answer
	select {
	case seen = <-reported:
	case <-time.After(2 * time.Minute):
		require.Fail(t, "the page reported nothing")
	}
	for name, status := range map[string]int{"upsert1": 200, "upsert2": 200, "upsert3": 200, "head": 200, "unchanged": 304, "notFound": 404, "notAllowed": 405,
		"tooLarge": 413, "noFunction": 404} {
		require.Empty(t, seen[name].Error, name)
		require.Equal(t, status, seen[name].Status, name)
	}
	require.NotEmpty(t, seen["upsert1"].Version)
	require.NotEmpty(t, seen["upsert1"].Request, "a page can say which request went wrong")
	require.NotEmpty(t, seen["head"].ETag)
	require.Zero(t, seen["head"].Length)
	require.EqualValues(t, 1, preflights.Load(), "the answer to the first preflight was kept")
}
