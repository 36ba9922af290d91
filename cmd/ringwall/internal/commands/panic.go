package commands

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/printable"
)

func (c *commands) panicCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "panic",
		Short: "Let everybody in at once, without the daemon",
		Long: `Stop the service and take Ringwall's table, with every ban, out of the kernel. Nobody is kept out from
then on, and nobody is banned, until the service is started again: then the bans are back. For when customers are locked
out and the daemon does not help; else ringwall unban lets one in, and ringwall unban --all everybody. Run it as root.`,
		Args: takesArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			env := c.Env
			env.WithoutSecrets = true
			cfg := config.Default()
			if have, _, err := config.Load(c.config, env); err == nil {
				cfg = *have
			}
			// A daemon that runs would build the table again within milliseconds.
			var stopped error
			if c.StopService != nil {
				stopped = c.StopService(cmd.Context())
			}
			if err := deleteTable(cfg.Firewall.Table); err != nil {
				return errors.Join(err, stopped)
			}
			c.sayf("The table inet %s is out of the kernel: nobody is kept out.", printable.String(cfg.Firewall.Table))
			if err := c.refuseWhileDaemonRuns(cmd); err != nil {
				return errors.Join(err, stopped)
			}
			c.sayf("It stays so until Ringwall is started: systemctl start ringwall, or the next boot. Then its bans " +
				"are back.")
			c.sayf("To begin without them: systemctl start ringwall && ringwall unban --all")
			return nil
		},
	}
}

// deleteTable takes a table out of the kernel, of which nothing else is touched.
func deleteTable(name string) error {
	table, err := firewall.Open(firewall.Config{Table: name})
	if err == nil {
		err = errors.Join(table.DeleteTable(), table.Close())
	}
	if errors.Is(err, firewall.ErrPermission) {
		return hint.Errorf("run this as root; if you are, a daemon owns it: end its process (pgrep ringwall), and "+
			"run this again",
			"the table inet %s is still in the kernel: %w", name, err)
	}
	return err
}

// refuseWhileDaemonRuns fails where a daemon answers: it puts the bans back.
func (c *commands) refuseWhileDaemonRuns(cmd *cobra.Command) error {
	client, err := c.newClient(cmd)
	if err != nil {
		client = &api.Client{}
	}
	st, runs := runningDaemon(cmd.Context(), client)
	if !runs {
		return nil
	}
	return hint.Errorf(fmt.Sprintf("kill %d, then ringwall panic again; or ask it: ringwall unban --all --grace 1h",
		st.PID),
		"a daemon still runs, as process %d, and puts the bans back", st.PID)
}
