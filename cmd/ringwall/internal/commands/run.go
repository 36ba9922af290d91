package commands

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/pkg/hint"
)

// runningTimeout is how long a daemon that runs already may take to say so.
const runningTimeout = time.Second

func (c *commands) run() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Start the daemon",
		Long: `Start the daemon in the foreground; systemd does this. SIGHUP reads the configuration again, SIGTERM ends it.
Bans stay in the kernel when it ends, and time out there by themselves.`,
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.alone(cmd); err != nil {
				return err
			}
			return c.Run(cmd.Context(), RunOptions{ConfigPath: c.config, Socket: c.socket})
		},
	}
}

// alone fails where a daemon answers at the socket already: what the kernel says to a second one helps nobody. Of all
// else that is wrong, the daemon complains by itself.
func (c *commands) alone(cmd *cobra.Command) error {
	client, err := c.client(cmd)
	if err != nil {
		return nil
	}
	client.Timeout = runningTimeout
	st, err := client.Status(cmd.Context())
	if err != nil {
		return nil
	}
	return hint.Errorf("ringwall status shows how it is; to start one by hand: systemctl stop ringwall, then ringwall run",
		"the daemon runs already, as process %d", st.PID)
}
