package layout

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFindLooksUpwards(t *testing.T) {
	t.Parallel()
	root, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	deep := filepath.Join(root, "a", "b")
	require.NoError(t, os.MkdirAll(deep, 0o755))
	_, err = Find(deep)
	require.ErrorContains(t, err, "no go.mod and netlify.toml in "+deep)
	for _, name := range []string{"go.mod", "netlify.toml"} {
		require.NoError(t, os.WriteFile(filepath.Join(root, name), nil, 0o644))
	}
	checkout, err := Find(deep)
	require.NoError(t, err)
	require.Equal(t, root, checkout.Root)
}
