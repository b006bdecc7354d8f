package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const s = time.Second

func write(id string, call, end time.Duration) op {
	return op{Do: actWrite, Key: "k", ID: id, Call: call, Return: end}
}

func read(id string, call, end time.Duration) op {
	return op{Do: actRead, Key: "k", ID: id, Call: call, Return: end}
}

func remove(existed bool, call, end time.Duration) op {
	return op{Do: actRemove, Key: "k", Existed: existed, Call: call, Return: end}
}

// but changes an operation.
func but(o op, change func(*op)) op {
	change(&o)
	return o
}

func unknown(o *op)            { o.Unknown = true }
func old(o *op)                { o.Bound = s }
func lastOne(o *op)            { o.Client = finalReader }
func afterA(o *op)             { o.After = "a" }
func inOrder(o ...op) *history { return &history{Ops: o} }

func TestHistoriesOfOneEntry(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		history *history
		want    string // the promise that is broken
	}{
		"NothingHappened":       {inOrder(), ""},
		"ReadWhatWasWritten":    {inOrder(write("a", 1*s, 2*s), read("a", 3*s, 4*s)), ""},
		"NothingYet":            {inOrder(read("", 0, 1*s), write("a", 2*s, 3*s)), ""},
		"EitherWhileItIsOn":     {inOrder(write("a", 1*s, 5*s), read("", 2*s, 3*s), read("a", 3*s, 4*s)), ""},
		"BackAgainWhileItIsOn":  {inOrder(write("a", 1*s, 5*s), read("a", 2*s, 3*s), read("", 4*s, 5*s)), noOrder},
		"LostWrite":             {inOrder(write("a", 1*s, 2*s), write("b", 3*s, 4*s), but(read("a", 9*s, 10*s), lastOne)), lostWrite},
		"LostFirstWrite":        {inOrder(write("a", 1*s, 2*s), but(read("", 9*s, 10*s), lastOne)), lostWrite},
		"StaleRead":             {inOrder(write("a", 1*s, 2*s), write("b", 3*s, 4*s), read("a", 5*s, 6*s), read("b", 7*s, 8*s)), staleRead},
		"WithinTheBound":        {inOrder(write("a", 1*s, 2*s), write("b", 3*s, 4*s), but(read("a", 5*s, 6*s), old)), ""},
		"BeyondTheBound":        {inOrder(write("a", 1*s, 2*s), write("b", 3*s, 4*s), but(read("a", 5001*time.Millisecond, 6*s), old)), staleRead},
		"OldAfterNewInTheBound": {inOrder(write("a", 1*s, 2*s), write("b", 3*s, 4*s), read("b", 4100*time.Millisecond, 4200*time.Millisecond), but(read("a", 4500*time.Millisecond, 5*s), old)), ""},
		"OlderThanTheNamed":     {inOrder(write("z", 0, 1*s), write("a", 2*s, 3*s), but(but(read("z", 3100*time.Millisecond, 4*s), old), afterA)), staleRead},
		"NothingForTheNamed":    {inOrder(write("a", 2*s, 3*s), but(but(read("", 3100*time.Millisecond, 4*s), old), afterA)), staleRead},
		"RemovedAfterTheNamed":  {inOrder(write("a", 2*s, 3*s), remove(true, 3*s, 4*s), but(but(read("", 5*s, 6*s), old), afterA)), ""},
		"NewerThanTheNamed":     {inOrder(write("a", 2*s, 3*s), write("b", 3*s, 4*s), but(but(read("b", 5*s, 6*s), old), afterA)), ""},
		"ReadBeforeWritten":     {inOrder(read("a", 1*s, 2*s), write("a", 3*s, 4*s)), noOrder},
		"NobodyWroteIt":         {inOrder(write("a", 1*s, 2*s), read("x", 3*s, 4*s)), tornEntry},
		"UnknownTookEffect":     {inOrder(write("a", 1*s, 2*s), but(write("b", 3*s, 4*s), unknown), read("b", 8*s, 9*s)), ""},
		"UnknownTookEffectLate": {inOrder(write("a", 1*s, 2*s), but(write("b", 3*s, 4*s), unknown), read("a", 5*s, 6*s), write("c", 6*s, 7*s), read("b", 8*s, 9*s)), ""},
		"UnknownTookNoEffect":   {inOrder(write("a", 1*s, 2*s), but(write("b", 3*s, 4*s), unknown), read("a", 8*s, 9*s)), ""},
		"UnknownAppliedTwice":   {inOrder(but(write("b", 1*s, 2*s), unknown), read("b", 3*s, 4*s), write("c", 5*s, 6*s), read("b", 7*s, 8*s)), noOrder},
		"AcknowledgedTwice":     {inOrder(write("b", 1*s, 2*s), write("c", 3*s, 4*s), read("c", 5*s, 6*s), read("b", 7*s, 8*s)), staleRead},
		"Removed":               {inOrder(write("a", 1*s, 2*s), remove(true, 3*s, 4*s), read("", 5*s, 6*s)), ""},
		"RemovedAndBack":        {inOrder(write("a", 1*s, 2*s), remove(true, 3*s, 4*s), read("a", 5*s, 6*s)), noOrder},
		"RemovedWhatWasNot":     {inOrder(remove(true, 3*s, 4*s)), noOrder},
		"DidNotRemoveWhatWas":   {inOrder(write("a", 1*s, 2*s), remove(false, 3*s, 4*s)), noOrder},
		"RemoveWithoutAnAnswer": {inOrder(write("a", 1*s, 2*s), but(remove(false, 3*s, 4*s), unknown), read("a", 5*s, 6*s), read("", 7*s, 8*s)), ""},
		"RemovedTheUnknown":     {inOrder(but(write("a", 1*s, 2*s), unknown), remove(true, 3*s, 4*s), read("", 5*s, 6*s)), ""},
		"RemovedBeforeUnknown":  {inOrder(remove(true, 1*s, 2*s), but(write("a", 3*s, 4*s), unknown)), noOrder},
		"ReadBeforeTheUnknown":  {inOrder(read("b", 1*s, 2*s), but(write("b", 3*s, 4*s), unknown)), noOrder},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found := tt.history.check()
			if tt.want == "" {
				require.Empty(t, found)
				return
			}
			require.Len(t, found, 1)
			require.Equal(t, tt.want, found[0].Promise, "%v", found)
			require.Equal(t, "k", found[0].Key)
		})
	}
}

