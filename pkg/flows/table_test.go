package flows

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// voip is a Config that ends flows to the usual ports.
func (w *wire) voip() Config {
	return Config{NetNS: w.server.FD(), UDPPorts: []uint16{5060, 5061}, TCPPorts: []uint16{5060, 5038}}
}

// start runs an Ender until the test ends; the channel tells what it ended.
func start(t testing.TB, cfg Config) (*Ender, <-chan int) {
	t.Helper()
	ended := make(chan int, 64)
	cfg.Ended = func(n int) { ended <- n }
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return e, ended
}

func await(t testing.TB, ended <-chan int) int {
	t.Helper()
	select {
	case n := <-ended:
		return n
	case <-time.After(patience):
		t.Fatal("no flow ended")
		return 0
	}
}

func prefixes(list ...string) (all []netip.Prefix) {
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

func TestOnlyVoIPFlowsOfTheSourceEnd(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	w.server.echoUDP(t, server4+":5060")
	w.server.echoUDP(t, server4+":10000")
	ask(t, w.client.listenUDP(t, client4+":5060"), server4+":5060")
	ask(t, w.client.listenUDP(t, client4+":4000"), server4+":10000")
	ask(t, w.client.listenUDP(t, other4+":5060"), server4+":5060")
	ssh := w.connect(t, client4+":40022", server4+":22")
	w.connect(t, client4+":45060", server4+":5060")
	w.wantNames(t, "17 10.99.0.66>5060", "17 10.99.0.66>10000", "17 10.99.7.5>5060", "6 10.99.0.66>22", "6 10.99.0.66>5060")

	e, ended := start(t, w.voip())
	e.End(netip.MustParsePrefix(client4 + "/32"))
	if n := await(t, ended); n != 2 {
		t.Errorf("%d flows ended, want SIP over UDP and over TCP", n)
	}
	w.wantNames(t, "17 10.99.0.66>10000", "17 10.99.7.5>5060", "6 10.99.0.66>22")
	ssh.exchange(t)
}

func TestIPv6FlowsEnd(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	w.server.echoUDP(t, "[fd99::1]:5060")
	ask(t, w.client.listenUDP(t, "[fd99::66]:5060"), "[fd99::1]:5060")
	ssh := w.connect(t, "[fd99::66]:40022", "[fd99::1]:22")
	w.connect(t, "[fd99::66]:45060", "[fd99::1]:5060")
	w.ping(t, client6, server6)
	// The library reads the echo between the others, so its dumps cope too.
	w.wantNames(t, "17 fd99::66>5060", "6 fd99::66>22", "6 fd99::66>5060", "58 fd99::66>0")

	e, ended := start(t, w.voip())
	e.End(netip.MustParsePrefix("fd99::/64"))
	if n := await(t, ended); n != 2 {
		t.Errorf("%d flows ended, want SIP over UDP and over TCP", n)
	}
	w.wantNames(t, "6 fd99::66>22", "58 fd99::66>0")
	ssh.exchange(t)
}

func TestScopeAllEndsEveryFlow(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	w.ping(t, client6, server6)
	w.connect(t, "[fd99::66]:40022", "[fd99::1]:22")
	w.connect(t, client4+":40022", server4+":22")
	w.connect(t, other4+":40022", server4+":22")

	e, ended := start(t, Config{NetNS: w.server.FD(), All: true})
	// Both families are looked for in one dump.
	e.End(prefixes(client4+"/32", "fd99::66/128")...)
	if n := await(t, ended); n != 3 {
		t.Errorf("%d flows ended, want ICMPv6 and TCP of both families", n)
	}
	w.wantNames(t, "6 10.99.7.5>22")
}

// Asterisk itself begins flows: it qualifies, it calls.
func TestFlowsThatTheMachineBeganEnd(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, from, to, prefix string }{
		{"IPv4", server4 + ":5060", client4 + ":5062", client4 + "/32"},
		{"IPv6", "[fd99::1]:5060", "[fd99::66]:5062", "fd99::66/128"},
		{"a network", server4 + ":5060", client4 + ":5062", "10.99.0.0/24"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t)
			w.client.echoUDP(t, c.to)
			ask(t, w.server.listenUDP(t, c.from), c.to)
			if got := w.names(t); len(got) != 1 {
				t.Fatalf("flows %v, want one", got)
			}
			e, ended := start(t, w.voip())
			e.End(netip.MustParsePrefix(c.prefix))
			if n := await(t, ended); n != 1 {
				t.Errorf("%d flows ended", n)
			}
			w.wantNames(t)
		})
	}
}

