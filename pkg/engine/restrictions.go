package engine

import (
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// RestrictionWalk is how far somebody has come who goes through all that is cut or slow, a few sources at a time. Close
// it.
type RestrictionWalk struct{ mapWalk[sourceKey, *lane] }

// WalkRestrictions appends what is cut or slow of the next n sources that overlap a prefix, or of all where it is not
// valid, and says whether there are more.
func (e *Engine) WalkRestrictions(
	now time.Time, w *RestrictionWalk, n int, within netip.Prefix, out []ban.Restriction,
) ([]ban.Restriction, bool) {
	e.advanceTime(now)
	if within.IsValid() && within.IsSingleIP() { // without a look at the others
		return e.appendRestrictions(e.keyOf(within.Addr()), out), false
	}
	more := w.step(e.lanes, n, func(k sourceKey, _ *lane) {
		if !within.IsValid() || within.Overlaps(e.prefixOf(k)) {
			out = e.appendRestrictions(k, out)
		}
	})
	return out, more
}

// appendRestrictions appends what is cut or slow of a source.
func (e *Engine) appendRestrictions(k sourceKey, out []ban.Restriction) []ban.Restriction {
	l := e.lanes[k]
	if l == nil {
		return out
	}
	for _, el := range e.laneElements(k, l) {
		r := ban.Restriction{Scope: ban.ScopeFlow, Prefix: e.prefixOf(k), Flow: el.Flow,
			Until: utcTime(e.now + int64(el.Left)),
			Left:  ban.Round(el.Left.Seconds())}
		switch el.Kind {
		case CutFlow:
			r.Kind = ban.RestrictionCut
		case SlowFlow, SlowSource:
			r.Kind = ban.RestrictionSlow
			r.Packets, r.Every = el.Pace.rate()
		default: // over UDP, what has not logged in
			r.Kind, r.Packets, r.Every = ban.RestrictionTrickle, int(e.policy.Ban.Knock), time.Minute.Seconds()
		}
		if !el.Flow.IsValid() {
			r.Scope = ban.ScopeSource
		}
		out = append(out, r)
	}
	return out
}

// rate is how many packets pass in how many seconds.
func (p Pace) rate() (packets int, every float64) {
	switch p {
	case PaceSecond:
		return 1, time.Second.Seconds()
	case PaceTenMinutes:
		return 4, (10 * time.Minute).Seconds()
	}
	return 4, time.Minute.Seconds()
}

// FlowWalk is how far somebody has come who goes through all good flows. Close it.
type FlowWalk struct{ mapWalk[ban.Flow, goodFlow] }

// WalkGoodFlows appends those among the next n good flows that come from within a prefix, and says whether there are
// more.
func (e *Engine) WalkGoodFlows(
	now time.Time, w *FlowWalk, n int, within netip.Prefix, out []ban.GoodFlow,
) ([]ban.GoodFlow, bool) {
	e.advanceTime(now)
	more := w.step(e.goodFlows, n, func(f ban.Flow, have goodFlow) {
		if have.until > e.now && within.Contains(f.Source.Addr()) {
			out = append(out, ban.GoodFlow{Flow: f, Until: utcTime(have.until),
				Left: ban.Round(time.Duration(have.until - e.now).Seconds())})
		}
	})
	return out, more
}

// laneCounts are how many of the kernel's elements lanes stand for.
type laneCounts struct{ cuts, cuts6, slowFlows, slowSources, trickles int }

// recountLane brings the counts up to date after a change of a lane, and forgets one in which nothing is left.
func (e *Engine) recountLane(k sourceKey, l *lane) {
	if e.lanes[k] != l { // it has ended
		return
	}
	e.addLaneCounts(l.counted, -1)
	l.counted = laneCounts{cuts: len(l.cuts), slowFlows: len(l.slowFlows)}
	if e.prefixOf(k).Addr().Is6() {
		l.counted.cuts6 = len(l.cuts)
	}
	if l.slow.isActive(e.now) {
		l.counted.slowSources = 1
	}
	if l.trickleUntil > e.now {
		l.counted.trickles = 1
	}
	e.addLaneCounts(l.counted, 1)
	setMember(e.lanesWithCuts, k, l.counted.cuts > 0)
	setMember(e.lanesWithFlows, k, l.counted.slowFlows > 0)
	if l.counted == (laneCounts{}) && (l.steps == 0 || e.now-l.lastCut >= int64(slowFor)) {
		delete(e.lanes, k)
	}
}

// setMember puts a key into a set, or takes it out.
func setMember[K comparable](set map[K]struct{}, key K, is bool) {
	if is {
		set[key] = struct{}{}
	} else {
		delete(set, key)
	}
}

func (e *Engine) addLaneCounts(c laneCounts, n int) {
	e.laneCounts.cuts += n * c.cuts
	e.laneCounts.cuts6 += n * c.cuts6
	e.laneCounts.slowFlows += n * c.slowFlows
	e.laneCounts.slowSources += n * c.slowSources
	e.laneCounts.trickles += n * c.trickles
}
