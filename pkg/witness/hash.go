package witness

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"net/netip"
)

// A keyedHash makes hashes that depend on a secret.
type keyedHash struct {
	seed   maphash.Seed
	k0, k1 uint64
}

func newKeyedHash() keyedHash {
	h := keyedHash{seed: maphash.MakeSeed()}
	h.k0, h.k1 = maphash.String(h.seed, "k0"), maphash.String(h.seed, "k1")|1
	return h
}

// purpose says what a hash is for, so that hashes of the same things for different purposes differ.
type purpose uint64

const (
	forDialogue purpose = iota + 1
	forTransaction
	forNonce
	forAnswer
	forLogin
	forSender
	forSource
	forAccount
	forLocal
	forMessage
	forConnection
	forHandshake
	forToken
)

func (h *keyedHash) bytes(b []byte) uint64 { return maphash.Bytes(h.seed, b) }

func (h *keyedHash) text(s string) uint64 { return maphash.String(h.seed, s) }

// combine makes one hash of two: it multiplies them and folds the product, as wyhash does.
func (h *keyedHash) combine(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^h.k0, b^h.k1)
	return hi ^ lo
}

// of makes a hash of a purpose, a hash and one more number.
func (h *keyedHash) of(p purpose, a, b uint64) uint64 {
	return h.combine(h.combine(a, uint64(p)*0x9e3779b97f4a7c15), b)
}

func (h *keyedHash) addr(a netip.Addr) uint64 {
	b := a.As16()
	return h.combine(binary.LittleEndian.Uint64(b[:8]), binary.LittleEndian.Uint64(b[8:]))
}

func (h *keyedHash) addrPort(a netip.AddrPort) uint64 {
	return h.combine(h.addr(a.Addr()), uint64(a.Port()))
}
