package engine

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// ban is an active ban: of a source, of a network, or of whatever prefix a person typed.
type activeBan struct {
	prefix       netip.Prefix
	source       netip.Addr
	since        int64
	until        int64
	reason       ban.Reason
	score        float32
	proven       bool
	observed     bool // not enforced
	manual       bool
	number       int
	comment      string
	pbx          uint8
	attempts     int
	evidence     []record
	moreEvidence bool // older evidence was not kept
	leak         *leak

	older, newer *activeBan // in the order in which they were made
}

// networkBans is what is known of a network with banned addresses in it.
type networkBans struct {
	banned   int // addresses, by enforced bans
	unproven int // of them, by evidence that could be forged
}

// activeBanOf returns the active ban of a source, enforced or observed.
func (e *Engine) activeBanOf(k sourceKey) *activeBan {
	if b := e.bans[e.prefixOf(k)]; b != nil && b.until > e.now {
		return b
	}
	return nil
}

// banSource bans the source of a case, or says why not; have is its active ban, if there is one.
func (j *judgement) banSource(s *source, have *activeBan, reason ban.Reason, enforce, proven bool) {
	prefix := j.engine.prefixOf(j.key)
	if _, ok := j.engine.allow.Covering(j.addr); ok {
		return
	}
	if _, ok := j.engine.protected.Covering(j.addr); ok {
		j.reportSpared(prefix, ban.ReasonProtected, proven, "Asterisk knows this address as a trunk: never banned")
		return
	}
	if !prefix.IsSingleIP() && j.engine.holdsExempt(prefix) {
		prefix = netip.PrefixFrom(j.addr, j.addr.BitLen())
		have = j.engine.bans[prefix]
	}
	if have != nil && have.until > j.now && (!have.observed || !enforce) {
		return
	}
	if j.engine.isUnderGrace(prefix) {
		j.engine.suspendedBans++
		j.reportSpared(prefix, ban.ReasonManual, proven, "a person unbanned it with a grace that is not over")
		return
	}
	if enforce && j.engine.holdsForgeable(proven) {
		j.engine.suspendedBans++
		j.reportSpared(prefix, ban.ReasonAllowed, proven, forgeableHeldText)
		return
	}
	if enforce && j.engine.inStorm() && j.engine.sparedByStorm(j.key) {
		j.engine.suspendedBans++
		j.reportSpared(prefix, ban.ReasonStorm, proven, stormText)
		return
	}
	if enforce {
		bound := j.engine.reserveBan(proven)
		if bound != "" && (proven || float64(s.score) >= 2*j.policy.Threshold) && j.endOneShotBan(bound, proven) {
			bound = j.engine.reserveBan(proven)
		}
		if bound != "" {
			j.engine.hitLimits[bound]++
			if j.engine.firstReport(forLimit, sourceKey{}, j.engine.hashText(bound)) {
				j.decide(ban.ActionObserve, ban.ReasonLimit, prefix, 0, proven, "bans are left out, by policy.limits."+bound+": see the metrics")
			}
			return
		}
	}

	details := j.engine.sources.detailsOf(s)
	if j.now-details.lastBanEnd >= int64(j.policy.Ban.Memory) {
		s.bans = 0
	}
	d := j.engine.banDuration(int(s.bans), proven)
	b := &activeBan{
		prefix: prefix, source: j.addr, since: j.now, until: j.now + int64(d), reason: reason, score: s.observedScore,
		proven: proven, observed: !enforce, number: int(s.bans) + 1, pbx: j.pbx, attempts: int(s.attempts),
	}
	if enforce {
		b.score = s.score
		s.bans = min(s.bans+1, math.MaxUint8)
		details.lastBanEnd = b.until
	}
	b.evidence, b.moreEvidence = j.engine.evidence.Chain(s.key, s.latestRecord, min(recordsPerBan, recordsOfAllBans-j.engine.banRecords))
	j.engine.banRecords += len(b.evidence)
	j.engine.addBan(b)
	j.engine.activity.countBan(j.now)
	action := ban.ActionBan
	if !enforce {
		action = ban.ActionObserve
	}
	j.decide(action, reason, prefix, d, proven, banDetail(b.number, enforce))
	if enforce {
		j.banNetworkOf(prefix)
	}
}

// holdsExempt says whether a prefix shares an address with anything allowed or protected.
func (e *Engine) holdsExempt(p netip.Prefix) bool {
	if _, ok := e.allow.Overlapping(p); ok {
		return true
	}
	_, ok := e.protected.Overlapping(p)
	return ok
}

// isUnderGrace says whether a prefix lies within one that a person unbanned with a grace.
func (e *Engine) isUnderGrace(p netip.Prefix) bool {
	if e.grace.Len() == 0 {
		return false
	}
	have, ok := e.grace.Containing(p)
	return ok && e.grace.At(have) > e.now
}

