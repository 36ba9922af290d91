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

const (
	bad    = "203.0.113.66"
	office = "198.51.100.10"
)

func TestScannerIsBannedAtTheThirdAccount(t *testing.T) {
	w := newWorld(t)
	w.scan(bad, "100").scan(bad, "101").wantFree(bad).scan(bad, "102").wantBanned(bad)
	w.wantDecision(1, ban.ActionBan, ban.ReasonUnknownAccount)
}

func TestOneAttemptIsScoredOnce(t *testing.T) {
	w := newWorld(t)
	for range 2 { // with credentials: the request comes twice, in one dialogue
		w.send(event.InvalidAccountID, bad, "100", in("x"))
		w.send(event.ChallengeSent, bad, "<unknown>", in("x"))
	}
	w.send(event.ChallengeResponseFailed, bad, "<unknown>", in("x"), answering("1/a", "r1"))
	if x := w.e.Why(w.now, netip.MustParseAddr(bad)); x.Score < 3.99 || x.Score > 4.01 {
		t.Errorf("score %v, want 4: it is one attempt", x.Score)
	}
}

func TestRetransmissionIsNoNewGuess(t *testing.T) {
	w := newWorld(t, func(p *config.Policy) { p.Misconfigured.Burst = 0 })
	for range 5 {
		w.send(event.ChallengeResponseFailed, bad, "201", in("x"), answering("1/a", "same"))
	}
	if x := w.e.Why(w.now, netip.MustParseAddr(bad)); x.Score < 1.99 || x.Score > 2.01 {
		t.Errorf("score %v, want 2", x.Score)
	}
}

func TestFixedCallIDIsNoWayToHide(t *testing.T) {
	w := newWorld(t)
	for i := range 9 {
		w.send(event.ChallengeResponseFailed, bad, "201", in("fixed"), answering("1/a", string(rune('a'+i))))
	}
	w.wantBanned(bad)

	w = newWorld(t)
	for range 40 { // the same request, over and over: no client retransmits so often
		w.send(event.InvalidAccountID, bad, "100", in("fixed"))
	}
	w.wantBanned(bad)
}

func TestGuesserIsBannedBeforeTheTenthGuess(t *testing.T) {
	for _, tr := range []event.Transport{event.UDP, event.TCP} {
		w := newWorld(t)
		w.login(office, "201")
		for range 9 {
			w.wrong(bad, "201", over(tr))
		}
		w.wantBanned(bad).wantFree(office)
	}
}

func TestTrustIsForPJSIPPasswordsOnly(t *testing.T) {
	w := newWorld(t)
	password := func(ev *event.Event) { ev.UsingPassword = true }
	w.send(event.SuccessfulAuth, "192.0.2.10", "admin", func(ev *event.Event) { ev.Service = event.AMI },
		over(event.TCP))
	w.send(event.SuccessfulAuth, "192.0.2.11", "7001", password,
		func(ev *event.Event) { ev.Service = event.SIP })
	w.send(event.SuccessfulAuth, "192.0.2.12", "7001", func(ev *event.Event) { ev.Service = event.SIP })
	w.send(event.SuccessfulAuth, "192.0.2.13", "201")
	w.wantDecision(0, ban.ActionTrust, ban.ReasonLogin)
	w.login("192.0.2.14", "201").wantTrusted("192.0.2.14").wantDecision(1, ban.ActionTrust, ban.ReasonLogin)
	w.pass(23*time.Hour).login("192.0.2.14", "201").pass(23 * time.Hour).wantTrusted("192.0.2.14")
	w.wantDecision(1, ban.ActionTrust, ban.ReasonLogin)
	w.pass(2*time.Hour).wantDecision(1, ban.ActionUntrust, ban.ReasonExpired)
}

func TestBansEscalateAndEnd(t *testing.T) {
	w := newWorld(t)
	for i, want := range []time.Duration{time.Hour, 4 * time.Hour, 16 * time.Hour, 64 * time.Hour, 168 * time.Hour,
		168 * time.Hour} {
		for range 3 {
			w.scan(bad, "100", over(event.TLS))
		}
		d := w.log[len(w.log)-1]
		if d.Action != ban.ActionBan || d.Duration != want || !d.Proven {
			t.Fatalf("ban %d: %v, want %v, proven", i+1, brief(d), want)
		}
		w.pass(want - time.Second).wantBanned(bad).pass(2 * time.Second).wantFree(bad)
	}
	w.wantDecision(6, ban.ActionUnban, ban.ReasonExpired)
	w.pass(721 * time.Hour)
	for range 3 {
		w.scan(bad, "100", over(event.TLS))
	}
	if d := w.log[len(w.log)-1]; d.Duration != time.Hour {
		t.Errorf("after ban.memory: %v, want the first ban's 1h", brief(d))
	}
}

func TestForgeableBansAreShort(t *testing.T) {
	w := newWorld(t)
	for range 6 {
		for range 3 {
			w.scan(bad, "100")
		}
		w.pass(25 * time.Hour)
	}
	for _, d := range w.log {
		if d.Action == ban.ActionBan && (d.Proven || d.Duration > 24*time.Hour) {
			t.Errorf("%v: one forged packet must not ban for so long", brief(d))
		}
	}
	w.wantDecision(6, ban.ActionBan, ban.ReasonUnknownAccount)
}

