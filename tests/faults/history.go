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

// The operations of a client on an entry.
const (
	actWrite  = "write"
	actRemove = "remove"
	actRead   = "read"
)

// op is one operation of a client on an entry, with its result. Times are relative to the start of the history. The
// value of a write contains its unique id.
type op struct {
	Client   int           `json:"client"`
	Do       string        `json:"do"`
	Through  string        `json:"through"` // the function
	Key      string        `json:"key"`
	ID       string        `json:"id,omitempty"` // of the value that was written or read; empty: no entry
	Existed  bool          `json:"existed,omitempty"`
	Expected string        `json:"expected,omitempty"` // the id of the value that a swap replaces
	Refused  bool          `json:"refused,omitempty"`  // the condition of a create or swap did not hold
	Number   int           `json:"number,omitempty"`   // that was read, or that there was after an add
	Call     time.Duration `json:"call"`
	Return   time.Duration `json:"return"`
	Unknown  bool          `json:"unknown,omitempty"` // a write or remove without a response, which may have taken effect or may do so at any later time
	Bound    time.Duration `json:"bound,omitempty"`   // how old the result of a read may be
	After    string        `json:"after,omitempty"`   // the write that the result must not be older than
}

func (o op) String() string {
	what := cmp.Or(o.ID, "nothing")
	switch {
	case o.Number != 0:
		what = fmt.Sprint(o.Number)
	case o.Refused:
		what += ", refused,"
	}
	return fmt.Sprintf("%s of %s through %s by client %d from %s to %s", o.Do, what, o.Through, o.Client, ms(o.Call), ms(o.Return))
}

func ms(d time.Duration) string { return d.Round(time.Millisecond).String() }

// snapshot is one list of all entries and of the members of their indexes, at one moment. The member of a write is its
// id: it must be present exactly when the write is.
type snapshot struct {
	Call    time.Duration       `json:"call"`
	Return  time.Duration       `json:"return"`
	Entries map[string]string   `json:"entries"` // id of the write by entry
	Members map[string][]string `json:"members"` // by the entry's key
}

// failure is a request without a successful response.
type failure struct {
	Through string        `json:"through"`
	Status  int           `json:"status,omitempty"` // 0: no response
	Code    string        `json:"code,omitempty"`
	Text    string        `json:"text"`
	Call    time.Duration `json:"call"`
	Return  time.Duration `json:"return"`
}

// violation is a promise that was broken.
type violation struct {
	Promise string `json:"promise"`
	Key     string `json:"key,omitempty"`
	Text    string `json:"text"`
}

func (v violation) String() string { return strings.TrimSpace(v.Promise + ": " + v.Key + " " + v.Text) }

// The promises, with their names in the table.
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

// history has all operations and observations during one fault.
type history struct {
	Ops       []op        `json:"ops"`
	Entries   []op        `json:"entries"`  // on entries that are only written with conditions
	Counters  []op        `json:"counters"` // on numbers
	Snapshots []snapshot  `json:"snapshots"`
	Failures  []failure   `json:"failures"`
	Seen      []violation `json:"seen"` // responses that are wrong by themselves
}

// checkTime bounds the search for an order of one key's operations.
const checkTime = 30 * time.Second

// check returns the broken promises of the history.
func (h *history) check() []violation {
	found := slices.Clone(h.Seen)
	byKey := grouped(h.Ops)
	for _, key := range sortedKeys(byKey) {
		found = append(found, checkKey(key, byKey[key])...)
	}
	entries, counters := grouped(h.Entries), grouped(h.Counters)
	for _, key := range sortedKeys(entries) {
		found = append(found, checkModel(conditional, key, entries[key])...)
	}
	for _, key := range sortedKeys(counters) {
		found = append(found, checkModel(counter, key, counters[key])...)
	}
	return append(found, h.checkSnapshots(byKey)...)
}

// grouped returns the operations by key.
func grouped(ops []op) map[string][]op {
	byKey := map[string][]op{}
	for _, o := range ops {
		byKey[o.Key] = append(byKey[o.Key], o)
	}
	return byKey
}

// register is the model of an entry: it holds the last written value, or nothing.
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

// checkKey looks for an order of all operations on a key in which each took effect between its call and its return,
// and every read saw the last write. A read that may be old may have taken effect earlier by that much. A write
// without a response may have taken effect at any time after its call, or never.
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
	if v, plain := simplestViolation(key, ops, writes); plain {
		return []violation{v}
	}
	switch search(ops, writes) {
	case porcupine.Illegal:
		first := firstAfterWhich(ops, func(ops []op) bool { return search(ops, writes) == porcupine.Illegal })
		return []violation{{noOrder, key, fmt.Sprintf("of %d operations, the first that cannot be: %s", len(ops), first)}}
	case porcupine.Unknown:
		return []violation{{notChecked, key, fmt.Sprintf("%d operations", len(ops))}}
	}
	return nil
}

// search looks for an order. Removals without a response make that slow, so it first assumes that none of them took
// effect.
func search(ops []op, writes map[string]op) porcupine.CheckResult {
	result := porcupine.CheckOperationsTimeout(register, operations(ops, writes, false), checkTime)
	if result != porcupine.Ok {
		result = porcupine.CheckOperationsTimeout(register, operations(ops, writes, true), checkTime)
	}
	return result
}

