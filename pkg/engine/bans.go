package engine

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
)

// activeBan is a ban in force, or one that is only observed: of a source, of a network, or of whatever prefix a person
// typed.
type activeBan struct {
	// What is banned, and for how long.
	prefix   netip.Prefix
	since    int64 // ns
	until    int64 // ns
	observed bool  // the kernel has none of it

	// Why.
	reason  ban.Reason
	source  netip.Addr // whose event made the ban, or the address that a person typed
	pbx     uint8      // index in Engine.pbxs of the Asterisk that told of it
	score   float32    // of the source, when the ban was made
	proven  bool       // the evidence could not be forged
	closes  ban.Closes // what is closed
	knocks  uint8      // attempts that were heard through the door of a ban that closes UDP
	shut    int64      // when they shut it, ns; 0 if they did not
	opens   int64      // when the door opens, ns: nothing passes before
	manual  bool       // a person said so
	origin  string     // the node of the fleet that told of it; empty: this one
	number  int        // the how manieth ban of the source within ban.memory, from 1 on
	comment string     // of a person, or about a network

	// What its source did, before and since.
	attempts     int
	evidence     []record // the oldest first
	moreEvidence bool     // older evidence was not kept
	leak         *leak    // nil: it keeps its source out

	older, newer *activeBan // in the order in which bans were made
}

// activeBanOf returns the active ban of a source, enforced or observed.
func (e *Engine) activeBanOf(k sourceKey) *activeBan {
	if b := e.bans[e.prefixOf(k)]; b != nil && b.until > e.now {
		return b
	}
	return nil
}

// banSource bans the source of the event, or reports why not; have is its active ban, or nil.
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
	closes, widened := j.whatToClose(reason, proven), false
	if have != nil && have.until > j.now && (!have.observed || !enforce) {
		if have.closes.Covers(closes) {
			if !have.observed {
				j.stopGoodFlow()
			}
			j.countKnock(have)
			return
		}
		if !have.observed && !enforce { // what is only observed takes nothing from a ban that is in force
			return
		}
		if have.closes != ban.ClosesUDP || !proven {
			closes = ban.ClosesAll
		}
		widened = !have.observed
		s.bans = uint8(max(int(s.bans)-1, 0)) // it is the same ban, of more
	}
	if closes == ban.ClosesSIP && !j.engine.IsSource(prefix) { // which its sets in the kernel cannot hold
		closes = ban.ClosesAll
	}
	if closes == ban.ClosesManager && !j.engine.IsSource(prefix) { // which its set in the kernel cannot hold
		j.reportSpared(prefix, ban.ReasonAllowed, proven, "its network holds an address that is never banned")
		return
	}
	if j.isSuspended(prefix, enforce, proven) || enforce && !j.hasRoom(s, prefix, proven) {
		return
	}

	details := j.engine.sources.detailsOf(s)
	if j.now-details.lastBanEnd >= int64(j.policy.Ban.Memory) {
		s.bans = 0
	}
	d := j.engine.banDuration(int(s.bans), proven)
	b := &activeBan{
		prefix: prefix, source: j.addr, since: j.now, until: j.now + int64(d), reason: reason, score: s.observedScore,
		proven: proven, observed: !enforce, number: int(s.bans) + 1, pbx: j.pbx, attempts: int(s.attempts),
		closes: closes,
	}
	if closes == ban.ClosesManager {
		b.score = float32(j.score)
	} else if enforce {
		b.score = s.score
	}
	if enforce {
		s.bans = min(s.bans+1, math.MaxUint8)
		details.lastBanEnd = b.until
	}
	if closes == ban.ClosesUDP && reason == ban.ReasonScanner {
		b.opens = j.now + shutForScanner
	}
	b.evidence, b.moreEvidence = j.engine.evidence.Chain(s.key, s.latestRecord,
		min(recordsPerBan, recordsOfAllBans-j.engine.banRecords))
	j.engine.banRecords += len(b.evidence)
	j.engine.addBan(b)
	action, detail := ban.ActionBan, banDetail(b.number, enforce)
	switch {
	case !enforce:
		action = ban.ActionObserve
	case widened:
		action, detail = ban.ActionExtend, "it goes on where its ban left the way open"
	}
	if !widened {
		j.engine.activity.countBan(j.now)
	}
	j.decideBan(action, b, detail)
	switch {
	case widened:
		j.engine.exchangeElements(have, b)
	case enforce && b.opens > 0: // which the decision does not say
		j.engine.changed = append(j.engine.changed, j.engine.elementOfBan(b))
	}
	if enforce {
		j.stopGoodFlow()
		j.banNetworkOf(prefix)
	}
}

