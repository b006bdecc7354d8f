package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// create, swap, take and so on are operations from one second to the next, in the order in which they are given.
func create(id string) op            { return op{Do: actCreate, Key: "k", ID: id} }
func swap(expected, id string) op    { return op{Do: actSwap, Key: "k", Expected: expected, ID: id} }
func take(id string) op              { return op{Do: actTake, Key: "k", ID: id} }
func add(number int) op              { return op{Do: actAdd, Key: "k", Number: number} }
func number(n int) op                { return op{Do: actRead, Key: "k", Number: n} }
func refused(o *op)                  { o.Refused = true }
func holds(id string) op             { return read(id, 0, 0) }
func entryHistory(ops ...op) history { return history{Entries: oneByOne(ops)} }
func numberHistory(ops ...op) history {
	return history{Counters: oneByOne(ops)}
}

func oneByOne(ops []op) []op {
	for i := range ops {
		ops[i].Call += s * 2 * time.Duration(i)
		ops[i].Return += ops[i].Call + s
	}
	return ops
}

// longer lets an operation last until the others have ended.
func longer(o *op) { o.Return += 100 * s }

func TestHistoriesWithConditions(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		history history
		broken  bool
	}{
		"CreatedOnce":              {entryHistory(create("a"), but(create("b"), refused), holds("a")), false},
		"CreatedTwice":             {entryHistory(create("a"), create("b"), holds("b")), true},
		"RefusedWithoutAnEntry":    {entryHistory(but(create("a"), refused), holds("")), true},
		"RefusedAndWritten":        {entryHistory(create("a"), but(create("b"), refused), holds("b")), true},
		"OneOfTwoAtOnceIsRefused":  {entryHistory(but(but(create("a"), refused), longer), create("b"), holds("b")), false},
		"BothAtOnceAreCreated":     {entryHistory(but(create("a"), longer), create("b"), holds("b")), true},
		"Swapped":                  {entryHistory(create("a"), swap("a", "b"), holds("b")), false},
		"SwapLostTheOther":         {entryHistory(create("a"), swap("a", "b"), swap("a", "c"), holds("c")), true},
		"SecondSwapIsRefused":      {entryHistory(create("a"), swap("a", "b"), but(swap("a", "c"), refused), holds("b")), false},
		"SwapIsRefusedForNothing":  {entryHistory(create("a"), but(swap("a", "b"), refused)), true},
		"SwapOfNothing":            {entryHistory(create("a"), take("a"), swap("a", "b")), true},
		"SwapWithoutAResponse":     {entryHistory(create("a"), but(swap("a", "b"), unknown), holds("b")), false},
		"SwapThatNeverArrived":     {entryHistory(create("a"), but(swap("a", "b"), unknown), swap("a", "c"), holds("c")), false},
		"SwapThatCannotHave":       {entryHistory(create("a"), swap("a", "c"), but(swap("a", "b"), unknown), holds("b")), true},
		"AcknowledgedSwapIsLost":   {entryHistory(create("a"), swap("a", "b"), holds("a")), true},
		"Taken":                    {entryHistory(create("a"), take("a"), take(""), holds("")), false},
		"TakenTwice":               {entryHistory(create("a"), take("a"), take("a")), true},
		"TakenTwiceAtOnce":         {entryHistory(create("a"), but(take("a"), longer), take("a")), true},
		"NothingTakenFromAnEntry":  {entryHistory(create("a"), take("")), true},
		"TakenAndStillThere":       {entryHistory(create("a"), take("a"), holds("a")), true},
		"TakeWithoutAResponse":     {entryHistory(create("a"), but(take(""), unknown), holds("a"), holds(""), create("b")), false},
		"CreateWithoutAResponse":   {entryHistory(but(create("a"), unknown), holds(""), holds("a")), false},
		"CreateAppliedTwice":       {entryHistory(but(create("a"), unknown), take("a"), holds("a")), true},
		"Counted":                  {numberHistory(number(0), add(1), add(2), number(2)), false},
		"CountedTwice":             {numberHistory(add(1), add(3), number(3)), true},
		"AddIsLost":                {numberHistory(add(1), add(1), number(1)), true},
		"AddsAtOnce":               {numberHistory(but(add(2), longer), add(1), number(2)), false},
		"ReadTooLate":              {numberHistory(add(1), add(2), number(1)), true},
		"AddWithoutAResponse":      {numberHistory(add(1), but(add(0), unknown), number(1), number(2), add(3)), false},
		"AddWithoutAResponseTwice": {numberHistory(add(1), but(add(0), unknown), number(3)), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found := tt.history.check()
			if !tt.broken {
				require.Empty(t, found)
				return
			}
			require.Len(t, found, 1)
			require.Equal(t, noOrder, found[0].Promise)
			require.Equal(t, "k", found[0].Key)
		})
	}
}

// A repeated request must have the response that it had, apart from the time.
func TestResponsesOfARepeatedRequest(t *testing.T) {
	t.Parallel()
	first := response{status: 200, body: []byte(`{"results":[{"status":200,"etag":"1","value":7}],"timestamp":"1"}`)}
	for body, same := range map[string]bool{
		`{"results":[{"status":200,"etag":"1","value":7}],"timestamp":"2"}`: true,
		`{"results":[{"status":200,"etag":"1","value":8}],"timestamp":"2"}`: false,
		`{"results":[{"status":200,"etag":"2","value":7}],"timestamp":"2"}`: false,
		`{"results":[{"status":404}],"timestamp":"2"}`:                      false,
		`{"results":[],"timestamp":"2"}`:                                    false,
	} {
		c := (&load{}).client(0)
		require.Equal(t, same, c.sameResult(first, response{status: 200, body: []byte(body)}), body)
		require.False(t, c.sameResult(first, response{status: 412, body: first.body}))
	}
}
