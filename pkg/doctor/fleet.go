package doctor

import (
	"context"
	"log/slog"
	"time"

	"github.com/ringwall/ringwall/pkg/daemon"
	"github.com/ringwall/ringwall/pkg/fleet"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
)

const (
	checkFleet       = "fleet"
	checkFleetRead   = "fleet read"
	checkFleetSay    = "fleet say"
	checkFleetAlive  = "fleet alive"
	checkFleetClock  = "fleet clock"
	checkFleetQuorum = "fleet quorum"

	fixFleetPermissions = "let it at the servers: deploy/docs/fleet.md, Your own NATS servers, has what a node must " +
		"be allowed to do"

	fleetClockTolerance = 30 * time.Second
)

// examineFleet proves the way to the other nodes: connects as this one, says something that means nothing, and hears
// it.
func (e *exam) examineFleet(ctx context.Context) {
	cfg := e.cfg.Fleet
	if !e.configLoaded || !cfg.Enabled() {
		return
	}
	s := e.subjectNamed("")
	// Without an Asterisk nobody else tells this machine of attackers.
	broken := s.warn
	if len(e.cfg.Asterisk) == 0 {
		broken = s.fail
	}
	later := []string{checkFleetRead, checkFleetSay, checkFleetAlive, checkFleetClock}
	if cfg.CredentialsFile != "" && e.Service != "" && e.ServiceEnv.Open != nil {
		f, err := e.ServiceEnv.Open(cfg.CredentialsFile)
		if err != nil {
			broken(checkFleet, "chown "+e.Service+" "+cfg.CredentialsFile, "the daemon's user %s cannot read "+
				"fleet.credentials_file: %s", e.Service, errorLine(err))
			s.skipAll("the daemon has no credentials", later...)
			return
		}
		_ = f.Close()
	}
	c, err := daemon.FleetConfig(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		broken(checkFleet, "fleet in "+e.ConfigPath, "%s", errorLine(err))
		s.skipAll("the fleet's configuration is not usable", later...)
		return
	}
	p := fleet.TryLink(ctx, c)
	if p.Connect != nil {
		broken(checkFleet, "does it run, is its port open, are fleet.credentials_file and fleet.tls.ca_file its own? "+
			"ringwall hub invite, there, prints a new line", "no server lets this node in: %s", errorLine(p.Connect))
		s.skipAll("there is no connection", later...)
		return
	}
	s.ok(checkFleet, "%s lets %s in, of the fleet %s", printable.Line(p.Server), c.Node, cfg.Name)
	e.reportFleetSteps(s, broken, &p)
	e.examineQuorum(s)
}

func (e *exam) reportFleetSteps(s subject, broken func(string, string, string, ...any), p *fleet.Probe) {
	if p.Read != nil {
		broken(checkFleetRead, fixFleetPermissions, "what others say cannot be read: %s", errorLine(p.Read))
		s.skipAll("it cannot be read", checkFleetSay, checkFleetAlive, checkFleetClock)
		return
	}
	s.ok(checkFleetRead, "what others say can be read")
	if p.Publish != nil {
		broken(checkFleetSay, fixFleetPermissions, "others do not hear this node: %s", errorLine(p.Publish))
	} else {
		s.ok(checkFleetSay, "what this node says is back within %s", p.RoundTrip.Round(10*time.Microsecond))
	}
	if p.Alive != nil {
		s.warn(checkFleetAlive, fixFleetPermissions, "others do not see that this node is there: %s",
			errorLine(p.Alive))
	} else {
		s.ok(checkFleetAlive, "others see that this node is there")
	}
	switch off := p.Ahead.Round(time.Millisecond); {
	case p.Publish != nil:
		s.skipAll("nothing came back", checkFleetClock)
	case off.Abs() > fleetClockTolerance:
		s.warn(checkFleetClock, "timedatectl set-ntp true, on the machine whose clock is wrong",
			"this clock is %s off the "+
				"server's; what a node says whose clock is 15 minutes ahead is refused", off)
	default:
		s.ok(checkFleetClock, "this clock and the server's differ by %s", off.Abs())
	}
}

// examineQuorum says whether enough nodes are there for what one alone may have been told by a forger.
func (e *exam) examineQuorum(s subject) {
	quorum := e.cfg.Fleet.Quorum
	switch {
	case e.daemon == nil || e.daemon.Fleet == nil:
		s.skipAll("no daemon runs here that knows the other nodes", checkFleetQuorum)
	case !e.daemon.Fleet.CaughtUp:
		s.warn(checkFleetQuorum, "ringwall fleet status", "the daemon does not hear the fleet: %s",
			printable.Line(e.daemon.Fleet.Error))
	default:
		nodes := 1
		for i := range e.daemon.Fleet.Nodes {
			if n := &e.daemon.Fleet.Nodes[i]; n.Name != e.daemon.Fleet.Node && !n.Silent {
				nodes++
			}
		}
		if nodes < quorum {
			s.warn(checkFleetQuorum, "invite more nodes, or lower fleet.quorum", "fleet.quorum is %d, and %s there: "+
				"what was seen over UDP binds nobody else", quorum, humanize.Plural(nodes, "node is", "nodes are"))
			return
		}
		s.ok(checkFleetQuorum, "%d nodes are there, of which %d must have seen what could be forged", nodes, quorum)
	}
}
