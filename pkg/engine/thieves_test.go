package engine_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
)

// TestThieves tells of attackers who use what spares customers: stolen accounts, flows from which somebody logged in,
// addresses that others have, too, and packets in the name of others.
func TestThieves(t *testing.T) {
	const proxy = "203.0.113.9"
	slow := func(n int, pace engine.Pace) engine.Element {
		return engine.Element{Kind: engine.SlowFlow, Flow: flow(fmt.Sprintf("udp %s:%d", bad, n)), Pace: pace}
	}
	good := func(text string) engine.Element { return engine.Element{Kind: engine.GoodFlow, Flow: flow(text)} }
	run(t, []scenario{
		{"twenty stolen accounts through one flow are no proxy for long", nil, func(w *world) {
			register := func() {
				for i := range 25 {
					w.login(host(300*i), extension(i), tls)
				}
			}
			register()
			w.pass(time.Hour)
			for i := range 25 {
				w.login(proxy, extension(i), tls, at(5061))
			}
			w.crack(60, proxy, "900", tls, at(5061)).wantDecision(0, ban.ActionCut, ban.ReasonWrongPassword)
			w.pass(30 * time.Minute)
			register() // the phones of those who were robbed
			for range 10 {
				w.crack(60, proxy, "900", tls, at(5061)).pass(time.Second)
			}
			w.wantDecision(1, ban.ActionProxy, ban.ReasonProxy).wantDecision(1, ban.ActionGuessing, ban.ReasonProxy)
			w.wantDecision(1, ban.ActionCut, ban.ReasonWrongPassword)
			w.login(proxy, "229", tls, at(5062)).crack(60, proxy, "900", tls, at(5062))
			w.wantElement(engine.Element{Kind: engine.CutFlow, Flow: flow("tcp " + proxy + ":5062")})
		}},
		{"customers who moved to a proxy yesterday", nil, func(w *world) {
			for i := range 25 {
				w.login(host(300*i), extension(i), tls)
			}
			w.pass(time.Hour)
			for range 20 {
				for i := range 25 {
					w.login(proxy, extension(i), tls, at(5061))
				}
				w.crack(60, proxy, "900", tls, at(5061)).pass(30 * time.Minute)
			}
			w.wantNever(proxy).wantDecision(0, ban.ActionCut, ban.ReasonWrongPassword)
		}},
		{"a good flow does not pass the ban that it earned", nil, func(w *world) {
			w.login(bad, "201", tls, at(1234))
			for i := range 60 {
				w.crack(1, bad, extension(20+i), tls, at(1234)).pass(100 * time.Millisecond)
			}
			w.wantBanned(bad).wantElement(engine.Element{Kind: engine.CutFlow, Flow: flow("tcp " + bad + ":1234")})
			if w.has(good("tcp " + bad + ":1234")) {
				w.t.Error("the flow is good")
			}
		}},
		{"nor over UDP at any speed, once others proved what its source is", nil, func(w *world) {
			w.login(bad, "201", at(1234))
			for i := range 60 {
				w.crack(1, bad, extension(20+i), tls, at(5000)).pass(100 * time.Millisecond)
			}
			w.wantBanned(bad).crack(60, bad, "900", at(1234)).wantElement(slow(1234, engine.PaceSecond))
		}},
		{"guesses over a good flow get a packet a second, and soon four a minute", nil, func(w *world) {
			w.login(bad, "201", at(1234)).crack(60, bad, "900", at(1234)).wantElement(slow(1234, engine.PaceSecond))
			for range 70 {
				w.crack(1, bad, "900", at(1234)).pass(time.Second)
			}
			w.wantElement(slow(1234, engine.PaceMinute)).wantElement(good("udp " + bad + ":1234"))
			w.login(bad, "201", at(1234)).wantElement(slow(1234, engine.PaceMinute)) // which a thief can do at any time
		}},
		{"guesses over many good flows get hardly anything", nil, func(w *world) {
			for i := range 30 {
				w.login(bad, "201", at(uint16(2000+i)))
			}
			for range 20 {
				for i := range 30 {
					w.crack(1, bad, "900", at(uint16(2000+i)))
				}
			}
			flows := 0
			for _, el := range w.e.FlowElements(w.now) {
				switch {
				case el.Kind == engine.GoodFlow && el.Flow.UDP:
					flows++
				case el.Kind == engine.SlowFlow && el.Pace != engine.PaceTenMinutes && w.has(good(el.Flow.String())):
					w.t.Errorf("%+v", el)
				}
			}
			if flows > 10 {
				w.t.Errorf("%d flows are good", flows)
			}
		}},
		{"one account does not fill the table of good flows", nil, func(w *world) {
			for i := range 300 {
				w.login(fmt.Sprintf("2001:db8:66::%x", i+1), "201", at(5060))
			}
			if n := len(w.e.FlowElements(w.now)); n > 64 {
				w.t.Errorf("%d good flows", n)
			}
			w.login(office, "202", at(5060)).wantElement(good("udp " + office + ":5060"))
		}},
		{"new ports for each guess at a device's pace, beside a phone", nil, func(w *world) {
			w.login(office, "201", tls)
			for i := range 200 {
				w.wrong(office, "250", at(uint16(30_000+i))).pass(12 * time.Second)
			}
			w.wantElement(engine.Element{Kind: engine.BanOfPrefix, Prefix: netip.MustParsePrefix(office + "/32"),
				Closes: ban.ClosesUDP}).wantFree(office).wantTrusted(office)
		}},
		{"a phone with an old password over TLS in an office is named, and not slowed", nil, func(w *world) {
			w.login(office, "201", tls)
			for i := range 300 {
				w.round(office, "203", tls, at(uint16(30_000+i))).pass(30 * time.Second)
			}
			w.wantNever(office).wantNoLane(office).wantNamed(ban.ActionMisconfigured, "203")
		}},
		{"over UDP and TCP in turns", nil, func(w *world) {
			w.wantGuesses(5, bad, func(i int) { w.crack(1, bad, "201", []func(*event.Event){tcp, over(event.UDP)}[i%2]) })
			for i := range 5 {
				w.crack(1, bad, "201", []func(*event.Event){tcp, over(event.UDP)}[i%2])
			}
			w.wantElement(engine.Element{Kind: engine.BanOfPrefix, Prefix: netip.MustParsePrefix(bad + "/32")})
		}},
		{"a manager's secret guessed from where phones log in, at a program's pace and faster", nil, func(w *world) {
			w.login(office, "201", tls)
			for range 200 {
				w.send(event.InvalidPassword, office, "crm", manager, tcp).pass(30 * time.Second)
			}
			w.wantNever(office).wantNoLane(office).wantNamed(ban.ActionMisconfigured, "crm")
			for range 60 {
				w.send(event.InvalidPassword, office, "crm", manager, tcp)
			}
			w.wantElement(engine.Element{Kind: engine.BanOfPrefix, Prefix: netip.MustParsePrefix(office + "/32"),
				Closes: ban.ClosesManager}).wantTrusted(office)
		}},
		{"three forged knocks do not shut the door of who was a customer within the week", nil, func(w *world) {
			w.login(office, "201").pass(6 * 24 * time.Hour)
			for i := range 60 {
				w.scan(office, extension(900+i)).pass(time.Second)
			}
			w.wantBanned(office).wantElement(engine.Element{Kind: engine.BanOfPrefix,
				Prefix: netip.MustParsePrefix(office + "/32"), Closes: ban.ClosesUDP})
			w.login(office, "201", at(40_000)).wantFree(office)
		}},
		{"forged packets in the names of 40,000 strangers leave room for what is proven", nil, func(w *world) {
			w.login(office, "201", tls)
			for i := range 40_000 {
				for range 4 {
					w.log = w.log[:0]
					w.wrong(nth(i).String(), "201")
				}
			}
			for range 9 {
				w.pass(5 * time.Minute)
			}
			w.crack(60, office, "250", tls, at(7000))
			w.wantElement(engine.Element{Kind: engine.CutFlow, Flow: flow("tcp " + office + ":7000")})
		}},
		{"a telephone in a pocket is news in none of a hundred networks", nil, func(w *world) {
			for i := range 100 {
				w.login(fmt.Sprintf("100.%d.2.7", 64+i%60), "203").pass(8 * time.Hour)
			}
			w.wantDecision(0, ban.ActionNewPlace, ban.ReasonLogin)
			for i := range 4 { // but several at once are
				w.login(fmt.Sprintf("9.%d.2.7", i), "203").pass(time.Minute)
			}
			w.wantDecision(1, ban.ActionNewPlace, ban.ReasonLogin)
		}},
	})
}
