package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/google/uuid"
)

// The addresses of entries with conditions, and of numbers. They are in a store of their own.
const (
	entriesPath = "/.netlify/functions/kv-entries/faults/"
	batchPath   = "/.netlify/functions/kv-batch"
)

// counters are the numbers that clients increment alone. Two more are always incremented together.
const counters = 2

func (l *load) conditional(n int) string { return fmt.Sprintf("%se/%d", l.prefix, n) }
func (l *load) numberKey(n int) string   { return fmt.Sprintf("%sn/%d", l.prefix, n) }
func (l *load) pair() string             { return l.prefix + "pair" }

// beginPair writes the two numbers that are incremented together, since an atomic batch fails where one of its gets finds
// nothing.
func (l *load) beginPair(ctx context.Context) error {
	body := fmt.Sprintf(`{"store":"faults","operations":[{"op":"put","key":"%s/0","value":0},{"op":"put","key":"%[1]s/1","value":0}]}`, l.pair())
	return l.platform.request(ctx, http.MethodPost, l.platform.base+batchPath, []byte(body), nil)
}

// create writes an entry only if there is none.
func (c *client) create(key string) {
	o := op{Client: c.number, Do: actCreate, Key: key, ID: c.nextID()}
	c.put(&o, http.Header{"If-None-Match": {"*"}})
}

// swap reads an entry and replaces it, as often as another client was faster.
func (c *client) swap(key string) {
	for range 3 {
		id, etag := c.readConditional(key)
		if etag == "" {
			return
		}
		o := op{Client: c.number, Do: actSwap, Key: key, Expected: id, ID: c.nextID()}
		if c.put(&o, http.Header{"If-Match": {etag}}); !o.Refused {
			return
		}
	}
}

func (c *client) put(o *op, header http.Header) {
	o.Through, o.Call = "kv-entries", c.now()
	a, ok := c.repeat(http.MethodPut, entriesPath+url.PathEscape(o.Key), []byte(value(o.Key, o.ID)), header)
	o.Return, o.Unknown, o.Refused = a.finish, !ok, a.status == http.StatusPreconditionFailed
	if ok {
		c.finished("put", a.call, a.finish)
	}
	c.recordEntry(*o)
}

// take reads and removes an entry.
func (c *client) take(key string) {
	o := op{Client: c.number, Do: actTake, Through: "kv-batch", Key: key, Call: c.now()}
	results, a, ok := c.batch(false, operation{"take", key})
	o.Return, o.Unknown = a.finish, !ok
	if ok && results[0].Status == http.StatusOK {
		if o.ID, ok = c.idOf(key, results[0].Value); !ok {
			return
		}
	}
	c.recordEntry(o)
}

// readConditional reads an entry with its ETag, which is "" where there is none or it could not be read.
func (c *client) readConditional(key string) (id, etag string) {
	o := op{Client: c.number, Do: actRead, Through: "kv-entries", Key: key, Call: c.now()}
	a := c.request(http.MethodGet, entriesPath+url.PathEscape(key), nil, nil)
	o.Return = a.finish
	switch a.status {
	case http.StatusOK:
		var ok bool
		if o.ID, ok = c.idOf(key, a.body); !ok {
			return "", ""
		}
	case http.StatusNotFound:
	default:
		return "", ""
	}
	c.recordEntry(o)
	return o.ID, a.header.Get("ETag")
}

// add increments numbers in one atomic batch, and records one operation, since they are always the same.
func (c *client) add(name string, keys ...string) {
	c.calculate(actAdd, "increment", name, keys)
}

// readNumbers reads numbers in one atomic batch.
func (c *client) readNumbers(name string, keys ...string) {
	c.calculate(actRead, "get", name, keys)
}