func TestAllowedIsNeverBanned(t *testing.T) {
	w := newWorld(t, func(p *config.Policy) {
		p.Allow = []config.AllowEntry{{Prefix: netip.MustParsePrefix("203.0.113.64/29")}}
	})
	for range 20 {
		w.scan(bad, "100").scan("203.0.113.80", "100")
	}
	w.wantNever(bad).wantBanned("203.0.113.80")
	w.log = append(w.log, w.e.Allow(w.now, netip.MustParsePrefix("203.0.113.80/32"), engine.OriginManual, "")...)
	w.wantFree("203.0.113.80").wantDecision(1, ban.ActionUnban, ban.ReasonAllowed)
	if !w.e.Disallow(netip.MustParsePrefix("203.0.113.80/32"), engine.OriginManual) {
		t.Error("nothing else allows it")
	}
	w.scan("203.0.113.80", "100").wantBanned("203.0.113.80")
}

func TestObserveModeBansNobody(t *testing.T) {
	w := newWorld(t, func(p *config.Policy) { p.Mode = config.Observe })
	for range 30 {
		w.scan(bad, "100")
	}
	w.wantNever(bad).wantDecision(1, ban.ActionObserve, ban.ReasonUnknownAccount)
	if n := len(w.e.EnforcedBans(w.now)); n != 0 {
		t.Errorf("%d bans for the kernel", n)
	}
}

func TestChanSIPIsObserved(t *testing.T) {
	w := newWorld(t)
	sip := func(ev *event.Event) { ev.Service = event.SIP }
	for range 30 { // Via with maddr names the victim
		w.wrong("192.0.2.99", "7001", sip)
	}
	w.wantNever("192.0.2.99").wantDecision(1, ban.ActionObserve, ban.ReasonWrongPassword)
}

func TestIPv6IsJudgedByItsNetwork(t *testing.T) {
	w := newWorld(t)
	w.scan("2001:db8::1", "100").scan("2001:db8::2", "101").scan("2001:db8::ffff", "102")
	w.wantBanned("2001:db8::1", "2001:db8:0:0:1234::1").wantFree("2001:db8:0:1::1")
}

func TestManualBanAndUnban(t *testing.T) {
	w := newWorld(t)
	p := netip.MustParsePrefix("203.0.113.0/24")
	d, err := w.e.Ban(w.now, p, time.Hour, "rude")
	if err != nil || len(d) != 1 || d[0].Action != ban.ActionBan {
		t.Fatal(d, err)
	}
	w.wantBanned(bad)
	if d, err = w.e.Ban(w.now, p, 2*time.Hour, "ruder"); err != nil || len(d) != 1 || d[0].Action != ban.ActionExtend {
		t.Fatal(d, err)
	}
	if d, err = w.e.Ban(w.now, p, time.Hour, ""); err != nil || len(d) != 0 {
		t.Fatal("a shorter ban must not cut a longer one:", d, err)
	}
	if d = w.e.Unban(w.now, netip.MustParsePrefix(bad+"/32"), 0); len(d) != 1 || d[0].Prefix != p {
		t.Fatal("unban of an address ends the ban of its network:", d)
	}
	w.wantFree(bad)
	for range 3 {
		w.scan(bad, "100")
	}
	w.wantBanned(bad)
	w.e.Unban(w.now, netip.MustParsePrefix(bad+"/32"), time.Hour)
	for range 9 {
		w.scan(bad, "100")
	}
	w.wantFree(bad).pass(61*time.Minute).scan(bad, "1").scan(bad, "2").scan(bad, "3").wantBanned(bad)
}

func TestManualBanIsRefusedForWhomItMustNotHit(t *testing.T) {
	w := newWorld(t, func(p *config.Policy) {
		p.Allow = []config.AllowEntry{{Prefix: netip.MustParsePrefix("192.0.2.1/32")}}
	})
	w.e.Protect(w.now, "pbx", map[netip.Prefix]string{netip.MustParsePrefix("198.51.100.50/32"): "trunk itsp"})
	for _, p := range []string{"192.0.2.1/32", "192.0.2.0/24", "198.51.100.50/32", "198.0.0.0/8"} {
		if _, err := w.e.Ban(w.now, netip.MustParsePrefix(p), time.Hour, ""); err == nil {
			t.Errorf("%s was banned", p)
		}
	}
}

func TestAClockThatStepsBackEndsNoBanTwice(t *testing.T) {
	w := newWorld(t)
	w.scan(bad, "1").scan(bad, "2").scan(bad, "3").wantBanned(bad)
	w.now = w.now.Add(-time.Hour)
	w.scan(bad, "4").wantBanned(bad)
	w.now = w.now.Add(2*time.Hour + time.Minute)
	w.pass(time.Second).wantFree(bad).wantDecision(1, ban.ActionUnban, ban.ReasonExpired)
}
