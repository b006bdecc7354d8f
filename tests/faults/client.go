package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Where the functions answer.
const (
	upsertPath = "/.netlify/functions/kv-upsert"
	listPath   = "/.netlify/functions/kv-list"
	getPath    = "/.netlify/functions/kv-get"
	queryPath  = "/.netlify/functions/kv-query"
	deletePath = "/.netlify/functions/kv-delete"
)

// hangAfter is how long the platform lets a function work: whoever waits longer was left hanging.
const hangAfter = 60 * time.Second

// load is many clients that work on the same few entries, and the history of what they did.
type load struct {
	platform *platform
	prefix   string
	entries  int
	seed     uint64
	began    time.Time
	excused  func(failure) bool // whether the fault explains an error that no function gives

	mu      sync.Mutex
	history history
	done    []done // what was answered, for telling when everything works again
	asked   int
}

// done is one answered request.
type done struct {
	what         string
	call, finish time.Duration
}

func (l *load) now() time.Duration { return time.Since(l.began) }

func (l *load) key(n int) string { return fmt.Sprintf("%sk/%d", l.prefix, n) }
func (l *load) indexOf(key string) string {
	return strings.Replace(key, l.prefix+"k/", l.prefix+"x/", 1)
}

func (l *load) record(ops ...op) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history.Ops = append(l.history.Ops, ops...)
}

func (l *load) finished(what string, call, finish time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = append(l.done, done{what, call, finish})
}

func (l *load) violates(promise, key, text string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history.Seen = append(l.history.Seen, violation{promise, key, fmt.Sprintf(text, args...)})
}

// client does one thing after the other.
type client struct {
	*load
	number  int
	random  *rand.Rand
	written map[string]acknowledged // its own last write of each entry
	writes  int
}

type acknowledged struct{ id, version string }

func (l *load) client(number int) *client {
	return &client{load: l, number: number, random: rand.New(rand.NewPCG(l.seed, uint64(number+2))), written: map[string]acknowledged{}}
}

// think is the pause between two requests of a client, on average.
const think = 80 * time.Millisecond

// work goes on until told to stop. What is under way then is brought to its end.
func (c *client) work(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(c.random.Float64() * 2 * float64(think))):
		}
		key := c.key(c.random.IntN(c.entries))
		switch dice := c.random.IntN(100); {
		case dice < 30:
			c.upsert(key)
		case dice < 34:
			c.remove(key)
		case dice < 58:
			c.get(key, 0, acknowledged{})
		case dice < 76:
			c.get(key, c.platform.maxStale, acknowledged{})
		case dice < 84:
			c.get(key, c.platform.maxStale, c.written[key])
		case dice < 92:
			c.list()
		case dice < 96:
			c.query(0)
		default:
			c.query(c.platform.maxStale)
		}
	}
}

func (c *client) upsert(key string) {
	c.writes++
	id := fmt.Sprintf("%d-%d", c.number, c.writes)
	body, err := json.Marshal(map[string]any{"key": key, "value": json.RawMessage(value(key, id)),
		"indexes": []map[string]string{{"key": c.indexOf(key), "member": id}}})
	if err != nil {
		panic(err) // there is nothing in it that JSON cannot say
	}
	o := op{Client: c.number, Do: actWrite, Through: "kv-upsert", Key: key, ID: id, Call: c.now()}
	a := c.ask(http.MethodPost, upsertPath, body, nil)
	o.Return, o.Unknown = a.finish, a.status != http.StatusOK
	if !o.Unknown {
		c.finished("upsert", a.call, a.finish)
		c.written[key] = acknowledged{id, a.header.Get("X-KV-Version")}
	}
	c.record(o)
}

func (c *client) remove(key string) {
	o := op{Client: c.number, Do: actRemove, Through: "kv-delete", Key: key, Call: c.now()}
	a := c.ask(http.MethodDelete, deletePath+"?key="+url.QueryEscape(key), nil, nil)
	var told struct{ Deleted bool }
	o.Return = a.finish
	o.Unknown = a.status != http.StatusOK || !c.understands(a, &told)
	o.Existed = told.Deleted
	c.record(o)
}

// get reads one entry: as new as the request without a bound, or else from a cache, and then not older than a write, if one is named.
func (c *client) get(key string, bound time.Duration, after acknowledged) {
	header := http.Header{}
	if bound == 0 {
		header.Set("Cache-Control", "no-cache")
	}
	if after.version != "" {
		header.Set("X-KV-After", after.version)
	}
	o := op{Client: c.number, Do: actRead, Through: "kv-get", Key: key, Bound: bound, After: after.id, Call: c.now()}
	a := c.ask(http.MethodGet, getPath+"?key="+url.QueryEscape(key), nil, header)
	o.Return = a.finish
	var told struct {
		Key   string
		Value json.RawMessage
	}
	switch {
	case a.status != http.StatusOK && a.status != http.StatusNotFound || !c.understands(a, &told):
		return
	case a.status == http.StatusOK:
		var ok bool
		if o.ID, ok = c.idOf(told.Key, told.Value); !ok {
			return
		}
	}
	if bound == 0 {
		c.finished("get", a.call, a.finish)
	}
	c.record(o)
}

