package engine_test

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
)

// restarted is a world whose engine knows only what was exported.
func (w *world) restarted(change ...func(*config.Policy)) *world {
	n := newWorld(w.t, change...)
	n.now, n.calls = w.now, w.calls
	n.e.Restore(n.now, w.e.Export(w.now), []string{"pbx"})
	return n
}

func TestARestartForgetsNothingThatWasDecided(t *testing.T) {
	w := newWorld(t)
	w.login(office, "201").login(office, "202").login("2001:db8:1::10", "203")
	for range 3 {
		w.scan(bad, "100", over(event.TLS)).scan("2001:db8::66", "101")
	}
	if _, err := w.e.Ban(w.now, netip.MustParsePrefix("192.0.2.0/25"), 3*time.Hour, "rude"); err != nil {
		t.Fatal(err)
	}
	w.e.Unban(w.now, netip.MustParsePrefix("203.0.113.9/32"), time.Hour)
	w.pass(10 * time.Minute)
	n := w.restarted()
	if a, b := w.e.Export(w.now), n.e.Export(n.now); !reflect.DeepEqual(a, b) {
		t.Errorf("exported again it is not the same:\n%+v\n%+v", a, b)
	}
	if a, b := w.e.Bans(w.now), n.e.Bans(n.now); !reflect.DeepEqual(a, b) {
		t.Errorf("bans before and after:\n%+v\n%+v", a, b)
	}
	if x := n.e.Why(n.now, netip.MustParseAddr(bad)); x.Ban == nil || len(x.Ban.Evidence) != 3 ||
		x.Ban.Evidence[0].Account != "100" {
		t.Errorf("the evidence is gone: %+v", x.Ban)
	}
	n.wantTrusted(office, "2001:db8:1::10")
	for range 9 {
		n.scan("203.0.113.9", "100")
	}
	n.wantFree("203.0.113.9")
	n.pass(time.Hour).wantFree(bad)
	for range 3 {
		n.scan(bad, "100", over(event.TLS))
	}
	if d := n.log[len(n.log)-1]; d.Action != ban.ActionBan || d.Duration != 4*time.Hour {
		t.Errorf("%v, want the second ban of 4h", brief(d))
	}
}

func TestARestartRestoresNoBanOfWhoIsExemptByNow(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		w.scan(bad, "100")
	}
	n := w.restarted(func(p *config.Policy) {
		p.Allow = []config.AllowEntry{{Prefix: netip.MustParsePrefix(bad +
			"/32")}}
	})
	n.wantFree(bad)
	if len(n.e.EnforcedBans(n.now)) != 0 {
		t.Error("the kernel would ban an allowed address")
	}
}

func TestWhatIsOverIsNotRestored(t *testing.T) {
	w := newWorld(t)
	w.login(office, "201")
	for range 3 {
		w.scan(bad, "100")
	}
	s := w.e.Export(w.now)
	n := newWorld(t)
	n.now = w.now.Add(800 * time.Hour)
	n.e.Restore(n.now, s, []string{"pbx"})
	if got := n.e.Export(n.now); len(got.Bans)+len(got.Offenders)+len(got.Trusts) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestTrustThatWasLostIsNotRestored(t *testing.T) {
	w := newWorld(t).login(bad, "201", over(event.TLS))
	for i := range 40 {
		w.wrong(bad, string(rune('a'+i)), over(event.TLS))
	}
	w.wantDecision(1, ban.ActionUntrust, ban.ReasonAccounts)
	n := w.restarted().vouch(bad)
	if n.e.Why(n.now, netip.MustParseAddr(bad)).Trust != nil {
		t.Error("a restart brought lost trust back")
	}
}

// The kernel's element says how much time is left: it is never prolonged by what was stored.
func TestTheKernelsTimeCountsAfterARestart(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		w.scan(bad, "100")
	}
	s := w.e.Export(w.now)
	n := newWorld(t)
	n.e.AdoptBan(start, netip.MustParsePrefix(bad+"/32"), ban.ClosesAll, start.Add(10*time.Minute))
	n.e.Restore(start, s, []string{"pbx"})
	bans := n.e.Bans(start)
	if len(bans) != 1 || bans[0].Reason != ban.ReasonUnknownAccount || bans[0].Left > 600 {
		t.Errorf("%+v", bans)
	}
}

func TestADecisionIsReadBackAsItWasWritten(t *testing.T) {
	w := newWorld(t).login(office, "201")
	for range 3 {
		w.scan("2001:db8::66", "\x1b[2Jodd", over(event.TLS))
	}
	w.log = w.e.ReportTampering(w.now, "pbx", "order", nil, w.log)
	if len(w.log) != 3 {
		t.Fatal(w.actions())
	}
	for _, d := range w.log {
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		var back ban.Decision
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(back)
		if err != nil || string(again) != string(text) || back.Prefix != d.Prefix || back.Duration != d.Duration {
			t.Errorf("%s\n%s, %v", text, again, err)
		}
	}
}

// It is the ban of that prefix as it is exported, and none that is over.
func TestBanOfIsTheBanOfThePrefix(t *testing.T) {
	w := newWorld(t)
	w.e.SetMultipliers(byCountry(2), func(a netip.Addr) (at ban.Place) {
		if netip.MustParsePrefix("203.0.113.0/24").Contains(a) {
			at.Country = "NL"
		}
		return at
	})
	check := func(prefixes ...string) {
		t.Helper()
		want := make(map[netip.Prefix]ban.Ban)
		for _, b := range w.e.Export(w.now).Bans {
			want[b.Prefix] = b
		}
		for _, text := range prefixes {
			p := netip.MustParsePrefix(text)
			b, banned := want[p]
			if have, got := w.e.BanOf(p); got != banned || !reflect.DeepEqual(have, b) {
				t.Errorf("%s: %v, %+v\nwant %v, %+v", p, got, have, banned, b)
			}
		}
	}
	var all []string
	for i := range 6 {
		for range 3 {
			w.scan(host(i), "100", over(event.TLS))
		}
		all = append(all, host(i)+"/32")
		if i%2 == 0 { // from elsewhere, where the evidence says so
			addr := netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)}).String()
			for range 3 {
				w.scan(addr, "100", over(event.TLS))
			}
			all = append(all, addr+"/32")
		}
	}
	reversed := slices.Clone(all)
	slices.Reverse(reversed)
	check(all...)
	for i, country := range []string{"", "NL"} {
		if b, ok := w.e.BanOf(netip.MustParsePrefix(all[i])); !ok || len(b.Evidence) == 0 ||
			b.Evidence[0].Country != country {
			t.Fatalf("%+v; want evidence of %q", b, country)
		}
	}
	check(all...)
	check(reversed...)
	check(all[0], all[1], all[3], all[4], all[5], "192.0.2.1/32", all[6], all[7])
	for _, i := range []int{2, 3, 8, 0} {
		w.unban(all[i], 0)
		check(all...)
		if _, err := w.e.Ban(w.now, netip.MustParsePrefix(all[i]), 3*time.Hour, "again"); err != nil {
			t.Fatal(err)
		}
		check(all[i])
		check(reversed...)
	}
	w.unban(all[4], 0).unban(all[5], 0)
	check(all[5])
	w.pass(30 * time.Minute)
	check(all...)
	w.pass(40 * time.Minute)
	check(all...)
	w.e.UnbanAll(w.now)
	check(all...)
}
