package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"netlify-supabase-kv/scripts/platform/internal/bundle"
	"netlify-supabase-kv/scripts/platform/internal/console"
	"netlify-supabase-kv/scripts/platform/internal/envfile"
	"netlify-supabase-kv/scripts/platform/internal/layout"
	"netlify-supabase-kv/scripts/platform/internal/ports"
	"netlify-supabase-kv/scripts/platform/internal/proc"
	"netlify-supabase-kv/scripts/platform/internal/supervisor"
)

func runCommand(o *options) *cobra.Command {
	var wanted runOptions
	cmd := &cobra.Command{
		Use:   "run -- COMMAND…",
		Short: "Run a command against a new, empty platform, which is removed afterwards",
		Long: `Starts a second, empty platform on free ports (or on those of --port-base), runs the command with the variables of its env file
in the environment, stops the platform, and exits with the command's status.

Variables of the environment that name a project or settings (SUPABASE_*, KV_*, …) are removed, so that no test can reach another
store. --env sets variables of the functions.

Each --mode runs the command once more, after the first run, on the same platform with its functions restarted:

  platform run --mode KV_CACHE=off --mode 'USE_SUPABASE_KV=false KV_MIRROR_WRITES=true' -- go test ./tests/e2e`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			checkout, err := layout.Find(".")
			if err != nil {
				return err
			}
			if err := errors.Join(checkModes(wanted.modes), isolate(wanted.env)); err != nil {
				return err
			}
			wanted.command = args
			return run(cmd.Context(), checkout, o, wanted)
		},
	}
	cmd.Flags().StringVar(&wanted.name, "name", "test", "of the platform's folder under .local: runs with different names can go on side by side")
	cmd.Flags().StringArrayVar(&wanted.env, "env", nil, "`NAME=VALUE` for the functions and the command; may be repeated")
	cmd.Flags().StringArrayVar(&wanted.modes, "mode", nil, "`NAME=VALUE…`, with spaces between them, for the functions and one more run of the command; may be repeated")
	cmd.Flags().BoolVar(&wanted.functions, "functions", true, "build and run the functions, beside what they need")
	cmd.Flags().BoolVar(&wanted.unsynced, "unsynced", false, "let Postgres not wait for the disk: quicker, for tests that measure nothing")
	cmd.Flags().BoolVar(&wanted.netlifyDev, "dev", false, "run netlify dev on it too, at $KV_DEV_URL")
	return cmd
}

// runOptions are the flags and arguments of run.
type runOptions struct {
	extras
	name    string
	env     []string // NAME=VALUE each
	modes   []string // NAME=VALUE separated by spaces, one text a mode
	command []string
}

// isolated are the prefixes of the variables that name stores or configure the functions.
var isolated = []string{"SUPABASE_", "DATABASE_", "KV_", "USE_", "NETLIFY_"}

// isolate removes those variables from the environment, except the ones of the tests, and sets the given ones.
func isolate(set []string) error {
	for _, line := range os.Environ() {
		name, _, _ := strings.Cut(line, "=")
		if strings.HasPrefix(name, "KV_SCHEMA_") || !slices.ContainsFunc(isolated, func(p string) bool { return strings.HasPrefix(name, p) }) {
			continue
		}
		if err := os.Unsetenv(name); err != nil {
			return err
		}
	}
	for _, line := range set {
		name, value, found := strings.Cut(line, "=")
		if !found {
			return fmt.Errorf("--env takes NAME=VALUE, got %q", name)
		}
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("--env %s: %w", name, err)
		}
	}
	return nil
}

// checkModes refuses a mode that is not NAME=VALUE, before anything is started.
func checkModes(modes []string) error {
	for _, mode := range modes {
		for _, line := range strings.Fields(mode) {
			if !strings.Contains(line, "=") {
				return fmt.Errorf("--mode takes NAME=VALUE with spaces between them, got %q", line)
			}
		}
	}
	return nil
}

// runName leaves no way out of the folder that the name names, whose data is removed: not to that of up either.
var runName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)

