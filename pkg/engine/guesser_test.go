package engine_test

import (
	"fmt"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
)

// nonce has the form of PJSIP's: a time and a hash.
const nonce = "1795384137/5e8c2ab0d1f94c6b8a7e6d5c4b3a2910"

// decoy is a guess behind a constant Authorization header in front of the one that Asterisk checks, all in one
// dialogue.
func (w *world) decoy(from, account string, change ...func(*event.Event)) *world {
	return w.send(event.ChallengeResponseFailed, from, account,
		append([]func(*event.Event){in("one"), answering(nonce, "constant")}, change...)...)
}

func hostileBytes(ev *event.Event) { ev.Session, ev.Hostile = "a\tb", true }

func at(port uint16) func(*event.Event) {
	return func(ev *event.Event) { ev.Remote.AddrPort = netip.AddrPortFrom(ev.Remote.AddrPort.Addr(), port) }
}

// guessesUntilBanned counts how often f is called until an address is banned, up to most.
func (w *world) guessesUntilBanned(from string, most int, f func(i int)) int {
	for i := range most {
		if f(i); w.banned(from) {
			return i + 1
		}
	}
	return most + 1
}

// wantGuesses wants an address to be banned after so many guesses.
func (w *world) wantGuesses(want int, from string, f func(i int)) *world {
	w.t.Helper()
	if got := w.guessesUntilBanned(from, 2000, f); got != want {
		w.t.Errorf("%d guesses until the ban, want %d; decisions: %v", got, want, w.actions())
	}
	return w
}

