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

// The addresses of the functions.
const (
	upsertPath = "/.netlify/functions/kv-upsert"
	listPath   = "/.netlify/functions/kv-list"
	getPath    = "/.netlify/functions/kv-get"
	queryPath  = "/.netlify/functions/kv-query"
	deletePath = "/.netlify/functions/kv-delete"
)

// hangAfter is the time limit of a function. No client should wait longer.
const hangAfter = 60 * time.Second

// load is a group of clients that share a few entries, and the history of their operations.
type load struct {
	platform *platform
	prefix   string
	entries  int
	seed     uint64
	began    time.Time
	expected func(failure) bool // whether the fault causes this error, which no function returns

	mu      sync.Mutex
	history history
	done    []done // successful requests, which show when everything works again
	asked   int
}

// done is one successful request.
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

// client sends one request after the other.
type client struct {
	*load
	number  int
	random  *rand.Rand
	written map[string]acknowledged // its last write to each entry
	writes  int
}

type acknowledged struct{ id, version string }

func (l *load) client(number int) *client {
	return &client{load: l, number: number, random: rand.New(rand.NewPCG(l.seed, uint64(number+2))), written: map[string]acknowledged{}}
}

// think is the average pause between two requests of a client.
const think = 80 * time.Millisecond

// work sends requests until stop is closed. It waits for the last response.
func (c *client) work(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(c.random.Float64() * 2 * float64(think))):
		}
		key := c.key(c.random.IntN(c.entries))
		switch dice := c.random.IntN(140); {
		case dice >= 100:
			c.workOnEntries()
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
	id := c.nextID()
	body, err := json.Marshal(map[string]any{"key": key, "value": json.RawMessage(value(key, id)),
		"indexes": []map[string]string{{"key": c.indexOf(key), "member": id}}})
	if err != nil {
		panic(err) // these values can always be encoded
	}
	o := op{Client: c.number, Do: actWrite, Through: "kv-upsert", Key: key, ID: id, Call: c.now()}
	a := c.request(http.MethodPost, upsertPath, body, nil)
	o.Return, o.Unknown = a.finish, a.status != http.StatusOK
	if !o.Unknown {
		c.finished("upsert", a.call, a.finish)
		c.written[key] = acknowledged{id, a.header.Get("X-KV-Version")}
	}
	c.record(o)
}

func (c *client) remove(key string) {
	o := op{Client: c.number, Do: actRemove, Through: "kv-delete", Key: key, Call: c.now()}
	a := c.request(http.MethodDelete, deletePath+"?key="+url.QueryEscape(key), nil, nil)
	var decoded struct{ Deleted bool }
	o.Return = a.finish
	o.Unknown = a.status != http.StatusOK || !c.decodes(a, &decoded)
	o.Existed = decoded.Deleted
	c.record(o)
}

// get reads one entry. Without a bound, the read must be current. With one, it may come from a cache, but must not be
// older than the named write.
func (c *client) get(key string, bound time.Duration, after acknowledged) {
	header := http.Header{}
	if bound == 0 {
		header.Set("Cache-Control", "no-cache")
	}
	if after.version != "" {
		header.Set("X-KV-After", after.version)
	}
	o := op{Client: c.number, Do: actRead, Through: "kv-get", Key: key, Bound: bound, After: after.id, Call: c.now()}
	a := c.request(http.MethodGet, getPath+"?key="+url.QueryEscape(key), nil, header)
	o.Return = a.finish
	var decoded struct {
		Key   string
		Value json.RawMessage
	}
	switch {
	case a.status != http.StatusOK && a.status != http.StatusNotFound || !c.decodes(a, &decoded):
		return
	case a.status == http.StatusOK:
		var ok bool
		if o.ID, ok = c.idOf(decoded.Key, decoded.Value); !ok {
			return
		}
	}
	if bound == 0 {
		c.finished("get", a.call, a.finish)
	}
	c.record(o)
}

