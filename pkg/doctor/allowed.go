package doctor

import (
	"context"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/daemon"
	"github.com/ringwall/ringwall/pkg/hosts"
	"github.com/ringwall/ringwall/pkg/nftrace"
)

// checkAllowed is the check of what other firewalls do to those who are allowed.
const checkAllowed = "allowed"

// examineAllowedSources looks whether other firewalls let those in whom Ringwall allows: an allow list is of no use
// to somebody whom fail2ban or a rule by hand keeps out.
func (e *exam) examineAllowedSources(ctx context.Context, s subject) {
	own, _ := hosts.OwnPrefixes() // what is not known is taken for another machine's
	drops, err := nftrace.FindDrops(nftrace.Question{
		NetNS: e.NetNS, Sources: e.allowedSources(ctx), Ports: e.sipPorts(),
		Ignore:  []string{e.cfg.Firewall.Table, e.scratchTableName()},
		Forward: !daemon.AsteriskIsHere(e.cfg, own),
	})
	if err != nil {
		return // examineOtherFirewalls says so
	}
	for _, d := range drops {
		s.fail(checkAllowed, daemon.TryDropped(d),
			"%s is on the allow list, and another firewall drops what it sends to Asterisk: chain %s", d.Source,
			d.Chain)
	}
}

// allowedSources are the entries of the allow list that are somebody else's: the daemon's, with those that commands
// made, or the file's.
func (e *exam) allowedSources(ctx context.Context) (list []netip.Prefix) {
	if e.daemon != nil && e.client != nil {
		if all, err := e.client.Allowed(ctx); err == nil {
			for _, x := range all {
				if daemon.LetsIn(x) {
					list = append(list, x.Prefix)
				}
			}
			return list
		}
	}
	for _, entry := range e.cfg.Policy.Allow {
		if entry.Prefix.IsValid() {
			list = append(list, entry.Prefix)
		}
	}
	return list
}

// sipPorts are those at which Asterisk was found to receive, and where that is not known those that a ban closes.
func (e *exam) sipPorts() (list []nftrace.Port) {
	add := func(protocol byte, numbers ...uint16) {
		for _, n := range numbers {
			list = append(list, nftrace.Port{Protocol: protocol, Number: n})
		}
	}
	if e.daemon != nil {
		for _, f := range e.daemon.Ports.Found {
			if f.Protocol == "udp" {
				add(unix.IPPROTO_UDP, f.Port)
			} else {
				add(unix.IPPROTO_TCP, f.Port)
			}
		}
	}
	if len(list) == 0 {
		add(unix.IPPROTO_UDP, e.cfg.Firewall.Ports.UDP...)
		add(unix.IPPROTO_TCP, e.cfg.Firewall.Ports.TCP...)
	}
	return list
}
