package netlify

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/config"
)

// TestComputedDefaultsAreDocumented: the documentation shows what these tags say, and other code decides.
func TestComputedDefaultsAreDocumented(t *testing.T) {
	t.Parallel()
	shown := func(field string) string {
		f, found := reflect.TypeFor[config.Functions]().FieldByName(field)
		require.True(t, found, field)
		return f.Tag.Get("shown")
	}
	require.Equal(t, GetCache.MaxStale, QueryCache.MaxStale)
	require.Equal(t, fmt.Sprintf("%v; kv-list: %d", GetCache.MaxStale, ListCache.MaxStale), shown("MaxStale"))
	require.Equal(t, fmt.Sprintf("%d; unlimited for a local server", blobs.DefaultRate), shown("Rate"))
	require.Equal(t, blobs.DefaultAPIURL, shown("APIURL"))
}
