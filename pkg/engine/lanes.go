package engine

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
)

const (
	// maxLanes is how many sources may have something cut or slowed: known good ones, and those that fail for an hour.
	// Half of the room is for what is proven, since packets can be forged in anybody's name for an hour.
	maxLanes = 1 << 16
	// maxCutsOfSource bounds the flows of one source that are remembered to be cut, or slow.
	maxCutsOfSource = 64
	// cutFor is how long a flow is cut. Another device may have the port next.
	cutFor = 10 * time.Minute
	// cutsBeforeSlow is how many flows of a source are cut before all of its new connections are slowed: whoever
	// guesses comes back from new ports.
	cutsBeforeSlow = 3
	// slowAfterCuts is how long that lasts: the phones of a house that start anew share it with whoever guesses there.
	slowAfterCuts = 30 * time.Minute
	// slowFor is how long a slow lane lasts, and after how much of it the pace gets slower.
	slowFor = time.Hour
	// goodSlowFor is how long a flow is slowed from which somebody logged in, goodFlowPatience after how much of that
	// the pace gets slower, so that a guesser is heard twenty times in his first minute, too, and maxSlowGoodFlows how
	// many of one source are slow: others that guess are no longer good.
	goodSlowFor      = 10 * time.Minute
	goodFlowPatience = 8 * time.Second
	maxSlowGoodFlows = 5
	// trickleFor is how long senders that never logged in share a trickle, and trickleRenewal how much of that is left
	// when it is prolonged.
	trickleFor     = 10 * time.Minute
	trickleRenewal = 2 * time.Minute
)

// lane is what is cut or slowed of a source where others must go on. Times are in ns.
type lane struct {
	cuts         map[ban.Flow]int64 // until when
	steps        int                // cuts within slowFor of each other
	lastCut      int64
	trickleUntil int64 // over UDP, all but good flows share the trickle of ban.knock
	slow         slowness
	slowFlows    map[ban.Flow]slowness // over UDP
	timerAt      int64                 // of the one timer that counts
	counted      laneCounts
}

// slowness is that something may send a few packets only.
type slowness struct {
	since, until int64
	pace         Pace
	good         bool // of a flow from which somebody had logged in: another login does not end it
}

// isActive says whether the slowness is not over.
func (s slowness) isActive(now int64) bool { return s.until > now }

// isKnownGood says whether the source of the event is trusted, or is a customer's: others behind its address must go
// on, whatever one of them does.
func (j *judgement) isKnownGood() bool {
	t := j.rememberedTrust()
	return t != nil && (t.until > j.now || j.engine.isOfCustomer(t))
}

// IsCustomers says whether an address is a customer's, or one that must not be banned.
func (e *Engine) IsCustomers(addr netip.Addr) bool {
	key := e.keyOf(addr.Unmap())
	return e.activeTrust(key) != nil || e.isCustomer(key) || e.IsExempt(addr.Unmap())
}

// laneOf returns the lane of the source of the event, made if need be, or nil where there is no room.
func (j *judgement) laneOf() *lane {
	l := j.engine.lanes[j.key]
	if l == nil {
		room := maxLanes
		if !j.proven {
			room /= 2
		}
		if len(j.engine.lanes) >= room {
			j.engine.hitLimits["lanes"]++
			return nil
		}
		l = new(lane)
		j.engine.lanes[j.key] = l
	}
	return l
}

// setLaneTimer has a lane looked at when something of it is over.
func (e *Engine) setLaneTimer(k sourceKey, l *lane, at int64) {
	if l.timerAt == 0 || at < l.timerAt {
		l.timerAt = at
		e.setTimer(at, e.prefixOf(k), endOfLane)
	}
}

