package doctor

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/pkg/printable"
)

// A Printer writes checks for people, one after the other as they come.
type Printer struct {
	W       io.Writer
	UTF8    bool // the terminal or file shows ✔; else ASCII
	Colour  bool
	Columns int // of the terminal, to break lines at; 0: no breaks
}

// nameWidth is the column of names. A longer one pushes its own line.
const nameWidth = 14

// Print writes one check.
func (p Printer) Print(c Check) {
	name := c.Name
	if c.About != "" {
		name = c.About + " " + name
	}
	name = p.asShown(printable.Line(name))
	first := p.markOf(c.Result) + " " + name + strings.Repeat(" ", max(0, nameWidth-printable.Width(name))) + "  "
	indent := strings.Repeat(" ", 2+nameWidth+2)
	room := 0
	if p.Columns >= 60 {
		room = p.Columns - len(indent)
	}
	lines := printable.Wrap(printable.Line(c.Detail), room, max(0, printable.Width(name)-nameWidth))
	if c.Fix != "" && c.Result != OK {
		fix := strings.Split(c.Fix, "\n")
		for i, line := range fix {
			lead := "     "
			if i == 0 {
				lead = "Try: "
			}
			for _, piece := range printable.Wrap(printable.Line(line), max(0, room-len(lead)), 0) {
				lines = append(lines, lead+piece)
				lead = "     "
			}
		}
	}
	for i, line := range lines {
		if i == 0 {
			fmt.Fprintln(p.W, first+p.asShown(line))
			continue
		}
		fmt.Fprintln(p.W, indent+p.asShown(line))
	}
}

// PrintSummary writes the last line.
func (p Printer) PrintSummary(list []Check) {
	n := map[Result]int{}
	for _, c := range list {
		n[c.Result]++
	}
	fmt.Fprintln(p.W)
	count := func(r Result, word string) string { return fmt.Sprintf("%d %s", n[r], word) }
	text := strings.Join([]string{count(OK, "ok"), count(Warn, "to look at"), count(Fail, "failed"),
		count(Skip, "not tried")}, ", ")
	switch {
	case n[Fail] > 0:
		fmt.Fprintf(p.W, "%s Not ready: %s.\n", p.markOf(Fail), text)
	case !banProven(list):
		fmt.Fprintf(p.W, "%s Nothing failed, but no ban was tried, so it is not known to work: %s.\n", p.markOf(Warn),
			text)
	case onlyObserves(list):
		fmt.Fprintf(p.W, "%s It watches, and bans nobody: %s.\n", p.markOf(Warn), text)
	case n[Warn] > 0:
		fmt.Fprintf(p.W, "%s It works: %s.\n", p.markOf(Warn), text)
	default:
		fmt.Fprintf(p.W, "%s All is well: %s.\n", p.markOf(OK), text)
	}
}

// banProven says whether a daemon runs and a ban was seen in the kernel. Only then may anything be called working: each
// check is about a link, and a chain of good links that nobody pulled at is a hope.
func banProven(list []Check) bool {
	return slices.ContainsFunc(list, func(c Check) bool { return c.Name == "daemon" && c.Result == OK }) &&
		(onlyObserves(list) || slices.ContainsFunc(list,
			func(c Check) bool { return c.Name == checkElement && c.Result == OK }))
}

// onlyObserves says whether nobody is banned because somebody wants it so.
func onlyObserves(list []Check) bool {
	return slices.ContainsFunc(list, func(c Check) bool { return c.Name == "mode" && c.Result == Warn })
}

func (p Printer) markOf(r Result) string {
	mark, colour := "-", "2"
	switch r {
	case OK:
		mark, colour = "✔", "32"
	case Warn:
		mark, colour = "!", "33"
	case Fail:
		mark, colour = "✘", "31"
	}
	if !p.UTF8 {
		mark = map[string]string{"✔": "+", "✘": "X"}[mark] + strings.Trim(mark, "✔✘")
	}
	if p.Colour {
		mark = "\x1b[" + colour + "m" + mark + "\x1b[0m"
	}
	return mark
}

// asShown turns what ASCII cannot show into a question mark where it must.
func (p Printer) asShown(s string) string {
	if p.UTF8 {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '…':
			return '~'
		case r > 126:
			return '?'
		}
		return r
	}, s)
}