// TestGuessers tells of those who found ways to guess without end, and of customers who look a little like them.
func TestGuessers(t *testing.T) {
	const home = "192.0.2.70"
	run(t, []scenario{
		{"bytes that no phone sends", nil, func(w *world) {
			w.wantGuesses(2, bad, func(int) { w.wrong(bad, "201", hostileBytes) }).wantLast(bad, ban.ActionBan,
				ban.ReasonMalformed)
			w.wantDecision(1, ban.ActionTampering, ban.ReasonMalformed)
		}},
		{"bytes that no phone sends, in a mere challenge", nil, func(w *world) {
			w.wantGuesses(3, bad, func(int) { w.send(event.ChallengeSent, bad, "201", hostileBytes) })
		}},
		{"bytes that no phone sends, over TCP", nil, func(w *world) {
			w.wantGuesses(1, bad, func(int) { w.wrong(bad, "201", hostileBytes, tcp) })
		}},
		{"bytes that no phone sends, forged in a stranger's name", nil, func(w *world) {
			for range 2 { // no cheaper than the forged requests for unknown accounts that ban it
				w.send(event.ChallengeResponseFailed, home, "201", hostileBytes, answering("", ""))
			}
			w.wantNever(home)
		}},
		{"a login with bytes that no phone sends", nil, func(w *world) {
			w.send(event.SuccessfulAuth, bad, "201", password, hostileBytes)
			w.wantDecision(1, ban.ActionBreach, ban.ReasonMalformed).wantUntrusted(bad)
			w.send(event.SuccessfulAuth, bad, "201", password, at(7777)).wantUntrusted(bad)
		}},
		{"bytes that no phone sends, forged in a customer's name", nil, func(w *world) {
			w.login(office, "201")
			for range 100 {
				w.wrong(office, "201", hostileBytes)
			}
			w.wantNever(office).wantTrusted(office).login(office, "201").wantTrusted(office).wantDecision(0,
				ban.ActionBreach, ban.ReasonGuessed)
		}},
		{"an account name with a tab, as somebody pasted it", nil, func(w *world) {
			w.scan(home, "201\t").pass(time.Minute).login(home, "201").wantNever(home).wantTrusted(home)
		}},

		{"decoy in front, as fast as answers come", nil, func(w *world) {
			w.wantGuesses(6, bad, func(int) { w.decoy(bad, "201").pass(10 * time.Millisecond) })
		}},
		{"decoy in front, a guess each second", nil, func(w *world) {
			w.wantGuesses(6, bad, func(int) { w.decoy(bad, "201").pass(time.Second) })
		}},
		{"decoy in front, a guess each two seconds", nil, func(w *world) {
			w.wantGuesses(14, bad, func(int) { w.decoy(bad, "201").pass(2 * time.Second) })
		}},
		{"decoy in front, over TCP", nil, func(w *world) {
			w.wantGuesses(5, bad, func(int) { w.decoy(bad, "201", tcp) })
		}},
		{"decoy in front, a new dialogue after each three guesses", nil, func(w *world) {
			w.wantGuesses(6, bad, func(i int) { w.decoy(bad, "201", in(strconv.Itoa(i/3))) })
		}},
		{"decoy in front, a guess each second, a new dialogue after each four", nil, func(w *world) {
			w.wantGuesses(6, bad, func(i int) { w.decoy(bad, "201", in(strconv.Itoa(i/4))).pass(time.Second) })
		}},
		{"decoy in front, a guess each second, two accounts in turns", nil, func(w *world) {
			w.wantGuesses(8, bad, func(i int) { w.decoy(bad, extension(i%2)).pass(time.Second) })
		}},
		{"decoy in front, an account each", nil, func(w *world) {
			w.wantGuesses(3, bad, func(i int) { w.decoy(bad, extension(i)).decoy(bad, extension(i)) })
		}},
		{"scheme spelled so that nothing of the answer is seen", nil, func(w *world) {
			w.wantGuesses(5, bad, func(int) { w.decoy(bad, "201", answering("", "")) })
		}},
		{"a decoy whose challenge is not Asterisk's", nil, func(w *world) {
			w.wantGuesses(5, bad, func(int) { w.decoy(bad, "201", answering("mine", "constant")) })
		}},
		{"a decoy for a day at what retransmissions allow", nil, func(w *world) {
			guesses := 0
			for range 24 * 60 * 60 / 36 { // each transaction a dialogue of its own
				for i, pause := range []time.Duration{500, 1000, 2000, 4000, 4000, 4000, 4000, 4000, 4000, 4000, 4000} {
					if w.banned(bad) {
						if guesses > 40 {
							w.t.Errorf("%d guesses before the ban", guesses)
						}
						return
					}
					w.decoy(bad, "201", in(strconv.Itoa(guesses-i)))
					guesses++
					w.pass(pause * time.Millisecond)
				}
			}
			w.t.Errorf("%d guesses, not banned", guesses)
		}},
		{"decoys of 100 addresses on one account, after a botnet was noticed", nil, func(w *world) {
			w.pass(2 * time.Hour)
			for i := range 100 {
				w.wantGuesses(6, host(i), func(int) { w.decoy(host(i), "201").pass(10 * time.Millisecond) })
			}
			w.wantDecision(1, ban.ActionTargeted, ban.ReasonDistributed)
		}},
		{"a phone whose answers are lost for half a minute", nil, func(w *world) {
			for range 3 { // once a minute, until the line is mended
				call := in(w.dialogue())
				for _, pause := range []time.Duration{500, 1000, 2000, 4000, 4000, 4000, 4000, 4000, 4000, 4000, 500} {
					w.send(event.ChallengeResponseFailed, home, "201", call,
						answering(nonce, w.dialogue()[:4])).pass(pause * time.Millisecond)
				}
				w.pass(28*time.Second).login(home, "201").pass(time.Hour)
			}
			w.wantNever(home).wantTrusted(home)
		}},
		{"a network that sends each packet twice, and an old password", nil, func(w *world) {
			for range 300 {
				call := in(w.dialogue())
				for i := range 2 {
					answer := answering(nonce, strconv.Itoa(w.calls*2+i))
					w.send(event.ChallengeResponseFailed, home, "201", call,
						answer).send(event.ChallengeResponseFailed, home, "201", call, answer)
				}
				w.pass(time.Minute)
			}
			w.wantNever(home)
		}},

		{"a stolen account, then guesses over UDP", nil, func(w *world) {
			w.login(bad, "201")
			for i := range 80 {
				w.crack(2, bad, extension(10+i))
			}
			w.crack(300, bad, "9999").wantDecision(1, ban.ActionGuessing, ban.ReasonWrongPassword).wantDecision(1,
				ban.ActionGuessing, ban.ReasonAccounts)
			w.send(event.SuccessfulAuth, bad, "9999", password, at(7777)).wantDecision(1, ban.ActionBreach,
				ban.ReasonGuessed)
		}},
		{"a stolen account, and a thousand others in turns", nil, func(w *world) {
			w.login(bad, "201")
			for range 8 {
				for i := range 1000 {
					w.crack(1, bad, extension(10+i))
				}
			}
			w.send(event.SuccessfulAuth, bad, extension(500), password, at(7777)).wantDecision(1, ban.ActionBreach,
				ban.ReasonGuessed)
		}},

		{"a storm of forged packets", nil, func(w *world) {
			for o := range 6 {
				w.login(host(o), extension(o))
			}
			w.login(bad, "300", tcp)
			n := w.guessesUntilBanned(bad, 1000, func(i int) {
				if i%20 == 0 {
					for o := range 6 {
						w.crack(1, host(o), extension(o))
					}
				}
				w.crack(1, bad, extension(400+i), tcp).pass(10 * time.Millisecond)
			})
			if n > 11 {
				w.t.Errorf("%d guesses before the ban", n)
			}
			w.wantDecision(0, ban.ActionObserve, ban.ReasonStorm).wantDecision(0, ban.ActionUnban, ban.ReasonStorm)
		}},
		{"a storm of six addresses with one stolen account", nil, func(w *world) {
			for o := range 6 {
				w.login(host(o), "300", tcp)
			}
			for o := range 6 {
				w.crack(1, host(o), "300", tcp)
			}
			w.wantDecision(0, ban.ActionObserve, ban.ReasonStorm)
		}},
		{"a storm in one /48", nil, func(w *world) {
			for o := range 6 {
				w.login(fmt.Sprintf("2001:db8:1:%x::1", o), extension(o), tcp)
			}
			for o := range 6 {
				w.crack(1, fmt.Sprintf("2001:db8:1:%x::1", o), extension(o), tcp)
			}
			w.wantDecision(0, ban.ActionObserve, ban.ReasonStorm)
		}},
		{"a storm of sources that lost their trust", nil, func(w *world) {
			for o := range 6 {
				w.login(host(o), extension(o), tcp).crack(60, host(o), "900", tcp)
			}
			w.wantDecision(6, ban.ActionCut, ban.ReasonWrongPassword)
			w.pass(2 * time.Hour)
			for o := range 6 {
				w.crack(1, host(o), extension(o), tcp)
			}
			w.wantDecision(0, ban.ActionObserve, ban.ReasonStorm)
		}},
		{"a guesser in a storm that is none of his making", nil, func(w *world) {
			for o := range 6 {
				w.login(host(o), extension(o), tcp)
			}
			w.login(bad, "300", tcp)
			for o := range 6 {
				w.crack(1, host(o), extension(o), tcp)
			}
			w.wantDecision(1, ban.ActionObserve, ban.ReasonStorm)
			if n := w.guessesUntilBanned(bad, 1000, func(i int) { w.crack(1, bad, extension(400+i), tcp) }); n > 11 {
				w.t.Errorf("%d guesses before the ban", n)
			}
		}},

		{"a storm of five stolen accounts, to guess in", nil, func(w *world) {
			for o := range 5 {
				w.login(host(o), extension(o), tcp)
			}
			for i := range 1000 {
				for o := range 5 {
					if i%20 == 0 { // each goes on working between its failures
						w.login(host(o), extension(o), tcp).crack(1, host(o), extension(o), tcp)
					}
					w.crack(1, host(o), extension(90+o), tcp)
				}
				w.pass(1100 * time.Millisecond)
			}
			w.wantDecision(5, ban.ActionGuessing, ban.ReasonPace) // they are spared like customers, but not in silence
		}},

		{"a guess that was right while nobody heard it", nil, func(w *world) {
			w.login(office, "201")
			for i := range 10 {
				w.crack(5, host(i), "201")
			}
			w.login(bad, "201").wantDecision(1, ban.ActionBreach, ban.ReasonDistributed).wantUntrusted(bad)
			w.login(office, "201").wantTrusted(office).login(office, "201", at(7777)).wantTrusted(office)
			w.wantDecision(1, ban.ActionBreach, ban.ReasonDistributed)
			w.pass(2*time.Hour).login(bad, "201").wantTrusted(bad) // it goes on no more
		}},
		{"a customer who typed in haste, and was unbanned", nil, func(w *world) {
			w.login(office, "201").crack(25, home, "201").wantBanned(home).unban(home+"/32", 0).login(home,
				"201").wantTrusted(home)
			w.wantDecision(0, ban.ActionBreach, ban.ReasonDistributed).login(bad, "201").wantDecision(1,
				ban.ActionBreach, ban.ReasonDistributed)
		}},
		{"the first logins after the installation, while a botnet guesses", nil, func(w *world) {
			for i := range 10 {
				w.crack(5, host(i), "201")
			}
			w.login(office, "201").wantTrusted(office).wantDecision(0, ban.ActionBreach, ban.ReasonDistributed)
		}},

		{"forged guesses before a phone's next login", nil, func(w *world) {
			w.login(home, "201").crack(6, home, "201").login(home, "201").wantTrusted(home).wantDecision(0,
				ban.ActionBreach, ban.ReasonGuessed)
			w.pass(20*time.Hour).login(home, "201").pass(20 * time.Hour).wantTrusted(home)
		}},
		{"forged guesses before a phone's next login from another port", nil, func(w *world) {
			w.login(home, "201").crack(6, home, "201").login(home, "201", at(7777)).wantDecision(1, ban.ActionBreach,
				ban.ReasonGuessed)
			w.pass(20*time.Hour).login(home, "201", at(7777)).pass(20*time.Hour).wantTrusted(home).wantDecision(1,
				ban.ActionBreach, ban.ReasonGuessed)
		}},
		{"forged guesses before somebody's first login", nil, func(w *world) {
			w.crack(6, home, "201").unban(home+"/32", 0).crack(6, home, "201").login(home, "201").wantUntrusted(home)
			w.pass(25*time.Hour).login(home, "201").wantTrusted(home)
		}},
		{"an account that looks targeted by forged packets, and one typo", nil, func(w *world) {
			for i := range 20 {
				w.crack(1, host(i), "201")
			}
			w.wantDecision(1, ban.ActionTargeted, ban.ReasonDistributed)
			w.wrong(home, "201").pass(5*time.Second).wrong(home, "201").pass(5*time.Second).wrong(home,
				"201").wantNever(home)
			w.pass(5*time.Second).login(home, "201").wantNever(home)
		}},
		{"2,000 forged packets are one alarm", nil, func(w *world) {
			for i := range 200 {
				for a := range 10 {
					w.crack(1, host(i), extension(a))
				}
			}
			w.wantDecision(1, ban.ActionTargeted, ban.ReasonDistributed)
		}},

		{"a guesser at a phone's pace, for a day", nil, func(w *world) {
			for range 24 * 60 * 6 {
				w.crack(1, bad, "201").pass(10 * time.Second)
			}
			w.wantNever(bad).wantDecision(1, ban.ActionGuessing, ban.ReasonPace)
		}},
		{"a phone that fails nineteen times an hour", nil, func(w *world) {
			for range 19 * 24 {
				w.crack(1, home, "201").pass(time.Hour / 19)
			}
			w.wantNever(home).wantDecision(0, ban.ActionGuessing, ban.ReasonPace)
		}},

		{"a guesser at a phone's pace whose decoys hide most of it", nil, func(w *world) {
			for i := range 20 {
				for k := range 8 { // one new answer, and what a network may make of it
					w.decoy(bad, "201", in(strconv.Itoa(i)))
					if k >= 4 {
						w.pass(4 * time.Second)
					}
				}
				w.pass(164 * time.Second)
			}
			w.wantNever(bad).wantDecision(1, ban.ActionGuessing, ban.ReasonPace)
		}},
		{"a stolen account, and guesses that its trust still tolerates", nil, func(w *world) {
			w.login(bad, "201", tcp).crack(49, bad, "250", tcp).wantTrusted(bad).wantDecision(1, ban.ActionGuessing,
				ban.ReasonPace)
		}},

		{"an allowed source guesses", nil, func(w *world) {
			w.allow(bad+"/32").crack(50, bad, "201").wantNever(bad).wantDecision(1, ban.ActionObserve,
				ban.ReasonAllowed)
			w.pass(2*time.Hour).crack(50, bad, "201").wantDecision(2, ban.ActionObserve, ban.ReasonAllowed)
		}},
		{"a phone with an old password at an allowed address", nil, func(w *world) {
			w.allow(home+"/32").rounds(300, time.Minute, home, "201").wantDecision(0, ban.ActionObserve,
				ban.ReasonAllowed)
		}},
	})
}

