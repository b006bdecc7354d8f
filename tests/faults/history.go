package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// What a client can do to an entry.
const (
	actWrite  = "write"
	actRemove = "remove"
	actRead   = "read"
)

// op is one thing that one client did to one entry, and what came of it. Times are since the beginning of the history. Each write
// has an id of its own, by which its value is known again.
type op struct {
	Client  int           `json:"client"`
	Do      string        `json:"do"`
	Through string        `json:"through"` // the function
	Key     string        `json:"key"`
	ID      string        `json:"id,omitempty"` // written, or read; empty: no entry
	Existed bool          `json:"existed,omitempty"`
	Call    time.Duration `json:"call"`
	Return  time.Duration `json:"return"`
	Unknown bool          `json:"unknown,omitempty"` // a write or remove without an answer: it may have taken effect, or may at any later time
	Bound   time.Duration `json:"bound,omitempty"`   // how old what was read may be
	After   string        `json:"after,omitempty"`   // the write that what was read may not be older than
}

func (o op) String() string {
	what := o.ID
	if what == "" {
		what = "nothing"
	}
	return fmt.Sprintf("%s of %s through %s by client %d from %s to %s", o.Do, what, o.Through, o.Client, ms(o.Call), ms(o.Return))
}

func ms(d time.Duration) string { return d.Round(time.Millisecond).String() }

// snapshot is one list of everything: all entries, and the members of each entry's index, as of one moment. The member of a write is
// its id, and it must be there exactly when the write is.
type snapshot struct {
	Call    time.Duration       `json:"call"`
	Return  time.Duration       `json:"return"`
	Entries map[string]string   `json:"entries"` // the id that each entry holds
	Members map[string][]string `json:"members"` // by the entry's key
}

// failure is an answer that is none.
type failure struct {
	Through string        `json:"through"`
	Status  int           `json:"status,omitempty"` // 0: no answer
	Code    string        `json:"code,omitempty"`
	Text    string        `json:"text"`
	Call    time.Duration `json:"call"`
	Return  time.Duration `json:"return"`
}

// violation is a promise that was not kept.
type violation struct {
	Promise string `json:"promise"`
	Key     string `json:"key,omitempty"`
	Text    string `json:"text"`
}

func (v violation) String() string { return strings.TrimSpace(v.Promise + ": " + v.Key + " " + v.Text) }

// The promises, as the table names them.
const (
	lostWrite    = "an acknowledged write was lost"
	staleRead    = "a read was older than it may be"
	tornEntry    = "an entry mixes two writes"
	halfApplied  = "an entry and its index did not change together"
	noOrder      = "no order of the operations explains what was read"
	notChecked   = "the history could not be checked in time"
	undocumented = "an error that is not documented"
	hung         = "a request was left hanging"
)

// history is all that was done and seen while one fault was on.
type history struct {
	Ops       []op        `json:"ops"`
	Snapshots []snapshot  `json:"snapshots"`
	Failures  []failure   `json:"failures"`
	Seen      []violation `json:"seen"` // what was wrong with an answer by itself
}

// checkTime bounds the search for an order of one key's operations.
const checkTime = 30 * time.Second

// check says which promises the history shows to be broken.
func (h *history) check() []violation {
	found := slices.Clone(h.Seen)
	byKey := map[string][]op{}
	for _, o := range h.Ops {
		byKey[o.Key] = append(byKey[o.Key], o)
	}
	for _, key := range sortedKeys(byKey) {
		found = append(found, checkKey(key, byKey[key])...)
	}
	return append(found, h.checkSnapshots(byKey)...)
}

// register is what an entry must behave like: it holds what was written last, or nothing.
var register = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		o := input.(op)
		switch o.Do {
		case actWrite:
			return true, o.ID
		case actRemove:
			return o.Unknown || o.Existed == (state != ""), ""
		default:
			return state == o.ID, state
		}
	},
	DescribeOperation: func(input, _ any) string { return input.(op).String() },
}

// checkKey looks for one order of all operations on a key in which each took effect between its call and its return, and every read saw
// what was written last. A read that may be old may have taken effect so much earlier than it was called, and a write without an
// answer at any time after its call, or never.
func checkKey(key string, ops []op) []violation {
	var found []violation
	writes := map[string]op{}
	for _, o := range ops {
		if o.Do == actWrite {
			writes[o.ID] = o
		}
	}
	for _, o := range ops {
		if o.Do != actRead {
			continue
		}
		switch w, written := writes[o.ID]; {
		case o.ID != "" && !written:
			found = append(found, violation{tornEntry, key, "nobody wrote it: " + o.String()})
		case written && w.Call > o.Return:
			found = append(found, violation{noOrder, key, fmt.Sprintf("it was read before it was written: %s; %s", o, w)})
		}
		if o.After != "" {
			found = append(found, checkAfter(key, o, writes, ops)...)
		}
	}
	if len(found) > 0 {
		return found
	}
	if v, plain := explain(key, ops, writes); plain {
		return []violation{v}
	}
	switch search(ops, writes) {
	case porcupine.Illegal:
		return []violation{{noOrder, key, fmt.Sprintf("of %d operations, the first that cannot be: %s", len(ops), culprit(ops, writes))}}
	case porcupine.Unknown:
		return []violation{{notChecked, key, fmt.Sprintf("%d operations", len(ops))}}
	}
	return nil
}

