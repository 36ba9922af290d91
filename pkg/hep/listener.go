package hep

import (
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/hint"
)

// Config says where a [Listener] hears.
type Config struct {
	// Listen is capture_address of hep.conf. Anybody who can send a packet to it can pretend that Asterisk saw
	// something, so that it wants a Password unless it is a loopback address.
	Listen netip.AddrPort
	// Password is capture_password of hep.conf: a packet without it, or with another, counts for nothing. "" takes any.
	Password string
	// Forward is where each packet goes on to, byte for byte, since hep.conf has room for one capture_address only.
	// Invalid: nowhere. It is an address and no name, since a server of names that is slow must not make Ringwall deaf.
	Forward netip.AddrPort
}

// receiveBuffer is how many bytes of packets, with what the kernel counts in addition, wait for a listener that is
// busy: some thousand.
const receiveBuffer = 8 << 20

// longestPacket is the longest that a UDP datagram can be, with one byte more by which a longer one would be told.
const longestPacket = 1 << 16

// Listener is a UDP socket that Asterisk sends its packets to.
type Listener struct {
	password []byte
	conn     *net.UDPConn
	forward  *forwarder // nil: nowhere

	received, lost, malformed, rejected, other atomic.Uint64
	lastHeard                                  atomic.Int64 // nanoseconds since 1970; 0: never
}

// Stats are counts since the listener was opened.
type Stats struct {
	// Received are packets of Asterisk with SIP in them.
	Received uint64
	// Other are packets of Asterisk with something else, such as RTCP.
	Other uint64
	// Lost are packets that came while the receive buffer was full, as the kernel counts them (SO_RXQ_OVFL of
	// socket(7)). It tells with the next packet.
	Lost uint64
	// Malformed is what was no packet of HEP version 3.
	Malformed uint64
	// Rejected are packets without the password, or with another.
	Rejected uint64
	// Forwarded are packets that were sent on, and ForwardLost those that could not be, at once.
	Forwarded, ForwardLost uint64
	// LastHeard is when the last packet of Asterisk came; zero: none.
	LastHeard time.Time
}

// Open begins to listen. What arrives before [Listener.Run] waits in the kernel.
func Open(c Config) (*Listener, error) {
	if !c.Listen.IsValid() {
		return nil, errors.New("hep: no address to listen at")
	}
	if !c.Listen.Addr().Unmap().IsLoopback() && c.Password == "" {
		return nil, hint.Errorf("listen at 127.0.0.1, or give a password as capture_password of hep.conf",
			"hep: %s can be reached by others, and there is no password", c.Listen)
	}
	if toItself(c) {
		return nil, fmt.Errorf("hep: packets that go on to %s come back", c.Forward)
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(c.Listen))
	if err != nil {
		return nil, openError(c.Listen, err)
	}
	l := &Listener{conn: conn}
	if c.Password != "" {
		l.password = []byte(c.Password)
	}
	if err = prepare(conn); err == nil && c.Forward.IsValid() {
		l.forward, err = newForwarder(c.Forward)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return l, nil
}

func toItself(c Config) bool {
	listen, forward := c.Listen.Addr().Unmap(), c.Forward.Addr().Unmap()
	return c.Forward.IsValid() && c.Forward.Port() == c.Listen.Port() &&
		(forward == listen || listen.IsUnspecified() && forward.IsLoopback())
}

func openError(listen netip.AddrPort, err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return hint.Errorf(
			fmt.Sprintf("ss -ulnp 'sport = :%d' says which; Homer can be reached by forward", listen.Port()),
			"hep: another program listens at %s: %w", listen, err)
	}
	return fmt.Errorf("hep: cannot listen at %s: %w", listen, err)
}

// prepare has the kernel count what it loses, and gives it room to lose little.
func prepare(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1))
		// Beyond net.core.rmem_max with CAP_NET_ADMIN, else up to it.
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
		}
	})
	return errors.Join(err, failed)
}

// Addr is where the listener hears; its port is the kernel's choice where that of [Config] is 0.
func (l *Listener) Addr() netip.AddrPort { return l.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// Run hands each packet with SIP in it to handle, on the calling goroutine, until [Listener.Close], which it answers
// with nil. The packet is valid until handle returns. While handle works packets wait in the kernel, and are lost and
// counted when there is no room.
func (l *Listener) Run(handle func(*Packet)) error {
	var (
		buffer  = make([]byte, longestPacket)
		control = make([]byte, unix.CmsgSpace(4))
		packet  Packet
		drops   uint32
	)
	for {
		n, nc, _, _, err := l.conn.ReadMsgUDPAddrPort(buffer, control)
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("hep: %w", err)
		}
		if now, ok := dropsOf(control[:nc]); ok {
			l.lost.Add(uint64(now - drops)) // 32 bits that begin anew
			drops = now
		}
		if l.accept(buffer[:n], &packet) {
			handle(&packet)
		}
	}
}

// dropsOf reads how many packets the kernel has dropped at this socket. It says nothing while that is none.
func dropsOf(control []byte) (drops uint32, ok bool) {
	if len(control) == 0 {
		return 0, false
	}
	head, data, _, err := unix.ParseOneSocketControlMessage(control)
	if err != nil || head.Level != unix.SOL_SOCKET || head.Type != unix.SO_RXQ_OVFL || len(data) < 4 {
		return 0, false
	}
	return binary.NativeEndian.Uint32(data), true
}

// accept decodes a packet, counts it, and sends it on. It says whether there is SIP of Asterisk in it.
func (l *Listener) accept(b []byte, p *Packet) bool {
	if Decode(b, p) != nil {
		l.malformed.Add(1)
		return false
	}
	if l.password != nil && subtle.ConstantTimeCompare(p.Password, l.password) != 1 {
		l.rejected.Add(1)
		return false
	}
	l.lastHeard.Store(time.Now().UnixNano())
	if l.forward != nil {
		l.forward.send(b)
	}
	if p.Content != SIP {
		l.other.Add(1)
		return false
	}
	l.received.Add(1)
	return true
}

// Stats may be called at any time, by anybody.
func (l *Listener) Stats() Stats {
	s := Stats{
		Received: l.received.Load(), Other: l.other.Load(), Lost: l.lost.Load(), Malformed: l.malformed.Load(),
		Rejected: l.rejected.Load(),
	}
	if l.forward != nil {
		s.Forwarded, s.ForwardLost = l.forward.sent.Load(), l.forward.lost.Load()
	}
	if at := l.lastHeard.Load(); at != 0 {
		s.LastHeard = time.Unix(0, at)
	}
	return s
}

// Close ends Run, and gives the address free. It may be called more than once.
func (l *Listener) Close() error {
	err := l.conn.Close()
	if l.forward != nil {
		err = errors.Join(err, l.forward.close())
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