func TestANetworkEndsInOneLook(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	w.fill(t, 500, func(i int) (netip.Addr, uint16) {
		return netip.AddrFrom4([4]byte{10, 99, byte(50 + i%2), byte(1 + i/2)}), 5060
	}, 5060)
	spared := netip.MustParseAddr("10.99.50.7")
	cfg := w.voip()
	cfg.Spare = func(a netip.Addr) bool { return a == spared }
	e, ended := start(t, cfg)
	e.End(netip.MustParsePrefix("10.99.50.0/24"))
	if n := await(t, ended); n != 249 {
		t.Errorf("%d flows ended at once, want those of 250 sources but one", n)
	}
	names := w.names(t)
	if !names["17 10.99.50.7>5060"] || names["17 10.99.50.8>5060"] {
		t.Errorf("the source that is always let in has lost its flow, or its neighbour kept it")
	}
	delete(names, "17 10.99.0.66>9") // the first packet of fill
	if len(names) != 1+250 {
		t.Errorf("%d sources have flows, want 250 of another network and the spared one", len(names))
	}
}

// More flows than are remembered at a time are ended in several rounds.
func TestManyFlowsOfOneSourceEnd(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	source := netip.MustParseAddr(client4)
	const n = 2*chunk + 100
	w.fill(t, n, func(i int) (netip.Addr, uint16) { return source, uint16(10_000 + i) }, 5060)
	e, ended := start(t, w.voip())
	e.End(netip.PrefixFrom(source, 32))
	if got := await(t, ended); got != n {
		t.Errorf("%d of %d flows ended", got, n)
	}
	for name := range w.names(t) {
		if strings.HasSuffix(name, ">5060") {
			t.Errorf("%s is left", name)
		}
	}
}

// A flow in a zone of its own is ended there and not in its neighbour.
func TestFlowsInZonesEnd(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	w.server.nft(t, `table inet zones {
		chain pre { type filter hook prerouting priority -300; udp dport 5060 ct zone set 7; }
		chain out { type filter hook output priority -300; udp sport 5060 ct zone set 7; }
	}`)
	w.server.echoUDP(t, server4+":5060")
	ask(t, w.client.listenUDP(t, client4+":5060"), server4+":5060")
	flows := w.flows(t)
	if len(flows) != 1 || flows[0].Zone != 7 {
		t.Fatalf("flows %v, want one in zone 7", flows)
	}
	e, ended := start(t, w.voip())
	e.End(netip.MustParsePrefix(client4 + "/32"))
	if n := await(t, ended); n != 1 {
		t.Errorf("%d flows ended", n)
	}
	w.wantNames(t)
}

// Where NAT changes the port, the port that counts is the one on the wire, as
// for the firewall's chain.
func TestNATIsSeenFromTheWire(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	w.server.nft(t, `table ip nat {
		chain pre { type nat hook prerouting priority -100; udp dport { 5060, 15060 } redirect to :7060; }
	}`)
	w.server.echoUDP(t, server4+":7060")
	ask(t, w.client.listenUDP(t, client4+":5060"), server4+":5060")
	ask(t, w.client.listenUDP(t, client4+":5061"), server4+":15060")
	e, ended := start(t, w.voip())
	e.End(netip.MustParsePrefix(client4 + "/32"))
	if n := await(t, ended); n != 1 {
		t.Errorf("%d flows ended", n)
	}
	w.wantNames(t, "17 10.99.0.66>15060")
}

