package mirror

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
)

// TestEntriesOfTheStoreKvAreCopied: what kv-entries and kv-batch write to the store kv is in Blobs when they return.
func TestEntriesOfTheStoreKvAreCopied(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	entries := NewEntries(p.Supabase, p.Pair)
	in := func(store, key string, action kv.Action, data string) kv.Operation {
		return kv.Operation{Action: action, Store: store, Key: p.prefix + key, Data: []byte(data)}
	}
	apply := func(operations ...kv.Operation) (codes []kv.Code) {
		result, err := entries.Apply(t.Context(), kv.Batch{Operations: operations})
		require.NoError(t, err)
		for _, r := range result.Results {
			codes = append(codes, kv.CodeOf(asError(r.Err)))
		}
		return codes
	}
	indexed := in("kv", "a", kv.ActionPut, `{"a":1.0}`)
	indexed.Indexes = []kv.Index{{Key: p.prefix + "index", Member: "m"}}
	require.Equal(t, []kv.Code{"", "", "", ""}, apply(indexed, in("kv", "n", kv.ActionIncrement, ""), in("kv", "b", kv.ActionPut, "[2]"), in("s", "c", kv.ActionPut, "\xff")))
	require.Empty(t, p.outbox())
	p.requireAlike("after a batch")
	value, err := p.Blobs.Get(t.Context(), p.prefix+"index")
	require.NoError(t, err, "the index entry")
	require.JSONEq(t, `["m"]`, value)
	_, err = p.Blobs.Get(t.Context(), p.prefix+"c")
	require.Equal(t, kv.CodeNotFound, kv.CodeOf(err), "another store is not Blobs'")

	require.Equal(t, []kv.Code{"", ""}, apply(in("kv", "b", kv.ActionTake, ""), in("kv", "n", kv.ActionDelete, "")))
	p.requireAlike("after deletes")

	expires, conditional, described := in("kv", "a", kv.ActionPut, "{}"), in("kv", "a", kv.ActionPut, "{}"), in("kv", "a", kv.ActionPut, "{}")
	expires.TTL, conditional.IfNoneMatch, described.Metadata = time.Hour, []string{"*"}, `{"a":1}`
	require.Equal(t, []kv.Code{kv.CodeConflict, kv.CodeConflict, kv.CodeConflict, kv.CodeInvalidInput},
		apply(expires, conditional, described, in("kv", strings.Repeat("k", 700), kv.ActionPut, "{}")), "what Blobs cannot keep")
	for _, o := range []*kv.Operation{&expires, &conditional, &described} {
		o.Store = "s"
	}
	require.Equal(t, []kv.Code{"", kv.CodeConditionFailed, ""}, apply(expires, conditional, described), "other stores take all of it")
	require.Equal(t, []kv.Code{""}, apply(in("kv", strings.Repeat("k", 700), kv.ActionDelete, "")))
	require.Empty(t, p.outbox(), "a key that Blobs cannot have leaves nothing to copy")

	removed, _, err := entries.Clear(t.Context(), "kv", p.prefix, 2)
	require.NoError(t, err)
	require.Equal(t, 2, removed)
	require.Empty(t, p.everything(p.Blobs))
	require.Empty(t, p.outbox())
}

// asError makes a nil *kv.Error a nil error.
func asError(err *kv.Error) error {
	if err == nil {
		return nil
	}
	return err
}
