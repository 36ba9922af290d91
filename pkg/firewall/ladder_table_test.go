package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// ladderChanges are one of each new kind, for some hours.
func ladderChanges() []Change {
	return []Change{
		{Kind: Good, Flow: flow(UDP, "10.99.7.5:5060"), Timeout: time.Hour},
		{Kind: Good, Flow: flow(TCP, "[fd99:0:0:7::5]:7001"), Timeout: 2 * time.Hour},
		{Kind: Cut, Flow: flow(TCP, "10.99.7.5:7001"), Timeout: time.Hour},
		{Kind: Cut, Flow: flow(UDP, "[fd99:0:0:7::5]:5060"), Timeout: time.Hour},
		{Kind: Slow, Flow: flow(UDP, "10.99.7.5:5062"), Pace: PaceSecond, Timeout: time.Hour},
		{Kind: Slow, Flow: flow(UDP, "[fd99:0:0:7::5]:5062"), Pace: PaceTenMinutes, Timeout: time.Hour},
		{Kind: Slow, Prefix: pfx("10.99.7.6/32"), Pace: PaceMinute, Timeout: time.Hour},
		{Kind: Slow, Prefix: pfx("fd99:0:0:8::/64"), Pace: PaceTenMinutes, Timeout: time.Hour},
		{Kind: Ban, Prefix: pfx("192.0.2.1/32"), Closes: CloseUDP, Timeout: time.Hour},
		{Kind: Ban, Prefix: pfx("192.0.2.1/32"), Closes: CloseSIPOverTCP, Timeout: 2 * time.Hour},
		{Kind: Ban, Prefix: pfx("192.0.2.1/32"), Closes: CloseManager, Timeout: 3 * time.Hour},
		{Kind: Ban, Prefix: pfx("192.0.2.1/32"), Closes: CloseUDPKnock, Timeout: 4 * time.Hour},
		{Kind: Ban, Prefix: pfx("192.0.2.0/24"), Closes: CloseUDPKnock, Timeout: 5 * time.Hour},
		{Kind: Ban, Prefix: pfx("2001:db8::/64"), Closes: CloseUDP, Timeout: time.Hour},
		{Kind: Ban, Prefix: pfx("2001:db8::/64"), Closes: CloseSIPOverTCP, Timeout: time.Hour},
		{Kind: Ban, Prefix: pfx("2001:db8::/64"), Closes: CloseManager, Timeout: time.Hour},
		{Kind: Ban, Prefix: pfx("2001:db8::/64"), Closes: CloseUDPKnock, Timeout: time.Hour},
		{Kind: Ban, Prefix: pfx("2001:db8::/48"), Closes: CloseUDPKnock, Timeout: time.Hour},
		{Kind: Ban, Prefix: pfx("10.99.0.66/32"), Manual: true, Timeout: time.Hour},
		{Kind: Ban, Prefix: pfx("2001:db8:9::/48"), Manual: true, Timeout: time.Hour},
		{Kind: Ban, Prefix: pfx("198.51.100.7/32"), Timeout: time.Hour},
	}
}

// elementOf is what the kernel holds of a change.
func elementOf(t *testing.T, fw Firewall, c Change) Element {
	t.Helper()
	e, ok, err := fw.LookUp(c)
	if err != nil || !ok {
		t.Fatalf("%s: there: %v, error %v", c, ok, err)
	}
	if e.Remaining > c.Timeout || e.Remaining < c.Timeout-5*time.Minute {
		t.Fatalf("%s: %s left", c, e.Remaining)
	}
	return e
}

// inSets is all that the kernel lists, but for when it ends.
func inSets(t *testing.T, fw Firewall) (list []string) {
	t.Helper()
	for k := range numKinds {
		elements, err := fw.Elements(k)
		if err != nil {
			t.Fatal(err)
		}
		for i := range elements {
			e := &elements[i]
			list = append(list, fmt.Sprintf("%s %s %s", e.target(), e.Pace, e.Timeout.Round(time.Hour)))
		}
	}
	slices.Sort(list)
	return list
}

