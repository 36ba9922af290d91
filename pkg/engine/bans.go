package engine

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/policy"
)

// ban is an active ban: of a source, of a network, or of whatever prefix a person typed.
type ban struct {
	prefix   netip.Prefix
	source   netip.Addr
	since    int64
	until    int64
	reason   Reason
	score    float32
	proven   bool
	observed bool // not enforced
	manual   bool
	number   int
	comment  string
	pbx      uint8
	attempts int
	evidence []record
	more     bool // older evidence was not kept
}

// isBanned says whether a source is banned, enforced or observed.
func (e *Engine) isBanned(k key) bool { return e.banOf(k) != nil }

func (e *Engine) banOf(k key) *ban {
	if b := e.bans[e.prefixOf(k)]; b != nil && b.until > e.now {
		return b
	}
	return nil
}

// condemn bans the source of a case, or says why not.
func (e *Engine) condemn(c *call, s *source, reason Reason, enforce, proven bool) {
	prefix := e.prefixOf(c.key)
	if have := e.bans[prefix]; have != nil && have.until > e.now {
		if !have.observed || !enforce {
			return
		}
	}
	spare := func(why Reason, detail string) {
		if !e.reports.seen(e.now, e.hash("spared", c.key[:], string(why))) {
			c.decide(Observe, why, prefix, 0, proven, detail)
		}
	}
	if have, ok := e.protected.overlapping(prefix); ok {
		if have.Contains(c.addr) {
			spare(Protected, "Asterisk knows this address as a trunk or a registered contact: never banned")
			return
		}
		prefix = netip.PrefixFrom(c.addr, c.addr.BitLen())
	}
	if have, ok := e.allow.overlapping(prefix); ok {
		if have.Contains(c.addr) {
			return
		}
		prefix = netip.PrefixFrom(c.addr, c.addr.BitLen())
	}
	if until, ok := e.grace[prefix]; ok && until > e.now {
		e.suspended++
		spare(Manual, "a person unbanned it with a grace that is not over")
		return
	}
	if enforce && e.stormy() && e.knownGood(c.key) {
		e.suspended++
		spare(Storm, "many known good sources fail at once: the fault is at the PBX")
		return
	}
	if enforce && !e.room(proven) {
		spare(Limit, "too many bans: see policy.limits")
		return
	}

	if e.now-s.banned >= int64(e.cfg.Ban.Memory) {
		s.bans = 0
	}
	d := e.duration(int(s.bans), proven)
	b := &ban{
		prefix: prefix, source: c.addr, since: e.now, until: e.now + int64(d), reason: reason, score: s.observed,
		proven: proven, observed: !enforce, number: int(s.bans) + 1, pbx: c.pbx, attempts: int(s.attempts),
	}
	if enforce {
		b.score = s.score
		s.bans = min(s.bans+1, math.MaxUint8)
		s.banned = b.until
		if !proven {
			e.forgeable++
		}
	}
	b.evidence, b.more = e.ring.chain(s, min(perBan, banBudget-e.kept))
	e.kept += len(b.evidence)
	e.putBan(b)
	action := Ban
	if !enforce {
		action = Observe
	}
	c.decide(action, reason, prefix, d, proven, ordinal(b.number, enforce))
	if enforce {
		e.condemnNetwork(c, prefix)
	}
}

func ordinal(n int, enforced bool) string {
	switch {
	case !enforced:
		return "would be banned"
	case n > 1:
		return fmt.Sprintf("ban number %d", n)
	}
	return ""
}

// duration is ban.first × ban.factor for each ban before, up to ban.max, and up to ban.forgeable_max where the source
// could have been forged.
func (e *Engine) duration(before int, proven bool) time.Duration {
	limit := e.cfg.Ban.Max
	if !proven {
		limit = min(limit, e.cfg.Ban.ForgeableMax)
	}
	d := float64(e.cfg.Ban.First) * math.Pow(e.cfg.Ban.Factor, float64(before))
	if d >= float64(limit) {
		return limit
	}
	return time.Duration(d)
}

// room says whether one more ban fits the limits, and counts it where not.
func (e *Engine) room(proven bool) bool {
	l := e.cfg.Limits
	if e.enforced >= l.Bans {
		e.limited["bans"]++
		return false
	}
	if proven {
		return true
	}
	if e.forgeable >= l.ForgeableBans {
		e.limited["forgeable_bans"]++
		return false
	}
	e.budget = min(float64(l.ForgeableBurst), e.budget+float64(l.ForgeableRate)*time.Duration(e.now-e.budgetAt).Seconds())
	e.budgetAt = e.now
	if e.budget < 1 {
		e.limited["forgeable_rate"]++
		return false
	}
	e.budget--
	return true
}

