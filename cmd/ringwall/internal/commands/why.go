package commands

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/pkg/control"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/printable"
	"github.com/ringwall/ringwall/pkg/wording"
)

func (c *commands) why() *cobra.Command {
	return &cobra.Command{
		Use:               "why ADDR",
		Short:             "Tell why an address is banned or not, and what would change it",
		Args:              takes(1, 1, "one address"),
		ValidArgsFunction: c.completeBans,
		RunE: func(cmd *cobra.Command, args []string) error {
			addr, err := control.ParseAddr(args[0])
			if err != nil {
				return asUsage(err)
			}
			client, err := c.client(cmd)
			if err != nil {
				return err
			}
			ex, err := client.Why(cmd.Context(), addr)
			if err != nil {
				return err
			}
			if c.json {
				return c.object(ex)
			}
			return c.sayWhy(ex)
		},
	}
}

func (c *commands) sayWhy(ex engine.Explanation) error {
	c.sayf("%s", wording.Verdict(ex, c.clock))
	if place := wording.Place(ex.Place); place != "" {
		c.sayf("It is registered in %s.", place)
	}
	if ex.Source != "" && bare(ex.Source) != ex.Address {
		c.sayf("It is judged as a part of %s.", ex.Source)
	}
	if ex.Grace != nil && ex.Grace.After(c.Now()) {
		c.sayf("No automatic ban before %s: somebody gave it grace.", c.clock(*ex.Grace))
	}
	if len(ex.Evidence) > 0 {
		c.sayf("")
		title := "Evidence, oldest first"
		if ex.Lost > 0 {
			title += fmt.Sprintf(" (%s no longer kept)", plural(ex.Lost, "older piece is", "older pieces are"))
		}
		c.sayf("%s:", title)
		if err := c.evidence(ex.Evidence); err != nil {
			return err
		}
	}
	if len(ex.Lines) > 0 {
		c.sayf("")
		for _, line := range ex.Lines {
			c.sayf("- %s", line)
		}
	}
	c.ways(ex)
	return nil
}

func (c *commands) evidence(list []engine.Evidence) error {
	t := table{
		header: []string{"TIME", "EVENT", "BY", "ACCOUNT", "POINTS", "SCORE", "PROVEN", "NOTE"},
		right:  map[int]bool{4: true, 5: true}, flex: []int{7, 3},
	}
	for _, e := range list {
		by, note := wording.Evidence(e)
		t.add(c.clock(e.Time), printable.String(e.Event), by, printable.String(e.Account), number(e.Points), score(e.Score), yes(e.Proven), note)
	}
	return t.write(c.out, c.Columns)
}

// ways are commands that the engine does not name by itself.
func (c *commands) ways(ex engine.Explanation) {
	switch {
	case ex.Verdict == "suspicious":
		c.sayf("")
		c.sayf("To keep it out:  ringwall ban %s", ex.Address)
	case ex.Allow != nil && ex.Allow.Origin == engine.OriginManual:
		c.sayf("")
		c.sayf("To judge it again:  ringwall allow del %s", bare(ex.Allow.Prefix))
	}
}

func sorted(m map[string]int) []string { return slices.Sorted(maps.Keys(m)) }
