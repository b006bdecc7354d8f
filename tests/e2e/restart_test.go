package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

type instance struct {
	Function   string
	Instance   int
	Generation int
	Name       string
	PID        int
}

// control calls the local host's control routes.
func control(method, path string) ([]instance, error) {
	req, err := http.NewRequest(method, site.hostURL+"/_platform/"+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s answered %d %s", method, path, res.StatusCode, text)
	}
	var list struct{ Instances []instance }
	return list.Instances, json.Unmarshal(text, &list)
}

func TestInstancesTakeTurns(t *testing.T) {
	needsHost(t)
	all, err := control(http.MethodGet, "instances")
	require.NoError(t, err)
	perFunction := map[string]int{}
	for _, in := range all {
		perFunction[in.Function]++
	}
	for _, function := range []string{"kv-upsert", "kv-list", "kv-get", "kv-query", "kv-delete", "kv-entries", "kv-batch"} {
		require.NotZero(t, perFunction[function], "the host runs no instance of %s", function)
	}
	seen := map[string]bool{}
	for range perFunction["kv-get"] * 3 {
		a := call(t, http.MethodGet, getPath+"?key=e2e/none")
		require.NotEmpty(t, a.header.Get("X-KV-Instance"), "the host names the instance that answered")
		seen[a.header.Get("X-KV-Instance")] = true
	}
	require.Len(t, seen, perFunction["kv-get"], "every instance gets its turn")
}

// TestRestartsLoseNothing restarts every instance repeatedly during traffic. Requests may fail then, but a write with
// status 200 is in the store. It is not parallel, because other tests do not expect restarts.
func TestRestartsLoseNothing(t *testing.T) {
	needsHost(t)
	prefix := newPrefix()
	before, err := control(http.MethodGet, "instances")
	require.NoError(t, err)

	stop := make(chan struct{})
	var restarts, failures atomic.Int64
	var restarting sync.WaitGroup
	restartErr := make(chan error, 1)
	restarting.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			in := before[i%len(before)]
			if _, err := control(http.MethodPost, "restart?function="+url.QueryEscape(in.Function)+"&instance="+fmt.Sprint(in.Instance)); err != nil {
				restartErr <- err
				return
			}
			restarts.Add(1)
		}
	})

	n := 240
	if os.Getenv("LONG") != "" {
		n = 2000
	}
	trafficErr := inParallel(8, n, func(i int) error {
		key := fmt.Sprintf("%sk%03d", prefix, i)
		for attempt := 0; ; attempt++ {
			a, err := exchange(http.MethodPost, upsertPath, body(upsertBody(key, fmt.Sprintf(`{"n":%d}`, i), index{prefix + "i", fmt.Sprint(i)})))
			if err != nil {
				return err
			}
			if a.status == http.StatusOK {
				break
			}
			failures.Add(1)
			if attempt == 5 {
				return errors.New(a.String())
			}
		}
		for attempt := 0; ; attempt++ {
			a, err := exchange(http.MethodGet, getPath+params("key", key), fresh)
			if err != nil {
				return err
			}
			if a.status == http.StatusOK {
				return nil
			}
			failures.Add(1)
			if a.status == http.StatusNotFound || attempt == 5 {
				return fmt.Errorf("%s was written and then\n%v", key, a)
			}
		}
	})
	close(stop)
	restarting.Wait()
	require.NoError(t, trafficErr)
	require.Empty(t, restartErr, "a restart failed")
	require.NotZero(t, restarts.Load())
	t.Logf("%d requests around %d restarts, %d of them had to be repeated", 2*n, restarts.Load(), failures.Load())

	require.Len(t, keys(t, "prefix", prefix+"k"), n)
	require.Len(t, keys(t, "indexKey", prefix+"i"), n)
	var members []string
	require.NoError(t, json.Unmarshal(get(t, prefix+"i").fields(t)["value"], &members))
	require.Len(t, members, n)

	after, err := control(http.MethodGet, "instances")
	require.NoError(t, err)
	require.Len(t, after, len(before), "every instance has its successor")
	pids := map[int]bool{}
	for _, in := range before {
		pids[in.PID] = true
	}
	renewed := 0
	for _, in := range after {
		if !pids[in.PID] {
			renewed++
		}
	}
	require.NotZero(t, renewed, "new processes answer now")
}

// TestRequestsOverTheLimit: the platform refuses a request over 6 MB before it reaches a function.
func TestRequestsOverTheLimit(t *testing.T) {
	needsHost(t)
	t.Parallel()
	prefix := newPrefix()
	big := make([]byte, 7_000_000)
	for i := range big {
		big[i] = 'x'
	}
	a, err := exchange(http.MethodPost, upsertPath, body(upsertBody(prefix+"k", `["`+string(big)+`"]`)))
	require.NoError(t, err)
	require.Equal(t, http.StatusRequestEntityTooLarge, a.status, "%v", a)
	require.Equal(t, []string{"*"}, a.header.Values("Access-Control-Allow-Origin"), "a page must be able to read why: %v", a)
	require.Empty(t, keys(t, "prefix", prefix))

	value := `["` + string(big[:6_000_000]) + `"]`
	upsert(t, prefix+"k", value)
	holds(t, prefix+"k", value)
}
