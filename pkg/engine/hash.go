package engine

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
)

// purpose says what a hash is for, so that hashes of the same things for different purposes differ.
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
	forLoginFlow
	forWiderNetwork
	forGuessing
	forBreachReport
	forSuspected
	forOwner
	forNewPlace
	forProxyFlow
	forProxyReport
	forLeak
	forVouched
	forCut
	forMisconfigured // plus the index of the reason
)

// keyedHash makes hashes that depend on a secret: an attacker could otherwise choose names that collide.
type keyedHash struct {
	seed         maphash.Seed
	k0, k1       uint64 // of combine
	sketchSecret uint64 // of sketchBit; 0 makes that the same in every engine
}

func newKeyedHash(sketch uint64) keyedHash {
	s := keyedHash{seed: maphash.MakeSeed(), sketchSecret: sketch}
	s.k0, s.k1 = s.hashText("k0"), s.hashText("k1")|1
	return s
}

// hashText makes a hash of a text.
func (s *keyedHash) hashText(t string) uint64 { return maphash.String(s.seed, t) }

// combine makes one hash of two: it multiplies them and folds the product, as wyhash does. An event needs
// several: maphash.Comparable takes nearly twice the time.
func (s *keyedHash) combine(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^s.k0, b^s.k1)
	return hi ^ lo
}

// hash makes a hash of a purpose, a source and one more number.
func (s *keyedHash) hash(p purpose, k sourceKey, detail uint64) uint64 {
	h := s.combine(binary.LittleEndian.Uint64(k[:8])^uint64(p)*0x9e3779b97f4a7c15, binary.LittleEndian.Uint64(k[8:]))
	return s.combine(h, detail)
}

// sketchBit is the bit of an account in a table.Distinct. The secret keeps an attacker from guessing accounts that
// share it.
func (s *keyedHash) sketchBit(account string) uint8 {
	h := uint64(14695981039346656037) // FNV-1a
	for i := range len(account) {
		h = (h ^ uint64(account[i])) * 1099511628211
	}
	return uint8((h ^ s.sketchSecret) * (0x9e3779b97f4a7c15 ^ s.sketchSecret<<1) >> 58) // the multiplier is odd
}
