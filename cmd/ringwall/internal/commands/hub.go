package commands

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/pkg/fleet/hub"
	"github.com/ringwall/ringwall/pkg/hint"
)

// hubPort is NATS' own.
const hubPort = "4222"

type hubFlags struct {
	folder, listen, name, address string
	maxRecords                    int
}

func (c *commands) hubCommand() *cobra.Command {
	var f hubFlags
	cmd := &cobra.Command{
		Use:   "hub",
		Short: "Serve a fleet, for who has no NATS servers",
		Long: `Serve a fleet in the foreground: one NATS server with JetStream in this program. At the first start it
makes its key and certificate. Then ringwall hub invite NODE prints one line for each node, which that node types. It
need not run where an Asterisk runs. While it is away each node goes on alone.`,
		Example: `  ringwall hub
  ringwall hub invite pbx-berlin --address hub.example.net:4222
  ringwall hub revoke pbx-berlin
  ringwall hub forget pbx-berlin`,
		Args: takesArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.maxRecords < 1 {
				return usageErrorf("--max-records 100000", "--max-records %d: allowed are 1 and more", f.maxRecords)
			}
			folder := hub.Folder{Path: f.folder}
			isNew, err := folder.Prepare(f.name)
			if err != nil {
				return err
			}
			h, err := hub.Open(folder, f.listen, slog.New(slog.NewTextHandler(c.Err, nil)))
			if err != nil {
				return hint.Errorf("--listen HOST:PORT", "the hub does not start: %w", err)
			}
			h.MaxRecords = f.maxRecords
			return h.Run(cmd.Context(), func() {
				if isNew {
					c.sayf("The hub of the fleet %s is new. For each node: ringwall hub invite NODE --address "+
						"HOST:PORT", f.name)
				}
				c.sayf("The hub listens at %s.", h.Address())
			})
		},
	}
	cmd.PersistentFlags().StringVar(&f.folder, "folder", "/var/lib/ringwall-hub",
		"`FOLDER` of its key, of who is invited and of what nodes say")
	cmd.Flags().StringVar(&f.listen, "listen", "0.0.0.0:"+hubPort, "`HOST:PORT` where nodes reach it")
	cmd.Flags().StringVar(&f.name, "name", "ringwall", "`NAME` of the fleet, for good")
	cmd.Flags().IntVar(&f.maxRecords, "max-records", hub.DefaultMaxRecords,
		"records of one node that are kept, twice what nodes take (fleet.max_records)")
	cmd.AddCommand(c.hubInviteCommand(&f), c.hubRevokeCommand(&f), c.hubForgetCommand(&f))
	return cmd
}

func (c *commands) hubInviteCommand(f *hubFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "invite NODE",
		Short: "Print the line with which a node joins",
		Long: `Print the line with which one node joins: it holds that node's secret, and the hub's certificate. Whoever
had that name before is out. A hub that runs lets the node in within a second.`,
		Args: takesArgs(1, 1, "the name of a node"),
		RunE: func(_ *cobra.Command, args []string) error {
			address := f.address
			if address == "" {
				host, err := os.Hostname()
				if err != nil {
					return hint.Errorf("--address HOST:PORT", "this host has no name: %w", err)
				}
				address = net.JoinHostPort(host, hubPort)
			}
			i, err := hub.Folder{Path: f.folder}.Invite(args[0], address)
			if err != nil {
				return err
			}
			line := "ringwall fleet join " + i.String()
			if c.json {
				return c.writeJSON(map[string]string{"node": args[0], "server": i.Server, "fleet": i.Fleet,
					"line": line})
			}
			fmt.Fprintln(c.out, line)
			return nil
		},
	}
	cmd.Flags().StringVar(&f.address, "address", "",
		"`HOST:PORT` at which the node reaches the hub (default: this host's name)")
	return cmd
}

func (c *commands) hubRevokeCommand(f *hubFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke NODE",
		Short: "Cut a node off",
		Long: `Cut a node off: within a second, where the hub runs. What it has said stays until it ends, or until
ringwall hub forget.`,
		Args: takesArgs(1, 1, "the name of a node"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := (hub.Folder{Path: f.folder}).Revoke(args[0]); err != nil {
				return err
			}
			if c.json {
				return c.writeJSON(map[string]any{"node": args[0], "revoked": true})
			}
			c.sayf("%s is out.", args[0])
			return nil
		},
	}
}

// forgetTime is how long a hub that runs may take.
const forgetTime = 10 * time.Second

func (c *commands) hubForgetCommand(f *hubFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "forget NODE",
		Short: "Void everywhere what a node has said",
		Long: `Void everywhere what a node has said so far: the hub drops it, every node that listens drops it at once,
and every node that is away as soon as it is back. Bans that nodes made of what they saw themselves stay. First:
ringwall hub revoke NODE, for what a node says from then on is heard.`,
		Args: takesArgs(1, 1, "the name of a node"),
		RunE: func(cmd *cobra.Command, args []string) error {
			folder, node := hub.Folder{Path: f.folder}, args[0]
			isInvited, err := folder.Forget(node)
			if err != nil {
				return err
			}
			isDone, err := awaitForgotten(cmd.Context(), folder, node)
			if err != nil {
				return err
			}
			if c.json {
				return c.writeJSON(map[string]any{"node": node, "done": isDone, "invited": isInvited})
			}
			if isDone {
				c.sayf("What %s said is void: nodes that are away forget it once they are back.", node)
			} else {
				c.sayf("The hub does not run: it forgets what %s said when it does.", node)
			}
			if isInvited {
				c.sayf("It is still invited, and heard from now on. To cut it off: ringwall hub revoke %s", node)
			}
			return nil
		},
	}
}

// awaitForgotten waits until a hub has forgotten a node, if it runs.
func awaitForgotten(ctx context.Context, folder hub.Folder, node string) (isDone bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, forgetTime)
	defer cancel()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for {
		if isDone, err = folder.IsForgotten(node); isDone || err != nil {
			return isDone, err
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-look.C:
		}
	}
}
