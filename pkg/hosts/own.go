package hosts

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Own lists what this machine must never shut out, with a word why for each: its own addresses, loopback, link-local
// networks, and the next hops of its default routes in all routing tables. It speaks of the network namespace of the
// calling thread and needs no privilege.
//
// A gateway is in because behind a router that masquerades, all customers come from its address. The rest of the subnet
// is not: on a rented server the neighbours are strangers, and in an office an infected PC is what a ban is for.
func Own() (map[netip.Prefix]string, error) {
	var err error
	for range 5 {
		var out map[netip.Prefix]string
		if out, err = own(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
		// Something changed while the kernel listed it: ask again.
	}
	return nil, err
}

func own() (map[netip.Prefix]string, error) {
	out := map[netip.Prefix]string{
		netip.MustParsePrefix("127.0.0.0/8"):    "loopback",
		netip.MustParsePrefix("::1/128"):        "loopback",
		netip.MustParsePrefix("169.254.0.0/16"): "link-local",
		netip.MustParsePrefix("fe80::/10"):      "link-local",
	}
	add := func(ip net.IP, note string) {
		a, ok := netip.AddrFromSlice(ip)
		if a = a.Unmap(); !ok || !usable(a) {
			return
		}
		p := netip.PrefixFrom(a, a.BitLen())
		if out[p] == "" {
			out[p] = note
		}
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("hosts: list this machine's addresses: %w", err)
	}
	for _, a := range addrs {
		if a.IPNet != nil {
			add(a.IP, "own address")
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		filter := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
		err := netlink.RouteListFilteredIter(family, filter, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
			if !isDefault(r.Dst) {
				return true
			}
			add(r.Gw, "default gateway")
			add(via(r.Via), "default gateway")
			for _, hop := range r.MultiPath {
				add(hop.Gw, "default gateway")
				add(via(hop.Via), "default gateway")
			}
			return true
		})
		if err != nil {
			return nil, fmt.Errorf("hosts: list this machine's routes: %w", err)
		}
	}
	return out, nil
}

func isDefault(dst *net.IPNet) bool {
	if dst == nil {
		return true
	}
	ones, _ := dst.Mask.Size()
	return ones == 0 && dst.IP.IsUnspecified()
}

// via is the next hop of another address family (RTA_VIA, RFC 5549).
func via(d netlink.Destination) net.IP {
	if v, ok := d.(*netlink.Via); ok && v != nil {
		return v.Addr
	}
	return nil
}
