package engine

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// AdoptBan takes over a ban that was found in the kernel at start, unless it would hit somebody who is exempt by now.
// Allow and Protect come first. Of a ban that is known, the kernel's own element says how long it lasts; one that lasts
// more than a second longer is another ban, of which nothing else was saved.
func (e *Engine) AdoptBan(now time.Time, p netip.Prefix, closes ban.Closes, until time.Time) {
	e.advanceTime(now)
	p = canonicalPrefix(p)
	if until.UnixNano() <= e.now || e.isFullyExempt(p) {
		return
	}
	if have := e.bans[p]; have != nil && have.until > e.now &&
		(have.observed || until.UnixNano() <= have.until+second) {
		if !have.observed && !have.closes.Covers(closes) { // so that an unban takes out both
			e.bansOfKind[e.kindOf(have)]--
			have.closes = ban.ClosesBoth(have.closes, closes)
			e.bansOfKind[e.kindOf(have)]++
		}
		if !have.observed && until.UnixNano() < have.until {
			have.until = until.UnixNano()
			e.setTimer(have.until, p, endOfBan)
		}
		return
	}
	b := &activeBan{prefix: p, since: e.now, until: until.UnixNano(), reason: ban.ReasonAdopted, number: 1,
		closes: closes, proven: closes != ban.ClosesUDP}
	if p.IsSingleIP() {
		b.source = p.Addr()
	}
	e.addBan(b)
}

// ElementKind is what an Element does.
type ElementKind uint8

// The kinds of elements.
const (
	BanOfPrefix   ElementKind = iota
	GoodFlow                  // passes before every ban but a person's, unless it is cut
	CutFlow                   // ends
	SlowFlow                  // gets its Pace through
	SlowSource                // the same, of a source; good flows of it are not touched
	TrustedSource             // is spared the meter
)

// Pace is how many packets get through a slow lane.
type Pace uint8

// The paces.
const (
	PaceSecond     Pace = iota + 1 // one a second
	PaceMinute                     // 4 a minute
	PaceTenMinutes                 // 4 in ten minutes
)

// Element is one entry that the kernel should hold, or no longer.
type Element struct {
	Kind   ElementKind
	Prefix netip.Prefix // of a ban, a slow source, a trusted source
	Flow   ban.Flow     // of the others
	Closes ban.Closes   // of a ban
	// DoorShut says of a ban that closes UDP that the trickle of ban.knock does not pass it.
	DoorShut bool
	ShutFor  time.Duration // the same for a while; 0 where it does not apply
	Manual   bool          // of a ban: good flows do not pass it
	Pace     Pace          // of what is slow
	Left     time.Duration
	Remove   bool
}

// compareElements orders elements, so that the same events lead to the same changes.
func compareElements(a, b Element) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), a.Prefix.Compare(b.Prefix), a.Flow.Source.Compare(b.Flow.Source))
}

// elementOfBan is what the kernel should hold of a ban.
func (e *Engine) elementOfBan(b *activeBan) Element {
	return Element{Kind: BanOfPrefix, Prefix: b.prefix, Closes: b.closes, DoorShut: e.doorShut(b),
		ShutFor: time.Duration(max(0, b.opens-e.now)),
		Manual:  b.manual && b.reason == ban.ReasonManual, Left: time.Duration(b.until - e.now)}
}

// exchangeElements has the kernel let go of a ban from which a wider one takes over. The decision has that one written
// before; what it closes over UDP is an element of both, and is written again.
func (e *Engine) exchangeElements(old, b *activeBan) {
	gone := e.elementOfBan(old)
	gone.Remove = true
	e.changed = append(e.changed, gone)
	if b.closes == ban.ClosesSIP {
		e.changed = append(e.changed, e.elementOfBan(b))
	}
}

// TakeChanged returns what the kernel should be told of flows, slow lanes and doors since the last call. Bans are told
// by decisions.
func (e *Engine) TakeChanged() []Element {
	out := e.changed
	e.changed = nil
	return out
}

