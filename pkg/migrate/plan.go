package migrate

import (
	"context"
	"fmt"
	"sync"
	"time"

	"netlify-supabase-kv/pkg/kv"
)

// PlanOptions say what to plan.
type PlanOptions struct {
	Options
	Dir      string // for the result; "" keeps none
	Progress Progress
}

// plannedStatus is that of what a run would import.
const plannedStatus = "planned"

// Plan reads every blob and makes its entry, as a run would, and writes neither store. target may be nil; where it is not, the plan
// looks whether the database is ready.
func Plan(ctx context.Context, source Source, target *Target, o PlanOptions) (Result, error) {
	result := Result{
		Plan: true, Source: source.Name(), At: time.Now().UTC(), Options: o.Options,
		Statuses: map[kv.Imported]int{}, Failures: []Problem{}, Notes: []Problem{},
	}
	before := requestsOf(source)
	if err := o.Validate(); err != nil {
		return result, err
	}
	if o.Dir != "" {
		if err := canWrite(o.Dir); err != nil {
			return result, err
		}
	}
	if target != nil {
		result.Target = target.Name
		if _, err := target.Supabase.ImportStatus(ctx); err != nil {
			return result, fmt.Errorf("ask the target: %w", err)
		}
	}
	o.Progress.Stage("listing", -1)
	list, err := source.List(ctx)
	if err != nil {
		return result, err
	}
	if len(list) == 0 {
		return result, ErrEmptySource
	}
	indexes, err := readIndexes(ctx, source, target, list, o.Options, o.Progress)
	if err != nil {
		return result, err
	}
	o.Progress.Stage("reading", len(list))
	result.add(list, indexes)
	var mu sync.Mutex
	err = source.Read(ctx, list, func(_ context.Context, item Item) error {
		if item.Missing { // it went after it was listed
			mu.Lock()
			defer mu.Unlock()
			result.count(kv.ImportAbsent, nil)
			o.Progress.Done(1, 0)
			return nil
		}
		e, problem := o.transform(item, indexes)
		mu.Lock()
		defer mu.Unlock()
		result.Read++
		switch {
		case problem == nil:
			result.count(plannedStatus, e.note)
			o.Progress.Done(1, 0)
		case problem.Code == CodeSkipped:
			result.count(CodeSkipped, problem)
			o.Progress.Done(1, 0)
		default:
			result.count(statusFailed, problem)
			o.Progress.Done(1, 1)
		}
		return nil
	})
	if err != nil {
		return result, err
	}
	result.Requests = requestsOf(source) - before
	result.Seconds, result.Finished = time.Since(result.At).Seconds(), true
	// A run reads every blob and writes it, a verification reads them again: about three times what reading them took.
	result.EstimatedSeconds = 3 * result.Seconds
	if o.Dir != "" {
		if err := writeJSON(planPath(o.Dir), result); err != nil {
			return result, fmt.Errorf("write the result: %w", err)
		}
	}
	return result, nil
}
