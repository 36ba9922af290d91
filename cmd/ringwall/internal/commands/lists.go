package commands

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/lists"
	"github.com/ringwall/ringwall/pkg/printable"
	"github.com/ringwall/ringwall/pkg/wording"
)

func (c *commands) listsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lists",
		Short: "Show the lists of known attackers (lists in the configuration)",
		Args:  noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := c.askStatus(cmd)
			if err != nil {
				return err
			}
			if c.json {
				for _, l := range st.Lists {
					if err := c.writeJSON(l); err != nil {
						return err
					}
				}
				return nil
			}
			return c.sayLists(st.Lists)
		},
		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(c.listsRefreshCommand(), c.listsTestCommand())
	return cmd
}

func (c *commands) listsRefreshCommand() *cobra.Command {
	accept := false
	cmd := &cobra.Command{
		Use:   "refresh NAME",
		Short: "Fetch a list now",
		Long: `Fetch a list now. When the command returns, the list is in force. One that shrank to half or grew to
twice its size is held back, and the one before stays, unless --accept says that it is right.`,
		SuggestFor: []string{"update", "reload", "fetch"},
		Args:       takesArgs(1, 1, "the name of a list"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.newClient(cmd)
			if err != nil {
				return err
			}
			l, err := client.RefreshList(cmd.Context(), api.ListRefreshRequest{Name: args[0], Accept: accept})
			if err != nil {
				return err
			}
			if c.json {
				return c.writeJSON(l)
			}
			c.sayf("The list %s is in force with %s.", printable.String(l.Name),
				humanize.Plural(l.Entries, "entry", "entries"))
			return nil
		},
	}
	cmd.Flags().BoolVar(&accept, "accept", false, "take it though it shrank or grew by more than a list does")
	return cmd
}

func (c *commands) listsTestCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "test ADDR",
		Short: "Say which lists name an address, and what follows from it",
		Args:  takesArgs(1, 1, "one address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			addr, err := api.ParseAddr(args[0])
			if err != nil {
				return asUsage(err)
			}
			client, err := c.newClient(cmd)
			if err != nil {
				return err
			}
			ex, err := client.Why(cmd.Context(), addr)
			if err != nil {
				return err
			}
			if c.json {
				return c.writeJSON(struct {
					Address netip.Addr `json:"address"`
					Verdict string     `json:"verdict"`
					Listed  any        `json:"listed"`
				}{addr, ex.Verdict, append(ex.Listed[:0:0], ex.Listed...)})
			}
			if len(ex.Listed) == 0 {
				c.sayf("No list names %s.", addr)
				return nil
			}
			c.sayf("%s", wording.VerdictSentence(ex, c.shortTime))
			for _, line := range ex.Lines {
				if strings.HasPrefix(line, "the list ") {
					c.sayWrappedf("  ", "- %s", line)
				}
			}
			return nil
		},
	}
}

func (c *commands) sayLists(all []api.ListStatus) error {
	if len(all) == 0 {
		c.sayWrappedf("", "There are no lists. To keep known attackers out from their first packet on, see lists in "+
			"%s, and deploy/docs/lists.md.", c.config)
		return nil
	}
	t := table{header: []string{"LIST", "MODE", "ENTRIES", "PACKETS", "FETCHED", "NOTE"},
		rightAligned: map[int]bool{2: true, 3: true}, cutOrder: []int{5}}
	for _, l := range all {
		fetched := "never"
		if l.Fetched != nil {
			fetched = c.shortTime(*l.Fetched)
		}
		t.addRow(printable.String(l.Name), printable.String(l.Mode), strconv.Itoa(l.Entries),
			strconv.FormatUint(l.Packets, 10), fetched, listNote(l))
	}
	if err := t.flushTo(c.out, c.Columns); err != nil {
		return err
	}
	for _, l := range all {
		c.sayListDetails(l)
	}
	c.sayf("")
	c.sayf("Times are %s. Packets: dropped, or only counted (observe), since the table was made.", c.zoneName())
	return nil
}

// listNote is what is to be known first.
func listNote(l api.ListStatus) string {
	switch {
	case l.Over:
		return "NO LONGER COUNTS, see below"
	case l.Held:
		return "HELD BACK, see below"
	case l.Error != "":
		return "NOT FETCHED, see below"
	case l.Stale:
		return "OLD"
	}
	var notes []string
	for _, why := range slices.Sorted(maps.Keys(l.LeftOut)) {
		notes = append(notes, fmt.Sprintf("%d %s", l.LeftOut[why], why))
	}
	if len(notes) == 0 {
		return ""
	}
	return "left out: " + strings.Join(notes, ", ")
}

func (c *commands) sayListDetails(l api.ListStatus) {
	name := printable.String(l.Name)
	if l.Error != "" {
		c.sayf("")
		at := ""
		if l.Tried != nil {
			at = " at " + c.shortTime(*l.Tried)
		}
		c.sayWrappedf("  ", "%s: the last try%s failed: %s", name, at, l.Error)
		if l.Entries > 0 && !l.Over {
			c.sayWrappedf("  ", "  The last good list stays in force.")
		}
		if l.Try != "" {
			c.sayWrappedf("  ", "  Try: %s", l.Try)
		}
	}
	for i, o := range l.Omissions {
		if i == 0 {
			c.sayf("")
			c.sayf("%s leaves out, among others:", name)
		}
		of := ""
		if o.Of != "" {
			of = ": " + printable.String(o.Of)
		}
		c.sayWrappedf("    ", "  %s (%s%s)", humanize.Prefix(o.Prefix), words(o.Why), of)
	}
	if l.Bad > 0 {
		c.sayWrappedf("  ", "%s: %s no address, the first: %s", name,
			humanize.Plural(l.Bad, "line names", "lines name"),
			printable.Quote(l.BadSample))
	}
	if len(l.Customers) > 0 {
		c.sayWrappedf("  ", "%s names customers, who logged in and are let in: %s", name,
			humanize.Names(toStrings(l.Customers), 8))
	}
	if l.Credit != "" {
		c.sayWrappedf("  ", "%s: %s", name, printable.String(l.Credit))
	}
}

func words(why lists.Why) string { return humanize.Words(string(why)) }
