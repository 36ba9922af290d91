package engine

import (
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

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
func (j *judgement) endOneShotBan(limit string, proven bool) bool {
	if limit == "forgeable_rate" || !proven && j.engine.refillForgeableBudget() < 1 { // no ban would follow
		return false
	}
	for len(j.engine.oneShotBans) > 0 {
		b := j.engine.oneShotBans[0]
		j.engine.oneShotBans[0] = nil
		j.engine.oneShotBans = j.engine.oneShotBans[1:]
		if j.engine.bans[b.prefix] == b && b.until > j.now && b.prefix != j.engine.prefixOf(j.key) {
			j.out = append(j.out, j.engine.endBans([]*activeBan{b}, ban.ReasonLimit, "gave way to a source that goes on attacking: policy.limits."+limit+" is reached")...)
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
