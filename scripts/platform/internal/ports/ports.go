// Package ports decides which ports a platform listens on, and says who has one that is taken. Everything listens on 127.0.0.1.
package ports

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"

	psnet "github.com/shirou/gopsutil/v4/net"
	"github.com/shirou/gopsutil/v4/process"

	"netlify-supabase-kv/scripts/platform/internal/say"
)

// Plan is where each part listens. Base is 0 for the well-known ports, else every port is Base plus a small number.
type Plan struct {
	Base      int `json:"base"`
	Gateway   int `json:"gateway"`   // <SUPABASE_URL>: the Supabase CLI's own port
	Postgres  int `json:"postgres"`  // likewise
	Host      int `json:"host"`      // functions, warm
	Dev       int `json:"dev"`       // netlify dev
	PostgREST int `json:"postgrest"` // behind the gateway
	Admin     int `json:"admin"`     // PostgREST's health
	Control   int `json:"control"`   // the supervisor, and the Lambda Runtime API
	Blobs     int `json:"blobs"`     // the Blobs stand-in
}

// Default is the plan without PORT_BASE.
var Default = Plan{Gateway: 54321, Postgres: 54322, Host: 9999, Dev: 8888, PostgREST: 54331, Admin: 54332, Control: 54333, Blobs: 54334}

// block is how many ports a moved plan covers.
const block = 8

// Auto is the value of PORT_BASE that asks for any free block.
const Auto = "auto"

// autoLow and autoHigh bound what Auto picks: above what people run by hand, below where kernels take outgoing ports from.
const (
	autoLow  = 15000
	autoHigh = 32000
)

// Parse reads PORT_BASE: empty for [Default], a number, or [Auto].
func Parse(base string) (Plan, error) {
	switch base {
	case "":
		return Default, nil
	case Auto:
		return free()
	}
	n, err := strconv.Atoi(base)
	if err != nil || n < 1024 || n > 65535-block {
		return Plan{}, say.Try(fmt.Errorf("PORT_BASE must be a number from 1024 to %d, or %q, got %q", 65535-block, Auto, base), "PORT_BASE=20000 make up")
	}
	return moved(n), nil
}

func moved(base int) Plan {
	return Plan{Base: base, Gateway: base, Postgres: base + 1, Host: base + 2, Dev: base + 3,
		PostgREST: base + 4, Admin: base + 5, Control: base + 6, Blobs: base + 7}
}

func free() (Plan, error) {
	for range 200 {
		plan := moved(autoLow + block*rand.IntN((autoHigh-autoLow)/block))
		if plan.free(plan.uses(true)) && canListen(plan.Dev) {
			return plan, nil
		}
	}
	return Plan{}, say.Try(errors.New("found no block of free ports"), "name one: PORT_BASE=20000")
}

// use is one port and what it is for.
type use struct {
	port int
	what string
}

func (p Plan) uses(database bool) []use {
	uses := []use{{p.Host, "the function host"}, {p.Control, "the supervisor"}, {p.Blobs, "the Blobs stand-in"}}
	if database {
		uses = append(uses, use{p.Gateway, "the Supabase address"}, use{p.Postgres, "Postgres"},
			use{p.PostgREST, "PostgREST"}, use{p.Admin, "PostgREST's health"})
	}
	return uses
}

func (p Plan) free(uses []use) bool {
	for _, u := range uses {
		if !canListen(u.port) {
			return false
		}
	}
	return true
}

// Check says which of the platform's ports are taken, and by whom if that can be found out. Those of the database count only when it
// is to run here.
func (p Plan) Check(ctx context.Context, database bool) error { return p.check(ctx, p.uses(database)) }

// CheckDev is [Plan.Check] for netlify dev.
func (p Plan) CheckDev(ctx context.Context) error {
	return p.check(ctx, []use{{p.Dev, "netlify dev"}})
}

func (p Plan) check(ctx context.Context, uses []use) error {
	var taken []string
	for _, u := range uses {
		if !canListen(u.port) {
			taken = append(taken, fmt.Sprintf("port %d (for %s) is taken%s", u.port, u.what, by(ctx, u.port)))
		}
	}
	if len(taken) == 0 {
		return nil
	}
	return say.Try(errors.New(strings.Join(taken, "\n       ")), "stop that program, or move every port: PORT_BASE=%d with the same command", suggest(p.Base))
}

func suggest(base int) int {
	if base == 20000 {
		return 21000
	}
	return 20000
}

func canListen(port int) bool {
	l, err := net.Listen("tcp", Address(port))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// Address is host:port on this machine.
func Address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// URL is http://host:port on this machine.
func URL(port int) string { return "http://" + Address(port) }

// by names the process that listens on port, as " by nginx (pid 12)", or is empty when the system does not tell.
func by(ctx context.Context, port int) string {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	conns, err := psnet.ConnectionsWithContext(ctx, "tcp")
	if err != nil {
		return ""
	}
	for _, c := range conns {
		if c.Status == "LISTEN" && int(c.Laddr.Port) == port && c.Pid > 0 {
			return fmt.Sprintf(" by %s (pid %d)", processName(ctx, c.Pid), c.Pid)
		}
	}
	return " by a process that the system does not name to this user"
}

func processName(ctx context.Context, pid int32) string {
	p, err := process.NewProcessWithContext(ctx, pid)
	if err != nil {
		return "a process"
	}
	name, err := p.NameWithContext(ctx)
	if err != nil || name == "" {
		return "a process"
	}
	return name
}