// list reads everything there is, at one moment: each entry, and the members of its index.
func (c *client) list() {
	a := c.ask(http.MethodGet, listPath+"?includeValues=true&prefix="+url.QueryEscape(c.prefix), nil, nil)
	var told struct {
		Keys []string
		Data map[string]json.RawMessage
	}
	if a.status != http.StatusOK || !c.understands(a, &told) {
		return
	}
	s := snapshot{Call: a.call, Return: a.finish, Entries: map[string]string{}, Members: map[string][]string{}}
	var reads []op
	for n := range c.entries {
		key := c.key(n)
		o := op{Client: c.number, Do: actRead, Through: "kv-list", Key: key, Call: a.call, Return: a.finish}
		if text, there := told.Data[key]; there {
			var ok bool
			if o.ID, ok = c.idOf(key, text); !ok {
				return
			}
			s.Entries[key] = o.ID
		}
		if text, there := told.Data[c.indexOf(key)]; there {
			var members []string
			if err := json.Unmarshal(text, &members); err != nil {
				c.violates(tornEntry, c.indexOf(key), "not an array of members: %v: %.200s", err, text)
				return
			}
			s.Members[key] = members
		}
		reads = append(reads, o)
	}
	c.finished("list", a.call, a.finish)
	c.record(reads...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.history.Snapshots = append(c.history.Snapshots, s)
}

// query reads all entries with their indexes, which must be those of the write that the value is of.
func (c *client) query(bound time.Duration) {
	header := http.Header{}
	if bound == 0 {
		header.Set("Cache-Control", "no-cache")
	}
	a := c.ask(http.MethodGet, queryPath+"?limit=1000&select=key,value,indexes&prefix="+url.QueryEscape(c.prefix+"k/"), nil, header)
	var told struct {
		Results []struct {
			Key     string
			Value   json.RawMessage
			Indexes []string
		}
	}
	if a.status != http.StatusOK || !c.understands(a, &told) {
		return
	}
	holds := map[string]string{}
	for _, r := range told.Results {
		id, ok := c.idOf(r.Key, r.Value)
		if !ok {
			return
		}
		if want := c.indexOf(r.Key) + ":" + id; len(r.Indexes) != 1 || r.Indexes[0] != want {
			c.violates(halfApplied, r.Key, "the value is of %s, and its indexes are %q", id, r.Indexes)
		}
		holds[r.Key] = id
	}
	var reads []op
	for n := range c.entries {
		reads = append(reads, op{Client: c.number, Do: actRead, Through: "kv-query", Key: c.key(n), ID: holds[c.key(n)], Bound: bound, Call: a.call, Return: a.finish})
	}
	if bound == 0 {
		c.finished("query", a.call, a.finish)
	}
	c.record(reads...)
}

// idOf is the write that a value is of. A value that is of none is a violation.
func (c *client) idOf(key string, text json.RawMessage) (string, bool) {
	id, err := idOf(key, string(text))
	if err != nil {
		c.violates(tornEntry, key, "%v", err)
	}
	return id, err == nil
}

// answer is what came of a request.
type answer struct {
	status       int // 0: nothing came
	header       http.Header
	body         []byte
	call, finish time.Duration
}

// understands reads an answer. One that cannot be read is a violation, whatever the gateway did.
func (c *client) understands(a answer, into any) bool {
	if err := json.Unmarshal(a.body, into); err != nil {
		c.violates(undocumented, "", "status %d with a body that is not JSON: %v: %.200q", a.status, err, a.body)
		return false
	}
	return true
}

// ask sends one request, and records why there is no good answer if there is none. kv-get's 404 is one.
func (c *client) ask(method, path string, body []byte, header http.Header) answer {
	a := answer{call: c.now()}
	err := c.send(method, path, body, header, &a)
	a.finish = c.now()
	c.mu.Lock()
	c.asked++
	c.mu.Unlock()
	function, _, _ := strings.Cut(strings.TrimPrefix(path, "/.netlify/functions/"), "?")
	if a.finish-a.call > hangAfter {
		c.violates(hung, "", "%s took %s", function, ms(a.finish-a.call))
	}
	if err == nil && (a.status == http.StatusOK || a.status == http.StatusNotFound && function == "kv-get" && isMissing(a.body)) {
		return a
	}
	f := failure{Through: function, Status: a.status, Text: fmt.Sprintf("%.300s", a.body), Call: a.call, Return: a.finish}
	var told struct{ Code, ErrorType string }
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		c.violates(hung, "", "%s: %v", function, err)
	case err != nil:
		f.Text = err.Error()
	case json.Unmarshal(a.body, &told) == nil:
		f.Code = told.Code
		if f.Code == "" {
			f.Code = told.ErrorType
		}
	}
	if !documented(f) && !c.excused(f) {
		c.violates(undocumented, "", "%s answered %d %q: %s", function, f.Status, f.Code, f.Text)
	}
	if err != nil {
		a.status = 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.history.Failures = append(c.history.Failures, f)
	return a
}

func (c *client) send(method, path string, body []byte, header http.Header, a *answer) error {
	req, err := http.NewRequestWithContext(context.Background(), method, c.platform.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	for name, values := range header {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.platform.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	a.status, a.header = resp.StatusCode, resp.Header
	a.body, err = io.ReadAll(resp.Body)
	return err
}

// isMissing tells kv-get's own 404 from one of anything else.
func isMissing(body []byte) bool {
	var told struct {
		Exists *bool
		Error  string
	}
	return json.Unmarshal(body, &told) == nil && told.Exists != nil && !*told.Exists && told.Error == "Key not found"
}

// documented reports whether a caller must reckon with the error while the database is in trouble (docs/API.md, "Errors"). 503
// not_configured is not among them: it says that somebody has to set something.
func documented(f failure) bool {
	return f.Status == http.StatusBadGateway && f.Code == "database_unreachable" ||
		f.Status == http.StatusServiceUnavailable && f.Code == "unavailable" ||
		f.Status == http.StatusGatewayTimeout && f.Code == "deadline_exceeded"
}
