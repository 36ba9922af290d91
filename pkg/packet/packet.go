// Package packet reads the headers of IP, UDP and TCP from bytes that anybody may have sent.
package packet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Protocol is the protocol behind IP, by its number there (RFC 9293, RFC 768).
type Protocol uint8

// The protocols that have ports here.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

// String returns "tcp" or "udp".
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// Flags are those of TCP (RFC 9293 section 3.1).
type Flags uint8

// The flags that matter to whoever puts a stream together.
const (
	Fin Flags = 1 << iota
	Syn
	Reset
	Push
	Acknowledge
)

// Packet is a packet as its headers tell it.
type Packet struct {
	Source, Destination netip.AddrPort
	Protocol            Protocol
	// Payload is what stands behind the UDP or TCP header, as much of it as there is of the packet: a view into it.
	Payload []byte
	// PayloadSize is how long the headers say that it is, never less than len(Payload). What lies between was not
	// copied, or is in another fragment.
	PayloadSize int
	// Fragment says that this is the first fragment of a datagram. Those behind it have no ports: see ErrFragment.
	Fragment bool

	Sequence, Acknowledged uint32 // of TCP
	Flags                  Flags
}

// Whole reports whether the payload is all there.
func (p *Packet) Whole() bool { return !p.Fragment && len(p.Payload) == p.PayloadSize }

// What Parse refuses.
var (
	// ErrMalformed is no packet that a host would take.
	ErrMalformed = errors.New("packet: malformed")
	// ErrTruncated is a packet of which not even the headers are there.
	ErrTruncated = errors.New("packet: headers are cut off")
	// ErrFragment is a fragment that is not the first: it has no ports.
	ErrFragment = errors.New("packet: not the first fragment")
	// ErrProtocol is neither UDP nor TCP.
	ErrProtocol = errors.New("packet: neither UDP nor TCP")
)

// Sizes of headers (RFC 791 section 3.1, RFC 8200 section 3, RFC 768, RFC 9293 section 3.1).
const (
	ip4Header = 20
	ip6Header = 40
	udpHeader = 8
	tcpHeader = 20
)

// Parse reads a packet from its IP header on. It keeps b, of which the payload is a view, and allocates nothing. What
// p has after an error is of no meaning.
func Parse(b []byte, p *Packet) error {
	if len(b) == 0 {
		return ErrTruncated
	}
	switch b[0] >> 4 {
	case 4:
		return p.parseIP4(b)
	case 6:
		return p.parseIP6(b)
	}
	return ErrMalformed
}

func (p *Packet) parseIP4(b []byte) error {
	if len(b) < ip4Header {
		return ErrTruncated
	}
	header, size := int(b[0]&0x0f)*4, int(binary.BigEndian.Uint16(b[2:]))
	if size == 0 { // joined segments of more than 64 kB (include/linux/ip.h, iph_totlen)
		size = len(b)
	}
	if header < ip4Header || size < header {
		return ErrMalformed
	}
	if len(b) < header {
		return ErrTruncated
	}
	const more, offset = 0x2000, 0x1fff
	fragment := binary.BigEndian.Uint16(b[6:])
	if fragment&offset != 0 {
		return ErrFragment
	}
	source, destination := netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
	p.Fragment = fragment&more != 0
	return p.parseTransport(Protocol(b[9]), source, destination, b[header:min(len(b), size)], size-header)
}

// Extension headers (RFC 8200 section 4, RFC 4302, RFC 6275, RFC 7401, RFC 5533).
const (
	hopByHop           = 0
	routing            = 43
	fragmentHeader     = 44
	authentication     = 51
	destinationOptions = 60
	mobility           = 135
	hostIdentity       = 139
	shim6              = 140

	maxExtensions = 16 // nobody has more than a few
)

func (p *Packet) parseIP6(b []byte) error {
	if len(b) < ip6Header {
		return ErrTruncated
	}
	size := int(binary.BigEndian.Uint16(b[4:]))
	source, destination := netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
	if source.Is4In6() || destination.Is4In6() { // never on the wire (RFC 4038 section 4.2)
		return ErrMalformed
	}
	next, rest := b[6], b[ip6Header:]
	if size == 0 { // a jumbogram (RFC 2675), or joined segments
		size = len(rest)
	}
	rest = rest[:min(len(rest), size)]
	p.Fragment = false
	for range maxExtensions {
		header := 0
		switch next {
		case hopByHop, routing, destinationOptions, mobility, hostIdentity, shim6:
			if len(rest) < 2 {
				return ErrTruncated
			}
			header = (int(rest[1]) + 1) * 8
		case authentication:
			if len(rest) < 2 {
				return ErrTruncated
			}
			header = (int(rest[1]) + 2) * 4
		case fragmentHeader:
			if header = 8; len(rest) < header {
				return ErrTruncated
			}
			fragment := binary.BigEndian.Uint16(rest[2:])
			if fragment>>3 != 0 {
				return ErrFragment
			}
			p.Fragment = fragment&1 != 0
		default:
			return p.parseTransport(Protocol(next), source, destination, rest, size)
		}
		if size < header {
			return ErrMalformed
		}
		if len(rest) < header {
			return ErrTruncated
		}
		next, rest, size = rest[0], rest[header:], size-header
	}
	return ErrMalformed
}

// parseTransport reads a UDP or TCP header; size is what IP says is behind its own.
func (p *Packet) parseTransport(protocol Protocol, source, destination netip.Addr, b []byte, size int) error {
	header := udpHeader
	switch protocol {
	case UDP:
	case TCP:
		header = tcpHeader
	default:
		return ErrProtocol
	}
	if size < header {
		return ErrMalformed
	}
	if len(b) < header {
		return ErrTruncated
	}
	p.Sequence, p.Acknowledged, p.Flags = 0, 0, 0
	if protocol == TCP {
		p.Sequence, p.Acknowledged = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
		p.Flags = Flags(b[13])
		if header = int(b[12]>>4) * 4; header < tcpHeader || size < header {
			return ErrMalformed
		}
		if len(b) < header {
			return ErrTruncated
		}
	} else if n := int(binary.BigEndian.Uint16(b[4:])); n != 0 { // 0: of a jumbogram (RFC 2675 section 4)
		if n < header || !p.Fragment && n > size {
			return ErrMalformed
		}
		size = n
		b = b[:min(len(b), size)]
	}
	p.Protocol = protocol
	p.Source = netip.AddrPortFrom(source, binary.BigEndian.Uint16(b))
	p.Destination = netip.AddrPortFrom(destination, binary.BigEndian.Uint16(b[2:]))
	p.Payload, p.PayloadSize = b[header:], size-header
	return nil
}
