package kvtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

// RunEntries tests what [kv.Entries] promises. All instances are the same store, and share its entries; races go
// through all of them. Every store that it writes has a random name.
func RunEntries(t *testing.T, instances ...kv.Entries) {
	for name, test := range map[string]func(*testing.T, entrySuite){
		"BytesComeBackAsTheyWereWritten":         testBytes,
		"WhatIsWrittenDescribesTheEntry":         testInfo,
		"ETagsChangeWithEveryWriteAndNeverAgain": testETags,
		"ConditionsDecideWhetherAWriteHappens":   testConditions,
		"AnExpiredEntryIsSeenByNobody":           testExpiry,
		"AWriteWithoutAnExpiryEndsIt":            testExpiryEnds,
		"IncrementsAddExactly":                   testIncrement,
		"IncrementsLoseNothing":                  testIncrementRace,
		"OneOfManyCreatesWins":                   testCreateRace,
		"OneOfManyTakesWins":                     testTakeRace,
		"CompareAndSetLosesNothing":              testCompareAndSetRace,
		"ABatchAnswersEachOperationInItsPlace":   testBatch,
		"AnAtomicBatchIsAllOrNothing":            testAtomic,
		"AtomicBatchesCrossWithoutDeadlock":      testAtomicRace,
		"ARepeatedBatchIsAppliedOnce":            testIdempotency,
		"ListsFoldAndPage":                       testEntryList,
		"ClearNeedsTheExactNumber":               testClear,
		"StoresAreApart":                         testStores,
		"BadOperationsFailInTheirPlace":          testBadOperations,
		"IndexesOfAStoreAreItsOwn":               testEntryIndexes,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			t.Cleanup(cancel)
			s := entrySuite{ctx: ctx, all: instances, store: "kvtest-" + uuid.NewString()}
			t.Cleanup(func() { s.empty(t, s.store) })
			test(t, s)
		})
	}
}

type entrySuite struct {
	ctx   context.Context
	all   []kv.Entries
	store string
}

func (s entrySuite) one() kv.Entries { return s.all[0] }

// empty removes what a test left, so that stores of tests do not pile up.
func (s entrySuite) empty(t *testing.T, store string) {
	ctx := context.WithoutCancel(s.ctx)
	for range 10 {
		_, _, err := s.one().Clear(ctx, store, "", -1)
		var n int
		if _, scanErr := fmt.Sscanf(errorText(err), "there are %d entries", &n); scanErr != nil || n == 0 {
			return
		}
		if _, _, err := s.one().Clear(ctx, store, "", n); err == nil {
			return
		}
	}
	t.Logf("store %s was not emptied", store)
}

func errorText(err error) string {
	if e, ok := err.(*kv.Error); ok {
		return e.Message
	}
	return ""
}

// do applies one operation through an instance.
func (s entrySuite) do(t testing.TB, o kv.Operation, instance int) kv.OperationResult {
	t.Helper()
	if o.Store == "" {
		o.Store = s.store
	}
	result, err := s.all[instance%len(s.all)].Apply(s.ctx, kv.Batch{Operations: []kv.Operation{o}})
	require.NoError(t, err, "%s %q", o.Action, o.Key)
	require.Len(t, result.Results, 1)
	return result.Results[0]
}

func (s entrySuite) put(t testing.TB, key, data string) kv.OperationResult {
	t.Helper()
	result := s.do(t, kv.Operation{Action: kv.ActionPut, Key: key, Data: []byte(data)}, 0)
	require.Nil(t, result.Err, "put %q", key)
	return result
}

func (s entrySuite) get(t testing.TB, key string) kv.EntryResult {
	t.Helper()
	result, err := s.one().GetEntry(s.ctx, s.store, key, kv.Freshness{})
	require.NoError(t, err, "get %q", key)
	return result
}

func (s entrySuite) requireMissing(t testing.TB, key string) {
	t.Helper()
	_, err := s.one().GetEntry(s.ctx, s.store, key, kv.Freshness{})
	require.Equal(t, kv.CodeNotFound, kv.CodeOf(err), "get %q: %v", key, err)
}

func code(r kv.OperationResult) kv.Code {
	if r.Err == nil {
		return ""
	}
	return r.Err.Code
}