// search looks for an order. Removals without an answer make that long, and most of them explain nothing: first as if none had taken
// effect.
func search(ops []op, writes map[string]op) porcupine.CheckResult {
	result := porcupine.CheckOperationsTimeout(register, operations(ops, writes, false), checkTime)
	if result != porcupine.Ok {
		result = porcupine.CheckOperationsTimeout(register, operations(ops, writes, true), checkTime)
	}
	return result
}

// culprit is the operation with whose end the history became one that has no order: before it, there was one.
func culprit(ops []op, writes map[string]op) op {
	byEnd := slices.Clone(ops)
	slices.SortFunc(byEnd, func(a, b op) int { return cmp.Compare(a.Return, b.Return) })
	at := sort.Search(len(byEnd)-1, func(i int) bool { return search(until(byEnd[i].Return, ops), writes) == porcupine.Illegal })
	return byEnd[at]
}

// until is what had been seen of a history at a moment: what was under way then has no answer yet.
func until(moment time.Duration, ops []op) (seen []op) {
	for _, o := range ops {
		o.Unknown = o.Unknown || o.Return > moment
		if o.Call <= moment {
			seen = append(seen, o)
		}
	}
	return seen
}

// operations puts a key's operations into porcupine's words, each with the earliest and the latest moment at which it can have taken
// effect, and as few as there can be, since the search may take a time that is exponential in those that overlap.
//
// Each value is of one write, so between that write and the last read that saw it nothing else was written. Let first be the earliest
// end among them, and last be the latest beginning. If last comes before first, all can have taken effect at one moment between these
// (wherever an order has them, it can be narrowed to that), and one write stands for them. Otherwise the value was there from first to
// last: a write at first, and a read at last. (Gibbons and Korach, Testing Shared Memories, 1997.)
func operations(ops []op, writes map[string]op, removals bool) (list []porcupine.Operation) {
	add := func(o op, call, end int64) {
		list = append(list, porcupine.Operation{ClientId: max(o.Client, 0), Input: o, Call: call, Return: end})
	}
	first, last, seen := map[string]int64{}, map[string]int64{}, map[string]bool{}
	for _, w := range ops {
		if w.Do == actWrite {
			first[w.ID], last[w.ID] = w.until(), int64(w.Call)
		}
	}
	for _, o := range ops {
		switch {
		case o.Do == actRead && o.Unknown || o.Do == actWrite:
		case o.Do == actRead && o.ID != "":
			seen[o.ID] = true
			first[o.ID], last[o.ID] = min(first[o.ID], o.until()), max(last[o.ID], int64(o.from(writes)))
		case o.Do == actRead || removals || !o.Unknown:
			add(o, int64(o.from(writes)), o.until())
		}
	}
	for _, w := range ops {
		id := w.ID
		switch begin, end := last[id], first[id]; {
		case w.Do != actWrite:
		case w.Unknown && !seen[id]: // whether it took effect makes no difference to anything that was seen
		case begin <= end:
			add(w, begin, end)
		default:
			add(w, end, end)
			add(op{Do: actRead, Key: w.Key, ID: id}, begin, begin)
		}
	}
	return list
}

// until is the latest moment at which the operation can have taken effect.
func (o op) until() int64 {
	if o.Unknown {
		return math.MaxInt64
	}
	return int64(o.Return)
}

// from is the earliest moment whose state the operation may show or change.
func (o op) from(writes map[string]op) time.Duration {
	from := o.Call - o.Bound
	if o.Do == actRead {
		from = max(from, writes[o.After].Call)
	}
	return min(max(from, 0), o.Return)
}

// checkAfter finds a read that is older than the write it named, where that can be told for sure.
func checkAfter(key string, read op, writes map[string]op, ops []op) []violation {
	named := writes[read.After]
	if older(read.ID, named.Call, writes, ops) {
		return []violation{{staleRead, key, fmt.Sprintf("it named %s, and is older: %s", named.ID, read)}}
	}
	return nil
}

