package netns

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/jsimonetti/rtnetlink/v2/driver"
	"golang.org/x/sys/unix"
)

// Connect joins two namespaces. At both ends it is the interface eth0, which is up and has the addresses, each with the
// length of its network: 192.0.2.1/24.
func Connect(a, b *Space, addrsA, addrsB []string) error {
	err := a.Do(func() error {
		if err := AddPair("eth0", "eth0", b); err != nil {
			return err
		}
		return BringUp("eth0", addrsA...)
	})
	if err != nil {
		return err
	}
	return b.Do(func() error { return BringUp("eth0", addrsB...) })
}

// AddPair makes a pair of interfaces, of which each receives what the other sends (veth(4)): one in the namespace of
// the calling thread, its peer in another, or in the same where that is nil. Both are down.
func AddPair(name, peer string, other *Space) error {
	far := &rtnetlink.LinkAttributes{Name: peer}
	if other != nil {
		far.NetNS = rtnetlink.NetNSForFD(uint32(other.FD()))
	}
	near := &rtnetlink.LinkAttributes{Name: name, Info: &rtnetlink.LinkInfo{
		Kind: "veth", Data: &driver.Veth{PeerInfo: &rtnetlink.LinkMessage{Attributes: far}}}}
	err := WithRoutingSocket(func(c *rtnetlink.Conn) error {
		return c.Link.New(&rtnetlink.LinkMessage{Attributes: near})
	})
	if err != nil {
		return fmt.Errorf("interfaces %s and %s: %w", name, peer, err)
	}
	return nil
}

// BringUp gives an interface addresses and sets it up, in the namespace of the calling thread. IPv6 addresses are of
// use at once: nobody is asked whether he has them already (RFC 4862, section 5.4), which takes a second or two.
func BringUp(name string, addrs ...string) error {
	index, err := InterfaceIndex(name)
	if err != nil {
		return err
	}
	return WithRoutingSocket(func(c *rtnetlink.Conn) error {
		for _, text := range addrs {
			prefix, err := netip.ParsePrefix(text)
			if err == nil {
				ip := prefix.Addr().AsSlice()
				err = c.Address.New(&rtnetlink.AddressMessage{
					Family: addressFamily(prefix.Addr()), PrefixLength: uint8(prefix.Bits()), Index: index,
					Attributes: &rtnetlink.AddressAttributes{Address: ip, Local: ip, Flags: unix.IFA_F_NODAD},
				})
			}
			if err != nil {
				return fmt.Errorf("interface %s: %s: %w", name, text, err)
			}
		}
		if err := c.Link.Set(&rtnetlink.LinkMessage{Index: index, Flags: unix.IFF_UP,
			Change: unix.IFF_UP}); err != nil {
			return fmt.Errorf("interface %s: %w", name, err)
		}
		return nil
	})
}

// AddDefaultRoute sends what is for any address (0.0.0.0 or ::, as all is) to an interface, in the namespace of the
// calling thread. To whom an address belongs is asked there.
func AddDefaultRoute(name string, all netip.Addr) error {
	index, err := InterfaceIndex(name)
	if err != nil {
		return err
	}
	return WithRoutingSocket(func(c *rtnetlink.Conn) error {
		err := c.Route.Add(&rtnetlink.RouteMessage{
			Family: addressFamily(all), Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_BOOT, Type: unix.RTN_UNICAST,
			Scope: unix.RT_SCOPE_LINK, Attributes: rtnetlink.RouteAttributes{OutIface: index},
		})
		if err != nil {
			return fmt.Errorf("default route to %s: %w", name, err)
		}
		return nil
	})
}

// InterfaceIndex returns the number of an interface in the namespace of the calling thread.
func InterfaceIndex(name string) (uint32, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", name, err)
	}
	return uint32(i.Index), nil
}

// WithRoutingSocket calls f with a connection to the kernel, in the namespace of the calling thread.
func WithRoutingSocket(f func(*rtnetlink.Conn) error) error {
	c, err := rtnetlink.Dial(nil)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	return f(c)
}

func addressFamily(a netip.Addr) uint8 {
	if a.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}
