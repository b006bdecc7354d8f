package supervisor

import (
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/scripts/platform/internal/ports"
)

func TestFunctionVariables(t *testing.T) {
	t.Parallel()
	got := FunctionVariables([]string{"HOME=/root", "KV_API_TOKEN=a=b", "USE_X=1", "NETLIFY_SITE_ID=s", "GOCOVERDIR=/c", "TZ=UTC",
		"SUPABASE_URL=http://x", "KV_BASE_URL=http://x", "KV_HOST_URL=http://x", "KV_HOST_TIMEOUT=1s", "XKV_A=1", "KV_EMPTY=", "nonsense"})
	require.Equal(t, map[string]string{"USE_SUPABASE_KV": "true", "KV_API_TOKEN": "a=b", "USE_X": "1", "NETLIFY_SITE_ID": "s",
		"GOCOVERDIR": "/c", "TZ": "UTC", "KV_EMPTY": ""}, got)
	require.Equal(t, "false", FunctionVariables([]string{"USE_SUPABASE_KV=false"})["USE_SUPABASE_KV"])
	require.Equal(t, "true", FunctionVariables([]string{"USE_SUPABASE_KV="})["USE_SUPABASE_KV"])
}

func TestNeedsRestart(t *testing.T) {
	t.Parallel()
	base := Spec{Ports: ports.Default, Modules: "m"}
	same, moved, hosted, other := base, base, base, base
	same.Functions = map[string]string{"KV_X": "1"}
	moved.Ports.Host++
	hosted.Supabase = &Supabase{URL: "https://a"}
	other.Supabase = &Supabase{URL: "https://b"}
	require.False(t, base.needsRestart(same))
	require.True(t, base.needsRestart(moved))
	newer, more, host := base, base, base
	newer.Program = "p"
	host.Host, host.Instances = true, 2
	more.Host, more.Instances = true, 3
	require.True(t, base.needsRestart(newer))
	require.True(t, host.needsRestart(more))
	require.False(t, base.needsRestart(more)) // the host can be added while the rest runs
	require.True(t, base.needsRestart(hosted))
	require.True(t, hosted.needsRestart(other))
	require.False(t, hosted.needsRestart(hosted))
}
