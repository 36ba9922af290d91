package hep

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"
)

// Packet is one HEP packet. Its slices are views of the bytes that were decoded, and hold what a peer chose. The
// payload of a SIP request has its credentials: no log and no file is a place for it.
type Packet struct {
	// Source and Destination are of the message, not of the packet. Of a request that Asterisk received, Destination is
	// Asterisk's.
	Source, Destination netip.AddrPort
	// Protocol is UDP or TCP; res_hep_pjsip.so says TCP for every transport that is reliable. TLS, WS and WSS are told
	// from TCP by Asterisk's port alone.
	Protocol Protocol
	// Time is when Asterisk had the message, by its clock; zero where the packet does not say.
	Time time.Time
	// Content is what the payload is.
	Content Content
	// CaptureID is capture_id of hep.conf.
	CaptureID uint32
	// Password is capture_password of hep.conf; nil where there is none.
	Password []byte
	// CorrelationID is the Call-ID of the message, byte for byte, where uuid_type=call-id; else a channel's name.
	CorrelationID []byte
	// Payload is the message; but of one received over TCP, TLS, WS or WSS it is all that Asterisk had read from the
	// connection at that time, see [Packet.Messages].
	Payload []byte
}

// Protocol is a number of IANA's protocol registry.
type Protocol uint8

// The protocols of Asterisk's packets.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

// Content is the type of a payload (chunk 11).
type Content uint8

// The contents that Asterisk sends.
const (
	SIP  Content = 1
	RTCP Content = 5 // as JSON, by res_hep_rtcp.so
)

// What a packet can lack. None has a byte of the packet in it.
var (
	ErrNotHEP    = errors.New("hep: no HEP version 3 packet")
	ErrLength    = errors.New("hep: a length that cannot be")
	ErrRepeated  = errors.New("hep: a chunk stands twice")
	ErrAddress   = errors.New("hep: addresses missing, or of another family than the packet says")
	ErrProtocol  = errors.New("hep: neither UDP nor TCP")
	ErrNoPayload = errors.New("hep: no payload")
)

// The chunks of vendor 0, the generic ones.
const (
	chunkFamily        = 0x01
	chunkProtocol      = 0x02
	chunkIPv4Source    = 0x03
	chunkIPv4Target    = 0x04
	chunkIPv6Source    = 0x05
	chunkIPv6Target    = 0x06
	chunkSourcePort    = 0x07
	chunkTargetPort    = 0x08
	chunkSeconds       = 0x09
	chunkMicroseconds  = 0x0a
	chunkContent       = 0x0b
	chunkCaptureID     = 0x0c
	chunkPassword      = 0x0e
	chunkPayload       = 0x0f
	chunkCorrelationID = 0x11
)

// chunkSizes are how many bytes of data a chunk has.
var chunkSizes = [...]int{
	chunkFamily: 1, chunkProtocol: 1, chunkIPv4Source: 4, chunkIPv4Target: 4, chunkIPv6Source: 16, chunkIPv6Target: 16,
	chunkSourcePort: 2, chunkTargetPort: 2, chunkSeconds: 4, chunkMicroseconds: 4, chunkContent: 1, chunkCaptureID: 4,
	chunkPassword: anySize, chunkPayload: anySize, chunkCorrelationID: anySize,
}

const (
	unknown = 0
	anySize = -1

	addressesIPv4 = 1<<chunkIPv4Source | 1<<chunkIPv4Target
	addressesIPv6 = 1<<chunkIPv6Source | 1<<chunkIPv6Target
	ports         = 1<<chunkSourcePort | 1<<chunkTargetPort
)

const (
	magic      = "HEP3"
	headSize   = len(magic) + 2 // with the length of all
	chunkHead  = 6              // vendor, type, and the length with these bytes
	familyIPv4 = 2              // Linux' AF_INET
	familyIPv6 = 10             // Linux' AF_INET6
)

// Decode decodes one packet, which is all of b. It overwrites *p, and allocates nothing. What is in *p after an error
// means nothing.
//
// A chunk of another vendor, or of a type that is unknown, is passed over. Of the known ones each stands once: of two,
// another reader might take the other.
func Decode(b []byte, p *Packet) error {
	*p = Packet{}
	if len(b) < headSize || string(b[:len(magic)]) != magic {
		return ErrNotHEP
	}
	if int(binary.BigEndian.Uint16(b[len(magic):])) != len(b) {
		return ErrLength
	}
	var (
		seen                   uint32 // a bit for each type
		family                 byte
		source, target         netip.Addr
		sourcePort, targetPort uint16
		seconds, microseconds  uint32
	)
	for rest := b[headSize:]; len(rest) > 0; {
		if len(rest) < chunkHead {
			return ErrLength
		}
		vendor, kind := binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])
		size := int(binary.BigEndian.Uint16(rest[4:]))
		if size < chunkHead || size > len(rest) {
			return ErrLength
		}
		data := rest[chunkHead:size:size]
		rest = rest[size:]
		if vendor != 0 || int(kind) >= len(chunkSizes) || chunkSizes[kind] == unknown {
			continue
		}
		if want := chunkSizes[kind]; want != anySize && want != len(data) {
			return ErrLength
		}
		if seen&(1<<kind) != 0 {
			return ErrRepeated
		}
		seen |= 1 << kind
		switch kind {
		case chunkFamily:
			family = data[0]
		case chunkProtocol:
			p.Protocol = Protocol(data[0])
		case chunkIPv4Source:
			source = netip.AddrFrom4([4]byte(data))
		case chunkIPv4Target:
			target = netip.AddrFrom4([4]byte(data))
		case chunkIPv6Source:
			source = netip.AddrFrom16([16]byte(data)).Unmap() // IPv4 over a socket of IPv6
		case chunkIPv6Target:
			target = netip.AddrFrom16([16]byte(data)).Unmap()
		case chunkSourcePort:
			sourcePort = binary.BigEndian.Uint16(data)
		case chunkTargetPort:
			targetPort = binary.BigEndian.Uint16(data)
		case chunkSeconds:
			seconds = binary.BigEndian.Uint32(data)
		case chunkMicroseconds:
			microseconds = binary.BigEndian.Uint32(data)
		case chunkContent:
			p.Content = Content(data[0])
		case chunkCaptureID:
			p.CaptureID = binary.BigEndian.Uint32(data)
		case chunkPassword:
			p.Password = data
		case chunkPayload:
			p.Payload = data
		case chunkCorrelationID:
			p.CorrelationID = data
		}
	}
	switch has := seen & (addressesIPv4 | addressesIPv6); {
	case family == familyIPv4 && has == addressesIPv4, family == familyIPv6 && has == addressesIPv6:
	default:
		return ErrAddress
	}
	switch {
	case seen&ports != ports:
		return ErrAddress
	case p.Protocol != UDP && p.Protocol != TCP:
		return ErrProtocol
	case len(p.Payload) == 0:
		return ErrNoPayload
	}
	p.Source, p.Destination = netip.AddrPortFrom(source, sourcePort), netip.AddrPortFrom(target, targetPort)
	if seen&(1<<chunkSeconds) != 0 {
		p.Time = time.Unix(int64(seconds), int64(min(microseconds, 999_999))*int64(time.Microsecond)).UTC()
	}
	return nil
}
