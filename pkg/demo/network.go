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
	n := &testNetwork{}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if n.pbx, err = netns.New(); err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	if n.outside, err = netns.New(); err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	if err := netns.Connect(n.pbx, n.outside, nil, nil); err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	if err := n.pbx.Do(func() (err error) {
		n.ipv6, err = configureEth0([]netip.Addr{pbxAddr(false), pbxAddr(true)})
		return err
	}); err != nil {
		return nil, err
	}
	if err := n.outside.Do(func() error {
		ipv6, err := configureEth0(sources)
		n.ipv6 = n.ipv6 && ipv6
		return err
	}); err != nil {
		return nil, err
	}
	err = n.pbx.Do(func() (err error) {
		return n.openPorts(ctx, netip.AddrPortFrom(pbxAddr(false), sipPort),
			netip.AddrPortFrom(pbxAddr(false), amiPort))
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// newLoopbackNetwork needs no privilege.
func newLoopbackNetwork(ctx context.Context, sources []netip.Addr) (*testNetwork, error) {
	n := &testNetwork{
		dry:       true,
		loopbacks: make(map[netip.Addr]netip.Addr), sources: make(map[netip.Addr]netip.Addr),
	}
	for i, a := range sources {
		seat := netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i + 1)})
		n.loopbacks[a], n.sources[seat] = seat, a
	}
	any4 := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
	if err := n.openPorts(ctx, any4, any4); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

func (n *testNetwork) openPorts(ctx context.Context, sip, ami netip.AddrPort) (err error) {
	if n.sip4, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(sip)); err != nil {
		return fmt.Errorf("demo: the PBX's SIP port: %w", err)
	}
	if n.ipv6 {
		v6 := netip.AddrPortFrom(pbxAddr(true), sipPort)
		if n.sip6, err = net.ListenUDP("udp6", net.UDPAddrFromAddrPort(v6)); err != nil {
			return fmt.Errorf("demo: the PBX's SIP port: %w", err)
		}
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp4", ami.String())
	if err != nil {
		return fmt.Errorf("demo: the PBX's AMI port: %w", err)
	}
	n.ami = &namedListener{Listener: ln, network: n}
	return nil
}

// dialSIP returns a UDP socket of a source, connected to the PBX.
func (n *testNetwork) dialSIP(src netip.Addr) (conn *net.UDPConn, err error) {
	to := n.sip4.LocalAddr()
	if src.Is6() && !n.dry {
		to = n.sip6.LocalAddr()
	}
	err = n.doOutside(func() (err error) {
		conn, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(n.loopbackOf(src), 0)),
			to.(*net.UDPAddr))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("demo: a socket of %s: %w", src, err)
	}
	return conn, nil
}

// dialAMI connects a source to the PBX's AMI port; where its packets are dropped, that fails after the timeout.
func (n *testNetwork) dialAMI(ctx context.Context, src netip.Addr, timeout time.Duration) (conn net.Conn, err error) {
	err = n.doOutside(func() (err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: n.loopbackOf(src).AsSlice()}, Timeout: timeout, FallbackDelay: -1}
		conn, err = d.DialContext(ctx, "tcp", n.ami.Addr().String())
		return err
	})
	return conn, err
}

// doOutside runs f where sources have their addresses.
func (n *testNetwork) doOutside(f func() error) error {
	if n.dry {
		return f()
	}
	return n.outside.Do(f)
}

func (n *testNetwork) loopbackOf(src netip.Addr) netip.Addr {
	if n.dry {
		return n.loopbacks[src]
	}
	return src
}

// sourceOf returns the source whose packet came from an address, and whether it is one of this network's.
func (n *testNetwork) sourceOf(a netip.Addr) (netip.Addr, bool) {
	a = a.Unmap()
	if !n.dry {
		return a, true
	}
	src, ok := n.sources[a]
	return src, ok
}

// netNS is the descriptor of the namespace in which the daemon bans.
func (n *testNetwork) netNS() int {
	if n.dry {
		return 0
	}
	return n.pbx.FD()
}

func (n *testNetwork) close() {
	for _, c := range []*net.UDPConn{n.sip4, n.sip6} {
		if c != nil {
			_ = c.Close()
		}
	}
	if n.ami != nil {
		_ = n.ami.Close()
	}
	_, _ = n.pbx.Close(), n.outside.Close()
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
