package supervisor

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFunctionVariables(t *testing.T) {
	t.Parallel()
	got := FunctionVariables([]string{"HOME=/root", "KV_API_TOKEN=a=b", "USE_X=1", "NETLIFY_SITE_ID=s", "GOCOVERDIR=/c", "TZ=UTC", "SUPABASE_URL=http://x",
		"KV_BASE_URL=http://x", "KV_HOST_URL=http://x", "KV_HOST_TIMEOUT=1s", "KV_LOCAL_INSTANCES=3", "XKV_A=1", "KV_EMPTY=", "no variable"})
	require.Equal(t, map[string]string{"USE_SUPABASE_KV": "true", "KV_API_TOKEN": "a=b", "USE_X": "1", "NETLIFY_SITE_ID": "s",
		"GOCOVERDIR": "/c", "TZ": "UTC", "KV_EMPTY": ""}, got)
	require.Equal(t, "false", FunctionVariables([]string{"USE_SUPABASE_KV=false"})["USE_SUPABASE_KV"])
	require.Equal(t, "true", FunctionVariables([]string{"USE_SUPABASE_KV="})["USE_SUPABASE_KV"])
}
