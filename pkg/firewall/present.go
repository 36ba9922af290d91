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
type present struct {
	seed  maphash.Seed
	start time.Time
	ends  map[uint64]uint32 // by hash of set and key: seconds since start, rounded up
	limit int               // size at which what is over is thrown out
}

// presentMin is where throwing out begins to pay.
const presentMin = 4096

func newPresent(now time.Time) present {
	return present{seed: maphash.MakeSeed(), start: now, ends: make(map[uint64]uint32), limit: presentMin}
}

// hash is that of an element. The zone of an address plays no part: prefixes have none.
func (p *present) hash(set setID, key netip.Addr) uint64 {
	var b [17]byte
	sixteen := key.As16()
	b[0] = byte(set)
	copy(b[1:], sixteen[:])
	return maphash.Bytes(p.seed, b[:])
}

// slack covers the kernel's jiffies and the seconds of the map.
const slack = 2

func (p *present) seconds(t time.Time) uint32 { return uint32(max(0, t.Sub(p.start)/time.Second)) }

// note records an element and reports whether it may have been there before.
func (p *present) note(set setID, key netip.Addr, until, now time.Time) bool {
	h := p.hash(set, key)
	end, ok := p.ends[h]
	if !ok && len(p.ends) >= p.limit {
		p.sweep(now)
	}
	p.ends[h] = p.seconds(until) + slack
	return ok && end >= p.seconds(now)
}

func (p *present) forget(set setID, key netip.Addr) {
	delete(p.ends, p.hash(set, key))
}

func (p *present) sweep(now time.Time) {
	t := p.seconds(now)
	for h, end := range p.ends {
		if end < t {
			delete(p.ends, h)
		}
	}
	p.limit = max(presentMin, 2*len(p.ends))
}
