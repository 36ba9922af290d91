package engine

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
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
	seed         maphash.Seed
	k0, k1       uint64
	sketchSecret uint64 // of bitOf; 0 makes it the same in every engine
}

func newKeyedHash(sketch uint64) keyedHash {
	s := keyedHash{seed: maphash.MakeSeed(), sketchSecret: sketch}
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
	return uint8((h ^ s.sketchSecret) * (0x9e3779b97f4a7c15 ^ s.sketchSecret<<1) >> 58) // the multiplier is odd
}
