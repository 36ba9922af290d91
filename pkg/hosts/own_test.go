package hosts

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ringwall/ringwall/pkg/netspace"
	"github.com/ringwall/ringwall/pkg/netspace/netspacetest"
)

// inNamespace runs f in a network namespace of its own.
func inNamespace(t *testing.T, f func(*netspace.Space)) {
	t.Helper()
	s := netspacetest.New(t)
	if err := s.Do(func() error { f(s); return nil }); err != nil {
		t.Fatal(err) // f ended the test
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
		runtime.Goexit() // of the namespace's goroutine
	}
}

// link adds an interface that is up: one end of a pair, since some kernels lack dummies.
func link(t *testing.T, name string, addrs ...string) netlink.Link {
	d := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}
	check(t, netlink.LinkAdd(d))
	peer, err := netlink.LinkByName(name + "p")
	check(t, err)
	check(t, netlink.LinkSetUp(peer))
	check(t, netlink.LinkSetUp(d))
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		check(t, err)
		addr.Flags = 0x02 // IFA_F_NODAD: usable at once
		check(t, netlink.AddrAdd(d, addr))
	}
	return d
}

func always() map[netip.Prefix]string {
	return map[netip.Prefix]string{
		netip.MustParsePrefix("127.0.0.0/8"): "loopback", netip.MustParsePrefix("::1/128"): "loopback",
		netip.MustParsePrefix("169.254.0.0/16"): "link-local", netip.MustParsePrefix("fe80::/10"): "link-local",
	}
}

func TestOwnAddressesAndGatewaysButNotTheSubnet(t *testing.T) {
	inNamespace(t, func(*netspace.Space) {
		got, err := Own()
		check(t, err)
		if !maps.Equal(got, always()) {
			t.Errorf("in an empty namespace: %v", got)
		}
		d := link(t, "lan0", "192.0.2.10/24", "2001:db8::10/64", "198.51.100.1/32")
		index := d.Attrs().Index
		_, all4, _ := net.ParseCIDR("0.0.0.0/0")
		_, all6, _ := net.ParseCIDR("::/0")
		_, other, _ := net.ParseCIDR("203.0.113.0/24")
		for _, r := range []netlink.Route{
			{LinkIndex: index, Dst: all4, Gw: net.ParseIP("192.0.2.1")},
			{LinkIndex: index, Dst: all6, Gw: net.ParseIP("2001:db8::1")},
			{LinkIndex: index, Dst: other, Gw: net.ParseIP("192.0.2.99")}, // not a default route
			{LinkIndex: index, Dst: all4, Gw: net.ParseIP("192.0.2.2"), Table: 100},
			{Dst: all4, Table: 101, MultiPath: []*netlink.NexthopInfo{
				{LinkIndex: index, Gw: net.ParseIP("192.0.2.3")}, {LinkIndex: index, Gw: net.ParseIP("192.0.2.4")}}},
			{LinkIndex: index, Dst: all4, Table: 102, Via: &netlink.Via{AddrFamily: netlink.FAMILY_V6, Addr: net.ParseIP("2001:db8::2")}},
		} {
			check(t, netlink.RouteAdd(&r))
		}
		got, err = Own()
		check(t, err)
		expect := always()
		for _, a := range []string{"192.0.2.10", "2001:db8::10", "198.51.100.1"} {
			expect[single(a)] = "own address"
		}
		for _, a := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "2001:db8::1", "2001:db8::2"} {
			expect[single(a)] = "default gateway"
		}
		if !maps.Equal(got, expect) {
			t.Errorf("got  %v\nwant %v", got, expect)
		}
	})
}

func single(s string) netip.Prefix {
	a := netip.MustParseAddr(s)
	return netip.PrefixFrom(a, a.BitLen())
}

func TestWatcherTellsOfNewAddressesAndRoutes(t *testing.T) {
	inNamespace(t, func(s *netspace.Space) {
		// An hour: only the kernel's notices can be what wakes it.
		lists := watch(t, s, NewWatcher(WatchConfig{Interval: time.Hour}), func(lists chan map[netip.Prefix]string) {
			await(t, lists, func(m map[netip.Prefix]string) bool { return maps.Equal(m, always()) })
			d := link(t, "lan0", "192.0.2.10/24")
			await(t, lists, func(m map[netip.Prefix]string) bool { return m[single("192.0.2.10")] == "own address" })
			_, all, _ := net.ParseCIDR("0.0.0.0/0")
			check(t, netlink.RouteAdd(&netlink.Route{LinkIndex: d.Attrs().Index, Dst: all, Gw: net.ParseIP("192.0.2.1")}))
			await(t, lists, func(m map[netip.Prefix]string) bool { return m[single("192.0.2.1")] == "default gateway" })
			check(t, netlink.LinkDel(d))
			await(t, lists, func(m map[netip.Prefix]string) bool { return maps.Equal(m, always()) })
		})
		if n := len(lists); n != 0 {
			t.Errorf("%d lists without a change", n)
		}
	})
}

func TestWhatWasLookedAtIsNotToldTwice(t *testing.T) {
	inNamespace(t, func(s *netspace.Space) {
		first := make(chan map[netip.Prefix]string, 1)
		w := NewWatcher(WatchConfig{Interval: time.Hour, OnChange: func(own map[netip.Prefix]string) { first <- own }})
		check(t, w.Look())
		if own := <-first; !maps.Equal(own, always()) {
			t.Errorf("Look told %v", own)
		}
		watch(t, s, w, func(lists chan map[netip.Prefix]string) {
			link(t, "lan0", "192.0.2.10/24")
			if own := <-lists; maps.Equal(own, always()) {
				t.Error("Run told the same again")
			}
		})
	})
}

func TestWatcherLooksAtIntervalsWithoutNotices(t *testing.T) {
	inNamespace(t, func(s *netspace.Space) {
		deaf := NewWatcher(WatchConfig{Interval: 20 * time.Millisecond})
		deaf.subscribe = func() (<-chan struct{}, func()) { return nil, func() {} }
		watch(t, s, deaf, func(lists chan map[netip.Prefix]string) {
			await(t, lists, func(m map[netip.Prefix]string) bool { return maps.Equal(m, always()) })
			link(t, "lan0", "192.0.2.10/24")
			await(t, lists, func(m map[netip.Prefix]string) bool { return m[single("192.0.2.10")] == "own address" })
		})
	})
}

// watch runs w on a second thread of the namespace while f runs, and returns what f left of the lists.
func watch(t *testing.T, s *netspace.Space, w *Watcher, f func(chan map[netip.Prefix]string)) chan map[netip.Prefix]string {
	lists := make(chan map[netip.Prefix]string, 100)
	w.cfg.OnChange = func(own map[netip.Prefix]string) { lists <- own }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Do(func() error { return w.Run(ctx) }) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	f(lists)
	return lists
}

func await(t *testing.T, lists chan map[netip.Prefix]string, good func(map[netip.Prefix]string) bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	var last map[netip.Prefix]string
	for {
		select {
		case last = <-lists:
			if good(last) {
				return
			}
		case <-deadline:
			t.Errorf("no such list came; the last was %v", slices.Collect(maps.Keys(last)))
			runtime.Goexit()
		}
	}
}
