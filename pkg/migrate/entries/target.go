// Package entries makes the entries of blobs, and of the members of index entries the indexes that rules give them. A
// [Target] takes them.
package entries

import (
	"context"
	"errors"
	"fmt"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/sources"
)

// Target is where entries go.
type Target struct {
	Name     string // its address, without a secret
	Supabase *kv.Supabase
}

// NewTarget returns a target that waits for a database that restarts.
func NewTarget(name string, supabase *kv.Supabase) Target {
	return Target{Name: name, Supabase: supabase.WithBackgroundRetries(sources.Patience)}
}

// Takes returns an error unless the target is of the store that the source is of.
func (t Target) Takes(source sources.Source) error {
	if of, to := source.StoreName(), t.Supabase.StoreName(); of != to {
		return fmt.Errorf("entries of the store %s must not become entries of the store %s", of, to)
	}
	return nil
}

// State reads an entry.
func (t Target) State(ctx context.Context, key string) (kv.State, error) {
	states, err := t.Supabase.States(ctx, []string{key})
	if err != nil {
		return kv.State{}, fmt.Errorf("read the entry: %w", err)
	}
	return states[0], nil
}

// Digests asks for the sums of entries, by key. Those that do not exist have none.
func (t Target) Digests(ctx context.Context, keys []string) (map[string]*kv.Digest, error) {
	digests, err := t.Supabase.DigestsOf(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("ask the database for its sums: %w", err)
	}
	found := make(map[string]*kv.Digest, len(digests))
	for i := range digests {
		found[digests[i].Key] = &digests[i]
	}
	return found, nil
}

// IsEntryFault reports whether an error may be that of one entry, rather than of the database.
func IsEntryFault(ctx context.Context, err error) bool {
	switch kv.CodeOf(err) {
	case kv.CodeInvalidInput, kv.CodeUnstorableValue, kv.CodeTooLarge:
		return true
	case kv.CodeDeadlineExceeded: // the statement's, where it is not our own
		return ctx.Err() == nil
	}
	return false
}

// Halve calls do with the batch. Where the error may be that of one entry, it calls do with each half instead, down to
// single entries, in order. It returns the first other error, and what do returns of a single entry.
func Halve[T any](ctx context.Context, batch []T, do func([]T) error) error {
	if len(batch) == 0 {
		return nil
	}
	err := do(batch)
	if err == nil || len(batch) == 1 || !IsEntryFault(ctx, err) {
		return err
	}
	if err := Halve(ctx, batch[:len(batch)/2], do); err != nil {
		return err
	}
	return Halve(ctx, batch[len(batch)/2:], do)
}

// ReasonOf says in words why the database refused an entry.
func ReasonOf(err error) string {
	var known *kv.Error
	if errors.As(err, &known) {
		return known.Message
	}
	return err.Error()
}
