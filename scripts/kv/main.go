// Command kv is the one program that people run beside the functions: it brings them into a site that exists, looks for what would fail,
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
		Short: "What people run beside the functions",
		Long: `What people run beside the functions. From a checkout: make kv ARGS='<command> …'.

Exit status: 0, all is well; 1, it ran and something is found or left, which it says; 2, it could not run or not end.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(addCommand(), removeCommand(), doctorCommand(), migration.Command("migrate"), exportCommand())
	return root
}
