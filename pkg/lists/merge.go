package lists

import (
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/spans"
)

// List is a list that takes part in a merge.
type List struct {
	Name    string
	Enforce bool    // else its packets are only counted
	Entries []Entry // sorted, as from Parse and Clean
}

// Element is an address of one list, or a range of them.
type Element struct {
	From, To netip.Addr // both inside
	List     int        // its place in what was merged
	Ends     time.Time  // zero: as long as the list names it
}

// Merged is what several lists name together: no address twice.
type Merged struct {
	hosts []Entry   // addresses, sorted
	nets  []Entry   // networks, sorted, some in others
	spans []Element // the networks, disjoint, by address
	left  []LeftOut
}

// Merge puts lists together. Of two that name an address the one that is enforced has it, else the first. What
// overlaps an exemption is left out whole, and so is what is over at now.
func Merge(all []List, exempt []Exemption, now time.Time) *Merged {
	m := &Merged{left: make([]LeftOut, len(all))}
	x := newExemptions(exempt)
	hosts := 0
	for _, l := range all {
		hosts += len(l.Entries)
	}
	m.hosts = make([]Entry, 0, hosts)
	for i, l := range all {
		for _, e := range l.Entries {
			if e.isOver(now) {
				continue
			}
			if len(x.ranges) > 0 {
				if of, ok := x.overlapping(e.Prefix()); ok {
					m.left[i].add(e, Exempt, of)
					continue
				}
			}
			e.list = uint8(i)
			if e.isHost() {
				m.hosts = append(m.hosts, e)
			} else {
				m.nets = append(m.nets, e)
			}
		}
	}
	rank := func(list uint8) int {
		if all[list].Enforce {
			return int(list)
		}
		return len(all) + int(list)
	}
	order := func(a, b Entry) int {
		if c := a.compare(b); c != 0 {
			return c
		}
		return rank(a.list) - rank(b.list)
	}
	same := func(a, b Entry) bool { return a.compare(b) == 0 }
	slices.SortFunc(m.nets, order)
	m.nets = slices.CompactFunc(m.nets, same)
	m.spans = flatten(m.nets, rank)
	slices.SortFunc(m.hosts, order)
	m.hosts = slices.CompactFunc(m.hosts, same)
	// An address that a network covers needs no place of its own, unless the network's list outranks it not.
	s := m.spans
	kept := m.hosts[:0]
	for _, e := range m.hosts {
		a := e.addr()
		for len(s) > 0 && s[0].To.Less(a) {
			s = s[1:]
		}
		if len(s) > 0 && s[0].From.Compare(a) <= 0 && rank(uint8(s[0].List)) <= rank(e.list) {
			continue
		}
		kept = append(kept, e)
	}
	m.hosts = slices.Clip(kept)
	return m
}

// flatten makes disjoint spans of sorted networks, which nest and never cross: where several hold an address, the one
// of the least rank has it, of equal ones the wider.
func flatten(nets []Entry, rank func(uint8) int) (flat []Element) {
	spans.Disjoint(nets, Entry.Prefix, func(inner, outer Entry) bool { return rank(inner.list) < rank(outer.list) },
		func(from, to netip.Addr, of Entry) {
			next := Element{from, to, int(of.list), of.Ends()}
			if n := len(flat); n > 0 && flat[n-1].List == next.List && flat[n-1].Ends.Equal(next.Ends) &&
				flat[n-1].To.Next() == from {
				flat[n-1].To = to // of neighbours the kernel needs one range
				return
			}
			flat = append(flat, next)
		})
	return flat
}

// Elements yields what the kernel needs: each address, and the networks as disjoint ranges.
func (m *Merged) Elements() iter.Seq[Element] {
	return func(yield func(Element) bool) {
		for i := range m.Len() {
			if !yield(m.Element(i)) {
				return
			}
		}
	}
}

// Element is one of [Merged.Len] elements.
func (m *Merged) Element(i int) Element {
	if i >= len(m.hosts) {
		return m.spans[i-len(m.hosts)]
	}
	e := m.hosts[i]
	return Element{e.addr(), e.addr(), int(e.list), e.Ends()}
}

// Len is how many elements the kernel needs.
func (m *Merged) Len() int { return len(m.hosts) + len(m.spans) }

// LeftOut is what of a list overlaps exemptions.
func (m *Merged) LeftOut(list int) LeftOut { return m.left[list] }

// Find returns which list an address is dropped or counted for.
func (m *Merged) Find(a netip.Addr) (list int, ok bool) {
	a = a.Unmap().WithZone("")
	if !a.IsValid() {
		return 0, false
	}
	key := NewEntry(netip.PrefixFrom(a, a.BitLen()), time.Time{})
	if i, ok := slices.BinarySearchFunc(m.hosts, key, Entry.compare); ok {
		return int(m.hosts[i].list), true
	}
	i, _ := slices.BinarySearchFunc(m.spans, a, func(s Element, a netip.Addr) int { return s.To.Compare(a) })
	if i < len(m.spans) && m.spans[i].From.Compare(a) <= 0 {
		return m.spans[i].List, true
	}
	return 0, false
}

// Holding returns the narrowest entry of a list that holds an address.
func Holding(entries []Entry, a netip.Addr, now time.Time) (netip.Prefix, bool) {
	a = a.Unmap().WithZone("")
	if !a.IsValid() {
		return netip.Prefix{}, false
	}
	for bits := a.BitLen(); bits >= 0; bits-- {
		p, _ := a.Prefix(bits)
		if i, ok := slices.BinarySearchFunc(entries, NewEntry(p, time.Time{}), Entry.compare); ok &&
			!entries[i].isOver(now) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}