func testBytes(t *testing.T, s entrySuite) {
	large := 400_000
	if os.Getenv("LONG") != "" {
		large = 4_400_000
	}
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for name, data := range map[string][]byte{
		"empty": {}, "every byte": every, "invalid UTF-8": []byte("\xff\xfe{"), "text": []byte("héllo"), "null": []byte("null"),
		"JSON": []byte(` { "b" : 1.0 , "a":[1e400,-0],"a":"\u0000\ud800" }` + "\n"), "JSON with a BOM": []byte("\ufeff{}"),
		"nearly JSON": []byte(`{"a":1,}`), "a number": []byte("5"), "a string": []byte(`"x"`), "zero bytes": {0, 0, 0},
		"deep JSON": []byte(strings.Repeat("[", 5000) + strings.Repeat("]", 5000)), "large": bytes.Repeat([]byte{0xff, 0}, large/2),
		"two values": []byte("1 2"), "a line": []byte("a\nb\r\n"),
	} {
		for _, contentType := range []string{"", "text/plain; charset=utf-8"} {
			result := s.do(t, kv.Operation{Action: kv.ActionPut, Key: name, Data: data, ContentType: contentType}, 0)
			require.Nil(t, result.Err, name)
			got := s.get(t, name)
			require.True(t, bytes.Equal(data, got.Data), "%s: %.80q came back as %.80q", name, data, got.Data)
			require.EqualValues(t, len(data), got.Size, name)
			read := s.do(t, kv.Operation{Action: kv.ActionGet, Key: name}, 0)
			require.True(t, bytes.Equal(data, read.Data), "%s in a batch: %.80q came back as %.80q", name, data, read.Data)
		}
	}
}

func testInfo(t *testing.T, s entrySuite) {
	metadata := `{"a":1.0,"a":"\ud800","b":"ü"}`
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
	written := s.do(t, kv.Operation{Action: kv.ActionPut, Key: "k", Data: []byte("x"), ContentType: "text/x-y", Metadata: metadata, Expires: expires}, 0)
	require.Nil(t, written.Err)
	require.False(t, written.Existed)
	got := s.get(t, "k")
	require.Equal(t, written.EntryInfo, got.EntryInfo)
	require.Equal(t, "text/x-y", got.ContentType)
	require.Equal(t, metadata, got.Metadata)
	require.True(t, expires.Equal(got.Expires), "%v is not %v", got.Expires, expires)
	require.WithinDuration(t, time.Now(), got.Updated, time.Minute)

	last := time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)
	require.Nil(t, s.do(t, kv.Operation{Action: kv.ActionPut, Key: "last", Data: []byte("x"), Expires: last}, 0).Err)
	require.Equal(t, last.Truncate(time.Millisecond), s.get(t, "last").Expires, "the last millisecond that an answer can show")

	again := s.put(t, "k", "{}")
	require.True(t, again.Existed)
	got = s.get(t, "k")
	require.Empty(t, got.Metadata, "metadata that a write does not have is gone")
	require.True(t, got.Expires.IsZero(), "so is an expiry")
	require.Equal(t, kv.ContentTypeBytes, got.ContentType)
}

func testETags(t *testing.T, s entrySuite) {
	seen := map[string]bool{}
	for range 20 {
		etag := s.put(t, "k", "same").ETag
		require.NotEmpty(t, etag)
		require.False(t, seen[etag], "ETag %s came again", etag)
		seen[etag] = true
		require.Equal(t, etag, s.get(t, "k").ETag)
		s.do(t, kv.Operation{Action: kv.ActionDelete, Key: "k"}, 0)
	}
}

func testConditions(t *testing.T, s entrySuite) {
	any := []string{"*"}
	old := s.put(t, "k", "1").ETag
	now := s.put(t, "k", "2").ETag
	for _, c := range []struct {
		name  string
		key   string
		when  kv.Precondition
		holds bool
	}{
		{"the present ETag", "k", kv.Precondition{IfMatch: []string{now}}, true},
		{"one of several", "k", kv.Precondition{IfMatch: []string{old, now}}, true},
		{"an old ETag", "k", kv.Precondition{IfMatch: []string{old}}, false},
		{"any entry", "k", kv.Precondition{IfMatch: any}, true},
		{"no entry, and there is one", "k", kv.Precondition{IfNoneMatch: any}, false},
		{"another ETag than the present", "k", kv.Precondition{IfNoneMatch: []string{now}}, false},
		{"another ETag than an old one", "k", kv.Precondition{IfNoneMatch: []string{old}}, true},
		{"any entry, and there is none", "none", kv.Precondition{IfMatch: any}, false},
		{"an ETag, and there is no entry", "none", kv.Precondition{IfMatch: []string{now}}, false},
		{"no entry", "none", kv.Precondition{IfNoneMatch: any}, true},
		{"another ETag, and there is no entry", "none", kv.Precondition{IfNoneMatch: []string{now}}, true},
	} {
		result := s.do(t, kv.Operation{Action: kv.ActionCheck, Key: c.key, Precondition: c.when}, 0)
		want := kv.Code("")
		if !c.holds {
			want = kv.CodeConditionFailed
		}
		require.Equal(t, want, code(result), c.name)
		if !c.holds && c.key == "k" {
			require.Equal(t, now, result.ETag, "%s: the present ETag", c.name)
		}
	}
	failed := s.do(t, kv.Operation{Action: kv.ActionPut, Key: "k", Data: []byte("3"), Precondition: kv.Precondition{IfMatch: []string{old}}}, 0)
	require.Equal(t, kv.CodeConditionFailed, code(failed))
	require.Equal(t, "2", string(s.get(t, "k").Data), "a write whose condition fails changes nothing")
	require.Equal(t, kv.CodeConditionFailed, code(s.do(t, kv.Operation{Action: kv.ActionDelete, Key: "k", Precondition: kv.Precondition{IfMatch: []string{old}}}, 0)))
	require.Nil(t, s.do(t, kv.Operation{Action: kv.ActionDelete, Key: "k", Precondition: kv.Precondition{IfMatch: []string{now}}}, 0).Err)
	s.requireMissing(t, "k")
}

