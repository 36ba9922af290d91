package commands

import (
	"time"

	"github.com/spf13/cobra"
)

func (c *commands) demoCommand() *cobra.Command {
	length := &durationFlag{value: 30 * time.Second, least: time.Second, most: time.Hour}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Watch an attack on a built-in AMI server being banned",
		Long: `Play attackers and customers to a built-in AMI server, and ban the attackers in the kernel, in a network
namespace of its own: nothing on this host changes, and nothing is left behind.`,
		Args: takesArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.Demo(cmd.Context(), DemoOptions{For: length.value, JSON: c.json, Out: c.out, Columns: c.Columns})
		},
	}
	cmd.Flags().Var(length, "for", "how long")
	return cmd
}