// cutFlow closes the flow of the event, and slows the source where it comes back from new ones. Those who are
// registered from there have good flows, and notice nothing.
func (j *judgement) cutFlow(reason ban.Reason, enforce, guesser bool) {
	f := j.senderFlow()
	if !f.IsValid() || f.UDP && !j.proven { // a datagram's port is whatever its sender writes
		j.slowUnproven(enforce)
		return
	}
	if !enforce {
		j.reportSpared(j.engine.prefixOf(j.key), reason, true, "would cut "+f.String()+", and let the others go on")
		return
	}
	l := j.laneOf()
	if l == nil || l.cuts[f] > j.now { // what waited in Asterisk's queue
		return
	}
	defer j.engine.recountLane(j.key, l)
	l.dropEnded(j.now)
	if j.now-l.lastCut >= int64(slowFor) {
		l.steps = 0
	}
	l.steps++
	l.lastCut = j.now
	if t := j.rememberedTrust(); t != nil {
		t.cutAt = j.now
	}
	j.closeFlow(l, f)
	first := j.engine.firstReport(forCut, j.key, 0)
	switch {
	case l.steps <= cutsBeforeSlow && first:
		j.decideCut(reason, f, "it guesses from inside a known good source: this connection ends, the others go on")
	case l.steps > cutsBeforeSlow:
		pace, often := PaceMinute, "4 times a minute"
		if guesser { // each connection that gets through holds one more guess
			pace, often = PaceTenMinutes, "4 times in ten minutes"
		}
		if j.slowSource(l, pace, slowAfterCuts) || first {
			j.decideCut(reason, f, fmt.Sprintf("it guesses from inside a known good source: connection number %d "+
				"ends, and new ones from there get through %s; the others go on", l.steps, often))
		}
	}
}

// closeFlow has the kernel end a flow.
func (j *judgement) closeFlow(l *lane, f ban.Flow) {
	if l.cuts == nil {
		l.cuts = make(map[ban.Flow]int64)
	}
	if len(l.cuts) < maxCutsOfSource {
		l.cuts[f] = j.now + int64(cutFor)
		j.engine.setLaneTimer(j.key, l, l.cuts[f])
	}
	j.engine.forgetGoodFlow(f)
	j.engine.changed = append(j.engine.changed, Element{Kind: CutFlow, Flow: f, Left: cutFor})
}

// decideCut appends the decision to cut a flow.
func (j *judgement) decideCut(reason ban.Reason, f ban.Flow, detail string) {
	j.appendDecision(ban.ActionCut, reason, j.engine.prefixOf(j.key), cutFor, true, detail)
	d := &j.out[len(j.out)-1]
	d.Scope, d.Flow = ban.ScopeFlow, f
}

// slowUnproven slows what cannot be proven against a known good source: over UDP, senders that never logged in share
// the trickle of ban.knock, and the flow of the event, where it is a good one, gets a packet a second.
func (j *judgement) slowUnproven(enforce bool) {
	if !enforce {
		return
	}
	l := j.laneOf()
	if l == nil {
		return
	}
	defer j.engine.recountLane(j.key, l)
	if f := j.senderFlow(); f.UDP && j.engine.isGoodFlow(f) {
		j.slowGoodFlow(l, f)
	}
	if j.engine.activeBanOf(j.key) != nil || l.trickleUntil-j.now >= int64(trickleRenewal) {
		return
	}
	l.trickleUntil = j.now + int64(trickleFor)
	j.engine.setLaneTimer(j.key, l, l.trickleUntil)
	j.engine.changed = append(j.engine.changed, Element{Kind: BanOfPrefix, Prefix: j.engine.prefixOf(j.key),
		Closes: ban.ClosesUDP, Left: trickleFor})
}

// forgetTrickle ends the trickle that senders of the source of a ban share: in the kernel a ban and a trickle are one.
func (e *Engine) forgetTrickle(b *activeBan) {
	k, ok := e.keyOfPrefix(b.prefix)
	if l := e.lanes[k]; ok && l != nil && !b.observed && l.trickleUntil != 0 {
		l.trickleUntil = 0
		e.changed = append(e.changed, Element{Kind: BanOfPrefix, Prefix: b.prefix, Closes: ban.ClosesUDP, Remove: true})
		e.recountLane(k, l)
	}
}

// isSlow says whether the source of the event, or its flow, is in the slow lane.
func (j *judgement) isSlow() bool {
	l := j.engine.lanes[j.key]
	return l != nil && (l.slow.isActive(j.now) || l.slowFlows[j.senderFlow()].isActive(j.now))
}