// list reads all entries and the members of their indexes in one request.
func (c *client) list() {
	a := c.request(http.MethodGet, listPath+"?includeValues=true&prefix="+url.QueryEscape(c.prefix), nil, nil)
	var decoded struct{ Data map[string]json.RawMessage }
	if a.status != http.StatusOK || !c.decodes(a, &decoded) {
		return
	}
	s := snapshot{Call: a.call, Return: a.finish, Entries: map[string]string{}, Members: map[string][]string{}}
	var reads []op
	for n := range c.entries {
		key := c.key(n)
		o := op{Client: c.number, Do: actRead, Through: "kv-list", Key: key, Call: a.call, Return: a.finish}
		if text, there := decoded.Data[key]; there {
			var ok bool
			if o.ID, ok = c.idOf(key, text); !ok {
				return
			}
			s.Entries[key] = o.ID
		}
		if text, there := decoded.Data[c.indexOf(key)]; there {
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

// query reads all entries with their indexes. Value and indexes must be of the same write.
func (c *client) query(bound time.Duration) {
	header := http.Header{}
	if bound == 0 {
		header.Set("Cache-Control", "no-cache")
	}
	a := c.request(http.MethodGet, queryPath+"?limit=1000&select=key,value,indexes&prefix="+url.QueryEscape(c.prefix+"k/"), nil, header)
	var decoded struct {
		Results []struct {
			Key     string
			Value   json.RawMessage
			Indexes []string
		}
	}
	if a.status != http.StatusOK || !c.decodes(a, &decoded) {
		return
	}
	holds := map[string]string{}
	for _, r := range decoded.Results {
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

// idOf returns the id of the write that a value belongs to. A value of no write is a violation.
func (c *client) idOf(key string, text json.RawMessage) (string, bool) {
	id, err := idOf(key, string(text))
	if err != nil {
		c.violates(tornEntry, key, "%v", err)
	}
	return id, err == nil
}

// response is the response to a request.
type response struct {
	status       int // 0: there was no response
	header       http.Header
	body         []byte
	call, finish time.Duration
}

// decodes parses a response. One that cannot be parsed is a violation, even during a fault of the gateway.
func (c *client) decodes(a response, into any) bool {
	if err := json.Unmarshal(a.body, into); err != nil {
		c.violates(undocumented, "", "status %d with a body that is not JSON: %v: %.200q", a.status, err, a.body)
		return false
	}
	return true
}

// request sends one request and records a failure if it did not succeed. The 404 of a read and a condition that does
// not hold count as success.
func (c *client) request(method, path string, body []byte, header http.Header) response {
	a := response{call: c.now()}
	err := c.send(method, path, body, header, &a)
	a.finish = c.now()
	c.mu.Lock()
	c.asked++
	c.mu.Unlock()
	function, _, _ := strings.Cut(strings.TrimPrefix(path, "/.netlify/functions/"), "?")
	function, _, _ = strings.Cut(function, "/")
	if a.finish-a.call > hangAfter {
		c.violates(hung, "", "%s took %s", function, ms(a.finish-a.call))
	}
	if err == nil && (a.status == http.StatusOK || function == "kv-entries" && succeeded(a) || method == http.MethodGet && a.status == http.StatusNotFound && isMissing(a.body)) {
		return a
	}
	f := failure{Through: function, Status: a.status, Text: fmt.Sprintf("%.300s", a.body), Call: a.call, Return: a.finish}
	var decoded struct{ Code, ErrorType string }
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		c.violates(hung, "", "%s: %v", function, err)
	case err != nil:
		f.Text = err.Error()
	case json.Unmarshal(a.body, &decoded) == nil:
		f.Code = decoded.Code
		if f.Code == "" {
			f.Code = decoded.ErrorType
		}
	}
	if !documented(f) && !c.expected(f) {
		c.violates(undocumented, "", "%s returned %d %q: %s", function, f.Status, f.Code, f.Text)
	}
	if err != nil {
		a.status = 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.history.Failures = append(c.history.Failures, f)
	return a
}

func (c *client) send(method, path string, body []byte, header http.Header, a *response) error {
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

// isMissing reports whether a 404 is that of kv-get or kv-entries for a key without an entry.
func isMissing(body []byte) bool {
	var decoded struct{ Error string }
	return json.Unmarshal(body, &decoded) == nil && decoded.Error == "Key not found"
}

// documented reports whether callers may get the error while the database has a problem (docs/API.md, "Errors"). 503
// not_configured is not among these errors, since it asks for a change of the settings.
func documented(f failure) bool {
	return f.Status == http.StatusBadGateway && f.Code == "database_unreachable" ||
		f.Status == http.StatusServiceUnavailable && f.Code == "unavailable" ||
		f.Status == http.StatusGatewayTimeout && f.Code == "deadline_exceeded"
}