func TestWithoutTrackingNothingHappens(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	tb, err := openTable(s.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer tb.close()
	for _, p := range []string{"192.0.2.1/32", "192.0.2.0/24", "2001:db8::/64"} {
		if n, err := tb.end(t.Context(), selectionOf(p)); n != 0 || err != nil {
			t.Errorf("%s: %d flows ended, %v", p, n, err)
		}
	}
}

func TestNoPermissionIsToldApart(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	err := s.Do(func() error { // on a thread of its own, which has its own capabilities
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		if err := unix.Capget(&head, &caps[0]); err != nil {
			return err
		}
		caps[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		if err := unix.Capset(&head, &caps[0]); err != nil {
			return err
		}
		tb, err := openTable(0)
		if err != nil {
			return err
		}
		defer tb.close()
		_, err = tb.end(t.Context(), selectionOf("192.0.2.1/32"))
		return err
	})
	if !errors.Is(err, ErrPermission) {
		t.Errorf("%v, want %v", err, ErrPermission)
	}
}

func TestNewRefusesWhatIsNoNamespace(t *testing.T) {
	t.Parallel()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := New(Config{NetNS: int(f.Fd())}); err == nil {
		t.Error("New took /dev/null for a network namespace")
	}
}

func TestEndOfContextEndsALook(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	w.fill(t, 10, func(i int) (netip.Addr, uint16) { return netip.MustParseAddr(client4), uint16(10_000 + i) }, 5060)
	tb, err := openTable(w.server.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer tb.close()
	ctx, cancel := context.WithCancel(t.Context())
	s := selectionOf(client4 + "/32")
	s.cfg.Spare = func(netip.Addr) bool { cancel(); return false }
	if n, err := tb.end(ctx, s); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d flows ended, %v", n, err)
	}
}

// What the deletion buys, first: where the ban comes after tracking (priority
// above -200), the packets that it drops keep the flow alive for ever.
func TestABanAfterTrackingKeepsTheFlowAlive(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	w.server.timeout(t, "udp_timeout_stream", 1000)
	w.server.echoUDP(t, server4+":5060")
	phone := w.client.listenUDP(t, client4+":5060")
	for range 3 {
		ask(t, phone, server4+":5060")
	}
	flow := func() *netlink.ConntrackFlow {
		for _, f := range w.flows(t) {
			return f
		}
		return nil
	}
	w.server.nft(t, `table ip late {
		chain pre { type filter hook prerouting priority -100; ip saddr 10.99.0.66 udp dport 5060 counter drop; }
	}`)
	// From here on a packet that is tracked takes the flow to this timeout.
	w.server.timeout(t, "udp_timeout_stream", 5000)
	w.server.timeout(t, "udp_timeout", 5000)
	send := func() {
		if _, err := phone.WriteToUDPAddrPort([]byte("REGISTER"), netip.MustParseAddrPort(server4+":5060")); err != nil {
			t.Fatal(err)
		}
	}
	if f := flow(); f == nil || f.TimeOut > 1000 {
		t.Fatalf("flow %v before the ban", f)
	}
	send()
	if err := eventually(func() bool { f := flow(); return f != nil && f.TimeOut > 1000 }); err != nil {
		t.Errorf("the dropped packet did not keep the flow alive: %v", flow())
	}

	e, ended := start(t, w.voip())
	e.End(netip.MustParsePrefix(client4 + "/32"))
	await(t, ended)
	before := w.server.nft(t, "list table ip late")
	send()
	if err := eventually(func() bool { return w.server.nft(t, "list table ip late") != before }); err != nil {
		t.Fatal("the packet did not come")
	}
	w.wantNames(t)
}

// Second: where the machine's own rules let out what is established, the
// answers to a banned source stop only when its flow ends.
func TestOwnPacketsToTheSourceStop(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	asterisk := w.server.listenUDP(t, server4+":5060")
	phone := w.client.listenUDP(t, client4+":5060")
	w.server.nft(t, `table inet admin {
		chain out { type filter hook output priority 0; policy drop; ct state established accept; }
	}`)
	if _, err := phone.WriteToUDPAddrPort([]byte("REGISTER"), netip.MustParseAddrPort(server4+":5060")); err != nil {
		t.Fatal(err)
	}
	if err := eventually(func() bool { return w.names(t)["17 10.99.0.66>5060"] }); err != nil {
		t.Fatal("the flow is not tracked")
	}
	w.server.nft(t, `table ip ban {
		chain pre { type filter hook prerouting priority -300; ip saddr 10.99.0.66 udp dport 5060 drop; }
	}`)
	answer := func() error {
		_, err := asterisk.WriteToUDPAddrPort([]byte("SIP/2.0 401"), netip.MustParseAddrPort(client4+":5060"))
		return err
	}
	if err := answer(); err != nil {
		t.Fatalf("the ban alone stopped the machine's own packets: %v", err)
	}
	e, ended := start(t, w.voip())
	e.End(netip.MustParsePrefix(client4 + "/32"))
	await(t, ended)
	// A packet that an output chain drops is an error of the sender.
	if err := answer(); !errors.Is(err, unix.EPERM) {
		t.Errorf("the machine's own packet went out after the flow had ended: %v", err)
	}
}

// Third: a TCP flow whose packets are dropped keeps its place in the table
// for days.
func TestADroppedTCPFlowKeepsItsPlaceForDays(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	w.server.nft(t, `table ip ban {
		chain pre { type filter hook prerouting priority -300; ip saddr @banned drop; }
		set banned { type ipv4_addr; }
	}`)
	w.connect(t, client4+":45060", server4+":5060")
	w.server.nft(t, "add element ip ban banned { 10.99.0.66 }")
	if f := w.flows(t); len(f) != 1 || f[0].TimeOut < 4*24*3600 {
		t.Fatalf("flows %v, want one with days left", f)
	}
	e, ended := start(t, w.voip())
	e.End(netip.MustParsePrefix(client4 + "/32"))
	await(t, ended)
	w.wantNames(t)
}

// ping sends an ICMPv6 echo and waits for the reply.
func (w *wire) ping(t *testing.T, from, to string) {
	t.Helper()
	var c net.PacketConn
	err := w.client.Do(func() (err error) {
		c, err = net.ListenPacket("ip6:ipv6-icmp", from)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.WriteTo([]byte{128, 0, 0, 0, 0, 9, 0, 1}, &net.IPAddr{IP: net.ParseIP(to)}); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("%d %s>0", unix.IPPROTO_ICMPV6, from)
	if err := eventually(func() bool { return w.names(t)[name] }); err != nil {
		t.Fatal("the echo is not tracked")
	}
}