// BanElement returns what the kernel should hold of the enforced ban of exactly this prefix.
func (e *Engine) BanElement(now time.Time, p netip.Prefix) (Element, bool) {
	b := e.bans[p]
	if b == nil || b.observed || b.until <= now.UnixNano() {
		return Element{}, false
	}
	return e.elementOfBan(b), true
}

// EnforcedBans returns every ban that the kernel should hold at now, with the time it has left, in no order.
func (e *Engine) EnforcedBans(now time.Time) []Element {
	e.advanceTime(now)
	out := make([]Element, 0, e.enforcedBans)
	for _, b := range e.bans {
		if !b.observed && b.until > e.now {
			out = append(out, e.elementOfBan(b))
		}
	}
	return out
}

// FlowElements returns every flow that the kernel should let pass, cut or slow at now, and every source that it should
// slow, in no order.
func (e *Engine) FlowElements(now time.Time) []Element {
	e.advanceTime(now)
	out := make([]Element, 0, len(e.goodFlows))
	for f, have := range e.goodFlows {
		if have.until > e.now {
			out = append(out, Element{Kind: GoodFlow, Flow: f, Left: time.Duration(have.until - e.now)})
		}
	}
	for k, l := range e.lanes {
		out = append(out, e.laneElements(k, l)...)
	}
	return out
}

// noteRareBan remembers which bans are in sets of the kernel that few are in, so that SampleRare need not look for
// them.
func (e *Engine) noteRareBan(b *activeBan) {
	if b.observed {
		return
	}
	if b.manual {
		e.manualBans[b.prefix] = struct{}{}
	}
	if _, isSource := e.keyOfPrefix(b.prefix); !isSource || b.closes.IsOfService() || e.doorShut(b) {
		e.rareBans[b.prefix] = struct{}{}
	}
}

// SampleRare returns up to n each of what lies in sets of the kernel that SampleBans may never meet among very many
// bans: bans by hand, of networks, of one service and with a door that is shut, and what is cut or slow.
func (e *Engine) SampleRare(now time.Time, n int) (out []Element) {
	e.advanceTime(now)
	for _, set := range []map[netip.Prefix]struct{}{e.manualBans, e.rareBans} {
		looks := n
		for p := range set { // a map's order begins anywhere
			if looks--; looks < 0 {
				break
			}
			if b := e.bans[p]; b != nil && !b.observed && b.until > e.now {
				out = append(out, e.elementOfBan(b))
			}
		}
	}
	for _, set := range []map[sourceKey]struct{}{e.lanesWithCuts, e.lanesWithFlows} {
		looks := n
		for k := range set {
			if looks--; looks < 0 {
				break
			}
			if l := e.lanes[k]; l != nil {
				out = append(out, sampleElements(e.laneElements(k, l), n)...)
			}
		}
	}
	looks := n
	for k, l := range e.lanes {
		if looks--; looks < 0 {
			break
		}
		out = append(out, sampleElements(e.laneElements(k, l), n)...)
	}
	return out
}

// sampleElements returns up to n elements of each kind.
func sampleElements(all []Element, n int) (out []Element) {
	var taken [TrustedSource + 1]int
	for _, el := range all {
		if taken[el.Kind]++; taken[el.Kind] <= n {
			out = append(out, el)
		}
	}
	return out
}

// SampleBans returns up to n of what EnforcedBans returns, others each time, without a look at them all.
func (e *Engine) SampleBans(now time.Time, n int) []Element {
	e.advanceTime(now)
	out := make([]Element, 0, min(n, e.enforcedBans))
	looks := 4*n + 64          // bans that are only observed are passed over
	for _, b := range e.bans { // a map's order begins anywhere
		if looks--; looks < 0 || len(out) == n {
			break
		}
		if !b.observed && b.until > e.now {
			out = append(out, e.elementOfBan(b))
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
	e.advanceTime(now)
	var out []Element
	for k, t := range e.trusts {
		if t.until > e.now {
			out = append(out, Element{Kind: TrustedSource, Prefix: e.prefixOf(k), Left: time.Duration(t.until - e.now)})
		}
	}
	slices.SortFunc(out, func(a, b Element) int { return a.Prefix.Compare(b.Prefix) })
	return out
}
