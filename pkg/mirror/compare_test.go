package mirror

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

// fixed is a reader with fixed results. Other tests use real stores.
type fixed struct {
	bodies []string // in turn, and then always the last; "" is not found
	err    error
	delay  time.Duration
	asked  []kv.Freshness
}

func (r *fixed) read(ctx context.Context, f kv.Freshness) (kv.ReadResult, error) {
	r.asked = append(r.asked, f)
	select {
	case <-time.After(r.delay):
	case <-ctx.Done():
		return kv.ReadResult{}, ctx.Err()
	}
	body := r.bodies[min(len(r.asked)-1, len(r.bodies)-1)]
	if r.err != nil {
		return kv.ReadResult{}, r.err
	}
	if body == "" {
		return kv.ReadResult{}, &kv.Error{Code: kv.CodeNotFound}
	}
	return kv.ReadResult{Body: body}, nil
}

func (r *fixed) Get(ctx context.Context, _ string, f kv.Freshness) (kv.ReadResult, error) {
	return r.read(ctx, f)
}
func (r *fixed) List(ctx context.Context, _ kv.ListQuery, f kv.Freshness) (kv.ReadResult, error) {
	return r.read(ctx, f)
}
func (r *fixed) Query(ctx context.Context, _ kv.Query, f kv.Freshness) (kv.ReadResult, error) {
	return r.read(ctx, f)
}
func (r *fixed) Stats() kv.CacheStats { return kv.CacheStats{Hits: 7} }

func TestCompareReads(t *testing.T) {
	t.Parallel()
	const list = `{"keys":["a","b"],"count":2,"data":{"a":{"x":1,"y":[1.0]},"b":null}}`
	for name, c := range map[string]struct {
		first, other []string
		list         bool
		want         kv.Compared
		log          string
	}{
		"SameBytes":        {[]string{`{"a":1}`}, []string{`{"a":1}`}, false, kv.ComparedMatch, ""},
		"OtherSpelling":    {[]string{`{"a":1,"b":"\u00e9"}`}, []string{` {"b":"é", "a":1}`}, false, kv.ComparedMatch, ""},
		"BothMissing":      {[]string{``}, []string{``}, false, kv.ComparedMatch, ""},
		"Different":        {[]string{`{"a":1}`}, []string{`{"a":2}`}, false, kv.ComparedDiffers, `[{"key":"the-key","how":"different"}]`},
		"NumberSpelled":    {[]string{`[1.0]`}, []string{`[1]`}, false, kv.ComparedDiffers, `[{"key":"the-key","how":"different"}]`},
		"Missing":          {[]string{`{"a":1}`}, []string{``}, false, kv.ComparedDiffers, `[{"key":"the-key","how":"missing"}]`},
		"Extra":            {[]string{``}, []string{`{"a":1}`}, false, kv.ComparedDiffers, `[{"key":"the-key","how":"extra"}]`},
		"AWriteInBetween":  {[]string{`{"a":1}`, `{"a":2}`}, []string{`{"a":2}`}, false, kv.ComparedMatch, ""},
		"ListsAlike":       {[]string{list}, []string{`{"keys":["a","b"],"count":2,"data":{"b":null,"a":{"y":[1.0],"x":1}}}`}, true, kv.ComparedMatch, ""},
		"ListsWithoutData": {[]string{`{"keys":["a"],"count":1}`}, []string{`{"keys":["a"],"count":1}`}, true, kv.ComparedMatch, ""},
		"ListsThatDiffer": {[]string{list}, []string{`{"keys":["a","c"],"count":2,"data":{"a":{"x":2},"c":1}}`}, true, kv.ComparedDiffers,
			`[{"key":"a","how":"different"},{"key":"b","how":"missing"},{"key":"c","how":"extra"}]`},
		"ListsInAnotherOrder": {[]string{list}, []string{`{"keys":["b","a"],"count":2,"data":{"a":{"x":1,"y":[1.0]},"b":null}}`}, true, kv.ComparedDiffers,
			`[{"key":"a","how":"order"}]`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			primary := &fixed{bodies: c.first}
			reader := Compare(primary, &fixed{bodies: c.other}, Comparison{Share: 1, Timeout: 5 * time.Second, Log: slog.New(slog.NewJSONHandler(&log, nil))})
			var result kv.ReadResult
			var err error
			if c.list {
				result, err = reader.List(t.Context(), kv.ListQuery{}, kv.Freshness{After: "v"})
			} else {
				result, err = reader.Get(t.Context(), "the-key", kv.Freshness{After: "v"})
			}
			if c.first[0] == "" {
				require.Equal(t, kv.CodeNotFound, kv.CodeOf(err))
			} else {
				require.NoError(t, err)
				require.Equal(t, c.first[0], result.Body, "the first store answers")
			}
			require.Equal(t, c.want, result.Compared)
			require.Equal(t, kv.Freshness{Bypass: true, After: "v"}, primary.asked[0], "what is compared is the store, not memory")
			if c.log == "" {
				require.Empty(t, log.String())
				return
			}
			var line struct{ Keys json.RawMessage }
			require.NoError(t, json.Unmarshal(log.Bytes(), &line))
			require.JSONEq(t, c.log, string(line.Keys))
			require.NotContains(t, log.String(), `"x"`, "no values")
		})
	}
}

