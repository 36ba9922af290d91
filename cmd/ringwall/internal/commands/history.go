package commands

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
	"github.com/ringwall/ringwall/pkg/wording"
)

func (c *commands) historyCommand() *cobra.Command {
	since := &durationFlag{value: day, least: time.Second, most: 10 * 365 * day}
	var follow bool
	cmd := &cobra.Command{
		Use:               "history [ADDR|HOST|EXTENSION]",
		Short:             "Show what was decided, oldest first",
		Args:              takesArgs(0, 1, "one address, host name or extension"),
		ValidArgsFunction: c.completeBans,
		RunE: func(cmd *cobra.Command, args []string) error {
			var about api.Subject
			if len(args) > 0 {
				var err error
				if about, err = api.ParseSubject(args[0]); err != nil {
					return asUsage(err)
				}
			}
			client, err := c.newClient(cmd)
			if err != nil {
				return err
			}
			var of historyFilter
			if len(args) > 0 {
				if of.addrs, of.account, err = c.resolveSubject(cmd.Context(), about); err != nil {
					return err
				}
			}
			from := c.Now().Add(-since.value)
			if follow {
				return c.followDecisions(cmd.Context(), client, from, of)
			}
			var one netip.Addr
			if len(of.addrs) == 1 {
				one = of.addrs[0] // the daemon need not send the rest
			}
			t := &table{header: []string{"TIME", "ACTION", "SOURCE", "FOR", "SCORE", "WHY", "ACCOUNT", "DETAIL",
				"PLACE"},
				rightAligned: map[int]bool{3: true, 4: true}, cutOrder: []int{7, 6}, lastOptional: true}
			review := "" // the latest
			n, err := writeRows(c, t, func(each func(ban.Decision) error) error {
				return client.EachDecision(cmd.Context(), from, one, func(d ban.Decision) error {
					if !one.IsValid() && !of.matches(d) {
						return nil
					}
					if d.Action == ban.ActionReview {
						review = wording.DecisionDetail(d)
					}
					return each(d)
				})
			}, nil, func(d ban.Decision) {
				t.addRow(append(c.decisionCells(d, c.shortTime),
					wording.PlaceText(d.Place))...)
			})
			if err == nil && review != "" && !c.json { // whole, however narrow the table
				c.sayf("")
				c.sayWrappedf("", "%s", toSentence(review))
			}
			if err == nil && n == 0 && !c.json {
				c.sayf("Nothing was decided in the last %s, as far as this daemon remembers.",
					humanize.Duration(since.value))
			}
			return err
		},
	}
	cmd.Flags().Var(since, "since", "how far back")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new decisions as they are made")
	return cmd
}

func (c *commands) followDecisions(ctx context.Context, client *api.Client, from time.Time, of historyFilter) error {
	err := client.Follow(ctx, from, func(d ban.Decision) error {
		switch {
		case !of.matches(d):
			return nil
		case c.json:
			return c.writeJSON(d)
		}
		line := decisionLine(c.decisionCells(d, c.shortTime)...)
		if place := wording.PlaceText(d.Place); place != "" {
			line += printable.Line("  (" + place + ")")
		}
		_, err := fmt.Fprintln(c.out, line)
		return err
	}, func(n int) error {
		if c.json {
			return c.writeJSON(map[string]any{"action": "lost", "lost": n})
		}
		_, err := fmt.Fprintf(c.out, "… %s not shown: this terminal is too slow\n",
			humanize.Plural(n, "decision", "decisions"))
		return err
	})
	if errors.Is(err, context.Canceled) {
		return nil // Ctrl-C is how one ends it
	}
	return err
}

// historyFilter chooses decisions about an account or some addresses; the zero value chooses all.
type historyFilter struct {
	addrs   []netip.Addr
	account string
}

func (c historyFilter) matches(d ban.Decision) bool {
	if c.account != "" {
		return d.Account == c.account
	}
	return len(c.addrs) == 0 || slices.ContainsFunc(c.addrs, func(a netip.Addr) bool { return isAbout(d, a) })
}

func isAbout(d ban.Decision, addr netip.Addr) bool {
	return d.Source == addr || d.Prefix.Contains(addr)
}

// decisionCells are the columns of a decision: time, action, source, duration, score, reason, account, detail.
func (c *commands) decisionCells(d ban.Decision, formatTime func(time.Time) string) []string {
	source, length := humanize.Prefix(d.Prefix), ""
	if source == "" && d.Source.IsValid() {
		source = d.Source.String()
	}
	if d.Flow.IsValid() {
		source = d.Flow.String()
	}
	if d.Duration > 0 {
		length = humanize.Duration(d.Duration)
	}
	return []string{
		formatTime(d.Time), printable.String(string(d.Action)), source, length, humanize.Score(d.Score),
		humanize.Words(d.Reason), printable.String(d.Account), printable.Line(wording.DecisionDetail(d)),
	}
}

// decisionLine writes the columns of decisionCells in one line of fixed widths, for lists that are written as they
// come.
func decisionLine(cells ...string) string {
	line := fmt.Sprintf("%-19s  %-13s  %-18s  %7s  %6s  %-20s  %s  %s", cells[0], cells[1], cells[2], cells[3],
		cells[4],
		cells[5], cells[6], cells[7])
	return printable.Line(strings.TrimRight(line, " "))
}