func testExpiry(t *testing.T, s entrySuite) {
	soon := func(o kv.Operation) kv.Operation {
		o.TTL = time.Second
		return o
	}
	index := []kv.Index{{Key: "index", Member: "m"}}
	require.Nil(t, s.do(t, soon(kv.Operation{Action: kv.ActionPut, Key: "k", Data: []byte("{}"), Metadata: `{"a":1}`, Indexes: index}), 0).Err)
	require.Nil(t, s.do(t, soon(kv.Operation{Action: kv.ActionPut, Key: "b", Data: []byte{0xff}}), 0).Err)
	require.Nil(t, s.do(t, soon(kv.Operation{Action: kv.ActionIncrement, Key: "n", By: "2"}), 0).Err)
	require.Eventually(t, func() bool { // they expire in the order in which they were written
		return code(s.do(t, kv.Operation{Action: kv.ActionGet, Key: "n"}, 0)) == kv.CodeNotFound
	}, time.Minute, 50*time.Millisecond)

	for _, key := range []string{"k", "b", "n"} {
		s.requireMissing(t, key)
		require.Equal(t, kv.CodeNotFound, code(s.do(t, kv.Operation{Action: kv.ActionGet, Key: key}, 0)))
		require.Equal(t, kv.CodeNotFound, code(s.do(t, kv.Operation{Action: kv.ActionTake, Key: key}, 0)))
		require.False(t, s.do(t, kv.Operation{Action: kv.ActionDelete, Key: "x" + key}, 0).Existed)
	}
	require.Equal(t, []string{"index"}, s.list(t, kv.EntryQuery{Store: s.store}).keys(), "a list has what expired")
	created := s.do(t, kv.Operation{Action: kv.ActionPut, Key: "k", Data: []byte("2"), Precondition: kv.Precondition{IfNoneMatch: []string{"*"}}}, 0)
	require.Nil(t, created.Err, "a create-only write succeeds after the expiry")
	require.False(t, created.Existed)
	require.Empty(t, s.get(t, "k").Metadata)
	sum := s.do(t, kv.Operation{Action: kv.ActionIncrement, Key: "n", By: "5"}, 0)
	require.Equal(t, "5", string(sum.Data), "an increment starts anew after the expiry")
	require.False(t, s.do(t, kv.Operation{Action: kv.ActionPut, Key: "b", Data: []byte("x")}, 0).Existed)
}

func testExpiryEnds(t *testing.T, s entrySuite) {
	o := kv.Operation{Action: kv.ActionPut, Key: "k", Data: []byte("1"), TTL: time.Second}
	require.Nil(t, s.do(t, o, 0).Err)
	s.put(t, "k", "2")
	require.Nil(t, s.do(t, kv.Operation{Action: kv.ActionPut, Key: "past", Data: []byte("1")}, 0).Err)
	past := s.do(t, kv.Operation{Action: kv.ActionPut, Key: "past", Data: []byte("2"), Expires: time.Now().Add(-time.Hour)}, 0)
	require.Equal(t, kv.CodeInvalidInput, code(past), "an expiry in the past is refused")
	s.do(t, kv.Operation{Action: kv.ActionPut, Key: "expires", Data: []byte("1"), TTL: time.Second}, 0)
	require.Eventually(t, func() bool {
		return code(s.do(t, kv.Operation{Action: kv.ActionGet, Key: "expires"}, 0)) == kv.CodeNotFound
	}, time.Minute, 50*time.Millisecond)
	require.Equal(t, "2", string(s.get(t, "k").Data))
	require.Equal(t, "1", string(s.get(t, "past").Data))
}