func banDetail(n int, enforced bool) string {
	switch {
	case !enforced:
		return "would be banned"
	case n > 1:
		return fmt.Sprintf("ban number %d", n)
	}
	return ""
}

// banDuration is ban.first × ban.factor for each ban before, up to ban.max, and up to ban.forgeable_max where the source
// could have been forged.
func (e *Engine) banDuration(before int, proven bool) time.Duration {
	limit := e.policy.Ban.Max
	if !proven {
		limit = min(limit, e.policy.Ban.ForgeableMax)
	}
	d := float64(e.policy.Ban.First) * math.Pow(e.policy.Ban.Factor, float64(before))
	if d >= float64(limit) {
		return limit
	}
	return time.Duration(d)
}

// reserveBan takes the place of one more ban. It returns the key of policy.limits that leaves none, or nothing.
func (e *Engine) reserveBan(proven bool) string {
	l := e.policy.Limits
	if e.enforcedBans >= l.Bans {
		return "bans"
	}
	if proven {
		return ""
	}
	if e.forgeableBans >= l.ForgeableBans {
		return "forgeable_bans"
	}
	if e.refillForgeableBudget() < 1 {
		return "forgeable_rate"
	}
	e.forgeableBudget--
	return ""
}

// refillForgeableBudget is how many bans on unproven evidence may begin at once.
func (e *Engine) refillForgeableBudget() float64 {
	l := e.policy.Limits
	e.forgeableBudget = min(float64(l.ForgeableBurst), e.forgeableBudget+float64(l.ForgeableRate)*time.Duration(e.now-e.forgeableBudgetAt).Seconds())
	e.forgeableBudgetAt = e.now
	return e.forgeableBudget
}

// endOneShotBan ends the oldest ban of a source that was banned once, on evidence that could be forged: forged packets make any
// number of such, and must not leave those free who go on attacking. It says whether there was one.
func (j *judgement) endOneShotBan(bound string, proven bool) bool {
	if bound == "forgeable_rate" || !proven && j.engine.refillForgeableBudget() < 1 { // no ban would follow
		return false
	}
	for len(j.engine.oneShotBans) > 0 {
		b := j.engine.oneShotBans[0]
		j.engine.oneShotBans[0] = nil
		j.engine.oneShotBans = j.engine.oneShotBans[1:]
		if j.engine.bans[b.prefix] == b && b.until > j.now && b.prefix != j.engine.prefixOf(j.key) {
			j.out = append(j.out, j.engine.endBans([]*activeBan{b}, ban.ReasonLimit, "gave way to a source that goes on attacking: policy.limits."+bound+" is reached")...)
			return true
		}
	}
	return false
}

// queueOneShot notes a ban that may give way to another.
func (e *Engine) queueOneShot(b *activeBan) {
	if b.proven || b.manual || b.observed || b.number != 1 || b.reason == ban.ReasonNetwork {
		return
	}
	if len(e.oneShotBans) > 2*e.forgeableBans+1024 { // most of them are over
		e.oneShotBans = slices.DeleteFunc(e.oneShotBans, func(b *activeBan) bool { return e.bans[b.prefix] != b })
	}
	e.oneShotBans = append(e.oneShotBans, b)
}

// addBan enters a ban in the books in place of whatever was there.
func (e *Engine) addBan(b *activeBan) {
	if old := e.bans[b.prefix]; old != nil {
		e.removeBan(old)
	}
	e.bans[b.prefix] = b
	if b.older = e.newestBan; b.older != nil {
		b.older.newer = b
	}
	e.newestBan = b
	e.countBan(b, 1)
	e.queueOneShot(b)
	e.setTimer(b.until, b.prefix, endOfBan)
	e.markBanned(b.prefix, true)
}

// removeBan takes a ban out of the books.
func (e *Engine) removeBan(b *activeBan) {
	delete(e.bans, b.prefix)
	if b.newer != nil {
		b.newer.older = b.older
	} else {
		e.newestBan = b.older
	}
	if b.older != nil {
		b.older.newer = b.newer
	}
	e.banRecords -= len(b.evidence)
	e.countBan(b, -1)
	e.markBanned(b.prefix, false)
}

// countBan adds n to the counters that a ban is in.
func (e *Engine) countBan(b *activeBan, n int) {
	if b.observed {
		return
	}
	e.enforcedBans += n
	if b.prefix.Addr().Is6() {
		e.enforcedBans6 += n
	}
	if !b.proven {
		e.forgeableBans += n
	}
	e.countNetworkBan(b.prefix, n)
	e.countInNetwork(b, n)
}

// markBanned tells the source of a prefix that it is banned, or no longer.
func (e *Engine) markBanned(p netip.Prefix, banned bool) {
	if k, ok := e.keyOfPrefix(p); ok {
		if s := e.sources.get(k); s != nil {
			s.banned = banned
			e.classifySource(s)
		}
	}
}

