package commands

import "github.com/spf13/cobra"

func (c *commands) run() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Start the daemon",
		Long: `Start the daemon in the foreground; systemd does this. SIGHUP reads the configuration again, SIGTERM ends it.
Bans stay in the kernel when it ends, and time out there by themselves.`,
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.Run(cmd.Context(), RunOptions{ConfigPath: c.config, Socket: c.socket})
		},
	}
}
