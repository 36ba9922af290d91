package engine

import (
	"iter"
	"maps"
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// BanWalk is the place of somebody who goes through all bans a few at a time, the newest first, while the engine goes on
// between. Its zero value begins. What is banned later is left out; of the others, whoever is banned all the while is met
// exactly once.
//
// The place is a ban that was met. Where that has ended meanwhile, what it knew as the older one still leads on: none that
// is in force was ever put between them.
type BanWalk struct {
	at    *activeBan
	begun bool
}

// walkLooks bounds the bans that one step passes over.
const walkLooks = 4

// step moves on and calls each with bans in force until it has accepted n of them or a few times as many were passed over.
// It says whether there is more.
func (w *BanWalk) step(e *Engine, n int, each func(*activeBan) bool) (more bool) {
	if !w.begun {
		w.at, w.begun = e.newestBan, true
	}
	for looks := walkLooks * n; w.at != nil && n > 0 && looks > 0; looks-- {
		b := w.at
		w.at = b.older // each may end it
		if e.bans[b.prefix] == b && b.until > e.now && each(b) {
			n--
		}
	}
	return w.at != nil
}

// WalkBans appends up to n of the bans that overlap a prefix, or of all where it is not valid, to out, and says whether
// there is more to walk through. However many bans there are, it takes a time that depends on n alone.
func (e *Engine) WalkBans(
	now time.Time, w *BanWalk, n int, within netip.Prefix, evidence bool, out []ban.Ban,
) ([]ban.Ban, bool) {
	e.advance(now)
	if within.IsValid() && within.IsSingleIP() { // without a look at the others
		for _, b := range e.overlappingBans(canonicalPrefix(within)) {
			out = append(out, e.viewBan(b, evidence))
		}
		return out, false
	}
	more := w.step(e, n, func(b *activeBan) bool {
		if within.IsValid() && !within.Overlaps(b.prefix) {
			return false
		}
		out = append(out, e.viewBan(b, evidence))
		return true
	})
	return out, more
}

// BanView returns the active ban of exactly a prefix.
func (e *Engine) BanView(now time.Time, p netip.Prefix) (ban.Ban, bool) {
	e.advance(now)
	b := e.bans[canonicalPrefix(p)]
	if b == nil || b.until <= e.now {
		return ban.Ban{}, false
	}
	return e.viewBan(b, false), true
}

// Left returns for how long exactly a prefix is banned, if it is and the ban is enforced.
func (e *Engine) Left(now time.Time, p netip.Prefix) (time.Duration, bool) {
	e.advance(now)
	b := e.bans[canonicalPrefix(p)]
	if b == nil || b.observed || b.until <= e.now {
		return 0, false
	}
	return time.Duration(b.until - e.now), true
}

// TrustWalk is the place of somebody who goes through all customers a few at a time, in no order. Of those that are known
// all the while each is met once. Close it.
type TrustWalk struct {
	next func() (sourceKey, *trust, bool)
	stop func()
}

// step calls each with up to n customers, and says whether there are more. It takes a time that depends on n alone.
func (w *TrustWalk) step(e *Engine, n int, each func(*trust)) (more bool) {
	if w.next == nil { // a map may change while it is walked through (Go's specification, For statements)
		w.next, w.stop = iter.Pull2(maps.All(e.trusts))
	}
	for range n {
		_, t, ok := w.next()
		if !ok {
			return false
		}
		each(t)
	}
	return true
}

// WalkTrust appends what is shown of those among the next n customers who are trusted, and says whether there are more.
func (e *Engine) WalkTrust(now time.Time, w *TrustWalk, n int, out []ban.Trust) ([]ban.Trust, bool) {
	e.advance(now)
	more := w.step(e, n, func(t *trust) {
		if t.until > e.now {
			out = append(out, e.viewTrust(t))
		}
	})
	return out, more
}

// ExportSomeTrusts appends what should survive a restart of the next n customers, and says whether there are more.
func (e *Engine) ExportSomeTrusts(now time.Time, w *TrustWalk, n int, out []ban.Trust) ([]ban.Trust, bool) {
	e.advance(now)
	more := w.step(e, n, func(t *trust) { out = append(out, e.describeTrust(t)) })
	return out, more
}

// Close ends the walk. Like WalkTrust it must be called by whoever has the engine.
func (w *TrustWalk) Close() {
	if w.stop != nil {
		w.stop()
	}
}

// Pardon is the work of letting everybody in, a few at a time, so that events need not wait for it.
type Pardon struct {
	within  netip.Prefix // not valid: everybody
	grace   time.Duration
	begun   bool
	bans    BanWalk
	sources map[sourceKey]bool // whose guesses are to be forgotten
	pairs   uint64             // how far that has come
	breach  uint64

	// Graces are the prefixes that nobody bans again before the grace is over, as of the last step.
	Graces []ban.Grace
	// Observed says that a ban was met which was not enforced.
	Observed bool
}

// NewPardon begins to end every ban within a prefix and every ban of a network that covers it or, where the prefix is not
// valid, every ban; see Unban about grace. Who is banned after the first step stays banned.
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
	p.Graces = p.Graces[:0]
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
	return out, e.forgetGuesses(p, max(64*n, 1<<12))
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
		e.vouchedFor.Renew(e.now, e.hash(forVouched, k, 0))
		if t := e.trusts[k]; t != nil {
			t.failures, t.beyondStormAt = nil, 0
		}
	}
	if p.grace > 0 {
		until := e.now + int64(p.grace)
		e.grace.Set(prefix, until)
		e.setTimer(until, prefix, endOfGrace)
		p.Graces = append(p.Graces, ban.Grace{Prefix: prefix, Until: utc(until)})
	} else if ok {
		e.clearScore(k)
	}
}

// forgetGuesses forgets which accounts were guessed by the sources, in a walk over all that was guessed lately, n a step.
func (e *Engine) forgetGuesses(p *Pardon, n int) (more bool) {
	if len(p.sources) == 0 {
		return false
	}
	pairs := e.strangerFailures.RemoveSome(&p.pairs, n, func(v strangerFailures) bool { return p.sources[v.from] })
	breach := e.guessedLogins.RemoveSome(&p.breach, n, func(b guessedLogin) bool { return p.sources[b.from] })
	return pairs || breach
}
