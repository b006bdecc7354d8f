package kv_test

import (
	"testing"

	"github.com/google/uuid"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/kv/kvtest"
)

// Every kind of instance that a function has: with a cache, and without one.
func TestEntriesKeepTheirPromises(t *testing.T) {
	t.Parallel()
	for name, namespace := range map[string]string{"WithoutNamespace": "", "InANamespace": "kvtest-" + uuid.NewString()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := kv.LiveStore(t).WithNamespace(namespace)
			kvtest.RunEntries(t, store, kv.NewCache(store, kv.DefaultCache), kv.NewCache(store, kv.DefaultCache))
		})
	}
}
