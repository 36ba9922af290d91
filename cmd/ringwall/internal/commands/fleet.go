package commands

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/daemon"
	"github.com/ringwall/ringwall/pkg/fleet"
	"github.com/ringwall/ringwall/pkg/fleet/hub"
	"github.com/ringwall/ringwall/pkg/fleet/record"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
	"github.com/ringwall/ringwall/pkg/store"
)

const (
	joinTime = 20 * time.Second // for a hub's answer to a node that joins
	// refusedTime is how long a hub may refuse a node: it takes a second to hear of an invitation.
	refusedTime = 3 * time.Second
)

func (c *commands) fleetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "Share what this PBX learns with your others",
		Args:  noSuchCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.fleetStatusCommand(), c.fleetJoinCommand(), c.fleetForgetCommand())
	return cmd
}

func (c *commands) fleetStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show whether this node hears the others, and what they said",
		Args:  takesArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := c.askStatus(cmd)
			if err != nil {
				return c.explainDown(err)
			}
			if st.Fleet == nil {
				return hint.Errorf("fleet in the configuration, as deploy/docs/fleet.md says",
					"this node is in no fleet")
			}
			if c.json {
				return c.writeJSON(st.Fleet)
			}
			return c.sayFleet(st.Fleet)
		},
	}
}

func (c *commands) sayFleet(s *fleet.Status) error {
	switch {
	case s.Connected && s.CaughtUp:
		c.sayf("Connected to %s, and up to date.", printable.String(s.Server))
	case s.Connected:
		c.sayf("Connected to %s; what was missed is being fetched.", printable.String(s.Server))
	default:
		c.sayf("NOT CONNECTED: this node goes on alone with what it knew.")
	}
	if s.Error != "" {
		c.sayf("The last error: %s", printable.Limit(s.Error, 200))
	}
	c.sayf("%s known, %d wait for the hub.", humanize.Plural(s.Records, "record is", "records are"), s.Waiting)
	if s.Unsaid > 0 {
		c.sayf("%d were not told: others would not take them (fleet.max_records, fleet.max_prefix).", s.Unsaid)
	}
	if len(s.Nodes) == 0 {
		return nil
	}
	t := &table{header: []string{"NODE", "HEARD", "BEHIND", "RECORDS", "A MINUTE", "REFUSED", "NOTE"},
		rightAligned: map[int]bool{2: true, 3: true, 4: true, 5: true}, cutOrder: []int{6}}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		heard, behind := "-", "-"
		if last := n.LastHeard(); !last.IsZero() {
			heard = c.shortTime(last)
		}
		if !n.Alive.IsZero() {
			behind = strconv.FormatUint(n.Behind, 10)
		}
		t.addRow(printable.String(n.Name), heard, behind, strconv.Itoa(n.Records),
			strconv.FormatFloat(n.PerMinute, 'f', -1, 64), strconv.FormatUint(n.RefusedCount(), 10),
			nodeNote(n, s.Node))
	}
	if err := t.flushTo(c.out, c.Columns); err != nil {
		return err
	}
	if !s.Watching {
		c.sayWrappedf("", "Who is silent is not known here: of a fleet of more than 200 nodes set fleet.watch: on "+
			"where somebody looks.")
	}
	return nil
}

// nodeNote is what is to be known of a node.
func nodeNote(n *record.Node, self string) string {
	var notes []string
	if n.Name == self {
		notes = append(notes, "this node")
	}
	if n.Silent {
		notes = append(notes, "SILENT")
	}
	if n.AtBound {
		notes = append(notes, "AT ITS BOUND")
	}
	if n.Waiting > 0 {
		notes = append(notes, fmt.Sprintf("%d wait for the hub", n.Waiting))
	}
	if off := time.Duration(n.Ahead * float64(time.Second)).Round(time.Second); off.Abs() >= clockTolerance {
		notes = append(notes, fmt.Sprintf("its clock is %v off", off))
	}
	return strings.Join(notes, ", ")
}

// clockTolerance is what two clocks may differ by before somebody is told: a heartbeat has its way to go.
const clockTolerance = 5 * time.Second

func (c *commands) fleetJoinCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "join LINE",
		Short: "Join a fleet with the line that its hub printed",
		Long: `Join a fleet with the line that ringwall hub invite printed: try whether the hub lets this node in, write
its secret and the hub's certificate beside the configuration, for the service's user alone, and say what belongs into
the configuration.`,
		Args: takesArgs(1, 1, "the line of ringwall hub invite"),
		RunE: func(cmd *cobra.Command, args []string) error {
			i, err := hub.ParseInvitation(args[0])
			if err != nil {
				return hint.Errorf("ringwall hub invite NODE, at the hub, prints one", "%w", err)
			}
			folder := filepath.Dir(c.config)
			secret, certificate := filepath.Join(folder, "fleet.creds"), filepath.Join(folder, "fleet-hub.pem")
			if err := tryJoin(cmd.Context(), i); err != nil {
				return hint.Errorf("at the hub: does it run, is its port open, and is this the latest line for this "+
					"node?",
					"the hub at %s does not let this node in: %w", printable.String(i.Server), err)
			}
			if err := c.writeForService(secret, []byte(i.Seed+"\n")); err != nil {
				return err
			}
			if err := c.writeForService(certificate, i.CertificatePEM()); err != nil {
				return err
			}
			section := fmt.Sprintf("fleet:\n  servers: [%q]\n  credentials_file: %s\n"+
				"  tls: {ca_file: %s, server_name: %s}\n  name: %s\n  node: %s\n", i.Server, secret, certificate,
				hub.ServerName, i.Fleet, i.Node)
			if c.json {
				return c.writeJSON(map[string]any{"server": i.Server, "fleet": i.Fleet, "node": i.Node,
					"credentials_file": secret, "ca_file": certificate, "configuration": section})
			}
			c.sayf("The hub lets %s in. Put this into %s, then: systemctl reload ringwall", i.Node, c.config)
			_, err = fmt.Fprint(c.out, section)
			return err
		},
	}
}

