package hosts

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// OwnPrefixes lists what this machine must never shut out, with a word why for each: its own addresses, loopback,
// link-local networks, and the next hops of its default routes in all routing tables. It speaks of the network
// namespace of the calling thread and needs no privilege.
//
// A gateway is in because behind a router that masquerades, all customers come from its address. The rest of the subnet
// is not: on a rented server the neighbours are strangers, and in an office an infected PC is what a ban is for.
func OwnPrefixes() (map[netip.Prefix]string, error) {
	var err error
	for range 5 {
		var out map[netip.Prefix]string
		if out, err = listOwnPrefixes(); !errors.Is(err, errInterrupted) {
			return out, err
		}
	}
	return nil, err
}

// errInterrupted is a list whose beginning is older than its end (NLM_F_DUMP_INTR).
var errInterrupted = errors.New("something changed while the kernel listed it")

func listOwnPrefixes() (map[netip.Prefix]string, error) {
	out := map[netip.Prefix]string{
		netip.MustParsePrefix("127.0.0.0/8"):    "loopback",
		netip.MustParsePrefix("::1/128"):        "loopback",
		netip.MustParsePrefix("169.254.0.0/16"): "link-local",
		netip.MustParsePrefix("fe80::/10"):      "link-local",
	}
	add := func(ip net.IP, note string) {
		a, ok := netip.AddrFromSlice(ip)
		if a = a.Unmap(); !ok || !isUsable(a) {
			return
		}
		p := netip.PrefixFrom(a, a.BitLen())
		if out[p] == "" {
			out[p] = note
		}
	}
	conn, err := rtnetlink.Dial(nil)
	if err != nil {
		return nil, fmt.Errorf("hosts: netlink: %w", err)
	}
	defer func() { _ = conn.Close() }()
	addrs, err := dumpAll(conn, unix.RTM_GETADDR, &rtnetlink.AddressMessage{})
	if err != nil {
		return nil, fmt.Errorf("hosts: list this machine's addresses: %w", err)
	}
	for _, a := range addrs {
		switch {
		case a.Attributes == nil:
		case a.Attributes.Local != nil: // where Address is the other end of a line
			add(a.Attributes.Local, "own address")
		default:
			add(a.Attributes.Address, "own address")
		}
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		routes, err := dumpAll(conn, unix.RTM_GETROUTE, &rtnetlink.RouteMessage{Family: family})
		if err != nil {
			return nil, fmt.Errorf("hosts: list this machine's routes: %w", err)
		}
		for _, r := range routes {
			if r.DstLength > 0 || r.Flags&unix.RTM_F_CLONED != 0 {
				continue
			}
			add(r.Attributes.Gateway, "default gateway")
			add(viaAddress(r.Attributes.Via), "default gateway")
			for _, hop := range r.Attributes.Multipath {
				add(hop.Gateway, "default gateway")
				add(viaAddress(hop.Via), "default gateway")
			}
		}
	}
	return out, nil
}

// viaAddress is the next hop of another address family (RTA_VIA, RFC 5549).
func viaAddress(v *rtnetlink.RouteVia) net.IP {
	if v == nil {
		return nil
	}
	return v.Addr
}

// dumpAll asks the kernel for all of a kind.
func dumpAll[M rtnetlink.Message](conn *rtnetlink.Conn, kind uint16, request M) ([]M, error) {
	if _, err := conn.Send(request, kind, netlink.Request|netlink.Dump); err != nil {
		return nil, err
	}
	answers, raw, err := conn.Receive()
	if err != nil {
		return nil, err
	}
	out := make([]M, 0, len(answers))
	for i, a := range answers {
		if raw[i].Header.Flags&netlink.DumpInterrupted != 0 {
			return nil, errInterrupted
		}
		if m, ok := a.(M); ok {
			out = append(out, m)
		}
	}
	return out, nil
}
