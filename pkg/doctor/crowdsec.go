package doctor

import (
	"context"

	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
)

const checkCrowdSec = "crowdsec"

// examineCrowdSec says whether the LAPI is told of bans.
func (e *exam) examineCrowdSec(context.Context) {
	if !e.configLoaded || e.cfg.CrowdSec.CredentialsFile == "" {
		return
	}
	s := e.subjectNamed("")
	if e.daemon == nil {
		s.skipAll("no daemon runs here", checkCrowdSec)
		return
	}
	bans := func(n int) string { return humanize.Plural(n, "ban", "bans") }
	switch c := e.daemon.CrowdSec; {
	case c == nil:
		s.warn(checkCrowdSec, "systemctl reload ringwall", "the daemon tells no LAPI")
	case c.Error != "":
		try := c.Try
		if try == "" {
			try = "on the LAPI's machine: cscli lapi status"
		}
		s.warn(checkCrowdSec, try, "%s is not told, %s wait: %s", printable.String(c.URL), bans(c.Waiting),
			printable.Line(c.Error))
	case c.LastSuccess == nil:
		s.warn(checkCrowdSec, "ringwall doctor, in a minute", "%s was not told yet", printable.String(c.URL))
	case c.LeftOut > 0:
		s.warn(checkCrowdSec, "ringwall list bans; a LAPI keeps no more alerts", "%s has %s, and no room for %s more",
			printable.String(c.URL), bans(c.Told), bans(c.LeftOut))
	default:
		lists := "its allow lists name " + humanize.Plural(c.Allowed, "address or network", "addresses and networks")
		if !c.AllowLists {
			lists = "it has no allow lists (CrowdSec has since 1.6.8)"
		}
		s.ok(checkCrowdSec, "%s has %s of ours, %s", printable.String(c.URL), bans(c.Told), lists)
	}
}
