package engine

import (
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// Pardon is the work of an unban that may reach many bans, done a few at a time, so that events need not wait for it.
type Pardon struct {
	within  netip.Prefix // not valid: everybody
	grace   time.Duration
	begun   bool
	bans    BanWalk
	lanes   RestrictionWalk
	sources map[sourceKey]bool // that are let in: their guesses are forgotten at the end

	// How far that has come in the tables of the same names; see table.Window.RemoveSome.
	strangerFailures uint64
	strangerAttempts uint64
	guessedLogins    uint64

	// Graces are the prefixes that nobody bans again before the grace is over, as of the last step.
	Graces []ban.Grace
	// Restrictions are what was cut or slow until the last step.
	Restrictions []ban.Restriction
	// Observed says that a ban was met which was not enforced.
	Observed bool
}

// NewPardon begins to end every ban within a prefix and every ban of a network that covers it or, where the prefix is
// not valid, every ban, and what is cut or slow there; see Unban about grace. Who is banned after the first step stays
// banned. Close it.
func NewPardon(within netip.Prefix, grace time.Duration) *Pardon {
	p := &Pardon{grace: grace, sources: make(map[sourceKey]bool)}
	if within.IsValid() {
		p.within = canonicalPrefix(within)
	}
	return p
}

// UnbanSome goes on with a Pardon: up to n bans. It returns what ended, and whether there is more to do.
func (e *Engine) UnbanSome(now time.Time, p *Pardon, n int) (out []ban.Decision, more bool) {
	e.advance(now)
	p.Graces, p.Restrictions = p.Graces[:0], p.Restrictions[:0]
	one := p.within.IsValid() && p.within.IsSingleIP()
	if !p.begun {
		p.begun = true
		if p.within.IsValid() {
			e.pardonPrefix(p, e.sourcePrefix(p.within))
		}
		if one { // without a look at the others
			for _, b := range e.overlappingBans(p.within) {
				out = e.endPardonedBan(p, b, out)
			}
		}
	}
	if !one && p.bans.step(e, n, func(b *activeBan) bool {
		if p.within.IsValid() && !p.within.Overlaps(b.prefix) {
			return false
		}
		out = e.endPardonedBan(p, b, out)
		return true
	}) {
		return out, true
	}
	if !one && p.lanes.step(e.lanes, n, func(k sourceKey, _ *lane) {
		if !p.within.IsValid() || p.within.Overlaps(e.prefixOf(k)) {
			e.pardonLane(p, k)
		}
	}) {
		return out, true
	}
	return out, e.forgetGuesses(p, max(64*n, 1<<12))
}

// Close ends a Pardon. Like UnbanSome it must be called by whoever has the engine.
func (p *Pardon) Close() { p.lanes.Close() }

// pardonLane takes back what is cut and slow of a source.
func (e *Engine) pardonLane(p *Pardon, k sourceKey) {
	p.Restrictions = e.appendRestrictions(k, p.Restrictions)
	e.endLane(k)
}

// Uncut takes back that a flow is cut or slow.
func (e *Engine) Uncut(now time.Time, f ban.Flow) (ended []ban.Restriction) {
	e.advance(now)
	k := e.keyOf(f.Source.Addr())
	l := e.lanes[k]
	if l == nil {
		return nil
	}
	for _, r := range e.appendRestrictions(k, nil) {
		if r.Flow != f {
			continue
		}
		el := Element{Kind: CutFlow, Flow: f, Remove: true}
		if r.Kind == ban.RestrictionSlow {
			el.Kind = SlowFlow
		}
		ended, e.changed = append(ended, r), append(e.changed, el)
	}
	delete(l.cuts, f)
	delete(l.slowFlows, f)
	e.recountLane(k, l)
	return ended
}

// endPardonedBan ends one ban.
func (e *Engine) endPardonedBan(p *Pardon, b *activeBan, out []ban.Decision) []ban.Decision {
	e.removeBan(b)
	if b.observed {
		p.Observed = true
	} else {
		d := e.unbanDecision(b, ban.ReasonManual)
		d.Duration = p.grace
		out = append(out, d)
	}
	// A person who lets an address in has not vouched for the network that it is in.
	if q := e.sourcePrefix(b.prefix); !p.within.IsValid() || p.within.Overlaps(q) && q.Bits() >= p.within.Bits() {
		e.pardonPrefix(p, q)
	}
	return out
}

// pardonPrefix is what a person's word means for a source, or a network: a grace, or that its score is forgotten.
func (e *Engine) pardonPrefix(p *Pardon, prefix netip.Prefix) {
	k, ok := e.keyOfPrefix(prefix)
	if ok {
		p.sources[k] = true
		e.pardonLane(p, k)
		e.vouchedFor.Renew(e.now, e.hash(forVouched, k, 0))
		if t := e.trusts[k]; t != nil {
			t.failures, t.beyondStormAt = nil, 0
		}
	}
	if p.grace > 0 {
		until := e.now + int64(p.grace)
		e.grace.Set(prefix, until)
		e.setTimer(until, prefix, endOfGrace)
		p.Graces = append(p.Graces, ban.Grace{Prefix: prefix, Since: utc(e.now), Until: utc(until)})
	} else if ok {
		e.clearScore(k)
	}
}

// forgetGuesses forgets which accounts were guessed by the sources, in a walk over all that was guessed lately, n a
// step.
func (e *Engine) forgetGuesses(p *Pardon, n int) (more bool) {
	if len(p.sources) == 0 {
		return false
	}
	isPardonedFailure := func(f strangerFailures) bool { return p.sources[f.from] }
	isPardonedLogin := func(l guessedLogin) bool { return p.sources[l.from] }
	moreFailures := e.strangerFailures.RemoveSome(&p.strangerFailures, n, isPardonedFailure)
	moreAttempts := e.strangerAttempts.RemoveSome(&p.strangerAttempts, n, isPardonedFailure)
	moreLogins := e.guessedLogins.RemoveSome(&p.guessedLogins, n, isPardonedLogin)
	return moreFailures || moreAttempts || moreLogins
}
