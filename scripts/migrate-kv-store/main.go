// Command migrate-kv-store is `kv migrate` under the name that it is looked for.
package main

import (
	"os"

	"netlify-supabase-kv/scripts/internal/cli"
	"netlify-supabase-kv/scripts/internal/migration"
)

func main() { os.Exit(cli.Main(migration.Command("migrate-kv-store"))) }
