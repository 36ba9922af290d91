package engine

import (
	"net/netip"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// Adopt takes over a ban that was found in the kernel at start, unless it would hit somebody who is exempt by now.
// Allow and Protect come first. Of a ban that is known, the kernel's own element says how long it lasts; one that lasts
// more than a second longer is another ban, of which nothing else was saved.
func (e *Engine) Adopt(now time.Time, p netip.Prefix, until time.Time) {
	e.advance(now)
	p = canonicalPrefix(p)
	if until.UnixNano() <= e.now || e.isFullyExempt(p) {
		return
	}
	if have := e.bans[p]; have != nil && have.until > e.now &&
		(have.observed || until.UnixNano() <= have.until+second) {
		if !have.observed && until.UnixNano() < have.until {
			have.until = until.UnixNano()
			e.setTimer(have.until, p, endOfBan)
		}
		return
	}
	b := &activeBan{prefix: p, since: e.now, until: until.UnixNano(), reason: ban.ReasonAdopted, proven: true,
		number: 1}
	if p.IsSingleIP() {
		b.source = p.Addr()
	}
	e.addBan(b)
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

// SampleBans returns up to n of what EnforcedBans returns, others each time, without a look at them all.
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

// ExemptPrefixes returns every prefix that the kernel should let pass whatever is banned: what is allowed and what is
// protected.
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
