package postgres

import (
	"os"
	"os/exec"
	"path/filepath"

	"netlify-supabase-kv/scripts/platform/internal/layout"
	"netlify-supabase-kv/scripts/platform/internal/proc"
)

// user is never needed here: whoever is no administrator runs Postgres directly.
type user struct{}

func (u *user) run(*exec.Cmd)    {}
func (u *user) own(string) error { return nil }

func (c *Cluster) settle(home layout.Home) error {
	c.data = filepath.Join(home.Postgres(), "data")
	return os.MkdirAll(home.Postgres(), 0o700)
}

func dieInOrder(*exec.Cmd) {}

// Stop asks the server for a fast shutdown, in the only way that Windows has.
func (c *Cluster) Stop(int) error {
	return exec.Command(filepath.Join(c.programs, "bin", "pg_ctl.exe"), "stop", "-D", c.data, "-m", "fast").Run()
}

func quitAtOnce(pid int) error { return proc.Kill(pid) }

// runsOn cannot be told on Windows; Postgres itself refuses data that is in use.
func runsOn(int, string) bool { return false }
