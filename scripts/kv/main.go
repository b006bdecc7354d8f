// Command kv administers a site that uses the functions. It adds them to an existing site, checks for problems,
// migrates, backs up and exports.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"netlify-supabase-kv/scripts/internal/cli"
	"netlify-supabase-kv/scripts/internal/migration"
)

func main() { os.Exit(cli.Main(command())) }

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "kv",
		Short: "Administer a site that uses the functions",
		Long: `Administers a site that uses the functions. From a checkout: make kv ARGS='<command> …'.

Exit status: 0, all is well; 1, it ran and found or left something, which it prints; 2, it could not run or finish.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(addCommand(), removeCommand(), doctorCommand(), migration.Command("migrate"), exportCommand())
	return root
}
