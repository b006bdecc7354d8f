package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// ColdResult is the latency of the first request to a new instance.
type ColdResult struct {
	Function string  `json:"function"`
	Distance float64 `json:"distance,omitempty"` // round trip to the project in ms; 0 means this machine, without TLS
	Bytes    int64   `json:"bytes"`              // of the binary
	Ready    Latency `json:"ready"`              // from the start of the process until it asks for work
	Response Latency `json:"response"`           // from the start of the process until its first response
}

// Binaries finds the programs of the host by function, through their processes. Netlify's bundler built them.
func Binaries(ctx context.Context, host string) (map[string]string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, host+"/_platform/instances", nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	var list struct {
		Instances []struct {
			Function string
			PID      int
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&list); err != nil {
		return nil, fmt.Errorf("read the host's instances: %w", err)
	}
	binaries := map[string]string{}
	for _, in := range list.Instances {
		if in.PID == 0 {
			continue
		}
		program, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(in.PID), "exe"))
		if err != nil {
			return nil, fmt.Errorf("find the program of %s: %w", in.Function, err)
		}
		binaries[in.Function] = program
	}
	return binaries, nil
}

// BinariesIn finds the programs <function>/bootstrap in a folder.
func BinariesIn(dir string) (map[string]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*", "bootstrap"))
	if err != nil || len(files) == 0 {
		return nil, errors.Join(err, fmt.Errorf("no <function>/bootstrap in %s", dir))
	}
	binaries := map[string]string{}
	for _, file := range files {
		binaries[filepath.Base(filepath.Dir(file))] = file
	}
	return binaries, nil
}

// firstRequest is the first request to a new instance. Lists and queries return one entry, since the time for a large
// response does not belong to the start.
func firstRequest(function string, d Data, random *rand.Rand) request {
	for _, op := range Operations() {
		if op.Function == strings.TrimSuffix(function, "-blob") {
			first := op.request(d, random, d.Prefix+"new/cold")
			if function != "kv-get" && first.params != nil {
				first.params["limit"] = "1"
			}
			return first
		}
	}
	switch function {
	case "kv-entries":
		return request{method: http.MethodGet, path: "/api/kv/entries/bench"}
	case "kv-blobs-api":
		return request{method: http.MethodGet, path: "/api/kv/blobs/site:bench"}
	case "kv-storage-api":
		return request{method: http.MethodGet, path: "/api/kv/storage/bench/"}
	case "kv-batch":
		return post(map[string]any{"operations": []map[string]string{{"op": "get", "key": d.Prefix + "new/none"}}})
	}
	return post(map[string]string{"key": d.Prefix + "new/none"}) // kv-delete
}

// coldLimit is the time after which a start counts as failed.
const coldLimit = 10 * time.Second

// coldDistances are the round trips to the project. 0 means this machine, without TLS, as in the other parts.
var coldDistances = []time.Duration{0, time.Millisecond, 10 * time.Millisecond, 60 * time.Millisecond}

// MeasureCold starts every program several times, in turns, and sends it one request. kv-get and kv-upsert are also
// measured against a distant project. It serves the Lambda Runtime API to the programs.
func MeasureCold(ctx context.Context, binaries map[string]string, d Data, starts int, seed uint64) ([]ColdResult, error) {
	var results []ColdResult
	for _, roundTrip := range coldDistances {
		measured := binaries
		environment := []string{"SUPABASE_URL=" + os.Getenv("SUPABASE_URL")}
		if roundTrip > 0 {
			gateway, err := startDistant(os.Getenv("SUPABASE_URL"), roundTrip)
			if err != nil {
				return nil, err
			}
			defer gateway.Close()
			environment = gateway.environment()
			measured = map[string]string{"kv-get": binaries["kv-get"], "kv-upsert": binaries["kv-upsert"]}
		}
		at, err := measureCold(ctx, measured, d, roundTrip, environment, starts, seed)
		if err != nil {
			return nil, err
		}
		results = append(results, at...)
	}
	return results, nil
}

