package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine/internal/table"
)

// ErrRefused is a ban that would hit somebody whom it must not hit.
var ErrRefused = errors.New("refused")

// Ban bans a prefix because a person said so. A longer ban of the same prefix is kept; a shorter one is extended.
// It fails with ErrRefused where the prefix holds an allowed or protected address.
func (e *Engine) Ban(now time.Time, p netip.Prefix, d time.Duration, comment string) ([]ban.Decision, error) {
	return e.banByHand(now, p, d, comment, ban.ReasonManual)
}

// BanForTest is Ban for an address that nobody has, to see whether bans work: it is counted nowhere, and the decisions
// that make and end it have [ban.ReasonTest].
func (e *Engine) BanForTest(now time.Time, p netip.Prefix, d time.Duration, comment string) ([]ban.Decision, error) {
	return e.banByHand(now, p, d, comment, ban.ReasonTest)
}

// describeOverlap says which of two prefixes that overlap is in the other, the second one last.
func describeOverlap(p, have netip.Prefix) string {
	switch {
	case p == have:
		return p.String()
	case have.Bits() < p.Bits():
		return fmt.Sprintf("%v is in %v", p, have)
	}
	return fmt.Sprintf("%v holds %v", p, have)
}

// banByHand bans a prefix for a person, for one of the two reasons.
func (e *Engine) banByHand(
	now time.Time, p netip.Prefix, d time.Duration, comment string, reason ban.Reason,
) ([]ban.Decision, error) {
	e.advanceTime(now)
	p = canonicalPrefix(p)
	if have, ok := e.protected.Overlapping(p); ok {
		note := e.protected.At(have)[0].note
		return nil, fmt.Errorf("%w: %s, which Asterisk knows (%s)", ErrRefused, describeOverlap(p, have), note)
	}
	if have, ok := e.allow.Overlapping(p); ok {
		name := e.allow.At(have)[0].name
		return nil, fmt.Errorf("%w: %s, which is allowed (%s)", ErrRefused, describeOverlap(p, have), name)
	}
	action := ban.ActionBan
	b := &activeBan{
		prefix: p, since: e.now, until: e.now + int64(d), reason: reason, proven: true, manual: true, number: 1,
		comment: comment,
	}
	if p.IsSingleIP() {
		b.source = p.Addr()
	}
	if have := e.bans[p]; have != nil && have.until > e.now && !have.observed {
		if have.until >= b.until {
			return nil, nil
		}
		action = ban.ActionExtend
		b.evidence, have.evidence = have.evidence, nil
		b.moreEvidence, b.attempts, b.score, b.number = have.moreEvidence, have.attempts, have.score, have.number
	}
	e.grace.Delete(p)
	e.addBan(b)
	if action == ban.ActionBan && reason != ban.ReasonTest {
		e.activity.countBan(e.now)
	}
	return []ban.Decision{{Time: utcTime(e.now), Action: action, Source: b.source, Prefix: p, Reason: reason,
		Proven: true,
		Scope:  e.scopeOf(b), Duration: d, Detail: comment}}, nil
}

// Unban ends every ban within a prefix and every ban of a network that covers it. With a grace, no source within the
// prefix is banned again for so long, and its score stays; without one the score of the source is forgotten. The
// guesses are forgotten in both cases: a person has vouched for it, so a login that follows is no breach.
func (e *Engine) Unban(now time.Time, p netip.Prefix, grace time.Duration) []ban.Decision {
	return e.unban(now, NewPardon(p, grace))
}

// UnbanAll ends every ban.
func (e *Engine) UnbanAll(now time.Time) []ban.Decision {
	return e.unban(now, NewPardon(netip.Prefix{}, 0))
}

// unban does all of a pardon at once: in order, so that the same events lead to the same decisions.
func (e *Engine) unban(now time.Time, p *Pardon) (out []ban.Decision) {
	defer p.Close()
	for more := true; more; {
		var some []ban.Decision
		some, more = e.UnbanSome(now, p, 1<<16)
		out = append(out, some...)
	}
	if !p.within.IsValid() || !p.within.IsSingleIP() {
		slices.SortStableFunc(out, func(a, b ban.Decision) int { return a.Prefix.Compare(b.Prefix) })
	}
	return out
}

// sourcePrefix widens a single IPv6 address to the source that it is judged as.
func (e *Engine) sourcePrefix(p netip.Prefix) netip.Prefix {
	if p.IsSingleIP() {
		return e.prefixOf(e.keyOf(p.Addr()))
	}
	return p
}

// clearScore forgets what speaks against a source, but not that it was banned, and not what forgetSome forgets.
func (e *Engine) clearScore(k sourceKey) {
	s := e.sources.get(k)
	if s == nil {
		return
	}
	s.score, s.provenScore, s.observedScore = 0, 0, 0
	details := e.sources.detailsOf(s)
	details.overflowPoints, details.pace, details.managerScore = 0, pace{}, 0
	details.failingAccounts, details.challengedAccounts = table.DistinctFew{}, table.Distinct{}
	e.classifySource(s)
}
