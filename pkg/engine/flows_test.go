package engine_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
)

// port has an event come from a port.
func port(n uint16) func(*event.Event) {
	return func(ev *event.Event) { ev.Remote.AddrPort = netip.AddrPortFrom(ev.Remote.AddrPort.Addr(), n) }
}

// flow is a sender, over "udp" or "tcp".
func flow(text string) ban.Flow {
	var f ban.Flow
	if err := f.UnmarshalText([]byte(text)); err != nil {
		panic(err)
	}
	return f
}

// has says whether the kernel should hold an element like this at present, whatever time it has left.
func (w *world) has(want engine.Element) bool {
	return slices.ContainsFunc(append(w.e.FlowElements(w.now), w.e.EnforcedBans(w.now)...), func(el engine.Element) bool {
		el.Left = 0
		return el == want
	})
}

func (w *world) wantElement(want engine.Element) *world {
	w.t.Helper()
	if !w.has(want) {
		w.t.Errorf("the kernel is not to hold %+v, but %+v and %+v; decisions: %v", want, w.e.FlowElements(w.now),
			w.e.EnforcedBans(w.now), w.actions())
	}
	return w
}

// wantNoLane fails where anything of a source is cut or slow.
func (w *world) wantNoLane(addr string) *world {
	w.t.Helper()
	for _, el := range w.e.FlowElements(w.now) {
		if el.Kind != engine.GoodFlow && (el.Flow.Source.Addr().String() == addr ||
			el.Prefix.IsValid() && el.Prefix.Contains(netip.MustParseAddr(addr))) {
			w.t.Errorf("%+v", el)
		}
	}
	return w
}

