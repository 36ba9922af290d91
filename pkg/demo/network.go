package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/netns"
)

// The ports of the PBX; both are among the default firewall.ports.
const (
	sipPort = 5060
	amiPort = 5038
)

// testNetwork is where packets travel: two network namespaces joined by a cable, the PBX at one end and everybody else
// at the other. A dry one is the loopback interface instead, where each source has an address of 127/8 to send from.
type testNetwork struct {
	pbx, outside *netns.Space // nil if dry
	dry          bool
	ipv6         bool
	loopbacks    map[netip.Addr]netip.Addr // dry: from the source to the loopback address that it sends from
	sources      map[netip.Addr]netip.Addr // dry: back

	sip4, sip6 *net.UDPConn // sip6 is nil without IPv6
	ami        net.Listener
}

// The PBX's addresses: documentation only (RFC 5737, RFC 3849).
func pbxAddr(v6 bool) netip.Addr {
	if v6 {
		return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: 1})
	}
	return netip.AddrFrom4([4]byte{192, 0, 2, 1})
}

// newKernelNetwork builds the namespaces, with sources as addresses of the far side. Without CAP_SYS_ADMIN and
// CAP_NET_ADMIN the error is one for which [isDenied] is true.
func newKernelNetwork(ctx context.Context, sources []netip.Addr) (_ *testNetwork, err error) {
	s := &testNetwork{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.pbx, err = netns.New(); err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	if s.outside, err = netns.New(); err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	if err := netns.Connect(s.pbx, s.outside, nil, nil); err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	if err := s.pbx.Do(func() (err error) {
		s.ipv6, err = configureEth0([]netip.Addr{pbxAddr(false), pbxAddr(true)})
		return err
	}); err != nil {
		return nil, err
	}
	if err := s.outside.Do(func() error {
		ipv6, err := configureEth0(sources)
		s.ipv6 = s.ipv6 && ipv6
		return err
	}); err != nil {
		return nil, err
	}
	err = s.pbx.Do(func() (err error) {
		return s.listen(ctx, netip.AddrPortFrom(pbxAddr(false), sipPort), netip.AddrPortFrom(pbxAddr(false), amiPort))
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// newLoopbackNetwork needs no privilege.
func newLoopbackNetwork(ctx context.Context, sources []netip.Addr) (*testNetwork, error) {
	s := &testNetwork{
		dry:       true,
		loopbacks: make(map[netip.Addr]netip.Addr), sources: make(map[netip.Addr]netip.Addr),
	}
	for i, a := range sources {
		seat := netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i + 1)})
		s.loopbacks[a], s.sources[seat] = seat, a
	}
	any4 := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
	if err := s.listen(ctx, any4, any4); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *testNetwork) listen(ctx context.Context, sip, ami netip.AddrPort) (err error) {
	if s.sip4, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(sip)); err != nil {
		return fmt.Errorf("demo: the PBX's SIP port: %w", err)
	}
	if s.ipv6 {
		v6 := netip.AddrPortFrom(pbxAddr(true), sipPort)
		if s.sip6, err = net.ListenUDP("udp6", net.UDPAddrFromAddrPort(v6)); err != nil {
			return fmt.Errorf("demo: the PBX's SIP port: %w", err)
		}
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp4", ami.String())
	if err != nil {
		return fmt.Errorf("demo: the PBX's AMI port: %w", err)
	}
	s.ami = &namedListener{Listener: ln, network: s}
	return nil
}

// dialSIP returns a UDP socket of a source, connected to the PBX.
func (s *testNetwork) dialSIP(src netip.Addr) (conn *net.UDPConn, err error) {
	to := s.sip4.LocalAddr()
	if src.Is6() && !s.dry {
		to = s.sip6.LocalAddr()
	}
	err = s.doOutside(func() (err error) {
		conn, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.loopbackOf(src), 0)),
			to.(*net.UDPAddr))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("demo: a socket of %s: %w", src, err)
	}
	return conn, nil
}

// dialAMI connects a source to the PBX's AMI port; where its packets are dropped, that fails after the timeout.
func (s *testNetwork) dialAMI(ctx context.Context, src netip.Addr, timeout time.Duration) (conn net.Conn, err error) {
	err = s.doOutside(func() (err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: s.loopbackOf(src).AsSlice()}, Timeout: timeout, FallbackDelay: -1}
		conn, err = d.DialContext(ctx, "tcp", s.ami.Addr().String())
		return err
	})
	return conn, err
}

// doOutside runs f where sources have their addresses.
func (s *testNetwork) doOutside(f func() error) error {
	if s.dry {
		return f()
	}
	return s.outside.Do(f)
}

func (s *testNetwork) loopbackOf(src netip.Addr) netip.Addr {
	if s.dry {
		return s.loopbacks[src]
	}
	return src
}

// sourceOf returns the source whose packet came from an address, and whether it is one of this network's.
func (s *testNetwork) sourceOf(a netip.Addr) (netip.Addr, bool) {
	a = a.Unmap()
	if !s.dry {
		return a, true
	}
	src, ok := s.sources[a]
	return src, ok
}

// netNS is the descriptor of the namespace in which the daemon bans.
func (s *testNetwork) netNS() int {
	if s.dry {
		return 0
	}
	return s.pbx.FD()
}

func (s *testNetwork) close() {
	for _, c := range []*net.UDPConn{s.sip4, s.sip6} {
		if c != nil {
			_ = c.Close()
		}
	}
	if s.ami != nil {
		_ = s.ami.Close()
	}
	_, _ = s.pbx.Close(), s.outside.Close()
}

// namedListener gives connections over loopback the address of the source that they stand for.
type namedListener struct {
	net.Listener
	network *testNetwork
}

func (l *namedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil || !l.network.dry {
		return c, err
	}
	from := c.RemoteAddr().(*net.TCPAddr).AddrPort()
	if src, ok := l.network.sourceOf(from.Addr()); ok {
		return &namedConn{Conn: c, remote: net.TCPAddrFromAddrPort(netip.AddrPortFrom(src, from.Port()))}, nil
	}
	return c, nil
}

type namedConn struct {
	net.Conn
	remote net.Addr
}

func (c *namedConn) RemoteAddr() net.Addr { return c.remote }

// isDenied says whether an error means that the kernel does not let this process do it, whatever it tries.
func isDenied(err error) bool {
	for _, no := range []error{
		os.ErrPermission, unix.ENOSYS, unix.EOPNOTSUPP, unix.EINVAL, unix.ENOSPC, unix.EUSERS, unix.ENODEV,
	} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// configureEth0 gives addresses and default routes to eth0; to whom each address belongs is asked on the cable. It says
// whether IPv6 is there.
func configureEth0(addrs []netip.Addr) (ipv6 bool, err error) {
	_, err = os.Stat("/proc/sys/net/ipv6")
	ipv6 = err == nil && slices.ContainsFunc(addrs, netip.Addr.Is6)
	for _, a := range addrs {
		if a.Is6() && !ipv6 {
			continue
		}
		if err := netns.BringUp("eth0", netip.PrefixFrom(a, a.BitLen()).String()); err != nil {
			if a.Is6() { // disable_ipv6
				ipv6 = false
				continue
			}
			return false, fmt.Errorf("demo: %w", err)
		}
	}
	for _, all := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if all.Is6() && !ipv6 {
			continue
		}
		if err := netns.AddDefaultRoute("eth0", all); err != nil {
			return false, fmt.Errorf("demo: %w", err)
		}
	}
	return ipv6, nil
}
