package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"netlify-supabase-kv/scripts/platform/internal/console"
)

// migration is one file of supabase/migrations.
type migration struct {
	file    string
	version string
	name    string
	sql     string
}

// migrationName matches the file names that the Supabase CLI takes for migrations. Other files are skipped, as there.
var migrationName = regexp.MustCompile(`^([0-9]+)_(.*)\.sql$`)

// Migrate applies the migrations in dir that are not recorded yet, each in its own transaction, and records them as
// the Supabase CLI does. It returns the files it applied, and those that have changed since they were applied.
func (c *Cluster) Migrate(ctx context.Context, dir string) (applied, changed []string, err error) {
	files, err := migrations(dir)
	if err != nil {
		return nil, nil, err
	}
	conn, err := connect(ctx, c.URL())
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	done, err := recorded(ctx, conn)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range files {
		sql, known := done[m.version]
		if known {
			if sql != m.sql {
				changed = append(changed, filepath.Base(m.file))
			}
			continue
		}
		if err := apply(ctx, conn, m); err != nil {
			return applied, changed, err
		}
		applied = append(applied, filepath.Base(m.file))
	}
	if len(applied) > 0 {
		_, err = conn.Exec(ctx, "notify pgrst, 'reload schema'")
	}
	return applied, changed, err
}

func migrations(dir string) ([]migration, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var found []migration
	for _, e := range entries {
		parts := migrationName.FindStringSubmatch(e.Name())
		if parts == nil || e.IsDir() {
			continue
		}
		file := filepath.Join(dir, e.Name())
		sql, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		found = append(found, migration{file: file, version: parts[1], name: parts[2], sql: string(sql)})
	}
	sort.Slice(found, func(i, j int) bool { return found[i].version < found[j].version })
	for i := 1; i < len(found); i++ {
		if found[i].version == found[i-1].version {
			return nil, console.Try(fmt.Errorf("two migrations have the version %s", found[i].version), "rename one of them")
		}
	}
	return found, nil
}

// recordSQL creates the Supabase CLI's table of applied migrations.
const recordSQL = `create schema if not exists supabase_migrations;
	create table if not exists supabase_migrations.schema_migrations (version text primary key, statements text[], name text)`

// recorded returns the applied text by version.
func recorded(ctx context.Context, conn *pgx.Conn) (map[string]string, error) {
	if _, err := conn.PgConn().Exec(ctx, recordSQL).ReadAll(); err != nil {
		return nil, fmt.Errorf("create the table of migrations: %w", err)
	}
	rows, err := conn.Query(ctx, "select version, coalesce(statements[1], '') from supabase_migrations.schema_migrations")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	done := map[string]string{}
	for rows.Next() {
		var version, sql string
		if err := rows.Scan(&version, &sql); err != nil {
			return nil, err
		}
		done[version] = sql
	}
	return done, rows.Err()
}

func apply(ctx context.Context, conn *pgx.Conn, m migration) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if _, err := tx.Conn().PgConn().Exec(ctx, m.sql).ReadAll(); err != nil {
		return console.Try(located(m, err), "fix the file; nothing of it was applied")
	}
	if _, err := tx.Exec(ctx, "insert into supabase_migrations.schema_migrations (version, statements, name) values ($1, $2, $3)",
		m.version, []string{m.sql}, m.name); err != nil {
		return fmt.Errorf("record %s: %w", filepath.Base(m.file), err)
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit %s: %w", filepath.Base(m.file), err)
	}
	// A migration may set the search path or the role of its session, which the next one must not inherit.
	_, err = conn.Exec(ctx, "discard all")
	return err
}

// located adds the file and line to an error of Postgres.
func located(m migration, err error) error {
	file := "supabase/migrations/" + filepath.Base(m.file)
	var failed *pgconn.PgError
	if !errors.As(err, &failed) {
		return fmt.Errorf("%s: %w", file, err)
	}
	text := fmt.Sprintf("%s (SQLSTATE %s)", failed.Message, failed.Code)
	for _, more := range []string{failed.Detail, failed.Hint, failed.Where} {
		if more != "" {
			text += "; " + strings.ReplaceAll(more, "\n", "; ")
		}
	}
	if failed.Position > 0 {
		line, column := lineOf(m.sql, int(failed.Position))
		return fmt.Errorf("%s:%d:%d: %s", file, line, column, text)
	}
	return fmt.Errorf("%s: %s", file, text)
}

// lineOf converts a position of Postgres, counted in characters from 1, to line and column.
func lineOf(sql string, position int) (line, column int) {
	line, column = 1, 1
	for _, r := range sql {
		position--
		if position <= 0 {
			break
		}
		column++
		if r == '\n' {
			line, column = line+1, 1
		}
	}
	return line, column
}
