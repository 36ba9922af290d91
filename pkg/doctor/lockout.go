package doctor

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/hosts"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
	"github.com/ringwall/ringwall/pkg/service"
)

// listOwnPrefixes lists this machine's addresses, which other checks need.
func (e *exam) listOwnPrefixes(context.Context) {
	own, err := hosts.OwnPrefixes()
	if err != nil {
		e.subjectNamed("").fail("own", "ip address; ip route",
			"this machine's own addresses cannot be listed, so they could be banned: %s", errorLine(err))
		return
	}
	e.ownPrefixes = own
}

// examineLockout looks whether a ban could reach those whom it must never reach: this machine, its gateway, whoever is
// logged in to mend it, and customers behind a proxy on this machine.
func (e *exam) examineLockout(ctx context.Context) {
	s := e.subjectNamed("")
	e.examineOwnPrefixes(ctx, s)
	e.examineProxy(ctx, s)
	e.examineSSHPeer(ctx, s)
}

// examineProxy looks whether phones, or guessers, come to Asterisk from this machine's own addresses: then something
// here hands their requests on, such as nginx before WebSocket, and Ringwall sees all of them as this machine, which
// it never bans.
func (e *exam) examineProxy(ctx context.Context, s subject) {
	if e.daemon == nil {
		return
	}
	for _, addr := range append(e.reachableAddresses(), netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()) {
		x, err := e.client.Why(ctx, addr)
		if err != nil || x.Allow == nil {
			continue
		}
		accounts, failed, over := 0, 0, ""
		if x.Trust != nil {
			accounts = len(x.Trust.Accounts)
		}
		for _, ev := range x.Evidence {
			if ev.Service == event.PJSIP.String() {
				failed, over = failed+1, ev.Transport
			}
		}
		if accounts < 2 && failed == 0 { // one may be a phone on this machine
			continue
		}
		what := humanize.Plural(accounts, "account logs in", "accounts log in")
		if failed > 0 {
			what += " and " + humanize.Plural(failed, "request lately failed", "requests lately failed") + " (" +
				printable.String(over) + ")"
		}
		s.warn("proxy", "let the proxy itself limit who fails (nginx: limit_req and limit_conn by address), or let "+
			"phones reach Asterisk's own port 8089; "+
			"long random passwords for these accounts",
			"from %s, this machine, %s: behind a proxy here nobody is judged, for Asterisk tells Ringwall the "+
				"proxy's address alone", addr, what)
	}
}

func (e *exam) examineOwnPrefixes(ctx context.Context, s subject) {
	if e.ownPrefixes == nil {
		return
	}
	addresses, gateways := 0, []string(nil)
	for p, what := range e.ownPrefixes {
		switch what {
		case "own address":
			addresses++
		case "default gateway":
			gateways = append(gateways, p.Addr().String())
		}
	}
	slices.Sort(gateways)
	neverBanned := humanize.Plural(addresses, "own address", "own addresses") + " and loopback"
	if len(gateways) > 0 {
		neverBanned = humanize.Plural(addresses, "own address", "own addresses") + ", loopback and the gateway " +
			strings.Join(gateways, ", ")
	}
	if e.daemon == nil {
		s.ok("own", "%s are never banned", neverBanned)
		return
	}
	allowed, err := e.client.Allowed(ctx)
	if err != nil {
		s.warn("own", "ringwall list allow", "the daemon does not say what it allows: %s", errorLine(err))
		return
	}
	var prefixes []netip.Prefix
	for _, a := range allowed {
		if a.Prefix.IsValid() {
			prefixes = append(prefixes, a.Prefix)
		}
	}
	var unprotected []string
	for p := range e.ownPrefixes {
		if !slices.ContainsFunc(prefixes, func(a netip.Prefix) bool {
			return a.Bits() <= p.Bits() &&
				a.Contains(p.Addr())
		}) {
			unprotected = append(unprotected, p.String())
		}
	}
	if len(unprotected) > 0 {
		slices.Sort(unprotected)
		s.fail("own", "ringwall allow add "+unprotected[0], "the daemon does not protect this machine's %s",
			strings.Join(unprotected, ", "))
		return
	}
	s.ok("own", "the daemon never bans %s", neverBanned)
}

// examineSSHPeer looks whether the person at the other end could ban itself from the machine.
func (e *exam) examineSSHPeer(ctx context.Context, s subject) {
	peer, port := e.loggedInFrom()
	if !peer.IsValid() {
		s.skip("ssh", "", "nobody is logged in by SSH here")
		return
	}
	if e.daemon != nil {
		if x, err := e.client.Why(ctx, peer); err == nil && x.Ban != nil && !x.Ban.Observed {
			s.warn("ssh", "ringwall unban "+peer.String()+" --grace 1h", "your own address %s is banned at this moment",
				peer)
			return
		}
	}
	f := e.cfg.Firewall
	within := func(a config.AllowEntry) bool { return a.Prefix.IsValid() && a.Prefix.Contains(peer) }
	switch {
	case f.Scope == config.ScopeVoIP && !slices.Contains(f.Ports.TCP, port):
		s.ok("ssh", "your session from %s is out of reach: a ban drops only the ports of telephony, not port %d", peer,
			port)
	case slices.ContainsFunc(e.cfg.Policy.Allow, within):
		s.ok("ssh", "your address %s is in policy.allow", peer)
	case e.daemonAllows(ctx, peer):
		s.ok("ssh", "the daemon never bans your address %s", peer)
	case f.Scope == config.ScopeVoIP:
		s.warn("ssh", "ringwall allow add "+peer.String()+", or take the port out of firewall.ports.tcp",
			"a ban of %s would end your session: port %d is among firewall.ports.tcp", peer, port)
	default:
		s.warn("ssh", "ringwall allow add "+peer.String()+", or firewall.scope: voip",
			"a ban of %s would end your session: firewall.scope is all", peer)
	}
}

func (e *exam) daemonAllows(ctx context.Context, addr netip.Addr) bool {
	if e.daemon == nil {
		return false
	}
	x, err := e.client.Why(ctx, addr)
	return err == nil && x.Allow != nil
}

// loggedInFrom is the address that the person at the keyboard is logged in from by SSH, and the port of this machine.
func (e *exam) loggedInFrom() (netip.Addr, uint16) {
	return service.SSHClient(e.envVariable, e.procFolder)
}
