package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"netlify-supabase-kv/scripts/internal/cli"
	"netlify-supabase-kv/scripts/kv/internal/add"
)

// siteFlags are the flags of the commands that change a site's files.
type siteFlags struct{ dryRun, asJSON bool }

func (f *siteFlags) add(c *cobra.Command) {
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "show what would change, and write nothing")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print one JSON document")
}

func addCommand() *cobra.Command {
	var f siteFlags
	var o add.Options
	c := &cobra.Command{
		Use:   "add <folder of a site>",
		Short: "Add the functions to an existing Netlify site, or update them",
		Long: `Adds the functions to an existing Netlify site: their Go sources to its functions directory, the short addresses in
front of its redirects, the Go version to netlify.toml, and the schema to supabase/migrations. Run again, it updates
all of that. kv remove takes it back.

Of the site's own files, only netlify.toml and _redirects change: they get marked lines. If anything is in the way,
the command prints what it is and what to do about it, and writes nothing.`,
		Example: `  make kv ARGS='add ../my-site --dry-run'
  make kv ARGS='add ../my-site'
  make kv ARGS='add ../my-site --prebuilt'          # the site's build needs no Go
  make kv ARGS='add ../my-site --publish dist'      # Netlify's settings, not netlify.toml, name the publish folder`,
		Args: folderArg,
		RunE: func(c *cobra.Command, args []string) (err error) {
			o.Site = args[0]
			if o.Checkout == "" {
				if o.Checkout, err = checkout(); err != nil {
					return cli.Advise(err, "run the command inside a checkout, or name one with --checkout")
				}
			}
			plan, err := add.Add(c.Context(), o)
			return f.carryOut(c.Context(), c.OutOrStdout(), plan, err)
		},
	}
	f.add(c)
	c.Flags().BoolVar(&o.Prebuilt, "prebuilt", false, "add compiled programs instead of sources, for a site whose build has no Go: 8 MB for each function")
	c.Flags().StringVar(&o.Functions, "functions", "", "the functions directory, if only Netlify's settings name it")
	c.Flags().StringVar(&o.Publish, "publish", "", "the publish folder, if only Netlify's settings name it")
	c.Flags().StringVar(&o.Redirects, "redirects", "", "the file that the site's build publishes as _redirects, if several files have that name")
	c.Flags().StringVar(&o.Checkout, "checkout", "", "a checkout of this project, if the command does not run inside one")
	return c
}

func removeCommand() *cobra.Command {
	var f siteFlags
	c := &cobra.Command{
		Use:   "remove <folder of a site>",
		Short: "Remove what kv add added to a site",
		Long: `Removes what kv add added to a site, and restores the site's own files byte for byte. If a file was changed since kv add
wrote it, the command names the file and writes nothing. The database stays as it is.`,
		Example: `  make kv ARGS='remove ../my-site --dry-run'
  make kv ARGS='remove ../my-site'`,
		Args: folderArg,
		RunE: func(c *cobra.Command, args []string) error {
			plan, err := add.Remove(args[0])
			return f.carryOut(c.Context(), c.OutOrStdout(), plan, err)
		},
	}
	f.add(c)
	return c
}

func folderArg(c *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	return cli.Advise(fmt.Errorf("%s takes one argument, the site's folder; got %d", c.CommandPath(), len(args)), c.CommandPath()+" ../my-site")
}

// checkout finds the checkout that contains the working directory or, failing that, this program.
func checkout() (string, error) {
	dir, err := add.FindCheckout(".")
	if program, failed := os.Executable(); err != nil && failed == nil {
		if dir, failed = add.FindCheckout(filepath.Dir(program)); failed == nil {
			return dir, nil
		}
	}
	return dir, err
}

// carryOut prints the plan, applies it unless this is a dry run, and prints what was done.
func (f siteFlags) carryOut(ctx context.Context, out io.Writer, plan *add.Plan, err error) error {
	if err != nil {
		return err
	}
	found := len(plan.Found) > 0
	if !f.asJSON && !found {
		showDiffs(out, plan)
	}
	written := !f.dryRun && !found && len(plan.Changes) > 0
	if written {
		if err := plan.Apply(ctx); err != nil {
			return cli.Advise(err, "the same command again; it continues where it stopped")
		}
	}
	switch {
	case f.asJSON:
		err = showJSON(out, plan, written)
	case found:
		showFound(out, plan)
	default:
		showDone(out, plan, f.dryRun)
	}
	if found {
		err = errors.Join(err, cli.ErrFound)
	}
	return err
}

func showDiffs(out io.Writer, plan *add.Plan) {
	for _, c := range plan.Changes {
		if text := plan.Diff(c); text != "" {
			fmt.Fprintf(out, "%s\n%s\n", c.File, text)
		}
	}
}

func showFound(out io.Writer, plan *add.Plan) {
	for _, f := range plan.Found {
		fmt.Fprintln(out, "Found:", f.Where, f.What)
		fmt.Fprintln(out, "Try:  ", f.Do)
	}
	fmt.Fprintln(out, "\nNothing was written.")
}

func showDone(out io.Writer, plan *add.Plan, dryRun bool) {
	verb := map[string]string{"added": "added", "changed": "changed", "removed": "removed"}
	if dryRun {
		verb = map[string]string{"added": "add", "changed": "change", "removed": "remove"}
	}
	count := map[string]int{}
	for _, c := range plan.Changes {
		count[c.Action]++
		size := ""
		if c.Action != "removed" {
			size = humanize.Bytes(uint64(c.Bytes))
		}
		fmt.Fprintf(out, "%-9s %-70s %s\n", verb[c.Action], c.File, size)
	}
	note := ""
	if dryRun {
		note = "; --dry-run writes nothing"
	}
	fmt.Fprintf(out, "%d %s, %d %s, %d %s%s\n", count["added"], verb["added"], count["changed"], verb["changed"], count["removed"], verb["removed"], note)
	if len(plan.ByHand) == 0 {
		return
	}
	fmt.Fprintln(out, "\nBy hand:")
	for _, step := range plan.ByHand {
		fmt.Fprintln(out, "-", step)
	}
}

// report is the document that --json prints.
type report struct {
	Site      string        `json:"site"`
	Functions string        `json:"functions,omitempty"` // the functions directory
	Written   bool          `json:"written"`
	Changes   []add.Change  `json:"changes"` // planned; applied if Written
	Found     []add.Finding `json:"found"`
	ByHand    []string      `json:"byHand"`
}

func showJSON(out io.Writer, plan *add.Plan, written bool) error {
	r := report{plan.Site, plan.Functions, written, plan.Changes, plan.Found, plan.ByHand}
	if len(r.Found) > 0 || r.Changes == nil {
		r.Changes = []add.Change{}
	}
	if r.Found == nil {
		r.Found = []add.Finding{}
	}
	if r.ByHand == nil {
		r.ByHand = []string{}
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}
