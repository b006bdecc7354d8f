package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"netlify-supabase-kv/pkg/kv"
)

// OperationResult has the latencies of an operation in each way, measured in one run, in turns and in random order.
type OperationResult struct {
	Operation   string          `json:"operation"`
	Entries     int             `json:"entries"`
	Concurrency int             `json:"concurrency"`
	Ways        map[Way]Latency `json:"ways"`
}

// Ratio compares two ways at p50. It is 0 if one of them was not measured.
func (r OperationResult) Ratio(of, to Way) float64 { return ratio(r.Ways[of].P50, r.Ways[to].P50) }

// call runs an operation once and returns its duration. worker is the caller's number, from 0 on.
type call func(ctx context.Context, worker int) (time.Duration, error)

// timed times a call without preparation.
func timed(do func(ctx context.Context) error) call {
	return func(ctx context.Context, _ int) (time.Duration, error) {
		began := time.Now()
		err := do(ctx)
		return time.Since(began), err
	}
}

// invoked times a function and checks its response afterwards.
func invoked(i instance, event []byte, contains string) call {
	return func(ctx context.Context, _ int) (time.Duration, error) {
		r, err := i.invoke(ctx, event)
		if err == nil && !strings.Contains(r.body, contains) {
			err = fmt.Errorf("the response does not contain %s: %.200s", contains, r.body)
		}
		return r.took, err
	}
}

// warmUp is the number of uncounted rounds at the beginning, which open connections, create plans and fill caches.
func warmUp(rounds int) int { return min(max(rounds/10, 2), 30) }

// Measure runs an operation for a number of rounds, each in every way, with concurrent workers.
func (p *Project) Measure(ctx context.Context, d Data, op Operation, rounds, concurrency int, seed uint64) (OperationResult, error) {
	conns := make([]*pgx.Conn, concurrency)
	for i := range conns {
		conn, err := p.Connect(ctx)
		if err != nil {
			return OperationResult{}, err
		}
		defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
		if _, err := conn.Exec(ctx, "set role service_role"); err != nil { // PostgREST's role
			return OperationResult{}, err
		}
		conns[i] = conn
	}
	if op.Rarely > 0 {
		rounds = max(rounds/op.Rarely, 4)
	}
	random := rand.New(rand.NewPCG(seed, uint64(concurrency)))
	plain := newInstance(endpoint(op.Function, p.store, kv.Uncached(p.store)))
	cached := newInstance(endpoint(op.Function, p.store, cachedReader(op.Function, p.store)))
	prepared := make([]map[Way]call, rounds+warmUp(rounds))
	for i := range prepared {
		var err error
		if prepared[i], err = p.prepare(ctx, d, op, fmt.Sprintf("%snew/%d/%06d", d.Prefix, concurrency, i), random, plain, cached, conns); err != nil {
			return OperationResult{}, err
		}
	}
	ways, err := inTurns(ctx, prepared, warmUp(rounds), concurrency, seed)
	if err != nil {
		return OperationResult{}, fmt.Errorf("%s: %w", op.Name, err)
	}
	return OperationResult{Operation: op.Name, Entries: d.Entries, Concurrency: concurrency, Ways: ways}, nil
}

// prepare creates one round's calls: the same request in each way. Writes differ in their key.
func (p *Project) prepare(ctx context.Context, d Data, op Operation, key string, random *rand.Rand, plain, cached instance, conns []*pgx.Conn) (map[Way]call, error) {
	seed := random.Uint64()
	request := func(way Way) request {
		return op.request(d, rand.New(rand.NewPCG(seed, 0)), key+"/"+strings.ReplaceAll(string(way), " ", ""))
	}
	calls := map[Way]call{WayFunction: invoked(plain, request(WayFunction).event(), op.contains)}
	for _, way := range []Way{WayPostgREST, WaySQL} {
		recorded, err := p.recorder.call(ctx, op.Function, request(way).event())
		if err != nil {
			return nil, err
		}
		if way == WayPostgREST {
			calls[way] = timed(func(ctx context.Context) error { return p.postgrest(ctx, recorded) })
			continue
		}
		sql, args, err := p.statement(recorded)
		if err != nil {
			return nil, err
		}
		calls[way] = func(ctx context.Context, worker int) (time.Duration, error) {
			began := time.Now()
			var text string
			err := conns[worker].QueryRow(ctx, sql, args...).Scan(&text)
			return time.Since(began), err
		}
	}
	if op.Function != "kv-upsert" {
		calls[WayCache] = invoked(cached, request(WayCache).fresh().event(), op.contains)
	}
	if p.Site != "" {
		hosted := request(WayHost)
		hosted.bypass = op.Function != "kv-upsert"
		calls[WayHost] = timed(func(ctx context.Context) error { return p.hosted(ctx, op.Function, hosted) })
	}
	if op.table != nil {
		t := op.table(d, request(WayTable), key+"/table")
		if t.body != nil {
			text, err := json.Marshal(t.body)
			if err != nil {
				return nil, err
			}
			t.body = json.RawMessage(text)
		}
		calls[WayTable] = timed(func(ctx context.Context) error {
			_, err := p.send(ctx, t, "application/json")
			return err
		})
	}
	return calls, nil
}

