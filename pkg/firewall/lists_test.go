package firewall

import (
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func listed(list int, prefixes ...string) []Listed {
	var all []Listed
	for _, s := range prefixes {
		from, to, ok := strings.Cut(s, "-")
		if !ok {
			to = from
		}
		all = append(all, Listed{From: netip.MustParseAddr(from), To: netip.MustParseAddr(to), List: list})
	}
	return all
}

func setLists(t *testing.T, fw *Table, all ...[]Listed) {
	t.Helper()
	if err := fw.SetLists(t.Context(), fw.currentConfig().Lists, slices.Values(slices.Concat(all...))); err != nil {
		t.Fatal(err)
	}
	if err := fw.VerifyTable(); err != nil {
		t.Fatalf("Verify after SetLists: %v", err)
	}
}

// withLists is a table with a list that is enforced, one that is observed, and another that is enforced.
func withLists(c *Config) {
	c.Lists = []List{{"bad", true}, {"watched", false}, {"worse", true}}
}

func (w *wire) fromLists(t *testing.T) map[string]uint64 {
	t.Helper()
	n, err := w.fw.ListPackets()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// passes sends a datagram from an address, and reports whether it comes.
func (w *wire) passes(t *testing.T, from string) bool {
	t.Helper()
	client, server := w.udp(t, from, 5060)
	defer func() { _ = client.Close(); _ = server.Close() }()
	return w.passesFrom(t, client, server)
}

// counted is how many packets the lists have counted.
func (w *wire) counted(t *testing.T) (n uint64) {
	t.Helper()
	for _, packets := range w.fromLists(t) {
		n += packets
	}
	return n
}

func (w *wire) passesFrom(t *testing.T, client, server *net.UDPConn) bool {
	t.Helper()
	before := w.counted(t)
	if _, err := client.Write([]byte("OPTIONS")); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); time.Now().Before(end); {
		dropped := w.counted(t) > before
		_ = server.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := server.Read(make([]byte, 100)); err == nil {
			return true
		}
		if dropped {
			return false
		}
	}
	t.Fatal("the packet neither came nor was counted")
	return false
}

func TestPacketsOfListedSources(t *testing.T) {
	w := newWire(t, withLists)
	setLists(t, w.fw, listed(0, "10.99.0.66", "fd99:0:0:7::-fd99:0:0:7:ffff:ffff:ffff:ffff"), listed(1, "10.99.7.5"),
		listed(2, "10.99.7.6-10.99.7.7", "fd99::66"))
	for from, want := range map[string]string{"10.99.0.66": "bad", "10.99.7.5": "watched", "10.99.7.6": "worse",
		"fd99::66": "worse", "fd99:0:0:7::5": "bad", "10.99.0.99": ""} {
		before := w.fromLists(t)
		if got := w.passes(t, from); got != (want == "" || want == "watched") {
			t.Errorf("%s passes: %v", from, got)
		}
		after := w.fromLists(t)
		for _, l := range []string{"bad", "watched", "worse"} {
			if n := after[l] - before[l]; (n == 1) != (l == want) {
				t.Errorf("a packet of %s: list %s counted %d", from, l, n)
			}
		}
	}
}

func TestWhoIsKnownIsNotLookedUpOnLists(t *testing.T) {
	for name, c := range map[string]Change{
		"allowed": {Kind: Allow, Prefix: pfx("10.99.0.66")}, "trusted": {Kind: Trust, Prefix: pfx("10.99.0.66"), Timeout: time.Hour},
	} {
		for _, meter := range []bool{false, true} {
			w := newWire(t, func(c *Config) {
				withLists(c)
				if meter {
					metered(c)
				}
			})
			setLists(t, w.fw, listed(0, "10.99.0.66"))
			if w.passes(t, "10.99.0.66") {
				t.Fatalf("%s: it passes before", name)
			}
			apply(t, w.fw, c)
			if !w.passes(t, "10.99.0.66") {
				t.Errorf("a source that is %s is kept out by a list, meter: %v\n%s", name, meter, w.server.command(t, "nft list table inet ringwall"))
			}
		}
	}
	w := newWire(t, withLists)
	setLists(t, w.fw, listed(0, "10.99.0.66"))
	client, server := w.udp(t, "10.99.0.66", 5060)
	if w.passesFrom(t, client, server) {
		t.Fatal("it passes before")
	}
	apply(t, w.fw, Change{Kind: Good, Flow: Flow{UDP, client.LocalAddr().(*net.UDPAddr).AddrPort()}, Timeout: time.Hour})
	if !w.passesFrom(t, client, server) {
		t.Error("a good flow is kept out by a list")
	}
	if w.passesFrom(t, w.dialUDP(t, "10.99.0.66:0", 5060), server) {
		t.Error("what is good of a source lets in its other ports")
	}
}

func TestAListedCustomerGetsInByTheDoorAndAScannerDoesNot(t *testing.T) {
	w := newWire(t, func(c *Config) {
		withLists(c)
		c.Knock = Knock{Port: 4, Source: 15}
	})
	setLists(t, w.fw, listed(0, "10.99.0.66", "10.99.7.0-10.99.7.255"))
	for range 20 { // each from another port, as scanners do
		if w.passes(t, "10.99.0.66") {
			t.Fatal("the first packet of a listed source passes")
		}
	}
	client, server := w.udp(t, "10.99.7.5", 5060)
	n := 0
	for range 7 { // a request that is sent again and again
		if w.passesFrom(t, client, server) {
			n++
		}
	}
	if n != 4 {
		t.Errorf("of a phone that tries again %d packets passed, and a login takes 2", n)
	}
}

func TestListsAreSwappedWhole(t *testing.T) {
	w := newWire(t, withLists)
	setLists(t, w.fw, listed(0, "10.99.0.66"))
	many := func(yield func(Listed) bool) {
		for i := range 50_000 {
			a := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
			if !yield(Listed{From: a, To: a, List: i % 3}) {
				return
			}
		}
		yield(listed(2, "10.99.0.66")[0])
	}
	client, server := w.udp(t, "10.99.0.66", 5060)
	sent := sendsInVain(t, client, server, func() {
		for range 3 {
			if err := w.fw.SetLists(t.Context(), w.fw.currentConfig().Lists, many); err != nil {
				t.Error(err)
			}
		}
	})
	n := w.fromLists(t)
	if n["bad"]+n["worse"] != uint64(sent) || n["bad"] == 0 || n["worse"] == 0 {
		t.Errorf("of %d packets were counted %v", sent, n)
	}
	out := w.server.command(t, "nft -t list sets inet; nft -t list maps inet")
	for _, gone := range []string{"list4_a", "listnet4_a", "list6_a", "listnet6_a"} {
		if on := strings.Replace(gone, "_a", "_b", 1); strings.Contains(out, gone+" ") == strings.Contains(out, on+" ") {
			t.Errorf("%s and %s:\n%s", gone, on, out)
		}
	}
	setLists(t, w.fw)
	if !w.passesFrom(t, client, server) {
		t.Error("empty lists keep somebody out")
	}
}

func onList(t *testing.T, fw *Table, l Listed, want bool) {
	t.Helper()
	if got, err := fw.OnList(l); err != nil || got != want {
		t.Errorf("%s is on a list: %v, %v", l.From, got, err)
	}
}

func TestListsOutliveTheProcessAndAreSwappedByTheNext(t *testing.T) {
	w := newWire(t, withLists)
	setLists(t, w.fw, listed(0, "10.99.0.66"), listed(1, "10.99.7.5"))
	w.passes(t, "10.99.0.66")
	before := w.fromLists(t)
	// A fill that a power cut ended: its sets are there, and nothing looks into them.
	if _, _, err := w.fw.beginLists(); err != nil {
		t.Fatal(err)
	}
	if err := w.fw.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(w.server)
	withLists(&cfg)
	slices.Reverse(cfg.Lists) // in another order they are the same
	w.fw = openTable(t, cfg)
	ensure(t, w.fw, Adopted)
	if w.fw.ListsFilled() {
		t.Error("it believes to know what is in the kernel")
	}
	if w.passes(t, "10.99.0.66") || !w.passes(t, "10.99.7.5") {
		t.Error("after a restart the lists are not in force as they were")
	}
	if after := w.fromLists(t); after["bad"] != before["bad"]+1 {
		t.Errorf("counters %v, then %v", before, after)
	}
	setLists(t, w.fw, listed(2, "10.99.7.6"))
	if w.passes(t, "10.99.7.6") || !w.passes(t, "10.99.0.66") || !w.fw.ListsFilled() {
		t.Error("the new lists are not in force")
	}
	cfg.Lists = nil
	_ = w.fw.Close()
	w.fw = openTable(t, cfg)
	ensure(t, w.fw, Adopted)
	if out := w.server.command(t, "nft list table inet ringwall"); strings.Contains(out, "list4") || strings.Contains(out, "listed") {
		t.Errorf("something is left of the lists:\n%s", out)
	}
	if !w.passes(t, "10.99.7.6") {
		t.Error("somebody is kept out by lists that are gone")
	}
}

func TestListsAreKnownToBeMissingAfterARebuild(t *testing.T) {
	s := newSpace(t)
	cfg := testConfig(s)
	withLists(&cfg)
	fw := ensured(t, cfg)
	one := listed(0, "192.0.2.1")
	setLists(t, fw, one, listed(1, "2001:db8::-2001:db8::ff"))
	onList(t, fw, one[0], true)
	cfg.UDPPorts = []uint16{5070}
	if err := fw.Reconfigure(cfg); err != nil {
		t.Fatal(err)
	}
	onList(t, fw, one[0], true)
	if !fw.ListsFilled() {
		t.Error("other ports emptied the lists")
	}
	for _, harm := range []string{"nft flush ruleset", "nft delete table inet ringwall", "nft flush chain inet ringwall lists"} {
		s.command(t, harm)
		if err := fw.VerifyTable(); !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v", harm, err)
		}
		if _, err := fw.EnsureTable(); err != nil {
			t.Fatal(err)
		}
		if !fw.ListsFilled() {
			setLists(t, fw, one)
		}
		onList(t, fw, one[0], true)
	}
	// Another priority is another table.
	cfg.Priority = -250
	if err := fw.Reconfigure(cfg); err != nil {
		t.Fatal(err)
	}
	if fw.ListsFilled() {
		t.Error("it believes that they are in the new table")
	}
	setLists(t, fw, one)
	onList(t, fw, one[0], true)
}

