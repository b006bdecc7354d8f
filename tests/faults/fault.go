package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/shirou/gopsutil/v4/process"
)

// fault is one way to break the platform under load.
type fault struct {
	Name string
	What string
	// Break breaks the platform for about the given time, and repairs what does not recover by itself. It fails if
	// nothing broke.
	Break func(ctx context.Context, p *platform, hold time.Duration, random *rand.Rand) error
	// Excuses, if not nil, reports whether the fault causes an error that no function returns, such as that of a
	// killed instance.
	Excuses func(failure) bool
	// Fails means that some requests must fail: without an error, nothing was broken.
	Fails bool
	// Lacks, if not nil, returns what this machine lacks for the fault.
	Lacks func() string
	// Hold, if not 0, is how long the fault lasts, whatever the flag says.
	Hold time.Duration
}

// faults are all faults, in the order in which they run.
var faults = []fault{
	{Name: "none", What: "nothing breaks, for comparison", Break: func(ctx context.Context, _ *platform, hold time.Duration, _ *rand.Rand) error {
		return sleep(ctx, hold)
	}},
	{Name: "kill-postgrest", What: "kill -9 of PostgREST, twice", Break: killPart("postgrest")},
	{Name: "kill-postgres", What: "kill -9 of Postgres, twice", Break: killPart("postgres")},
	{Name: "crash-backend", What: "kill -9 of a connection's process in Postgres, after which it restarts all, twice", Break: crashBackend},
	{Name: "cut-connections", What: "PostgREST's connections to Postgres are ended again and again", Break: cutConnections},
	{Name: "kill-functions", What: "kill -9 of an instance that works, again and again", Break: killFunctions, Excuses: instanceEnded},
	{Name: "pause-postgrest", What: "PostgREST stands still (SIGSTOP, then SIGCONT)", Break: pausePart("postgrest")},
	{Name: "pause-postgres", What: "every process of Postgres stands still", Break: pausePart("postgres")},
	{Name: "stall-postgrest", What: "PostgREST stands still for 13 s, longer than an attempt of a function", Hold: 13 * time.Second, Break: pausePart("postgrest")},
	{Name: "stall-postgres", What: "so does every process of Postgres", Hold: 13 * time.Second, Break: pausePart("postgres")},
	{Name: "pause-functions", What: "every instance stands still", Break: pauseFunctions},
	{Name: "reset", What: "half of the requests to the gateway end in a TCP reset", Break: gatewayDoes(gatewayFault{Kind: "reset", Share: 0.5})},
	{Name: "latency", What: "the gateway takes 200 ms longer", Break: gatewayDoes(gatewayFault{Kind: "delay", Share: 1, Delay: 200})},
	{Name: "unavailable", What: "the gateway answers everything with 503", Break: gatewayDoes(gatewayFault{Kind: "status", Share: 1, Status: 503})},
	{Name: "outage", What: "the same for 20 s, longer than the functions try again", Fails: true, Hold: 20 * time.Second, Break: gatewayDoes(gatewayFault{Kind: "status", Share: 1, Status: 503})},
	{Name: "garbage", What: "half of the gateway's answers are pages, noise, of another program, or cut", Break: gatewayDoes(gatewayFault{Kind: "garbage", Share: 0.5})},
	{Name: "edge", What: "half of the requests are answered with 521, as by Cloudflare when it does not reach the project", Break: gatewayDoes(gatewayFault{Kind: "status", Share: 0.5, Status: 521})},
	{Name: "clock-skew", What: "half of the requests are answered with 401 PGRST303, as where clocks of Supabase differ", Break: gatewayDoes(gatewayFault{Kind: "status", Share: 0.5, Status: 401, Code: "PGRST303"})},
	{Name: "drop-reply", What: "half of the answers are lost after the commit", Break: gatewayDoes(gatewayFault{Kind: "drop", Share: 0.5})},
	{Name: "late-request", What: "a third of the requests end in a reset, and arrive up to 6 s later all the same", Hold: 15 * time.Second, Break: gatewayDoes(gatewayFault{Kind: "late", Share: 0.33, Delay: 6000})},
	{Name: "fill-pool", What: "other clients hold every connection of PostgREST", Break: fillPool},
	{Name: "blobs-unavailable", What: "Blobs answer everything with 5xx", Lacks: lacksMirror, Break: blobsDo(blobsFault{ServerError: 1})},
	{Name: "blobs-errors", What: "a third of the requests to Blobs fail, of another third the answer is lost", Lacks: lacksMirror, Break: blobsDo(blobsFault{ServerError: 0.33, LostAnswer: 0.33})},
	{Name: "blobs-slow", What: "Blobs take up to the 5 s that a write waits for its copy, and longer", Lacks: lacksMirror, Break: blobsDo(blobsFault{Delayed: 0.5, Delay: 3000})},
	{Name: "full-disk", What: "the disk of kv_store and kv.log is full", Fails: true, Lacks: lacksDisk, Break: fillDisk},
}