func wanted(changes []Change) (list []string) {
	for i := range changes {
		c := &changes[i]
		list = append(list, fmt.Sprintf("%s %s %s", c.target(), c.Pace, c.Timeout))
	}
	slices.Sort(list)
	return list
}

func TestEachChangeOfTheLadderGoesToItsSet(t *testing.T) {
	s := newSpace(t)
	fw := ensured(t, testConfig(s))
	rows := []struct {
		change Change
		set    string
	}{
		{flowChange(Good, UDP, "192.0.2.1:5060"), "good4 { 192.0.2.1 . udp . 5060 }"},
		{flowChange(Good, TCP, "[2001:db8::1]:5060"), "good6 { 2001:db8::1 . tcp . 5060 }"},
		{flowChange(Good, TCP, "[::ffff:192.0.2.7]:5060"), "good4 { 192.0.2.7 . tcp . 5060 }"},
		{flowChange(Cut, TCP, "192.0.2.1:65535"), "cut4 { 192.0.2.1 . tcp . 65535 }"},
		{flowChange(Cut, UDP, "[2001:db8::1]:1"), "cut6 { 2001:db8::1 . udp . 1 }"},
		{flowChange(Slow, UDP, "192.0.2.1:5060"), "slowflow4 { 192.0.2.1 . udp . 5060 }"},
		{flowChange(Slow, UDP, "[2001:db8::1]:5060"), "slowflow6 { 2001:db8::1 . udp . 5060 }"},
		{Change{Kind: Slow, Prefix: pfx("192.0.2.1")}, "slow4 { 192.0.2.1 }"},
		{Change{Kind: Slow, Prefix: pfx("2001:db8::1")}, "slow6 { 2001:db8:: }"},
		{closing("192.0.2.1", CloseUDP), "sip4 { 192.0.2.1 . udp }"},
		{closing("192.0.2.1", CloseSIPOverTCP), "sip4 { 192.0.2.1 . tcp }"},
		{closing("2001:db8:1::/64", CloseUDP), "sip6 { 2001:db8:1:: . udp }"},
		{closing("2001:db8:1::/64", CloseSIPOverTCP), "sip6 { 2001:db8:1:: . tcp }"},
		{closing("192.0.2.1", CloseManager), "manager4 { 192.0.2.1 }"},
		{closing("2001:db8:1::/64", CloseManager), "manager6 { 2001:db8:1:: }"},
		{closing("192.0.2.1", CloseUDPKnock), "knock4 { 192.0.2.1 }"},
		{closing("192.0.2.0/24", CloseUDPKnock), "knocknet4 { 192.0.2.0/24 }"},
		{closing("192.0.0.0/14", CloseUDPKnock), "knocknet4 { 192.0.0.0/14 }"},
		{closing("2001:db8:1::/64", CloseUDPKnock), "knock6 { 2001:db8:1:: }"},
		{closing("2001:db8:1::7", CloseUDPKnock), "knocknet6 { 2001:db8:1::7 }"},
		{closing("2001:db8:2::/48", CloseUDPKnock), "knocknet6 { 2001:db8:2::/48 }"},
	}
	for _, r := range rows {
		t.Run(r.change.String(), func(t *testing.T) {
			r.change.Timeout = time.Hour
			apply(t, fw, r.change)
			elementOf(t, fw, r.change)
			s.command(t, "nft 'get element inet ringwall "+r.set+"'")
			r.change.Timeout = 3 * time.Hour
			apply(t, fw, r.change)
			elementOf(t, fw, r.change)
			r.change.Remove = true
			apply(t, fw, r.change, r.change)
			if _, ok, err := fw.LookUp(r.change); ok || err != nil {
				t.Errorf("after the removal: there: %v, %v", ok, err)
			}
		})
	}
	if list := inSets(t, fw); len(list) != 0 {
		t.Errorf("left: %q", list)
	}
}