// endDueBan handles the timer of a ban.
func (e *Engine) endDueBan(t timer, out []ban.Decision) []ban.Decision {
	b := e.bans[t.prefix]
	if b == nil || b.until > e.now { // ended, or extended, which set a timer of its own
		return out
	}
	e.removeBan(b)
	if b.observed {
		return out
	}
	return append(out, e.unbanDecision(b, ban.ReasonExpired))
}

// unbanDecision is the decision that ends a ban.
func (e *Engine) unbanDecision(b *activeBan, reason ban.Reason) ban.Decision {
	d := ban.Decision{Time: utc(e.now), Action: ban.ActionUnban, Source: b.source, Prefix: b.prefix, Reason: reason, Proven: b.proven,
		PBX: e.pbxName(b.pbx)}
	if b.manual || b.reason == ban.ReasonAdopted {
		d.PBX = ""
	}
	if b.reason == ban.ReasonTest {
		d.Reason = ban.ReasonTest
	}
	if k, ok := e.keyOfPrefix(b.prefix); ok {
		if s := e.sources.get(k); s != nil {
			d.Score = float64(s.score * e.decayFactor(e.now-s.lastSeen))
		}
	}
	return d
}

// banCovering returns the ban that keeps an address out for the longest, or else one that is only observed.
func (e *Engine) banCovering(a netip.Addr) *activeBan {
	var found *activeBan
	for _, b := range e.overlappingBans(netip.PrefixFrom(a, a.BitLen())) {
		if found == nil || found.observed && !b.observed || found.observed == b.observed && b.until > found.until {
			found = b
		}
	}
	return found
}

// networkOf returns the network of a banned source that policy.networks counts. IPv6 sources are networks already.
func (e *Engine) networkOf(p netip.Prefix) (netip.Prefix, bool) {
	n := e.policy.Networks
	if n.Sources <= 0 || !p.Addr().Is4() || !p.IsSingleIP() {
		return netip.Prefix{}, false
	}
	net, err := p.Addr().Prefix(n.IPv4Prefix)
	return net, err == nil && net != p
}

// countInNetwork counts an enforced ban of one address in its network, n times.
func (e *Engine) countInNetwork(b *activeBan, n int) {
	if b.observed {
		return
	}
	p, ok := e.networkOf(b.prefix)
	if !ok {
		return
	}
	net := e.networkBans[p]
	net.banned += n
	if !b.proven {
		net.unproven += n
	}
	if net.banned <= 0 {
		delete(e.networkBans, p)
		return
	}
	e.networkBans[p] = net
}

// banNetworkOf bans a whole network once enough of its addresses are banned, unless it holds anything allowed,
// learned, trusted within storm.memory, or unbanned with a grace.
func (j *judgement) banNetworkOf(p netip.Prefix) {
	net, ok := j.engine.networkOf(p)
	if !ok {
		return
	}
	n := j.engine.networkBans[net]
	if have := j.engine.bans[net]; n.banned < j.policy.Networks.Sources || have != nil && have.until > j.now && !have.observed {
		return
	}
	if !j.mustSpareNetwork(net) {
		j.banNetwork(net, n.unproven == 0, n.banned, fmt.Sprintf("%d addresses of this network are banned", n.banned))
	}
}

// mustSpareNetwork says whether a network holds somebody who must not be banned with it.
func (j *judgement) mustSpareNetwork(net netip.Prefix) bool {
	_, graced := j.engine.grace.Overlapping(net)
	return graced || j.engine.holdsExempt(net) || j.engine.holdsCustomer(net)
}

// banNetwork bans a network because of the event, if there is room, and says whether it did.
func (j *judgement) banNetwork(net netip.Prefix, proven bool, attempts int, detail string) bool {
	if j.engine.holdsForgeable(proven) {
		return false
	}
	if bound := j.engine.reserveBan(proven); bound != "" {
		j.engine.hitLimits[bound]++
		return false
	}
	d := j.engine.banDuration(0, proven)
	j.engine.addBan(&activeBan{
		prefix: net, source: j.addr, since: j.now, until: j.now + int64(d), reason: ban.ReasonNetwork, proven: proven, number: 1,
		pbx: j.pbx, attempts: attempts, comment: detail,
	})
	j.engine.activity.countBan(j.now)
	j.decide(ban.ActionBan, ban.ReasonNetwork, net, d, proven, detail)
	return true
}

// holdsCustomer says whether a prefix holds a source that is or lately was trusted.
func (e *Engine) holdsCustomer(p netip.Prefix) bool {
	// Forged packets may ask about any number of IPv6 networks, each time for a walk over all customers.
	if p.Addr().Is6() && min(p.Bits(), e.ipv6Prefix) >= largeNetworkBits && e.trustsByOwner[ownerNetwork(sourceKey(p.Addr().As16()))] == 0 {
		return false
	}
	for k := range e.trusts {
		if p.Overlaps(e.prefixOf(k)) && e.isCustomer(k) {
			return true
		}
	}
	return false
}
