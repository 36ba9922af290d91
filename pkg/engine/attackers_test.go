package engine_test

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
)

// TestAttackers tells what happens to people who may not telephone, and what they cannot do to others.
func TestAttackers(t *testing.T) {
	run(t, []scenario{
		{"scanner of unknown accounts", nil, func(w *world) {
			for i := range 3 {
				w.scan(bad, strconv.Itoa(100+i))
			}
			w.wantBanned(bad).wantLast(bad, ban.ActionBan, ban.ReasonUnknownAccount)
		}},
		{"scanner with credentials: one attempt each", nil, func(w *world) {
			for i := range 2 {
				call := w.dialogue()
				for range 2 {
					w.send(event.InvalidAccountID, bad, strconv.Itoa(i), in(call)).send(event.ChallengeSent, bad,
						"<unknown>", in(call))
				}
				w.send(event.ChallengeResponseFailed, bad, "<unknown>", in(call), answering(call, call))
			}
			w.wantFree(bad).scan(bad, "3").wantBanned(bad)
		}},
		{"scanner at one try a minute", nil, func(w *world) {
			for i := range 4 {
				w.scan(bad, strconv.Itoa(i)).pass(time.Minute)
			}
			w.wantBanned(bad)
		}},
		{"scanner at one try an hour for a week", nil, func(w *world) {
			for i := range 24 * 7 { // his points have decayed by the next try: harmless, and it stays so
				w.scan(bad, strconv.Itoa(i)).pass(time.Hour)
			}
			w.wantNever(bad).wantQuiet()
		}},
		{"scanner at one try an hour who touches a honeypot", honeypot, func(w *world) {
			w.scan(bad, "100").pass(time.Hour).scan(bad, "admin").wantBanned(bad).wantLast(bad, ban.ActionBan,
				ban.ReasonHoneypot)
		}},
		{"honeypot with credentials is one attempt", honeypot, func(w *world) {
			w.send(event.ChallengeResponseFailed, bad, "admin", answering("1/a", "b")).wantBanned(bad)
		}},
		{"password guesser on one nonce", nil, func(w *world) {
			w.crack(4, bad, "201").wantFree(bad).crack(1, bad, "201").wantBanned(bad)
		}},
		{"password guesser on an account in use elsewhere", nil, func(w *world) {
			w.login(office, "201").crack(9, bad, "201").wantBanned(bad).wantFree(office)
		}},
		{"password guesser just above a phone's pace", nil, func(w *world) {
			for range 60 {
				w.wrong(bad, "201").pass(8 * time.Second)
			}
			w.wantBanned(bad)
		}},
		{"slow sprayer: another account each minute", nil, func(w *world) {
			for i := range 10 {
				w.wrong(bad, extension(i)).pass(time.Minute)
			}
			w.wantBanned(bad)
		}},
		{"fast sprayer over all accounts", nil, func(w *world) {
			for i := range 6 {
				w.wrong(bad, extension(i))
			}
			w.wantBanned(bad)
		}},
		{"guessing that succeeds", nil, func(w *world) {
			w.crack(5, bad, "201").send(event.SuccessfulAuth, bad, "201", password)
			w.wantDecision(1, ban.ActionBreach, ban.ReasonGuessed).wantUntrusted(bad).wantBanned(bad)
			w.pass(2*time.Hour).login(bad, "201").wantUntrusted(bad)
		}},
		{"guessing that succeeds, and the user is known", nil, func(w *world) {
			w.crack(5, "192.0.2.80", "201").send(event.SuccessfulAuth, "192.0.2.80", "201",
				password).wantUntrusted("192.0.2.80")
			w.unban("192.0.2.80/32", 0).login("192.0.2.80", "201").wantTrusted("192.0.2.80")
		}},
		{"guessing that succeeds in a good office", nil, func(w *world) {
			w.login(office, "201").crack(8, office, "250").send(event.SuccessfulAuth, office, "250", password)
			w.wantDecision(1, ban.ActionBreach, ban.ReasonGuessed).wantTrusted(office).wantFree(office)
		}},
		{"guessing two accounts in turns succeeds", nil, func(w *world) {
			for range 6 {
				w.crack(1, bad, "201").crack(1, bad, "202")
			}
			w.send(event.SuccessfulAuth, bad, "201", password).wantDecision(1, ban.ActionBreach,
				ban.ReasonGuessed).wantUntrusted(bad)
		}},
		{"botnet of 500 addresses on extension 201", nil, func(w *world) {
			w.login(office, "201")
			for i := range 500 {
				w.crack(1, host(i), "201", tcp).pass(5 * time.Second)
			}
			w.wantDecision(1, ban.ActionTargeted, ban.ReasonDistributed)
			for i := range 10 {
				w.wantFree(host(i))
			}
			for i := 10; i < 500; i++ {
				w.wantBanned(host(i))
			}
			w.crack(1, host(0), "201", tcp).wantBanned(host(0))
			w.login(office, "201").wantTrusted(office).wantNever(office)
		}},
		{"a customer mistypes while a botnet guesses his account", nil, func(w *world) {
			w.login(office, "201")
			for i := range 20 {
				w.crack(1, host(i), "201")
			}
			w.round(office, "201").login(office, "201").wantNever(office).wantTrusted(office)
		}},
		{"an old phone while a botnet guesses its account", nil, func(w *world) {
			w.rounds(5, time.Minute, "192.0.2.81", "201")
			for i := range 20 {
				w.crack(1, host(i), "201")
			}
			w.rounds(30, time.Minute, "192.0.2.81", "201").wantNever("192.0.2.81")
		}},
		{"an old phone while a botnet guesses its account all day", nil, func(w *world) {
			w.rounds(5, time.Minute, "192.0.2.81", "201")
			for i := range 24 * 30 {
				w.crack(1, host(i), "201", tcp).rounds(2, time.Minute, "192.0.2.81", "201")
			}
			w.wantNever("192.0.2.81")
		}},
		{"an old phone while somebody forges guesses of its account all day", nil, func(w *world) {
			w.rounds(5, time.Minute, "192.0.2.81", "201")
			for i := range 24 * 30 {
				w.crack(1, host(i), "201").rounds(2, time.Minute, "192.0.2.81", "201")
			}
			w.wantNever("192.0.2.81")
		}},
		{"botnet on an account of which another has the name at a second PBX", nil, func(w *world) {
			for i := range 20 {
				w.crack(1, host(i), "201")
			}
			w.crack(1, "192.0.2.82", "202").wantFree("192.0.2.82")
		}},
		{"botnet of one guess an hour in all is not noticed as such", nil, func(w *world) {
			for i := range 30 {
				w.crack(1, host(i), "201").pass(time.Hour)
			}
			w.wantDecision(0, ban.ActionTargeted, ban.ReasonDistributed)
		}},
		{"enumeration of known accounts by INVITE", nil, func(w *world) {
			w.pass(2 * time.Hour)
			for i := range 60 {
				w.options(bad, extension(i))
			}
			w.pass(time.Minute).wantBanned(bad).wantLast(bad, ban.ActionBan, ban.ReasonUnansweredChallenge)
		}},
		{"enumeration in the first hour after the start", nil, func(w *world) {
			for i := range 60 {
				w.options(bad, extension(i))
			}
			w.pass(time.Minute).wantFree(bad)
		}},
		{"evasion of the auth_username threshold", nil, func(w *world) {
			for range 8 { // four unidentified requests in five seconds make no InvalidAccountID
				for range 4 {
					w.send(event.ChallengeSent, bad, "<unknown>")
				}
				w.pass(5 * time.Second)
			}
			w.wantBanned(bad).wantLast(bad, ban.ActionBan, ban.ReasonUnansweredChallenge)
		}},
		{"flood of unidentified requests with auth_username", nil, func(w *world) {
			for range 500 {
				w.send(event.ChallengeSent, bad, "<unknown>")
			}
			w.pass(11 * time.Second).wantBanned(bad)
		}},
		{"scan of an endpoint with an ACL", nil, func(w *world) {
			for range 3 {
				call := w.dialogue()
				for range 2 { // the ACK repeats it
					w.send(event.FailedACL, bad, "201", acl("not_match_endpoint_acl"), in(call))
				}
				w.send(event.ChallengeSent, bad, "<unknown>", in(call))
			}
			w.wantBanned(bad).wantLast(bad, ban.ActionBan, ban.ReasonACL)
		}},
		{"the manager port guessed", nil, func(w *world) {
			for _, typ := range []event.Type{event.InvalidPassword, event.InvalidAccountID,
				event.ChallengeResponseFailed} {
				w.send(typ, bad, "admin", manager, tcp)
			}
			w.wantBanned(bad).wantLast(bad, ban.ActionBan, ban.ReasonManager)
		}},
		{"HTTP scan of the manager port", nil, func(w *world) {
			for range 3 {
				w.send(event.RequestBadFormat, bad, "", manager, tcp)
			}
			w.wantBanned(bad)
		}},
		{"a manager login earns no trust", nil, func(w *world) {
			w.send(event.SuccessfulAuth, bad, "admin", manager, tcp).wantUntrusted(bad)
			for i := range 3 {
				w.scan(bad, strconv.Itoa(i))
			}
			w.wantBanned(bad)
		}},
		{"attacker who comes back after each ban, over TLS", nil, func(w *world) {
			for range 5 {
				for i := range 3 {
					w.scan(bad, strconv.Itoa(i), tls)
				}
				last := w.log[len(w.log)-1].Duration
				w.wantBanned(bad).pass(last + time.Second)
			}
			if d := w.log[len(w.log)-1]; d.Action != ban.ActionUnban || d.Time.Sub(start) < (1+4+16+64+168)*time.Hour {
				w.t.Error("bans did not grow:", brief(d))
			}
		}},
		{"IPv6 attacker with an address for each try", nil, func(w *world) {
			for i := range 3 {
				w.scan(fmt.Sprintf("2001:db8:bad::%x", i+1), strconv.Itoa(i))
			}
			w.wantBanned("2001:db8:bad::ffff").wantFree("2001:db8:bad:1::1")
		}},
		{"forged guesses from a customer's address", nil, func(w *world) {
			w.login(office, "201")
			for i := range 400 {
				w.crack(5, office, extension(i%30)).pass(time.Second)
			}
			w.wantNever(office).wantTrusted(office)
			w.wantDecision(1, ban.ActionObserve, ban.ReasonAccounts).wantDecision(1, ban.ActionObserve,
				ban.ReasonTolerance)
		}},
		{"forged honeypot packet from a customer's address", honeypot, func(w *world) {
			w.login(office, "201").scan(office, "admin").wantNever(office).wantTrusted(office)
			w.wantDecision(1, ban.ActionObserve, ban.ReasonTolerance)
		}},
		{"forged packets from a stranger's address end at his first login", nil, func(w *world) {
			w.scan("192.0.2.83", "1").scan("192.0.2.83", "2").scan("192.0.2.83", "3").wantBanned("192.0.2.83")
			w.login("192.0.2.83", "201").wantFree("192.0.2.83").wantLast("192.0.2.83", ban.ActionUnban, ban.ReasonLogin)
		}},
		{"forged packets from a trunk", nil, func(w *world) {
			w.protect("198.51.100.50/32")
			for i := range 50 {
				w.scan("198.51.100.50", strconv.Itoa(i))
			}
			w.wantNever("198.51.100.50").wantDecision(1, ban.ActionObserve, ban.ReasonProtected)
		}},
		{"maddr names a victim to chan_sip", nil, func(w *world) {
			for i := range 100 {
				w.wrong("192.0.2.84", strconv.Itoa(i), chanSIP)
			}
			w.round("192.0.2.84", "201").wantNever("192.0.2.84")
		}},
		{"one hacked computer in a good office, over TLS", nil, func(w *world) {
			w.login(office, "201", tls)
			for i := range 12 {
				w.crack(2, office, "9"+strconv.Itoa(i), tls)
			}
			w.wantDecision(1, ban.ActionUntrust, ban.ReasonAccounts).wantBanned(office)
		}},
		{"one account guessed at full speed from a good office, over TLS", nil, func(w *world) {
			w.login(office, "201", tls).crack(49, office, "250", tls).wantTrusted(office)
			w.crack(5, office, "250", tls).wantDecision(1, ban.ActionCut, ban.ReasonWrongPassword).wantTrusted(office).wantFree(office)
		}},
		{"the attacker who hides behind a fixed Call-ID", nil, func(w *world) {
			for i := range 3 {
				w.send(event.InvalidAccountID, bad, strconv.Itoa(i), in("fixed"))
			}
			w.wantBanned(bad)
		}},
		{"100,000 forged sources", func(p *config.Policy) {
			p.MaxSources = 20_000
			p.Limits.ForgeableBans, p.Limits.ForgeableBurst, p.Limits.ForgeableRate = 5_000, 3_000, 100
		}, func(w *world) {
			w.login(office, "201")
			for i := range 100_000 {
				for range 3 {
					w.send(event.InvalidAccountID, nth(i).String(), "100")
				}
				if i%1000 == 0 {
					w.pass(time.Millisecond)
				}
			}
			s := w.e.Stats(w.now)
			if s.Sources > 20_000 || s.Bans > 5_000 || s.Evicted == 0 || s.Limited["forgeable_rate"] == 0 ||
				s.Limited["forgeable_bans"] == 0 || s.LeftOut == nil {
				w.t.Errorf("%+v", s)
			}
			w.wantTrusted(office).wantNever(office).wantDecision(1, ban.ActionTrust, ban.ReasonLogin)
			w.wantDecision(min(2, len(s.Limited)), ban.ActionObserve, ban.ReasonLimit)
			for range 3 { // who proves himself is banned all the same
				w.scan(bad, "100", tls)
			}
			w.wantBanned(bad)
		}},
	})
}

func honeypot(p *config.Policy) { p.Honeypots = []string{"admin"} }
