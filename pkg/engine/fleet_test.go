package engine_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
)

// hear has another node's ban come in.
func (w *world) hear(prefix string, change ...func(*engine.FleetBan)) *world {
	f := engine.FleetBan{Prefix: netip.MustParsePrefix(prefix), Until: w.now.Add(time.Hour), Origin: "pbx2", Nodes: 1,
		Reason: ban.ReasonScanner, Proven: true, Evidence: "3 requests"}
	for _, c := range change {
		c(&f)
	}
	w.log = append(w.log, w.e.BanForFleet(w.now, f)...)
	return w
}

func (w *world) hearTrust(prefix string, d time.Duration) *world {
	w.log = append(w.log, w.e.TrustForFleet(w.now, netip.MustParsePrefix(prefix), w.now.Add(d), "pbx2")...)
	return w
}

func forged(f *engine.FleetBan) { f.Proven, f.Closes, f.Nodes = false, ban.ClosesUDP, 2 }

func TestWhomAnotherNodeSawIsBanned(t *testing.T) {
	w := newWorld(t).hear(bad + "/32").wantBanned(bad)
	w.wantDecision(1, ban.ActionBan, ban.ReasonScanner)
	if d := w.log[0]; d.Origin != "pbx2" || d.Duration != time.Hour || d.Scope != ban.ScopeSource || d.PBX != "" {
		t.Errorf("decided: %+v", d)
	}
	x := w.e.Why(w.now, netip.MustParseAddr(bad))
	if x.Ban == nil || x.Ban.Origin != "pbx2" || x.Ban.PBX != "" || x.Ban.Manual {
		t.Errorf("why: %+v", x.Ban)
	}
	if x.Bans != 0 {
		t.Errorf("what another node saw counts as %d bans of this one", x.Bans)
	}
	w.pass(time.Hour).wantFree(bad).wantDecision(1, ban.ActionUnban, ban.ReasonExpired)
	for range 3 { // its own first ban lasts as long as any first one
		w.scan(bad, "100", over(event.TLS))
	}
	if d := w.log[len(w.log)-1]; d.Action != ban.ActionBan || d.Duration != time.Hour || d.Origin != "" {
		t.Errorf("its own ban after that: %+v", d)
	}
}

// What others saw, they saw elsewhere.
func TestWhomNoOtherNodeBans(t *testing.T) {
	allowing := func(p *config.Policy) {
		p.Allow = []config.AllowEntry{{Prefix: netip.MustParsePrefix("203.0.113.50/32")}}
		p.Proxies.Addresses = []config.AllowEntry{{Prefix: netip.MustParsePrefix("203.0.113.60/32")}}
	}
	for _, tt := range []struct {
		name string
		do   func(w *world)
		who  string
	}{
		{"who is allowed", func(w *world) { w.hear("203.0.113.50/32") }, "203.0.113.50"},
		{"the network of who is allowed", func(w *world) { w.hear("203.0.113.0/24") }, "203.0.113.50"},
		{"a proxy", func(w *world) { w.hear("203.0.113.60/32") }, "203.0.113.60"},
		{"a trunk", func(w *world) {
			w.e.Protect(w.now, "pbx", map[netip.Prefix]string{netip.MustParsePrefix("203.0.113.70/32"): "identify"})
			w.hear("203.0.113.70/32")
		}, "203.0.113.70"},
		{"a customer", func(w *world) { w.login(office, "100").hear(office + "/32") }, office},
		{"a customer's network", func(w *world) { w.login(office, "100").hear(networkOf(office)) }, office},
		{"who was a customer last week", func(w *world) {
			w.login(office, "100").pass(48 * time.Hour).hear(office + "/32")
		}, office},
		{"who logged in at another node", func(w *world) { w.hearTrust(office+"/32", time.Hour).hear(office + "/32") },
			office},
		{"whom a person unbanned for a time", func(w *world) {
			w.e.Unban(w.now, netip.MustParsePrefix(office+"/32"), time.Hour)
			w.hear(office + "/32")
		}, office},
		{"anybody, where the ban is over", func(w *world) {
			w.hear(office+"/32", func(f *engine.FleetBan) { f.Until = w.now })
		}, office},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, allowing)
			tt.do(w)
			w.wantNever(tt.who)
		})
	}
	w := newWorld(t, func(p *config.Policy) { p.Mode = config.Observe }).hear(bad + "/32").wantFree(bad)
	if len(w.log) > 0 {
		t.Errorf("in observe mode: %v", w.actions())
	}
}

func networkOf(a string) string {
	p, _ := netip.MustParseAddr(a).Prefix(24)
	return p.String()
}

