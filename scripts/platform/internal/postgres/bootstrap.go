package postgres

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// These create what a Supabase project has before the first migration: rolesSQL once per cluster, databaseSQL in each
// database.
var (
	//go:embed roles.sql
	rolesSQL string
	//go:embed database.sql
	databaseSQL string
)

// mainDatabase is the project's. The databases that tests create are copies of templateDatabase.
const (
	mainDatabase     = "postgres"
	templateDatabase = "template1"
)

// Bootstrap gives the cluster the roles and schemas of a new Supabase project. Run again, it only renews the
// passwords.
func (c *Cluster) Bootstrap(ctx context.Context) error {
	for _, database := range []string{templateDatabase, mainDatabase} {
		if err := c.bootstrap(ctx, database); err != nil {
			return fmt.Errorf("set up Supabase's roles: %w", err)
		}
	}
	return nil
}

func (c *Cluster) bootstrap(ctx context.Context, database string) error {
	conn, err := connect(ctx, c.urlOf(superuser, c.passwords.Superuser, database))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// Postgres would log a failed statement with its password.
	if _, err := conn.Exec(ctx, "set log_min_error_statement = panic"); err != nil {
		return err
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if err := once(ctx, tx, "select from pg_roles where rolname = 'authenticator'", rolesSQL); err != nil {
		return err
	}
	if err := once(ctx, tx, "select from pg_namespace where nspname = 'extensions'", databaseSQL); err != nil {
		return err
	}
	for role, password := range map[string]string{owner: c.passwords.Owner, authenticator: c.passwords.Authenticator} {
		if _, err := tx.Exec(ctx, "alter role "+role+" password "+literal(password)); err != nil {
			return err
		}
	}
	return tx.Commit(ctx)
}

// once runs the script unless the query returns a row.
func once(ctx context.Context, tx pgx.Tx, query, script string) error {
	var done bool
	if err := tx.QueryRow(ctx, "select exists ("+query+")").Scan(&done); err != nil || done {
		return err
	}
	_, err := tx.Exec(ctx, script, pgx.QueryExecModeSimpleProtocol)
	return err
}

// literal quotes a string for SQL, since alter role takes no parameters.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