// firstAfterWhich returns the first operation after whose end there is no order any more.
func firstAfterWhich(ops []op, illegal func([]op) bool) op {
	byEnd := slices.Clone(ops)
	slices.SortFunc(byEnd, func(a, b op) int { return cmp.Compare(a.Return, b.Return) })
	at := sort.Search(len(byEnd)-1, func(i int) bool { return illegal(until(byEnd[i].Return, ops)) })
	return byEnd[at]
}

// until returns the part of a history that was known at a moment. Operations that were running then have no result.
func until(moment time.Duration, ops []op) (seen []op) {
	for _, o := range ops {
		o.Unknown = o.Unknown || o.Return > moment
		if o.Call <= moment {
			seen = append(seen, o)
		}
	}
	return seen
}

// operations converts a key's operations to porcupine's, each with the earliest and the latest moment at which it can
// have taken effect. It returns as few as possible, since the search is exponential in the number of overlapping
// operations.
//
// Each value belongs to one write, so nothing else was written between that write and the last read that saw it. Let
// first be the earliest end among these operations, and last the latest beginning. If last is before first, all of
// them can have taken effect at one moment in between, and one write replaces them. Otherwise the value was there from
// first to last, and two operations replace them: a write at first and a read at last (Gibbons and Korach, Testing
// Shared Memories, 1997).
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
		seen[o.ID] = seen[o.ID] || o.Do == actRead && !o.Unknown
	}
	unseen := time.Duration(math.MaxInt64) // when the first write began that has no response and that no read saw
	for _, w := range ops {
		if w.Do == actWrite && w.Unknown && !seen[w.ID] {
			unseen = min(unseen, w.Call)
		}
	}
	for _, o := range ops {
		switch {
		case o.Do == actRead && o.Unknown || o.Do == actWrite:
		case o.Do == actRead && o.ID != "":
			first[o.ID], last[o.ID] = min(first[o.ID], o.until()), max(last[o.ID], int64(o.from(writes)))
		case o.Do == actRead || removals || !o.Unknown:
			end := o.until()
			o.Unknown = o.Unknown || o.Existed && unseen < o.Return // it may have removed what that write left
			add(o, int64(o.from(writes)), end)
		}
	}
	for _, w := range ops {
		id := w.ID
		switch begin, end := last[id], first[id]; {
		case w.Do != actWrite:
		case w.Unknown && !seen[id]: // no read depends on whether it took effect
		case begin <= end:
			add(w, begin, end)
		default:
			add(w, end, end)
			add(op{Do: actRead, Key: w.Key, ID: id}, begin, begin)
		}
	}
	return list
}

// until returns the latest moment at which the operation can have taken effect.
func (o op) until() int64 {
	if o.Unknown {
		return math.MaxInt64
	}
	return int64(o.Return)
}

// from returns the earliest moment whose state the operation may see or change.
func (o op) from(writes map[string]op) time.Duration {
	from := o.Call - o.Bound
	if o.Do == actRead {
		from = max(from, writes[o.After].Call)
	}
	return min(max(from, 0), o.Return)
}

// checkAfter finds reads that are certainly older than the write they named.
func checkAfter(key string, read op, writes map[string]op, ops []op) []violation {
	named := writes[read.After]
	if older(read.ID, named.Call, writes, ops) {
		return []violation{{staleRead, key, fmt.Sprintf("it named %s, and is older: %s", named.ID, read)}}
	}
	return nil
}

// older reports whether the value of id (or no entry) can only be from before the write that was called at this
// moment.
func older(id string, called time.Duration, writes map[string]op, ops []op) bool {
	if id != "" {
		w := writes[id]
		return !w.Unknown && w.Return < called
	}
	return !slices.ContainsFunc(ops, func(o op) bool { return o.Do == actRemove && (o.Unknown || o.Return >= called) })
}

// simplestViolation finds the simplest reason why there is no order: a write that was acknowledged before the read
// began, and is newer than what the read saw. If the read is the final one, the write is lost; otherwise the read is
// stale.
func simplestViolation(key string, ops []op, writes map[string]op) (v violation, plain bool) {
	for _, read := range ops {
		if read.Do != actRead || read.Unknown {
			continue
		}
		for _, w := range writes {
			if w.Unknown || w.Return >= read.from(writes) || w.ID == read.ID || !older(read.ID, w.Call, writes, ops) {
				continue
			}
			promise := staleRead
			if read.Client == finalReader {
				promise = lostWrite
			}
			return violation{promise, key, fmt.Sprintf("%s, with up to %s allowed, after %s", read, read.Bound, w)}, true
		}
	}
	return violation{}, false
}

// finalReader is the client that reads everything after the load has ended.
const finalReader = -1

// checkSnapshots compares the entries and the members of each snapshot.
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

// value is the value of the write with the id. It repeats the id, so that a mixture of two values is recognised.
func value(key, id string) string {
	times := 20
	if strings.HasSuffix(key, "/0") {
		times = largeBytes/(len(id)+1) + 1
	}
	return `{"id":"` + id + `","key":"` + key + `","again":"` + strings.Repeat(id+" ", times) + `","end":"` + id + `"}`
}

// largeBytes is the size of one entry's value. The cache treats values above 64 kB differently (docs/CACHE.md).
const largeBytes = 70_000

// idOf returns the id of the write whose value this is, byte for byte.
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
