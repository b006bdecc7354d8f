// Package migration is `kv migrate`: it brings the entries of Netlify Blobs into Supabase, backs up, plans, verifies and reports; it repairs
// what mirrored writes left unconfirmed; and it says whether to switch.
package migration

import (
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// gcPercent keeps the memory of a large migration well under 200 MB.
const gcPercent = 50

// Command returns all of it, under the name by which it is called.
func Command(name string) *cobra.Command {
	var s stores
	root := &cobra.Command{
		Use:   name,
		Short: "Bring the entries of Netlify Blobs into Supabase",
		Long: `Bring the entries of Netlify Blobs into Supabase. docs/MIGRATION.md is the way through it:

  kv migrate backup --out kv-backup.ndjson.gz
  kv migrate plan
  kv migrate run
  kv migrate verify
  kv migrate ready

Nothing here ever deletes a blob. Every command can be ended at any time and given again, from any machine: plan, verify and
backup begin anew, the others go on where they were.

Exit status: 0, all is well; 1, it ran and something is left, which it says; 2, it could not run or not end.`,
		Example:      "  make kv ARGS='migrate plan'",
		SilenceUsage: true, SilenceErrors: true,
		PersistentPreRun: func(*cobra.Command, []string) {
			if os.Getenv("GOGC") == "" {
				debug.SetGCPercent(gcPercent)
			}
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