func measureCold(ctx context.Context, binaries map[string]string, d Data, roundTrip time.Duration, environment []string, starts int, seed uint64) ([]ColdResult, error) {
	random := rand.New(rand.NewPCG(seed, 4))
	ready, responded := map[string][]time.Duration{}, map[string][]time.Duration{}
	var functions []string
	for function := range binaries {
		functions = append(functions, function)
	}
	slices.Sort(functions)
	for range starts {
		random.Shuffle(len(functions), func(i, j int) { functions[i], functions[j] = functions[j], functions[i] })
		for _, function := range functions {
			event := firstRequest(function, d, random).event()
			begun, done, err := start(ctx, binaries[function], function, environment, event)
			if err != nil {
				return nil, fmt.Errorf("start %s: %w", function, err)
			}
			ready[function], responded[function] = append(ready[function], begun), append(responded[function], done)
		}
	}
	slices.Sort(functions)
	var results []ColdResult
	for _, function := range functions {
		info, err := os.Stat(binaries[function])
		if err != nil {
			return nil, err
		}
		results = append(results, ColdResult{function, milliseconds(roundTrip), info.Size(), summarize(ready[function]), summarize(responded[function])})
	}
	return results, nil
}

// start runs one instance for one request.
func start(ctx context.Context, program, function string, environment []string, event []byte) (ready, responded time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, coldLimit)
	defer cancel()
	var began atomic.Pointer[time.Time]
	asked, outcomes := make(chan time.Duration, 2), make(chan outcome, 1)
	runtimeAPI := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		since := time.Since(*began.Load())
		switch {
		case strings.HasSuffix(r.URL.Path, "/runtime/invocation/next") && len(asked) == 0:
			asked <- since
			w.Header().Set("Lambda-Runtime-Aws-Request-Id", "1")
			w.Header().Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(time.Now().Add(coldLimit).UnixMilli(), 10))
			_, _ = w.Write(event)
		case strings.HasSuffix(r.URL.Path, "/runtime/invocation/next"): // it has responded, and is ended next
			<-r.Context().Done()
		case strings.HasSuffix(r.URL.Path, "/response"):
			body, err := io.ReadAll(r.Body)
			outcomes <- outcome{time.Since(*began.Load()), body, err}
			w.WriteHeader(http.StatusAccepted)
		default:
			http.NotFound(w, r)
		}
	}))
	defer runtimeAPI.Close()
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = []string{
		"AWS_LAMBDA_RUNTIME_API=" + strings.TrimPrefix(runtimeAPI.URL, "http://"), "AWS_LAMBDA_FUNCTION_NAME=" + function,
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=1024", "AWS_LAMBDA_FUNCTION_VERSION=$LATEST", "USE_SUPABASE_KV=true",
	}
	cmd.Env = append(cmd.Env, environment...)
	for _, name := range []string{"SUPABASE_SERVICE_ROLE_KEY", "NETLIFY_SITE_ID", "NETLIFY_BLOBS_TOKEN", "NETLIFY_BLOBS_API_URL", "GOCOVERDIR"} {
		cmd.Env = append(cmd.Env, name+"="+os.Getenv(name))
	}
	now := time.Now()
	began.Store(&now)
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() {
		_ = cmd.Process.Kill()
		<-ended
	}()
	select {
	case o := <-outcomes:
		return <-asked, o.after, o.check()
	case err := <-ended:
		ended <- err
		return 0, 0, fmt.Errorf("it ended before it responded: %w", err)
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
}

// outcome is an instance's response.
type outcome struct {
	after time.Duration
	body  []byte
	err   error
}

func (o outcome) check() error {
	if o.err != nil {
		return o.err
	}
	response, err := decode[struct {
		StatusCode int
		Body       string
	}](o.body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("it returned %d %.200s", response.StatusCode, response.Body)
	}
	return err
}
