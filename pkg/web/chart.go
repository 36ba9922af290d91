package web

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/humanize"
)

// chartsView is the last day, drawn for a wide and for a narrow screen.
type chartsView struct {
	Summary  string // for those who do not see it, and below it
	Quiet    bool   // nothing happened
	Observed bool   // bans would have been made
	Drawn    []chart
}

// chart is one drawing: attempts upwards from the line, bans downwards.
type chart struct {
	Name          string // class, and part of the ids
	Width, Height int
	Left, Right   int // of the plot
	Top, Base     int // of the attempts
	BanTop, Floor int // of the bans
	TextBase      int
	Attempts      string // path
	Bans          string // path
	Lines         []gridLine
	Hours         []hourTick
	BanMost       string
	Unknown       int // width of the time before the daemon's start
	Step          int // minutes that a bar stands for
}

// Tall is the height of the whole plot. The other methods are coordinates of its labels and marks, for the template.
func (c chart) Tall() int          { return c.Floor - c.Top }
func (c chart) Half() int          { return (c.Top + c.Base) / 2 }
func (c chart) UnknownMiddle() int { return c.Left + c.Unknown/2 }
func (c chart) Label() int         { return c.Left - 6 }
func (c chart) BanLabel() int      { return c.Floor - 2 }
func (c chart) TickEnd() int       { return c.Floor + 4 }

type gridLine struct {
	Y     int
	TextY int
	Text  string
}

type hourTick struct {
	X    int
	Text string
}

func (p *Page) viewCharts(s *snapshot) chartsView {
	v := chartsView{Observed: s.status.Mode != "enforce"}
	n, peakAt := viewNumbers(s), 0
	for i, m := range s.activity.Minutes {
		if m.Attempts == n.Peak && n.Peak > 0 {
			peakAt = i
		}
	}
	v.Quiet = n.Day == 0 && n.DayBans == 0
	span := "the last 24 hours"
	if !n.Whole {
		span = "the time since " + p.shortTime(n.Since)
	}
	if v.Quiet {
		v.Summary = "No attack in " + span + "."
	} else {
		bans := pluralThousands(n.DayBans, "ban", "bans")
		if v.Observed {
			bans = pluralThousands(n.DayBans, "ban that would have been made", "bans that would have been made")
		}
		v.Summary = fmt.Sprintf("%s and %s in %s.", pluralThousands(n.Day, "attempt", "attempts"), bans, span)
		if n.Peak > 0 {
			v.Summary += fmt.Sprintf(" The busiest minute was %s, with %s.",
				p.minuteTime(s.activity.Begin.Add(time.Duration(peakAt)*time.Minute)),
				pluralThousands(n.Peak, "attempt", "attempts"))
		}
	}
	v.Drawn = []chart{
		p.drawChart(s, chart{Name: "wide", Width: 760, Height: 236, Left: 44, Right: 756, Top: 14, Base: 160,
			BanTop: 164,
			Floor:  208, Step: 10}, 3),
		p.drawChart(s, chart{Name: "narrow", Width: 340, Height: 226, Left: 36, Right: 338, Top: 14, Base: 150,
			BanTop: 154,
			Floor:  198, Step: 20}, 6),
	}
	return v
}

