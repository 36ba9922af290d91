package engine

import (
	"encoding/binary"
	"net/netip"
)

// sourceKey names a source, an IPv4 address or an IPv6 network of policy.ipv6_prefix bits, by the 16 bytes of its first
// address.
type sourceKey [16]byte

// keyOf returns the key of the source that an address belongs to. The address has no zone and is not IPv4-mapped.
func (e *Engine) keyOf(a netip.Addr) sourceKey {
	if a.Is4() {
		return a.As16()
	}
	p, _ := a.Prefix(e.ipv6Prefix)
	return p.Addr().As16()
}

// prefixOf returns the prefix of a source.
func (e *Engine) prefixOf(k sourceKey) netip.Prefix {
	a := netip.AddrFrom16(k)
	if a.Is4In6() {
		return netip.PrefixFrom(a.Unmap(), 32)
	}
	return netip.PrefixFrom(a, e.ipv6Prefix)
}

// keyOfPrefix returns the key of the source that a prefix is, if it is exactly one.
func (e *Engine) keyOfPrefix(p netip.Prefix) (sourceKey, bool) {
	if p.Addr().Is4() && p.Bits() == 32 || p.Addr().Is6() && p.Bits() == e.ipv6Prefix {
		return sourceKey(p.Addr().As16()), true
	}
	return sourceKey{}, false
}

// canonicalPrefix is a prefix in the form in which all maps of the engine have it: masked, without a zone, IPv4 not
// mapped.
func canonicalPrefix(p netip.Prefix) netip.Prefix {
	a := p.Addr().WithZone("")
	if a.Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(a.Unmap(), p.Bits()-96).Masked()
	}
	return netip.PrefixFrom(a, p.Bits()).Masked()
}

// ownerNetwork returns the network that a provider gives to one customer: an address of IPv4, a /48 of IPv6 (RIPE-690).
func ownerNetwork(k sourceKey) sourceKey {
	if binary.BigEndian.Uint64(k[:8]) == 0 { // IPv4, mapped
		return k
	}
	clear(k[6:])
	return k
}

// IsSource says whether a prefix is exactly one source: an IPv4 address, or an IPv6 network of policy.ipv6_prefix bits.
func (e *Engine) IsSource(p netip.Prefix) bool {
	_, ok := e.keyOfPrefix(canonicalPrefix(p))
	return ok
}