// run refuses to start while another run of the same name is going on in the same checkout.
func run(ctx context.Context, checkout layout.Checkout, o *options, wanted runOptions) error {
	if !runName.MatchString(wanted.name) {
		return fmt.Errorf("--name must have lower-case letters, digits and -, got %q", wanted.name)
	}
	lock, err := supervisor.TryTake(checkout.Test(wanted.name))
	if err != nil {
		return err
	} else if lock == nil {
		return console.Try(fmt.Errorf("another run named %s is going on in this checkout", wanted.name), "wait for it, or name this one: run --name other -- …")
	}
	defer lock.Release()
	p, err := startEmpty(ctx, lock, checkout, o, wanted)
	if err != nil {
		return err
	}
	err = runWith(ctx, p, wanted)
	p.Stop()
	return errors.Join(err, lock.EraseData()) // the logs stay until the next run
}

// startEmpty starts a platform without data, on free ports unless a port is given.
func startEmpty(ctx context.Context, lock *supervisor.Lock, checkout layout.Checkout, o *options, wanted runOptions) (*supervisor.Platform, error) {
	if err := lock.Erase(); err != nil {
		return nil, fmt.Errorf("remove the data of the last run: %w", err)
	}
	o.PortBase = cmp.Or(o.PortBase, ports.Auto)
	return o.start(ctx, lock, checkout, console.New(os.Stderr), wanted.extras)
}

// runWith runs the command in every mode, with netlify dev beside it if requested.
func runWith(ctx context.Context, p *supervisor.Platform, wanted runOptions) error {
	if !wanted.netlifyDev {
		return runInModes(ctx, p, wanted)
	}
	cli, err := netlifyCLI.Install(ctx, p.Checkout, p.Out)
	if err != nil {
		return err
	}
	if err := bundle.Compile(ctx, p.Checkout, p.Out); err != nil {
		return err
	}
	site, err := startNetlifyDev(ctx, p, cli, io.Discard)
	if err != nil {
		return err
	}
	address, end, err := startRepeating(site.address, p.Out.Line)
	if err != nil {
		return errors.Join(err, site.end())
	}
	// The command's other addresses are those of the platform's env file, which is read anew for each mode.
	wanted.command = append([]string{"env", "KV_DEV_URL=" + address}, wanted.command...)
	defer end()
	return errors.Join(runInModes(ctx, p, wanted), site.end())
}

// runInModes runs the command on the platform as it was started, then once in each mode. It continues after a failure,
// so that one run shows every mode that fails.
func runInModes(ctx context.Context, p *supervisor.Platform, wanted runOptions) error {
	status := runIn(ctx, p, os.Environ(), wanted.command)
	for _, mode := range wanted.modes {
		if ctx.Err() != nil {
			break
		}
		if err := runInMode(ctx, p, mode, wanted.command); err != nil {
			p.Out.Line("failed     mode %s: %v", mode, err)
			status = errors.Join(status, err)
		}
	}
	return status
}

// runInMode restarts the functions with the mode's variables added, and runs the command with the same variables.
func runInMode(ctx context.Context, p *supervisor.Platform, mode string, command []string) error {
	p.Out.Line("mode       %s", mode)
	environ := append(os.Environ(), strings.Fields(mode)...) // of repeated variables, the last counts
	if err := p.RestartFunctions(ctx, supervisor.FunctionVariables(environ)); err != nil {
		return err
	}
	return runIn(ctx, p, environ, command)
}

// commandError is the failure of the command that run was given. The command has printed its own error.
type commandError struct{ status int }

func (e commandError) Error() string {
	return fmt.Sprintf("the command ended with status %d", e.status)
}

// ofCommand turns an exit status into a commandError.
func ofCommand(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return commandError{exit.ExitCode()}
	}
	return err
}

// runIn runs the command in this terminal, with environ and the platform's variables.
func runIn(ctx context.Context, p *supervisor.Platform, environ, args []string) error {
	variables, err := envfile.Read(p.Home.Env())
	if err != nil {
		return err
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(slices.Clone(environ), envfile.Strings(variables)...)
	if err := proc.StartHere(cmd); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return ofCommand(err)
	case <-ctx.Done():
	}
	return ofCommand(endCommand(cmd, ended))
}