func TestVerdictsAreNarrow(t *testing.T) {
	prefix := func(addr string) netip.Prefix { return netip.MustParsePrefix(addr + "/32") }
	udpBan := func(addr string, shut bool) engine.Element {
		return engine.Element{Kind: engine.BanOfPrefix, Prefix: prefix(addr), Closes: ban.ClosesUDP, DoorShut: shut}
	}
	run(t, []scenario{
		{"forged packets of a stranger close UDP, with a door", nil, func(w *world) {
			for i := range 3 {
				w.scan(bad, extension(900+i))
			}
			w.wantBanned(bad).wantElement(udpBan(bad, false))
		}},
		{"whoever logs in through the door is let in at once", nil, func(w *world) {
			for i := range 3 {
				w.scan(bad, extension(900+i))
			}
			w.wantBanned(bad).pass(20*time.Second).login(bad, "201", port(40000)).wantFree(bad)
			w.wantElement(engine.Element{Kind: engine.GoodFlow, Flow: flow("udp " + bad + ":40000")})
			for _, d := range w.log {
				if d.Action == ban.ActionUnban && (d.Closes != ban.ClosesUDP || d.Scope != ban.ScopeSource) {
					w.t.Errorf("the kernel would keep it: %+v", d)
				}
			}
		}},
		{"the door is shut for who attacks through it", nil, func(w *world) {
			for i := range 3 {
				w.scan(bad, extension(900+i))
			}
			w.wantElement(udpBan(bad, false)).pass(10 * time.Second)
			w.scan(bad, "910").scan(bad, "911").wantElement(udpBan(bad, false))
			w.scan(bad, "912").wantElement(udpBan(bad, true))
		}},
		{"who goes on at once as well, but for what Asterisk had before the ban", nil, func(w *world) {
			for i := range 20 {
				w.scan(bad, extension(900+i))
			}
			w.wantElement(udpBan(bad, false)).pass(50 * time.Millisecond)
			w.scan(bad, "930").scan(bad, "931").scan(bad, "932").wantElement(udpBan(bad, true))
		}},
		{"by our own clock, where Asterisk's is wrong", nil, func(w *world) {
			wrong := func(ev *event.Event) { ev.Time = ev.Time.Add(time.Hour) }
			for i := range 20 {
				w.scan(bad, extension(900+i), wrong).pass(40 * time.Millisecond)
			}
			w.wantElement(udpBan(bad, false)).pass(time.Second)
			w.scan(bad, "930", wrong).scan(bad, "931", wrong).scan(bad, "932", wrong).wantElement(udpBan(bad, true))
		}},
		{"not for a customer whose trust is over", nil, func(w *world) {
			w.login(office, "201").pass(25 * time.Hour)
			for i := range 20 {
				w.scan(office, extension(900+i)).pass(10 * time.Second)
			}
			w.wantBanned(office).wantElement(udpBan(office, false))
		}},
		{"an attacker over UDP who goes on over TCP is out of all", nil, func(w *world) {
			for i := range 3 {
				w.scan(bad, extension(900+i))
			}
			w.wantElement(udpBan(bad, false)).pass(time.Second)
			for i := range 4 {
				w.scan(bad, extension(910+i), tcp)
			}
			w.wantElement(engine.Element{Kind: engine.BanOfPrefix, Prefix: prefix(bad)})
			if n := w.e.Why(w.now, netip.MustParseAddr(bad)).Ban.Number; n != 1 {
				w.t.Errorf("ban number %d", n)
			}
		}},
		{"a manager's secret is guessed in an office: the manager is closed", nil, func(w *world) {
			w.login(office, "201")
			for range 200 {
				w.send(event.InvalidPassword, office, "crm", manager, tcp)
			}
			w.wantTrusted(office).wantElement(engine.Element{Kind: engine.BanOfPrefix, Prefix: prefix(office),
				Closes: ban.ClosesManager})
		}},
		{"a guesser in an office loses his connections, and the phones keep theirs", nil, func(w *world) {
			for i := range 40 {
				w.login(office, extension(i), tls, port(uint16(20000+i)))
			}
			for n := range uint16(10) {
				w.crack(30, office, "9250", tls, port(30000+n))
			}
			w.wantTrusted(office).wantFree(office)
			for i := range uint16(40) {
				w.wantElement(engine.Element{Kind: engine.GoodFlow,
					Flow: ban.Flow{Source: netip.AddrPortFrom(netip.MustParseAddr(office), 20000+i)}})
			}
			w.wantElement(engine.Element{Kind: engine.CutFlow, Flow: flow("tcp " + office + ":30009")})
			slow := engine.Element{Kind: engine.SlowSource, Prefix: prefix(office), Pace: engine.PaceTenMinutes}
			w.wantElement(slow).login(office, "299", tls, port(40000)).wantElement(slow)
			w.pass(31 * time.Minute).wantNoLane(office)
		}},
		{"of one account the fifth guess ends the connection, whatever the office is tolerated", nil, func(w *world) {
			w.login(office, "201", tls, port(20000)).crack(4, office, "9250", tls, port(30000)).wantNoLane(office)
			w.crack(1, office, "9250", tls, port(30000))
			w.wantElement(engine.Element{Kind: engine.CutFlow, Flow: flow("tcp " + office + ":30000")})
			w.wantElement(engine.Element{Kind: engine.GoodFlow, Flow: flow("tcp " + office + ":20000")})
		}},
		{"who comes back is cut at his first guess, for half an hour", nil, func(w *world) {
			w.login(office, "201", tls, port(20000)).crack(5, office, "9250", tls, port(30000)).pass(20 * time.Minute)
			w.crack(1, office, "9250", tls, port(30001))
			w.wantElement(engine.Element{Kind: engine.CutFlow, Flow: flow("tcp " + office + ":30001")})
		}},
		{"a device that is merely hasty is none of that", nil, func(w *world) {
			w.login(office, "201", tls, port(20000))
			for range 30 { // 20 a minute
				w.wrong(office, "9250", tls, port(30000)).pass(3 * time.Second)
			}
			w.wantTrusted(office).wantNoLane(office)
		}},
		{"of several accounts, each failing in bursts, the sum counts", nil, func(w *world) {
			w.login(office, "201", tls, port(20000))
			for i := range uint16(5) {
				w.crack(4, office, extension(900+int(i)), tls, port(30000+i))
			}
			w.wantTrusted(office).wantNoLane(office)
		}},
		{"of a stolen account the flow that guesses ends, though somebody logged in from it", nil, func(w *world) {
			w.login(bad, "201", tcp, port(1234)).crack(60, bad, "250", tcp, port(1234))
			w.wantElement(engine.Element{Kind: engine.CutFlow, Flow: flow("tcp " + bad + ":1234")})
			if w.has(engine.Element{Kind: engine.GoodFlow, Flow: flow("tcp " + bad + ":1234")}) {
				w.t.Error("it is cut and good")
			}
		}},
		{"what could be forged slows, and cuts nothing", nil, func(w *world) {
			w.login(office, "201", port(5060)).crack(2000, office, "250", port(5060)).wantTrusted(office).wantFree(office)
			w.wantElement(engine.Element{Kind: engine.SlowFlow, Flow: flow("udp " + office + ":5060"),
				Pace: engine.PaceSecond})
			w.wantElement(udpBan(office, false)) // the trickle, for those that never logged in from there
			w.pass(11 * time.Minute)
			if w.has(udpBan(office, false)) {
				w.t.Error("the trickle does not end")
			}
		}},
		{"a phone alone with an old password is slowed within the hour, and not once it is mended", nil, func(w *world) {
			for range 60 {
				w.wrong(bad, "201").pass(30 * time.Second)
			}
			slow := engine.Element{Kind: engine.SlowSource, Prefix: prefix(bad), Pace: engine.PaceMinute}
			w.wantFree(bad).wantElement(slow)
			for range 60 {
				w.wrong(bad, "201").pass(time.Minute)
			}
			slow.Pace = engine.PaceTenMinutes
			w.wantFree(bad).wantElement(slow)
			w.pass(time.Minute).login(bad, "201").wantNoLane(bad)
		}},
		{"a person lets the slow go", nil, func(w *world) {
			w.login(office, "201", tls).crack(60, office, "250", tls)
			w.unban(office+"/32", 0).wantNoLane(office)
		}},
		{"good flows end with trust.flow_ttl", func(p *config.Policy) { p.Trust.FlowTTL = time.Hour }, func(w *world) {
			good := engine.Element{Kind: engine.GoodFlow, Flow: flow("tcp " + office + ":5060")}
			w.login(office, "201", tls, port(5060)).pass(50*time.Minute).login(office, "201", tls, port(5060))
			w.pass(50 * time.Minute)
			w.wantElement(good).pass(11 * time.Minute)
			if w.has(good) {
				w.t.Error("it is still good")
			}
		}},
	})
}
