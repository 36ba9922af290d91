// Package spans makes ranges of addresses, no two of which overlap, of networks that lie in each other.
package spans

import (
	"net/netip"

	"go4.org/netipx"
)

// Disjoint calls emit for each range of what entries hold, by address, with the entry that it belongs to. The entries
// are sorted by address, the wider first, so that they nest and never cross. An entry inside another one has its
// addresses if it outranks that one, and else none.
func Disjoint[E any](
	entries []E, prefixOf func(E) netip.Prefix, outranks func(inner, outer E) bool,
	emit func(from, to netip.Addr, of E),
) {
	var (
		stack []E        // those that the sweep is inside of, each outranking the one below
		pos   netip.Addr // the first address that no range was made for; invalid past the last one
	)
	innermost := func() E { return stack[len(stack)-1] }
	upTo := func(to netip.Addr) {
		if pos.IsValid() && pos.Compare(to) <= 0 {
			emit(pos, to, innermost())
		}
	}
	leave := func() {
		last := netipx.PrefixLastIP(prefixOf(innermost()))
		upTo(last)
		if pos.IsValid() && pos.Compare(last) <= 0 {
			pos = last.Next()
		}
		stack = stack[:len(stack)-1]
	}
	for _, e := range entries {
		start := prefixOf(e).Addr()
		for len(stack) > 0 && !prefixOf(innermost()).Contains(start) {
			leave()
		}
		if len(stack) > 0 {
			if !outranks(e, innermost()) {
				continue
			}
			if before := start.Prev(); before.IsValid() {
				upTo(before)
			}
		}
		stack = append(stack, e)
		pos = start
	}
	for len(stack) > 0 {
		leave()
	}
}
