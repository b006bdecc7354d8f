package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"netlify-supabase-kv/scripts/platform/internal/bundle"
	"netlify-supabase-kv/scripts/platform/internal/console"
	"netlify-supabase-kv/scripts/platform/internal/envfile"
	"netlify-supabase-kv/scripts/platform/internal/layout"
	"netlify-supabase-kv/scripts/platform/internal/proc"
	"netlify-supabase-kv/scripts/platform/internal/supervisor"
)

func devCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "dev",
		Short: "Run netlify dev on the local database, in the foreground",
		Long: `Starts the database and the Blobs stand-in, after stopping what up has started, then netlify dev on top. Ctrl-C ends it all.

netlify dev starts a new process for every request; for warm functions, as on Netlify, use up.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			checkout, err := layout.Find(".")
			if err != nil {
				return err
			}
			return dev(cmd.Context(), checkout, o, cmd.OutOrStdout())
		},
	}
}

func dev(ctx context.Context, checkout layout.Checkout, o *options, out io.Writer) error {
	terminal := console.New(os.Stderr)
	lock, _, err := supervisor.Take(ctx, checkout.Main(), terminal)
	if err != nil {
		return err
	}
	defer lock.Release()
	// These three are independent of each other, and take most of the time in a new checkout.
	var cli string
	var p *supervisor.Platform
	work, all := errgroup.WithContext(ctx)
	work.Go(func() (err error) { cli, err = netlifyCLI.Install(all, checkout, terminal); return err })
	work.Go(func() error { return bundle.Compile(all, checkout, terminal) })
	work.Go(func() (err error) {
		p, err = o.start(all, lock, checkout, terminal, extras{netlifyDev: true})
		return err
	})
	err = work.Wait()
	if p != nil {
		defer terminal.Line("stopped")
		defer p.Stop()
	}
	if err != nil {
		return err
	}
	return netlifyDev(ctx, p, cli, out)
}

// netlifyDev runs netlify dev until Ctrl-C.
func netlifyDev(ctx context.Context, p *supervisor.Platform, cli string, out io.Writer) error {
	site, err := startNetlifyDev(ctx, p, cli, out)
	if err != nil {
		return err
	}
	site.output.open()
	printExamples(out, site.address)
	select {
	case <-ctx.Done():
		return site.end()
	case err := <-site.ended:
		return devEnded(p, err)
	}
}

// devSite is a running netlify dev.
type devSite struct {
	address string
	output  *devOutput
	cmd     *exec.Cmd
	ended   chan error
	close   func()
}

// startNetlifyDev starts netlify dev and waits until the site answers. Its output goes to its log, and to out after
// output.open.
func startNetlifyDev(ctx context.Context, p *supervisor.Platform, cli string, out io.Writer) (*devSite, error) {
	cmd, err := netlifyCommand(p, cli)
	if err != nil {
		return nil, err
	}
	log, err := proc.OpenLog(p.Home.Log("netlify-dev"))
	if err != nil {
		return nil, err
	}
	output := &devOutput{log: log, out: out}
	lines := proc.NewLines(output.line)
	cmd.Stdout, cmd.Stderr = lines, lines
	cmd.WaitDelay = 2 * time.Second
	site := &devSite{
		address: fmt.Sprintf("http://localhost:%d", p.Spec.Ports.Dev), output: output, cmd: cmd, ended: make(chan error, 1),
		close: func() { lines.Close(); log.Close(); os.RemoveAll(p.Home.Temporary()) },
	}
	step := p.Out.Step("starting netlify dev")
	defer step.Drop()
	if err := proc.Start(cmd); err != nil {
		site.close()
		return nil, err
	}
	go func() { site.ended <- cmd.Wait() }()
	ready := make(chan error, 1)
	go func() { ready <- waitForSite(ctx, site.address) }()
	select {
	case err := <-ready:
		if err != nil {
			return nil, errors.Join(err, site.end())
		}
	case err := <-site.ended:
		site.close()
		return nil, devEnded(p, err)
	}
	step.Done("started    netlify dev at " + site.address)
	return site, nil
}

// end stops netlify dev and everything it started.
func (site *devSite) end() error {
	defer site.close()
	return endGroup(site.cmd, site.ended)
}

func devEnded(p *supervisor.Platform, err error) error {
	return console.Try(fmt.Errorf("netlify dev ended by itself (%v)", err), "read %s", p.Home.Log("netlify-dev"))
}

// netlifyCommand runs netlify dev with its own home, so that it neither reads nor writes the user's Netlify settings.
func netlifyCommand(p *supervisor.Platform, cli string) (*exec.Cmd, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, console.Try(errors.New("node is not on PATH"), "install Node.js 20 or newer")
	}
	env, err := devEnv(p)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(node, filepath.Join(cli, "node_modules", "netlify-cli", "bin", "run.js"), "dev",
		"--offline", "--no-open", "--skip-gitignore", "--internal-disable-edge-functions", "--port", strconv.Itoa(p.Spec.Ports.Dev),
		"--staticServerPort", strconv.Itoa(p.Spec.Ports.Files)) // else two that start at once take the same one, and one of them ends
	cmd.Dir, cmd.Env = p.Checkout.Root, env
	return cmd, nil
}

// devEnv is the environment of netlify dev, which passes it on to the functions.
func devEnv(p *supervisor.Platform) ([]string, error) {
	home := filepath.Join(p.Checkout.Local(), "netlify-home")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	// At each start netlify dev leaves a program of 13 MB for each function in its temporary folder.
	temporary := p.Home.Temporary()
	if err := errors.Join(os.RemoveAll(temporary), os.MkdirAll(temporary, 0o700)); err != nil {
		return nil, err
	}
	env := append(bundle.DevEnviron(), "TMPDIR="+temporary)
	caches, err := goCaches()
	if err != nil {
		return nil, err
	}
	for name, value := range caches { // else they would move with the home
		env = append(env, name+"="+value)
	}
	env = append(env, "HOME="+home, "XDG_CONFIG_HOME="+filepath.Join(home, ".config"), "XDG_CACHE_HOME="+filepath.Join(home, ".cache"),
		"CI=1", "NETLIFY_TELEMETRY_DISABLED=1", "NO_UPDATE_NOTIFIER=1", "DO_NOT_TRACK=1", "NO_COLOR=1", "FORCE_COLOR=0")
	variables, err := envfile.Read(p.Home.Env())
	if err != nil {
		return nil, err
	}
	env = append(env, envfile.Strings(variables)...)
	for name, value := range supervisor.FunctionVariables(os.Environ()) {
		env = append(env, name+"="+value)
	}
	return env, nil
}

// goCaches returns the variables that locate Go's caches and settings.
func goCaches() (values map[string]string, err error) {
	var out bytes.Buffer
	cmd := exec.Command("go", "env", "-json", "GOCACHE", "GOMODCACHE", "GOENV")
	cmd.Stdout = &out
	if err = proc.Start(cmd); err == nil {
		err = cmd.Wait()
	}
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &values)
	}
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	return values, nil
}

// waitForSite waits until the site sends any response.
func waitForSite(ctx context.Context, address string) error {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodOptions, address+"/api/kv/list", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func printExamples(w io.Writer, address string) {
	fmt.Fprintf(w, `