// putBan stores a ban in place of whatever was there.
func (e *Engine) putBan(b *ban) {
	if old := e.bans[b.prefix]; old != nil {
		e.forget(old)
	}
	e.bans[b.prefix] = b
	if !b.observed {
		e.enforced++
	}
	e.timers.set(b.until, b.prefix, false)
	if k, ok := e.keyOfPrefix(b.prefix); ok {
		if s := e.sources.get(k); s != nil {
			e.sources.touch(s, pinned)
		}
	}
}

// forget removes a ban from the books.
func (e *Engine) forget(b *ban) {
	delete(e.bans, b.prefix)
	e.kept -= len(b.evidence)
	if !b.observed {
		e.enforced--
		if !b.proven {
			e.forgeable = max(0, e.forgeable-1)
		}
		e.leaveNetwork(b.prefix)
	}
	if k, ok := e.keyOfPrefix(b.prefix); ok {
		if s := e.sources.get(k); s != nil {
			e.classify(s)
		}
	}
}

// keyOfPrefix returns the source that a prefix is, if it is exactly one.
func (e *Engine) keyOfPrefix(p netip.Prefix) (key, bool) {
	if p.Addr().Is4() && p.Bits() == 32 || p.Addr().Is6() && p.Bits() == e.cfg.IPv6Prefix {
		return key(p.Addr().As16()), true
	}
	return key{}, false
}

// covered returns the enforced ban that covers an address: of its source, of the single address, or of a network.
func (e *Engine) covered(a netip.Addr) *ban {
	var found *ban
	for _, bits := range e.banBits(a) {
		p, _ := a.Prefix(bits)
		if b := e.bans[p]; b != nil && b.until > e.now && (found == nil || !b.observed) {
			found = b
		}
	}
	return found
}

func (e *Engine) banBits(a netip.Addr) []int {
	bits := make([]int, 0, a.BitLen()+1)
	for b := a.BitLen(); b >= 0; b-- {
		bits = append(bits, b)
	}
	return bits
}

// networkOf returns the network of a banned source that policy.networks counts. IPv6 sources are networks already.
func (e *Engine) networkOf(p netip.Prefix) (netip.Prefix, bool) {
	n := e.cfg.Networks
	if n.Sources <= 0 || !p.Addr().Is4() || !p.IsSingleIP() {
		return netip.Prefix{}, false
	}
	net, err := p.Addr().Prefix(n.IPv4Prefix)
	return net, err == nil
}

func (e *Engine) leaveNetwork(p netip.Prefix) {
	if net, ok := e.networkOf(p); ok && e.networks[net] > 0 {
		if e.networks[net]--; e.networks[net] == 0 {
			delete(e.networks, net)
		}
	}
}

// condemnNetwork bans a whole network once enough of its addresses are banned, unless it holds anything allowed, trusted
// or learned.
func (e *Engine) condemnNetwork(c *call, p netip.Prefix) {
	net, ok := e.networkOf(p)
	if !ok {
		return
	}
	e.networks[net]++
	if e.networks[net] < e.cfg.Networks.Sources || e.bans[net] != nil && e.bans[net].until > e.now {
		return
	}
	if _, ok := e.allow.overlapping(net); ok {
		return
	}
	if _, ok := e.protected.overlapping(net); ok {
		return
	}
	for k := range e.trusts {
		if net.Overlaps(e.prefixOf(k)) && (e.trusted(k) != nil || e.knownGood(k)) {
			return
		}
	}
	proven := true
	for a, b := range e.bans {
		if net.Contains(a.Addr()) && !b.observed && !b.proven {
			proven = false
		}
	}
	d := e.duration(0, proven)
	e.putBan(&ban{
		prefix: net, source: c.addr, since: e.now, until: e.now + int64(d), reason: Network, proven: proven, number: 1,
		pbx: c.pbx, attempts: e.networks[net],
		comment: fmt.Sprintf("%d addresses of this network are banned", e.networks[net]),
	})
	if !proven {
		e.forgeable++
	}
	c.decide(Ban, Network, net, d, proven, fmt.Sprintf("%d addresses of this network are banned", e.networks[net]))
}

// mode is whether evidence of a service is enforced.
func (e *Engine) mode(service string) policy.Mode {
	if e.cfg.Mode == policy.Observe {
		return policy.Observe
	}
	if m, ok := e.cfg.Services[service]; ok {
		return m
	}
	return policy.Observe
}
