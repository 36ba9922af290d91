package engine

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"net/netip"
)

// purpose keeps the numbers of different windows and maps apart.
type purpose uint64

const (
	forDialogue purpose = iota + 1
	forAttempt
	forGuess
	forChallenge
	forChallenged
	forAccount
	forFailures
	forBreach
	forFailingCustomer
	forStorm
	forTampering
	forSpared
	forLimit
	forActivity
	forSource
	forLoginFlow
	forWiderNetwork
	forGuessing
	forBreachReport
	forSuspected
	forOwner
	forLeak
	forVouched
	forMisconfigured // plus the index of the reason
)

// keyedHash make the numbers below unpredictable to an attacker, who could otherwise choose names that collide.
type keyedHash struct {
	seed   maphash.Seed
	k0, k1 uint64
	sketch uint64 // of bitOf; 0 makes it the same in every engine
}

func newKeyedHash(sketch uint64) keyedHash {
	s := keyedHash{seed: maphash.MakeSeed(), sketch: sketch}
	s.k0, s.k1 = s.hashText("k0"), s.hashText("k1")|1
	return s
}

func (s *keyedHash) hashText(t string) uint64 { return maphash.String(s.seed, t) }

// combine makes one number of two.
func (s *keyedHash) combine(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^s.k0, b^s.k1)
	return hi ^ lo
}

// hash makes a number of a purpose, a source and one more number.
func (s *keyedHash) hash(p purpose, k sourceKey, x uint64) uint64 {
	h := s.combine(binary.LittleEndian.Uint64(k[:8])^uint64(p)*0x9e3779b97f4a7c15, binary.LittleEndian.Uint64(k[8:]))
	return s.combine(h, x)
}

// sketchBit places an account in a sketch of 64 bits. The secret keeps an attacker from guessing accounts that share a bit.
func (s *keyedHash) sketchBit(account string) uint8 {
	h := uint64(14695981039346656037) // FNV-1a
	for i := range len(account) {
		h = (h ^ uint64(account[i])) * 1099511628211
	}
	return uint8((h ^ s.sketch) * (0x9e3779b97f4a7c15 ^ s.sketch<<1) >> 58) // the multiplier is odd
}

// sourceKey is a source: an IPv4 address or an IPv6 prefix, in the 16-byte form of its first address.
type sourceKey [16]byte

// keyOf returns the source that an address belongs to. The address has no zone and is not IPv4-mapped.
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

// keyOfPrefix returns the source that a prefix is, if it is exactly one.
func (e *Engine) keyOfPrefix(p netip.Prefix) (sourceKey, bool) {
	if p.Addr().Is4() && p.Bits() == 32 || p.Addr().Is6() && p.Bits() == e.ipv6Prefix {
		return sourceKey(p.Addr().As16()), true
	}
	return sourceKey{}, false
}

// canonicalPrefix is a prefix in the form that the books are kept in: masked, without a zone, IPv4 not mapped.
func canonicalPrefix(p netip.Prefix) netip.Prefix {
	a := p.Addr().WithZone("")
	if a.Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(a.Unmap(), p.Bits()-96).Masked()
	}
	return netip.PrefixFrom(a, p.Bits()).Masked()
}
