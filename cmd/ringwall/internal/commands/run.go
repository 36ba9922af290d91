package commands

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/hint"
)

// runningDaemonTimeout is how long a daemon that runs already may take to say so.
const runningDaemonTimeout = time.Second

func (c *commands) runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Start the daemon",
		Long: `Start the daemon in the foreground; systemd does this. SIGHUP reads the configuration again, SIGTERM ends
it. Bans stay in the kernel when it ends, and time out there by themselves.`,
		Args: takesArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.refuseSecondDaemon(cmd); err != nil {
				return err
			}
			return c.Run(cmd.Context(), RunOptions{ConfigPath: c.config, Socket: c.socket})
		},
	}
}

// runningDaemon asks a daemon for its status; false where none answers.
func runningDaemon(ctx context.Context, client *api.Client) (api.Status, bool) {
	client.Timeout = runningDaemonTimeout
	status, err := client.Status(ctx)
	return status, err == nil
}

// refuseSecondDaemon fails where a daemon answers at the socket already: what the kernel says to a second one helps
// nobody. About all else that is wrong the new daemon complains by itself.
func (c *commands) refuseSecondDaemon(cmd *cobra.Command) error {
	client, err := c.newClient(cmd)
	if err != nil {
		return nil
	}
	st, runs := runningDaemon(cmd.Context(), client)
	if !runs {
		return nil
	}
	return hint.Errorf("ringwall status shows how it is; to start one by hand: systemctl stop ringwall, then "+
		"ringwall run",
		"the daemon runs already, as process %d", st.PID)
}