// TestIPv6IsCountedUpward tells of those who have a /48, and of customers who share one.
func TestIPv6IsCountedUpward(t *testing.T) {
	small := func(part, i int) string { return fmt.Sprintf("2001:db8:66:%02x%02x::1", part, i) }
	run(t, []scenario{
		{"a guess from each /64 of a /56, then of the next", nil, func(w *world) {
			w.wantGuesses(8, small(0, 200), func(i int) { w.crack(1, small(0, i), "201") }).wantFree(small(1, 0),
				"2001:db8:67::1")
			w.crack(1, small(1, 0), "201").wantFree(small(1, 0)).crack(1, small(1, 1),
				"201").wantBanned(small(1, 0)).wantFree(small(2, 0))
			w.wantDecision(2, ban.ActionBan, ban.ReasonNetwork)
		}},
		{"a guess from each /64, spread over a /48", nil, func(w *world) {
			w.wantGuesses(8, small(200, 0), func(i int) { w.crack(1, small(i, 0), "201") }).wantFree("2001:db8:67::1")
		}},
		{"a guess from each /64, spread over a /48, over TCP", nil, func(w *world) {
			w.wantGuesses(6, small(200, 0), func(i int) { w.crack(1, small(i, 0), "201", tcp) })
		}},
		{"one /56 after the other", nil, func(w *world) {
			n := 0
			for part := range 200 {
				for i := range 256 {
					if w.banned(small(part, i)) {
						break
					}
					w.crack(1, small(part, i), extension(n))
					n++
				}
			}
			if w.wantBanned(small(250, 0)); n > 12 {
				w.t.Errorf("%d guesses", n)
			}
		}},
		{"unknown accounts from each /64", nil, func(w *world) {
			w.wantGuesses(8, small(200, 0), func(i int) { w.scan(small(i, 0), strconv.Itoa(i)) })
		}},
		{"a customer in the /48", nil, func(w *world) {
			w.login(small(7, 7), "201")
			for i := range 200 {
				w.crack(4, small(i, 0), "202")
			}
			w.wantNever(small(7, 7)).wantDecision(0, ban.ActionBan, ban.ReasonNetwork).wantDecision(1,
				ban.ActionGuessing, ban.ReasonNetwork)
		}},
		{"a stolen account that is to save its own /48", nil, func(w *world) {
			w.login(small(0, 0), "201", tcp)
			guesses := 0
			for i := 1; i < 256; i++ {
				for part := range 256 {
					if !w.banned(small(part, i)) {
						w.crack(4, small(part, i), extension(guesses/8), tcp)
						guesses += 4
					}
				}
			}
			w.wantDecision(1, ban.ActionGuessing, ban.ReasonNetwork)
			if guesses > 256*(1+2)*4 { // the first of each /56, the second, and all of the customer's own
				w.t.Errorf("%d guesses", guesses)
			}
		}},
		{"seven networks of a /48, each at a phone's pace", nil, func(w *world) {
			for range 10 {
				for i := range 7 {
					w.crack(1, small(i, 0), extension(2*i)).crack(1, small(i, 0), extension(2*i+1))
				}
				w.pass(20 * time.Second)
			}
			w.wantDecision(1, ban.ActionGuessing, ban.ReasonNetwork).wantDecision(0, ban.ActionBan, ban.ReasonNetwork)
		}},
		{"an allowed address in the /56", nil, func(w *world) {
			w.allow("2001:db8:66::99/128")
			for i := range 200 {
				w.crack(1, small(0, i), "202")
			}
			w.wantDecision(0, ban.ActionBan, ban.ReasonNetwork)
		}},
		{"a customer logs in from the banned /48", nil, func(w *world) {
			for i := range 20 {
				w.crack(1, small(i, 0), "201")
			}
			w.wantBanned(small(200, 0)).login(small(200, 0), "300").wantFree(small(200, 0), small(100, 0))
		}},
		{"Asterisk knows a phone in the banned /48", nil, func(w *world) {
			for i := range 20 {
				w.crack(1, small(i, 0), "201")
			}
			w.wantBanned(small(200, 0)).vouch(small(200, 0)).wantTrusted(small(200, 0)).wantFree(small(200, 0),
				small(100, 0))
		}},
		{"old phones in several networks of one site", nil, func(w *world) {
			for range 300 {
				w.round(small(0, 1), "201").pass(20*time.Second).round(small(0, 2),
					"202").pass(20*time.Second).round(small(1, 1), "203").pass(20 * time.Second)
			}
			w.wantDecision(0, ban.ActionBan, ban.ReasonNetwork).wantDecision(0, ban.ActionGuessing, ban.ReasonNetwork)
		}},
		{"a person who mistypes from a new address each time", nil, func(w *world) {
			for i := range 6 {
				w.wrong(small(0, i), "201").pass(10 * time.Second)
			}
			w.login(small(0, 9), "201").wantTrusted(small(0, 9)).wantNever(small(0, 0), small(0, 9))
		}},
		{"switched off", func(p *config.Policy) { p.Networks.IPv6Sources = 0 }, func(w *world) {
			for i := range 200 {
				w.crack(1, small(i, 0), extension(i))
			}
			w.wantDecision(0, ban.ActionBan, ban.ReasonNetwork)
		}},
	})
}

