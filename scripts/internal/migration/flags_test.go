package migration

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/migrate/entries"
)

// TestEveryOptionHasAFlag: each option of a migration has a flag of the same name, which the runbook explains.
func TestEveryOptionHasAFlag(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../../docs/MIGRATION.md")
	require.NoError(t, err)
	var c cobra.Command
	transformFlags(&c, &entries.Options{})
	for field := range reflect.TypeFor[entries.Options]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		flag := strings.ReplaceAll(name, "_", "-")
		require.NotNil(t, c.Flags().Lookup(flag), "transformFlags has no --%s for %s", flag, field.Name)
		require.Contains(t, string(page), "--"+flag, "docs/MIGRATION.md")
	}
}
