package commands

import (
	"cmp"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
)

func (c *commands) allowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:        "allow",
		Short:      "Name addresses, networks and hosts that are never banned",
		SuggestFor: []string{"addignoreip", "ignoreip", "whitelist"},
		Args:       noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageErrorf("ringwall allow list", "ringwall allow needs add, del or list")
		},
		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(
		c.allowChangeCommand("add", "Never ban it, and end its ban", false, "whitelist"),
		c.allowChangeCommand("del", "Judge it like everybody else", true, "delete", "remove", "rm"),
		&cobra.Command{
			Use:   "list",
			Short: "List the allow list",
			Args:  takesArgs(0, 0, ""),
			RunE: func(cmd *cobra.Command, _ []string) error {
				client, err := c.newClient(cmd)
				if err != nil {
					return err
				}
				return c.listAllow(cmd, client)
			},
		},
	)
	return cmd
}

func (c *commands) allowChangeCommand(verb, about string, remove bool, suggest ...string) *cobra.Command {
	length := &durationFlag{least: api.MinDuration, most: api.MaxDuration}
	cmd := &cobra.Command{
		Use:        verb + " ADDR|CIDR|HOST",
		Short:      about,
		Long:       about + ". When the command returns, the kernel has the change.",
		SuggestFor: suggest,
		Args:       takesArgs(1, 1, "one address, network or host name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := api.AllowRequest{Remove: remove, For: length.value}
			var err error
			if req.Prefix, req.Host, err = api.ParseTarget(args[0]); err != nil {
				return asUsage(err)
			}
			if req.Host != "" && req.For > 0 {
				return usageErrorf(
					"allow its addresses, or leave --for out and later say: ringwall allow del "+req.Host,
					"--for is for addresses and networks, and %q is a host name", req.Host)
			}
			client, err := c.newClient(cmd)
			if err != nil {
				return err
			}
			res, err := client.Allow(cmd.Context(), req)
			if err != nil {
				return err
			}
			if c.json {
				return c.writeJSON(res)
			}
			c.sayAllow(cmp.Or(printable.String(req.Host), humanize.Prefix(req.Prefix)), res, remove)
			return nil
		},
	}
	if !remove {
		cmd.Example = "  ringwall allow add 203.0.113.5 --for 7d"
		cmd.Flags().Var(length, "for", "how long, such as 1h, 24h, 7d (default: until ringwall allow del)")
	}
	return cmd
}

func (c *commands) sayAllow(name string, res api.AllowResult, remove bool) {
	switch {
	case res.Added && res.Until != nil:
		c.sayf("%s is allowed until %s: until then it is never banned.", name, c.shortTime(*res.Until))
	case res.Added:
		c.sayf("%s is allowed: it is never banned.", name)
	case res.Removed:
		c.sayf("%s is no longer allowed.", name)
	case remove:
		c.sayf("%s was not on the allow list.", name)
	case res.Until != nil:
		c.sayf("%s was allowed already, and now is until %s.", name, c.shortTime(*res.Until))
	default:
		c.sayf("%s was allowed already.", name)
	}
	if len(res.Addresses) > 0 {
		c.sayf("It stands for %s now, and is looked up again and again.", humanize.Names(toStrings(res.Addresses), 8))
	}
	if len(res.Unbanned) > 0 {
		c.sayf("Unbanned: %s.", joinPrefixes(res.Unbanned))
	}
	if res.Added && !res.Lasting {
		c.sayf("This lasts until ringwall restarts. For good, add it to policy.allow in %s.", c.config)
	}
	if res.Note != "" {
		c.sayf("%s", toSentence(res.Note))
	}
	if res.Added {
		c.sayf("To take it back: ringwall allow del %s", name)
	}
}
