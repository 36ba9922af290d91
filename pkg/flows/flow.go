package flows

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Attributes of ctnetlink, include/uapi/linux/netfilter/nfnetlink_conntrack.h.
const (
	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaID         = 12
	ctaZone       = 18
	ctaFilter     = 25

	ctaTupleIP    = 1
	ctaTupleProto = 2

	ctaIPv4Source = 1
	ctaIPv6Source = 3

	ctaProtoNum        = 1
	ctaProtoSourcePort = 2
	ctaProtoDestPort   = 3
)

const (
	genHeader  = 4 // struct nfgenmsg: family, version, resource
	attrHeader = 4
	// The upper two bits of a type are flags (linux/netlink.h).
	attrTypeMask = 0x3fff
)

// flow is what is needed of an entry; its slices lie in the message.
type flow struct {
	family      uint8
	orig, reply tuple
	// Whole attributes, header included: what names the entry to the kernel.
	tuple, zone, id []byte
}

// tuple is one direction; the ports are 0 in a protocol without.
type tuple struct {
	src          netip.Addr
	proto        uint8
	sport, dport uint16
}

// parse reads an entry of a dump. The library's parser makes 63 allocations
// an entry and keeps the whole table in memory, 58 MB of messages for 200,000
// flows; this one makes none and keeps nothing.
func parse(msg []byte, f *flow) bool {
	*f = flow{}
	if len(msg) < genHeader {
		return false
	}
	f.family = msg[0]
	ok := eachAttr(msg[genHeader:], func(kind uint16, whole, value []byte) bool {
		switch kind {
		case ctaTupleOrig:
			f.tuple = whole
			return f.orig.parse(value)
		case ctaTupleReply:
			return f.reply.parse(value)
		case ctaZone:
			f.zone = whole
		case ctaID:
			f.id = whole
		}
		return true
	})
	return ok && f.tuple != nil && f.orig.src.IsValid()
}

func (t *tuple) parse(b []byte) bool {
	*t = tuple{} // a later attribute of the same kind replaces the earlier one
	return eachAttr(b, func(kind uint16, _, value []byte) bool {
		switch kind {
		case ctaTupleIP:
			return eachAttr(value, func(kind uint16, _, value []byte) bool {
				switch {
				case kind == ctaIPv4Source && len(value) == 4,
					kind == ctaIPv6Source && len(value) == 16:
					t.src, _ = netip.AddrFromSlice(value)
				}
				return true
			})
		case ctaTupleProto:
			return eachAttr(value, func(kind uint16, _, value []byte) bool {
				switch {
				case kind == ctaProtoNum && len(value) == 1:
					t.proto = value[0]
				case kind == ctaProtoSourcePort && len(value) == 2:
					t.sport = binary.BigEndian.Uint16(value)
				case kind == ctaProtoDestPort && len(value) == 2:
					t.dport = binary.BigEndian.Uint16(value)
				}
				return true
			})
		}
		return true
	})
}

// eachAttr calls f for each attribute until f says no. It returns false then,
// and where a length is wrong.
func eachAttr(b []byte, f func(kind uint16, whole, value []byte) bool) bool {
	for len(b) >= attrHeader {
		n := int(binary.NativeEndian.Uint16(b))
		if n < attrHeader || n > len(b) {
			return false
		}
		kind := binary.NativeEndian.Uint16(b[2:]) & attrTypeMask
		if !f(kind, b[:n:n], b[attrHeader:n:n]) {
			return false
		}
		b = b[min(align(n), len(b)):]
	}
	return true
}

func align(n int) int { return (n + 3) &^ 3 }

// appendAttr adds an attribute; its value is padded to the next word.
func appendAttr(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attrHeader+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	return pad(append(b, value...))
}

func nest(b []byte, kind uint16, value []byte) []byte {
	return appendAttr(b, kind|unix.NLA_F_NESTED, value)
}

func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// appendName adds the nfgenmsg header and the attributes that name this entry
// and no other: the original tuple, its zone, and the id, which another flow
// with the same tuple would not have.
func (f *flow) appendName(b []byte) []byte {
	b = append(b, f.family, unix.NFNETLINK_V0, 0, 0)
	for _, a := range [][]byte{f.tuple, f.zone, f.id} {
		b = pad(append(b, a...))
	}
	return b
}
