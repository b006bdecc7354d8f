package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/shirou/gopsutil/v4/process"
)

// platform is the local platform that the environment describes.
type platform struct {
	base, host          string // addresses of the functions and of the host's control routes
	gateway, key        string // between the functions and PostgREST
	database, superuser string
	blobsFaults         string // address of the faults of the Blobs stand-in
	stateFile           string
	client              *http.Client
	maxStale            time.Duration
}

// variables are the needed ones of those that `platform run` sets.
var variables = []string{"KV_BASE_URL", "KV_HOST_URL", "SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "DATABASE_URL", "DATABASE_ADMIN_URL", "PLATFORM_STATE", "NETLIFY_BLOBS_API_URL"}

func newPlatform() (*platform, error) {
	for _, name := range variables {
		if os.Getenv(name) == "" {
			return nil, fmt.Errorf("%s is not set: this needs a local platform", name)
		}
	}
	env := func(name string) string { return strings.TrimRight(os.Getenv(name), "/") }
	return &platform{
		base: env("KV_BASE_URL"), host: env("KV_HOST_URL"), gateway: env("SUPABASE_URL"), key: os.Getenv("SUPABASE_SERVICE_ROLE_KEY"),
		database: os.Getenv("DATABASE_URL"), superuser: os.Getenv("DATABASE_ADMIN_URL"), stateFile: os.Getenv("PLATFORM_STATE"),
		blobsFaults: env("NETLIFY_BLOBS_API_URL") + "/_platform/blobs/faults",
		client:      &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}, Timeout: hangAfter + 10*time.Second},
		maxStale:    time.Second,
	}, nil
}

// part returns the pid of a process that the platform keeps running: postgres or postgrest. It returns 0 during a
// restart.
func (p *platform) part(name string) (int, error) {
	text, err := os.ReadFile(p.stateFile)
	if err != nil {
		return 0, err
	}
	var state struct{ Processes map[string]struct{ PID int } }
	if err := json.Unmarshal(text, &state); err != nil {
		return 0, fmt.Errorf("%s: %w", p.stateFile, err)
	}
	return state.Processes[name].PID, nil
}

// running waits until the part runs in another process than before.
func (p *platform) running(ctx context.Context, name string, before int) (int, error) {
	for {
		pid, err := p.part(name)
		if err != nil || pid != 0 && pid != before {
			return pid, err
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return 0, fmt.Errorf("%s does not come back: %w", name, err)
		}
	}
}

// family returns a process and its children.
func family(pid int) ([]*process.Process, error) {
	p, err := process.NewProcess(int32(pid))
	if err != nil {
		return nil, err
	}
	children, err := p.Children()
	if err != nil && !errors.Is(err, process.ErrorNoChildren) {
		return nil, err
	}
	return append([]*process.Process{p}, children...), nil
}

// instance is one process of a function.
type instance struct {
	Function string
	Name     string
	PID      int
	Busy     bool
}

// instances returns the running instances of the functions that the load calls.
func (p *platform) instances(ctx context.Context) ([]instance, error) {
	var decoded struct{ Instances []instance }
	if err := p.request(ctx, http.MethodGet, p.host+"/_platform/instances", nil, &decoded); err != nil {
		return nil, err
	}
	var list []instance
	for _, in := range decoded.Instances {
		if in.PID != 0 && !strings.HasSuffix(in.Function, "-blob") {
			list = append(list, in)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("the host runs no functions")
	}
	return list, nil
}

// gatewayFault configures a fault of the gateway.
type gatewayFault struct {
	Kind   string  `json:"kind"`
	Share  float64 `json:"share"`
	Delay  int     `json:"delay,omitempty"`
	Status int     `json:"status,omitempty"`
	Code   string  `json:"code,omitempty"`
	Seed   uint64  `json:"seed,omitempty"`
}

func (p *platform) setFault(ctx context.Context, f gatewayFault) error {
	body, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return p.request(ctx, http.MethodPut, p.gateway+"/_platform/fault", body, nil)
}

// clearFault ends a fault of the gateway and returns how many requests it has hit.
func (p *platform) clearFault(ctx context.Context) (hits int, err error) {
	var decoded struct{ Hits int }
	err = p.request(ctx, http.MethodDelete, p.gateway+"/_platform/fault", nil, &decoded)
	return decoded.Hits, err
}

// request sends a request that is not part of the load.
func (p *platform) request(ctx context.Context, method, url string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Apikey", p.key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s returned %d %.200s", method, url, resp.StatusCode, text)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

// connect opens a direct connection to Postgres.
func connect(ctx context.Context, url string) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	return conn, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
