package engine

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
)

// OriginFleet is by what a prefix is allowed that another node of the fleet allows.
const OriginFleet = "fleet"

// FleetBan is a ban of the fleet's: what other nodes saw.
type FleetBan struct {
	Prefix   netip.Prefix
	Until    time.Time
	Origin   string // the node whose word counts; empty: this one, whose ban counts again
	Nodes    int    // that saw it
	Reason   ban.Reason
	Closes   ban.Closes
	Proven   bool
	Evidence string
}

// BanForFleet bans a prefix because other nodes did. A longer ban of it stays, a shorter one is extended. Nobody is
// banned so whom this node allows, whom its Asterisk knows, who logged in here or at another node, and through whom
// many log in: what others saw, they saw elsewhere.
func (e *Engine) BanForFleet(now time.Time, f FleetBan) []ban.Decision {
	e.advanceTime(now)
	p, until := canonicalPrefix(f.Prefix), f.Until.UnixNano()
	if until <= e.now || e.policy.Mode == config.Observe || e.isSparedByFleet(p) {
		return nil
	}
	closes := f.Closes
	if closes.IsOfService() && !e.IsSource(p) { // which its sets in the kernel cannot hold
		closes = ban.ClosesAll
	}
	b := &activeBan{prefix: p, since: e.now, until: until, reason: f.Reason, proven: f.Proven, closes: closes,
		number: 1, origin: f.Origin, comment: f.Evidence}
	if p.IsSingleIP() {
		b.source = p.Addr()
	}
	action := ban.ActionBan
	have := e.bans[p]
	switch {
	case have == nil || have.until <= e.now || have.observed:
		if limit := e.fleetLimit(f.Proven); limit != "" {
			e.hitLimits[limit]++
			e.leftOut = e.now
			return nil
		}
	case have.manual, have.closes.Covers(closes) && have.until >= until:
		return nil
	default:
		action = ban.ActionExtend
		e.widen(b, have)
	}
	e.addBan(b)
	if action == ban.ActionExtend && b.closes != have.closes {
		e.exchangeElements(have, b)
	}
	detail := "as seen by " + f.Origin
	switch {
	case f.Origin == "":
		detail = "who lifted it is forgotten"
	case f.Nodes > 1:
		detail = fmt.Sprintf("as seen by %s, of %d nodes that saw it", f.Origin, f.Nodes)
	}
	return []ban.Decision{{Time: utcTime(e.now), Action: action, Source: b.source, Prefix: p, Reason: b.reason,
		Proven: b.proven, Scope: e.scopeOf(b), Closes: b.closes, Duration: time.Duration(b.until - e.now),
		Origin: f.Origin, Detail: detail}}
}

// widen makes b the successor of an enforced ban of the same prefix: it closes what both do, until the later end.
func (e *Engine) widen(b, have *activeBan) {
	b.closes, b.until = ban.ClosesBoth(have.closes, b.closes), max(have.until, b.until)
	b.since, b.number, b.score, b.attempts = have.since, have.number, have.score, have.attempts
	b.proven = b.proven || have.proven
	b.evidence, have.evidence = have.evidence, nil // which stay in Engine.banRecords
	b.moreEvidence, b.leak, b.knocks, b.shut = have.moreEvidence, have.leak, have.knocks, have.shut
	if have.origin == "" { // it stays this node's own
		b.origin, b.reason, b.source, b.pbx, b.comment = "", have.reason, have.source, have.pbx, have.comment
	}
}

// fleetLimit is the key of policy.limits that leaves no room for a ban of the fleet's; empty where there is room.
func (e *Engine) fleetLimit(proven bool) string {
	switch l := e.policy.Limits; {
	case e.enforcedBans >= l.Bans:
		return "bans"
	case !proven && e.forgeableBans >= l.ForgeableBans:
		return "forgeable_bans"
	}
	return ""
}

// isSparedByFleet says whether nobody else's word bans a prefix here.
func (e *Engine) isSparedByFleet(p netip.Prefix) bool {
	if e.holdsExempt(p) || e.isUnderGrace(p) {
		return true
	}
	if _, ok := e.proxies.Overlapping(p); ok {
		return true
	}
	if p.IsSingleIP() {
		t := e.trusts[e.keyOf(p.Addr())]
		return e.isGoodForFleet(t)
	}
	if k, ok := e.keyOfPrefix(p); ok {
		return e.isGoodForFleet(e.trusts[k])
	}
	for k, t := range e.trusts {
		if e.isGoodForFleet(t) && p.Overlaps(e.prefixOf(k)) {
			return true
		}
	}
	return false
}

func (e *Engine) isGoodForFleet(t *trust) bool {
	return t != nil && t.until > e.now || e.isOfCustomer(t)
}