func testIncrement(t *testing.T, s entrySuite) {
	for i, c := range []struct{ by, want string }{
		{"", "1"}, {"0.1", "1.1"}, {"0.2", "1.3"}, {"-1.3", "0"}, {"1e3", "1000"}, {"12345678901234567890", "12345678901234568890"},
		{"-12345678901234567890", "1000"}, {"0.000000000000000000001", "1000.000000000000000000001"},
	} {
		result := s.do(t, kv.Operation{Action: kv.ActionIncrement, Key: "n", By: c.by}, 0)
		require.Nil(t, result.Err)
		require.Equal(t, c.want, string(result.Data), "step %d", i)
		require.Equal(t, c.want, string(s.get(t, "n").Data))
	}
	for name, data := range map[string]string{"text": "x", "an object": "{}", "a string": `"5"`, "null": "null", "too large": "1e400000"} {
		s.put(t, "other", data)
		require.Equal(t, kv.CodeConflict, code(s.do(t, kv.Operation{Action: kv.ActionIncrement, Key: "other"}, 0)), name)
		require.Equal(t, data, string(s.get(t, "other").Data), name)
	}
	for _, by := range []string{"x", "01", "+1", "1e501", `"1"`, "NaN", "Infinity"} {
		require.Equal(t, kv.CodeInvalidInput, code(s.do(t, kv.Operation{Action: kv.ActionIncrement, Key: "n", By: by}, 0)), by)
	}
	s.do(t, kv.Operation{Action: kv.ActionPut, Key: "kept", Data: []byte("1"), ContentType: "application/x+json", Metadata: `{"a":1}`, TTL: time.Hour}, 0)
	before := s.get(t, "kept")
	s.do(t, kv.Operation{Action: kv.ActionIncrement, Key: "kept", TTL: time.Second}, 0)
	after := s.get(t, "kept")
	require.Equal(t, before.Expires, after.Expires, "a time to live holds only if the increment creates the entry")
	require.Equal(t, before.Metadata, after.Metadata)
	require.Equal(t, before.ContentType, after.ContentType)
}

// race runs n calls at once, spread over the instances.
func (s entrySuite) race(n int, call func(i int)) {
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { call(i) })
	}
	group.Wait()
}

func testIncrementRace(t *testing.T, s entrySuite) {
	s.raceIncrements(t, "n", 200)
	for i := range 20 { // creating the entry is the narrowest moment
		s.raceIncrements(t, fmt.Sprint("n", i), 10)
	}
}

func (s entrySuite) raceIncrements(t *testing.T, key string, calls int) {
	const limit = 5
	results := make([]string, calls)
	s.race(calls, func(i int) {
		results[i] = string(s.do(t, kv.Operation{Action: kv.ActionIncrement, Key: key, TTL: time.Hour}, i).Data)
	})
	passed := 0
	for _, result := range results {
		var n int
		require.NoError(t, json.Unmarshal([]byte(result), &n))
		if n <= limit {
			passed++
		}
	}
	require.Equal(t, limit, passed, "with a limit of %d", limit)
	require.Equal(t, fmt.Sprint(calls), string(s.get(t, key).Data))
}

func testCreateRace(t *testing.T, s entrySuite) {
	results := make([]kv.OperationResult, 100)
	s.race(len(results), func(i int) {
		results[i] = s.do(t, kv.Operation{Action: kv.ActionPut, Key: "k", Data: []byte(fmt.Sprint(i)), Precondition: kv.Precondition{IfNoneMatch: []string{"*"}}}, i)
	})
	requireOneWins(t, results, kv.CodeConditionFailed)
}

func requireOneWins(t *testing.T, results []kv.OperationResult, loser kv.Code) {
	t.Helper()
	won := 0
	for _, r := range results {
		if r.Err == nil {
			won++
		} else {
			require.Equal(t, loser, r.Err.Code)
		}
	}
	require.Equal(t, 1, won, "calls that won")
}

func testTakeRace(t *testing.T, s entrySuite) {
	s.put(t, "k", "job")
	results := make([]kv.OperationResult, 100)
	s.race(len(results), func(i int) { results[i] = s.do(t, kv.Operation{Action: kv.ActionTake, Key: "k"}, i) })
	requireOneWins(t, results, kv.CodeNotFound)
	s.requireMissing(t, "k")
}

