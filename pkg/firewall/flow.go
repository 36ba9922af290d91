package firewall

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/firewall/internal/nfnl"
)

// Transport is a protocol with ports, by its number in the IP header. TLS and WebSocket are TCP to the kernel.
type Transport uint8

// The transports of a Flow.
const (
	TCP Transport = unix.IPPROTO_TCP
	UDP Transport = unix.IPPROTO_UDP
)

// String returns "tcp" or "udp", as nft writes it.
func (t Transport) String() string {
	switch t {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return fmt.Sprintf("protocol %d", uint8(t))
}

// Flow is all that comes from one port of one address: a connection, or what a phone sends over UDP.
type Flow struct {
	Transport Transport
	Source    netip.AddrPort
}

// String is the flow as nft writes it: 203.0.113.5 . udp . 5060.
func (f Flow) String() string {
	return fmt.Sprintf("%s . %s . %d", f.Source.Addr(), f.Transport, f.Source.Port())
}

// normalize makes IPv4 of IPv4-mapped IPv6 and takes the zone away.
func (f Flow) normalize() (Flow, error) {
	a := f.Source.Addr().Unmap().WithZone("")
	if !a.IsValid() || f.Source.Port() == 0 || f.Transport != TCP && f.Transport != UDP {
		return f, fmt.Errorf("%w: not a flow: %s from %s", ErrChange, f.Transport, f.Source)
	}
	f.Source = netip.AddrPortFrom(a, f.Source.Port())
	return f, nil
}

// Closes says which of the telephony ports a ban closes. Bans of one prefix that close different ports are different
// bans, each with its own end.
type Closes uint8

const (
	// CloseAll closes all ports that the table protects; in scope All every port there is.
	CloseAll Closes = iota
	// CloseUDP closes the UDP ports for one source.
	CloseUDP
	// CloseUDPKnock closes the UDP ports but for a trickle (Config.Knock), by which whoever can log in gets in: for
	// evidence that could be forged.
	CloseUDPKnock
	// CloseSIPOverTCP closes the TCP ports but those of the manager for one source.
	CloseSIPOverTCP
	// CloseManager closes the TCP ports of the manager for one source.
	CloseManager
	numCloses
)

// String says what is closed.
func (c Closes) String() string {
	switch c {
	case CloseAll:
		return "all"
	case CloseUDP:
		return "udp"
	case CloseUDPKnock:
		return "udp but for knocks"
	case CloseSIPOverTCP:
		return "sip over tcp"
	case CloseManager:
		return "manager"
	}
	return fmt.Sprintf("ports %d", uint8(c))
}

// Pace is how many packets a slow flow or source gets through. Each has a bucket of its own, which is full again when
// the element is written again.
type Pace uint8

const (
	// PaceSecond is a packet a second: for a good flow with evidence against it that could be forged.
	PaceSecond Pace = iota
	// PaceMinute is 4 packets a minute: the slow lane.
	PaceMinute
	// PaceTenMinutes is 4 packets in ten minutes: the slow lane of who keeps failing in it.
	PaceTenMinutes
	numPaces
)

// paceBurst is how many packets pass at once: a REGISTER is sent up to four times in its first 4 s (RFC 3261 section
// 17.1.2.2).
const paceBurst = 4

// String is the pace as nft writes it.
func (p Pace) String() string {
	rate, unit := p.packetRate()
	return fmt.Sprintf("%d/%s", rate, map[uint64]string{1: "second", 60: "minute", 3600: "hour"}[unit])
}

// packetRate is the pace as the kernel counts it: packets in so many seconds.
func (p Pace) packetRate() (rate, unit uint64) {
	switch p {
	case PaceMinute:
		return 4, 60
	case PaceTenMinutes:
		return 24, 3600
	}
	return 1, 1
}

// kernelLimit is the pace as an element has it.
func (p Pace) kernelLimit() nfnl.Limit {
	rate, unit := p.packetRate()
	return nfnl.Limit{Rate: rate, Unit: unit, Burst: paceBurst}
}

// paceOf is the pace with a limit.
func paceOf(l nfnl.Limit) Pace {
	for p := range numPaces {
		if p.kernelLimit() == l {
			return p
		}
	}
	return PaceSecond
}
