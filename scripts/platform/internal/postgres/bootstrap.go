package postgres

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

//go:embed bootstrap.sql
var bootstrapSQL string

// Bootstrap makes the database what a new Supabase project is. Run again, it only renews the passwords.
func (c *Cluster) Bootstrap(ctx context.Context) error {
	conn, err := connect(ctx, c.AdminURL())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// A statement that fails would be logged with the password in it.
	if _, err := conn.Exec(ctx, "set log_min_error_statement = panic"); err != nil {
		return err
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if err := bootstrap(ctx, tx, c.passwords); err != nil {
		return fmt.Errorf("set up Supabase's roles: %w", err)
	}
	return tx.Commit(ctx)
}

func bootstrap(ctx context.Context, tx pgx.Tx, passwords Passwords) error {
	var done bool
	if err := tx.QueryRow(ctx, "select exists (select from pg_roles where rolname = $1)", authenticator).Scan(&done); err != nil {
		return err
	}
	if !done {
		if _, err := tx.Exec(ctx, bootstrapSQL, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
	}
	for role, password := range map[string]string{owner: passwords.Owner, authenticator: passwords.Authenticator} {
		if _, err := tx.Exec(ctx, "alter role "+role+" password "+literal(password)); err != nil {
			return err
		}
	}
	return nil
}

// literal quotes a string for SQL. alter role takes no parameters.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
