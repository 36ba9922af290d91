package engine

import (
	"fmt"
	"net/netip"

	"github.com/ringwall/ringwall/pkg/ban"
)

// networkBans is what is known of a network with banned addresses in it.
type networkBans struct {
	bans      int // enforced, of single addresses
	forgeable int // of bans, those on evidence that could be forged
}

// networkOf returns the network of a banned IPv4 address that policy.networks counts. For IPv6 see networksOf.
func (e *Engine) networkOf(p netip.Prefix) (netip.Prefix, bool) {
	n := e.policy.Networks
	if n.Sources <= 0 || !p.Addr().Is4() || !p.IsSingleIP() {
		return netip.Prefix{}, false
	}
	net, err := p.Addr().Prefix(n.IPv4Prefix)
	return net, err == nil && net != p
}

// countInNetwork adds n to the enforced bans in the network of one.
func (e *Engine) countInNetwork(b *activeBan, n int) {
	if b.observed {
		return
	}
	p, ok := e.networkOf(b.prefix)
	if !ok {
		return
	}
	net := e.networkBans[p]
	net.bans += n
	if !b.proven {
		net.forgeable += n
	}
	if net.bans <= 0 {
		delete(e.networkBans, p)
		return
	}
	e.networkBans[p] = net
}

// hasEnforcedBan says whether exactly a prefix has a ban that is enforced.
func (e *Engine) hasEnforcedBan(p netip.Prefix) bool {
	b := e.bans[p]
	return b != nil && b.until > e.now && !b.observed
}

// banNetworkOf bans a whole network once enough of its addresses are banned, unless it holds anything allowed,
// learned, trusted within storm.memory, or unbanned with a grace.
func (j *judgement) banNetworkOf(p netip.Prefix) {
	net, ok := j.engine.networkOf(p)
	if !ok {
		return
	}
	n := j.engine.networkBans[net]
	if n.bans < j.policy.Networks.Sources || j.engine.hasEnforcedBan(net) {
		return
	}
	if !j.mustSpareNetwork(net) {
		j.banNetwork(net, n.forgeable == 0, n.bans, fmt.Sprintf("%d addresses of this network are banned", n.bans))
	}
}

// mustSpareNetwork says whether a network holds somebody who must not be banned with it.
func (j *judgement) mustSpareNetwork(net netip.Prefix) bool {
	_, graced := j.engine.grace.Overlapping(net)
	return graced || j.engine.holdsExempt(net) || j.engine.holdsCustomer(net)
}

// banNetwork bans a network because of the event, if there is room, and says whether it did.
func (j *judgement) banNetwork(net netip.Prefix, proven bool, attempts int, detail string) bool {
	if j.engine.forgeableMustWait(proven) {
		return false
	}
	if limit := j.engine.reserveBan(proven); limit != "" {
		j.engine.hitLimits[limit]++
		j.engine.leftOut = j.now
		return false
	}
	d := j.engine.banDuration(0, proven)
	b := &activeBan{
		prefix: net, source: j.addr, since: j.now, until: j.now + int64(d), reason: ban.ReasonNetwork, proven: proven,
		number: 1, pbx: j.pbx, attempts: attempts, comment: detail, closes: j.whatToClose(ban.ReasonNetwork, proven),
	}
	j.engine.addBan(b)
	j.engine.activity.countBan(j.now)
	j.decideBan(ban.ActionBan, b, detail)
	return true
}

// holdsCustomer says whether a prefix holds a source that is or lately was trusted.
func (e *Engine) holdsCustomer(p netip.Prefix) bool {
	// Forged packets may have any number of IPv6 networks looked at, and each time all customers.
	if p.Addr().Is6() && min(p.Bits(), e.ipv6Prefix) >= largeNetworkBits &&
		e.trustsByOwner[ownerNetwork(sourceKey(p.Addr().As16()))] == 0 {
		return false
	}
	for k := range e.trusts {
		if p.Overlaps(e.prefixOf(k)) && e.isCustomer(k) {
			return true
		}
	}
	return false
}
