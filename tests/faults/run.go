package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"
)

// outcome is the effect of a fault on the load: a row of the table.
type outcome struct {
	Fault      string         `json:"fault"`
	What       string         `json:"what"`
	Seed       uint64         `json:"seed"`
	Requests   int            `json:"requests"`
	Writes     int            `json:"acknowledged_writes"`
	Unknown    int            `json:"writes_without_an_answer"`
	Refused    int            `json:"refused_conditions"`
	Reads      map[string]int `json:"reads"` // "now", "bounded", "after"
	Snapshots  int            `json:"snapshots"`
	Errors     map[string]int `json:"errors"` // by status and code
	Soonest    float64        `json:"soonest_error_s,omitempty"`
	Slowest    float64        `json:"slowest_s"`
	Recovery   float64        `json:"recovery_s"`
	Repaired   int            `json:"repaired_copies,omitempty"` // copies that repair had to make, where writes are mirrored
	Violations []violation    `json:"violations"`
	history    *history
}

// settings are the settings of a run.
type settings struct {
	seed             uint64
	hold             time.Duration
	clients, entries int
	recoverWithin    time.Duration
}

// quietTime is how long the load runs before a fault, and after everything works again.
const quietTime = 2 * time.Second

// run injects one fault under load and checks the history.
func run(ctx context.Context, p *platform, f fault, s settings) (*outcome, error) {
	name := fnv.New64a()
	_, _ = name.Write([]byte(f.Name))
	seed := s.seed ^ name.Sum64() // does not depend on the other faults
	l := &load{platform: p, prefix: fmt.Sprintf("faults/%d/%s/", s.seed, f.Name), entries: s.entries, seed: seed, began: time.Now(),
		expected: func(x failure) bool { return f.Excuses != nil && f.Excuses(x) }}
	if err := l.fresh(ctx); err != nil {
		return nil, err
	}
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for number := range s.clients {
		clients.Go(func() { l.client(number).work(stop) })
	}
	ended, err := l.breakAndRecover(ctx, f, s)
	close(stop)
	clients.Wait()
	if err != nil {
		return nil, err
	}
	if err := l.readEverything(ctx); err != nil {
		return nil, err
	}
	repaired := 0
	if mirrored() {
		if repaired, err = l.settle(ctx); err != nil {
			return nil, err
		}
	}
	o := l.outcome(ended)
	o.Repaired = repaired
	o.Fault, o.What, o.Seed = f.Name, f.What, s.seed
	if f.Fails && len(o.Errors) == 0 {
		return nil, fmt.Errorf("%s: nothing failed, so nothing was broken", f.Name)
	}
	o.Violations = l.history.check()
	if o.Recovery > s.recoverWithin.Seconds() {
		o.Violations = append(o.Violations, violation{Promise: notRecovered, Text: fmt.Sprintf("%.1f s after the fault had ended", o.Recovery)})
	}
	return o, nil
}

const notRecovered = "it took too long until everything worked again"

// fresh checks that there are no entries, since histories begin without any.
func (l *load) fresh(ctx context.Context) error {
	var decoded struct{ Count *int }
	if err := l.platform.request(ctx, http.MethodGet, l.platform.base+listPath+"?prefix="+l.prefix, nil, &decoded); err != nil {
		return err
	}
	if decoded.Count == nil || *decoded.Count != 0 {
		return fmt.Errorf("there are entries under %s already: choose another --seed", l.prefix)
	}
	return l.beginPair(ctx)
}

// breakAndRecover injects the fault in the middle of the load and waits until everything works again. It returns when
// the fault ended.
func (l *load) breakAndRecover(ctx context.Context, f fault, s settings) (ended time.Duration, err error) {
	if err := sleep(ctx, quietTime); err != nil {
		return 0, err
	}
	hold := s.hold
	if f.Hold != 0 {
		hold = f.Hold
	}
	breaking, cancel := context.WithTimeout(ctx, hold+time.Minute)
	defer cancel()
	if err := f.Break(breaking, l.platform, hold, rand.New(rand.NewPCG(l.seed, 1))); err != nil {
		return 0, fmt.Errorf("%s: %w", f.Name, err)
	}
	ended = l.now()
	waiting, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for l.recovery(ended) < 0 {
		if err := sleep(waiting, 20*time.Millisecond); err != nil {
			return 0, fmt.Errorf("%s: not everything works two minutes after the fault", f.Name)
		}
	}
	return ended, sleep(ctx, quietTime)
}