// LiftForFleet ends the ban of exactly this prefix, whoever made it, because a person at another node said so after it
// was made.
func (e *Engine) LiftForFleet(now time.Time, p netip.Prefix, said time.Time, origin string) []ban.Decision {
	e.advanceTime(now)
	b := e.bans[canonicalPrefix(p)]
	if b == nil || b.until <= e.now || b.since > said.UnixNano() {
		return nil
	}
	return e.endForFleet(b, ban.ReasonManual, origin, "unbanned at "+origin)
}

// EndForFleet ends the ban of exactly this prefix where only the fleet made it, because the fleet makes it no more.
func (e *Engine) EndForFleet(now time.Time, p netip.Prefix) []ban.Decision {
	e.advanceTime(now)
	b := e.bans[canonicalPrefix(p)]
	if b == nil || b.until <= e.now || b.origin == "" {
		return nil
	}
	return e.endForFleet(b, ban.ReasonAllowed, b.origin, "the fleet bans it no more")
}

func (e *Engine) endForFleet(b *activeBan, reason ban.Reason, origin, detail string) []ban.Decision {
	out := e.endBans([]*activeBan{b}, reason, detail)
	for i := range out {
		out[i].Origin = origin
	}
	return out
}

// ForgetOrigin ends what is in force about exactly this prefix on the word of nodes that are forgotten.
func (e *Engine) ForgetOrigin(now time.Time, p netip.Prefix, nodes []string) (out []ban.Decision) {
	e.advanceTime(now)
	p = canonicalPrefix(p)
	if b := e.bans[p]; b != nil && b.until > e.now && slices.Contains(nodes, b.origin) {
		out = e.endForFleet(b, ban.ReasonAllowed, b.origin, "what "+b.origin+" said is forgotten")
	}
	if k, ok := e.keyOfPrefix(p); ok {
		if t := e.trusts[k]; t != nil && slices.Contains(nodes, t.origin) {
			out = append(out, e.DistrustForFleet(now, p)...)
		}
	}
	return out
}

// TrustForFleet trusts a source from which somebody logged in at another node, and ends its ban where that was made on
// evidence that could be forged, or by other nodes. Where this node has seen guessing, its own eyes count.
func (e *Engine) TrustForFleet(now time.Time, p netip.Prefix, until time.Time, origin string) (out []ban.Decision) {
	e.advanceTime(now)
	k, ok := e.keyOfPrefix(canonicalPrefix(p))
	if !ok {
		return nil
	}
	end := min(until.UnixNano(), e.now+int64(e.policy.Trust.TTL))
	t := e.trusts[k]
	if end <= e.now || t != nil && (t.revoked || t.until >= end) {
		return nil
	}
	b := e.activeBanOf(k)
	if b != nil && (b.manual || b.proven && b.origin == "") {
		return nil
	}
	for g := range e.guessedLogins.Values(e.now) {
		if g.until > e.now && g.from == k {
			return nil
		}
	}
	s := e.sources.get(k)
	if t == nil {
		if t = e.newTrust(k, s); t == nil {
			return nil
		}
	}
	if t.until <= e.now {
		t.since, t.endReported, t.failures, t.origin = e.now, false, nil, origin
		e.setTrustTimer(t, end)
		prefix := e.prefixOf(k)
		out = append(out, ban.Decision{Time: utcTime(e.now), Action: ban.ActionTrust, Source: prefix.Addr(),
			Prefix: prefix, Reason: ban.ReasonLogin, Proven: true, Duration: time.Duration(end - e.now), Origin: origin,
			Detail: "logged in at " + origin})
	}
	t.until = end
	if b != nil {
		out = append(out, e.endForFleet(b, ban.ReasonLogin, origin, "logged in at "+origin)...)
	}
	if s != nil {
		e.classifySource(s)
	}
	return out
}

// DistrustForFleet ends the trust of a source that only other nodes trusted, and do no more.
func (e *Engine) DistrustForFleet(now time.Time, p netip.Prefix) []ban.Decision {
	e.advanceTime(now)
	k, ok := e.keyOfPrefix(canonicalPrefix(p))
	t := e.trusts[k]
	if !ok || t == nil || t.until <= e.now || t.origin == "" {
		return nil
	}
	t.until, t.endReported = e.now, true
	e.setTrustTimer(t, e.now)
	prefix := e.prefixOf(k)
	if s := e.sources.get(k); s != nil {
		e.classifySource(s)
	}
	return []ban.Decision{{Time: utcTime(e.now), Action: ban.ActionUntrust, Source: prefix.Addr(), Prefix: prefix,
		Reason: ban.ReasonExpired, Proven: true, Origin: t.origin, Detail: "no other node trusts it any more"}}
}
