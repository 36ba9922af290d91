package engine

import (
	"net/netip"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// hasRoom takes one ban from policy.limits, or says in the metrics and once an hour that they are used up. Of forged
// packets anybody can make any number: a source that is proven, or goes on, takes the room of one that came once.
func (j *judgement) hasRoom(s *source, prefix netip.Prefix, proven bool) bool {
	limit := j.engine.reserveBan(proven)
	if limit != "" && (proven || float64(s.score) >= 2*j.policy.Threshold) && j.endOneShotBan(limit, proven) {
		limit = j.engine.reserveBan(proven)
	}
	if limit == "" {
		return true
	}
	j.engine.hitLimits[limit]++
	j.engine.leftOut = j.now
	if j.engine.firstReport(forLimit, sourceKey{}, j.engine.hashText(limit)) {
		j.appendDecision(ban.ActionObserve, ban.ReasonLimit, prefix, 0, proven,
			"bans are left out, by policy.limits."+limit+": see the metrics")
	}
	return false
}

// reserveBan takes one ban from policy.limits. It returns "", or the key of the limit that is used up.
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

// refillForgeableBudget fills up what limits.forgeable_rate gives by now, and returns how many bans on evidence that
// could be forged may begin at once.
func (e *Engine) refillForgeableBudget() float64 {
	l := e.policy.Limits
	saved := float64(l.ForgeableRate) * time.Duration(e.now-e.forgeableBudgetAt).Seconds()
	e.forgeableBudget = min(float64(l.ForgeableBurst), e.forgeableBudget+saved)
	e.forgeableBudgetAt = e.now
	return e.forgeableBudget
}

// endOneShotBan ends the oldest ban of a source that was banned once, on evidence that could be forged, and says
// whether there was one.
func (j *judgement) endOneShotBan(limit string, proven bool) bool {
	if limit == "forgeable_rate" || !proven && j.engine.refillForgeableBudget() < 1 { // no ban would follow
		return false
	}
	for len(j.engine.oneShotBans) > 0 {
		b := j.engine.oneShotBans[0]
		j.engine.oneShotBans[0] = nil
		j.engine.oneShotBans = j.engine.oneShotBans[1:]
		if j.engine.bans[b.prefix] == b && b.until > j.now && b.prefix != j.engine.prefixOf(j.key) {
			j.out = append(j.out, j.engine.endBans([]*activeBan{b}, ban.ReasonLimit,
				"gave way to a source that goes on attacking: policy.limits."+limit+" is reached")...)
			return true
		}
	}
	return false
}

// queueOneShot remembers a ban, if it is one that may give way to another.
func (e *Engine) queueOneShot(b *activeBan) {
	if b.proven || b.manual || b.observed || b.number != 1 || b.reason == ban.ReasonNetwork {
		return
	}
	if len(e.oneShotBans) > 2*e.forgeableBans+1024 { // most of them are over
		e.oneShotBans = slices.DeleteFunc(e.oneShotBans, func(b *activeBan) bool { return e.bans[b.prefix] != b })
	}
	e.oneShotBans = append(e.oneShotBans, b)
}
