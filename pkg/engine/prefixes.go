package engine

import (
	"net/netip"
	"slices"
)

// prefixes maps prefixes to values, made for many look-ups and few changes. A look-up of what holds an address or a prefix
// never costs more than a few reads, however many changes came before it: a person may let hundreds of thousands in with a
// grace. A change only marks the order as stale, so that thousands of changes in a row cost one sorting, where the order is
// asked for at all.
type prefixes[V any] struct {
	entries map[netip.Prefix]V
	stale   bool
	order   []netip.Prefix // all, by address and length
	bits4   []int          // prefix lengths in use, the longest first
	bits6   []int
	used4   [33]int // entries of each length
	used6   [129]int
	near4   []uint64 // a bit for each IPv4 /16 that shares an address with an entry, or did
}

func newPrefixes[V any]() *prefixes[V] { return &prefixes[V]{entries: make(map[netip.Prefix]V)} }

func (p *prefixes[V]) set(prefix netip.Prefix, v V) {
	if _, ok := p.entries[prefix]; !ok {
		p.stale = true
		p.note(prefix, 1)
	}
	p.entries[prefix] = v
}

func (p *prefixes[V]) delete(prefix netip.Prefix) {
	if _, ok := p.entries[prefix]; ok {
		delete(p.entries, prefix)
		p.stale = true
		p.note(prefix, -1)
	}
}

// note counts an entry in, or out.
func (p *prefixes[V]) note(prefix netip.Prefix, n int) {
	used, bits := p.used6[:], &p.bits6
	if prefix.Addr().Is4() {
		used, bits = p.used4[:], &p.bits4
		if n > 0 {
			p.near(prefix)
		}
	}
	length := prefix.Bits()
	at, found := slices.BinarySearchFunc(*bits, length, func(have, want int) int { return want - have })
	switch used[length] += n; {
	case used[length] > 0 && !found:
		*bits = slices.Insert(*bits, at, length)
	case used[length] == 0 && found:
		*bits = slices.Delete(*bits, at, at+1)
	}
	if len(p.entries) == 0 { // of what was there before
		clear(p.near4)
		if n > 0 && prefix.Addr().Is4() {
			p.near(prefix)
		}
	}
}

func (p *prefixes[V]) near(prefix netip.Prefix) {
	if p.near4 == nil {
		p.near4 = make([]uint64, 1<<16/64)
	}
	a := prefix.Addr().As4()
	first := int(a[0])<<8 | int(a[1])
	for n := range 1 << max(0, 16-prefix.Bits()) {
		p.near4[(first+n)/64] |= 1 << ((first + n) % 64)
	}
}

// sort brings the order up to date.
func (p *prefixes[V]) sort() {
	if !p.stale {
		return
	}
	p.stale = false
	p.order = p.order[:0]
	clear(p.near4)
	for prefix := range p.entries {
		p.order = append(p.order, prefix)
		if prefix.Addr().Is4() {
			p.near(prefix)
		}
	}
	slices.SortFunc(p.order, comparePrefix)
}

// covering returns the longest prefix that contains an address.
func (p *prefixes[V]) covering(a netip.Addr) (netip.Prefix, bool) {
	if len(p.entries) == 0 {
		return netip.Prefix{}, false
	}
	bits := p.bits6
	if a.Is4() {
		b := a.As4()
		n := int(b[0])<<8 | int(b[1])
		if p.near4 == nil || p.near4[n/64]&(1<<(n%64)) == 0 {
			return netip.Prefix{}, false
		}
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

// containing returns the longest prefix that holds all of another.
func (p *prefixes[V]) containing(q netip.Prefix) (netip.Prefix, bool) {
	bits := p.bits6
	if q.Addr().Is4() {
		bits = p.bits4
	}
	for _, b := range bits {
		if b > q.Bits() {
			continue
		}
		prefix, _ := q.Addr().Prefix(b)
		if _, ok := p.entries[prefix]; ok {
			return prefix, true
		}
	}
	return netip.Prefix{}, false
}

// overlapping returns a prefix that shares an address with another: one that holds all of it, or else the first within it.
func (p *prefixes[V]) overlapping(q netip.Prefix) (netip.Prefix, bool) {
	if have, ok := p.containing(q); ok {
		return have, true
	}
	p.sort()
	i, _ := slices.BinarySearchFunc(p.order, q, comparePrefix)
	if i < len(p.order) && q.Contains(p.order[i].Addr()) {
		return p.order[i], true
	}
	return netip.Prefix{}, false
}

// sorted returns all prefixes in order.
func (p *prefixes[V]) sorted() []netip.Prefix {
	p.sort()
	return slices.Clone(p.order)
}

// origin says by what a prefix is exempt. One prefix may have several.
type origin struct {
	name  string // config, manual, host, a host name, or the Asterisk that it was learned from
	note  string
	until int64 // ns; 0: until it is taken off
}

// exempt adds an origin to a prefix, and reports whether the prefix is new.
func exempt(p *prefixes[[]origin], prefix netip.Prefix, o origin) bool {
	have, old := p.entries[prefix]
	if i := slices.IndexFunc(have, func(h origin) bool { return h.name == o.name }); i >= 0 {
		have[i] = o
		return false
	}
	p.set(prefix, append(have, o))
	return !old
}

// lasting is the origin that exempts a prefix the longest; there must be one.
func lasting(list []origin) origin {
	best := list[0]
	for _, o := range list[1:] {
		if best.until != 0 && (o.until == 0 || o.until > best.until) {
			best = o
		}
	}
	return best
}

// expose takes an origin off a prefix, or all of them where name is empty, and reports whether the prefix is gone.
func expose(p *prefixes[[]origin], prefix netip.Prefix, name string) bool {
	have, ok := p.entries[prefix]
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
