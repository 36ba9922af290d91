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

// The origins of allowed and protected prefixes.
const (
	originConfig = "config"
	OriginManual = "manual" // ringwall allow add
	OriginHost   = "host"   // this machine's own addresses, its gateways, loopback and link-local

)

// ErrRefused is a ban that would hit somebody whom it must not hit.
var ErrRefused = errors.New("refused")

// Ban bans a prefix because a person said so. A longer ban of the same prefix is kept; a shorter one is extended.
// It fails with ErrRefused where the prefix holds an allowed or protected address.
func (e *Engine) Ban(now time.Time, p netip.Prefix, d time.Duration, comment string) ([]ban.Decision, error) {
	return e.banByHand(now, p, d, comment, ban.ReasonManual)
}

// Test is Ban for an address that nobody has, to see whether bans work: it is counted nowhere, and its decisions and that of
// its end have [ban.ReasonTest].
func (e *Engine) Test(now time.Time, p netip.Prefix, d time.Duration, comment string) ([]ban.Decision, error) {
	return e.banByHand(now, p, d, comment, ban.ReasonTest)
}

// relation says which of two prefixes that overlap is in the other, the second one last.
func relation(p, have netip.Prefix) string {
	switch {
	case p == have:
		return p.String()
	case have.Bits() < p.Bits():
		return fmt.Sprintf("%v is in %v", p, have)
	}
	return fmt.Sprintf("%v holds %v", p, have)
}

func (e *Engine) banByHand(now time.Time, p netip.Prefix, d time.Duration, comment string, reason ban.Reason) ([]ban.Decision, error) {
	e.advance(now)
	p = canonicalPrefix(p)
	if have, ok := e.protected.Overlapping(p); ok {
		return nil, fmt.Errorf("%w: %s, which Asterisk knows (%s)", ErrRefused, relation(p, have), e.protected.At(have)[0].note)
	}
	if have, ok := e.allow.Overlapping(p); ok {
		return nil, fmt.Errorf("%w: %s, which is allowed (%s)", ErrRefused, relation(p, have), e.allow.At(have)[0].name)
	}
	action := ban.ActionBan
	b := &activeBan{prefix: p, since: e.now, until: e.now + int64(d), reason: reason, proven: true, manual: true, number: 1,
		comment: comment}
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
	return []ban.Decision{{Time: utc(e.now), Action: action, Source: b.source, Prefix: p, Reason: reason, Proven: true,
		Duration: d, Detail: comment}}, nil
}

// Unban ends every ban within a prefix and every ban of a network that covers it. With a grace, no source within the
// prefix is banned again for so long, and its score stays; without one the score of the source is forgotten. The guesses
// are forgotten in both cases: a person has vouched for it, so a login that follows is no breach.
func (e *Engine) Unban(now time.Time, p netip.Prefix, grace time.Duration) []ban.Decision {
	return e.unban(now, NewPardon(p, grace))
}

// UnbanAll ends every ban.
func (e *Engine) UnbanAll(now time.Time) []ban.Decision {
	return e.unban(now, NewPardon(netip.Prefix{}, 0))
}