func (c *commands) fleetForgetCommand() *cobra.Command {
	var everywhere bool
	var credentials string
	cmd := &cobra.Command{
		Use:   "forget NODE",
		Short: "Forget what another node has said",
		Long: `Forget at this node what another one has said so far; what it says from now on is heard. Bans of what
this node saw itself stay. So that all nodes forget it, also those that are away: ringwall hub forget NODE, at the hub;
with NATS servers of your own --everywhere, with the credentials of who may speak as the fleet's operator
(deploy/docs/fleet.md).`,
		Example: "  ringwall fleet forget pbx-berlin\n" +
			"  ringwall fleet forget pbx-berlin --everywhere --credentials operator.creds",
		Args: takesArgs(1, 1, "the name of a node"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if everywhere != (credentials != "") {
				return usageErrorf(usageLine(cmd), "--everywhere and --credentials FILE belong together")
			}
			if everywhere {
				return c.forgetEverywhere(cmd.Context(), args[0], credentials)
			}
			client, err := c.newClient(cmd)
			if err != nil {
				return err
			}
			res, err := client.ForgetNode(cmd.Context(), api.ForgetRequest{Node: args[0]})
			if err != nil {
				return err
			}
			if c.json {
				return c.writeJSON(res)
			}
			c.sayf("Forgotten here: what %s said of %s; %d of them were banned or trusted on its word.",
				printable.String(res.Node), humanize.Plural(res.Prefixes, "address", "addresses"), res.InForce)
			if res.Note != "" {
				c.sayf("%s", toSentence(res.Note))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&everywhere, "everywhere", false, "at all nodes, with NATS servers of your own")
	cmd.Flags().StringVar(&credentials, "credentials", "", "`FILE` with the credentials of the fleet's operator")
	return cmd
}

// forgetEverywhere speaks as the operator of the fleet in the configuration.
func (c *commands) forgetEverywhere(ctx context.Context, node, credentials string) error {
	cfg, _, err := config.Load(c.config, c.Env)
	if err != nil {
		return err
	}
	if !cfg.Fleet.Enabled() {
		return hint.Errorf("fleet in the configuration, as deploy/docs/fleet.md says", "this node is in no fleet")
	}
	f, err := daemon.FleetConfig(cfg.Fleet, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	f.CredentialsFile = credentials
	if err := fleet.ForgetEverywhere(ctx, f, node); err != nil {
		return hint.Errorf("deploy/docs/fleet.md: what the operator must be allowed to do at the servers",
			"what %s said is not void: %w", printable.String(node), err)
	}
	if c.json {
		return c.writeJSON(map[string]any{"node": node, "done": true})
	}
	c.sayf("What %s said is void: nodes that are away forget it once they are back.", node)
	return nil
}

// tryJoin connects to a hub as the node will, and fetches what it has to say. A line that does not work leaves what
// worked before it as it is.
func tryJoin(ctx context.Context, i hub.Invitation) error {
	folder, err := os.MkdirTemp("", "ringwall-join-") // for its owner alone
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	secret := filepath.Join(folder, "fleet.creds")
	if err := os.WriteFile(secret, []byte(i.Seed+"\n"), 0o600); err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(i.CertificatePEM())
	f := fleet.New(fleet.Config{Passive: true, Watch: fleet.WatchOff, Servers: []string{i.Server},
		CredentialsFile: secret, Name: i.Fleet, Node: i.Node,
		TLS: &tls.Config{RootCAs: pool, ServerName: hub.ServerName, MinVersion: tls.VersionTLS12},
		Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	begun, ended := time.Now(), make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case err := <-ended:
			if s := f.Status(); s.Error != "" {
				return errors.New(s.Error)
			}
			if err == nil {
				err = errors.New("no answer")
			}
			return err
		case <-look.C:
			s := f.Status()
			if s.CaughtUp {
				cancel()
				<-ended
				return nil
			}
			if s.Error != "" && time.Since(begun) >= refusedTime {
				cancel()
				<-ended
				return errors.New(s.Error)
			}
		}
	}
}

// writeForService writes a file that only the service's user can read.
func (c *commands) writeForService(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := store.WriteFile(path, data, false); err != nil {
		return err
	}
	if c.Service == nil || filepath.Clean(c.config) != c.ServiceConfig {
		return nil
	}
	u, err := c.Service()
	if err != nil || u == nil {
		return err
	}
	return u.TakeOver(path)
}