// slowFailing slows an account that has failed for an hour no faster than a device: a phone that is mended is in within
// minutes, and a guesser who is as slow has not even that pace. At a known good source it is the flow that is slowed.
func (j *judgement) slowFailing() {
	if !j.serviceIsEnforced() || j.event.Service == event.SIP || j.engine.IsExempt(j.addr) {
		return
	}
	l := j.laneOf()
	if l == nil {
		return
	}
	defer j.engine.recountLane(j.key, l)
	f := j.senderFlow()
	switch {
	case !j.isKnownGood():
		j.slowSource(l, PaceMinute, slowFor)
		if !f.UDP && f.IsValid() && l.cuts[f] <= j.now { // a connection may hold any number of guesses
			j.closeFlow(l, f)
		}
	case f.UDP && f.IsValid() && j.engine.isGoodFlow(f):
		j.slowGoodFlow(l, f)
	case f.UDP && f.IsValid():
		if j.slowFlow(l, f, PaceMinute, slowFor); len(l.slowFlows) > cutsBeforeSlow {
			j.slowUnproven(true) // it comes back from new ports
		}
	}
}

// slowGoodFlow slows a flow from which somebody logged in. It gets a packet a second: its address and port may be
// forged. Whoever goes on guessing for goodFlowPatience gets 4 a minute, and who does so from several such flows,
// hardly anything: nobody who forges knows the ports that a NAT gave, but a thief of an account logs in from as many as
// he likes.
func (j *judgement) slowGoodFlow(l *lane, f ban.Flow) {
	l.dropEnded(j.now)
	pace := PaceSecond
	if s := l.slowFlows[f]; s.isActive(j.now) && j.now-s.since >= int64(goodFlowPatience) {
		pace = PaceMinute
	}
	var others []ban.Flow
	for other := range l.slowFlows {
		if other != f && j.engine.isGoodFlow(other) {
			others = append(others, other)
		}
	}
	switch {
	case len(others) >= maxSlowGoodFlows:
		j.engine.forgetGoodFlow(f)
		return
	case len(others) > 0:
		pace = PaceTenMinutes
		slices.SortFunc(others, func(a, b ban.Flow) int { return a.Source.Compare(b.Source) })
		for _, other := range others {
			j.slowFlow(l, other, pace, goodSlowFor)
		}
	}
	j.slowFlow(l, f, pace, goodSlowFor)
	if s, ok := l.slowFlows[f]; ok {
		s.good = true
		l.slowFlows[f] = s
	}
}

// stopGoodFlow stops the flow of the event where it would pass the ban of its source, since somebody logged in from it.
func (j *judgement) stopGoodFlow() {
	f := j.senderFlow()
	if !j.engine.isGoodFlow(f) {
		return
	}
	l := j.laneOf()
	if l == nil {
		return
	}
	defer j.engine.recountLane(j.key, l)
	if f.UDP {
		j.slowGoodFlow(l, f)
	} else {
		j.closeFlow(l, f)
	}
}

// endSlowness takes back that a source is slow, after a login: its phone is mended. Who comes back from new ports again
// and again is not.
func (j *judgement) endSlowness() {
	l := j.engine.lanes[j.key]
	if l == nil {
		return
	}
	defer j.engine.recountLane(j.key, l)
	if f := j.senderFlow(); l.slowFlows[f].isActive(j.now) && !l.slowFlows[f].good {
		delete(l.slowFlows, f)
		j.engine.changed = append(j.engine.changed, Element{Kind: SlowFlow, Flow: f, Remove: true})
	}
	if !l.slow.isActive(j.now) || l.steps > cutsBeforeSlow {
		return
	}
	l.slow = slowness{}
	j.engine.changed = append(j.engine.changed,
		Element{Kind: SlowSource, Prefix: j.engine.prefixOf(j.key), Remove: true})
}

// slowSource slows all of a source that has no good flow, and says whether the kernel is told anything new.
func (j *judgement) slowSource(l *lane, pace Pace, length time.Duration) bool {
	if !l.slow.prolong(j.now, pace, length) {
		return false
	}
	j.engine.setLaneTimer(j.key, l, l.slow.until)
	j.engine.changed = append(j.engine.changed, Element{Kind: SlowSource, Prefix: j.engine.prefixOf(j.key),
		Pace: l.slow.pace, Left: time.Duration(l.slow.until - j.now)})
	return true
}

