package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"netlify-supabase-kv/pkg/config"
	"netlify-supabase-kv/scripts/platform/internal/bundle"
	"netlify-supabase-kv/scripts/platform/internal/console"
	"netlify-supabase-kv/scripts/platform/internal/layout"
	"netlify-supabase-kv/scripts/platform/internal/npm"
	"netlify-supabase-kv/scripts/platform/internal/ports"
	"netlify-supabase-kv/scripts/platform/internal/postgres"
	"netlify-supabase-kv/scripts/platform/internal/proc"
	"netlify-supabase-kv/scripts/platform/internal/supervisor"
)

// packages is what every platform needs. netlifyCLI is for `dev` and postgres15 for `--postgres 15`.
var (
	packages   = npm.Set{Name: "platform", What: "Postgres, PostgREST, Netlify's bundler (210 MB)", After: postgres.LinkLibraries}
	postgres15 = npm.Set{Name: "postgres15", What: "Postgres 15 (60 MB)", After: postgres.LinkLibraries}
	netlifyCLI = npm.Set{Name: "netlify", What: "the Netlify CLI (350 MB)", Shared: true}
	benchmark  = npm.Set{Name: "bench", What: "supabase-js (3 MB)"}
	clients    = npm.Set{Name: "clients", What: "@netlify/blobs, unstorage, keyv (47 MB)"}
	sessions   = npm.Set{Name: "sessions", What: "Nitro, playwright-core (100 MB)"}
)

// options are the settings. A flag overrides the environment.
type options struct{ config.Platform }

func newCommand() *cobra.Command {
	o := &options{}
	wrong := config.Read(&o.Platform, os.Getenv)
	root := &cobra.Command{
		Use:   "platform",
		Short: "Run the project's local platform",
		Long: `Runs Postgres, PostgREST, a stand-in for Netlify Blobs and the functions on this machine, without Docker. What it writes is
under .local, but for the Netlify CLI, which all checkouts have together in the user's cache folder.

The functions' own variables (KV_*, USE_*, NETLIFY_*, TZ, GOCOVERDIR) are taken from the environment. With SUPABASE_URL and
SUPABASE_SERVICE_ROLE_KEY set, that project is used and no database is started.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return wrong }
	flags := root.PersistentFlags()
	flags.StringVar(&o.PortBase, "port-base", o.PortBase, "move every port to this number and the ones after it, or `auto` for any free ones (KV_LOCAL_PORT_BASE)")
	flags.IntVar(&o.Instances, "instances", o.Instances, "instances of each function (KV_LOCAL_INSTANCES)")
	flags.DurationVar(&o.Timeout, "timeout", o.Timeout, "of one invocation (KV_HOST_TIMEOUT)")
	flags.StringVar(&o.Postgres, "postgres", o.Postgres, "version of Postgres: 17, or 15 as in older Supabase projects (KV_LOCAL_POSTGRES)")
	root.AddCommand(upCommand(o), serveCommand(o), downCommand(), resetCommand(), devCommand(o), runCommand(o), packagesCommand())
	return root
}

// packagesCommand is for tests that use the programs of a set.
func packagesCommand() *cobra.Command {
	sets := map[string]npm.Set{packages.Name: packages, netlifyCLI.Name: netlifyCLI, benchmark.Name: benchmark, clients.Name: clients, sessions.Name: sessions}
	return &cobra.Command{
		Use:       "packages <set>",
		Short:     "Install a set of npm packages, unless it is installed, and print its folder",
		Hidden:    true,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: slices.Sorted(maps.Keys(sets)),
		RunE: func(cmd *cobra.Command, args []string) error {
			checkout, err := layout.Find(".")
			if err != nil {
				return err
			}
			dir, err := sets[args[0]].Install(cmd.Context(), checkout, console.New(os.Stderr))
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), dir)
			}
			return err
		},
	}
}

func upCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "up",
		Short: "Start everything in the background, after stopping what runs",
		Long: `Starts everything in the background, after stopping what runs, and returns when it is healthy. The addresses are printed, and
written to .local/env with the keys.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return up(cmd.Context(), o, cmd.OutOrStdout()) },
	}
}

// The files that `serve` inherits from `up`.
const (
	terminalFile  = 3 // for progress
	addressesFile = 4 // receives the addresses when everything is ready
)

// up starts `serve` in its own session and returns when `serve` is ready or has failed.
func up(ctx context.Context, o *options, out io.Writer) error {
	checkout, err := layout.Find(".")
	if err != nil {
		return err
	}
	home := checkout.Main()
	if err := home.Make(); err != nil {
		return err
	}
	log, err := proc.OpenLog(home.Log("platform"))
	if err != nil {
		return err
	}
	defer log.Close()
	addresses, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer addresses.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "serve", "--port-base", o.PortBase, "--instances", strconv.Itoa(o.Instances), "--timeout", o.Timeout.String(), "--postgres", o.Postgres)
	cmd.Dir, cmd.ExtraFiles = checkout.Root, []*os.File{os.Stderr, write}
	cmd.Stdout, cmd.Stderr = log, log // what Go prints when it crashes
	proc.Detach(cmd)
	err = cmd.Start()
	write.Close()
	if err != nil {
		return fmt.Errorf("start the supervisor: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = proc.Ask(cmd.Process.Pid) })()
	if n, err := io.Copy(out, addresses); n > 0 || err != nil {
		return err
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitFailed {
		return console.Try(fmt.Errorf("the supervisor ended before it was ready: %w", err), "read %s", home.Log("platform"))
	}
	return errReported
}

func serveCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:    "serve",
		Short:  "Run the platform in the foreground, for up",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			syscall.CloseOnExec(terminalFile)
			syscall.CloseOnExec(addressesFile)
			terminal, addresses := os.NewFile(terminalFile, "terminal"), os.NewFile(addressesFile, "addresses")
			err := serve(cmd.Context(), o, terminal, addresses)
			if err != nil {
				report(cmd.Context(), terminal, err)
				return errReported
			}
			return nil
		},
	}
}

