package mirror

import (
	"context"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"time"

	"netlify-supabase-kv/pkg/kv"
)

// Comparison configures [Compare].
type Comparison struct {
	// Share of the reads to compare, from 0 to 1.
	Share float64
	// Timeout is how much longer than the primary a compared read may take.
	Timeout time.Duration
	// Log gets a line for each difference, with the keys that are missing, extra or different, and no values.
	Log *slog.Logger
}

// Compare returns a reader that answers from primary, and for a share of the reads also asks other. A difference is
// checked once more, since a write may have come between. Queries are not compared, because Blobs does not support
// them.
func Compare(primary, other kv.Reader, c Comparison) kv.Reader {
	return comparingReader{primary, other, c}
}

type comparingReader struct {
	primary, other kv.Reader
	Comparison
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
		return contents{key: json.RawMessage(body)}
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
		return result, err
	case other := <-others:
		if other.err != nil {
			return result, err
		}
		differences := parse(result.Body).differences(other.contents)
		if len(differences) > 0 {
			differences = c.again(otherCtx, deadline, read, parse)
		}
		result.Compared = c.verdict(function, differences)
		return result, err
	}
}

// storeContents are what one store returned.
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

// difference is a key about which the stores differ.
type difference struct {
	Key string `json:"key"`
	// How it is in the other store: missing, extra or different.
	How string `json:"how"`
}

// contents are values by key; a key without its value has nil.
type contents map[string]json.RawMessage

func listContents(body string) contents {
	var list struct {
		Keys []string
		Data contents
	}
	if json.Unmarshal([]byte(body), &list) != nil {
		return contents{}
	}
	found := make(contents, len(list.Keys))
	for _, key := range list.Keys {
		found[key] = list.Data[key]
	}
	return found
}

// differences is never nil.
func (c contents) differences(other contents) []difference {
	found := []difference{}
	for key, value := range c {
		theirs, there := other[key]
		switch {
		case !there:
			found = append(found, difference{key, "missing"})
		case !sameJSON(value, theirs):
			found = append(found, difference{key, "different"})
		}
	}
	for key := range other {
		if _, there := c[key]; !there {
			found = append(found, difference{key, "extra"})
		}
	}
	slices.SortFunc(found, func(a, b difference) int { return strings.Compare(a.Key, b.Key) })
	return found
}

// sameJSON compares texts as JSON values, and numbers by their text.
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
