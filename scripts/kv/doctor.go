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
		Short: "Find problems in the site's files, variables and database, and on the deployed site",
		Long: `Finds problems and prints how to fix each. Before a deploy it checks netlify.toml and the functions in the folder, the
functions' variables, the Supabase project and Netlify Blobs. With --site it also checks the deployed site.

The variables come from the environment or from a file: the output of "netlify env:list --json", or KEY=value lines. With
DATABASE_URL set, it asks the database what the project's API cannot tell. It changes nothing, except that it writes
entries under kv-doctor/ on the site and removes them again; with --read-only it writes none.

Exit status: 0, nothing fails (warnings do not count); 1, something fails; 2, it could not run or finish.`,
		Example: `  make kv ARGS='doctor --dir ../my-site'
  (cd ../my-site && npx netlify env:list --json --context production > production.json)
  make kv ARGS='doctor --dir ../my-site --env-file ../my-site/production.json'
  make kv ARGS='doctor --dir ../my-site --env-file ../my-site/production.json --site https://my-site.netlify.app'`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c.Context(), c.OutOrStdout()) },
	}
	s := c.Flags()
	s.StringVar(&f.dir, "dir", ".", "the site's folder, which holds netlify.toml")
	s.StringVar(&f.site, "site", "", "the address of the deployed site, as in https://your-site.netlify.app")
	s.StringVar(&f.envFile, "env-file", "", "a file with the functions' variables, which replaces the environment")
	s.BoolVar(&f.readOnly, "read-only", false, "write nothing on the site")
	s.BoolVar(&f.asJSON, "json", false, "print one JSON document")
	s.StringSliceVar(&f.only, "only", nil, "run only these `checks`, separated by commas")
	s.BoolVar(&f.list, "list", false, "list the checks without running any")
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

// checks returns the checks that --only names, or all.
func (f *doctorFlags) checks() ([]doctor.Check, error) {
	if len(f.only) == 0 {
		return doctor.Checks, nil
	}
	var chosen []doctor.Check
	for _, id := range f.only {
		at := slices.IndexFunc(doctor.Checks, func(check doctor.Check) bool { return check.ID == id })
		if at < 0 {
			return nil, cli.Advise(fmt.Errorf("--only names %q, which is not a check", id), "kv doctor --list")
		}
		chosen = append(chosen, doctor.Checks[at])
	}
	return chosen, nil
}

// input puts the functions' variables into this process's environment, where the functions' own code reads them.
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
