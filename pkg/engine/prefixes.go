package engine

import (
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
)

// prefixes maps prefixes to values.
type prefixes[V any] struct{ table bart.Table[V] }

func newPrefixes[V any]() *prefixes[V] { return new(prefixes[V]) }

func (p *prefixes[V]) set(prefix netip.Prefix, v V) { p.table.Insert(prefix, v) }

func (p *prefixes[V]) delete(prefix netip.Prefix) { p.table.Delete(prefix) }

// at returns the value of exactly a prefix, or the zero value.
func (p *prefixes[V]) at(prefix netip.Prefix) V {
	v, _ := p.table.Get(prefix)
	return v
}

// len returns how many prefixes there are.
func (p *prefixes[V]) len() int { return p.table.Size() }

// covering returns the longest prefix that contains an address.
func (p *prefixes[V]) covering(a netip.Addr) (netip.Prefix, bool) {
	if !p.table.Contains(a) { // the usual answer
		return netip.Prefix{}, false
	}
	return p.containing(netip.PrefixFrom(a, a.BitLen()))
}

// containing returns the longest prefix that holds all of another.
func (p *prefixes[V]) containing(q netip.Prefix) (netip.Prefix, bool) {
	have, _, ok := p.table.LookupPrefixLPM(q)
	return have, ok
}

// overlapping returns a prefix that shares an address with another: one that holds all of it, or else the first within it.
func (p *prefixes[V]) overlapping(q netip.Prefix) (netip.Prefix, bool) {
	if have, ok := p.containing(q); ok {
		return have, true
	}
	for have := range p.table.Subnets(q) {
		return have, true
	}
	return netip.Prefix{}, false
}

// sorted returns all prefixes in order.
func (p *prefixes[V]) sorted() []netip.Prefix {
	all := make([]netip.Prefix, 0, p.len())
	for prefix := range p.table.AllSorted() {
		all = append(all, prefix)
	}
	return all
}

// origin says by what a prefix is exempt. One prefix may have several.
type origin struct {
	name  string // config, manual, host, a host name, or the Asterisk that it was learned from
	note  string
	until int64 // ns; 0: until it is taken off
}

// addOrigin adds an origin to a prefix, and reports whether the prefix is new.
func addOrigin(p *prefixes[[]origin], prefix netip.Prefix, o origin) bool {
	have, old := p.table.Get(prefix)
	if i := slices.IndexFunc(have, func(h origin) bool { return h.name == o.name }); i >= 0 {
		have[i] = o
		return false
	}
	p.set(prefix, append(have, o))
	return !old
}

// longestOrigin is the origin that exempts a prefix the longest; there must be one.
func longestOrigin(list []origin) origin {
	best := list[0]
	for _, o := range list[1:] {
		if best.until != 0 && (o.until == 0 || o.until > best.until) {
			best = o
		}
	}
	return best
}

// removeOrigin takes an origin off a prefix, or all of them where name is empty, and reports whether the prefix is gone.
func removeOrigin(p *prefixes[[]origin], prefix netip.Prefix, name string) bool {
	have, ok := p.table.Get(prefix)
	if !ok {
		return false
	}
	left := slices.DeleteFunc(have, func(o origin) bool { return name == "" || o.name == name })
	if len(left) > 0 {
		p.set(prefix, left)
		return false
	}
	p.delete(prefix)
	return true
}

func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}
