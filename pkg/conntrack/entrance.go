package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ErrMissing says that this kernel has no nf_conntrack_netlink, or has it not loaded.
var ErrMissing = errors.New("conntrack: this kernel has no nf_conntrack_netlink")

// Attributes of ctnetlink, include/uapi/linux/netfilter/nfnetlink_conntrack.h.
const (
	getFlow = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1 // IPCTNL_MSG_CT_GET

	tupleOriginal = 1  // CTA_TUPLE_ORIG
	tupleReply    = 2  // CTA_TUPLE_REPLY
	filter        = 25 // CTA_FILTER

	tupleIP       = 1 // CTA_TUPLE_IP
	tupleProtocol = 2 // CTA_TUPLE_PROTO

	ipv4Source      = 1 // CTA_IP_V4_SRC
	ipv6Source      = 3 // CTA_IP_V6_SRC
	protocolNumber  = 1 // CTA_PROTO_NUM
	sourcePort      = 2 // CTA_PROTO_SRC_PORT
	destinationPort = 3 // CTA_PROTO_DST_PORT

	filterOriginal = 1 // CTA_FILTER_ORIG_FLAGS: which parts of the original tuple must be equal

	// CTA_FILTER_F_… of net/netfilter/nf_internals.h, in Linux since 5.8.
	equalSourceAddress = 1 << 0
	equalProtocol      = 1 << 3
	equalSourcePort    = 1 << 4
)

// Entrance returns the port to which a remote address sends what a server gets at its port local: another one where a
// NAT before the server, such as a port that Docker publishes, has changed it. That is the port that a chain at
// prerouting priority -300 sees. known is false, and the port is local, where the kernel knows no flow that the remote
// address began. netns is the descriptor of the network namespace that the flow comes through, 0 for that of the
// calling thread. The error is ErrMissing, or the kernel's.
func Entrance(netns int, udp bool, local uint16, remote netip.AddrPort) (port uint16, known bool, err error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return local, false, fmt.Errorf("conntrack: open a netlink socket to netfilter: %w", err)
	}
	defer conn.Close()
	protocol := uint8(unix.IPPROTO_TCP)
	if udp {
		protocol = unix.IPPROTO_UDP
	}
	remote = netip.AddrPortFrom(remote.Addr().Unmap().WithZone(""), remote.Port())
	query, err := flowsFrom(remote, protocol)
	if err != nil {
		return local, false, fmt.Errorf("conntrack: %w", err)
	}
	flows, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: getFlow, Flags: netlink.Request | netlink.Dump}, Data: query,
	})
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT):
		// nfnetlink answers EINVAL for a subsystem that is not loaded (net/netfilter/nfnetlink.c, nfnetlink_rcv_msg).
		return local, false, fmt.Errorf("%w: %w", ErrMissing, err)
	case err != nil:
		return local, false, fmt.Errorf("conntrack: read the flows of %v: %w", remote, err)
	}
	for _, message := range flows {
		original, reply, err := parseFlow(message.Data)
		if err == nil && original.protocol == protocol && original.source == remote && reply.source.Port() == local {
			return original.destinationPort, true, nil
		}
	}
	return local, false, nil
}

// flowsFrom asks for the flows that an address and port began, which are few. Of an IPv6 address it asks for the port
// alone: up to Linux 6.1 at least, ctnetlink_filter_match_tuple takes equal IPv6 addresses for different ones.
func flowsFrom(remote netip.AddrPort, protocol uint8) ([]byte, error) {
	family, flags := byte(unix.AF_INET6), uint32(equalProtocol|equalSourcePort)
	if remote.Addr().Is4() {
		family, flags = unix.AF_INET, flags|equalSourceAddress
	}
	e := netlink.NewAttributeEncoder()
	e.Nested(tupleOriginal, func(e *netlink.AttributeEncoder) error {
		if remote.Addr().Is4() {
			e.Nested(tupleIP, func(e *netlink.AttributeEncoder) error {
				e.Bytes(ipv4Source, remote.Addr().AsSlice())
				return nil
			})
		}
		e.Nested(tupleProtocol, func(e *netlink.AttributeEncoder) error {
			e.ByteOrder = binary.BigEndian
			e.Uint8(protocolNumber, protocol)
			e.Uint16(sourcePort, remote.Port())
			return nil
		})
		return nil
	})
	e.Nested(filter, func(e *netlink.AttributeEncoder) error {
		e.Uint32(filterOriginal, flags)
		return nil
	})
	attributes, err := e.Encode()
	return append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attributes...), err
}

// tuple is one direction of a flow.
type tuple struct {
	protocol        uint8
	source          netip.AddrPort
	destinationPort uint16
}

func parseFlow(message []byte) (original, reply tuple, err error) {
	const header = 4 // struct nfgenmsg
	if len(message) < header {
		return original, reply, errors.New("short message")
	}
	d, err := netlink.NewAttributeDecoder(message[header:])
	if err != nil {
		return original, reply, err
	}
	for d.Next() {
		switch d.Type() {
		case tupleOriginal:
			d.Nested(original.decodeFrom)
		case tupleReply:
			d.Nested(reply.decodeFrom)
		}
	}
	return original, reply, d.Err()
}

func (t *tuple) decodeFrom(d *netlink.AttributeDecoder) error {
	var address netip.Addr
	var port uint16
	for d.Next() {
		switch d.Type() {
		case tupleIP:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					if d.Type() == ipv4Source || d.Type() == ipv6Source {
						address, _ = netip.AddrFromSlice(d.Bytes())
					}
				}
				return d.Err()
			})
		case tupleProtocol:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				d.ByteOrder = binary.BigEndian
				for d.Next() {
					switch d.Type() {
					case protocolNumber:
						t.protocol = d.Uint8()
					case sourcePort:
						port = d.Uint16()
					case destinationPort:
						t.destinationPort = d.Uint16()
					}
				}
				return d.Err()
			})
		}
	}
	t.source = netip.AddrPortFrom(address, port)
	return d.Err()
}