// instanceEnded matches the host's error for an instance that has ended.
func instanceEnded(f failure) bool {
	return f.Status == http.StatusBadGateway && f.Code == "Runtime.ExitError"
}

// killPart kills a part of the platform, which restarts it, and kills the new process a moment later.
func killPart(name string) func(context.Context, *platform, time.Duration, *rand.Rand) error {
	return func(ctx context.Context, p *platform, hold time.Duration, random *rand.Rand) error {
		before := 0
		for _, pause := range []time.Duration{0, hold/2 + time.Duration(random.Float64()*float64(hold)/2)} {
			if err := sleep(ctx, pause); err != nil {
				return err
			}
			pid, err := p.running(ctx, name, before)
			if err != nil {
				return err
			}
			if err := kill(pid); err != nil {
				return fmt.Errorf("kill %s: %w", name, err)
			}
			before = pid
		}
		_, err := p.running(ctx, name, before) // a new process shows that the kill worked
		return err
	}
}

func kill(pid int) error {
	p, err := process.NewProcess(int32(pid))
	if err != nil {
		return err
	}
	return p.Kill()
}

// crashBackend kills a backend of one of PostgREST's connections. Postgres then ends all other backends and recovers.
func crashBackend(ctx context.Context, p *platform, hold time.Duration, random *rand.Rand) error {
	for _, pause := range []time.Duration{0, hold/2 + time.Duration(random.Float64()*float64(hold)/2)} {
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		var pid int
		for { // the last recovery may still be going on
			var err error
			if pid, err = p.backend(ctx); err == nil {
				break
			}
			if sleepErr := sleep(ctx, 50*time.Millisecond); sleepErr != nil {
				return err
			}
		}
		if err := kill(pid); err != nil {
			return fmt.Errorf("kill a backend: %w", err)
		}
	}
	return nil
}

// backend returns the pid of the backend of one of PostgREST's connections.
func (p *platform) backend(ctx context.Context) (pid int, err error) {
	conn, err := connect(ctx, p.superuser)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = conn.QueryRow(ctx, "select pid from pg_stat_activity where usename = 'authenticator' order by random() limit 1").Scan(&pid)
	return pid, err
}

func cutConnections(ctx context.Context, p *platform, hold time.Duration, random *rand.Rand) error {
	conn, err := connect(ctx, p.superuser)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	cut := 0
	for end := time.Now().Add(hold); time.Now().Before(end); {
		var n int
		err := conn.QueryRow(ctx, "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = 'authenticator'").Scan(&n)
		if err != nil {
			return err
		}
		cut += n
		if err := sleep(ctx, 100*time.Millisecond+time.Duration(random.IntN(500))*time.Millisecond); err != nil {
			return err
		}
	}
	if cut == 0 {
		return errors.New("there was no connection to end")
	}
	return nil
}

func killFunctions(ctx context.Context, p *platform, hold time.Duration, random *rand.Rand) error {
	working := 0
	for end := time.Now().Add(hold); time.Now().Before(end); {
		all, err := p.instances(ctx)
		if err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(in instance) bool { return !in.Busy })
		if len(all) == 0 {
			if err := sleep(ctx, time.Millisecond); err != nil {
				return err
			}
			continue
		}
		in := all[random.IntN(len(all))]
		if err := kill(in.PID); err != nil && !errors.Is(err, process.ErrorProcessNotRunning) {
			return fmt.Errorf("kill %s: %w", in.Name, err)
		}
		working++
		if err := sleep(ctx, time.Duration(random.IntN(200))*time.Millisecond); err != nil {
			return err
		}
	}
	if working == 0 {
		return errors.New("no instance was at work")
	}
	return nil
}

