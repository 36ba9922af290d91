package firewall

import (
	"hash/maphash"
	"net/netip"
	"time"
)

// present remembers which hashed elements may be in the kernel. It only
// chooses the cheaper way of writing one: a transaction that fails costs 20 ms
// in the kernel (it waits for RCU), adding with care three times as much as
// adding what is new. A wrong "may be" costs microseconds; a wrong "is not" is
// found out by the kernel, and the transaction done again.
//
// A flood asks it of every element, and with a million of them a Go map takes
// four times as long. It knows an element by 31 bits of a hash: two that share
// them are taken for one, which is one of the two errors above.
type present struct {
	seed  maphash.Seed
	start time.Time
	parts [presentParts]part

	looked uint64 // so that no compiler thinks that look is of no use
}

// part is a table of open addressing. It grows in one go, hence there are
// several: no ban waits until megabytes are copied.
type part struct {
	places []uint64 // the hash, then the end: seconds since start, rounded up; 0 where nobody is
	used   int      // places that are not 0
}

const (
	presentParts = 32
	presentMin   = 128 // places of a part
)

func newPresent(now time.Time) present {
	return present{seed: maphash.MakeSeed(), start: now}
}

// hash is that of an element, never 0. The zone of an address plays no part: prefixes have none.
func (p *present) hash(set setID, key netip.Addr) uint32 {
	var b [17]byte
	sixteen := key.As16()
	b[0] = byte(set)
	copy(b[1:], sixteen[:])
	return uint32(maphash.Bytes(p.seed, b[:])) | 1<<31
}

func (p *present) part(h uint32) *part { return &p.parts[h%presentParts] }

// find returns the place of a hash, or the empty one where it belongs.
func (t *part) find(h uint32) *uint64 {
	mask := uint32(len(t.places) - 1)
	for i := h / presentParts; ; i++ {
		if e := &t.places[i&mask]; *e == 0 || uint32(*e>>32) == h {
			return e
		}
	}
}

// slack covers the kernel's jiffies and the rounding to seconds.
const slack = 2

func (p *present) seconds(t time.Time) uint32 { return uint32(max(0, t.Sub(p.start)/time.Second)) }

// lookAhead is how many elements are looked at together.
const lookAhead = 16

// look hashes elements and looks at their places. The memory of several is on its way at a time; note alone would wait
// for that of each.
func (p *present) look(ops []op) {
	for i := range ops {
		ops[i].hash = p.hash(ops[i].set, ops[i].key)
	}
	for i := range ops {
		if t := p.part(ops[i].hash); len(t.places) > 0 {
			p.looked += *t.find(ops[i].hash)
		}
	}
}

// note records an element and reports whether it may have been there before.
func (p *present) note(h uint32, until, now time.Time) bool {
	t := p.seconds(now)
	part := p.part(h)
	if part.used >= len(part.places)/4*3 {
		part.sweep(t)
	}
	e := part.find(h)
	before := *e
	if before == 0 {
		part.used++
	}
	*e = uint64(h)<<32 | uint64(p.seconds(until)+slack)
	return before != 0 && uint32(before) >= t
}

// forget takes an element out. Its place stays in use, or what came after it there would not be found.
func (p *present) forget(h uint32) {
	part := p.part(h)
	if len(part.places) == 0 {
		return
	}
	if e := part.find(h); *e != 0 {
		*e = *e >> 32 << 32
	}
}

// sweep throws out what is over, and makes room for as much again as is left.
func (t *part) sweep(now uint32) {
	old := t.places
	stays := func(e uint64) bool { return uint32(e) > 0 && uint32(e) >= now }
	t.used = 0
	for _, e := range old {
		if stays(e) {
			t.used++
		}
	}
	size := presentMin
	for size < 2*t.used {
		size *= 2
	}
	t.places = make([]uint64, size)
	for _, e := range old {
		if stays(e) {
			*t.find(uint32(e >> 32)) = e
		}
	}
}
