package commands

import (
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/pkg/fleet/hub"
	"github.com/ringwall/ringwall/pkg/hint"
)

// hubPort is NATS' own.
const hubPort = "4222"

type hubFlags struct {
	folder, listen, name, address string
}

func (c *commands) hubCommand() *cobra.Command {
	var f hubFlags
	cmd := &cobra.Command{
		Use:   "hub",
		Short: "Serve a fleet, for who has no NATS servers",
		Long: `Serve a fleet in the foreground: one NATS server with JetStream in this program. At the first start it makes its key and
certificate. Then ringwall hub invite NODE prints one line for each node, which that node types. It need not run where
an Asterisk runs. While it is away each node goes on alone.`,
		Example: `  ringwall hub
  ringwall hub invite pbx-berlin --address hub.example.net:4222
  ringwall hub revoke pbx-berlin`,
		Args: takesArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			folder := hub.Folder{Path: f.folder}
			isNew, err := folder.Prepare(f.name)
			if err != nil {
				return err
			}
			h, err := hub.Open(folder, f.listen, slog.New(slog.NewTextHandler(c.Err, nil)))
			if err != nil {
				return hint.Errorf("--listen HOST:PORT", "the hub does not start: %w", err)
			}
			return h.Run(cmd.Context(), func() {
				if isNew {
					c.sayf("The hub of the fleet %s is new. For each node: ringwall hub invite NODE --address HOST:PORT", f.name)
				}
				c.sayf("The hub listens at %s.", h.Address())
			})
		},
	}
	cmd.PersistentFlags().StringVar(&f.folder, "folder", "/var/lib/ringwall-hub",
		"`FOLDER` of its key, of who is invited and of what nodes say")
	cmd.Flags().StringVar(&f.listen, "listen", "0.0.0.0:"+hubPort, "`HOST:PORT` where nodes reach it")
	cmd.Flags().StringVar(&f.name, "name", "ringwall", "`NAME` of the fleet, for good")
	cmd.AddCommand(c.hubInviteCommand(&f), c.hubRevokeCommand(&f))
	return cmd
}

func (c *commands) hubInviteCommand(f *hubFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "invite NODE",
		Short: "Print the line with which a node joins",
		Long: `Print the line with which one node joins: it holds that node's secret, and the hub's certificate. Whoever had that name
before is out. A hub that runs lets the node in within a second.`,
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
				return c.writeJSON(map[string]string{"node": args[0], "server": i.Server, "fleet": i.Fleet, "line": line})
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
		Long: `Cut a node off: within a second, where the hub runs. What it has said stays until it ends; ringwall unban at any other node
lifts its bans.`,
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