Ready. Try:

  curl %[1]s/api/kv/upsert -H 'Content-Type: application/json' \
    -d '{"key":"users/42","value":{"name":"Ada"},"indexes":[{"key":"index:users","member":"42"}]}'
  curl '%[1]s/api/kv/list?prefix=users/&includeValues=true'

Ctrl-C ends it.

`, address)
}

// devOutput writes the lines of netlify dev to a log, and from open on to out as well.
type devOutput struct {
	mu    sync.Mutex
	log   io.Writer
	out   io.Writer
	shown bool
}

func (d *devOutput) line(line []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.log, "%s\n", line)
	if d.shown {
		fmt.Fprintf(d.out, "%s\n", line)
	}
}

func (d *devOutput) open() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shown = true
}

// endGroup ends a command that has its own process group, and everything in that group.
func endGroup(cmd *exec.Cmd, ended <-chan error) error {
	_ = proc.InterruptGroup(cmd.Process.Pid)
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
	}
	deadline := time.Now().Add(2 * time.Second)
	for proc.GroupAlive(cmd.Process.Pid) && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
	}
	_ = proc.KillGroup(cmd.Process.Pid)
	return nil
}

// endCommand ends a command that shares this terminal. It has received a Ctrl-C already, but not a signal sent to this
// process.
func endCommand(cmd *exec.Cmd, ended <-chan error) error {
	select {
	case err := <-ended:
		return err
	case <-time.After(time.Second):
	}
	_ = proc.Ask(cmd.Process.Pid)
	select {
	case err := <-ended:
		return err
	case <-time.After(10 * time.Second):
		_ = proc.Kill(cmd.Process.Pid)
		return <-ended
	}
}
