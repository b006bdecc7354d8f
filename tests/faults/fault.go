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

// fault is one way in which the platform breaks under the load.
type fault struct {
	Name string
	What string
	// Break breaks the platform for about as long as it is told, and mends what does not mend itself. It fails where nothing broke.
	Break func(ctx context.Context, p *platform, hold time.Duration, random *rand.Rand) error
	// Excuses, if not nil, tells which errors no function gave that are the fault's doing: an instance that was killed cannot answer.
	Excuses func(failure) bool
	// Fails: some requests cannot but fail, and without an error nothing has been broken.
	Fails bool
	// Lacks, if not nil, says what this machine lacks for it.
	Lacks func() string
	// Hold is how long it lasts where that is not the flag's to say.
	Hold time.Duration
}

// faults are all of them, in the order in which they are run.
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

// instanceEnded is what the host says where a function could not.
func instanceEnded(f failure) bool {
	return f.Status == http.StatusBadGateway && f.Code == "Runtime.ExitError"
}

// killPart kills a part of the platform, which starts it again, and kills what was started at some later moment.
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
		_, err := p.running(ctx, name, before) // it is another process, so this one was hit
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

// crashBackend kills one of the processes that PostgREST is connected to. Postgres then ends all others and recovers.
func crashBackend(ctx context.Context, p *platform, hold time.Duration, random *rand.Rand) error {
	for _, pause := range []time.Duration{0, hold/2 + time.Duration(random.Float64()*float64(hold)/2)} {
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		var pid int
		for { // the last crash may not be over
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

// backend is the pid of one of PostgREST's connections in Postgres.
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

// pause makes processes stand still for a while. They go on whatever happens.
func pause(ctx context.Context, all []*process.Process, hold time.Duration) (err error) {
	defer func() {
		for _, p := range all {
			if resumeErr := p.Resume(); resumeErr != nil && !errors.Is(resumeErr, process.ErrorProcessNotRunning) {
				err = errors.Join(err, fmt.Errorf("resume %d: %w", p.Pid, resumeErr))
			}
		}
	}()
	for i, p := range all {
		// The first is the one that was meant; what it started may have ended by itself.
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
		if err := p.misbehave(ctx, f); err != nil {
			return err
		}
		slept := sleep(ctx, hold)
		hits, err := p.behave(context.WithoutCancel(ctx))
		if err == nil && hits == 0 {
			err = errors.New("the gateway's fault hit no request")
		}
		return errors.Join(slept, err)
	}
}

// poolSize is how many connections PostgREST has to Postgres on the platform.
const poolSize = 20

// fillPool sends PostgREST requests of its own, of which each waits in Postgres with a connection in its hands: for the lock that a
// repeated write waits for. They touch no entry.
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
