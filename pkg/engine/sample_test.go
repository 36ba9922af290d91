package engine

import (
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
)

// TestSample takes some of the bans, each of which comes up sooner or later.
func TestSample(t *testing.T) {
	e := New(config.Default().Policy)
	if s := e.SampleBans(epoch, 8); len(s) != 0 {
		t.Errorf("%v of no bans", s)
	}
	const bans = 100
	for i := range bans {
		e.AdoptBan(epoch, netip.PrefixFrom(address(i), 32), ban.ClosesAll, epoch.Add(time.Hour))
	}
	seen := make(map[netip.Prefix]bool)
	for range 10_000 {
		sample := e.SampleBans(epoch.Add(time.Minute), 8)
		if len(sample) != 8 {
			t.Fatalf("%d bans, want 8", len(sample))
		}
		once := make(map[netip.Prefix]bool)
		for _, c := range sample {
			if once[c.Prefix] || c.Left != 59*time.Minute {
				t.Fatalf("%+v in %+v", c, sample)
			}
			once[c.Prefix], seen[c.Prefix] = true, true
		}
	}
	if len(seen) != bans {
		t.Errorf("%d of %d bans were ever sampled", len(seen), bans)
	}
	if s := e.SampleBans(epoch.Add(2*time.Hour), 8); len(s) != 0 {
		t.Errorf("%v when all bans are over", s)
	}
}

// TestWhatThereIsLittleOfIsSampled has one of each kind of element among many bans.
func TestWhatThereIsLittleOfIsSampled(t *testing.T) {
	w := newTestWorld()
	stranger := netip.MustParseAddr("192.0.2.70")
	for range 60 {
		w.now = w.now.Add(30 * time.Second)
		w.send(event.ChallengeResponseFailed, event.UDP, stranger, 5060, "203")
	}
	const bans = 5000
	for i := range bans {
		w.e.AdoptBan(w.now, netip.PrefixFrom(address(1000+i), 32), ban.ClosesUDP, w.now.Add(time.Hour))
	}
	w.e.AdoptBan(w.now, netip.MustParsePrefix("203.0.113.0/24"), ban.ClosesUDP, w.now.Add(time.Hour))
	w.e.AdoptBan(w.now, netip.MustParsePrefix("203.0.114.7/32"), ban.ClosesManager, w.now.Add(time.Hour))
	if _, err := w.e.Ban(w.now, netip.MustParsePrefix("203.0.115.7/32"), time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	office := netip.MustParseAddr("198.51.100.10")
	w.send(event.SuccessfulAuth, event.TLS, office, 20_000, "201")
	for range 60 {
		w.send(event.ChallengeResponseFailed, event.TLS, office, 30_000, "250")
	}
	w.send(event.SuccessfulAuth, event.UDP, office, 5060, "202")
	for range 60 {
		w.send(event.ChallengeResponseFailed, event.UDP, office, 5060, "251")
	}
	seen := make(map[Element]bool)
	for range 200 {
		for _, el := range w.e.SampleRare(w.now, 2) {
			el.Left = 0
			seen[el] = true
		}
	}
	prefix := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, 32) }
	for _, want := range []Element{
		{Kind: BanOfPrefix, Prefix: netip.MustParsePrefix("203.0.113.0/24"), Closes: ban.ClosesUDP},
		{Kind: BanOfPrefix, Prefix: netip.MustParsePrefix("203.0.114.7/32"), Closes: ban.ClosesManager},
		{Kind: BanOfPrefix, Prefix: netip.MustParsePrefix("203.0.115.7/32"), Manual: true},
		{Kind: BanOfPrefix, Prefix: prefix(office), Closes: ban.ClosesUDP},
		{Kind: CutFlow, Flow: ban.Flow{Source: netip.AddrPortFrom(office, 30_000)}},
		{Kind: SlowFlow, Flow: ban.Flow{UDP: true, Source: netip.AddrPortFrom(office, 5060)}, Pace: PaceSecond},
		{Kind: SlowSource, Prefix: prefix(stranger), Pace: PaceMinute},
	} {
		if !seen[want] {
			t.Errorf("%+v was never sampled", want)
		}
	}
	if len(seen) > 20 {
		t.Errorf("%d elements", len(seen))
	}
}

// testWorld is an engine and its time.
type testWorld struct {
	e     *Engine
	now   time.Time
	calls int
}

func newTestWorld() *testWorld {
	return &testWorld{e: New(config.Default().Policy), now: epoch}
}

func (w *testWorld) send(typ event.Type, over event.Transport, from netip.Addr, port uint16, account string) {
	w.calls++
	w.now = w.now.Add(time.Millisecond)
	w.e.Handle(w.now, "pbx", &event.Event{Type: typ, Service: event.PJSIP, Account: account, Time: w.now,
		Session: strconv.Itoa(w.calls), Challenge: "1/a", Response: strconv.Itoa(w.calls), UsingPassword: true,
		Remote: event.Address{AddrPort: netip.AddrPortFrom(from, port), Transport: over}}, nil)
}
