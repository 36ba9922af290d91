package firewall

import (
	"net/netip"
	"slices"
	"time"

	"go4.org/netipx"

	"github.com/ringwall/ringwall/pkg/firewall/internal/nfnl"
	"github.com/ringwall/ringwall/pkg/spans"
)

// The kernel's interval sets refuse overlapping ranges (EEXIST), but bans of overlapping networks are asked for and
// each ends on its own. ranges keeps what was asked for and works out disjoint spans: an address is banned for as
// long as the longest of the networks around it. A network that is covered by a longer-lasting one needs no span;
// it gets one when the other is taken out. No timer is needed: wherever a network ends first, nothing of it shows.

// entry is a network that was asked for.
type entry struct {
	prefix netip.Prefix
	until  time.Time // zero: for ever
}

// span is a range of addresses in the kernel.
type span struct {
	from, to netip.Addr // both inside
	until    time.Time
	origin   netip.Prefix // the entry that it belongs to
}

// ranges is one interval set. Values are never changed in place, so that a transaction that fails leaves the old
// ones.
type ranges struct {
	entries []entry // by address, then the wider first
	spans   []span  // by address
}

// edit is a change to one entry.
type edit struct {
	prefix netip.Prefix
	until  time.Time
	remove bool
}

// jitter is how much two readings of one expiry may differ: the kernel counts in jiffies and its answers take time
// to arrive.
const expiryJitter = 50 * time.Millisecond

// lastsLonger reports whether a lasts longer than b.
func lastsLonger(a, b time.Time) bool {
	return !b.IsZero() && (a.IsZero() || a.After(b))
}

func compareEntries(a, b entry) int {
	if c := a.prefix.Addr().Compare(b.prefix.Addr()); c != 0 {
		return c
	}
	return a.prefix.Bits() - b.prefix.Bits()
}

// afterEdits returns the set after the edits, of which the last for a prefix counts, and the spans to be taken out of
// and put into the kernel.
func (r ranges) afterEdits(edits []edit, now time.Time) (next ranges, del, add []span) {
	last := make(map[netip.Prefix]edit, len(edits))
	for _, e := range edits {
		last[e.prefix] = e
	}
	for _, e := range r.entries {
		if _, changed := last[e.prefix]; !changed && !isOver(e.until, now) {
			next.entries = append(next.entries, e)
		}
	}
	for _, e := range last {
		if !e.remove && !isOver(e.until, now) {
			next.entries = append(next.entries, entry{e.prefix, e.until})
		}
	}
	slices.SortFunc(next.entries, compareEntries)
	next.spans = spansOfEntries(next.entries)

	have := r.spans
	for i := range next.spans {
		want := &next.spans[i]
		for len(have) > 0 && have[0].from.Less(want.from) {
			del = append(del, have[0])
			have = have[1:]
		}
		if len(have) > 0 && have[0].from == want.from {
			if sameSpan(have[0], *want) {
				*want = have[0]
				have = have[1:]
				continue
			}
			del = append(del, have[0])
			have = have[1:]
		}
		add = append(add, *want)
	}
	del = append(del, have...)
	del = slices.DeleteFunc(del, func(s span) bool { return isOver(s.until, now) })
	return next, del, add
}

func isOver(until, now time.Time) bool { return !until.IsZero() && !until.After(now) }

func sameSpan(a, b span) bool {
	if a.to != b.to || a.origin != b.origin || a.until.IsZero() != b.until.IsZero() {
		return false
	}
	return a.until.Sub(b.until).Abs() < expiryJitter
}

// spansOfEntries makes disjoint spans of sorted entries: of those that hold an address, the one that lasts longest has
// it.
func spansOfEntries(entries []entry) (list []span) {
	spans.Disjoint(entries, func(e entry) netip.Prefix { return e.prefix },
		func(inner, outer entry) bool { return lastsLonger(inner.until, outer.until) },
		func(from, to netip.Addr, of entry) {
			list = append(list, span{from: from, to: to, until: of.until, origin: of.prefix})
		})
	return list
}

// rangesFromKernel makes the set from what is in the kernel. Spans that name their origin give it back whole;
// ranges that others added become the fewest networks that cover them.
func rangesFromKernel(found []span) ranges {
	slices.SortFunc(found, func(a, b span) int { return a.from.Compare(b.from) })
	until := make(map[netip.Prefix]time.Time)
	keep := func(p netip.Prefix, t time.Time) {
		if old, ok := until[p]; !ok || lastsLonger(t, old) {
			until[p] = t
		}
	}
	for i := range found {
		s := &found[i]
		if s.origin.IsValid() && s.origin.Contains(s.from) && s.origin.Contains(s.to) {
			keep(s.origin, s.until)
			continue
		}
		for _, p := range fewestPrefixes(s.from, s.to) {
			keep(p, s.until)
		}
	}
	r := ranges{spans: found}
	for p, t := range until {
		r.entries = append(r.entries, entry{p, t})
	}
	slices.SortFunc(r.entries, compareEntries)
	return r
}

// fewestPrefixes returns the fewest prefixes that make up a range.
func fewestPrefixes(from, to netip.Addr) []netip.Prefix {
	var ps []netip.Prefix
	for from.IsValid() && from.Compare(to) <= 0 {
		bits := from.BitLen()
		for bits > 0 {
			p := netip.PrefixFrom(from, bits-1).Masked()
			if p.Addr() != from || netipx.PrefixLastIP(p).Compare(to) > 0 {
				break
			}
			bits--
		}
		p := netip.PrefixFrom(from, bits)
		ps = append(ps, p)
		from = netipx.PrefixLastIP(p).Next()
	}
	return ps
}

// spansTouching returns the spans that touch a prefix, and whether they cover it.
func (r ranges) spansTouching(p netip.Prefix) ([]span, bool) {
	from, to := p.Addr(), netipx.PrefixLastIP(p)
	i, _ := slices.BinarySearchFunc(r.spans, from, func(s span, a netip.Addr) int { return s.to.Compare(a) })
	j := i
	pos := from
	whole := true
	for ; j < len(r.spans) && r.spans[j].from.Compare(to) <= 0; j++ {
		if pos.IsValid() && r.spans[j].from.Compare(pos) > 0 {
			whole = false
		}
		pos = r.spans[j].to.Next()
	}
	return r.spans[i:j], whole && j > i && (!pos.IsValid() || pos.Compare(to) > 0)
}

// kernelElements is the span as the kernel wants it: always start and end together, as a start alone would ban
// everything up to the last address.
func (s *span) kernelElements(now time.Time) []nfnl.SetElement {
	e := nfnl.SetElement{Key: nfnl.Key{Addr: s.from}, Comment: s.origin.String()}
	if !s.origin.IsValid() {
		e.Comment = ""
	}
	if !s.until.IsZero() {
		e.Timeout = max(time.Millisecond, s.until.Sub(now))
	}
	end := s.to.Next()
	if !end.IsValid() {
		e.Open = true
		return []nfnl.SetElement{e}
	}
	return []nfnl.SetElement{e, {Key: nfnl.Key{Addr: end}, End: true}}
}
