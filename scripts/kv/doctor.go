package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/netlify"
	"netlify-supabase-kv/pkg/upstream"
	"netlify-supabase-kv/scripts/internal/cli"
	"netlify-supabase-kv/scripts/kv/internal/doctor"
)

type doctorFlags struct {
	dir, site, envFile     string
	only                   []string
	readOnly, asJSON, list bool
}

func doctorCommand() *cobra.Command {
	var f doctorFlags
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what would fail: in the site's files, variables and database, and on the deployed site",
		Long: `Looks for what would fail, and says of each thing what mends it. Before a deploy it looks at netlify.toml and the functions in the
folder, at the functions' variables, the Supabase project behind them and Netlify Blobs; with --site also at the deployed site.

The variables are taken from the environment, or from a file: one that "netlify env:list --json" printed, or one of KEY=value lines.
With DATABASE_URL set, what the project's API cannot tell is asked of the database itself. Nothing is changed, but for entries under
kv-doctor/ on the site, which are removed again; --read-only does without them.

Exit status: 0, nothing fails (warnings do not count); 1, something does; 2, it could not run or not end.`,
		Example: `  make kv ARGS='doctor --dir ../my-site'
  (cd ../my-site && npx netlify env:list --json --context production > production.json)
  make kv ARGS='doctor --dir ../my-site --env-file ../my-site/production.json'
  make kv ARGS='doctor --dir ../my-site --env-file ../my-site/production.json --site https://my-site.netlify.app'`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c.Context(), c.OutOrStdout()) },
	}
	s := c.Flags()
	s.StringVar(&f.dir, "dir", ".", "the folder of the site, where netlify.toml is")
	s.StringVar(&f.site, "site", "", "the address of the deployed site, as in https://your-site.netlify.app")
	s.StringVar(&f.envFile, "env-file", "", "the functions' variables, instead of those of the environment")
	s.BoolVar(&f.readOnly, "read-only", false, "write nothing on the site")
	s.BoolVar(&f.asJSON, "json", false, "print one JSON document")
	s.StringSliceVar(&f.only, "only", nil, "run these `checks` alone, with commas between them")
	s.BoolVar(&f.list, "list", false, "say what is looked at, and look at nothing")
	return c
}

func (f *doctorFlags) run(ctx context.Context, stdout io.Writer) error {
	if f.list {
		for _, check := range doctor.Checks {
			fmt.Fprintf(stdout, "%-20s %s\n", check.ID, check.About)
		}
		return nil
	}
	checks, err := f.checks()
	if err != nil {
		return err
	}
	in, err := f.input()
	if err != nil {
		return err
	}
	report, mask := doctor.Report{Release: kv.Release, Site: in.Site}, in.Mask()
	err = doctor.Run(ctx, in, checks, func(check doctor.Check, findings []doctor.Finding) {
		result := report.Add(check, findings, mask)
		if !f.asJSON {
			_ = result.Write(stdout)
		}
	})
	if err != nil {
		return err
	}
	if f.asJSON {
		err = report.WriteJSON(stdout)
	} else {
		err = report.WriteSummary(stdout)
	}
	if err == nil && report.Counts[doctor.Fail] > 0 {
		return cli.ErrFound
	}
	return err
}

// checks are those that are asked for.
func (f *doctorFlags) checks() ([]doctor.Check, error) {
	if len(f.only) == 0 {
		return doctor.Checks, nil
	}
	var chosen []doctor.Check
	for _, id := range f.only {
		at := slices.IndexFunc(doctor.Checks, func(check doctor.Check) bool { return check.ID == id })
		if at < 0 {
			return nil, cli.Advise(fmt.Errorf("--only: there is no check %q", id), "kv doctor --list")
		}
		chosen = append(chosen, doctor.Checks[at])
	}
	return chosen, nil
}

// input brings the functions' variables into this process's environment, where their own code reads them.
func (f *doctorFlags) input() (*doctor.Input, error) {
	if info, err := os.Stat(f.dir); err != nil || !info.IsDir() {
		return nil, cli.Advise(fmt.Errorf("--dir %s is not a folder", f.dir), "kv doctor --dir <folder of the site>")
	}
	site := strings.TrimRight(f.site, "/")
	if site != "" && !strings.HasPrefix(site, "http://") && !strings.HasPrefix(site, "https://") {
		return nil, cli.Advise(fmt.Errorf("--site must be an address that begins with https://, got %q", f.site), "kv doctor --site https://your-site.netlify.app")
	}
	in := &doctor.Input{Dir: f.dir, Site: site, ReadOnly: f.readOnly, Getenv: os.Getenv, Problems: netlify.CheckEnv, MaxStale: netlify.MaxStaleFromEnv,
		DatabaseURL: os.Getenv("DATABASE_URL"), HTTP: &http.Client{Transport: upstream.Transport, Timeout: 15 * time.Second}, Now: time.Now}
	in.HTTP.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if f.envFile == "" {
		return in, nil
	}
	variables, err := doctor.ReadVariables(f.envFile)
	if err != nil {
		return nil, cli.Advise(err, "npx netlify env:list --json --context production > "+f.envFile)
	}
	for _, name := range doctor.Variables {
		if _, set := variables[name]; !set {
			err = errors.Join(err, os.Unsetenv(name))
		}
	}
	for name, value := range variables {
		in.Names = append(in.Names, name)
		if name != "DATABASE_URL" || in.DatabaseURL == "" {
			err = errors.Join(err, os.Setenv(name, value))
		}
	}
	slices.Sort(in.Names)
	in.DatabaseURL = os.Getenv("DATABASE_URL")
	return in, err
}