// slowFlow slows one flow over UDP for a time.
func (j *judgement) slowFlow(l *lane, f ban.Flow, pace Pace, length time.Duration) {
	s, ok := l.slowFlows[f]
	if l.dropEnded(j.now); !ok && len(l.slowFlows) >= maxCutsOfSource {
		return
	}
	if !s.prolong(j.now, pace, length) {
		return
	}
	if l.slowFlows == nil {
		l.slowFlows = make(map[ban.Flow]slowness)
	}
	l.slowFlows[f] = s
	j.engine.setLaneTimer(j.key, l, s.until)
	j.engine.changed = append(j.engine.changed, Element{Kind: SlowFlow, Flow: f, Pace: s.pace,
		Left: time.Duration(s.until - j.now)})
}

// prolong prolongs a slowness that is about to end, or begins one, and says whether the kernel is to be told: each time
// it is, the sender has a few packets at once.
func (s *slowness) prolong(now int64, pace Pace, length time.Duration) bool {
	if !s.isActive(now) {
		*s = slowness{since: now, until: now + int64(length), pace: pace}
		return true
	}
	if pace = max(s.pace, pace); pace == PaceMinute && length == slowFor && now-s.since >= int64(slowFor)*3/4 {
		pace = PaceTenMinutes
	}
	if s.pace == pace && s.until-now >= int64(length)/4 {
		return false
	}
	s.pace, s.until = pace, max(s.until, now+int64(length))
	return true
}

// dropEnded forgets what is over.
func (l *lane) dropEnded(now int64) {
	for f, until := range l.cuts {
		if until <= now {
			delete(l.cuts, f)
		}
	}
	for f, s := range l.slowFlows {
		if !s.isActive(now) {
			delete(l.slowFlows, f)
		}
	}
}

// endDueLane handles the timer of a lane. It is kept for as long as its steps count.
func (e *Engine) endDueLane(t timer) {
	k, ok := e.keyOfPrefix(t.prefix)
	l := e.lanes[k]
	if !ok || l == nil || l.timerAt != t.at {
		return
	}
	l.dropEnded(e.now)
	l.timerAt = 0
	next := int64(0)
	for _, until := range l.endTimes() {
		if until > e.now && (next == 0 || until < next) {
			next = until
		}
	}
	if e.recountLane(k, l); next != 0 {
		e.setLaneTimer(k, l, next)
	}
}

// endTimes are the times at which something of the lane is over.
func (l *lane) endTimes() []int64 {
	out := []int64{l.trickleUntil, l.slow.until}
	if l.steps > 0 {
		out = append(out, l.lastCut+int64(slowFor))
	}
	for _, until := range l.cuts {
		out = append(out, until)
	}
	for _, s := range l.slowFlows {
		out = append(out, s.until)
	}
	return out
}

// endLane takes back all that is cut and slowed of a source.
func (e *Engine) endLane(k sourceKey) {
	l := e.lanes[k]
	if l == nil {
		return
	}
	delete(e.lanes, k)
	delete(e.lanesWithCuts, k)
	delete(e.lanesWithFlows, k)
	e.addLaneCounts(l.counted, -1)
	for _, el := range e.laneElements(k, l) {
		el.Remove = true
		e.changed = append(e.changed, el)
	}
}

// laneElements are what the kernel should hold of a lane.
func (e *Engine) laneElements(k sourceKey, l *lane) (out []Element) {
	left := func(until int64) time.Duration { return time.Duration(until - e.now) }
	p := e.prefixOf(k)
	if l.trickleUntil > e.now {
		out = append(out, Element{Kind: BanOfPrefix, Prefix: p, Closes: ban.ClosesUDP, Left: left(l.trickleUntil)})
	}
	if l.slow.isActive(e.now) {
		out = append(out, Element{Kind: SlowSource, Prefix: p, Pace: l.slow.pace, Left: left(l.slow.until)})
	}
	for f, until := range l.cuts {
		if until > e.now {
			out = append(out, Element{Kind: CutFlow, Flow: f, Left: left(until)})
		}
	}
	for f, s := range l.slowFlows {
		if s.isActive(e.now) {
			out = append(out, Element{Kind: SlowFlow, Flow: f, Pace: s.pace, Left: left(s.until)})
		}
	}
	slices.SortFunc(out, compareElements)
	return out
}