func pausePart(name string) func(context.Context, *platform, time.Duration, *rand.Rand) error {
	return func(ctx context.Context, p *platform, hold time.Duration, _ *rand.Rand) error {
		pid, err := p.running(ctx, name, 0)
		if err != nil {
			return err
		}
		all, err := family(pid)
		if err != nil {
			return err
		}
		return pause(ctx, all, hold)
	}
}

func pauseFunctions(ctx context.Context, p *platform, hold time.Duration, _ *rand.Rand) error {
	instances, err := p.instances(ctx)
	if err != nil {
		return err
	}
	var all []*process.Process
	for _, in := range instances {
		one, err := process.NewProcess(int32(in.PID))
		if err != nil {
			return err
		}
		all = append(all, one)
	}
	return pause(ctx, all, hold)
}

// pause stops processes for a while and lets them continue in any case.
func pause(ctx context.Context, all []*process.Process, hold time.Duration) (err error) {
	defer func() {
		for _, p := range all {
			if resumeErr := p.Resume(); resumeErr != nil && !errors.Is(resumeErr, process.ErrorProcessNotRunning) {
				err = errors.Join(err, fmt.Errorf("resume %d: %w", p.Pid, resumeErr))
			}
		}
	}()
	for i, p := range all {
		// Only the first process must exist. Its children may have ended.
		if err := p.Suspend(); err != nil && (i == 0 || !errors.Is(err, process.ErrorProcessNotRunning)) {
			return fmt.Errorf("suspend %d: %w", p.Pid, err)
		}
	}
	return sleep(ctx, hold)
}

func gatewayDoes(f gatewayFault) func(context.Context, *platform, time.Duration, *rand.Rand) error {
	return func(ctx context.Context, p *platform, hold time.Duration, random *rand.Rand) error {
		f := f
		f.Seed = random.Uint64()
		if err := p.setFault(ctx, f); err != nil {
			return err
		}
		slept := sleep(ctx, hold)
		hits, err := p.clearFault(context.WithoutCancel(ctx))
		if err == nil && hits == 0 {
			err = errors.New("the gateway's fault hit no request")
		}
		return errors.Join(slept, err)
	}
}

// poolSize is the size of PostgREST's connection pool on the platform.
const poolSize = 20

// fillPool sends requests that each keep one of PostgREST's connections waiting for a lock: the one that a repeated
// write waits for. They touch no entry.
func fillPool(ctx context.Context, p *platform, hold time.Duration, random *rand.Rand) error {
	conn, err := connect(ctx, p.superuser)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var bytesOfRequest [16]byte
	for i := range bytesOfRequest {
		bytesOfRequest[i] = byte(random.Uint32())
	}
	request := uuid.UUID(bytesOfRequest).String()
	if _, err := conn.Exec(ctx, "select pg_advisory_lock(hashtextextended($1, 0))", request); err != nil {
		return err
	}
	waiting, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	for range poolSize + 5 {
		all.Go(func() {
			body := []byte(`{"p_key":"faults/none","p_request":"` + request + `"}`)
			req, err := http.NewRequestWithContext(waiting, http.MethodPost, p.gateway+"/rest/v1/rpc/kv_delete", bytes.NewReader(body))
			if err != nil {
				return
			}
			req.Header.Set("Apikey", p.key)
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Accept", "application/vnd.kv+json")
			if resp, err := p.client.Do(req); err == nil {
				resp.Body.Close()
			}
		})
	}
	slept := sleep(ctx, hold)
	var held int
	err = conn.QueryRow(context.WithoutCancel(ctx), "select count(*) from pg_locks where locktype = 'advisory' and not granted").Scan(&held)
	if err == nil && held < poolSize {
		err = fmt.Errorf("only %d of %d connections were held", held, poolSize)
	}
	_, unlockErr := conn.Exec(context.WithoutCancel(ctx), "select pg_advisory_unlock_all()")
	all.Wait()
	stop()
	return errors.Join(slept, err, unlockErr)
}
