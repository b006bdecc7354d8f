// Package ports decides which ports a platform listens on. Everything listens on 127.0.0.1.
package ports

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"

	"netlify-supabase-kv/scripts/platform/internal/console"
)

// Plan is where each part listens.
type Plan struct {
	Gateway   int // <SUPABASE_URL>
	Postgres  int
	Host      int // functions, warm
	Dev       int // netlify dev
	PostgREST int // behind the gateway
	Admin     int // PostgREST's health
	Runtime   int // the Lambda Runtime API
	Blobs     int // the Blobs stand-in
	Files     int // the files of the site, behind netlify dev

	// claim keeps others from the block, as long as the plan is in memory: a platform listens long after it has found its
	// ports free. Only a plan of Auto has one.
	claim net.Listener
}

// Default is the plan without KV_LOCAL_PORT_BASE. Gateway and Postgres have the ports of the Supabase CLI.
var Default = Plan{Gateway: 54321, Postgres: 54322, Host: 9999, Dev: 8888, PostgREST: 54331, Admin: 54332, Runtime: 54333, Blobs: 54334, Files: 54335}

// block is the number of ports of a moved plan, and of one more, by which Auto claims them.
const block = 10

// Auto is the value of KV_LOCAL_PORT_BASE that asks for any free block.
const Auto = "auto"

// autoLow and autoHigh bound what Auto picks: above the ports that people choose, below those of outgoing connections.
const (
	autoLow  = 15000
	autoHigh = 32000
)

// Parse reads KV_LOCAL_PORT_BASE: empty for [Default], a number, or [Auto].
func Parse(base string) (Plan, error) {
	switch base {
	case "":
		return Default, nil
	case Auto:
		return free()
	}
	n, err := strconv.Atoi(base)
	if err != nil || n < 1024 || n > 65535-block {
		return Plan{}, console.Try(fmt.Errorf("KV_LOCAL_PORT_BASE must be a number from 1024 to %d, or %q, got %q", 65535-block, Auto, base), "KV_LOCAL_PORT_BASE=20000 make up")
	}
	return moved(n), nil
}

func moved(base int) Plan {
	return Plan{Gateway: base, Postgres: base + 1, Host: base + 2, Dev: base + 3,
		PostgREST: base + 4, Admin: base + 5, Runtime: base + 6, Blobs: base + 7, Files: base + 8}
}

func free() (Plan, error) {
	for range 200 {
		base := autoLow + block*rand.IntN((autoHigh-autoLow)/block)
		claim, err := net.Listen("tcp", Address(base+block-1))
		if err != nil {
			continue
		}
		if plan := moved(base); plan.Check(true, true) == nil {
			plan.claim = claim
			return plan, nil
		}
		claim.Close()
	}
	return Plan{}, console.Try(errors.New("found no block of free ports"), "name one: KV_LOCAL_PORT_BASE=20000")
}

// use is one port and what it is for.
type use struct {
	port int
	what string
}

// Check returns an error that names every needed port that is taken. database and dev tell what is needed.
func (p Plan) Check(database, dev bool) error {
	uses := []use{{p.Host, "the function host"}, {p.Runtime, "the Lambda Runtime API"}, {p.Blobs, "the Blobs stand-in"}}
	if database {
		uses = append(uses, use{p.Gateway, "the Supabase address"}, use{p.Postgres, "Postgres"},
			use{p.PostgREST, "PostgREST"}, use{p.Admin, "PostgREST's health"})
	}
	if dev {
		uses = append(uses, use{p.Dev, "netlify dev"}, use{p.Files, "the files behind netlify dev"})
	}
	var taken []string
	for _, u := range uses {
		if !canListen(u.port) {
			taken = append(taken, fmt.Sprintf("port %d (for %s) is taken", u.port, u.what))
		}
	}
	if len(taken) == 0 {
		return nil
	}
	return console.Try(errors.New(strings.Join(taken, "\n       ")), "stop the program that has it, or move every port: KV_LOCAL_PORT_BASE=21000 with the same command")
}

func canListen(port int) bool {
	l, err := net.Listen("tcp", Address(port))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// Address returns host:port on this machine.
func Address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// URL returns http://host:port on this machine.
func URL(port int) string { return "http://" + Address(port) }
