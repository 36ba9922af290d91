package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Forge sends one UDP packet from a node with a source address that is not its own, IPv4 or IPv6. Nothing comes back
// to the node: the server answers the address that was forged.
//
//	pbx := l.SIPAddress(false)
//	l.Forge(lab.Attacker, victim, pbx, lab.Request{User: "x"}.Bytes("udp", victim, pbx))
func (l *Lab) Forge(node Node, source, destination netip.AddrPort, payload []byte) error {
	if source.Addr().Is4() != destination.Addr().Is4() {
		return fmt.Errorf("lab: forge: %s and %s are of two families", source, destination)
	}
	packet, err := forgedPacket(source, destination, payload)
	if err != nil {
		return err
	}
	return l.Do(node, func() error {
		domain, to := unix.AF_INET, unix.Sockaddr(nil)
		if destination.Addr().Is4() {
			to = &unix.SockaddrInet4{Addr: destination.Addr().As4()}
		} else {
			domain, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: destination.Addr().As16()}
		}
		// IPPROTO_RAW: the IP header is ours, in both families (raw(7), ipv6(7)).
		fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return fmt.Errorf("lab: forge: %w", err)
		}
		defer func() { _ = unix.Close(fd) }()
		if err := unix.Sendto(fd, packet, 0, to); err != nil {
			return fmt.Errorf("lab: forge: %w", err)
		}
		return nil
	})
}

func forgedPacket(source, destination netip.AddrPort, payload []byte) ([]byte, error) {
	length := 8 + len(payload)
	if length > 1400 {
		return nil, fmt.Errorf("lab: forge: %d bytes of payload: 1392 at most, for the sake of one packet",
			len(payload))
	}
	udp := make([]byte, 8, length)
	binary.BigEndian.PutUint16(udp[0:], source.Port())
	binary.BigEndian.PutUint16(udp[2:], destination.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(length))
	udp = append(udp, payload...)

	// The pseudo header of RFC 768 and RFC 8200 section 8.1; as a sum both forms come to the same.
	sum := uint32(unix.IPPROTO_UDP) + uint32(length)
	for _, part := range [][]byte{source.Addr().AsSlice(), destination.Addr().AsSlice(), udp} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(part[i]) << 8
			if i+1 < len(part) {
				sum += uint32(part[i+1])
			}
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	check := ^uint16(sum)
	if check == 0 {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], check)

	var ip []byte
	if source.Addr().Is4() {
		ip = make([]byte, 20)
		ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP // the kernel fills length, identification and checksum
		copy(ip[12:], source.Addr().AsSlice())
		copy(ip[16:], destination.Addr().AsSlice())
	} else {
		ip = make([]byte, 40)
		ip[0], ip[6], ip[7] = 0x60, unix.IPPROTO_UDP, 64
		binary.BigEndian.PutUint16(ip[4:], uint16(length))
		copy(ip[8:], source.Addr().AsSlice())
		copy(ip[24:], destination.Addr().AsSlice())
	}
	return append(ip, udp...), nil
}