// TestManyWritesWithoutAResponse: each of them may have taken effect at any moment, and the search must still end in
// time.
func TestManyWritesWithoutAResponse(t *testing.T) {
	t.Parallel()
	var ops []op
	at := time.Duration(0)
	next := func() time.Duration { at += s / 100; return at }
	for n := range 60 {
		id := fmt.Sprint(n)
		ops = append(ops, but(write(id, next(), next()), func(o *op) { o.Unknown = n%2 == 0 }), but(remove(true, next(), next()), func(o *op) { o.Unknown = n%8 == 0 }))
		ops = append(ops, write(id+"b", next(), next()), read(id+"b", next(), next()))
		if n%4 == 0 { // it comes late
			ops = append(ops, read(id, next(), next()))
		}
	}
	began := time.Now()
	require.Empty(t, inOrder(ops...).check())
	require.Less(t, time.Since(began), checkTime)
	lost := append(slices.Clone(ops), read("0b", next(), next()))
	require.NotEmpty(t, inOrder(lost...).check())
}

func TestTheFirstImpossibleOperationIsNamed(t *testing.T) {
	t.Parallel()
	found := inOrder(write("a", 1*s, 2*s), remove(true, 3*s, 4*s), read("", 5*s, 6*s), write("b", 6*s, 7*s), remove(true, 7*s, 8*s),
		write("c", 9*s, 10*s), read("", 11*s, 12*s), remove(true, 13*s, 14*s), read("", 15*s, 16*s), write("d", 17*s, 18*s), read("d", 19*s, 20*s)).check()
	require.Len(t, found, 1)
	require.Contains(t, found[0].Text, "from 11s to 12s")
	found = inOrder(write("a", 1*s, 2*s), but(remove(false, 2*s, 3*s), unknown), read("a", 4*s, 5*s), read("", 6*s, 7*s), read("a", 8*s, 9*s), read("", 10*s, 11*s)).check()
	require.Len(t, found, 1)
	require.Equal(t, noOrder, found[0].Promise)
	require.Contains(t, found[0].Text, "from 8s to 9s")
}