// decideBan appends the decision that makes a ban, or would.
func (j *judgement) decideBan(action ban.Action, b *activeBan, detail string) {
	j.appendDecision(action, b.reason, b.prefix, time.Duration(b.until-b.since), b.proven, detail)
	d := &j.out[len(j.out)-1]
	d.Scope, d.Closes = j.engine.scopeOf(b), b.closes
}

// banKind is what bans are counted by, for whoever looks.
type banKind struct {
	v6    bool
	scope ban.Scope
}

func (e *Engine) kindOf(b *activeBan) banKind {
	return banKind{v6: b.prefix.Addr().Is6(), scope: e.scopeOf(b)}
}

// scopeOf is how much a ban is about.
func (e *Engine) scopeOf(b *activeBan) ban.Scope {
	switch _, isSource := e.keyOfPrefix(b.prefix); {
	case b.closes.IsOfService():
		return ban.ScopeService
	case isSource || b.prefix.IsSingleIP():
		return ban.ScopeSource
	}
	return ban.ScopeNetwork
}

// whatToClose is what a ban of the source of the event closes: what could be forged says nothing about whoever speaks
// TCP there, a manager's secret nothing about the phones of a source that is known to be good, and phones nothing about
// the manager's client beside them.
func (j *judgement) whatToClose(reason ban.Reason, proven bool) ban.Closes {
	switch {
	case !proven:
		return ban.ClosesUDP
	case reason == ban.ReasonManager && j.isKnownGood():
		return ban.ClosesManager
	case j.isDeviceOfCustomer(reason):
		return ban.ClosesSIP
	}
	return ban.ClosesAll
}

// isDeviceOfCustomer says whether a ban may be a customer's phones' fault: SIP fails from where somebody logged in,
// though so often that the source has lost its trust. What shows a thief is no device's fault.
func (j *judgement) isDeviceOfCustomer(reason ban.Reason) bool {
	switch reason {
	case ban.ReasonNetwork, ban.ReasonGuessed, ban.ReasonSilentLogin, ban.ReasonScanner:
		return false
	}
	service := j.event.Service
	return (service == event.PJSIP || service == event.SIP) && j.rememberedTrust() != nil
}

// knocksAnswered is how many attempts may be heard through the door of a ban on evidence that could be forged, before
// the door is shut. One phone may retransmit one more forged request; a guesser has no use for so few.
const knocksAnswered = 3

// knockGrace is how long after a ban Asterisk may still work at what came before it, by Asterisk's own clock: the
// kernel has a ban within a millisecond. Where that clock cannot be compared, it is the second that an event may be on
// its way.
const (
	knockGrace       = 50 * millisecond
	knockGraceByOurs = second
)

// doorShut says whether the trickle of ban.knock does not pass a ban, or not any more.
func (e *Engine) doorShut(b *activeBan) bool {
	return b.closes == ban.ClosesUDP && (b.knocks >= knocksAnswered || e.policy.Ban.Knock == 0)
}

// isShut says whether nothing passes a ban that closes UDP, for good or for now.
func (e *Engine) isShut(b *activeBan) bool { return e.doorShut(b) || b.opens > e.now }

// countKnock counts an attempt of a source whose ban is in force. The door of a known good source stays open: its
// customers have to get in, whatever is forged in their name.
func (j *judgement) countKnock(b *activeBan) {
	if b.observed || b.closes != ban.ClosesUDP || j.engine.isShut(b) || j.event.Remote.Transport.Proven() ||
		j.isKnownGood() || !j.engine.IsSource(b.prefix) || j.isFromBefore(b) {
		return
	}
	if b.knocks++; j.engine.doorShut(b) {
		b.shut = j.now
		j.engine.noteRareBan(b)
		j.engine.changed = append(j.engine.changed, j.engine.elementOfBan(b))
	}
}

// isFromBefore says whether the packet of the event may have been with Asterisk already when a ban came into force.
func (j *judgement) isFromBefore(b *activeBan) bool {
	if j.clocksAgree(j.event.Time) {
		return j.event.Time.UnixNano()-b.since < knockGrace
	}
	return j.now-b.since < knockGraceByOurs
}

