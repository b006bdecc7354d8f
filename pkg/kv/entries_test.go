package kv_test

import (
	"os"
	"testing"

	"github.com/google/uuid"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/kv/kvtest"
)

// Every kind of instance that a function has: with a cache, and without one.
func TestEntriesKeepTheirPromises(t *testing.T) {
	t.Parallel()
	namespaces := map[string]string{"WithoutNamespace": ""}
	if os.Getenv("LONG") != "" { // TestANamespaceShowsNothingOfAnother uses one in every run
		namespaces["InANamespace"] = "kvtest-" + uuid.NewString()
	}
	for name, namespace := range namespaces {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := kv.LiveStore(t).WithNamespace(namespace)
			kvtest.RunEntries(t, store, kv.NewCache(store, kv.DefaultCache), kv.NewCache(store, kv.DefaultCache))
		})
	}
}
