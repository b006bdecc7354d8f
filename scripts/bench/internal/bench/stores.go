package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"golang.org/x/sync/errgroup"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/netlify"
)

// WaySupabase is the deployed function on Supabase, in comparison with [WayBlobs].
const WaySupabase Way = "Supabase"

// storeOperations are the operations of both stores.
var storeOperations = []string{OpUpsert, OpGet, "list of 100 keys", OpList}

// FillBlobs writes the entries of d to Netlify Blobs, too, without their indexes. Only entries of the measurement have
// indexes.
func (p *Project) FillBlobs(ctx context.Context, d Data) error {
	upsert := newInstance(netlify.Upsert(netlify.BlobsStoreFromEnv()))
	workers, ctx := errgroup.WithContext(ctx)
	workers.SetLimit(8)
	for i := 1; i <= d.Entries; i++ {
		workers.Go(func() error {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			_, err := upsert.invoke(ctx, post(map[string]any{"key": d.key(i), "value": d.valueOf(random)}).event())
			return err
		})
	}
	return workers.Wait()
}

// EmptyBlobs deletes the entries of FillBlobs and MeasureStores.
func (p *Project) EmptyBlobs(ctx context.Context, d Data) error {
	store := netlify.BlobsStoreFromEnv()
	text, err := store.List(ctx, kv.ListQuery{Prefix: d.Prefix})
	if err != nil {
		return err
	}
	list, err := decode[struct{ Keys []string }]([]byte(text))
	if err != nil {
		return err
	}
	workers, ctx := errgroup.WithContext(ctx)
	workers.SetLimit(8)
	for _, key := range list.Keys {
		workers.Go(func() error {
			_, err := store.Delete(ctx, key)
			return err
		})
	}
	return workers.Wait()
}

// MeasureStores runs the operations of both stores in turns, with the functions as deployed on each.
func (p *Project) MeasureStores(ctx context.Context, d Data, rounds int, seed uint64) ([]OperationResult, error) {
	var results []OperationResult
	blobs := netlify.BlobsStoreFromEnv()
	for _, op := range Operations() {
		if !slices.Contains(storeOperations, op.Name) {
			continue
		}
		random := rand.New(rand.NewPCG(seed, 5))
		before := newInstance(endpoint(op.Function, blobs, kv.Uncached(blobs)))
		after := newInstance(endpoint(op.Function, p.store, cachedReader(op.Function, p.store)))
		prepared := make([]map[Way]call, rounds+warmUp(rounds))
		for i := range prepared {
			event := op.request(d, random, fmt.Sprintf("%snew/stores/%06d", d.Prefix, i)).event()
			prepared[i] = map[Way]call{WayBlobs: invoked(before, event, op.contains), WaySupabase: invoked(after, event, op.contains)}
		}
		ways, err := inTurns(ctx, prepared, warmUp(rounds), 1, seed)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", op.Name, err)
		}
		results = append(results, OperationResult{Operation: op.Name, Entries: d.Entries, Concurrency: 1, Ways: ways})
	}
	return results, nil
}