func TestImpossibleChangesOfTheLadderAreRefused(t *testing.T) {
	fw, dry := ensured(t, testConfig(newSpace(t))), NewDryRun(nil)
	for _, c := range []Change{
		flowChange(Good, UDP, "192.0.2.1:0"), flowChange(Good, 1, "192.0.2.1:5060"), {Kind: Good, Timeout: time.Hour},
		{Kind: Good, Prefix: pfx("192.0.2.1"), Timeout: time.Hour},
		{Kind: Cut, Prefix: pfx("192.0.2.1"), Flow: flow(UDP, "192.0.2.1:5060"), Timeout: time.Hour},
		flowChange(Ban, UDP, "192.0.2.1:5060"), flowChange(Slow, TCP, "192.0.2.1:5060"),
		{Kind: Slow, Prefix: pfx("192.0.2.0/24"), Timeout: time.Hour},
		{Kind: Slow, Prefix: pfx("2001:db8::/48"), Timeout: time.Hour},
		{Kind: Slow, Prefix: pfx("192.0.2.1"), Pace: numPaces, Timeout: time.Hour},
		{Kind: Allow, Prefix: pfx("192.0.2.1"), Closes: CloseUDP},
		closing("192.0.2.0/24", CloseUDP), closing("192.0.2.0/24", CloseManager), closing("2001:db8::/56", CloseUDP),
		closing("2001:db8::1", CloseSIPOverTCP), closing("0.0.0.0/0", CloseUDPKnock), closing("192.0.2.1", numCloses),
		{Kind: Ban, Prefix: pfx("192.0.2.1"), Closes: CloseUDP, Manual: true, Timeout: time.Hour},
		{Kind: Allow, Prefix: pfx("192.0.2.1"), Manual: true},
	} {
		for _, fw := range []Firewall{fw, dry} {
			if err := fw.Apply([]Change{ban("192.0.2.9", time.Hour), c}); !errors.Is(err, ErrChange) {
				t.Errorf("%s: %v", c, err)
			}
		}
	}
	short := flowChange(Good, UDP, "192.0.2.1:5060")
	short.Timeout = time.Millisecond
	if err := fw.Apply([]Change{short}); !errors.Is(err, ErrTimeout) {
		t.Error(err)
	}
	lacks(t, fw, Ban, "192.0.2.9")
}