func testCompareAndSetRace(t *testing.T, s entrySuite) {
	loops := 20
	if os.Getenv("KVTEST_LOOPS") != "" {
		_, err := fmt.Sscan(os.Getenv("KVTEST_LOOPS"), &loops)
		require.NoError(t, err, "KVTEST_LOOPS")
	}
	s.put(t, "k", "0")
	s.race(loops, func(i int) {
		for {
			read := s.do(t, kv.Operation{Action: kv.ActionGet, Key: "k"}, i)
			var n int
			if json.Unmarshal(read.Data, &n) != nil {
				return
			}
			if s.do(t, kv.Operation{Action: kv.ActionPut, Key: "k", Data: []byte(fmt.Sprint(n + 1)), Precondition: kv.Precondition{IfMatch: []string{read.ETag}}}, i).Err == nil {
				return
			}
		}
	})
	require.Equal(t, fmt.Sprint(loops), string(s.get(t, "k").Data))
}

// batch applies operations on the suite's store.
func (s entrySuite) batch(t testing.TB, b kv.Batch, instance int) kv.BatchResult {
	t.Helper()
	for i := range b.Operations {
		if b.Operations[i].Store == "" {
			b.Operations[i].Store = s.store
		}
	}
	result, err := s.all[instance%len(s.all)].Apply(s.ctx, b)
	require.NoError(t, err)
	require.Len(t, result.Results, len(b.Operations))
	return result
}

func codes(r kv.BatchResult) (all []kv.Code) {
	for _, result := range r.Results {
		all = append(all, code(result))
	}
	return all
}

func testBatch(t *testing.T, s entrySuite) {
	result := s.batch(t, kv.Batch{Operations: []kv.Operation{
		{Action: kv.ActionPut, Key: "b", Data: []byte("1")},
		{Action: kv.ActionGet, Key: "none"},
		{Action: kv.ActionIncrement, Key: "b"},
		{Action: kv.ActionGet, Key: "b"},
		{Action: kv.ActionPut, Key: "a", Data: []byte("x"), Precondition: kv.Precondition{IfMatch: []string{"*"}}},
		{Action: kv.ActionDelete, Key: "b"},
		{Action: kv.ActionTake, Key: "b"},
	}}, 0)
	require.Equal(t, []kv.Code{"", kv.CodeNotFound, "", "", kv.CodeConditionFailed, "", kv.CodeNotFound}, codes(result))
	require.Equal(t, "2", string(result.Results[2].Data))
	require.Equal(t, "2", string(result.Results[3].Data), "operations on one key come after each other")
	require.True(t, result.Results[5].Existed)
	require.NotEmpty(t, result.Version)
	require.Equal(t, -1, result.Failed)

	var takes []kv.Operation
	for i := range 14 {
		s.put(t, fmt.Sprint("large", i), strings.Repeat("x", 400_000))
		takes = append(takes, kv.Operation{Action: kv.ActionTake, Key: fmt.Sprint("large", i)})
	}
	taken := s.batch(t, kv.Batch{Operations: takes}, 0)
	refused := 0
	for i, r := range taken.Results {
		if r.Err != nil {
			require.Equal(t, kv.CodeTooLarge, r.Err.Code)
			require.Len(t, s.get(t, fmt.Sprint("large", i)).Data, 400_000, "what does not fit into the response is not taken")
			refused++
		}
	}
	require.True(t, 0 < refused && refused < len(takes), "%d takes were refused", refused)
	require.Empty(t, s.batch(t, kv.Batch{Operations: []kv.Operation{{Action: kv.ActionGet, Key: "b"}}}, 0).Version, "nothing was written")
}

func testAtomic(t *testing.T, s entrySuite) {
	s.put(t, "a", "1")
	s.put(t, "z", "1")
	failed := s.batch(t, kv.Batch{Atomic: true, Operations: []kv.Operation{
		{Action: kv.ActionPut, Key: "new", Data: []byte("1")},
		{Action: kv.ActionIncrement, Key: "z"},
		{Action: kv.ActionCheck, Key: "a", Precondition: kv.Precondition{IfNoneMatch: []string{"*"}}},
		{Action: kv.ActionTake, Key: "none"},
	}}, 0)
	require.Equal(t, []kv.Code{kv.CodeNotApplied, kv.CodeNotApplied, kv.CodeConditionFailed, kv.CodeNotFound}, codes(failed))
	require.Equal(t, 2, failed.Failed)
	s.requireMissing(t, "new")
	require.Equal(t, "1", string(s.get(t, "z").Data))

	done := s.batch(t, kv.Batch{Atomic: true, Operations: []kv.Operation{
		{Action: kv.ActionTake, Key: "a"}, {Action: kv.ActionIncrement, Key: "z"}, {Action: kv.ActionCheck, Key: "none", Precondition: kv.Precondition{IfNoneMatch: []string{"*"}}},
	}}, 0)
	require.Equal(t, []kv.Code{"", "", ""}, codes(done))
	require.Equal(t, "1", string(done.Results[0].Data))
	s.requireMissing(t, "a")
	_, err := s.one().Apply(s.ctx, kv.Batch{Atomic: true, Operations: []kv.Operation{{Action: kv.ActionGet, Store: s.store, Key: "a"}, {Action: kv.ActionGet, Store: s.store, Key: "a"}}})
	require.Equal(t, kv.CodeInvalidInput, kv.CodeOf(err), "two operations on one key")
}

