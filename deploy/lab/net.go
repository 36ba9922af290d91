package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Node is one host of the lab, in a network namespace of its own.
type Node string

// The nodes. All share 10.99.0.0/16 and fd99::/32, so that addresses of other /24s and /64s (see [Lab.AddAddr]) reach
// the server too.
const (
	Server   Node = "server"   // 10.99.0.1, fd99::1: Asterisk
	Phone    Node = "phone"    // 10.99.0.10, fd99::10: a customer
	Trunk    Node = "trunk"    // 10.99.0.50, fd99::50: a provider, known to Asterisk by its address
	Attacker Node = "attacker" // 10.99.0.66, fd99::66
	Spare    Node = "spare"    // 10.99.0.77, fd99::77: a second customer, or the victim of forged sources
)

func (n Node) number() byte {
	switch n {
	case Server:
		return 1
	case Phone:
		return 0x10
	case Trunk:
		return 0x50
	case Attacker:
		return 0x66
	case Spare:
		return 0x77
	}
	panic("lab: no node " + string(n))
}

// IPv4 returns the node's address in 10.99.0.0/16.
func (n Node) IPv4() netip.Addr {
	b := n.number()
	return netip.AddrFrom4([4]byte{10, 99, 0, b>>4*10 + b&15})
}

// IPv6 returns the node's address in fd99::/32.
func (n Node) IPv6() netip.Addr {
	return netip.AddrFrom16([16]byte{0xfd, 0x99, 15: n.number()})
}

// network is the bridge and the nodes, each an open namespace.
type network struct {
	handles map[Node]netns.NsHandle
	hub     netns.NsHandle
}

func newNetwork() (_ *network, err error) {
	n := &network{handles: map[Node]netns.NsHandle{}, hub: netns.None()}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if n.hub, err = newNamespace(); err != nil {
		return nil, err
	}
	hub, err := netlink.NewHandleAt(n.hub, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("lab: netlink: %w", err)
	}
	defer hub.Close()
	// Without snooping the bridge floods multicast from the first packet on, neighbour discovery included.
	snooping := false
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}, MulticastSnooping: &snooping}
	if err := hub.LinkAdd(bridge); err != nil {
		return nil, fmt.Errorf("lab: bridge: %w", err)
	}
	if err := hub.LinkSetUp(bridge); err != nil {
		return nil, fmt.Errorf("lab: bridge up: %w", err)
	}
	for _, node := range []Node{Server, Phone, Trunk, Attacker, Spare} {
		ns, err := newNamespace()
		if err != nil {
			return nil, err
		}
		n.handles[node] = ns
		if err := connect(hub, bridge, node, ns); err != nil {
			return nil, fmt.Errorf("lab: node %s: %w", node, err)
		}
	}
	return n, nil
}

// connect gives a namespace its addresses and a port at the bridge.
func connect(hub *netlink.Handle, bridge netlink.Link, node Node, ns netns.NsHandle) error {
	port := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: "p-" + string(node)},
		PeerName:      "eth0",
		PeerNamespace: netlink.NsFd(ns),
	}
	if err := hub.LinkAdd(port); err != nil {
		return fmt.Errorf("veth: %w", err)
	}
	if err := hub.LinkSetMaster(port, bridge); err != nil {
		return fmt.Errorf("bridge port: %w", err)
	}
	if err := hub.LinkSetUp(port); err != nil {
		return fmt.Errorf("bridge port up: %w", err)
	}
	if err := within(ns, settle); err != nil {
		return err
	}
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	for _, name := range []string{"lo", "eth0"} {
		link, err := h.LinkByName(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := h.LinkSetUp(link); err != nil {
			return fmt.Errorf("%s up: %w", name, err)
		}
		if name == "lo" {
			continue
		}
		for _, prefix := range []netip.Prefix{netip.PrefixFrom(node.IPv4(), 16), netip.PrefixFrom(node.IPv6(), 32)} {
			if err := h.AddrAdd(link, address(prefix)); err != nil {
				return fmt.Errorf("address %s: %w", prefix, err)
			}
		}
		// A PBX has a default route: without one, packets from forged sources are judged otherwise.
		for _, dst := range []string{"0.0.0.0/0", "::/0"} {
			_, all, err := net.ParseCIDR(dst)
			if err != nil {
				return err
			}
			if err := h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: all}); err != nil {
				return fmt.Errorf("route %s: %w", dst, err)
			}
		}
	}
	return nil
}

