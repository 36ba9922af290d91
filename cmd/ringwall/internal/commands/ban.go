package commands

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/service"
)

func (c *commands) banCommand() *cobra.Command {
	length := &durationFlag{least: api.MinDuration, most: api.MaxDuration}
	var reason string
	var force bool
	cmd := &cobra.Command{
		Use:   "ban ADDR|CIDR",
		Short: "Keep an address or a network out",
		Long: `Ban exactly this address or network. When the command returns, the kernel drops its packets. What holds
the address that you are logged in from by SSH is refused.`,
		Example:    "  ringwall ban 203.0.113.5 --for 7d --reason 'called at night'",
		SuggestFor: []string{"banip", "block", "deny"},
		Args:       takesArgs(1, 1, "one address or network"),
		RunE: func(cmd *cobra.Command, args []string) error {
			prefix, err := api.ParsePrefix(args[0])
			if err != nil {
				return asUsage(err)
			}
			client, err := c.newClient(cmd)
			if err != nil {
				return err
			}
			res, err := client.Ban(cmd.Context(), api.BanRequest{
				Prefix: prefix, For: length.value, Reason: reason, Session: c.sshClientAddress(), Force: force,
			})
			if err != nil {
				return err
			}
			if c.json {
				return c.writeJSON(res)
			}
			c.sayBan(res)
			return nil
		},
	}
	cmd.Flags().Var(length, "for", "how long, such as 90s, 1h, 7d (default: policy.ban.first)")
	cmd.Flags().StringVar(&reason, "reason", "", "`TEXT` that list and why show")
	cmd.Flags().BoolVar(&force, "force", false, "also where it holds the address that you are logged in from")
	return cmd
}

// sshClientAddress is the address that the person at the terminal is logged in from by SSH; not valid where it is not
// by SSH.
func (c *commands) sshClientAddress() netip.Addr {
	a, _ := service.SSHClient(c.envVariable, "/proc")
	return a
}

func (c *commands) sayBan(res api.BanResult) {
	name := humanize.Prefix(res.Prefix)
	how := "is banned"
	if res.Renewed {
		how = "was banned already, and is now"
	}
	if !res.Enforced {
		how = "would be banned"
	}
	c.sayf("%s %s until %s (%s).", name, how, c.shortTime(res.Until),
		humanize.Duration(humanize.FromSeconds(res.Duration).Round(time.Second)))
	if res.Note != "" {
		c.sayf("%s", toSentence(res.Note))
	}
	if !res.Enforced {
		c.sayf("Its packets still pass: ringwall status says why.")
	}
	if res.Source.IsValid() && res.Source != res.Prefix {
		c.sayf("Ringwall judges %s as one source; only what you named is banned. For all of it: ringwall ban %s",
			res.Source, res.Source)
	}
}

// joinPrefixes lists prefixes, single addresses without their length.
func joinPrefixes(prefixes []netip.Prefix) string {
	out := make([]string, len(prefixes))
	for i, p := range prefixes {
		out[i] = humanize.Prefix(p)
	}
	return strings.Join(out, ", ")
}

// toStrings returns the text of each value.
func toStrings[T fmt.Stringer](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = v.String()
	}
	return out
}
