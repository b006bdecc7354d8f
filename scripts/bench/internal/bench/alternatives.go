package bench

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/jackc/pgx/v5"
)

// What a user might choose instead of the functions: a plain table through PostgREST.
const (
	WayDefault    Way = "function, default settings" // the deployed handler; reads are not in memory
	WayPlain      Way = "plain table"                // a request to the table from a Go HTTP client
	WayJavaScript Way = "JavaScript"                 // a function with supabase-js for the table, in Node
)

// plainTable is a plain table: JSON, and indexes in an array with a GIN index.
const plainTable = `
	create table public.bench_plain (
		key        text collate "C" primary key,
		value      jsonb not null,
		indexes    text[] not null default '{}',
		created_at timestamptz not null default now(),
		updated_at timestamptz not null default now()
	);
	create index bench_plain_indexes on public.bench_plain using gin (indexes);
	revoke all on table public.bench_plain from anon, authenticated;
	grant all on table public.bench_plain to service_role;`

// alternative is an operation and the request to the plain table that does the same. i is the round.
type alternative struct {
	Operation
	asked func(d Data, r *rand.Rand, i int, key string) request
	plain func(q request) tableRequest
	most  float64 // the promised limit of p50 relative to the plain table
}

// alternatives are the rows of the first table in BENCHMARKS.md.
func alternatives() []alternative {
	list := func(params map[string]string) request {
		params["limit"] = "100"
		return get(params)
	}
	return []alternative{
		{Operation{Name: OpGet, Function: "kv-get", contains: `"exists":true`}, func(d Data, _ *rand.Rand, i int, _ string) request {
			return get(map[string]string{"key": d.key(1 + i*7919%d.Entries)}) // a different key each time, so that it is not in memory
		}, func(q request) tableRequest {
			return tableRequest{method: http.MethodGet, path: "bench_plain?select=value&key=eq." + url.QueryEscape(q.params["key"])}
		}, 1.15},
		{Operation{Name: "list of 100 keys", Function: "kv-list", contains: `"count":100`}, func(d Data, r *rand.Rand, _ int, _ string) request {
			return list(map[string]string{"prefix": d.hundred(r)})
		}, plainList, 1},
		{Operation{Name: OpList, Function: "kv-list", contains: `"count":100`}, func(d Data, r *rand.Rand, _ int, _ string) request {
			return list(map[string]string{"prefix": d.hundred(r), "includeValues": "true"})
		}, plainList, 1},
		{Operation{Name: "list of 100 by index", Function: "kv-list", contains: `"count":100`}, func(d Data, r *rand.Rand, _ int, _ string) request {
			return list(map[string]string{"index": fmt.Sprintf("%s:o%d", d.ownerIndex(), r.IntN(d.groups()))})
		}, plainList, 1.15},
		{Operation{Name: "upsert of an entry that exists, two indexes", Function: "kv-upsert", contains: `"ok":true`}, func(d Data, r *rand.Rand, _ int, _ string) request {
			i := d.any(r)
			return upsert(d, r, d.key(i), d.pairsOf(i))
		}, plainUpsert, 1.45},
		{Operation{Name: "upsert of a new entry, two indexes", Function: "kv-upsert", writes: true, contains: `"ok":true`}, func(d Data, r *rand.Rand, _ int, key string) request {
			return upsert(d, r, key, d.pairs(r))
		}, plainUpsert, 1.45},
	}
}

func upsert(d Data, r *rand.Rand, key string, pairs [][2]string) request {
	var indexes []map[string]string
	for _, pair := range pairs {
		indexes = append(indexes, map[string]string{"key": pair[0], "member": pair[1]})
	}
	return post(map[string]any{"key": key, "value": d.valueOf(r), "indexes": indexes})
}

func plainList(q request) tableRequest {
	values := url.Values{"select": {"key"}, "order": {"key"}, "limit": {q.params["limit"]}}
	if q.params["includeValues"] == "true" {
		values.Set("select", "key,value")
	}
	if prefix := q.params["prefix"]; prefix != "" {
		end := prefix[:len(prefix)-1] + string(prefix[len(prefix)-1]+1) // the last character, a digit, is replaced by the next one
		values["key"] = []string{"gte." + prefix, "lt." + end}
	}
	if index := q.params["index"]; index != "" {
		values.Set("indexes", fmt.Sprintf("cs.{%q}", index))
	}
	return tableRequest{method: http.MethodGet, path: "bench_plain?" + values.Encode()}
}

func plainUpsert(q request) tableRequest {
	var entry struct {
		Key     string                         `json:"key"`
		Value   json.RawMessage                `json:"value"`
		Indexes []struct{ Key, Member string } `json:"indexes"`
	}
	if err := json.Unmarshal(q.body, &entry); err != nil {
		panic(err) // the request comes from this package
	}
	row := map[string]any{"key": entry.Key, "value": entry.Value, "updated_at": time.Now().UTC()}
	indexes := []string{}
	for _, pair := range entry.Indexes {
		indexes = append(indexes, pair.Key+":"+pair.Member)
	}
	row["indexes"] = indexes
	text, err := json.Marshal(row)
	if err != nil {
		panic(err)
	}
	return tableRequest{method: http.MethodPost, path: "bench_plain?on_conflict=key", body: json.RawMessage(text), prefer: "resolution=merge-duplicates,return=minimal"}
}

