package bench

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/netlify"
)

// What entries of any bytes are compared with, beside [WayPlain].
const (
	WaySingle      Way = "100 single puts" // of the same entries, by kv-entries, one after the other
	WayBlobsAPI    Way = "kv-blobs-api"    // from the unchanged @netlify/blobs
	WayBlobsServer Way = "BlobsServer"     // from the same client; the server that it brings along, which keeps files
)

// comparison is a row of the table of entries: an operation, and the way that it is compared with.
type comparison struct {
	name   string
	of, to Way
	most   float64 // the promised limit of p50 relative to the other; 0 where nothing is promised
}

var comparisons = []comparison{
	{"put of JSON, new", WayDefault, WayPlain, 1.1},
	{"put of JSON, of an entry that exists", WayDefault, WayPlain, 1.1},
	{"put of text, new", WayDefault, WayPlain, 1.1},
	{"get", WayDefault, WayPlain, 1.1},
	{"batch of 100 puts", WayDefault, WaySingle, 0.1},
	{"set by @netlify/blobs", WayBlobsAPI, WayBlobsServer, 0},
	{"get by @netlify/blobs", WayBlobsAPI, WayBlobsServer, 0},
}

// textStore is the store of what is not JSON.
const textStore = "bench"

// entriesOperation makes the calls of one round. key is new in every round.
type entriesOperation func(d Data, r *rand.Rand, i int, key string) map[Way]call

// MeasureEntries compares kv-entries and kv-batch with a plain table, and kv-blobs-api with the server of @netlify/blobs.
// modules is the folder of that client.
func (p *Project) MeasureEntries(ctx context.Context, conn *pgx.Conn, d Data, modules string, rounds, concurrency int, seed uint64) (results []OperationResult, err error) {
	undo, err := p.fillPlainTable(ctx, conn, d)
	defer func() { err = errors.Join(err, undo(context.WithoutCancel(ctx))) }()
	if err != nil {
		return nil, fmt.Errorf("fill a plain table: %w", err)
	}
	operations := p.entriesOperations()
	if concurrency == 1 && p.Site != "" { // a client sends one request after the other
		nodes, stop, err := p.startNodes(ctx, blobsClient, modules, 1)
		defer stop()
		if err != nil {
			return nil, fmt.Errorf("start @netlify/blobs: %w", err)
		}
		operations = append(operations, throughClient(nodes[0], "set"), throughClient(nodes[0], "get"))
	}
	for n, operation := range operations {
		random := rand.New(rand.NewPCG(seed, uint64(concurrency)))
		c, rounds := comparisons[n], rounds
		if c.to == WaySingle {
			rounds = max(rounds/10, 4)
		}
		prepared := make([]map[Way]call, rounds+warmUp(rounds))
		for i := range prepared {
			prepared[i] = operation(d, random, i, fmt.Sprintf("%snew/%d/%d/%06d", d.Prefix, concurrency, n, i))
		}
		ways, err := inTurns(ctx, prepared, warmUp(rounds), concurrency, seed)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		results = append(results, OperationResult{Operation: c.name, Entries: d.Entries, Concurrency: concurrency, Ways: ways})
	}
	return results, nil
}

// entriesOperations are the operations of the functions, in the order of [comparisons].
func (p *Project) entriesOperations() []entriesOperation {
	cache := kv.NewCache(p.store, kv.DefaultCache)
	entries, batch := newInstance(netlify.Entries(cache)), newInstance(netlify.Batch(cache))
	put := func(store, key, kind string, body []byte) map[Way]call {
		value := json.RawMessage(body)
		if kind != "application/json" {
			value = mustEncode(string(body))
		}
		row := mustEncode(map[string]any{"key": key, "value": value, "updated_at": time.Now().UTC()})
		return map[Way]call{
			WayDefault: invoked(entries, request{method: http.MethodPut, path: entryPath(store, key), body: body, kind: kind}.event(), `"ok":true`),
			WayPlain:   p.sent(tableRequest{method: http.MethodPost, path: "bench_plain?on_conflict=key", body: row, prefer: "resolution=merge-duplicates,return=minimal"}),
		}
	}
	return []entriesOperation{
		func(d Data, r *rand.Rand, _ int, key string) map[Way]call {
			return put(kv.DefaultStore, key, "application/json", mustEncode(d.valueOf(r)))
		},
		func(d Data, r *rand.Rand, _ int, _ string) map[Way]call {
			return put(kv.DefaultStore, d.key(d.any(r)), "application/json", mustEncode(d.valueOf(r)))
		},
		func(_ Data, _ *rand.Rand, _ int, key string) map[Way]call {
			return put(textStore, key, "text/plain", []byte(smallText))
		},
		func(d Data, _ *rand.Rand, i int, _ string) map[Way]call {
			key := d.key(1 + i*7919%d.Entries) // a different key each time, so that it is not in memory
			return map[Way]call{
				WayDefault: invoked(entries, request{method: http.MethodGet, path: entryPath(kv.DefaultStore, key)}.event(), scorePath),
				WayPlain:   p.sent(tableRequest{method: http.MethodGet, path: "bench_plain?select=value&key=eq." + url.QueryEscape(key)}),
			}
		},
		func(d Data, r *rand.Rand, _ int, key string) map[Way]call {
			var operations []map[string]any
			var singles []call
			for i := range 100 {
				value := d.valueOf(r)
				operations = append(operations, map[string]any{"op": "put", "key": fmt.Sprintf("%s/b%d", key, i), "value": value})
				singles = append(singles, put(kv.DefaultStore, fmt.Sprintf("%s/s%d", key, i), "application/json", mustEncode(value))[WayDefault])
			}
			return map[Way]call{
				WayDefault: invoked(batch, post(map[string]any{"operations": operations}).event(), `"status":201`),
				WaySingle: func(ctx context.Context, worker int) (all time.Duration, err error) {
					for _, single := range singles {
						took, err := single(ctx, worker)
						if err != nil {
							return 0, err
						}
						all += took
					}
					return all, nil
				},
			}
		},
	}
}

// smallText is a text of 300 bytes.
var smallText = strings.Repeat("Some sentences of text, as people write them into a form. ", 6)[:300]

// sent times a request to the plain table.
func (p *Project) sent(t tableRequest) call {
	return timed(func(ctx context.Context) error {
		_, err := p.send(ctx, t, "application/json")
		return err
	})
}

func entryPath(store, key string) string {
	return "/api/kv/entries/" + store + "/" + key // these need no encoding
}

func mustEncode(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // the values come from this package
	}
	return text
}

//go:embed javascript/blobs.mjs
var blobsClient []byte

// throughClient calls a method of @netlify/blobs on both servers. A get reads what the set of the same round wrote.
func throughClient(n node, method string) entriesOperation {
	return func(d Data, _ *rand.Rand, i int, _ string) map[Way]call {
		calls := map[Way]call{}
		for _, way := range []Way{WayBlobsAPI, WayBlobsServer} {
			line := fmt.Appendf(nil, "%s %s", way, mustEncode(map[string]string{"method": method, "key": fmt.Sprintf("%snew/client/%06d", d.Prefix, i), "text": smallText}))
			calls[way] = func(context.Context, int) (time.Duration, error) { return n.call(line, smallText) }
		}
		return calls
	}
}
