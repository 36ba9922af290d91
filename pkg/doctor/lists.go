package doctor

import (
	"context"
	"time"

	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
)

const checkLists = "lists"

// examineLists says how the lists of attackers are.
func (e *exam) examineLists(context.Context) {
	if !e.configLoaded || len(e.cfg.Lists) == 0 {
		return
	}
	s := e.subjectNamed("")
	if e.daemon == nil {
		s.skipAll("no daemon runs here", checkLists)
		return
	}
	for _, l := range e.daemon.Lists {
		name := printable.String(l.Name)
		switch {
		case l.Held, l.Over, l.Stale, l.Error != "":
			try := l.Try
			if try == "" {
				try = "ringwall lists"
			}
			s.warn(checkLists, try, "%s, with %s, is not as new as it should be: %s", name,
				humanize.Plural(l.Entries, "entry", "entries"), printable.Line(l.Error))
		case l.Fetched == nil:
			s.warn(checkLists, "ringwall lists, in a minute", "%s was not fetched yet", name)
		default:
			s.ok(checkLists, "%s has %s, fetched %s ago, and met %s", name,
				humanize.Plural(l.Entries, "entry", "entries"),
				humanize.Duration(time.Since(*l.Fetched)), humanize.Plural(int(l.Packets), "packet", "packets"))
		}
		for _, a := range l.Customers {
			s.warn(checkLists, "ringwall allow add "+a.String(), "%s names %s, from where somebody logged in", name, a)
		}
	}
}