// isSuspended says whether the source of the event must not be banned for now, and reports it.
func (j *judgement) isSuspended(prefix netip.Prefix, enforce, proven bool) bool {
	switch {
	case j.engine.isUnderGrace(prefix):
		j.reportSpared(prefix, ban.ReasonManual, proven, "a person unbanned it with a grace that is not over")
	case enforce && j.engine.forgeableMustWait(proven):
		j.reportSpared(prefix, ban.ReasonAllowed, proven, forgeableHeldText)
	case enforce && j.engine.inStorm() && j.engine.sparedByStorm(j.key):
		j.reportSpared(prefix, ban.ReasonStorm, proven, stormText)
	default:
		return false
	}
	j.engine.suspendedBans++
	return true
}

// isUnderGrace says whether a prefix lies within one that a person unbanned with a grace.
func (e *Engine) isUnderGrace(p netip.Prefix) bool {
	if e.grace.Len() == 0 {
		return false
	}
	have, ok := e.grace.Containing(p)
	return ok && e.grace.At(have) > e.now
}

// banDetail is the text of a decision that bans a source for the n-th time.
func banDetail(n int, enforced bool) string {
	switch {
	case !enforced:
		return "would be banned"
	case n > 1:
		return fmt.Sprintf("ban number %d", n)
	}
	return ""
}

// banDuration is ban.first, times ban.factor for each ban before, up to ban.max, and up to ban.forgeable_max where the
// evidence could be forged.
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

// addBan enters a ban into all that counts bans, in place of that of the same prefix.
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
	e.noteRareBan(b)
	e.queueOneShot(b)
	e.setTimer(b.until, b.prefix, endOfBan)
	e.markBanned(b.prefix, true)
}

// removeBan takes a ban out of all that counts bans.
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
	delete(e.manualBans, b.prefix)
	delete(e.rareBans, b.prefix)
	e.markBanned(b.prefix, false)
	e.forgetTrickle(b)
}

// countBan adds n to the counters that a ban is in.
func (e *Engine) countBan(b *activeBan, n int) {
	if b.observed {
		return
	}
	e.enforcedBans += n
	if b.origin != "" {
		e.fleetBans += n
	}
	e.bansOfKind[e.kindOf(b)] += n
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
	d := ban.Decision{Time: utcTime(e.now), Action: ban.ActionUnban, Source: b.source, Prefix: b.prefix, Reason: reason,
		Proven: b.proven, Scope: e.scopeOf(b), Closes: b.closes, PBX: e.pbxName(b.pbx)}
	if b.manual || b.reason == ban.ReasonAdopted || b.origin != "" {
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

// endBans ends bans.
func (e *Engine) endBans(bans []*activeBan, reason ban.Reason, detail string) []ban.Decision {
	var out []ban.Decision
	for _, b := range bans {
		e.removeBan(b)
		if !b.observed {
			d := e.unbanDecision(b, reason)
			d.Detail = detail
			out = append(out, d)
		}
	}
	return out
}

// overlappingBans returns the active bans that share an address with a prefix, in order.
func (e *Engine) overlappingBans(p netip.Prefix) []*activeBan {
	var found []*activeBan
	if p.IsSingleIP() {
		for bits := p.Bits(); bits >= 0; bits-- {
			q, _ := p.Addr().Prefix(bits)
			if b := e.bans[q]; b != nil && b.until > e.now {
				found = append(found, b)
			}
		}
		return found
	}
	for _, b := range e.bans {
		if b.until > e.now && b.prefix.Overlaps(p) {
			found = append(found, b)
		}
	}
	slices.SortFunc(found, func(a, b *activeBan) int { return a.prefix.Compare(b.prefix) })
	return found
}

func (e *Engine) sortedBans() []*activeBan {
	var out []*activeBan
	for _, p := range sortedKeys(e.bans) {
		if b := e.bans[p]; b.until > e.now {
			out = append(out, b)
		}
	}
	return out
}

func sortedKeys[V any](m map[netip.Prefix]V) []netip.Prefix {
	keys := make([]netip.Prefix, 0, len(m))
	for p := range m {
		keys = append(keys, p)
	}
	slices.SortFunc(keys, netip.Prefix.Compare)
	return keys
}
