package commands

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/wording"
)

func (c *commands) unbanCommand() *cobra.Command {
	grace := &durationFlag{most: api.MaxDuration}
	var all, inFleet, here bool
	cmd := &cobra.Command{
		Use:   "unban ADDR|CIDR | udp|tcp ADDR:PORT | --all",
		Short: "Let an address or a network in again",
		Long: `Lift the ban of an address, or of a network and everything in it, and all that is cut or slow there. When
the command returns, packets pass. With --grace no automatic ban follows for that time: enough to correct the password
of a phone. With udp or tcp and a port it lets one sender go on that is cut or slow, as ringwall list restricted shows
it.

In a fleet all nodes let it in, unless fleet.unban says otherwise; --here lets it in at this node alone. --all is for
this node, and with --fleet it lifts at all nodes what is banned at this one.`,
		Example: "  ringwall unban 198.51.100.7 --grace 1h\n  ringwall unban tcp 198.51.100.7:5062\n" +
			"  ringwall unban 198.51.100.7 --here",
		SuggestFor:        []string{"unbanip", "unblock"},
		Args:              takesArgs(0, 2, "one address or network"),
		ValidArgsFunction: c.completeBans,
		RunE: func(cmd *cobra.Command, args []string) error {
			req := api.UnbanRequest{All: all, Grace: grace.value, Fleet: inFleet, Here: here}
			switch {
			case inFleet && here:
				return usageErrorf(usageLine(cmd), "--fleet and --here are both given")
			case all && len(args) > 0:
				return usageErrorf(usageLine(cmd), "an address and --all are both given")
			case !all && len(args) == 0:
				return usageErrorf(usageLine(cmd), "%s needs an address, a network or --all", cmd.CommandPath())
			case len(args) == 2 || len(args) == 1 && strings.Contains(args[0], " "):
				var err error
				if req.Flow, err = api.ParseFlow(strings.Join(args, " ")); err != nil {
					return asUsage(err)
				}
				if grace.value > 0 {
					return usageErrorf(usageLine(cmd), "--grace is for an address, not for a sender")
				}
				if inFleet || here {
					return usageErrorf(usageLine(cmd), "--fleet and --here are for an address, not for a sender")
				}
			case !all:
				var err error
				if req.Prefix, err = api.ParsePrefix(args[0]); err != nil {
					return asUsage(err)
				}
			}
			client, err := c.newClient(cmd)
			if err != nil {
				return err
			}
			res, err := client.Unban(cmd.Context(), req)
			if err != nil {
				return err
			}
			if c.json {
				return c.writeJSON(res)
			}
			c.sayUnban(res)
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every ban")
	cmd.Flags().Var(grace, "grace", "no new automatic ban for so long, such as 1h")
	cmd.Flags().BoolVar(&inFleet, "fleet", false, "at all nodes of the fleet")
	cmd.Flags().BoolVar(&here, "here", false, "at this node of the fleet alone")
	return cmd
}

func (c *commands) sayUnban(res api.UnbanResult) {
	switch {
	case res.Count == 0 && res.RestrictionCount > 0: // nobody was banned
	case res.Count == 0:
		c.sayf("No ban was lifted.")
	case len(res.Removed) == res.Count && res.Count <= 5:
		c.sayf("Unbanned: %s.", joinPrefixes(res.Removed))
	default:
		c.sayf("%s lifted.", humanize.Plural(res.Count, "ban", "bans"))
	}
	if res.RestrictionCount > 5 {
		c.sayf("%s cut or slow no longer.", humanize.Plural(res.RestrictionCount, "sender is", "senders are"))
	} else {
		for _, r := range res.Restrictions {
			c.sayf("No longer restricted: %s (%s).", wording.RestrictedWho(r), wording.RestrictionKind(r))
		}
	}
	if res.Grace != nil {
		c.sayf("No automatic ban before %s.", c.shortTime(*res.Grace))
	}
	if res.Note != "" {
		c.sayf("%s", toSentence(res.Note))
	}
	c.sayReach(res)
}

// sayReach says on whose word it was banned, and where it is let in.
func (c *commands) sayReach(res api.UnbanResult) {
	if len(res.Origins) > 0 {
		c.sayWrappedf("", "Another node of the fleet had seen it: %s.", humanize.Names(res.Origins, 8))
	}
	switch res.Reach {
	case api.ReachFleet:
		c.sayf("All nodes of the fleet let it in.")
	case api.ReachHere:
		c.sayf("This node alone lets it in. At all nodes of the fleet: --fleet.")
	}
	if res.FleetNote != "" {
		c.sayWrappedf("", "%s", toSentence(res.FleetNote))
	}
}

// completeBans offers the active bans to the shell.
func (c *commands) completeBans(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	client, err := c.newClient(cmd)
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	client.Timeout = completionTimeout
	var out []string
	enough := errors.New("enough")
	err = client.EachBan(cmd.Context(), api.BanFilter{}, func(b ban.Ban) error {
		if out = append(out, humanize.Prefix(b.Prefix)); len(out) == maxCompletions {
			return enough
		}
		return nil
	})
	if err != nil && !errors.Is(err, enough) {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// maxCompletions is how many bans the shell is offered, the newest: a shell asks before it shows a hundred.
const maxCompletions = 500
