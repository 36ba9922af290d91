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

func (c *commands) history() *cobra.Command {
	since := &durationFlag{value: day, least: time.Second, most: 10 * 365 * day}
	var follow bool
	cmd := &cobra.Command{
		Use:               "history [ADDR|HOST|EXTENSION]",
		Short:             "Show what was decided, oldest first",
		Args:              takes(0, 1, "one address, host name or extension"),
		ValidArgsFunction: c.completeBans,
		RunE: func(cmd *cobra.Command, args []string) error {
			var about api.Subject
			if len(args) > 0 {
				var err error
				if about, err = api.ParseSubject(args[0]); err != nil {
					return asUsage(err)
				}
			}
			client, err := c.client(cmd)
			if err != nil {
				return err
			}
			var of concern
			if len(args) > 0 {
				if of.addrs, of.account, err = c.look(cmd.Context(), about); err != nil {
					return err
				}
			}
			from := c.Now().Add(-since.value)
			if follow {
				return c.follow(cmd.Context(), client, from, of)
			}
			var one netip.Addr
			if len(of.addrs) == 1 {
				one = of.addrs[0] // the daemon need not send the rest
			}
			t := &table{header: []string{"TIME", "ACTION", "SOURCE", "FOR", "SCORE", "WHY", "ACCOUNT", "DETAIL",
				"PLACE"},
				right: map[int]bool{3: true, 4: true}, flex: []int{7, 6}, spare: true}
			n, err := rows(c, t, func(each func(ban.Decision) error) error {
				return client.EachDecision(cmd.Context(), from, one, func(d ban.Decision) error {
					if !one.IsValid() && !of.meets(d) {
						return nil
					}
					return each(d)
				})
			}, nil, func(d ban.Decision) { t.add(append(c.decision(d), wording.Place(d.Place))...) })
			if err == nil && n == 0 && !c.json {
				c.sayf("Nothing was decided in the last %s, as far as this daemon remembers.", short(since.value))
			}
			return err
		},
	}
	cmd.Flags().Var(since, "since", "how far back")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new decisions as they are made")
	return cmd
}

func (c *commands) follow(ctx context.Context, client *api.Client, from time.Time, of concern) error {
	err := client.Follow(ctx, from, func(d ban.Decision) error {
		switch {
		case !of.meets(d):
			return nil
		case c.json:
			return c.object(d)
		}
		row := c.decision(d)
		line := fmt.Sprintf("%-19s  %-13s  %-18s  %7s  %6s  %-20s  %s  %s", row[0], row[1], row[2], row[3], row[4],
			row[5], row[6], row[7])
		if place := wording.Place(d.Place); place != "" {
			line = strings.TrimRight(line, " ") + "  (" + place + ")"
		}
		_, err := fmt.Fprintln(c.out, printable.Line(strings.TrimRight(line, " ")))
		return err
	}, func(n int) error {
		if c.json {
			return c.object(map[string]any{"action": "lost", "lost": n})
		}
		_, err := fmt.Fprintf(c.out, "… %s not shown: this terminal is too slow\n", plural(n, "decision", "decisions"))
		return err
	})
	if errors.Is(err, context.Canceled) {
		return nil // Ctrl-C is how one ends it
	}
	return err
}

// concern is what history is asked about; the zero value is everything.
type concern struct {
	addrs   []netip.Addr
	account string
}

func (c concern) meets(d ban.Decision) bool {
	if c.account != "" {
		return d.Account == c.account
	}
	return len(c.addrs) == 0 || slices.ContainsFunc(c.addrs, func(a netip.Addr) bool { return concerns(d, a) })
}

func concerns(d ban.Decision, addr netip.Addr) bool {
	return d.Source == addr || d.Prefix.Contains(addr)
}

func (c *commands) decision(d ban.Decision) []string {
	source, length := humanize.Prefix(d.Prefix), ""
	if source == "" && d.Source.IsValid() {
		source = d.Source.String()
	}
	if d.Duration > 0 {
		length = short(d.Duration)
	}
	return []string{
		c.clock(d.Time), printable.String(string(d.Action)), source, length, score(d.Score), words(d.Reason),
		printable.String(d.Account), printable.Line(d.Detail),
	}
}
