package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/jsimonetti/rtnetlink/v2/driver"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/netns"
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

func (n Node) lastByte() byte {
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
	b := n.lastByte()
	return netip.AddrFrom4([4]byte{10, 99, 0, b>>4*10 + b&15})
}

// IPv6 returns the node's address in fd99::/32.
func (n Node) IPv6() netip.Addr {
	return netip.AddrFrom16([16]byte{0xfd, 0x99, 15: n.lastByte()})
}

// labNetwork is the bridge and the nodes, each an open namespace.
type labNetwork struct {
	nodes map[Node]*netns.Space
	hub   *netns.Space
}

func newNetwork() (_ *labNetwork, err error) {
	n := &labNetwork{nodes: map[Node]*netns.Space{}}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if n.hub, err = netns.New(); err != nil {
		return nil, err
	}
	// Without snooping the bridge floods multicast from the first packet on, neighbour discovery included.
	snooping := driver.BridgeEnableDisabled
	bridge := &rtnetlink.LinkMessage{Attributes: &rtnetlink.LinkAttributes{
		Name: "br0", Info: &rtnetlink.LinkInfo{Kind: "bridge", Data: &driver.Bridge{McastSnooping: &snooping}}}}
	if err := n.hub.Do(func() error {
		err := netns.WithRoutingSocket(func(c *rtnetlink.Conn) error { return c.Link.New(bridge) })
		if err != nil {
			return err
		}
		return netns.BringUp("br0")
	}); err != nil {
		return nil, fmt.Errorf("lab: bridge: %w", err)
	}
	for _, node := range []Node{Server, Phone, Trunk, Attacker, Spare} {
		ns, err := netns.New()
		if err != nil {
			return nil, err
		}
		n.nodes[node] = ns
		if err := connectNode(n.hub, node, ns); err != nil {
			return nil, fmt.Errorf("lab: node %s: %w", node, err)
		}
	}
	return n, nil
}

// connectNode gives a namespace its addresses and a port at the bridge.
func connectNode(hub *netns.Space, node Node, ns *netns.Space) error {
	port := "p-" + string(node)
	if err := hub.Do(func() error {
		if err := netns.AddPair(port, "eth0", ns); err != nil {
			return err
		}
		index, err := netns.InterfaceIndex(port)
		if err != nil {
			return err
		}
		bridge, err := netns.InterfaceIndex("br0")
		if err != nil {
			return err
		}
		join := &rtnetlink.LinkMessage{Index: index, Attributes: &rtnetlink.LinkAttributes{Master: &bridge}}
		if err := netns.WithRoutingSocket(func(c *rtnetlink.Conn) error { return c.Link.Set(join) }); err != nil {
			return fmt.Errorf("bridge port: %w", err)
		}
		return netns.BringUp(port)
	}); err != nil {
		return err
	}
	return ns.Do(func() error {
		if err := setKernelSwitches(); err != nil {
			return err
		}
		if err := netns.BringUp("eth0", node.IPv4().String()+"/16", node.IPv6().String()+"/32"); err != nil {
			return err
		}
		// A PBX has a default route: without one, packets from forged sources are judged otherwise.
		for _, all := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
			if err := netns.AddDefaultRoute("eth0", all); err != nil {
				return err
			}
		}
		return nil
	})
}

// setKernelSwitches sets what the kernel decides for each namespace: packets of forged sources pass the reverse-path
// filter, and link-local addresses work at once.
func setKernelSwitches() error {
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

func (n *labNetwork) close() {
	for _, ns := range n.nodes {
		_ = ns.Close()
	}
	_ = n.hub.Close()
}

// Do runs f in the node's namespace and waits for it. Sockets that f opens stay in that namespace wherever they are
// used later; goroutines that f starts are outside it. f must not call t.Fatal or t.Skip.
func (l *Lab) Do(node Node, f func() error) error {
	return l.net.nodes[node].Do(f)
}

// NetNS returns the descriptor of the node's network namespace, as nftables.WithNetNSFd takes it. It is the lab's: do
// not close it.
func (l *Lab) NetNS(node Node) int {
	return l.net.nodes[node].FD()
}

// DialContext opens a connection from a node. With Server it is what a daemon beside Asterisk would use.
func (l *Lab) DialContext(ctx context.Context, node Node, network, address string) (net.Conn, error) {
	return l.net.nodes[node].DialContext(ctx, network, address)
}

// Dialer returns a node's DialContext, as tests hand it to a client.
func (l *Lab) Dialer(node Node) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		return l.DialContext(ctx, node, network, address)
	}
}

// Listen opens a TCP listener on a node.
func (l *Lab) Listen(ctx context.Context, node Node, network, address string) (net.Listener, error) {
	return l.net.nodes[node].Listen(ctx, network, address)
}

// AddAddr gives a node one more address, for instance 10.99.7.1 or fd99:0:0:7::1, to attack from.
func (l *Lab) AddAddr(t testing.TB, node Node, addrs ...netip.Addr) {
	t.Helper()
	for _, a := range addrs {
		bits := 16
		if a.Is6() {
			bits = 32
		}
		err := l.Do(node, func() error { return netns.BringUp("eth0", netip.PrefixFrom(a, bits).String()) })
		if err != nil && !errors.Is(err, unix.EEXIST) {
			t.Fatalf("lab: %s: %v", node, err)
		}
		if err := l.Do(node, func() error { return untilLocal(a) }); err != nil {
			t.Fatalf("lab: %s: %v", node, err)
		}
	}
}

// untilLocal waits until packets to an address are the node's own: the kernel adds the route to a new address of IPv6
// later (addrconf_dad_work in net/ipv6/addrconf.c), on a busy machine by seconds, and drops the answers until then.
func untilLocal(a netip.Addr) error {
	family := uint8(unix.AF_INET)
	if a.Is6() {
		family = unix.AF_INET6
	}
	for deadline := time.Now().Add(waitTime); ; time.Sleep(time.Millisecond) {
		var routes []rtnetlink.RouteMessage
		err := netns.WithRoutingSocket(func(c *rtnetlink.Conn) (err error) {
			routes, err = c.Route.Get(&rtnetlink.RouteMessage{
				Family: family, DstLength: uint8(a.BitLen()), Attributes: rtnetlink.RouteAttributes{Dst: a.AsSlice()}})
			return err
		})
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("address %s is still not the node's own after %s", a, waitTime), err)
		}
	}
}