func TestSnapshots(t *testing.T) {
	t.Parallel()
	ops := []op{write("a", 1*s, 2*s), write("b", 3*s, 4*s), but(write("c", 4*s, 5*s), unknown)}
	at := func(call time.Duration, holds string, members ...string) snapshot {
		return snapshot{Call: call, Return: call + s/10, Entries: map[string]string{"k": holds}, Members: map[string][]string{"k": members}}
	}
	for name, tt := range map[string]struct {
		snapshots []snapshot
		want      string
	}{
		"Whole":                  {[]snapshot{at(6*s, "b", "a", "b")}, ""},
		"WholeWithTheUnknown":    {[]snapshot{at(6*s, "c", "a", "b", "c")}, ""},
		"UnknownWasOverwritten":  {[]snapshot{at(6*s, "b", "a", "b", "c")}, ""}, // before b, whose response came meanwhile
		"BothAtOnceWhileItIsOn":  {[]snapshot{at(3500*time.Millisecond, "a", "a")}, ""},
		"EntryWithoutItsMember":  {[]snapshot{at(3500*time.Millisecond, "b", "a")}, halfApplied},
		"MemberWithoutItsEntry":  {[]snapshot{at(3500*time.Millisecond, "a", "a", "b")}, halfApplied},
		"MemberWithoutAnEntry":   {[]snapshot{at(1500*time.Millisecond, "", "a")}, halfApplied},
		"MemberTwice":            {[]snapshot{at(6*s, "b", "a", "b", "b")}, halfApplied},
		"MemberOfNoWrite":        {[]snapshot{at(6*s, "b", "a", "b", "x")}, halfApplied},
		"MemberLost":             {[]snapshot{at(6*s, "b", "b")}, lostWrite},
		"UnknownMemberGoneAgain": {[]snapshot{at(6*s, "c", "a", "b", "c"), at(7*s, "b", "a", "b")}, lostWrite},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &history{Ops: ops, Snapshots: tt.snapshots}
			found := h.check()
			if tt.want == "" {
				require.Empty(t, found)
				return
			}
			require.NotEmpty(t, found)
			require.Equal(t, tt.want, found[0].Promise, "%v", found)
		})
	}
}

func TestTornValues(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"f/k/0", "f/k/1"} {
		a, b := value(key, "c1-1"), value(key, "c2-2")
		id, err := idOf(key, a)
		require.NoError(t, err)
		require.Equal(t, "c1-1", id)
		require.Len(t, b, len(a))
		for _, torn := range []string{a[:len(a)/2] + b[len(a)/2:], strings.Replace(a, `"end":"c1-1"`, `"end":"c2-2"`, 1), a[:len(a)-1], a + " ", "", "null",
			value("f/k/2", "c1-1")} {
			_, err := idOf(key, torn)
			require.Error(t, err, "%.60s", torn)
		}
	}
	require.Greater(t, len(value("f/k/0", "c1-1")), 64_000)
}

func TestTheDocumentationShowsARun(t *testing.T) {
	t.Parallel()
	r := results{Clients: 16, Hold: 5, Seed: 7, Faults: []*outcome{
		{Fault: "kill-postgres", Requests: 1234, Writes: 432, Slowest: 6.04, Recovery: 0.512, Errors: map[string]int{"502 database_unreachable": 3}},
		{Fault: "latency", Requests: 900, Writes: 300, Violations: []violation{{}}},
	}}
	dir := t.TempDir()
	file := filepath.Join(dir, "BENCHMARKS.md")
	require.NoError(t, os.WriteFile(file, []byte("<!-- bench: faults -->\n<!-- /bench -->\n"), 0o600))
	require.NoError(t, r.writeDocs(dir))
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, line := range []string{
		"16 clients, each fault for 5 s, seed 7.", "| kill-postgres | 3 x 502 database_unreachable | 1,234 | 432 | 6.0 | 0.51 | 0 |",
		"| latency | no error | 900 | 300 | 0.0 | 0.00 | 1 |",
	} {
		require.Contains(t, string(text), line)
	}
}
