package engine_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
)

// stale is what a phone of an account that does not exist makes each time it tries: only the first event has its name.
func (w *world) stale(from, account string, change ...func(*event.Event)) *world {
	call := in(w.dialogue())
	with := func(more ...func(*event.Event)) []func(*event.Event) {
		return append(append([]func(*event.Event){call}, change...), more...)
	}
	w.send(event.InvalidAccountID, from, account, with()...).send(event.ChallengeSent, from, "<unknown>", with()...)
	w.send(event.InvalidAccountID, from, account, with()...)
	return w.send(event.ChallengeResponseFailed, from, "<unknown>", with(answering(nonce, strconv.Itoa(w.calls)))...)
}

// stales is such a phone that tries n times.
func (w *world) stales(n int, every time.Duration, from, account string, change ...func(*event.Event)) *world {
	for range n {
		w.stale(from, account, change...).pass(every)
	}
	return w
}

// wantNamed wants exactly these accounts in decisions of an action.
func (w *world) wantNamed(a ban.Action, want ...string) *world {
	w.t.Helper()
	var got []string
	for _, d := range w.log {
		if d.Action == a && !slices.Contains(got, d.Account) {
			got = append(got, d.Account)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		w.t.Errorf("%s names %q, want %q; decisions: %v", a, got, want, w.actions())
	}
	return w
}

// TestDevicesWithAnOldSetUp tells of devices that fail for ever, whatever the reason, and of attackers who look a little
// like them.
func TestDevicesWithAnOldSetUp(t *testing.T) {
	const home = "192.0.2.70"
	inOffice := func(w *world, n int, f func()) {
		for i := range n {
			if i%60 == 0 {
				for p := range 40 {
					w.login(office, extension(p), tls)
				}
			}
			f()
		}
		w.wantNever(office).wantTrusted(office).wantDecision(0, ban.ActionUntrust, ban.ReasonTolerance)
		w.wantDecision(0, ban.ActionUntrust, ban.ReasonAccounts)
	}
	run(t, []scenario{
		{"a phone of a deleted extension in an office, over TLS", nil, func(w *world) {
			w.login(office, "217", tls)
			inOffice(w, 360, func() { w.stales(1, 10*time.Second, office, "217", tls) })
			w.wantNamed(ban.ActionMisconfigured, "217").wantDecision(1, ban.ActionMisconfigured, ban.ReasonPace)
		}},
		{"a phone of an extension that never was, in an office over TLS", nil, func(w *world) {
			inOffice(w, 360, func() { w.stales(1, 10*time.Second, office, "999", tls) })
			w.wantNamed(ban.ActionMisconfigured, "999")
		}},
		{"a phone of a deleted extension in an office, over UDP and seldom", nil, func(w *world) {
			inOffice(w, 40, func() { w.stales(1, 20*time.Minute, office, "217") })
			w.wantNamed(ban.ActionMisconfigured, "217").wantDecision(0, ban.ActionGuessing, ban.ReasonUnknownAccount)
		}},
		{"a phone of a deleted extension in a new branch", nil, func(w *world) {
			w.stales(300, 30*time.Second, home, "217", tls).wantNever(home).wantNamed(ban.ActionMisconfigured, "217")
		}},
		{"two such phones in a new branch", nil, func(w *world) {
			for range 100 {
				w.stale(home, "217").pass(15*time.Second).stale(home, "218").pass(15 * time.Second)
			}
			w.wantNever(home).wantNamed(ban.ActionMisconfigured, "217", "218")
		}},
		{"a program with an old manager secret in an office", nil, func(w *world) {
			inOffice(w, 360, func() { w.send(event.InvalidPassword, office, "crm", manager, tcp).pass(30 * time.Second) })
			w.wantNamed(ban.ActionMisconfigured, "crm")
		}},
		{"a program with an old manager secret, by MD5, which names no user", nil, func(w *world) {
			inOffice(w, 360, func() { w.send(event.ChallengeResponseFailed, office, "", manager, tcp).pass(30 * time.Second) })
			w.wantDecision(3, ban.ActionMisconfigured, ban.ReasonPace)
		}},
		{"a program with an old manager secret, alone", nil, func(w *world) {
			for range 300 {
				w.send(event.InvalidPassword, home, "crm", manager, tcp).pass(30 * time.Second)
			}
			w.wantNever(home).wantNamed(ban.ActionMisconfigured, "crm").wantNamed(ban.ActionGuessing, "crm")
		}},
		{"a phone that the ACL of its account forbids, in an office", nil, func(w *world) {
			inOffice(w, 360, func() {
				w.send(event.FailedACL, office, "230", acl("not_match_endpoint_acl"), tls).pass(30 * time.Second)
			})
			w.wantNamed(ban.ActionMisconfigured, "230")
		}},
		{"a healthy phone whose requests name another account first", nil, func(w *world) {
			for range 100 { // auth_username, and From is the number that it shows
				call := in(w.dialogue())
				w.send(event.InvalidAccountID, office, "5551234", call, tls)
				w.send(event.ChallengeSent, office, "<unknown>", call, tls)
				w.send(event.SuccessfulAuth, office, "201", call, password, tls).pass(time.Minute)
			}
			w.wantNever(office).wantTrusted(office).wantQuiet()
		}},

		{"who tries one name as fast as he can", nil, func(w *world) {
			w.wantGuesses(3, bad, func(int) { w.stale(bad, "217") })
		}},
		{"who tries one name faster than a device", nil, func(w *world) {
			w.wantGuesses(3, bad, func(int) { w.stale(bad, "217").pass(3 * time.Second) })
		}},
		{"who goes through three names at a device's pace", nil, func(w *world) {
			w.wantGuesses(7, bad, func(i int) { w.scan(bad, extension(i%3)).pass(4 * time.Minute) })
		}},
		{"who was banned, and now pretends to be a device", nil, func(w *world) {
			scans(w, 3, bad).wantBanned(bad).pass(time.Hour + time.Second)
			w.wantGuesses(3, bad, func(int) { w.stale(bad, "217").pass(time.Minute) })
		}},
		{"who guesses manager users at a device's pace", nil, func(w *world) {
			w.wantGuesses(3, bad, func(i int) {
				w.send(event.InvalidPassword, bad, extension(i), manager, tcp).pass(30 * time.Second)
			})
		}},
		{"a scan of many names from a good office, over TLS", nil, func(w *world) {
			w.login(office, "201", tls)
			for i := range 6 {
				w.wantTrusted(office).stale(office, strconv.Itoa(900+i), tls).pass(time.Minute)
			}
			w.wantUntrusted(office).wantDecision(1, ban.ActionUntrust, ban.ReasonAccounts)
		}},
		{"a scan of many names in a customer's name", nil, func(w *world) {
			w.login(office, "201")
			for i := range 500 {
				w.scan(office, strconv.Itoa(900+i))
			}
			w.wantNever(office).wantTrusted(office).wantDecision(1, ban.ActionGuessing, ban.ReasonAccounts)
		}},
		{"a scan does not hide a password that is guessed", nil, func(w *world) {
			w.login(office, "201").crack(20, office, "250")
			for i := range 500 {
				w.scan(office, strconv.Itoa(900+i))
			}
			w.login(office, "250", at(7777)).wantDecision(1, ban.ActionBreach, ban.ReasonGuessed)
		}},
	})

	for _, over := range []event.Transport{event.UDP, event.TLS} {
		for _, every := range []time.Duration{5 * time.Second, 6 * time.Second, 8 * time.Second} {
			t.Run(fmt.Sprintf("a desk phone with the old password beside a softphone, %v, each %v", over, every),
				func(t *testing.T) {
					w, by := newWorld(t), func(ev *event.Event) { ev.Remote.Transport = over }
					w.login(office, "203", by)
					for i := range 400 {
						w.round(office, "203", by, at(5070)).pass(every)
						if i%10 == 9 { // each time from another port, as a NAT may have it
							w.login(office, "203", by, at(uint16(20_000+i)))
						}
					}
					w.wantNever(office).wantTrusted(office).wantNamed(ban.ActionMisconfigured, "203")
					w.wantNamed(ban.ActionBreach).wantNamed(ban.ActionGuessing)
				})
		}
	}
}

// TestOneServiceSaysNothingOfAnother has a known good source from which somebody guesses at the manager interface, and
// phones that fail, each of it less than closes anything.
func TestOneServiceSaysNothingOfAnother(t *testing.T) {
	guessManager := func(w *world, n int) *world {
		for range n {
			w.send(event.InvalidPassword, office, "admin", manager, tcp).pass(time.Second)
		}
		return w
	}
	run(t, []scenario{
		{"at a trusted source", nil, func(w *world) {
			guessManager(w.login(office, "201", tls), 24).crack(4, office, "250", tls)
			w.wantNever(office).wantTrusted(office).wantNoLane(office)
		}},
		{"at a source whose trust is over", nil, func(w *world) {
			w.login(office, "201").pass(48 * time.Hour)
			guessManager(w, 2).crack(4, office, "201").scan(office, "900").wantNever(office)
		}},
		{"and what is enough closes the manager's ports alone", nil, func(w *world) {
			guessManager(w.login(office, "201", tls), 60).wantTrusted(office)
			b, ok := w.e.ActiveBan(w.now, netip.MustParsePrefix(office+"/32"))
			if !ok || b.Closes != ban.ClosesManager || b.Scope != ban.ScopeService || b.Score < 100 {
				w.t.Errorf("%v, %+v", ok, b)
			}
			w.crack(4, office, "250", tls).wantNoLane(office).unban(office+"/32", 0)
			guessManager(w, 10).wantFree(office)
		}},
		{"phones that fail leave the manager's ports open where somebody once logged in", nil, func(w *world) {
			w.login(office, "201", tls)
			for i := range 60 {
				w.scan(office, strconv.Itoa(900+i), tls)
			}
			b, ok := w.wantBanned(office).e.ActiveBan(w.now, netip.MustParsePrefix(office+"/32"))
			if !ok || b.Closes != ban.ClosesSIP || b.Scope != ban.ScopeService {
				w.t.Errorf("%v, %+v", ok, b)
			}
			guessManager(w, 10)
			if b, ok = w.e.ActiveBan(w.now, netip.MustParsePrefix(office+"/32")); !ok || b.Closes != ban.ClosesAll {
				w.t.Errorf("after guesses at the manager: %v, %+v", ok, b)
			}
		}},
		{"a stranger loses everything, as ever", nil, func(w *world) {
			w.send(event.InvalidPassword, bad, "a", manager, tcp).send(event.InvalidPassword, bad, "b", manager, tcp)
			w.scan(bad, "1").wantBanned(bad)
		}},
	})
}

// What is only observed takes nothing from a ban that is in force, though it would close what that leaves open.
func TestWhatIsObservedEndsNoBan(t *testing.T) {
	w := newWorld(t, func(p *config.Policy) { p.Services["AMI"] = config.Observe })
	w.login(office, "201", tls).pass(48 * time.Hour)
	for i := range 5 {
		w.scan(office, strconv.Itoa(900+i))
	}
	w.wantBanned(office).e.TakeChanged()
	for range 60 {
		w.send(event.InvalidPassword, office, "admin", manager, tcp).pass(time.Second)
	}
	w.wantBanned(office)
	for _, el := range w.e.TakeChanged() {
		if el.Kind == engine.BanOfPrefix && el.Remove {
			t.Errorf("the kernel lets go of %+v", el)
		}
	}
}