// serve runs a platform until ctx ends.
func serve(ctx context.Context, o *options, terminal, addresses *os.File) error {
	checkout, err := layout.Find(".")
	if err != nil {
		return err
	}
	out := console.New(terminal)
	lock, _, err := supervisor.Take(ctx, checkout.Main(), out)
	if err != nil {
		return err
	}
	defer lock.Release()
	p, err := o.start(ctx, lock, checkout, out, extras{functions: true})
	if err != nil {
		return err
	}
	defer p.Stop()
	_, err = fmt.Fprint(addresses, p.Addresses())
	if err := errors.Join(err, addresses.Close(), terminal.Close()); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// extras are the optional parts of a platform, besides the database and Blobs.
type extras struct{ functions, netlifyDev, unsynced bool }

// start installs and builds what the platform needs, then starts it in the home of the lock.
func (o *options) start(ctx context.Context, lock *supervisor.Lock, checkout layout.Checkout, out *console.Printer, with extras) (*supervisor.Platform, error) {
	plan, err := ports.Parse(o.PortBase)
	if err != nil {
		return nil, err
	}
	project, err := givenProject(plan)
	if err != nil {
		return nil, err
	}
	if err := plan.Check(project == nil, with.netlifyDev); err != nil {
		return nil, err
	}
	modules, err := packages.Install(ctx, checkout, out)
	if err != nil {
		return nil, err
	}
	version, err := o.installPostgres(ctx, checkout, out, modules)
	if err != nil {
		return nil, err
	}
	version.Unsynced = with.unsynced
	spec := supervisor.Spec{Ports: plan, Supabase: project, Modules: modules, Postgres: version, Instances: o.Instances, Timeout: o.Timeout,
		Functions: supervisor.FunctionVariables(os.Environ())}
	if with.functions {
		if spec.Build, err = bundle.Build(ctx, checkout, modules, out); err != nil {
			return nil, err
		}
	}
	return supervisor.Start(ctx, lock, checkout, spec, out)
}

// installPostgres installs the requested version. The newest one is part of the modules of every platform.
func (o *options) installPostgres(ctx context.Context, checkout layout.Checkout, out *console.Printer, modules string) (v supervisor.Postgres, err error) {
	switch o.Postgres {
	case "17":
	case "15":
		modules, err = postgres15.Install(ctx, checkout, out)
	default:
		err = fmt.Errorf("--postgres (KV_LOCAL_POSTGRES) must be %s, got %q", strings.Join(postgres.Versions, " or "), o.Postgres)
	}
	return supervisor.Postgres{Major: o.Postgres, Modules: modules}, err
}

// givenProject returns the Supabase project that the environment names, or nil. After sourcing .local/env, the
// environment names the local one, which does not count.
func givenProject(plan ports.Plan) (*supervisor.Supabase, error) {
	var given config.Supabase
	if err := config.Read(&given, os.Getenv); err != nil {
		return nil, err
	}
	switch url := strings.TrimRight(given.URL, "/"); {
	case url == "" || url == ports.URL(plan.Gateway):
		return nil, nil
	case given.Key == "":
		return nil, console.Try(errors.New("SUPABASE_URL is set, and SUPABASE_SERVICE_ROLE_KEY is not"), "set both, or neither to use a local database")
	default:
		return &supervisor.Supabase{URL: url, Key: given.Key, AnonKey: config.Clean(os.Getenv("SUPABASE_ANON_KEY"))}, nil
	}
}

func downCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Stop everything that up has started; data stays",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return whileStopped(cmd.Context(), func(_ *supervisor.Lock, stopped bool, out *console.Printer) error {
				if stopped {
					out.Line("stopped")
				} else {
					out.Line("nothing was running")
				}
				return nil
			})
		},
	}
}

func resetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reset",
		Short: "Stop everything and remove all local data",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return whileStopped(cmd.Context(), func(lock *supervisor.Lock, _ bool, out *console.Printer) error {
				if err := lock.Erase(); err != nil {
					return fmt.Errorf("remove the data: %w", err)
				}
				out.Line("removed    all local data")
				return nil
			})
		},
	}
}

// whileStopped stops the platform and calls f while nothing else can start it.
func whileStopped(ctx context.Context, f func(lock *supervisor.Lock, stopped bool, out *console.Printer) error) error {
	checkout, err := layout.Find(".")
	if err != nil {
		return err
	}
	out := console.New(os.Stderr)
	lock, stopped, err := supervisor.Take(ctx, checkout.Main(), out)
	if err != nil {
		return err
	}
	return errors.Join(f(lock, stopped, out), lock.Release())
}
