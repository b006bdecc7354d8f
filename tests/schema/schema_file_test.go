package schema

import (
	_ "embed"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write supabase/schema.sql anew")

//go:embed schema_file.sql
var schemaFileQuery string

const (
	schemaFile = "../../supabase/schema.sql"
	schemaHead = `-- What supabase/migrations make of an empty database, for readers. "make verify" writes it; it is not to be edited or applied.
-- A comment in front of an object is the object's own. One behind it names who else may use it, and how.
`
)

func TestSchemaFileIsWhatTheMigrationsMake(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).owner(t)
	exec(t, conn, "set search_path = ''") // every name with its schema
	objects := all[string](t, conn, schemaFileQuery)
	text := schemaHead + "\n" + strings.Join(objects, "\n\n") + "\n"
	if *update {
		require.NoError(t, os.WriteFile(schemaFile, []byte(text), 0o644))
	}
	there, err := os.ReadFile(schemaFile)
	require.NoError(t, err)
	require.Equal(t, string(there), text, "run make verify, which writes supabase/schema.sql anew, and commit that")
}