// everything lists what must work again: a write, and each kind of read.
var everything = []string{"upsert", "get", "list", "query", "put", "increment"}

// recovery returns how long after the fault a new request of each kind had succeeded; negative if not yet.
func (l *load) recovery(ended time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := map[string]time.Duration{}
	for _, d := range l.done {
		if seen, ok := first[d.what]; d.call >= ended && (!ok || d.finish < seen) {
			first[d.what] = d.finish
		}
	}
	last := time.Duration(0)
	for _, what := range everything {
		at, ok := first[what]
		if !ok {
			return -1
		}
		last = max(last, at-ended)
	}
	return last
}

// readEverything reads each entry once more in every way, and compares the tables.
func (l *load) readEverything(ctx context.Context) error {
	failures := len(l.history.Failures)
	c := l.client(finalReader)
	for n := range l.entries {
		c.get(c.key(n), 0, acknowledged{})
	}
	c.query(0)
	c.list()
	c.readAllEntries()
	if len(l.history.Failures) > failures {
		return fmt.Errorf("the final reads failed: %v", l.history.Failures[failures])
	}
	return l.compareTables(ctx)
}

// compareTables checks that the tables of entries, postings and members agree after the load.
func (l *load) compareTables(ctx context.Context) error {
	conn, err := connect(ctx, l.platform.database)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, `
		with pairs as (
			select key, index_pairs[n][1] as index_key, index_pairs[n][2] as member
			from public.kv_store, generate_subscripts(index_pairs, 1) as n where starts_with(key, $1)
		), postings as (
			select key, index_key, member from kv.posting where starts_with(key, $1) and member <> ''
		)
		select key, 'kv.posting lacks ' || member from (select * from pairs except select * from postings) as a
		union all
		select key, 'kv.posting has ' || member || ', and the entry does not' from (select * from postings except select * from pairs) as b
		union all
		select key, 'kv.member lacks ' || member from pairs as p
		where not exists (select from kv.member as m where m.index_key = p.index_key and m.member = p.member)
		order by 1, 2`, l.prefix)
	if err != nil {
		return fmt.Errorf("read the tables: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var key, text string
		if err := rows.Scan(&key, &text); err != nil {
			return err
		}
		l.violates(halfApplied, key, "%s", text)
	}
	return rows.Err()
}

func (l *load) outcome(ended time.Duration) *outcome {
	h := &l.history
	o := &outcome{Reads: map[string]int{}, Errors: map[string]int{}, Snapshots: len(h.Snapshots), history: h, Recovery: l.recovery(ended).Seconds()}
	slowest := time.Duration(0)
	for _, op := range slices.Concat(h.Ops, h.Entries, h.Counters) {
		slowest = max(slowest, op.Return-op.Call)
		switch {
		case op.Do != actRead && op.Unknown:
			o.Unknown++
		case op.Refused:
			o.Refused++
		case op.Do != actRead:
			o.Writes++
		case op.After != "":
			o.Reads["after"]++
		case op.Bound > 0:
			o.Reads["bounded"]++
		default:
			o.Reads["now"]++
		}
	}
	for _, f := range h.Failures {
		slowest = max(slowest, f.Return-f.Call)
		o.Errors[fmt.Sprintf("%d %s", f.Status, f.Code)]++
		if took := (f.Return - f.Call).Seconds(); o.Soonest == 0 || took < o.Soonest {
			o.Soonest = took
		}
	}
	o.Slowest = slowest.Seconds()
	o.Requests = l.asked
	return o
}

// chosen returns the faults with these names, or all faults if there are no names.
func chosen(names []string) ([]fault, error) {
	if len(names) == 0 {
		return faults, nil
	}
	var list []fault
	for _, f := range faults {
		if slices.Contains(names, f.Name) {
			list = append(list, f)
		}
	}
	for _, name := range names {
		if !slices.ContainsFunc(faults, func(f fault) bool { return f.Name == name }) {
			return nil, fmt.Errorf("there is no fault %q; --list names them", name)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("--only names no fault")
	}
	return list, nil
}
