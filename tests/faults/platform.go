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

// platform is the local platform, as the environment describes it. Nothing else lets its processes be ended.
type platform struct {
	base, host          string // the functions, and the host's control routes
	gateway, key        string // between the functions and PostgREST
	database, superuser string
	blobsFaults         string // where the stand-in for Blobs takes its faults
	stateFile           string
	client              *http.Client
	maxStale            time.Duration
}

// variables are what `platform run` sets.
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

// part returns the pid of a process that the platform keeps running: postgres or postgrest. 0 while it is being started again.
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

// running waits for the part's process, another one than before.
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

// family is a process and all that it started, the process first.
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

// instances lists those that run and can be called by the clients of the load.
func (p *platform) instances(ctx context.Context) ([]instance, error) {
	var told struct{ Instances []instance }
	if err := p.order(ctx, http.MethodGet, p.host+"/_platform/instances", nil, &told); err != nil {
		return nil, err
	}
	var list []instance
	for _, in := range told.Instances {
		if in.PID != 0 && !strings.HasSuffix(in.Function, "-blob") {
			list = append(list, in)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("the host runs no functions")
	}
	return list, nil
}

// gatewayFault is what the gateway is told to do to requests.
type gatewayFault struct {
	Kind   string  `json:"kind"`
	Share  float64 `json:"share"`
	Delay  int     `json:"delay,omitempty"`
	Status int     `json:"status,omitempty"`
	Code   string  `json:"code,omitempty"`
	Seed   uint64  `json:"seed,omitempty"`
}

func (p *platform) misbehave(ctx context.Context, f gatewayFault) error {
	body, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return p.order(ctx, http.MethodPut, p.gateway+"/_platform/fault", body, nil)
}

// behave ends a fault of the gateway and says how many requests it has hit.
func (p *platform) behave(ctx context.Context) (hits int, err error) {
	var told struct{ Hits int }
	err = p.order(ctx, http.MethodDelete, p.gateway+"/_platform/fault", nil, &told)
	return told.Hits, err
}

// order sends what is not part of the load.
func (p *platform) order(ctx context.Context, method, url string, body []byte, into any) error {
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
		return fmt.Errorf("%s %s answered %d %.200s", method, url, resp.StatusCode, text)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

// connect opens a connection to Postgres that passes by everything else.
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
