package table

import (
	"net/netip"

	"github.com/gaissmai/bart"
)

// Prefixes maps prefixes, which are masked and without a zone, to values. The zero Prefixes is empty.
type Prefixes[V any] struct{ tree bart.Table[V] }

// Set gives a prefix a value.
func (p *Prefixes[V]) Set(prefix netip.Prefix, value V) { p.tree.Insert(prefix, value) }

// Delete takes a prefix out.
func (p *Prefixes[V]) Delete(prefix netip.Prefix) { p.tree.Delete(prefix) }

// Get returns the value of exactly a prefix.
func (p *Prefixes[V]) Get(prefix netip.Prefix) (value V, ok bool) { return p.tree.Get(prefix) }

// At returns the value of exactly a prefix, or the zero value.
func (p *Prefixes[V]) At(prefix netip.Prefix) V {
	value, _ := p.tree.Get(prefix)
	return value
}

// Len returns how many prefixes there are.
func (p *Prefixes[V]) Len() int { return p.tree.Size() }

// Covering returns the longest prefix that contains an address.
func (p *Prefixes[V]) Covering(a netip.Addr) (netip.Prefix, bool) {
	if !p.tree.Contains(a) { // the usual answer
		return netip.Prefix{}, false
	}
	return p.Containing(netip.PrefixFrom(a, a.BitLen()))
}

// Containing returns the longest prefix that holds all of another.
func (p *Prefixes[V]) Containing(inner netip.Prefix) (netip.Prefix, bool) {
	found, _, ok := p.tree.LookupPrefixLPM(inner)
	return found, ok
}

// Overlapping returns a prefix that shares an address with another: one that holds all of it, or else the first within
// it.
func (p *Prefixes[V]) Overlapping(other netip.Prefix) (netip.Prefix, bool) {
	if found, ok := p.Containing(other); ok {
		return found, true
	}
	for found := range p.tree.Subnets(other) {
		return found, true
	}
	return netip.Prefix{}, false
}

// Sorted returns all prefixes in order.
func (p *Prefixes[V]) Sorted() []netip.Prefix {
	all := make([]netip.Prefix, 0, p.Len())
	for prefix := range p.tree.AllSorted() {
		all = append(all, prefix)
	}
	return all
}