// unban does all of a pardon at once: in order, so that the same events lead to the same decisions.
func (e *Engine) unban(now time.Time, p *Pardon) (out []ban.Decision) {
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
	details.overflowPoints, details.pace, details.failingAccounts, details.challengedAccounts = 0, pace{}, table.DistinctFew{}, table.Distinct{}
	e.classifySource(s)
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

// bansWithinExemption returns the bans that an exemption of p makes pointless: those within it, and that of the IPv6 source which it
// is part of. A wider ban stays for the others; the kernel lets exempt addresses pass before it.
func (e *Engine) bansWithinExemption(p netip.Prefix) []*activeBan {
	return slices.DeleteFunc(e.overlappingBans(p), func(b *activeBan) bool { return !e.isFullyExempt(b.prefix) })
}

// Allow adds a prefix to the allow list and ends the bans within it. The origin is OriginManual, OriginHost or
// the host name that it was resolved from.
func (e *Engine) Allow(now time.Time, p netip.Prefix, originName, note string) []ban.Decision {
	e.advance(now)
	p = canonicalPrefix(p)
	if !addOrigin(&e.allow, p, origin{name: originName, note: note}) {
		return nil
	}
	return e.endBans(e.bansWithinExemption(p), ban.ReasonAllowed, "")
}

// AllowUntil is Allow with an end, for what a person allows. Of what is allowed by hand already the later end stays, and the
// zero time is no end at all: who was promised something keeps it. It returns the end that counts.
func (e *Engine) AllowUntil(now time.Time, p netip.Prefix, until time.Time, note string) (time.Time, []ban.Decision) {
	e.advance(now)
	p = canonicalPrefix(p)
	end := int64(0)
	if !until.IsZero() {
		if end = until.UnixNano(); end <= e.now {
			return until, nil
		}
	}
	have := e.allow.At(p)
	if i := slices.IndexFunc(have, func(o origin) bool { return o.name == OriginManual }); i >= 0 && end != 0 &&
		(have[i].until == 0 || have[i].until > end) {
		end = have[i].until
	}
	fresh := addOrigin(&e.allow, p, origin{name: OriginManual, note: note, until: end})
	if end != 0 {
		e.setTimer(end, p, endOfAllow)
	}
	if !fresh {
		return utcOrZero(end), nil
	}
	return utcOrZero(end), e.endBans(e.bansWithinExemption(p), ban.ReasonAllowed, "")
}

// endDueAllow takes what was allowed until now off the allow list. A timer may come before the end, which was put off.
func (e *Engine) endDueAllow(p netip.Prefix) {
	over := func(o origin) bool { return o.until != 0 && o.until <= e.now }
	have := e.allow.At(p)
	if !slices.ContainsFunc(have, over) {
		return // put off, which has set another timer, or taken off
	}
	e.lapsedAllows = append(e.lapsedAllows, p)
	if left := slices.DeleteFunc(slices.Clone(have), over); len(left) > 0 {
		e.allow.Set(p, left)
		return
	}
	e.allow.Delete(p)
}

// TakeLapsedAllows returns what was allowed by hand until a time that has come, once each.
func (e *Engine) TakeLapsedAllows() []netip.Prefix {
	list := e.lapsedAllows
	e.lapsedAllows = nil
	return list
}

// AllowedUntil is the end of what a person allowed of exactly this prefix; the zero time is for ever, or not at all.
func (e *Engine) AllowedUntil(p netip.Prefix) time.Time {
	for _, o := range e.allow.At(canonicalPrefix(p)) {
		if o.name == OriginManual {
			return utcOrZero(o.until)
		}
	}
	return time.Time{}
}

func utcOrZero(at int64) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return utc(at)
}

// Disallow takes a prefix of one origin off the allow list. It reports whether nothing allows the prefix any more.
func (e *Engine) Disallow(p netip.Prefix, originName string) bool {
	return removeOrigin(&e.allow, canonicalPrefix(p), originName)
}

// AllowedBy returns the origins by which exactly this prefix is allowed.
func (e *Engine) AllowedBy(p netip.Prefix) []string {
	var names []string
	for _, o := range e.allow.At(canonicalPrefix(p)) {
		names = append(names, o.name)
	}
	return names
}

// Protect replaces all that was learned from one Asterisk by a new list, and ends the bans of what is on it.
func (e *Engine) Protect(now time.Time, pbx string, learned map[netip.Prefix]string) []ban.Decision {
	e.advance(now)
	list := make(map[netip.Prefix]string, len(learned))
	for _, p := range sortedKeys(learned) {
		list[canonicalPrefix(p)] = learned[p]
	}
	for _, p := range e.protected.Sorted() {
		if _, ok := list[p]; !ok {
			removeOrigin(&e.protected, p, pbx)
		}
	}
	var out []ban.Decision
	for _, p := range sortedKeys(list) {
		if addOrigin(&e.protected, p, origin{name: pbx, note: list[p]}) {
			out = append(out, e.endBans(e.bansWithinExemption(p), ban.ReasonProtected, list[p])...)
		}
	}
	return out
}

