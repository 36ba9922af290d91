package doctor

import (
	"context"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/daemon"
	"github.com/ringwall/ringwall/pkg/hosts"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/nftrace"
)

// checkAllowed is the check of what other firewalls do to those whom Ringwall lets in.
const checkAllowed = "allowed"

// maxTrustedTraced is how many trusted sources are looked at.
const maxTrustedTraced = 32

// letIn is somebody whom Ringwall lets in.
type letIn struct {
	as     string // such as "is on the allow list"
	surely bool   // else another firewall may have its reasons
}

// examineAllowedSources looks whether other firewalls let those in whom Ringwall does: an allow list is of no use to
// somebody whom fail2ban or a rule by hand keeps out, nor is a password to a customer.
func (e *exam) examineAllowedSources(ctx context.Context, s subject) {
	own, _ := hosts.OwnPrefixes() // what is not known is taken for another machine's
	sources, as := e.sourcesLetIn(ctx)
	drops, err := nftrace.FindDrops(nftrace.Question{
		NetNS: e.NetNS, Sources: sources, Ports: e.sipPorts(),
		Ignore:  []string{e.cfg.Firewall.Table, e.scratchTableName()},
		Forward: !daemon.AsteriskIsHere(e.cfg, own),
	})
	if err != nil {
		return // examineOtherFirewalls says so
	}
	for _, d := range drops {
		tell := s.warn
		if as[d.Source].surely {
			tell = s.fail
		}
		tell(checkAllowed, daemon.TryDropped(d), "%s %s, and another firewall drops what it sends to Asterisk: "+
			"chain %s",
			humanize.Prefix(d.Source), as[d.Source].as, d.Chain)
	}
}

// sourcesLetIn are those whom the daemon lets in, the most certain first: the allow list, trunks, and who logged in
// last. Without a daemon it is the file's allow list.
func (e *exam) sourcesLetIn(ctx context.Context) (list []netip.Prefix, as map[netip.Prefix]letIn) {
	as = make(map[netip.Prefix]letIn)
	add := func(p netip.Prefix, what letIn) {
		if _, ok := as[p]; !ok && p.IsValid() {
			as[p], list = what, append(list, p)
		}
	}
	onList := letIn{"is on the allow list", true}
	if e.daemon == nil || e.client == nil {
		for _, entry := range e.cfg.Policy.Allow {
			add(entry.Prefix, onList)
		}
		return list, as
	}
	all, err := e.client.Allowed(ctx)
	if err != nil {
		for _, entry := range e.cfg.Policy.Allow {
			add(entry.Prefix, onList)
		}
	}
	for _, x := range all {
		if daemon.LetsIn(x) {
			add(x.Prefix, onList)
		}
	}
	trunks, _ := e.client.Protected(ctx)
	for _, x := range trunks {
		add(x.Prefix, letIn{"is a trunk of Asterisk's", true})
	}
	var trusted []ban.Trust // those of the latest logins
	latest := func(a, b ban.Trust) int { return b.Last.Compare(a.Last) }
	_ = e.client.EachTrusted(ctx, func(t ban.Trust) error {
		if trusted = append(trusted, t); len(trusted) > 100*maxTrustedTraced {
			slices.SortFunc(trusted, latest)
			trusted = trusted[:maxTrustedTraced]
		}
		return nil
	})
	slices.SortFunc(trusted, latest)
	for _, t := range trusted[:min(len(trusted), maxTrustedTraced)] {
		add(t.Prefix, letIn{"is trusted since a login", false})
	}
	return list, as
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
