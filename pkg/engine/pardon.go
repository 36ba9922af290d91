package engine

import (
	"net/netip"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine/internal/table"
)

// Pardon is the work of an unban that may reach many bans, done a few at a time, so that events need not wait for it.
type Pardon struct {
	within  netip.Prefix // not valid: everybody
	grace   time.Duration
	begun   bool
	bans    BanWalk
	lanes   RestrictionWalk
	sources map[sourceKey]bool // that are let in: their guessed logins are forgotten at the end

	guessedLogins uint64 // how far that has come; see table.Window.RemoveSome

	// Graces are the prefixes that nobody bans again before the grace is over, as of the last step.
	Graces []ban.Grace
	// Restrictions are what was cut or slow until the last step.
	Restrictions []ban.Restriction
	// Here says that it is for this node alone, whatever other nodes of the fleet do.
	Here bool
	// Origins are the nodes of the fleet on whose word there were bans that ended, at most maxOrigins.
	Origins []string
	// Observed says that a ban was met which was not enforced.
	Observed bool
}

const maxOrigins = 20

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
	e.advanceTime(now)
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
	return out, e.forgetGuessedLogins(p, max(64*n, 1<<12))
}

// Close ends a Pardon. Like UnbanSome it must be called by whoever has the engine.
func (p *Pardon) Close() { p.lanes.Close() }

// pardonLane takes back what is cut and slow of a source.
func (e *Engine) pardonLane(p *Pardon, k sourceKey) {
	p.Restrictions = e.appendRestrictions(k, p.Restrictions)
	e.endLane(k)
}

// LiftFlow takes back that a flow is cut or slow.
func (e *Engine) LiftFlow(now time.Time, f ban.Flow) (ended []ban.Restriction) {
	e.advanceTime(now)
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
		d.Duration, d.Here = p.grace, p.Here
		if b.origin != "" {
			d.Detail = "as seen by " + b.origin
			if !slices.Contains(p.Origins, b.origin) && len(p.Origins) < maxOrigins {
				p.Origins = append(p.Origins, b.origin)
			}
		}
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
		vouched, _ := e.vouchedFor.Renew(e.now, e.hash(forVouched, k, 0))
		*vouched = e.now
		if t := e.trusts[k]; t != nil {
			t.failures, t.beyondStormAt = nil, 0
		}
	}
	if p.grace > 0 {
		until := e.now + int64(p.grace)
		e.grace.Set(prefix, until)
		e.setTimer(until, prefix, endOfGrace)
		p.Graces = append(p.Graces, ban.Grace{Prefix: prefix, Since: utcTime(e.now), Until: utcTime(until)})
	} else if ok {
		e.clearScore(k)
	}
}

// forgetGuessedLogins forgets which logins of the sources followed guesses, in a walk over all of them, n a step.
func (e *Engine) forgetGuessedLogins(p *Pardon, n int) (more bool) {
	if len(p.sources) == 0 {
		return false
	}
	return e.guessedLogins.RemoveSome(&p.guessedLogins, n, func(l guessedLogin) bool { return p.sources[l.from] })
}

// isPardoned says whether a person has vouched for the source of the event since an account failed there the last time:
// such failures count for nothing any more. To look for them all at an unban would take a walk over everybody's.
func (j *judgement) isPardoned(f *failures) bool {
	vouched := j.engine.vouchedFor.Get(j.now, j.hash(forVouched, 0))
	return vouched != nil && f.leakedAt <= *vouched
}

// failuresIn returns how an account fails at the source of the event, by one of the tables of strangers, up to date.
func (j *judgement) failuresIn(strangers *table.Window[failures], id uint64) *failures {
	f, old := strangers.Renew(j.now, j.hash(forFailures, id))
	if !old || j.isPardoned(f) {
		*f = failures{pace: pace{leakedAt: j.now}}
	}
	f.drain(j.now, j.policy.Misconfigured.PerMinute)
	return f
}

// knownFailures returns how a wrong password of an account failed at the source of the event while that had no trust,
// or nil.
func (j *judgement) knownFailures(id uint64) *failures {
	f := j.engine.strangerFailures.Get(j.now, j.hash(forFailures, id))
	if f == nil || j.isPardoned(f) {
		return nil
	}
	return f
}
