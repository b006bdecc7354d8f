package migration

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := Command("migrate-kv-store")
	c.SetArgs(args)
	c.SetOut(&out)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

// TestRepairNeedsThePrimaryAndBothStores tests the flags; pkg/mirror tests the repair.
func TestRepairNeedsThePrimaryAndBothStores(t *testing.T) {
	for _, first := range []string{"", "both"} {
		_, err := run(t, "repair", "--primary", first)
		require.ErrorContains(t, err, "--primary must be blobs or supabase")
	}
	for _, name := range []string{"NETLIFY_SITE_ID", "NETLIFY_BLOBS_TOKEN", "SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY"} {
		t.Setenv(name, "")
	}
	for _, step := range []struct{ missing, value string }{
		{"NETLIFY_SITE_ID", "site"}, {"NETLIFY_BLOBS_TOKEN", "the-token"}, {"SUPABASE_URL", "http://127.0.0.1:1"}, {"SUPABASE_SERVICE_ROLE_KEY", "the-key"},
	} {
		_, err := run(t, "repair", "--primary", "blobs")
		require.ErrorContains(t, err, step.missing+" is not set")
		require.NotContains(t, err.Error(), "the-")
		t.Setenv(step.missing, step.value)
	}
	help, err := run(t, "repair", "--help")
	require.NoError(t, err)
	require.Contains(t, help, "--primary")
}