func TestARestartAdoptsTheLadder(t *testing.T) {
	s := newSpace(t)
	cfg := testConfig(s)
	old := ensured(t, cfg)
	apply(t, old, ladderChanges()...)
	want := wanted(ladderChanges())
	if got := inSets(t, old); !slices.Equal(got, want) {
		t.Errorf("the table has\n%q\nwant\n%q", got, want)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	fw := openTable(t, cfg)
	ensure(t, fw, Adopted)
	for name, change := range map[string]func(*Config){
		"as it was":                           func(*Config) {},
		"another chain, and so another table": func(c *Config) { c.Priority = -150 },
		"another scope":                       func(c *Config) { c.Scope = All },
		"no door":                             func(c *Config) { c.Knock = Knock{} },
	} {
		cfg := fw.currentConfig()
		change(&cfg)
		if err := fw.Reconfigure(cfg); err != nil {
			t.Fatal(err)
		}
		if got := inSets(t, fw); !slices.Equal(got, want) {
			t.Errorf("%s: it has\n%q\nwant\n%q", name, got, want)
		}
		for id, want := range map[setID]string{block4: "10.99.0.66/32", block6: "2001:db8:9::/48"} {
			fw.stateMu.Lock()
			r := fw.ranges[id]
			fw.stateMu.Unlock()
			if len(r.entries) != 1 || r.entries[0].prefix.String() != want {
				t.Errorf("%s: manual bans %v, want %s", name, r.entries, want)
			}
		}
	}
	// All of it can be written again, and be taken out.
	apply(t, fw, ladderChanges()...)
	remove := ladderChanges()
	for i := range remove {
		remove[i].Remove = true
	}
	apply(t, fw, remove...)
	if got := inSets(t, fw); len(got) != 0 || len(fw.ranges[block4].entries)+len(fw.ranges[block6].entries) != 0 {
		t.Errorf("left: %q", got)
	}
}

// The table of Ringwall before there were flows, as nft lists it.
const tableBeforeFlows = `table inet ringwall {
	set allow4 { type ipv4_addr; flags interval,timeout; elements = { 10.99.7.6 }; }
	set allow6 { type ipv6_addr; flags interval,timeout; }
	set ban4 { type ipv4_addr; size 4096; flags timeout; elements = { 10.99.0.66 timeout 1h }; }
	set ban4_24 { type ipv4_addr; size 4096; flags timeout; }
	set net4 { type ipv4_addr; flags interval,timeout; elements = { 198.18.0.0/15 timeout 2h }; }
	set ban6 { type ipv6_addr; size 4096; flags timeout; }
	set ban6_64 { type ipv6_addr; size 4096; flags timeout; elements = { 2001:db8:: timeout 3h }; }
	set net6 { type ipv6_addr; flags interval,timeout; }
	chain prerouting {
		type filter hook prerouting priority -300; policy accept;
		iifname "lo" accept comment "the machine itself"
		ip saddr @allow4 accept comment "always let in"
		ip6 saddr @allow6 accept comment "always let in"
		meta l4proto != udp meta l4proto != tcp accept comment "neither UDP nor TCP"
		ip frag-off & 8191 != 0 accept comment "IPv4 fragment without ports"
		frag frag-off != 0 accept comment "IPv6 fragment without ports"
		udp dport != { 5060, 5061 } accept comment "UDP that is not VoIP"
		tcp dport != { 5038, 5060 } accept comment "TCP that is not VoIP"
		ip saddr @ban4 counter packets 77 bytes 7777 drop comment "banned"
		ip saddr & 255.255.255.0 == @ban4_24 counter packets 0 bytes 0 drop comment "banned"
		ip saddr @net4 counter packets 0 bytes 0 drop comment "banned"
		ip6 saddr @ban6 counter packets 0 bytes 0 drop comment "banned"
		ip6 saddr & ffff:ffff:ffff:ffff:: == @ban6_64 counter packets 0 bytes 0 drop comment "banned"
		ip6 saddr @net6 counter packets 0 bytes 0 drop comment "banned"
	}
}`

func TestTheTableBeforeFlowsIsTakenOverWithoutAGap(t *testing.T) {
	w := newWire(t, nil)
	if err := w.fw.DeleteTable(); err != nil {
		t.Fatal(err)
	}
	file := t.TempDir() + "/old.nft"
	w.server.command(t, "cat >"+file+" <<'END'\n"+tableBeforeFlows+"\nEND\nnft -f "+file)
	client, server := w.udpFrom(t, "10.99.0.66:5060", 5060)
	defer func() { _ = client.Close(); _ = server.Close() }()
	n := sendsInVain(t, client, server, func() {
		ensure(t, w.fw, Adopted)
		apply(t, w.fw, ladderChanges()[4:]...) // what a new engine adds to it
	})
	if drops, err := w.fw.DroppedPackets(); err != nil || drops["ban4"]+drops["block4"] < 77 || n == 0 {
		t.Errorf("%v dropped, %d sent, %v", drops, n, err)
	}
	holds(t, w.fw, Ban, "198.18.0.0/15", 2*time.Hour)
	holds(t, w.fw, Ban, "2001:db8::/64", 3*time.Hour)
	holds(t, w.fw, Allow, "10.99.7.6", 0)
	if udp, tcp, err := w.fw.ClosedPorts(); err != nil || fmt.Sprint(udp, tcp) != "[5060 5061] [5038 5060]" {
		t.Errorf("ports %v %v, %v", udp, tcp, err)
	}
}

// Whatever is taken out of the kernel, one element or all, comes back by itself.
func TestTheWriterPutsTheLadderBack(t *testing.T) {
	s := newSpace(t)
	fw := openTable(t, testConfig(s))
	desired := append(ladderChanges(), ban("198.51.100.0/24", time.Hour), ban("198.18.0.0/15", time.Hour),
		ban("2001:db8::7", time.Hour), ban("2001:db8:7::/64", time.Hour))
	rebuilt := make(chan string, 1000)
	start(t, NewWriter(fw, func() []Change { return desired }, WriterConfig{
		VerifyInterval: time.Second, // a lost notice would only make it slow
		Rebuilt:        func(c string) { rebuilt <- c },
		Sample:         func(int) []Change { return desired },
	}))
	<-rebuilt
	damage := []string{"flush ruleset", "flush chain inet ringwall prerouting", "delete table inet ringwall"}
	for _, d := range allSets(DefaultIPv6Prefix) {
		if d.kind < numKinds && d.kind != Allow && d.kind != Trust {
			damage = append(damage, "flush set inet ringwall "+d.name)
		}
	}
	for _, what := range damage {
		begun := time.Now()
		s.command(t, "nft '"+what+"'")
		select {
		case <-rebuilt:
		case <-time.After(patience):
			t.Fatalf("%s: nothing came back", what)
		}
		t.Logf("%s: back after %s, nft's own time included", what, time.Since(begun))
		if err := fw.VerifyTable(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		for _, c := range desired {
			elementOf(t, fw, c)
		}
	}
}

func TestAFullSetOfFlowsRefusesOnlyThose(t *testing.T) {
	cfg := testConfig(newSpace(t))
	cfg.MaxElements = 20
	fw := ensured(t, cfg)
	w := NewWriter(fw, nil, WriterConfig{VerifyInterval: -1})
	start(t, w)
	var none, full int
	for port := range 40 {
		err := w.Apply(t.Context(), []Change{flowChange(Good, UDP, fmt.Sprintf("192.0.2.1:%d", 5000+port))})
		switch {
		case err == nil:
			none++
		case errors.Is(err, ErrFull):
			full++
		default:
			t.Fatal(err)
		}
	}
	if none != 20 || full != 20 {
		t.Errorf("%d found room, %d did not", none, full)
	}
	both := make(chan error, 2)
	for _, c := range []Change{flowChange(Good, UDP, "192.0.2.1:6000"), ban("192.0.2.1", time.Hour)} {
		w.Submit([]Change{c}, func(err error) { both <- err })()
	}
	if err, err2 := <-both, <-both; !errors.Is(errors.Join(err, err2), ErrFull) || err != nil && err2 != nil {
		t.Errorf("%v, %v: the ban of the same address has room", err, err2)
	}
}

func TestDryRunSpeaksOfTheLadder(t *testing.T) {
	s := newSpace(t)
	cfg := testConfig(s)
	fw := ensured(t, cfg)
	var said []string
	d := NewDryRun(func(line string) {
		said = append(said, line)
		s.command(t, "nft '"+line+"'") // nft takes it
	})
	apply(t, d, ladderChanges()...)
	ensure(t, fw, Adopted)
	want := wanted(ladderChanges())
	for name, fw := range map[string]Firewall{"kernel": fw, "dry run": d} {
		if got := inSets(t, fw); !slices.Equal(got, want) {
			t.Errorf("%s has\n%q\nwant\n%q", name, got, want)
		}
	}
	for _, line := range []string{
		"add element inet ringwall good4 { 10.99.7.5 . udp . 5060 timeout 1h }",
		"add element inet ringwall slow4 { 10.99.7.6 limit rate over 4/minute burst 4 packets timeout 1h }",
		"add element inet ringwall sip4 { 192.0.2.1 . tcp timeout 2h }",
		"add element inet ringwall knocknet4 { 192.0.2.0/24 timeout 5h }",
		"add element inet ringwall ban4 { 10.99.0.66 timeout 1h }",
		"add element inet ringwall block4 { 10.99.0.66 timeout 1h }",
	} {
		if !slices.Contains(said, line) {
			t.Errorf("not said: %s; but\n%q", line, said)
		}
	}
	for _, c := range ladderChanges() {
		elementOf(t, d, c)
		c.Remove = true
		apply(t, d, c)
	}
	if got := inSets(t, d); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
}

// What nft has listed it reads again: administrators save their rules so, ours with them.
func TestNftReadsWhatItListed(t *testing.T) {
	w := ladderWire(t, func(c *Config) { c.Meter = Meter{Enabled: true, Rate: 100, Burst: 100} })
	apply(t, w.fw, ladderChanges()...)
	w.passed(t, "10.99.7.6:5060", 5060, 3)
	w.passed(t, "[fd99::66]:5060", 5060, 3)
	apply(t, w.fw, closing("10.99.7.6", CloseUDPKnock))
	w.passed(t, "10.99.7.6:5060", 5060, 3)
	file := t.TempDir() + "/saved.nft"
	w.server.command(t, "(echo flush ruleset; nft list ruleset) >"+file+" && nft -f "+file)
	if err := w.fw.Close(); err != nil {
		t.Fatal(err)
	}
	fw := openTable(t, w.fw.currentConfig())
	ensure(t, fw, Adopted)
	for _, c := range ladderChanges() {
		elementOf(t, fw, c)
	}
}

func TestHundredThousandGoodFlowsComeBack(t *testing.T) {
	s := newSpace(t)
	cfg := testConfig(s)
	cfg.MaxElements = 1 << 20
	fw := openTable(t, cfg)
	desired := make([]Change, 100_000)
	for i := range desired {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		if i%2 == 1 {
			a = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)})
		}
		desired[i] = Change{Kind: Good, Flow: Flow{UDP, netip.AddrPortFrom(a, 5060)}, Timeout: time.Hour}
	}
	rebuilt := make(chan string, 10)
	start(t, NewWriter(fw, func() []Change { return desired }, WriterConfig{Rebuilt: func(c string) { rebuilt <- c }}))
	wait := func() {
		t.Helper()
		select {
		case <-rebuilt:
		case <-time.After(patience):
			t.Fatal("the table is not built")
		}
	}
	wait()
	begun := time.Now()
	s.command(t, "nft flush ruleset")
	wait()
	t.Logf("back after %s, nft's own time included", time.Since(begun))
	for i := 0; i < len(desired); i += 997 {
		elementOf(t, fw, desired[i])
	}
	if list, err := fw.Elements(Good); err != nil || len(list) != len(desired) {
		t.Errorf("%d flows are listed, %v", len(list), err)
	}
}

