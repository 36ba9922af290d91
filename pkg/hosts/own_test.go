package hosts

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/netns"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// inNamespace runs f in a network namespace of its own.
func inNamespace(t *testing.T, f func(*netns.Space)) {
	t.Helper()
	s := netnstest.New(t)
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

// link adds an interface that is up, and returns its index: one end of a pair, since some kernels lack dummies.
func link(t *testing.T, name string, addrs ...string) uint32 {
	check(t, netns.AddPair(name, name+"p", nil))
	check(t, netns.BringUp(name+"p"))
	check(t, netns.BringUp(name, addrs...))
	index, err := netns.InterfaceIndex(name)
	check(t, err)
	return index
}

// route adds routes, each in the main table where it names none.
func route(t *testing.T, routes ...rtnetlink.RouteMessage) {
	check(t, netns.WithRoutingSocket(func(c *rtnetlink.Conn) error {
		for _, r := range routes {
			r.Protocol, r.Type = unix.RTPROT_STATIC, unix.RTN_UNICAST
			if r.Table == 0 {
				r.Table = unix.RT_TABLE_MAIN
			}
			if err := c.Route.Add(&r); err != nil {
				return fmt.Errorf("%+v: %w", r, err)
			}
		}
		return nil
	}))
}

func always() map[netip.Prefix]string {
	return map[netip.Prefix]string{
		netip.MustParsePrefix("127.0.0.0/8"): "loopback", netip.MustParsePrefix("::1/128"): "loopback",
		netip.MustParsePrefix("169.254.0.0/16"): "link-local", netip.MustParsePrefix("fe80::/10"): "link-local",
	}
}

func TestOwnAddressesAndGatewaysButNotTheSubnet(t *testing.T) {
	inNamespace(t, func(*netns.Space) {
		got, err := OwnPrefixes()
		check(t, err)
		if !maps.Equal(got, always()) {
			t.Errorf("in an empty namespace: %v", got)
		}
		index := link(t, "lan0", "192.0.2.10/24", "2001:db8::10/64", "198.51.100.1/32")
		by := func(gateway string) rtnetlink.RouteAttributes {
			return rtnetlink.RouteAttributes{OutIface: index, Gateway: net.ParseIP(gateway)}
		}
		elsewhere := by("192.0.2.99")
		elsewhere.Dst = net.ParseIP("203.0.113.0")
		hop := func(gateway string) rtnetlink.NextHop {
			return rtnetlink.NextHop{Hop: rtnetlink.RTNextHop{IfIndex: index}, Gateway: net.ParseIP(gateway)}
		}
		both := rtnetlink.RouteAttributes{Multipath: []rtnetlink.NextHop{hop("192.0.2.3"), hop("192.0.2.4")}}
		via6 := rtnetlink.RouteAttributes{OutIface: index, Via: &rtnetlink.RouteVia{Family: unix.AF_INET6,
			Addr: net.ParseIP("2001:db8::2")}}
		large := by("192.0.2.5")
		large.Table = 1000
		route(t,
			rtnetlink.RouteMessage{Family: unix.AF_INET, Attributes: by("192.0.2.1")},
			rtnetlink.RouteMessage{Family: unix.AF_INET6, Attributes: by("2001:db8::1")},
			rtnetlink.RouteMessage{Family: unix.AF_INET, DstLength: 24, Attributes: elsewhere}, // not a default route
			rtnetlink.RouteMessage{Family: unix.AF_INET, Table: 100, Attributes: by("192.0.2.2")},
			rtnetlink.RouteMessage{Family: unix.AF_INET, Table: 101, Attributes: both},
			rtnetlink.RouteMessage{Family: unix.AF_INET, Table: 102, Attributes: via6},
			rtnetlink.RouteMessage{Family: unix.AF_INET, Table: unix.RT_TABLE_COMPAT, Attributes: large}, // a number above 255
		)
		got, err = OwnPrefixes()
		check(t, err)
		expect := always()
		for _, a := range []string{"192.0.2.10", "2001:db8::10", "198.51.100.1"} {
			expect[single(a)] = "own address"
		}
		for _, a := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "2001:db8::1",
			"2001:db8::2"} {
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
	inNamespace(t, func(s *netns.Space) {
		// An hour: only the kernel's notices can be what wakes it.
		lists := watch(t, s, NewWatcher(WatchConfig{Interval: time.Hour}), func(lists chan map[netip.Prefix]string) {
			await(t, lists, func(m map[netip.Prefix]string) bool { return maps.Equal(m, always()) })
			index := link(t, "lan0", "192.0.2.10/24")
			await(t, lists, func(m map[netip.Prefix]string) bool { return m[single("192.0.2.10")] == "own address" })
			route(t, rtnetlink.RouteMessage{Family: unix.AF_INET,
				Attributes: rtnetlink.RouteAttributes{OutIface: index, Gateway: net.ParseIP("192.0.2.1")}})
			await(t, lists, func(m map[netip.Prefix]string) bool { return m[single("192.0.2.1")] == "default gateway" })
			check(t, netns.WithRoutingSocket(func(c *rtnetlink.Conn) error { return c.Link.Delete(index) }))
			await(t, lists, func(m map[netip.Prefix]string) bool { return maps.Equal(m, always()) })
		})
		if n := len(lists); n != 0 {
			t.Errorf("%d lists without a change", n)
		}
	})
}

func TestWhatWasLookedAtIsNotToldTwice(t *testing.T) {
	inNamespace(t, func(s *netns.Space) {
		first := make(chan map[netip.Prefix]string, 1)
		w := NewWatcher(WatchConfig{Interval: time.Hour, OnChange: func(own map[netip.Prefix]string) { first <- own }})
		check(t, w.ReportOnce())
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
	inNamespace(t, func(s *netns.Space) {
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
func watch(t *testing.T, s *netns.Space, w *Watcher,
	f func(chan map[netip.Prefix]string)) chan map[netip.Prefix]string {
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
