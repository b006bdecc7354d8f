// Package supabase carries the migrations, for programs that compare a database with what this release needs.
package supabase

import "embed"

// Migrations are the files of migrations/, as they are applied.
//
//go:embed migrations/*.sql
var Migrations embed.FS
