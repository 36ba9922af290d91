package commands

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/pkg/control"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/printable"
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
	c.sayf("%s", c.verdict(ex))
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

// verdict is the answer in one sentence.
func (c *commands) verdict(ex engine.Explanation) string {
	score := fmt.Sprintf("its score is %s of %s points", number(ex.Score), number(ex.Threshold))
	switch {
	case ex.Ban != nil && ex.Verdict == "banned":
		return fmt.Sprintf("%s is banned%s until %s, for another %s: %s.", ex.Address, together(ex), c.clock(ex.Ban.Until), short(seconds(ex.Ban.Left)), cause(ex.Ban))
	case ex.Ban != nil:
		return fmt.Sprintf("%s would be banned until %s, but Ringwall only observes: %s.", ex.Address, c.clock(ex.Ban.Until), cause(ex.Ban))
	case ex.Trust != nil && ex.Verdict == "trusted":
		return fmt.Sprintf("%s is not banned, and trusted until %s: %s logged in from there with the right password.",
			ex.Address, c.clock(ex.Trust.Until), cmp.Or(names(ex.Trust.Accounts, 5), "a user"))
	case ex.Verdict == "allowed":
		return fmt.Sprintf("%s is never banned: it is on the allow list%s.", ex.Address, entry(ex.Allow))
	case ex.Verdict == "protected":
		return fmt.Sprintf("%s is never banned: Asterisk knows it%s.", ex.Address, entry(ex.Allow))
	case ex.Verdict == "unknown":
		return fmt.Sprintf("%s is not banned: Ringwall has seen nothing from it.", ex.Address)
	}
	return fmt.Sprintf("%s is not banned: %s.", ex.Address, score)
}

// together names the network where more than the source itself is banned.
func together(ex engine.Explanation) string {
	if ex.Ban.Prefix == ex.Source || bare(ex.Ban.Prefix) == ex.Address {
		return ""
	}
	return " with all of " + ex.Ban.Prefix
}

func cause(b *engine.BanView) string {
	if b.Manual {
		if b.Comment != "" {
			return "by hand, \"" + printable.Limit(b.Comment, control.MaxReason) + "\""
		}
		return "by hand"
	}
	s := words(b.Reason) + ", " + plural(b.Attempts, "attempt", "attempts")
	if n := len(b.Accounts); n > 0 {
		s += " on " + plural(n, "account", "accounts") + " (" + names(b.Accounts, 5) + ")"
	}
	return s
}

func entry(v *engine.AllowView) string {
	if v == nil {
		return ""
	}
	s := " (" + v.Prefix + ", from " + printable.String(v.Origin)
	if v.Note != "" {
		s += ": " + printable.Line(v.Note)
	}
	return s + ")"
}

func (c *commands) evidence(list []engine.Evidence) error {
	t := table{
		header: []string{"TIME", "EVENT", "BY", "ACCOUNT", "POINTS", "SCORE", "PROVEN", "NOTE"},
		right:  map[int]bool{4: true, 5: true}, flex: []int{7, 3},
	}
	for _, e := range list {
		by := printable.String(e.Service)
		if e.Transport != "" {
			by += "/" + printable.String(e.Transport)
		}
		note := e.Note
		if note == "" {
			note = words(e.Reason)
		}
		t.add(c.clock(e.Time), printable.String(e.Event), by, printable.String(e.Account), number(e.Points), number(e.Score), yes(e.Proven), printable.Line(note))
	}
	return t.write(c.out, c.Columns)
}

// ways are commands that the engine does not name by itself.
func (c *commands) ways(ex engine.Explanation) {
	switch {
	case ex.Verdict == "suspicious":
		c.sayf("")
		c.sayf("To keep it out:  ringwall ban %s", ex.Address)
	case ex.Allow != nil && ex.Allow.Origin == "manual":
		c.sayf("")
		c.sayf("To judge it again:  ringwall allow del %s", bare(ex.Allow.Prefix))
	}
}

func sorted(m map[string]int) []string { return slices.Sorted(maps.Keys(m)) }
