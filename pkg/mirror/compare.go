package mirror

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"netlify-supabase-kv/pkg/kv"
)

// Comparison configures [Compare].
type Comparison struct {
	// Share of the reads to compare, from 0 to 1.
	Share float64
	// Timeout is how much longer than the primary a compared read may take.
	Timeout time.Duration
	// Log gets a line for each difference, with the keys that are missing, extra, different or in another order, and
	// no values.
	Log *slog.Logger
	// Primary is the store that answers.
	Primary Primary
	// Record stores the outcomes as evidence for a switch; may be nil. It runs in the background.
	Record func(context.Context, kv.ComparedReads) error
}

// Compare returns a reader that answers from primary, and for a share of the reads also asks other. A difference is
// checked once more, since a write may have come between. Queries are not compared, because Blobs does not support
// them.
func Compare(primary, other kv.Reader, c Comparison) kv.Reader {
	return comparingReader{primary, other, c, &recorder{Comparison: c}}
}

type comparingReader struct {
	primary, other kv.Reader
	Comparison
	recorder *recorder
}

func (c comparingReader) Stats() kv.CacheStats { return c.primary.Stats() }

func (c comparingReader) Query(ctx context.Context, q kv.Query, f kv.Freshness) (kv.ReadResult, error) {
	result, err := c.primary.Query(ctx, q, f)
	result.Compared = kv.ComparedSkipped
	return result, err
}

func (c comparingReader) Get(ctx context.Context, key string, f kv.Freshness) (kv.ReadResult, error) {
	read := func(ctx context.Context, from kv.Reader, f kv.Freshness) (kv.ReadResult, error) {
		return from.Get(ctx, key, f)
	}
	return c.compare(ctx, "kv-get", f, read, func(body string) contents {
		if body == "" {
			return contents{}
		}
		return contents{values: map[string]json.RawMessage{key: json.RawMessage(body)}}
	})
}

func (c comparingReader) List(ctx context.Context, q kv.ListQuery, f kv.Freshness) (kv.ReadResult, error) {
	read := func(ctx context.Context, from kv.Reader, f kv.Freshness) (kv.ReadResult, error) {
		return from.List(ctx, q, f)
	}
	if !q.ByKey() { // each store has its own times, and so its own pages
		result, err := c.primary.List(ctx, q, f)
		result.Compared = kv.ComparedSkipped
		return result, err
	}
	return c.compare(ctx, "kv-list", f, read, listContents)
}

type readFunc func(ctx context.Context, from kv.Reader, f kv.Freshness) (kv.ReadResult, error)

// compare answers from the primary. It asks both stores at once, and neither from memory.
func (c comparingReader) compare(ctx context.Context, function string, f kv.Freshness, read readFunc, parse func(string) contents) (kv.ReadResult, error) {
	if rand.Float64() >= c.Share { // #nosec G404 -- a sample
		result, err := read(ctx, c.primary, f)
		result.Compared = kv.ComparedSkipped
		return result, err
	}
	otherCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	others := make(chan storeContents, 1)
	go func() { others <- c.ask(otherCtx, c.other, read, parse) }()
	bypass := f
	bypass.Bypass = true
	result, err := read(ctx, c.primary, bypass)
	if err != nil && kv.CodeOf(err) != kv.CodeNotFound {
		return result, err
	}
	result.Compared = kv.ComparedSkipped
	deadline := time.NewTimer(c.Timeout)
	defer deadline.Stop()
	select {
	case <-deadline.C:
		c.recorder.add(function, nil)
		return result, err
	case other := <-others:
		if other.err != nil {
			c.recorder.add(function, nil)
			return result, err
		}
		differences := parse(result.Body).differences(other.contents)
		if len(differences) > 0 {
			differences = c.again(otherCtx, deadline, read, parse)
		}
		result.Compared = c.verdict(function, differences)
		c.recorder.add(function, differences)
		return result, err
	}
}

// recorder records the outcomes of this instance's compared reads in the background. A failure does not affect reads:
// the outcomes are recorded later, and bounded meanwhile.
type recorder struct {
	Comparison

	mu       sync.Mutex
	waiting  kv.ComparedReads
	unsent   *kv.ComparedReads // recording it failed, or its response was lost
	sending  bool
	lastSent time.Time
}

const (
	// recordEvery is how long matching reads wait to be recorded.
	recordEvery = 30 * time.Second
	// recordMatched is how many reads are recorded without waiting.
	recordMatched = 200
	// recordTimeout bounds one attempt.
	recordTimeout = 5 * time.Second
	// maxRecorded is how many differences are kept until they are recorded.
	maxRecorded = 200
)

