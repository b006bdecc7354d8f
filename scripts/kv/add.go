package main

import "github.com/spf13/cobra"

func addCommand() *cobra.Command { return &cobra.Command{Use: "add <folder of a site>"} }

func removeCommand() *cobra.Command { return &cobra.Command{Use: "remove <folder of a site>"} }
