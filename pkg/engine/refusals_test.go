package engine_test

import (
	"regexp"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
)

// TestRefusedRequests tells of requests that Asterisk refuses for its set-up: a device's mistake behind a right password,
// and an attempt where none was asked for.
func TestRefusedRequests(t *testing.T) {
	noAOR := acl("registrar_attempt_without_configured_aors")
	tooMany := acl("registrar_attempt_exceeds_maximum_configured_contacts")
	const home = "192.0.2.70"
	run(t, []scenario{
		{"registrations at an endpoint without auth", nil, func(w *world) {
			w.wantGuesses(3, bad, func(int) { w.send(event.FailedACL, bad, "anonymous", noAOR) })
			w.wantNamed(ban.ActionMisconfigured).wantLast(bad, ban.ActionBan, ban.ReasonUnknownAccount)
		}},
		{"registrations of other AORs at an endpoint without auth", nil, func(w *world) {
			w.wantGuesses(3, bad, func(int) { w.send(event.RequestNotSupported, bad, "anonymous", tls) })
		}},
		{"an endpoint without auth that is a honeypot", func(p *config.Policy) { p.Honeypots = []string{"anonymous"} },
			func(w *world) {
				w.send(event.FailedACL, bad, "anonymous", noAOR).wantLast(bad, ban.ActionBan, ban.ReasonHoneypot)
			}},
		{"one contact too many, after a right password in the same dialogue", nil, func(w *world) {
			for range 500 {
				call := in(w.dialogue())
				w.send(event.ChallengeSent, home, "201", call).send(event.SuccessfulAuth, home, "201", call, password)
				w.send(event.FailedACL, home, "201", tooMany, call).pass(time.Second)
			}
			w.wantNever(home).wantDecision(1, ban.ActionMisconfigured, ban.ReasonConfiguration)
		}},
		{"one contact too many, where only some accounts earn trust", func(p *config.Policy) {
			p.Trust.Match = regexp.MustCompile("^2..$")
		}, func(w *world) {
			w.login(home, "301")
			for range 500 {
				w.send(event.FailedACL, home, "301", tooMany).pass(time.Second)
			}
			w.wantNever(home).wantDecision(1, ban.ActionMisconfigured, ban.ReasonConfiguration)
		}},
		{"an allowed trunk without auth", nil, func(w *world) {
			w.allow(home + "/32")
			for range 500 {
				w.send(event.RequestNotSupported, home, "trunk").pass(time.Second)
			}
			w.wantNever(home).wantDecision(1, ban.ActionMisconfigured, ban.ReasonConfiguration)
		}},
	})
}

// TestFloodsOfCalls tells of requests for accounts that exist, to which nobody answers with a password.
func TestFloodsOfCalls(t *testing.T) {
	run(t, []scenario{
		{"calls for one extension, fifty a second", nil, func(w *world) {
			for range 3000 {
				w.options(bad, "201").pass(19 * time.Millisecond)
			}
			w.wantBanned(bad).wantLast(bad, ban.ActionBan, ban.ReasonUnansweredChallenge)
		}},
		{"calls for one extension in one dialogue", nil, func(w *world) {
			for range 3000 {
				w.send(event.ChallengeSent, bad, "201", in("one")).pass(19 * time.Millisecond)
			}
			w.wantBanned(bad)
		}},
		{"calls for one extension, one a second, over TCP", nil, func(w *world) {
			for range 180 {
				w.send(event.ChallengeSent, bad, "201", tcp).pass(time.Second)
			}
			w.wantBanned(bad)
		}},
		{"the same without the rule", func(p *config.Policy) { p.Challenges.PerMinute = 0 }, func(w *world) {
			for range 3000 {
				w.options(bad, "201").pass(19 * time.Millisecond)
			}
			w.wantNever(bad)
		}},
		{"in the name of a customer", nil, func(w *world) {
			w.login(office, "201")
			for range 3000 {
				w.options(office, "202").pass(19 * time.Millisecond)
			}
			w.wantNever(office).wantTrusted(office).wantQuiet()
		}},
		{"a phone with sixty keys that shows its state, and a line that loses answers for a while", nil, func(w *world) {
			for range 60 {
				call := in(w.dialogue())
				for range 5 {
					w.send(event.ChallengeSent, office, "201", call)
				}
			}
			w.pass(8*time.Second).login(office, "201").pass(time.Minute).wantNever(office).wantTrusted(office).wantQuiet()
		}},
		{"keepalives of two hundred phones each 15 s, in the first hour", nil, func(w *world) {
			for range 20 {
				for p := range 200 {
					w.options(office, extension(p))
				}
				w.pass(15 * time.Second)
			}
			w.wantQuiet()
		}},
	})
}

// TestChanSIPLogins tells of offices whose phones log in through chan_sip, which reports whatever address they write.
func TestChanSIPLogins(t *testing.T) {
	enforce := func(p *config.Policy) { p.Services["SIP"] = config.Enforce }
	threeOld := func(w *world) {
		for range 60 {
			for i := range 20 {
				w.login(office, extension(i), chanSIP)
			}
			for i := range 3 {
				w.send(event.InvalidPassword, office, extension(100+i), chanSIP, answering("c", w.dialogue()))
			}
			w.pass(time.Minute)
		}
		w.wantNever(office).wantNamed(ban.ActionMisconfigured, "301", "302", "303").wantNamed(ban.ActionObserve)
	}
	run(t, []scenario{
		{"three old passwords, observed", nil, func(w *world) { threeOld(w); w.wantUntrusted(office) }},
		{"three old passwords, enforced", enforce, func(w *world) { threeOld(w); w.wantTrusted(office) }},
		{"three old passwords where nobody logs in", nil, func(w *world) {
			for i := range 20 {
				w.wrong(bad, extension(i%3), chanSIP)
			}
			w.wantNever(bad).wantDecision(1, ban.ActionObserve, ban.ReasonWrongPassword)
		}},
		{"an observed login spares nobody who attacks PJSIP", nil, func(w *world) {
			w.login(bad, "201", chanSIP).wantGuesses(5, bad, func(i int) { w.crack(1, bad, extension(i)) })
		}},
		{"a guesser behind an observed login", nil, func(w *world) {
			w.login(bad, "201", chanSIP)
			for range 20 {
				w.wrong(bad, "202", chanSIP)
			}
			w.wantDecision(1, ban.ActionObserve, ban.ReasonWrongPassword)
		}},
	})
}
