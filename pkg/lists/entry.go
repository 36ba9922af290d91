package lists

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

// Entry is one address or network of a list, in 24 bytes: a list may have a million.
type Entry struct {
	high, low uint64 // of the address as 16 bytes; IPv4 is all in low
	ends      uint32 // Unix seconds, 0: as long as the list names it
	bits      uint8
	v6        bool
	list      uint8 // of several that are merged
}

// NewEntry makes an entry of a prefix whose host bits are 0. ends is zero for as long as the list names it.
func NewEntry(p netip.Prefix, ends time.Time) Entry {
	e := Entry{bits: uint8(p.Bits()), v6: p.Addr().Is6()}
	if e.v6 {
		a := p.Addr().As16()
		e.high, e.low = binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:])
	} else {
		a := p.Addr().As4()
		e.low = uint64(binary.BigEndian.Uint32(a[:]))
	}
	if !ends.IsZero() {
		e.ends = uint32(max(1, min(ends.Unix(), 1<<32-1)))
	}
	return e
}

func (e Entry) addr() netip.Addr {
	if !e.v6 {
		return netip.AddrFrom4([4]byte{byte(e.low >> 24), byte(e.low >> 16), byte(e.low >> 8), byte(e.low)})
	}
	var a [16]byte
	binary.BigEndian.PutUint64(a[:8], e.high)
	binary.BigEndian.PutUint64(a[8:], e.low)
	return netip.AddrFrom16(a)
}

// Prefix is what the entry names.
func (e Entry) Prefix() netip.Prefix { return netip.PrefixFrom(e.addr(), int(e.bits)) }

// Ends is when the entry is over by itself, zero for never.
func (e Entry) Ends() time.Time {
	if e.ends == 0 {
		return time.Time{}
	}
	return time.Unix(int64(e.ends), 0)
}

// isOver reports whether the entry's own time is over.
func (e Entry) isOver(now time.Time) bool { return e.ends != 0 && int64(e.ends) <= now.Unix() }

func (e Entry) isHost() bool { return e.bits == 32 && !e.v6 || e.bits == 128 }

// compare orders by family, address, then the wider first.
func (e Entry) compare(o Entry) int {
	if e.v6 != o.v6 {
		if o.v6 {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(e.high, o.high), cmp.Compare(e.low, o.low), cmp.Compare(e.bits, o.bits))
}

// Sort puts entries into the order that this package wants them in.
func Sort(entries []Entry) { slices.SortFunc(entries, Entry.compare) }
