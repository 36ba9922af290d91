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

func byTap(ev *event.Event) { ev.SeenBy = event.ByTap }

// answersOwnChallenge says that a sensor saw the challenge go to the address that answered it.
func answersOwnChallenge(ev *event.Event) { ev.Proven = true }

func service(s event.Service) func(*event.Event) { return func(ev *event.Event) { ev.Service = s } }

func dialled(r event.Report) func(*event.Event) {
	return func(ev *event.Event) { ev.Report, ev.SeenBy = r, event.ByDialplan }
}

// TestSensors tells what comes of what Asterisk keeps silent about.
func TestSensors(t *testing.T) {
	closed := func(w *world, addr string, closes ban.Closes) {
		w.t.Helper()
		w.wantBanned(addr)
		for _, d := range w.log {
			if d.Action == ban.ActionBan && d.Source.String() == addr && d.Closes != closes {
				w.t.Errorf("%v closes %v, want %v", d.Prefix, d.Closes, closes)
			}
		}
	}
	run(t, []scenario{
		{"a hidden guess whose challenge was seen: one is enough", nil, func(w *world) {
			w.send(event.SilentGuess, bad, "201", byTap, answersOwnChallenge, answering("1/a", "b"))
			w.wantLast(bad, ban.ActionBan, ban.ReasonSilentGuess)
			closed(w, bad, ban.ClosesAll)
			if seen := w.e.Why(w.now, netip.MustParseAddr(bad)).Ban.Evidence[0].SeenBy; seen != "tap" {
				w.t.Errorf("seen by %q", seen)
			}
		}},
		{"hidden guesses that could be forged: three", nil, func(w *world) {
			for range 2 {
				w.send(event.SilentGuess, bad, "201", byTap)
			}
			w.wantFree(bad).send(event.SilentGuess, bad, "201", byTap)
			closed(w, bad, ban.ClosesUDP)
		}},
		{"the same guess again is a retransmission", nil, func(w *world) {
			for range 5 {
				w.send(event.SilentGuess, bad, "201", byTap, in("one"), answering("1/a", "b"))
			}
			w.wantFree(bad)
		}},
		{"a hidden login: a breach, and out", nil, func(w *world) {
			w.send(event.SilentLogin, bad, "201", byTap, answersOwnChallenge).wantDecision(1, ban.ActionBreach, ban.ReasonSilentLogin)
			closed(w, bad, ban.ClosesAll)
			w.wantUntrusted(bad)
		}},
		{"a hidden login from an office: its flow ends, the office goes on", nil, func(w *world) {
			w.login(office, "201").send(event.SilentLogin, office, "202", byTap, answersOwnChallenge, port(4444))
			w.wantFree(office).wantTrusted(office)
			w.wantDecision(1, ban.ActionBreach, ban.ReasonSilentLogin).wantDecision(1, ban.ActionCut, ban.ReasonSilentLogin)
			w.wantElement(engine.Element{Kind: engine.CutFlow, Flow: flow("udp " + office + ":4444")})
		}},
		{"a right password that may be forged: a breach, and no more against its source than a guess", nil, func(w *world) {
			w.login(office, "201").send(event.SilentLogin, office, "202", byTap)
			w.wantDecision(1, ban.ActionBreach, ban.ReasonSilentLogin).wantFree(office).wantTrusted(office)
			w.send(event.SilentLogin, bad, "203", byTap).wantFree(bad).login(bad, "203").wantTrusted(bad)
		}},
		{"a hidden login from an allowed address is told, and nothing closed", nil, func(w *world) {
			w.allow(bad+"/32").send(event.SilentLogin, bad, "201", byTap, answersOwnChallenge).wantFree(bad)
			w.wantDecision(1, ban.ActionBreach, ban.ReasonSilentLogin)
		}},
		{"a scanner's mark: one packet, and nothing passes for a while", nil, func(w *world) {
			w.send(event.Scanner, bad, "100", byTap).wantLast(bad, ban.ActionBan, ban.ReasonScanner)
			closed(w, bad, ban.ClosesUDP)
			if shut := w.banElement(bad).ShutFor; shut < 29*time.Second || shut > 31*time.Second {
				w.t.Errorf("shut for %v", shut)
			}
			w.pass(time.Minute)
			if el := w.banElement(bad); el.ShutFor != 0 || el.DoorShut {
				w.t.Errorf("the door does not open: %+v", el)
			}
			w.login(bad, "201").wantFree(bad)
		}},
		{"a scanner's mark over TCP closes all", nil, func(w *world) {
			w.send(event.Scanner, bad, "100", byTap, tcp)
			closed(w, bad, ban.ClosesAll)
		}},
		{"a scanner's mark in a customer's name is told", nil, func(w *world) {
			w.login(office, "201").pass(48 * time.Hour) // known, and not trusted any more
			for range 10 {
				w.send(event.Scanner, office, "100", byTap)
			}
			w.wantFree(office).wantLast(office, ban.ActionObserve, ban.ReasonScanner)
		}},
		{"a guest who searches for numbers", nil, func(w *world) {
			for range 4 {
				w.send(event.Probing, bad, "", byTap)
			}
			w.wantFree(bad).send(event.Probing, bad, "", byTap).wantLast(bad, ban.ActionBan, ban.ReasonProbing)
		}},
		{"a customer who dials wrong numbers all day", nil, func(w *world) {
			w.login(office, "201")
			for range 100 {
				w.send(event.Probing, office, "201", byTap).send(event.DialplanReport, office, "201", dialled(event.WrongNumber))
				w.send(event.MalformedRequest, office, "", byTap)
			}
			w.wantFree(office).wantNever(office)
		}},
		{"messages that cannot be read", nil, func(w *world) {
			for range 3 {
				w.send(event.MalformedRequest, bad, "", byTap)
			}
			w.wantLast(bad, ban.ActionBan, ban.ReasonMalformedSIP)
		}},
		{"passwords guessed over IAX2", nil, func(w *world) {
			for i := range 5 {
				w.send(event.IAXRefused, bad, extension(200+i), byTap, service(event.IAX2), answering("1", extension(i)))
			}
			w.wantLast(bad, ban.ActionBan, ban.ReasonIAX)
		}},
		{"one IAX2 trunk with an old password", nil, func(w *world) {
			for i := range 60 {
				w.send(event.IAXRefused, office, "trunk", byTap, service(event.IAX2), answering("1", extension(i)))
				w.pass(time.Minute)
			}
			w.wantNever(office).wantDecision(1, ban.ActionMisconfigured, ban.ReasonPace)
		}},
		{"ARI's password guessed", nil, func(w *world) {
			for i := range 3 {
				w.send(event.HTTPRefused, bad, extension(i), byTap, service(event.HTTP), tcp)
			}
			w.wantLast(bad, ban.ActionBan, ban.ReasonHTTP)
		}},
		{"the dialplan's honeypot number", nil, func(w *world) {
			w.send(event.DialplanReport, bad, "", dialled(event.HoneypotNumber), tcp)
			w.wantLast(bad, ban.ActionBan, ban.ReasonHoneypot)
		}},
		{"a customer who dials a honeypot number is told of", nil, func(w *world) {
			w.login(office, "201").send(event.DialplanReport, office, "201", dialled(event.HoneypotNumber), tcp)
			w.wantFree(office).wantLast(office, ban.ActionObserve, ban.ReasonHoneypot)
		}},
		{"guesses over UDP whose challenges were seen are banned like those over TCP", nil, func(w *world) {
			for i := range 5 {
				w.send(event.ChallengeResponseFailed, bad, "201", answersOwnChallenge, answering("1/a", extension(i)))
			}
			closed(w, bad, ban.ClosesAll)
		}},
		{"a phone's retransmissions over UDP stay one guess, proven or not", nil, func(w *world) {
			for range 4 {
				w.send(event.ChallengeResponseFailed, bad, "201", in("one"), answersOwnChallenge, answering("1/a", "b"))
				w.pass(4 * time.Second)
			}
			if score := w.e.Why(w.now, netip.MustParseAddr(bad)).Score; score > 2 {
				w.t.Errorf("score %v", score)
			}
		}},
		{"chan_sip is enforced where a sensor saw the sender", nil, func(w *world) {
			for i := range 5 {
				w.send(event.InvalidPassword, bad, "201", service(event.SIP), answersOwnChallenge, answering("1", extension(i)))
			}
			closed(w, bad, ban.ClosesAll)
		}},
		{"but not where its service and PJSIP's are observed", func(p *config.Policy) {
			p.Services = map[string]config.Mode{"PJSIP": config.Observe, "SIP": config.Observe}
		}, func(w *world) {
			for i := range 5 {
				w.send(event.InvalidPassword, bad, "201", service(event.SIP), answersOwnChallenge, answering("1", extension(i)))
			}
			w.wantNever(bad)
		}},
	})
}

// banElement is what the kernel should hold of the ban of an address.
func (w *world) banElement(addr string) engine.Element {
	w.t.Helper()
	el, ok := w.e.BanElement(w.now, netip.MustParsePrefix(addr+"/32"))
	if !ok {
		w.t.Fatalf("%s is not banned; decisions: %v", addr, w.actions())
	}
	return el
}