// add adds the outcome of a read; differences is nil if the other store did not answer.
func (r *recorder) add(function string, differences []difference) {
	if r.Record == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case differences == nil:
		r.waiting.Unanswered++
	case len(differences) == 0:
		r.waiting.Matched++
	default:
		r.waiting.Differed++
	}
	now := time.Now()
	for _, d := range differences {
		if len(r.waiting.Differences) == maxRecorded {
			break
		}
		r.waiting.Differences = append(r.waiting.Differences, kv.ReadDifference{
			At: now.UTC(), Function: function, Kind: d.How, KeyHash: digest([]byte(d.Key)), PrimaryDigest: digest(d.primary), OtherDigest: digest(d.other),
		})
	}
	if !r.sending && (r.waiting.Differed > 0 || r.waiting.Matched+r.waiting.Unanswered >= recordMatched || now.Sub(r.lastSent) >= recordEvery) {
		r.sending, r.lastSent = true, now
		if r.unsent == nil {
			r.waiting.Request, r.waiting.Primary = uuid.New(), string(r.Primary)
			r.unsent = &kv.ComparedReads{}
			*r.unsent, r.waiting = r.waiting, kv.ComparedReads{}
		}
		go r.send(*r.unsent)
	}
}

func (r *recorder) send(found kv.ComparedReads) {
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	err := r.Record(ctx, found)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sending = false
	if err == nil {
		r.unsent = nil
	}
}

// digest returns the SHA-256 of a value in hexadecimal; "" without a value.
func digest(value []byte) string {
	if value == nil {
		return ""
	}
	sum := sha256.Sum256(value)
	return hex.EncodeToString(sum[:])
}

// storeContents are what one store returned, or its error.
type storeContents struct {
	contents contents
	err      error
}

func (c comparingReader) ask(ctx context.Context, from kv.Reader, read readFunc, parse func(string) contents) storeContents {
	result, err := read(ctx, from, kv.Freshness{Bypass: true})
	if err != nil && kv.CodeOf(err) != kv.CodeNotFound {
		return storeContents{err: err}
	}
	return storeContents{contents: parse(result.Body)}
}

// again asks both stores once more and returns what still differs; nil without enough time.
func (c comparingReader) again(ctx context.Context, deadline *time.Timer, read readFunc, parse func(string) contents) []difference {
	found := make(chan []difference, 1)
	go func() {
		primary, other := c.ask(ctx, c.primary, read, parse), c.ask(ctx, c.other, read, parse)
		if primary.err != nil || other.err != nil {
			found <- nil
			return
		}
		found <- append([]difference{}, primary.contents.differences(other.contents)...)
	}()
	select {
	case differences := <-found:
		return differences
	case <-deadline.C:
		return nil
	}
}

// verdict logs the differences and returns the outcome. Nil means that the comparison did not end; empty, that the
// stores agree.
func (c comparingReader) verdict(function string, differences []difference) kv.Compared {
	if differences == nil {
		return kv.ComparedSkipped
	}
	if len(differences) == 0 {
		return kv.ComparedMatch
	}
	const most = 20
	c.Log.LogAttrs(context.Background(), slog.LevelWarn, "stores differ", slog.String("function", function),
		slog.Int("differences", len(differences)), slog.Any("keys", differences[:min(most, len(differences))]))
	return kv.ComparedDiffers
}

// difference is a key that the stores do not agree about.
type difference struct {
	Key string `json:"key"`
	// How it is in the other store: missing, extra, different, or in another order.
	How string `json:"how"`

	primary, other json.RawMessage
}

// contents are values by key; a key without its value has nil.
type contents struct {
	values map[string]json.RawMessage
	order  []string // of the keys of a list
}

func listContents(body string) contents {
	var list struct {
		Keys []string
		Data map[string]json.RawMessage
	}
	if json.Unmarshal([]byte(body), &list) != nil {
		return contents{}
	}
	found := contents{values: make(map[string]json.RawMessage, len(list.Keys)), order: list.Keys}
	for _, key := range list.Keys {
		found.values[key] = list.Data[key]
	}
	return found
}

// differences is never nil. Lists that differ in the order of their keys alone do so at the first key that is out of
// place.
func (c contents) differences(other contents) []difference {
	found := []difference{}
	for key, value := range c.values {
		theirs, there := other.values[key]
		switch {
		case !there:
			found = append(found, difference{key, "missing", value, nil})
		case !sameJSON(value, theirs):
			found = append(found, difference{key, "different", value, theirs})
		}
	}
	for key, theirs := range other.values {
		if _, there := c.values[key]; !there {
			found = append(found, difference{key, "extra", nil, theirs})
		}
	}
	for i := 0; len(found) == 0 && i < min(len(c.order), len(other.order)); i++ {
		if c.order[i] != other.order[i] {
			found = append(found, difference{c.order[i], "order", nil, nil})
		}
	}
	slices.SortFunc(found, func(a, b difference) int { return strings.Compare(a.Key, b.Key) })
	return found
}

// sameJSON compares texts as JSON values, numbers by their spelling.
func sameJSON(a, b json.RawMessage) bool {
	if string(a) == string(b) {
		return true
	}
	var x, y any
	return decode(a, &x) == nil && decode(b, &y) == nil && reflect.DeepEqual(x, y)
}

func decode(text json.RawMessage, into *any) error {
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.UseNumber()
	return decoder.Decode(into)
}
