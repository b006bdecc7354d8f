package main

import (
	"fmt"

	"github.com/anishathalye/porcupine"
)

// The operations of kv-entries and kv-batch, beside actRead.
const (
	actCreate = "create" // writes only where there is no entry
	actSwap   = "swap"   // writes only where the entry is the one that was read
	actTake   = "take"   // reads and removes
	actAdd    = "add"    // adds 1 to a number
)

// conditional is the model of an entry that is only written with conditions, and taken.
var conditional = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, _ any) (bool, any) {
		o := input.(op)
		switch o.Do {
		case actCreate:
			return o.writes(state, state == "")
		case actSwap:
			return o.writes(state, state == o.Expected)
		case actTake:
			return o.Unknown || state == o.ID, ""
		default:
			return state == o.ID, state
		}
	},
	DescribeOperation: func(input, _ any) string { return input.(op).String() },
}

// writes is a step of a write whose condition holds or not.
func (o op) writes(state any, holds bool) (bool, any) {
	possible := o.Unknown || holds != o.Refused
	if holds {
		return possible, o.ID
	}
	return possible, state
}

// counter is the model of a number that is incremented by 1, and is 0 where there is no entry.
var counter = porcupine.Model{
	Init: func() any { return 0 },
	Step: func(state, input, _ any) (bool, any) {
		o, n := input.(op), state.(int)
		if o.Do == actAdd {
			n++
		}
		return o.Unknown || o.Number == n, n
	},
	DescribeOperation: func(input, _ any) string { return input.(op).String() },
}

// checkModel looks for an order of all operations on a key in which each took effect between its call and its return,
// and had the result that it has.
func checkModel(model porcupine.Model, key string, ops []op) []violation {
	switch searchModel(model, ops) {
	case porcupine.Illegal:
		first := firstAfterWhich(ops, func(ops []op) bool { return searchModel(model, ops) == porcupine.Illegal })
		return []violation{{noOrder, key, fmt.Sprintf("of %d operations, the first that cannot be: %s", len(ops), first)}}
	case porcupine.Unknown:
		return []violation{{notChecked, key, fmt.Sprintf("%d operations", len(ops))}}
	}
	return nil
}

func searchModel(model porcupine.Model, ops []op) porcupine.CheckResult {
	var list []porcupine.Operation
	for _, o := range ops {
		if o.Do != actRead || !o.Unknown {
			list = append(list, porcupine.Operation{ClientId: max(o.Client, 0), Input: o, Call: int64(o.Call), Return: o.until()})
		}
	}
	return porcupine.CheckOperationsTimeout(model, list, checkTime)
}
