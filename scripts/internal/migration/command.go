// Package migration is the command `kv migrate`. It migrates the entries of Netlify Blobs to Supabase, backs up,
// plans, verifies and reports. It also repairs unconfirmed mirrored writes, and reports whether to switch.
package migration

import (
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// With half as many garbage collections as Go's default, a migration is a tenth faster. Near the limit there are more, so
// that also a million entries take well under 200 MB.
const (
	gcPercent   = 200
	memoryLimit = 128 << 20
)

// Command returns the command with its subcommands, under the name by which it is called.
func Command(name string) *cobra.Command {
	var s stores
	root := &cobra.Command{
		Use:   name,
		Short: "Migrate the entries of Netlify Blobs to Supabase",
		Long: `Migrate the entries of Netlify Blobs to Supabase: those of the store kv, or of another one with --store.
docs/MIGRATION.md describes the steps:

  kv migrate backup --out kv-backup.ndjson.gz
  kv migrate plan
  kv migrate run
  kv migrate verify
  kv migrate ready

No command deletes a blob. Every command can be interrupted and run again, from any machine: plan, verify and backup
start over, the others continue where they stopped.

Exit status: 0, all is well; 1, it ran and left something, which it prints; 2, it could not run or finish.`,
		Example:      "  make kv ARGS='migrate plan'",
		SilenceUsage: true, SilenceErrors: true,
		// Without a run, cobra answers a misspelt subcommand with the help and status 0.
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			if os.Getenv("GOGC") == "" {
				debug.SetGCPercent(gcPercent)
			}
			if os.Getenv("GOMEMLIMIT") == "" {
				debug.SetMemoryLimit(memoryLimit)
			}
			return s.checkStore(c)
		},
	}
	s.flags(root.PersistentFlags())
	root.AddGroup(&cobra.Group{ID: "migrate", Title: "To migrate:"}, &cobra.Group{ID: "keep", Title: "To keep:"})
	for _, c := range []*cobra.Command{planCommand(&s), runCommand(&s), verifyCommand(&s), statusCommand(&s), reportCommand(&s), readyCommand(&s), closeCommand(&s)} {
		c.GroupID = "migrate"
		root.AddCommand(c)
	}
	for _, c := range []*cobra.Command{backupCommand(&s), restoreCommand(&s), repairCommand(&s)} {
		c.GroupID = "keep"
		root.AddCommand(c)
	}
	return root
}
