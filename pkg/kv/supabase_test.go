package kv_test

import (
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/kv/kvtest"
)

func TestSupabaseContract(t *testing.T) { kvtest.Run(t, kv.LiveStore(t), kvtest.Limits{}) }

// cached is a store that reads through a cache without allowed staleness.
type cached struct {
	*kv.Supabase
	reads *kv.Cache
}

func (c cached) Get(ctx context.Context, key string) (string, error) {
	answer, err := c.reads.Get(ctx, key, kv.Freshness{})
	return answer.Body, err
}

func (c cached) List(ctx context.Context, q kv.ListQuery) (string, error) {
	answer, err := c.reads.List(ctx, q, kv.Freshness{})
	return answer.Body, err
}

func (c cached) Query(ctx context.Context, q kv.Query) (string, error) {
	answer, err := c.reads.Query(ctx, q, kv.Freshness{})
	return answer.Body, err
}

func TestCachedStoreContract(t *testing.T) {
	config := kv.DefaultCache
	config.MaxStale = 0
	store := kv.LiveStore(t)
	kvtest.Run(t, cached{store, kv.NewCache(store, config)}, kvtest.Limits{})
}

func TestInvalidAddressIsRefusedAndNotQuoted(t *testing.T) {
	for name, address := range map[string]string{
		"empty": "", "no scheme": "secret.supabase.co", "other scheme": "ftp://secret.example", "broken": "http://secret\x00", "no host": "https://", "a password": "https://me:secret@p.supabase.co",
	} {
		_, err := kv.NewSupabase(address, "key")
		require.Equal(t, kv.CodeNotConfigured, kv.CodeOf(err), name)
		require.NotContains(t, err.Error(), "secret", name)
	}
	for _, key := range []string{"", " ", "secret\nkey", "secret\x7f", "secré"} {
		_, err := kv.NewSupabase("https://example.supabase.co", key)
		require.Equal(t, kv.CodeNotConfigured, kv.CodeOf(err), "%q", key)
		require.NotContains(t, err.Error(), "secr\u00e9")
		require.NotContains(t, err.Error(), "secret")
	}
	_, err := kv.NewSupabase(" https://example.supabase.co/\n", "key\n")
	require.NoError(t, err, "space around them does no harm")
}

func TestWrongKey(t *testing.T) {
	kv.LiveStore(t)
	store, err := kv.NewSupabase(os.Getenv("SUPABASE_URL")+"/", "not-a-key")
	require.NoError(t, err)
	_, err = store.Get(t.Context(), "any")
	require.Equal(t, kv.CodeNotConfigured, kv.CodeOf(err), "got %v", err)
}