// TestOutcomesAreRecordedInTheBackground checks that no read waits for the record or fails with it, that it holds no
// key and no value, and that it is repeated after a failure.
func TestOutcomesAreRecordedInTheBackground(t *testing.T) {
	t.Parallel()
	recorded, let := make(chan kv.ComparedReads), make(chan error)
	other := &fixed{bodies: []string{`{"secret":2}`}}
	reader := Compare(&fixed{bodies: []string{`{"secret":1}`}}, other, Comparison{
		Share: 1, Timeout: time.Minute, Log: slog.New(slog.DiscardHandler), Primary: PrimaryBlobs,
		Record: func(_ context.Context, found kv.ComparedReads) error {
			recorded <- found
			return <-let
		},
	})
	read := func() {
		t.Helper()
		began := time.Now()
		_, err := reader.Get(t.Context(), "the-key", kv.Freshness{})
		require.NoError(t, err)
		require.Less(t, time.Since(began), 30*time.Second, "the recorder is not waited for")
	}
	read()
	first := <-recorded
	require.Equal(t, []any{"blobs", 0, 1, 0}, []any{first.Primary, first.Matched, first.Differed, first.Unanswered})
	require.Len(t, first.Differences, 1)
	require.Equal(t, []string{"kv-get", "different"}, []string{first.Differences[0].Function, first.Differences[0].Kind})
	require.Equal(t, digest([]byte(`{"secret":1}`)), first.Differences[0].PrimaryDigest)
	require.Equal(t, digest([]byte(`{"secret":2}`)), first.Differences[0].OtherDigest)
	text, err := json.Marshal(first)
	require.NoError(t, err)
	require.NotContains(t, string(text), "the-key")
	require.NotContains(t, string(text), "secret")
	for range 300 { // while it is being sent
		read()
	}
	let <- errors.New("the database is away")
	for settled := false; !settled; time.Sleep(time.Millisecond) {
		r := reader.(comparingReader).recorder
		r.mu.Lock()
		settled = !r.sending
		r.mu.Unlock()
	}
	read()
	again := <-recorded
	require.Equal(t, first, again, "the same request, which counts once")
	let <- nil
	for sent, r := false, reader.(comparingReader).recorder; !sent; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		sent = r.unsent == nil
		r.mu.Unlock()
	}
	read()
	later := <-recorded
	require.Equal(t, 302, later.Differed)
	require.Len(t, later.Differences, maxRecorded)
	let <- nil
}

func TestComparisonNeverFailsARead(t *testing.T) {
	t.Parallel()
	discard := slog.New(slog.DiscardHandler)
	same := []string{`{}`}
	for name, other := range map[string]*fixed{
		"Slow":    {bodies: same, delay: time.Minute},
		"Failing": {bodies: same, err: errors.New("away")},
	} {
		reader := Compare(&fixed{bodies: same}, other, Comparison{Share: 1, Timeout: 30 * time.Millisecond, Log: discard})
		began := time.Now()
		result, err := reader.Get(t.Context(), "k", kv.Freshness{})
		require.NoError(t, err, name)
		require.Equal(t, kv.ComparedSkipped, result.Compared, name)
		require.Less(t, time.Since(began), 10*time.Second, name)
	}
	other := &fixed{bodies: same}
	none := Compare(&fixed{bodies: same}, other, Comparison{Share: 0, Timeout: time.Second, Log: discard})
	all := Compare(&fixed{bodies: same}, other, Comparison{Share: 1, Timeout: time.Second, Log: discard})
	for name, read := range map[string]func() (kv.ReadResult, error){
		"NotAmongTheShare": func() (kv.ReadResult, error) { return none.Get(t.Context(), "k", kv.Freshness{}) },
		"Query":            func() (kv.ReadResult, error) { return all.Query(t.Context(), kv.Query{}, kv.Freshness{}) },
		"ByTime": func() (kv.ReadResult, error) {
			return all.List(t.Context(), kv.ListQuery{Sort: kv.SortKey{Path: "createdAt"}}, kv.Freshness{})
		},
	} {
		result, err := read()
		require.NoError(t, err, name)
		require.Equal(t, kv.ComparedSkipped, result.Compared, name)
	}
	require.Empty(t, other.asked)
	failing := Compare(&fixed{bodies: same, err: errors.New("bug")}, other, Comparison{Share: 1, Timeout: time.Second, Log: discard})
	_, err := failing.Get(t.Context(), "k", kv.Freshness{})
	require.ErrorContains(t, err, "bug", "an error of the first store is the answer")
	require.EqualValues(t, 7, all.Stats().Hits)
}