// MeasureAlternatives compares the deployed functions with what a user might choose instead. modules is the folder of
// an installed supabase-js. Workers run in parallel, and make the calls of a round in random order.
func (p *Project) MeasureAlternatives(ctx context.Context, conn *pgx.Conn, d Data, modules string, rounds, concurrency int, seed uint64) (results []OperationResult, err error) {
	undo, err := p.fillPlainTable(ctx, conn, d)
	defer func() { err = errors.Join(err, undo(context.WithoutCancel(ctx))) }()
	if err != nil {
		return nil, fmt.Errorf("fill a plain table: %w", err)
	}
	nodes, stop, err := p.startNodes(ctx, javascript, modules, concurrency)
	defer stop()
	if err != nil {
		return nil, fmt.Errorf("start the JavaScript functions: %w", err)
	}
	for _, a := range alternatives() {
		random := rand.New(rand.NewPCG(seed, uint64(concurrency)))
		function := newInstance(endpoint(a.Function, p.store, cachedReader(a.Function, p.store)))
		prepared := make([]map[Way]call, rounds+warmUp(rounds))
		for i := range prepared {
			key := fmt.Sprintf("%snew/%d/%06d", d.Prefix, concurrency, i)
			q := a.asked(d, random, i, key)
			event, plain := q.event(), a.plain(q)
			other := q
			if a.writes { // needs another row, since the plain request has written this one
				other = a.asked(d, random, i, key+"/js")
			}
			line := append([]byte(a.Function+" "), other.event()...)
			prepared[i] = map[Way]call{
				WayDefault: invoked(function, event, a.contains),
				WayPlain:   p.sent(plain),
				WayJavaScript: func(_ context.Context, worker int) (time.Duration, error) {
					return nodes[worker].call(line, a.contains)
				},
			}
		}
		ways, err := inTurns(ctx, prepared, warmUp(rounds), concurrency, seed)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.Name, err)
		}
		results = append(results, OperationResult{Operation: a.Name, Entries: d.Entries, Concurrency: concurrency, Ways: ways})
	}
	return results, nil
}

// fillPlainTable creates the table with the same entries. undo drops it.
func (p *Project) fillPlainTable(ctx context.Context, conn *pgx.Conn, d Data) (undo func(context.Context) error, err error) {
	undo = func(ctx context.Context) error {
		_, err := conn.Exec(ctx, "drop table if exists public.bench_plain; notify pgrst, 'reload schema'")
		return err
	}
	if err := undo(ctx); err != nil { // left by a killed run
		return undo, err
	}
	if _, err := conn.Exec(ctx, plainTable); err != nil {
		return undo, err
	}
	if _, err := conn.Exec(ctx, `
		insert into public.bench_plain (key, value, indexes)
		select key, value::text::jsonb, indexes from public.kv_store where starts_with(key, $1)`, d.Prefix+"doc/"); err != nil {
		return undo, err
	}
	if _, err := conn.Exec(ctx, "vacuum (analyze) public.bench_plain"); err != nil {
		return undo, err
	}
	if _, err := conn.Exec(ctx, "notify pgrst, 'reload schema'"); err != nil {
		return undo, err
	}
	for { // until PostgREST knows the table; it can read one that it does not know, and not write one
		_, err := p.send(ctx, tableRequest{method: http.MethodPost, path: "bench_plain?on_conflict=key", body: json.RawMessage(`{"key":"","value":0}`), prefer: "resolution=merge-duplicates,return=minimal"}, "application/json")
		if err == nil || ctx.Err() != nil {
			return undo, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

//go:embed javascript/functions.mjs
var javascript []byte

// node is a process that runs JavaScript one call at a time, as an instance of a function does.
type node struct {
	in     io.Writer
	out    *bufio.Reader
	stderr *bytes.Buffer
}

// startNodes starts one process of a program per worker. stop ends them.
func (p *Project) startNodes(ctx context.Context, program []byte, modules string, n int) (nodes []node, stop func(), err error) {
	dir, err := os.MkdirTemp("", "kv-bench-")
	if err != nil {
		return nil, func() {}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var started []*exec.Cmd
	stop = func() {
		cancel()
		for _, command := range started {
			_ = command.Wait()
		}
		_ = os.RemoveAll(dir)
	}
	file := filepath.Join(dir, "functions.mjs")
	if err := os.WriteFile(file, program, 0o600); err != nil {
		return nil, stop, err
	}
	for range n {
		command := exec.CommandContext(ctx, "node", file, modules)
		command.Env = append(os.Environ(), "SUPABASE_URL="+p.URL, "SUPABASE_SERVICE_ROLE_KEY="+p.Key)
		var stderr bytes.Buffer // shown only if a call fails, because supabase-js warns about old versions of Node
		command.Stderr = &stderr
		in, err := command.StdinPipe()
		if err != nil {
			return nil, stop, err
		}
		out, err := command.StdoutPipe()
		if err != nil {
			return nil, stop, err
		}
		if err := command.Start(); err != nil {
			return nil, stop, err
		}
		started = append(started, command)
		nodes = append(nodes, node{in, bufio.NewReader(out), &stderr})
	}
	return nodes, stop, nil
}

// call sends "<function> <event>" and returns the time that the process measured.
func (n node) call(line []byte, contains string) (time.Duration, error) {
	if _, err := n.in.Write(append(line, '\n')); err != nil {
		return 0, err
	}
	text, err := n.out.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("the process in Node ended: %w\n%s", err, n.stderr)
	}
	milliseconds, text, _ := strings.Cut(text, " ")
	took, err := strconv.ParseFloat(milliseconds, 64)
	if err != nil {
		return 0, err
	}
	var response struct {
		Body string `json:"body"`
	}
	if err := jsonv2.Unmarshal([]byte(text), &response); err != nil {
		return 0, err
	}
	if !strings.Contains(response.Body, contains) {
		return 0, fmt.Errorf("the response does not contain %s: %.200s", contains, response.Body)
	}
	return time.Duration(took * float64(time.Millisecond)), nil
}