// Money moves between accounts in both directions, and none is lost or made.
func testAtomicRace(t *testing.T, s entrySuite) {
	for _, key := range []string{"a", "b"} {
		s.put(t, key, "1000")
	}
	s.race(60, func(i int) {
		from, to := "a", "b"
		if i%2 == 1 {
			from, to = to, from
		}
		s.batch(t, kv.Batch{Atomic: true, Operations: []kv.Operation{
			{Action: kv.ActionIncrement, Key: from, By: "-1"}, {Action: kv.ActionIncrement, Key: to}, {Action: kv.ActionPut, Key: fmt.Sprint("log", i), Data: []byte("1")},
		}}, i)
	})
	require.Equal(t, "1000", string(s.get(t, "a").Data))
	require.Equal(t, "1000", string(s.get(t, "b").Data))
	require.Len(t, s.list(t, kv.EntryQuery{Store: s.store, Prefix: "log"}).Entries, 60)
}

func testIdempotency(t *testing.T, s entrySuite) {
	b := kv.Batch{Operations: []kv.Operation{{Action: kv.ActionIncrement, Store: s.store, Key: "n"}, {Action: kv.ActionGet, Store: s.store, Key: "none"}}, Idempotency: uuid.New(), Digest: "1"}
	results := make([]kv.BatchResult, 30)
	s.race(len(results), func(i int) { results[i] = s.batch(t, b, i) })
	for _, result := range results {
		require.Equal(t, results[0], result, "the same batch gets the first result")
		require.Equal(t, "1", string(result.Results[0].Data))
	}
	require.Equal(t, "1", string(s.get(t, "n").Data))
	b.Digest = "2"
	_, err := s.one().Apply(s.ctx, b)
	require.Equal(t, kv.CodeIdempotencyReused, kv.CodeOf(err), "another batch with the key: %v", err)
}

type entryList struct {
	Entries []struct {
		Key, ETag, ContentType string
		Size                   int
		Metadata               json.RawMessage
	}
	Prefixes   []string
	Count      int
	Pagination struct {
		Limit      int
		HasMore    bool
		NextCursor *string
	}
}

func (l entryList) keys() (keys []string) {
	for _, e := range l.Entries {
		keys = append(keys, e.Key)
	}
	return keys
}

func (s entrySuite) list(t testing.TB, q kv.EntryQuery) (l entryList) {
	t.Helper()
	result, err := s.one().ListEntries(s.ctx, q, kv.Freshness{})
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal([]byte(result.Body), &l), "%s", result.Body)
	require.Len(t, l.Entries, l.Count)
	return l
}

func testEntryList(t *testing.T, s entrySuite) {
	for _, key := range []string{"a", "a/", "a/1", "a/2", "a/b/c", "b", "b/\U0010ffff", "b/\U0010ffffx/y", "é/x", "%_"} {
		require.Nil(t, s.do(t, kv.Operation{Action: kv.ActionPut, Key: key, Data: []byte(key), Metadata: `{"k":1}`}, 0).Err)
	}
	all := s.list(t, kv.EntryQuery{Store: s.store})
	require.Equal(t, []string{"%_", "a", "a/", "a/1", "a/2", "a/b/c", "b", "b/\U0010ffff", "b/\U0010ffffx/y", "é/x"}, all.keys())
	require.Empty(t, all.Entries[0].Metadata)
	require.JSONEq(t, `{"k":1}`, string(s.list(t, kv.EntryQuery{Store: s.store, Metadata: true}).Entries[0].Metadata))
	require.Equal(t, []string{"a/", "a/1", "a/2", "a/b/c"}, s.list(t, kv.EntryQuery{Store: s.store, Prefix: "a/"}).keys())
	require.Empty(t, s.list(t, kv.EntryQuery{Store: s.store, Prefix: "%"}).Entries[1:], "a prefix is literal")
	require.Equal(t, []string{"b/\U0010ffff", "b/\U0010ffffx/y"}, s.list(t, kv.EntryQuery{Store: s.store, Prefix: "b/\U0010ffff"}).keys())

	folded := s.list(t, kv.EntryQuery{Store: s.store, Delimiter: "/"})
	require.Equal(t, []string{"%_", "a", "b"}, folded.keys())
	require.Equal(t, []string{"a/", "b/", "é/"}, folded.Prefixes)
	require.Equal(t, []string{"a/b/"}, s.list(t, kv.EntryQuery{Store: s.store, Prefix: "a/", Delimiter: "/"}).Prefixes)

	for _, q := range []kv.EntryQuery{{}, {Delimiter: "/"}, {Prefix: "a"}, {Prefix: "a/", Delimiter: "/"}, {Delimiter: "/\U0010ffff"}} {
		q.Store = s.store
		whole := s.list(t, q)
		var keys, prefixes []string
		for q.Limit = 1; ; {
			page := s.list(t, q)
			require.Equal(t, 1, len(page.Entries)+len(page.Prefixes), "a page of one")
			keys, prefixes = append(keys, page.keys()...), append(prefixes, page.Prefixes...)
			if !page.Pagination.HasMore {
				break
			}
			after, err := kv.ParseCursor(*page.Pagination.NextCursor)
			require.NoError(t, err)
			require.NotContains(t, after.Key, s.store, "a cursor shows the key without its store")
			q.After = after
		}
		require.Equal(t, whole.keys(), keys)
		require.ElementsMatch(t, whole.Prefixes, prefixes)
	}
	after, err := kv.ParseCursor(*s.list(t, kv.EntryQuery{Store: s.store, Limit: 1}).Pagination.NextCursor)
	require.NoError(t, err)
	_, err = s.one().ListEntries(s.ctx, kv.EntryQuery{Store: s.store, Prefix: "a", After: after}, kv.Freshness{})
	require.Equal(t, kv.CodeInvalidInput, kv.CodeOf(err), "a cursor of another question")
}

