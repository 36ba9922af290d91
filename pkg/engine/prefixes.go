package engine

import (
	"net/netip"
	"slices"
)

// prefixes is a set of prefixes with an origin each, made for many look-ups and few changes.
type prefixes struct {
	entries map[netip.Prefix][]origin
	bits4   []int // prefix lengths in use, the longest first
	bits6   []int
}

type origin struct {
	name string // config, manual, host, learned, or a host name
	note string
}

func newPrefixes() *prefixes { return &prefixes{entries: make(map[netip.Prefix][]origin)} }

func (p *prefixes) add(prefix netip.Prefix, o origin) {
	for i, have := range p.entries[prefix] {
		if have.name == o.name {
			p.entries[prefix][i] = o
			return
		}
	}
	p.entries[prefix] = append(p.entries[prefix], o)
	p.index()
}

// remove takes one origin off a prefix, or all of them where name is empty, and reports whether the prefix is gone.
func (p *prefixes) remove(prefix netip.Prefix, name string) bool {
	have, ok := p.entries[prefix]
	if !ok {
		return false
	}
	left := slices.DeleteFunc(have, func(o origin) bool { return name == "" || o.name == name })
	if len(left) > 0 {
		p.entries[prefix] = left
		return false
	}
	delete(p.entries, prefix)
	p.index()
	return true
}

func (p *prefixes) index() {
	p.bits4, p.bits6 = p.bits4[:0], p.bits6[:0]
	for prefix := range p.entries {
		bits := &p.bits6
		if prefix.Addr().Is4() {
			bits = &p.bits4
		}
		if !slices.Contains(*bits, prefix.Bits()) {
			*bits = append(*bits, prefix.Bits())
		}
	}
	for _, bits := range [][]int{p.bits4, p.bits6} {
		slices.SortFunc(bits, func(a, b int) int { return b - a })
	}
}

// covering returns the longest prefix that contains an address.
func (p *prefixes) covering(a netip.Addr) (netip.Prefix, bool) {
	bits := p.bits6
	if a.Is4() {
		bits = p.bits4
	}
	for _, b := range bits {
		prefix, _ := a.Prefix(b)
		if _, ok := p.entries[prefix]; ok {
			return prefix, true
		}
	}
	return netip.Prefix{}, false
}

// overlapping returns a prefix that shares an address with another; of several, the smallest in order.
func (p *prefixes) overlapping(q netip.Prefix) (netip.Prefix, bool) {
	if have, ok := p.covering(q.Addr()); ok && have.Bits() <= q.Bits() {
		return have, true
	}
	if q.IsSingleIP() {
		return netip.Prefix{}, false
	}
	var found netip.Prefix
	for have := range p.entries {
		if have.Overlaps(q) && (!found.IsValid() || comparePrefix(have, found) < 0) {
			found = have
		}
	}
	return found, found.IsValid()
}

// sorted returns all prefixes in order.
func (p *prefixes) sorted() []netip.Prefix {
	all := make([]netip.Prefix, 0, len(p.entries))
	for prefix := range p.entries {
		all = append(all, prefix)
	}
	slices.SortFunc(all, comparePrefix)
	return all
}

func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}
