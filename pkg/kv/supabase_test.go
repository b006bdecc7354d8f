package kv_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/kv/kvtest"
)

func TestSupabaseKeepsTheContract(t *testing.T) { kvtest.Run(t, kv.LiveStore(t), kvtest.Limits{}) }

func TestAnAddressThatIsNoneIsRefusedWithoutBeingShown(t *testing.T) {
	for name, address := range map[string]string{
		"empty": "", "no scheme": "secret.supabase.co", "other scheme": "ftp://secret.example", "broken": "http://secret\x00", "no host": "https://",
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

func TestAWrongKeyIsNotConfigured(t *testing.T) {
	kv.LiveStore(t)
	store, err := kv.NewSupabase(os.Getenv("SUPABASE_URL")+"/", "not-a-key")
	require.NoError(t, err)
	_, err = store.Get(t.Context(), "any")
	require.Equal(t, kv.CodeNotConfigured, kv.CodeOf(err), "got %v", err)
}
