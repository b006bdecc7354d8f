package schema

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// kv doctor asks with the key of the functions. Its own tests are beside it.
func TestHealthIsToldToServiceRole(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).connect(t)
	var health struct {
		Revision, Role string
		Bypass         bool
		Functions      [][2]string
		Tables         []struct{ Name string }
		Publications   [][2]string
	}
	require.NoError(t, json.Unmarshal([]byte(one[string](t, conn, "select public.kv_health()::text")), &health))
	require.Equal(t, "service_role", health.Role)
	require.True(t, health.Bypass)
	require.Greater(t, len(health.Functions), 50)
	require.Greater(t, len(health.Tables), 5)
	require.Empty(t, health.Publications)

	files, err := migrationNames()
	require.NoError(t, err)
	newest, _, _ := strings.Cut(files[len(files)-1], "_")
	require.Equal(t, newest, health.Revision, "the newest migration must redefine kv.schema_version() with its own version")
	require.Equal(t, newest, one[string](t, conn, "select kv.schema_version()"))
}