// A packet of a good flow is looked up once more than one of a customer was before there were flows: then among the
// allowed and in three sets of bans.
func TestAGoodPacketIsLookedUpFiveTimesAtMost(t *testing.T) {
	cfg, err := Config{UDPPorts: []uint16{5060}, TCPPorts: []uint16{5060}, Meter: Meter{Enabled: true, Rate: 1},
		Knock: Knock{4, 15}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	rules := cfg.preroutingRules(allSets(cfg.IPv6Prefix), [numSets]uint64{}, [numSets]uint64{},
		func([]uint16) *nftables.Set { return &nftables.Set{} })
	for _, packet := range []struct {
		family    byte
		transport Transport
		good      string
	}{
		{unix.NFPROTO_IPV4, UDP, "good4"}, {unix.NFPROTO_IPV4, TCP, "good4"},
		{unix.NFPROTO_IPV6, UDP, "good6"}, {unix.NFPROTO_IPV6, TCP, "good6"},
	} {
		var sets []string
		for i := 0; i < len(rules) && !slices.Contains(sets, packet.good); i++ {
			sets = append(sets, lookedUp(rules[i].exprs, packet.family, packet.transport)...)
		}
		if len(sets) > 5 || !slices.Contains(sets, packet.good) {
			t.Errorf("%s: %q", packet.transport, sets)
		}
	}
}

// lookedUp are the sets of a rule that a packet gets to, of the family and transport, with no flag of TCP set.
func lookedUp(exprs []expr.Any, family byte, transport Transport) (sets []string) {
	var loaded []byte
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Meta:
			loaded = map[expr.MetaKey][]byte{expr.MetaKeyNFPROTO: {family}, expr.MetaKeyL4PROTO: {byte(transport)}}[e.Key]
		case *expr.Payload:
			loaded = nil
			if e.Base == expr.PayloadBaseTransportHeader && e.Offset == 13 {
				loaded = []byte{0}
			}
		case *expr.Cmp:
			if loaded != nil && slices.Equal(loaded, e.Data) != (e.Op == expr.CmpOpEq) {
				return nil
			}
		case *expr.Lookup:
			if e.SetName != "" {
				sets = append(sets, e.SetName)
			}
		}
	}
	return sets
}