func TestALongerBanWinsAndAWiderOne(t *testing.T) {
	short := func(f *engine.FleetBan) { f.Until = start.Add(time.Minute) }
	w := newWorld(t).hear(bad+"/32", forged).hear(bad+"/32", short, forged)
	if len(w.log) != 1 {
		t.Errorf("a shorter one decides: %v", w.actions())
	}
	w.hear(bad+"/32", short) // shorter, but proven: it closes more
	d := w.log[len(w.log)-1]
	if d.Action != ban.ActionExtend || d.Closes != ban.ClosesAll || d.Duration != time.Hour {
		t.Errorf("decided: %+v", d)
	}
	old := w.e.TakeChanged()
	if len(old) != 1 || !old[0].Remove || old[0].Closes != ban.ClosesUDP {
		t.Errorf("what closed UDP alone is not taken out: %+v", old)
	}
	w.pass(time.Hour).wantFree(bad).wantDecision(1, ban.ActionUnban, ban.ReasonExpired)

	own := newWorld(t)
	for range 3 {
		own.scan(bad, "100", over(event.TLS))
	}
	own.wantBanned(bad).hear(bad+"/32", func(f *engine.FleetBan) { f.Until = start.Add(5 * time.Hour) })
	b, _ := own.e.BanOf(netip.MustParsePrefix(bad + "/32"))
	if b.Origin != "" || b.Reason != ban.ReasonUnknownAccount || len(b.Evidence) == 0 ||
		!b.Until.Equal(start.Add(5*time.Hour)) {
		t.Errorf("its own ban became: %+v", b)
	}
	if out := own.e.EndForFleet(own.now, b.Prefix); len(out) > 0 {
		t.Errorf("what this node saw itself ends with the fleet's word: %v", out)
	}
}

func TestAnUnbanOfAnotherNode(t *testing.T) {
	p := netip.MustParsePrefix(bad + "/32")
	w := newWorld(t).hear(bad + "/32")
	if out := w.e.LiftForFleet(w.now, p, w.now.Add(-1), "pbx3"); len(out) > 0 {
		t.Errorf("an unban of before lifts it: %v", out)
	}
	out := w.e.LiftForFleet(w.now, p, w.now, "pbx3")
	if len(out) != 1 || out[0].Action != ban.ActionUnban || out[0].Origin != "pbx3" {
		t.Errorf("decided: %+v", out)
	}
	w.wantFree(bad).hear(bad + "/32").wantBanned(bad)
	if out := w.e.EndForFleet(w.now, p); len(out) != 1 || out[0].Reason == ban.ReasonExpired {
		t.Errorf("the kernel is not told: %+v", out)
	}
	w.wantFree(bad)
}

func TestTrustOfAnotherNode(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		w.scan(office, "100") // over UDP: it may have been forged
	}
	w.wantBanned(office).hearTrust(office+"/32", 3*time.Hour).wantFree(office).wantTrusted(office)
	for range 9 {
		w.scan(office, "100")
	}
	w.wantFree(office)
	w.pass(4*time.Hour).wantDecision(1, ban.ActionUntrust, ban.ReasonExpired)

	w = newWorld(t).hear(office+"/32").wantBanned(office).hearTrust(office+"/32", time.Hour).wantFree(office)
	w.log = append(w.log, w.e.DistrustForFleet(w.now, netip.MustParsePrefix(office+"/32"))...)
	w.wantDecision(1, ban.ActionUntrust, ban.ReasonExpired)
	w.login(office, "100").wantTrusted(office)
	if out := w.e.DistrustForFleet(w.now, netip.MustParsePrefix(office+"/32")); len(out) > 0 {
		t.Errorf("who logged in here is distrusted by others: %v", out)
	}

	w = newWorld(t) // proof that this node has itself counts for more
	for range 3 {
		w.scan(bad, "100", over(event.TLS))
	}
	w.wantBanned(bad).hearTrust(bad+"/32", time.Hour).wantBanned(bad)
}

func TestBansOfTheFleetHaveTheSameBounds(t *testing.T) {
	w := newWorld(t, func(p *config.Policy) { p.Limits.Bans, p.Limits.ForgeableBans = 2, 1 })
	w.hear("198.51.100.1/32", forged).hear("198.51.100.2/32", forged).hear("198.51.100.3/32").hear("198.51.100.4/32")
	w.wantBanned("198.51.100.1", "198.51.100.3").wantFree("198.51.100.2", "198.51.100.4")
	if l := w.e.Stats(w.now).Limited; l["bans"] != 1 || l["forgeable_bans"] != 1 {
		t.Errorf("counted as %v", l)
	}
}

func TestBansOfTheFleetSurviveARestart(t *testing.T) {
	w := newWorld(t).hear(bad+"/32").hear("198.51.100.9/32", forged)
	again := newWorld(t)
	again.now = w.now
	again.e.Restore(w.now, w.e.Export(w.now), []string{"pbx"})
	for _, a := range []string{bad, "198.51.100.9"} {
		p := netip.MustParsePrefix(a + "/32")
		have, _ := w.e.ActiveBan(w.now, p)
		if got, ok := again.e.ActiveBan(w.now, p); !ok || got.Origin != "pbx2" || !got.Until.Equal(have.Until) ||
			got.Closes != have.Closes {
			t.Errorf("%s came back as %+v, want %+v", a, got, have)
		}
	}
}