// settle sets what the kernel decides by the namespace: packets of forged sources pass the reverse-path filter, and
// link-local addresses work at once.
func settle() error {
	for _, name := range []string{"all", "default", "eth0"} {
		for path, value := range map[string]string{
			"/proc/sys/net/ipv4/conf/" + name + "/rp_filter":  "0",
			"/proc/sys/net/ipv6/conf/" + name + "/accept_dad": "0",
		} {
			if err := os.WriteFile(path, []byte(value), 0); err != nil {
				return fmt.Errorf("sysctl: %w", err)
			}
		}
	}
	return nil
}

// address is what netlink wants; NODAD since an IPv6 address is else unusable for a second or two.
func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{
		IP:   p.Addr().AsSlice(),
		Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
	}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

func (n *network) close() {
	for node := range n.handles {
		h := n.handles[node]
		_ = h.Close()
	}
	if n.hub.IsOpen() {
		_ = n.hub.Close()
	}
}

// newNamespace makes a network namespace without a name: it lives as long as its descriptor.
func newNamespace() (netns.NsHandle, error) {
	ns := netns.None()
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("lab: new network namespace: %w", err)
		}
		var err error
		ns, err = netns.Get()
		return err
	})
	return ns, err
}

// onThread runs f on a thread that ends with it, so that f may change the thread's namespaces.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		if unix.Gettid() == unix.Getpid() {
			// Except the first thread, which cannot end: it would stay in the namespace, and keep it. While this
			// goroutine holds that thread, another one cannot get it.
			defer runtime.UnlockOSThread()
			done <- onThread(f)
			return
		}
		err := errors.New("lab: the function ended its goroutine (t.Fatal belongs on the test's own)")
		defer func() { done <- err }()
		err = f()
	}()
	return <-done
}

func within(ns netns.NsHandle, f func() error) error {
	return onThread(func() error {
		if err := netns.Set(ns); err != nil {
			return fmt.Errorf("lab: enter namespace: %w", err)
		}
		return f()
	})
}

// Do runs f in the node's namespace and waits for it. Sockets that f opens stay in that namespace wherever they are
// used later; goroutines that f starts are outside it. f must not call t.Fatal or t.Skip.
func (l *Lab) Do(node Node, f func() error) error {
	return within(l.net.handles[node], f)
}

// NS returns the descriptor of the node's network namespace, as nftables.WithNetNSFd takes it. It is the lab's: do not
// close it.
func (l *Lab) NS(node Node) int {
	return int(l.net.handles[node])
}

// DialContext opens a connection from a node. With Server it is what a daemon beside Asterisk would use.
func (l *Lab) DialContext(ctx context.Context, node Node, network, address string) (net.Conn, error) {
	return l.dial(ctx, node, network, address, nil)
}

// Dialer returns a node's DialContext, as tests hand it to a client.
func (l *Lab) Dialer(node Node) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		return l.DialContext(ctx, node, network, address)
	}
}

func (l *Lab) dial(ctx context.Context, node Node, network, address string, local net.Addr) (net.Conn, error) {
	var conn net.Conn
	err := l.Do(node, func() (err error) {
		// FallbackDelay < 0: Happy Eyeballs would dial on a goroutine, that is on another thread.
		d := net.Dialer{LocalAddr: local, FallbackDelay: -1}
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen opens a TCP listener on a node.
func (l *Lab) Listen(ctx context.Context, node Node, network, address string) (net.Listener, error) {
	var listener net.Listener
	err := l.Do(node, func() (err error) {
		var c net.ListenConfig
		listener, err = c.Listen(ctx, network, address)
		return err
	})
	return listener, err
}

// AddAddr gives a node one more address, for instance 10.99.7.1 or fd99:0:0:7::1, to attack from.
func (l *Lab) AddAddr(t testing.TB, node Node, addrs ...netip.Addr) {
	t.Helper()
	h, err := netlink.NewHandleAt(l.net.handles[node], unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatalf("lab: netlink on %s: %v", node, err)
	}
	defer h.Close()
	link, err := h.LinkByName("eth0")
	if err != nil {
		t.Fatalf("lab: eth0 of %s: %v", node, err)
	}
	for _, a := range addrs {
		bits := 16
		if a.Is6() {
			bits = 32
		}
		if err := h.AddrAdd(link, address(netip.PrefixFrom(a, bits))); err != nil && !errors.Is(err, unix.EEXIST) {
			t.Fatalf("lab: add %s to %s: %v", a, node, err)
		}
	}
}