// fieldOf returns the text of one field of a JSON object.
func fieldOf(object []byte, name string) json.RawMessage {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(object, &fields); err != nil {
		panic(err) // the request comes from this package
	}
	return fields[name]
}

// inTurns makes the calls of each round in random order. A worker takes the next round when it has finished one.
func inTurns(ctx context.Context, rounds []map[Way]call, skip, concurrency int, seed uint64) (map[Way]Latency, error) {
	runtime.GC() // removes garbage of the preparation
	var (
		next  atomic.Int64
		mu    sync.Mutex
		taken = map[Way][]time.Duration{}
	)
	workers, ctx := errgroup.WithContext(ctx)
	for worker := range concurrency {
		workers.Go(func() error {
			random := rand.New(rand.NewPCG(seed, uint64(worker)))
			for ctx.Err() == nil {
				round := int(next.Add(1)) - 1
				if round >= len(rounds) {
					return nil
				}
				ways := make([]Way, 0, len(rounds[round]))
				for way := range rounds[round] {
					ways = append(ways, way)
				}
				random.Shuffle(len(ways), func(i, j int) { ways[i], ways[j] = ways[j], ways[i] })
				for _, way := range ways {
					took, err := rounds[round][way](ctx, worker)
					if err != nil {
						return fmt.Errorf("%s: %w", way, err)
					}
					if round < skip {
						continue
					}
					mu.Lock()
					taken[way] = append(taken[way], took)
					mu.Unlock()
				}
			}
			return ctx.Err()
		})
	}
	if err := workers.Wait(); err != nil {
		return nil, err
	}
	latencies := map[Way]Latency{}
	for way, calls := range taken {
		latencies[way] = summarize(calls)
	}
	return latencies, nil
}

// Thousand is the duration of 1,000 operations in sequence, with a typical mix: three in ten write.
type Thousand struct {
	Entries    int     `json:"entries"`
	Operations int     `json:"operations"`
	Seconds    float64 `json:"seconds"`
}

// MeasureThousand runs them with the deployed functions, with their caches.
func (p *Project) MeasureThousand(ctx context.Context, d Data, operations int, seed uint64) (Thousand, error) {
	random := rand.New(rand.NewPCG(seed, 3))
	mix := []string{OpUpsert, OpUpsert, OpUpsert, OpGet, OpGet, OpGet, OpList, OpList, OpIndex, OpIndex}
	byName := map[string]Operation{}
	instances := map[string]instance{}
	for _, op := range Operations() {
		byName[op.Name] = op
		if _, made := instances[op.Function]; !made {
			instances[op.Function] = newInstance(endpoint(op.Function, p.store, cachedReader(op.Function, p.store)))
		}
	}
	calls := make([]call, operations)
	for i := range calls {
		op := byName[mix[random.IntN(len(mix))]]
		calls[i] = invoked(instances[op.Function], op.request(d, random, fmt.Sprintf("%snew/thousand/%06d", d.Prefix, i)).event(), op.contains)
	}
	var total time.Duration
	for _, do := range calls {
		took, err := do(ctx, 0)
		if err != nil {
			return Thousand{}, err
		}
		total += took
	}
	return Thousand{Entries: d.Entries, Operations: operations, Seconds: total.Seconds()}, nil
}

// Versions returns the versions of Postgres and PostgREST.
func (p *Project) Versions(ctx context.Context) (postgres, postgrest string, err error) {
	conn, err := p.Connect(ctx)
	if err != nil {
		return "", "", err
	}
	defer func() { _ = conn.Close(ctx) }()
	if err := conn.QueryRow(ctx, "select split_part(current_setting('server_version'), ' ', 1)").Scan(&postgres); err != nil {
		return "", "", err
	}
	header, err := p.send(ctx, tableRequest{method: http.MethodGet, path: "kv_store?limit=0"}, "application/json")
	if err != nil {
		return "", "", err
	}
	_, postgrest, _ = strings.Cut(header.Get("Server"), "/")
	return postgres, postgrest, nil
}