func testClear(t *testing.T, s entrySuite) {
	for i := range 5 {
		s.put(t, fmt.Sprint("p/", i), "1")
	}
	s.put(t, "q", "1")
	for _, confirm := range []int{-1, 0, 4, 6} {
		_, _, err := s.one().Clear(s.ctx, s.store, "p/", confirm)
		require.Equal(t, kv.CodeConflict, kv.CodeOf(err), "confirm %d", confirm)
		require.Contains(t, errorText(err), "5", "the error says how many there are")
	}
	removed, version, err := s.one().Clear(s.ctx, s.store, "p/", 5)
	require.NoError(t, err)
	require.Equal(t, 5, removed)
	require.NotEmpty(t, version)
	require.Equal(t, []string{"q"}, s.list(t, kv.EntryQuery{Store: s.store}).keys())
}

func testStores(t *testing.T, s entrySuite) {
	other := s.store + "é:"
	t.Cleanup(func() { s.empty(t, other) })
	s.put(t, "k", "1")
	s.do(t, kv.Operation{Action: kv.ActionPut, Store: other, Key: "k", Data: []byte("2")}, 0)
	s.do(t, kv.Operation{Action: kv.ActionPut, Store: other, Key: "l", Data: []byte("3")}, 0)
	require.Equal(t, "1", string(s.get(t, "k").Data))
	require.Equal(t, []string{"k"}, s.list(t, kv.EntryQuery{Store: s.store}).keys())
	stores, err := s.one().ListStores(s.ctx)
	require.NoError(t, err)
	require.Contains(t, stores, kv.StoreCount{Store: s.store, Count: 1})
	require.Contains(t, stores, kv.StoreCount{Store: other, Count: 2})
	for _, name := range []string{"", "a/b", "a\x00", strings.Repeat("x", 65), "\xff"} {
		_, err := s.one().GetEntry(s.ctx, name, "k", kv.Freshness{})
		require.Equal(t, kv.CodeInvalidInput, kv.CodeOf(err), "store %q", name)
	}
}