func TestARebuildInTheMiddleOfASwap(t *testing.T) {
	s := newSpace(t)
	cfg := testConfig(s)
	withLists(&cfg)
	fw := ensured(t, cfg)
	started := 0
	var seq iter.Seq[Listed] = func(yield func(Listed) bool) {
		started++
		for i := range 20_000 {
			if i == 10_000 && started == 1 {
				s.command(t, "nft delete table inet ringwall")
				ensure(t, fw, Created)
			}
			a := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
			if !yield(Listed{From: a, To: a}) {
				return
			}
		}
	}
	if err := fw.SetLists(t.Context(), cfg.Lists, seq); err != nil {
		t.Fatal(err)
	}
	onList(t, fw, listed(0, "198.18.0.0")[0], true)
	onList(t, fw, listed(0, "198.18.78.31")[0], true)
	if started != 2 {
		t.Errorf("it was begun %d times", started)
	}
	if err := fw.VerifyTable(); err != nil {
		t.Error(err)
	}
}

func TestElementsOfListsEnd(t *testing.T) {
	s := newSpace(t)
	cfg := testConfig(s)
	withLists(&cfg)
	fw := ensured(t, cfg)
	all := listed(0, "192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.0-198.51.100.9")
	all[1].Ends = time.Now().Add(time.Hour)
	all[2].Ends = time.Now().Add(-time.Hour)
	setLists(t, fw, all)
	out := s.command(t, "nft list table inet ringwall")
	for _, want := range []string{"192.0.2.1 timeout 1d", "192.0.2.2 timeout 59m", "198.51.100.0-198.51.100.9 timeout 1d"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
	if strings.Contains(out, "192.0.2.3") {
		t.Error("what is over was written")
	}
}

// A million addresses and networks of five lists are in force within three seconds, and no ban waits for them.
func TestAMillionListed(t *testing.T) {
	s := newSpace(t)
	cfg := testConfig(s)
	for i := range 5 {
		cfg.Lists = append(cfg.Lists, List{fmt.Sprint(i), true})
	}
	fw := ensured(t, cfg)
	million := func(yield func(Listed) bool) {
		for i := range 1_000_000 {
			a := netip.AddrFrom4([4]byte{byte(11 + i>>18), byte(i >> 10), byte(i >> 2), byte(i<<6 + 1)})
			l := Listed{From: a, To: a, List: i % 5}
			if i >= 950_000 {
				l.From = netip.AddrFrom4([4]byte{byte(60 + i>>18), byte(i >> 10), byte(i >> 2), byte(i << 6)})
				l.To = netip.AddrFrom4([4]byte{byte(60 + i>>18), byte(i >> 10), byte(i >> 2), byte(i<<6 + 31)})
			}
			if !yield(l) {
				return
			}
		}
	}
	var longest time.Duration
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
			began := time.Now()
			if err := fw.Apply([]Change{ban(fmt.Sprintf("192.0.2.%d", i%250), time.Hour)}); err != nil {
				t.Error(err)
			}
			longest = max(longest, time.Since(began))
		}
	})
	for _, what := range []string{"empty", "full"} {
		began := time.Now()
		if err := fw.SetLists(t.Context(), cfg.Lists, million); err != nil {
			t.Fatal(err)
		}
		t.Logf("a million into %s lists: %v", what, time.Since(began).Round(time.Millisecond))
	}
	close(stop)
	wg.Wait()
	t.Logf("the longest that a ban took beside it: %v", longest.Round(100*time.Microsecond))
	onList(t, fw, listed(0, "11.0.0.1")[0], true)
}