// Adopt takes over a ban that was found in the kernel at start, unless it would hit somebody who is exempt by now. Allow
// and Protect come first. Of a ban that is known, the kernel's own element says how long it lasts; one that lasts more than
// a second longer is another ban, of which nothing else was saved.
func (e *Engine) Adopt(now time.Time, p netip.Prefix, until time.Time) {
	e.advance(now)
	p = canonicalPrefix(p)
	if until.UnixNano() <= e.now || e.isFullyExempt(p) {
		return
	}
	if have := e.bans[p]; have != nil && have.until > e.now && (have.observed || until.UnixNano() <= have.until+second) {
		if !have.observed && until.UnixNano() < have.until {
			have.until = until.UnixNano()
			e.setTimer(have.until, p, endOfBan)
		}
		return
	}
	b := &activeBan{prefix: p, since: e.now, until: until.UnixNano(), reason: ban.ReasonAdopted, proven: true, number: 1}
	if p.IsSingleIP() {
		b.source = p.Addr()
	}
	e.addBan(b)
}

// isFullyExempt says whether nobody may be banned by a ban of exactly this prefix: it lies within an exempt one, or it is a
// source that holds one.
func (e *Engine) isFullyExempt(p netip.Prefix) bool {
	if _, ok := e.allow.Containing(p); ok {
		return true
	}
	if _, ok := e.protected.Containing(p); ok {
		return true
	}
	_, source := e.keyOfPrefix(p)
	return source && e.holdsExempt(p)
}

// Element is one entry that the kernel should hold.
type Element struct {
	Prefix netip.Prefix
	Left   time.Duration // of a ban
}

// EnforcedBans returns every ban that the kernel should hold at now, with the time it has left, in no order.
func (e *Engine) EnforcedBans(now time.Time) []Element {
	e.advance(now)
	out := make([]Element, 0, e.enforcedBans)
	for _, b := range e.bans {
		if !b.observed && b.until > e.now {
			out = append(out, Element{Prefix: b.prefix, Left: time.Duration(b.until - e.now)})
		}
	}
	return out
}

// SampleBans returns up to n of what Enforced returns, others each time, without a look at them all.
func (e *Engine) SampleBans(now time.Time, n int) []Element {
	e.advance(now)
	out := make([]Element, 0, min(n, e.enforcedBans))
	looks := 4*n + 64          // bans that are only observed are passed over
	for _, b := range e.bans { // a map's order begins anywhere
		if looks--; looks < 0 || len(out) == n {
			break
		}
		if !b.observed && b.until > e.now {
			out = append(out, Element{Prefix: b.prefix, Left: time.Duration(b.until - e.now)})
		}
	}
	return out
}

// ExemptPrefixes returns every prefix that the kernel should let pass whatever is banned: what is allowed and what is protected.
func (e *Engine) ExemptPrefixes() []netip.Prefix {
	out := append(e.allow.Sorted(), e.protected.Sorted()...)
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// TrustedSources returns every source that is trusted at now, with the time that trust has left.
func (e *Engine) TrustedSources(now time.Time) []Element {
	e.advance(now)
	var out []Element
	for k, t := range e.trusts {
		if t.until > e.now {
			out = append(out, Element{Prefix: e.prefixOf(k), Left: time.Duration(t.until - e.now)})
		}
	}
	slices.SortFunc(out, func(a, b Element) int { return a.Prefix.Compare(b.Prefix) })
	return out
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

// IsExempt says whether an address is allowed or protected.
func (e *Engine) IsExempt(a netip.Addr) bool {
	if _, ok := e.allow.Covering(a); ok {
		return true
	}
	_, ok := e.protected.Covering(a)
	return ok
}