func testBadOperations(t *testing.T, s entrySuite) {
	for name, c := range map[string]struct {
		operation kv.Operation
		want      kv.Code
	}{
		"no key":                {kv.Operation{Action: kv.ActionPut}, kv.CodeInvalidInput},
		"a long key":            {kv.Operation{Action: kv.ActionPut, Key: strings.Repeat("k", 1025)}, kv.CodeInvalidInput},
		"metadata no object":    {kv.Operation{Action: kv.ActionPut, Key: "k", Metadata: "[]"}, kv.CodeInvalidInput},
		"long metadata":         {kv.Operation{Action: kv.ActionPut, Key: "k", Metadata: `{"a":"` + strings.Repeat("m", 2048) + `"}`}, kv.CodeInvalidInput},
		"a short time to live":  {kv.Operation{Action: kv.ActionPut, Key: "k", TTL: time.Millisecond}, kv.CodeInvalidInput},
		"a long time to live":   {kv.Operation{Action: kv.ActionPut, Key: "k", TTL: kv.MaxTTL + time.Second}, kv.CodeInvalidInput},
		"two expiries":          {kv.Operation{Action: kv.ActionPut, Key: "k", TTL: time.Hour, Expires: time.Now().Add(time.Hour)}, kv.CodeInvalidInput},
		"bytes that claim JSON": {kv.Operation{Action: kv.ActionPut, Key: "k", Data: []byte("x"), ContentType: "application/json"}, kv.CodeInvalidInput},
		"bytes in kv":           {kv.Operation{Action: kv.ActionPut, Store: kv.DefaultStore, Key: "kvtest-bytes", Data: []byte("x")}, kv.CodeNotJSON},
		"too many bytes":        {kv.Operation{Action: kv.ActionPut, Key: "k", Data: make([]byte, kv.MaxDataBytes+1)}, kv.CodeTooLarge},
	} {
		c.operation.Store = strings.TrimSpace(c.operation.Store)
		good := kv.Operation{Action: kv.ActionPut, Key: "good", Data: []byte(name)}
		result := s.batch(t, kv.Batch{Operations: []kv.Operation{c.operation, good}}, 0)
		require.Equal(t, []kv.Code{c.want, ""}, codes(result), name)
		require.NotEmpty(t, result.Results[0].Err.Message, name)
		require.Equal(t, name, string(s.get(t, "good").Data), "the others are applied")
	}
}

func testEntryIndexes(t *testing.T, s entrySuite) {
	other := s.store + "2"
	t.Cleanup(func() { s.empty(t, other) })
	index := []kv.Index{{Key: "index", Member: "m"}}
	for _, store := range []string{s.store, other} {
		require.Nil(t, s.do(t, kv.Operation{Action: kv.ActionPut, Store: store, Key: "k" + store, Data: []byte("{}"), Indexes: index}, 0).Err)
	}
	require.Equal(t, `["m"]`, string(s.get(t, "index").Data), "the index entry is in the entry's store")
	etag := s.get(t, "index").ETag
	require.Nil(t, s.do(t, kv.Operation{Action: kv.ActionPut, Key: "l", Data: []byte("1"), Indexes: []kv.Index{{Key: "index", Member: "n"}}}, 0).Err)
	require.NotEqual(t, etag, s.get(t, "index").ETag, "a member changes the ETag")
	require.Equal(t, `["m","n"]`, string(s.get(t, "index").Data))

	etag = s.get(t, "index").ETag
	refused := kv.Operation{Action: kv.ActionPut, Key: "k" + s.store, Indexes: []kv.Index{{Key: "another", Member: "m"}}, Precondition: kv.Precondition{IfNoneMatch: []string{"*"}}}
	for _, atomic := range []bool{false, true} {
		o := refused
		o.Store = s.store
		require.Equal(t, []kv.Code{kv.CodeConditionFailed}, codes(s.batch(t, kv.Batch{Atomic: atomic, Operations: []kv.Operation{o}}, 0)))
		s.requireMissing(t, "another")
	}
	absent := kv.Operation{Action: kv.ActionCheck, Key: "another", Precondition: kv.Precondition{IfNoneMatch: []string{"*"}}}
	filed := kv.Operation{Action: kv.ActionPut, Key: "k", Indexes: []kv.Index{{Key: "another", Member: "m"}}}
	require.Equal(t, []kv.Code{"", ""}, codes(s.batch(t, kv.Batch{Atomic: true, Operations: []kv.Operation{absent, filed}}, 0)), "the batch itself makes the index entry")

	var want []string
	many := make([]kv.Operation, 2) // more members than one upsert may bring
	for i := range many {
		many[i] = kv.Operation{Action: kv.ActionPut, Key: fmt.Sprint("many", i)}
		for j := range 700 {
			want = append(want, fmt.Sprint(i, "-", j))
			many[i].Indexes = append(many[i].Indexes, kv.Index{Key: "order", Member: kv.Member(want[len(want)-1])})
		}
	}
	require.Equal(t, []kv.Code{"", ""}, codes(s.batch(t, kv.Batch{Operations: many}, 0)))
	require.Nil(t, s.do(t, kv.Operation{Action: kv.ActionPut, Key: "last", Indexes: []kv.Index{{Key: "order", Member: "last"}}}, 0).Err)
	var got []string
	require.NoError(t, json.Unmarshal(s.get(t, "order").Data, &got))
	require.Equal(t, append(want, "last"), got, "members are in the order in which they were first added")

	taken := s.do(t, kv.Operation{Action: kv.ActionTake, Key: "index"}, 0)
	require.Nil(t, taken.Err)
	require.Equal(t, `["m","n"]`, string(taken.Data), "a take returns the members")
	require.Equal(t, etag, taken.ETag)
	s.requireMissing(t, "index")
}
