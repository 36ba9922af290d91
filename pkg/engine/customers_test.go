package engine_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
)

var (
	tls = over(event.TLS)
	tcp = over(event.TCP)
)

// TestCustomers tells what happens to people who may telephone: none of them is ever banned.
func TestCustomers(t *testing.T) {
	run(t, []scenario{
		{"one phone that registers and calls", nil, func(w *world) {
			for range 100 {
				w.login(office, "201").pass(time.Minute).login(office, "201").pass(9 * time.Minute)
			}
			w.wantTrusted(office).wantNever(office).wantQuiet()
		}},
		{"a phone that re-registers with the cached nonce", nil, func(w *world) {
			for range 50 {
				w.send(event.SuccessfulAuth, office, "201", password).pass(time.Minute)
			}
			w.wantTrusted(office).wantQuiet()
		}},
		{"office of 40 phones after a power cut", nil, func(w *world) {
			for i := range 40 {
				w.options(office, extension(i))
			}
			w.pass(3 * time.Second)
			for i := range 40 {
				w.login(office, extension(i))
			}
			w.pass(time.Minute).wantTrusted(office).wantQuiet()
		}},
		{"office of 40 phones after a power cut, with auth_username", nil, func(w *world) {
			// From the fifth request in 5 s on, Asterisk adds InvalidAccountID.
			for i := range 40 {
				call := w.dialogue()
				if i >= 4 {
					w.send(event.InvalidAccountID, office, extension(i), in(call))
				}
				w.send(event.ChallengeSent, office, "<unknown>", in(call))
			}
			w.pass(2 * time.Second)
			for i := range 40 {
				w.send(event.SuccessfulAuth, office, extension(i), password)
			}
			w.pass(time.Minute).wantTrusted(office).wantQuiet()
		}},
		{"200 phones with auth_username that need five seconds", nil, func(w *world) {
			for range 200 {
				w.send(event.ChallengeSent, office, "<unknown>")
			}
			w.pass(5*time.Second).send(event.SuccessfulAuth, office, "201", password)
			w.pass(time.Minute).wantTrusted(office).wantQuiet()
		}},
		{"8 healthy phones with auth_username behind one NAT, all day", nil, func(w *world) {
			for range 50 {
				for i := range 8 {
					call := w.dialogue()
					w.send(event.ChallengeSent, office, "<unknown>", in(call))
					if i%2 == 1 {
						w.send(event.InvalidAccountID, office, extension(i), in(call))
					}
				}
				for i := range 8 {
					w.send(event.SuccessfulAuth, office, extension(i), password)
				}
				w.pass(30 * time.Minute)
			}
			w.wantNever(office).wantQuiet()
		}},
		{"OPTIONS keepalive of a phone, for a week", nil, func(w *world) {
			for range 7 * 24 * 12 {
				w.options(office, "201").pass(5 * time.Minute)
			}
			w.wantQuiet()
		}},
		{"challenges alone: a large site of known phones", nil, func(w *world) {
			w.pass(2 * time.Hour)
			for range 20 {
				for i := range 15 {
					w.options(office, extension(i))
				}
				w.pass(time.Minute)
			}
			w.wantQuiet()
		}},
		{"one phone with last year's password", nil, func(w *world) {
			w.rounds(24*60, time.Minute, "192.0.2.70", "201")
			w.wantNever("192.0.2.70").wantDecision(24, ban.ActionMisconfigured, ban.ReasonPace).wantLast("192.0.2.70",
				ban.ActionMisconfigured, ban.ReasonPace)
		}},
		{"one phone with last year's password, over TLS", nil, func(w *world) {
			w.rounds(300, 30*time.Second, "192.0.2.70", "201", tls).wantNever("192.0.2.70")
		}},
		{"one phone with last year's password in a good office", nil, func(w *world) {
			w.login(office, "201").login(office, "202")
			for range 12 {
				w.rounds(60, time.Minute, office, "203", tls).login(office, "201", tls)
			}
			w.wantNever(office).wantTrusted(office).wantDecision(12, ban.ActionMisconfigured, ban.ReasonPace)
			w.wantDecision(0, ban.ActionUntrust, ban.ReasonTolerance).wantDecision(0, ban.ActionUntrust,
				ban.ReasonAccounts)
		}},
		{"a disabled phone keeps trying in the office, and the office is unbanned", nil, func(w *world) {
			w.login(office, "201")
			w.rounds(30, time.Minute, office, "299").unban(office+"/32", 0).rounds(30, time.Minute, office, "299")
			w.wantNever(office).wantTrusted(office)
		}},
		{"a phone whose account was deleted, in a good office", nil, func(w *world) {
			w.login(office, "201")
			for range 60 * 12 {
				w.scan(office, "299").pass(time.Minute)
				if w.calls%90 == 0 {
					w.login(office, "201")
				}
			}
			w.wantNever(office).wantTrusted(office)
		}},
		{"two phones at home after the passwords were changed", nil, func(w *world) {
			for range 60 {
				w.round("192.0.2.71", "201").round("192.0.2.71", "202").pass(time.Minute)
			}
			w.wantNever("192.0.2.71").wantDecision(2, ban.ActionMisconfigured, ban.ReasonPace)
		}},
		{"a user mistypes twice, then remembers", nil, func(w *world) {
			w.round("192.0.2.72", "201").pass(20*time.Second).round("192.0.2.72", "201").pass(20 * time.Second)
			w.login("192.0.2.72", "201").wantTrusted("192.0.2.72").wantQuiet()
		}},
		{"an old password is mended after a day of failures", nil, func(w *world) {
			w.rounds(24*60, time.Minute, "192.0.2.73", "201").login("192.0.2.73", "201")
			w.wantTrusted("192.0.2.73").wantDecision(0, ban.ActionBreach, ban.ReasonGuessed).wantNever("192.0.2.73")
		}},
		{"an old password at a phone's fastest pace is mended", nil, func(w *world) {
			w.rounds(200, 20*time.Second, "192.0.2.73", "201").login("192.0.2.73", "201")
			w.wantTrusted("192.0.2.73").wantDecision(0, ban.ActionBreach, ban.ReasonGuessed).wantNever("192.0.2.73")
		}},
		{"a wrong packet sent five times", nil, func(w *world) {
			for range 5 {
				w.send(event.ChallengeResponseFailed, "192.0.2.74", "201", in("x"), answering("1/a", "same"))
			}
			w.wantFree("192.0.2.74").wantQuiet()
		}},
		{"roaming user on a train", nil, func(w *world) {
			for i := range 50 {
				w.login(fmt.Sprintf("192.0.2.%d", 100+i), "201").pass(4 * time.Minute)
			}
			w.wantDecision(50, ban.ActionTrust, ban.ReasonLogin).wantQuiet()
		}},
		{"roaming user who mistypes six times in the hotel", nil, func(w *world) {
			w.login(office, "201").pass(8 * time.Hour)
			for range 6 {
				w.wrong("192.0.2.75", "201").pass(3 * time.Second)
			}
			// A person is not that fast twice: it is reported as guessed, but telephones.
			w.login("192.0.2.75", "201").wantNever("192.0.2.75").wantDecision(1, ban.ActionBreach, ban.ReasonGuessed)
		}},
		{"roaming user who mistypes six times with more thought", nil, func(w *world) {
			w.login(office, "201").pass(8 * time.Hour)
			for range 6 {
				w.wrong("192.0.2.75", "201").pass(5 * time.Second)
			}
			w.login("192.0.2.75", "201").wantNever("192.0.2.75").wantTrusted("192.0.2.75").wantQuiet()
		}},
		{"the same mistakes by a stranger to the account", nil, func(w *world) {
			for range 6 {
				w.wrong("192.0.2.75", "201").pass(3 * time.Second)
			}
			w.wantBanned("192.0.2.75")
		}},
		{"a good phone that dials wrong numbers through chan_sip",
			func(p *config.Policy) { p.Services["SIP"] = config.Enforce }, func(w *world) {
				for range 50 {
					w.send(event.FailedACL, office, "7001", chanSIP, acl("no_extension_match"))
				}
				w.wantFree(office).wantQuiet()
			}},
		{"more contacts than max_contacts", nil, func(w *world) {
			for range 50 {
				w.send(event.FailedACL, office, "201",
					acl("registrar_attempt_exceeds_maximum_configured_contacts")).pass(time.Minute)
			}
			w.wantNever(office).wantDecision(1, ban.ActionMisconfigured, ban.ReasonConfiguration)
		}},
		{"an endpoint without an AOR", nil, func(w *world) {
			for range 130 {
				w.send(event.RequestNotSupported, office, "201").pass(time.Minute)
			}
			w.wantNever(office).wantDecision(3, ban.ActionMisconfigured, ban.ReasonConfiguration)
		}},
		{"a dashboard whose manager user lacks a privilege", nil, func(w *world) {
			for range 50 {
				w.send(event.RequestNotAllowed, "192.0.2.76", "dash", manager, tcp)
			}
			w.wantNever("192.0.2.76").wantDecision(1, ban.ActionMisconfigured, ban.ReasonConfiguration)
		}},
		{"too many manager sessions of one user", nil, func(w *world) {
			for range 50 {
				w.send(event.SessionLimit, "192.0.2.76", "dash", manager, tcp)
			}
			w.wantQuiet()
		}},
		{"a visitor with one wrong account in a good office, over TLS", nil, func(w *world) {
			w.login(office, "201", tls)
			for i := range 5 {
				w.rounds(5, 30*time.Second, office, fmt.Sprintf("90%d", i), tls)
			}
			w.wantTrusted(office).wantNever(office)
		}},
		{"one new phone a week with a wrong password, for a year", nil, func(w *world) {
			for i := range 52 {
				w.rounds(3, 30*time.Second, office, extension(i), tls)
				for range 8 {
					w.login(office, "100", tls).pass(21 * time.Hour)
				}
			}
			w.wantTrusted(office).wantNever(office).wantDecision(0, ban.ActionUntrust, ban.ReasonAccounts)
		}},
		{"IPv6 home whose phones change addresses each day", nil, func(w *world) {
			for i := range 30 {
				w.login(fmt.Sprintf("2001:db8:5::%x", i+1), "201").pass(23 * time.Hour)
			}
			w.wantDecision(1, ban.ActionTrust, ban.ReasonLogin).wantQuiet()
		}},
		{"a clock that is set back while somebody logs in", nil, func(w *world) {
			w.login(office, "201")
			w.now = w.now.Add(-2 * time.Hour)
			w.login(office, "202").wantTrusted(office).pass(3 * time.Hour).wantTrusted(office).wantQuiet()
		}},
	})
}

func password(ev *event.Event) { ev.UsingPassword = true }
func chanSIP(ev *event.Event)  { ev.Service = event.SIP }
func manager(ev *event.Event)  { ev.Service = event.AMI }

func acl(name string) func(*event.Event) {
	return func(ev *event.Event) { ev.ACLName = name }
}