// TestFullBooks tells of those who fill the books by forged packets to go free themselves.
func TestFullBooks(t *testing.T) {
	full := func(w *world) {
		for i := range 3000 {
			for range 3 {
				w.send(event.InvalidAccountID, nth(i).String(), "100")
			}
		}
	}
	few := func(p *config.Policy) { p.MaxSources, p.Limits.ForgeableBans, p.Limits.Bans = 5000, 2000, 4000 }
	run(t, []scenario{
		{"a guesser over UDP", few, func(w *world) {
			full(w)
			w.wantGuesses(11, bad, func(int) { w.crack(1, bad, "201") }).wantDecision(1, ban.ActionUnban,
				ban.ReasonLimit)
			w.wantFree(nth(0).String()).wantBanned(nth(1).String())
			if s := w.e.Stats(w.now); s.Bans != 2000 {
				w.t.Errorf("%d bans", s.Bans)
			}
		}},
		{"who was banned twice does not give way", few, func(w *world) {
			for range 3 {
				w.scan(bad, "1")
			}
			w.pass(time.Hour + time.Second)
			for range 3 {
				w.scan(bad, "1")
			}
			full(w)
			w.wantBanned(bad).wantGuesses(11, office, func(int) { w.crack(1, office, "201") }).wantBanned(bad)
		}},
		{"nobody gives way to a ban that may not begin yet", func(p *config.Policy) {
			p.Limits.ForgeableBans, p.Limits.ForgeableBurst, p.Limits.ForgeableRate = 100, 100, 1
		}, func(w *world) {
			for i := range 100 {
				for range 3 {
					w.send(event.InvalidAccountID, nth(i).String(), "100")
				}
			}
			w.crack(30, bad, "201").wantFree(bad).wantDecision(0, ban.ActionUnban, ban.ReasonLimit)
			w.pass(time.Second).crack(1, bad, "201").wantBanned(bad).wantDecision(1, ban.ActionUnban, ban.ReasonLimit)
		}},
		{"one packet more than a ban needs frees nobody", few, func(w *world) {
			full(w)
			w.wantDecision(0, ban.ActionUnban, ban.ReasonLimit)
		}},
		{"fewer sources than bans, and a guesser over TCP",
			func(p *config.Policy) { p.MaxSources, p.Limits.ForgeableBans = 1000, 100_000 }, func(w *world) {
				full(w)
				w.wantGuesses(5, bad, func(int) { w.crack(1, bad, "201", tcp) })
			}},
		{"all bans taken by forged packets, and a guesser over TCP",
			func(p *config.Policy) { p.Limits.ForgeableBans, p.Limits.Bans = 2000, 2000 }, func(w *world) {
				full(w)
				w.wantGuesses(5, bad, func(int) { w.crack(1, bad, "201", tcp) })
			}},
		{"trusted sources never give way", func(p *config.Policy) {
			p.MaxSources, p.Limits.ForgeableBans = 1000,
				100_000
		}, func(w *world) {
			w.login(office, "201")
			full(w)
			w.wantTrusted(office).wantNever(office)
		}},
	})
}