func (c *client) calculate(do, action, name string, keys []string) {
	c.random.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] }) // in any order, so that they might lock each other
	var operations []operation
	for _, key := range keys {
		operations = append(operations, operation{action, key})
	}
	o := op{Client: c.number, Do: do, Through: "kv-batch", Key: name, Call: c.now()}
	results, a, ok := c.batch(len(keys) > 1, operations...)
	o.Return, o.Unknown = a.finish, !ok
	if ok {
		c.finished(action, a.call, a.finish)
		o.Number = results[0].number()
		for _, r := range results {
			if n := r.number(); n != o.Number {
				c.violates(halfApplied, name, "%d and %d, which are always incremented together", o.Number, n)
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.history.Counters = append(c.history.Counters, o)
}

// operation is one of a batch.
type operation struct {
	Op  string `json:"op"`
	Key string `json:"key"`
}

// operationResult is the result of an operation. Its value is not there where the entry is not.
type operationResult struct {
	Status int
	ETag   string
	Value  json.RawMessage
}

func (r operationResult) number() (n int) {
	_ = json.Unmarshal(r.Value, &n) // 0 for nothing, which the model expects, and for what is no number, which it does not
	return n
}

// batch sends a batch until there is a response.
func (c *client) batch(atomic bool, operations ...operation) ([]operationResult, response, bool) {
	body, err := json.Marshal(map[string]any{"store": "faults", "atomic": atomic, "operations": operations})
	if err != nil {
		panic(err) // operations can always be encoded
	}
	a, ok := c.repeat(http.MethodPost, batchPath, body, nil)
	if !ok {
		return nil, a, false
	}
	results, ok := c.resultsOf(a)
	if ok && len(results) != len(operations) {
		c.violates(undocumented, "", "%d results of %d operations", len(results), len(operations))
		return nil, a, false
	}
	return results, a, ok
}

func (c *client) resultsOf(a response) ([]operationResult, bool) {
	var decoded struct{ Results []operationResult }
	ok := c.decodes(a, &decoded)
	return decoded.Results, ok
}

// repeat sends a request with an Idempotency-Key until there is a response, and sometimes once more. Whatever was lost
// on the way, the request is applied once, and each response is the same. It gives up after a while.
func (c *client) repeat(method, path string, body []byte, header http.Header) (response, bool) {
	if header == nil {
		header = http.Header{}
	}
	header.Set("Idempotency-Key", uuid.NewString())
	for until := c.now() + hangAfter; c.now() < until; time.Sleep(think) {
		a := c.request(method, path, body, header)
		if !succeeded(a) {
			continue
		}
		if c.random.IntN(8) == 0 {
			again := c.request(method, path, body, header)
			if succeeded(again) && !c.sameResult(a, again) {
				c.violates(noOrder, "", "a repeated %s %s had another response: %d %.300s, then %d %.300s", method, path, a.status, a.body, again.status, again.body)
			}
		}
		return a, true
	}
	return response{finish: c.now()}, false
}

// sameResult compares what two responses say of the entries, which is all but the time of the request.
func (c *client) sameResult(a, b response) bool {
	if a.status != b.status || a.header.Get("ETag") != b.header.Get("ETag") {
		return false
	}
	one, _ := c.resultsOf(a)
	other, _ := c.resultsOf(b)
	return slices.EqualFunc(one, other, func(x, y operationResult) bool {
		return x.Status == y.Status && x.ETag == y.ETag && bytes.Equal(x.Value, y.Value)
	})
}

// succeeded reports whether a request got its own response, which may be that a condition does not hold.
func succeeded(a response) bool {
	return a.status == http.StatusOK || a.status == http.StatusCreated || a.status == http.StatusPreconditionFailed
}

func (c *client) nextID() string {
	c.writes++
	return fmt.Sprintf("%d-%d", c.number, c.writes)
}

func (c *client) recordEntry(o op) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.history.Entries = append(c.history.Entries, o)
}

// workOnEntries sends one of the requests with conditions, or to numbers.
func (c *client) workOnEntries() {
	key, number := c.conditional(c.random.IntN(c.entries)), c.numberKey(c.random.IntN(counters))
	switch dice := c.random.IntN(100); {
	case dice < 20:
		c.create(key)
	case dice < 45:
		c.swap(key)
	case dice < 60:
		c.take(key)
	case dice < 65:
		c.readConditional(key)
	case dice < 80:
		c.add(number, number)
	case dice < 85:
		c.readNumbers(number, number)
	case dice < 95:
		c.add(c.pair(), c.pair()+"/0", c.pair()+"/1")
	default:
		c.readNumbers(c.pair(), c.pair()+"/0", c.pair()+"/1")
	}
}

// readAllEntries reads each entry and number once more.
func (c *client) readAllEntries() {
	for n := range c.entries {
		c.readConditional(c.conditional(n))
	}
	for n := range counters {
		c.readNumbers(c.numberKey(n), c.numberKey(n))
	}
	c.readNumbers(c.pair(), c.pair()+"/0", c.pair()+"/1")
}