// older reports whether the value of id, or no entry, can only be what was there before the write that was called at this moment.
func older(id string, called time.Duration, writes map[string]op, ops []op) bool {
	if id != "" {
		w := writes[id]
		return !w.Unknown && w.Return < called
	}
	return !slices.ContainsFunc(ops, func(o op) bool { return o.Do == actRemove && (o.Unknown || o.Return >= called) })
}

// explain finds the plainest reason why there can be no order: a write that was acknowledged before the read could begin, and after what
// the read saw. A last look at everything is what tells a lost write from one that was not seen yet.
func explain(key string, ops []op, writes map[string]op) (v violation, plain bool) {
	for _, read := range ops {
		if read.Do != actRead || read.Unknown {
			continue
		}
		for _, w := range writes {
			if w.Unknown || w.Return >= read.from(writes) || w.ID == read.ID || !older(read.ID, w.Call, writes, ops) {
				continue
			}
			promise := staleRead
			if read.Client == lastLook {
				promise = lostWrite
			}
			return violation{promise, key, fmt.Sprintf("%s, with up to %s allowed, after %s", read, read.Bound, w)}, true
		}
	}
	return violation{}, false
}

// lastLook is the client that reads everything once it is quiet.
const lastLook = -1

// checkSnapshots compares entries and members that were seen at one moment.
func (h *history) checkSnapshots(byKey map[string][]op) (found []violation) {
	snapshots := slices.Clone(h.Snapshots)
	slices.SortFunc(snapshots, func(a, b snapshot) int { return cmp.Compare(a.Call, b.Call) })
	for key, ops := range byKey {
		writes := map[string]op{}
		for _, o := range ops {
			if o.Do == actWrite {
				writes[o.ID] = o
			}
		}
		firstSeen := map[string]time.Duration{} // when a list first showed the member
		for _, s := range snapshots {
			for _, id := range s.Members[key] {
				if seen, ok := firstSeen[id]; !ok || s.Return < seen {
					firstSeen[id] = s.Return
				}
			}
		}
		for _, s := range snapshots {
			found = append(found, s.checkKey(key, writes, firstSeen, ops)...)
		}
	}
	slices.SortFunc(found, func(a, b violation) int { return cmp.Compare(a.String(), b.String()) })
	return slices.Compact(found)
}

func (s snapshot) checkKey(key string, writes map[string]op, firstSeen map[string]time.Duration, ops []op) (found []violation) {
	members, held := map[string]bool{}, s.Entries[key]
	for _, id := range s.Members[key] {
		w, written := writes[id]
		switch {
		case members[id]:
			found = append(found, violation{halfApplied, key, id + " is a member twice"})
		case !written:
			found = append(found, violation{halfApplied, key, id + " is a member, and nobody wrote it"})
		case id != held && older(held, w.Call, writes, ops):
			found = append(found, violation{halfApplied, key, fmt.Sprintf("%s is a member, and the entry holds %q, which was there before", id, held)})
		}
		members[id] = true
	}
	if held != "" && !members[held] {
		found = append(found, violation{halfApplied, key, held + " is in the entry, and is no member"})
	}
	for id, w := range writes {
		if !members[id] && !w.Unknown && w.Return < s.Call {
			found = append(found, violation{lostWrite, key, fmt.Sprintf("its member is not there: %s", w)})
		}
	}
	for id, seen := range firstSeen {
		if !members[id] && seen < s.Call {
			found = append(found, violation{lostWrite, key, fmt.Sprintf("member %s was there at %s, and is not there at %s", id, ms(seen), ms(s.Call))})
		}
	}
	return found
}

// value is what the write with the id puts into the entry: the id again and again, so that a mixture of two shows.
func value(key, id string) string {
	times := 20
	if strings.HasSuffix(key, "/0") {
		times = largeBytes/(len(id)+1) + 1
	}
	return `{"id":"` + id + `","key":"` + key + `","again":"` + strings.Repeat(id+" ", times) + `","end":"` + id + `"}`
}

// largeBytes makes the value of one of the entries large enough that the cache treats it in another way (docs/CACHE.md: 64 kB).
const largeBytes = 70_000

// idOf reads a value back: the id of the one write that it is, byte for byte.
func idOf(key, text string) (string, error) {
	var v struct{ ID string }
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return "", fmt.Errorf("not the JSON that was written: %w", err)
	}
	if want := value(key, v.ID); want != text {
		at := 0
		for at < min(len(want), len(text)) && want[at] == text[at] {
			at++
		}
		return "", fmt.Errorf("begins as the write %s and differs at byte %d of %d: %.80q", v.ID, at, len(text), text[at:])
	}
	return v.ID, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
