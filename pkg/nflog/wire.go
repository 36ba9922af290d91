package nflog

import (
	"encoding/binary"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Messages and attributes of linux/netfilter/nfnetlink_log.h.
const (
	packetMessage = unix.NFNL_SUBSYS_ULOG << 8
	configMessage = packetMessage | 1

	attrPacketHeader = 1 // protocol, hook
	attrMark         = 2
	attrTimestamp    = 3
	attrInDevice     = 4
	attrOutDevice    = 5
	attrPayload      = 9
	attrPrefix       = 10
	attrSequence     = 12

	configCommand    = 1
	configMode       = 2
	configBufferSize = 3
	configTimeout    = 4
	configThreshold  = 5
	configFlags      = 6

	commandBind  = 1
	copyPacket   = 2
	flagSequence = 1

	generalHeader = 4 // struct nfgenmsg
)

// plainType takes the flags off an attribute's type.
const plainType = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)

// Packet is a copy of a packet.
type Packet struct {
	// Hook is where the rule stands: NF_INET_PRE_ROUTING is 0, NF_INET_POST_ROUTING is 4.
	Hook uint8
	// Prefix is what the rule says with `log prefix`.
	Prefix []byte
	// Payload is the packet from its IP header on, as much of it as was copied.
	Payload []byte
	// Mark is the packet's (nft's `meta mark`).
	Mark uint32
	// InDevice and OutDevice are indexes of interfaces, 0 for none.
	InDevice, OutDevice uint32
	// Time is when the kernel had the packet, and where it does not say so when it was read.
	Time time.Time
}

var errMalformed = errors.New("nflog: a message of the kernel makes no sense")

// parsePacket reads a message behind its netlink header, into p whose views are into b. told is whether it has a
// sequence number.
func parsePacket(b []byte, p *Packet) (sequence uint32, told bool, err error) {
	if len(b) < generalHeader {
		return 0, false, errMalformed
	}
	payload := false
	for b = b[generalHeader:]; len(b) >= unix.NLA_HDRLEN; {
		size, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])&plainType
		if size < unix.NLA_HDRLEN || size > len(b) {
			return 0, false, errMalformed
		}
		switch v := b[unix.NLA_HDRLEN:size]; {
		case kind == attrPayload:
			p.Payload, payload = v, true
		case kind == attrPrefix:
			if n := len(v); n > 0 && v[n-1] == 0 {
				v = v[:n-1]
			}
			p.Prefix = v
		case kind == attrSequence && len(v) == 4:
			sequence, told = binary.BigEndian.Uint32(v), true
		case kind == attrPacketHeader && len(v) >= 3:
			p.Hook = v[2]
		case kind == attrTimestamp && len(v) == 16:
			// What does not fit is no time of the kernel's.
			seconds, micros := binary.BigEndian.Uint64(v), binary.BigEndian.Uint64(v[8:])
			if seconds < 1<<40 && micros < 1e6 {
				p.Time = time.Unix(int64(seconds), int64(micros)*1000)
			}
		case kind == attrMark && len(v) == 4:
			p.Mark = binary.BigEndian.Uint32(v)
		case kind == attrInDevice && len(v) == 4:
			p.InDevice = binary.BigEndian.Uint32(v)
		case kind == attrOutDevice && len(v) == 4:
			p.OutDevice = binary.BigEndian.Uint32(v)
		}
		b = b[min(len(b), align(size)):]
	}
	if !payload {
		return 0, false, errMalformed
	}
	return sequence, told, nil
}

// nextMessage splits the first netlink message off b; ok is false at the end, and where there is none.
func nextMessage(b []byte) (kind uint16, sequence uint32, body, rest []byte, ok bool) {
	if len(b) < unix.NLMSG_HDRLEN {
		return 0, 0, nil, nil, false
	}
	size := int(binary.NativeEndian.Uint32(b))
	if size < unix.NLMSG_HDRLEN || size > len(b) {
		return 0, 0, nil, nil, false
	}
	return binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:]), b[unix.NLMSG_HDRLEN:size],
		b[min(len(b), align(size)):], true
}

// align is where the next message or attribute begins (NLMSG_ALIGN, NLA_ALIGN).
func align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

// errorOf is the error in a message of type NLMSG_ERROR, nil where it acknowledges.
func errorOf(body []byte) error {
	if len(body) < 4 {
		return errMalformed
	}
	if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
		return os.NewSyscallError("netlink", syscall.Errno(-code))
	}
	return nil
}

// configure is a message that sets something of a group.
func configure(group uint16, flags netlink.HeaderFlags, set func(*netlink.AttributeEncoder)) netlink.Message {
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	set(e)
	attributes, _ := e.Encode() // fails for what is longer than 64 kB
	data := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, group)
	return netlink.Message{Header: netlink.Header{Type: configMessage, Flags: netlink.Request | flags},
		Data: append(data, attributes...)}
}