// drawChart fills in a chart whose sizes are given. A label stands below every hour that is a multiple of hours.
func (p *Page) drawChart(s *snapshot, c chart, hours int) chart {
	minutes := s.activity.Minutes
	bars := len(minutes) / c.Step
	c.TextBase = c.Floor + 18
	if bars == 0 {
		return c
	}
	attempts, bans := make([]int, bars), make([]int, bars) // the busiest minute, and all of them
	mostAttempts, mostBans := 0, 0
	for i := range bars {
		for _, m := range minutes[i*c.Step : (i+1)*c.Step] {
			attempts[i] = max(attempts[i], m.Attempts)
			bans[i] += m.Bans
		}
		mostAttempts, mostBans = max(mostAttempts, attempts[i]), max(mostBans, bans[i])
	}
	top := 0
	if mostAttempts > 0 {
		top = scaleTop(mostAttempts)
	}
	x := func(i int) float64 { return float64(c.Left) + float64(c.Right-c.Left)*float64(i)/float64(bars) }
	var up, down strings.Builder
	for i := range bars {
		left, right := x(i), x(i+1)-0.8
		if h := barHeight(attempts[i], top, c.Base-c.Top); h > 0 {
			fmt.Fprintf(&up, "M%.1f %dV%.1fH%.1fV%dz", left, c.Base, float64(c.Base)-h, right, c.Base)
		}
		if h := barHeight(bans[i], mostBans, c.Floor-c.BanTop); h > 0 {
			fmt.Fprintf(&down, "M%.1f %dV%.1fH%.1fV%dz", left, c.BanTop, float64(c.BanTop)+h, right, c.BanTop)
		}
	}
	c.Attempts, c.Bans = up.String(), down.String()
	levels := []int{top, top / 2, 0}
	for _, n := range slices.Compact(levels) {
		y := c.Base - int(barHeight(n, top, c.Base-c.Top))
		c.Lines = append(c.Lines, gridLine{Y: y, TextY: y + 4, Text: shortNumber(n)})
	}
	if mostBans > 0 {
		c.BanMost = shortNumber(mostBans)
	}
	c.Hours = p.hourTicks(s.activity, c, hours)
	if gone := s.activity.Since.Sub(s.activity.Begin); gone > 0 {
		c.Unknown = int(float64(c.Right-c.Left) * min(1, gone.Minutes()/float64(len(minutes))))
	}
	return c
}

// hourTicks are the round hours of the day.
func (p *Page) hourTicks(a engine.Activity, c chart, hours int) (out []hourTick) {
	begin := a.Begin.In(p.Zone)
	for h := begin.Truncate(time.Minute); h.Before(begin.Add(24 * time.Hour)); h = h.Add(time.Minute) {
		if h.Minute() != 0 || h.Hour()%hours != 0 {
			continue
		}
		at := c.Left + int(float64(c.Right-c.Left)*h.Sub(begin).Minutes()/float64(len(a.Minutes)))
		if at < c.Left+16 || at > c.Right-16 {
			continue
		}
		out = append(out, hourTick{X: at, Text: h.Format("15:04")})
	}
	return out
}

// barHeight is the height of a bar of n, where most is as high as room: at least one unit where n is not 0.
func barHeight(n, most, room int) float64 {
	if n <= 0 || most <= 0 {
		return 0
	}
	return max(1, float64(room)*float64(n)/float64(most))
}

// scaleTop is the top of the scale of a chart: the next of 1, 2, 4, 6, 8, 10, 20, 40, … from n on.
func scaleTop(n int) int {
	if n <= 1 {
		return max(n, 1)
	}
	for unit := 1; ; unit *= 10 {
		for _, m := range []int{2, 4, 6, 8, 10} {
			if n <= m*unit {
				return m * unit
			}
		}
	}
}

// shortNumber writes a large number short: 12k, 3.5M.
func shortNumber(n int) string {
	switch {
	case n >= 10_000_000:
		return fmt.Sprintf("%dM", n/1_000_000)
	case n >= 1_000_000:
		return strings.Replace(fmt.Sprintf("%.1fM", float64(n)/1e6), ".0M", "M", 1)
	case n >= 10_000:
		return fmt.Sprintf("%dk", n/1000)
	case n >= 1_000:
		return strings.Replace(fmt.Sprintf("%.1fk", float64(n)/1e3), ".0k", "k", 1)
	}
	return fmt.Sprint(n)
}

// pluralThousands is [humanize.Plural] with commas in the number.
func pluralThousands(n int, one, many string) string {
	if n == 1 {
		return humanize.Plural(n, one, many)
	}
	return humanize.Thousands(n) + " " + many
}
