package wording

import (
	"fmt"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/humanize"
)

// RestrictedWho names of whom something is cut or slow.
func RestrictedWho(r ban.Restriction) string {
	if r.Flow.IsValid() {
		return r.Flow.String()
	}
	return humanize.Prefix(r.Prefix)
}

// RestrictionKind is a restriction in a word or two.
func RestrictionKind(r ban.Restriction) string {
	switch r.Kind {
	case ban.RestrictionCut:
		return "cut"
	case ban.RestrictionTrickle:
		return "UDP without login"
	}
	return "slow lane"
}

// Passes is what gets through a restriction: "4 packets a minute".
func Passes(r ban.Restriction) string {
	if r.Packets == 0 {
		return "nothing"
	}
	text := humanize.Plural(r.Packets, "packet", "packets") + " "
	switch every := humanize.FromSeconds(r.Every); every {
	case time.Second:
		text += "a second"
	case time.Minute:
		text += "a minute"
	default:
		text += "each " + humanize.Duration(every)
	}
	if r.Kind == ban.RestrictionTrickle {
		text += " from each port"
	}
	return text
}

// RestrictionSentence says what is cut or slow. The function clock writes a time for the reader.
func RestrictionSentence(r ban.Restriction, clock func(time.Time) string) string {
	who, until := RestrictedWho(r), clock(r.Until)
	switch {
	case r.Kind == ban.RestrictionCut:
		return fmt.Sprintf("Cut: nothing from %s passes until %s; the others there go on.", who, until)
	case r.Kind == ban.RestrictionTrickle:
		return fmt.Sprintf("Slow over UDP until %s: of whoever has not logged in from there, %s; phones that have "+
			"go on.",
			until, passing(r))
	case r.Flow.IsValid():
		return fmt.Sprintf("In the slow lane until %s: of %s, %s; the others there go on.", until, who, passing(r))
	}
	return fmt.Sprintf("In the slow lane until %s: %s over UDP, and as many connections over TCP; a login ends it, "+
		"and phones that have logged in go on.", until, passing(r))
}

func passing(r ban.Restriction) string {
	if r.Packets == 1 {
		return Passes(r) + " passes"
	}
	return Passes(r) + " pass"
}

// GoodFlowsSentence names the senders of an address that pass whatever is banned; empty where there are none.
func GoodFlowsSentence(ex engine.Explanation) string {
	if len(ex.GoodFlows) == 0 {
		return ""
	}
	const most = 5
	var names []string
	for _, f := range ex.GoodFlows[:min(most, len(ex.GoodFlows))] {
		names = append(names, f.Flow.String())
	}
	list := strings.Join(names, ", ")
	if more := ex.AllGoodFlows - len(names); more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("Whoever logged in from there passes, whatever is banned but by hand: %s.", list)
}
