package witness_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/sip"
	"github.com/ringwall/ringwall/pkg/witness"
)

const (
	bad    = "203.0.113.66"
	office = "198.51.100.10"
)

type scenario struct {
	name string
	run  func(w *world)
}

func run(t *testing.T, scenarios []scenario) {
	t.Helper()
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.run(newWorld(t, witness.Config{}))
		})
	}
}

// TestCustomers is about those of whom nothing must be found.
func TestCustomers(t *testing.T) {
	t.Parallel()
	run(t, []scenario{
		{"an office of forty phones registers, again and again, and calls", func(w *world) {
			w.others()
			var phones []*peer
			for i := range 40 {
				phones = append(phones, w.peer(office, fmt.Sprint(200+i), fmt.Sprint("office", i)))
			}
			for range 5 {
				for _, p := range phones {
					if p.dialogue("REGISTER", "right") != 200 {
						w.t.Fatal("not registered")
					}
				}
				w.pass(40 * time.Second)
			}
			w.want()
		}},
		{"a phone registers again with the challenge of an hour ago", func(w *world) {
			w.others()
			p := w.peer(office, "201", "a")
			for range 4 {
				p.dialogue("REGISTER", "right")
				w.pass(time.Hour)
			}
			w.want()
		}},
		{"a phone with an old password", func(w *world) {
			w.others()
			p := w.peer(office, "201", "a")
			for range 10 {
				p.dialogue("REGISTER", "old")
				w.pass(7 * time.Second)
			}
			w.want()
		}},
		{"a customer dials wrong numbers", func(w *world) {
			w.others()
			for i := range 20 {
				p := w.peer(office, "201", fmt.Sprint("call", i))
				p.to = "999"
				p.dialogue("INVITE", "right")
			}
			w.want()
		}},
		{"a call, its ACK, a re-INVITE for T.38, a BYE with the old credentials", func(w *world) {
			w.others()
			p := w.peer(office, "201", "call")
			p.to = "100"
			p.header = "Content-Type: application/sdp\r\nX-Large: " + strings.Repeat("x", 2000)
			p.dialogue("INVITE", "right")
			p.toTag = "as1"
			p.send(p.text("ACK", p.nonce, "right"))
			p.send(p.request("INVITE", p.nonce, "right"))
			p.send(p.request("BYE", p.nonce, "right"))
			w.want()
		}},
		{"requests that are sent again", func(w *world) {
			w.others()
			p := w.peer(office, "201", "a")
			text := p.request("REGISTER", "", "")
			p.send(text)
			w.pass(500 * time.Millisecond)
			p.send(text)
			w.pass(20 * time.Millisecond)
			text = p.request("REGISTER", p.nonce, "right")
			for range 4 {
				p.send(text)
				w.pass(500 * time.Millisecond)
			}
			w.want()
		}},
		{"keepalives of phones and providers", func(w *world) {
			w.unauthenticatedOptions = true
			w.others()
			p := w.peer(office, "201", "a")
			p.dialogue("REGISTER", "right")
			for i := range 20 {
				p.callID = fmt.Sprint("options", i)
				p.send(p.request("OPTIONS", p.nonce, "right")) // with the credentials of before
				w.pass(30 * time.Second)
			}
			w.want()
		}},
		{"OPTIONS with a challenge that was sent for a registration", func(w *world) {
			w.unauthenticatedOptions = true
			w.others()
			p := w.peer(office, "201", "a")
			p.dialogue("REGISTER", "right")
			w.filtered = func(t event.Type) bool { return t == event.SuccessfulAuth }
			p.callID = "\xff"
			p.send(p.request("OPTIONS", p.nonce, "right"))
			w.filtered = nil
			w.others().want()
		}},
		{"requests within a call, hidden or not, are no logins", func(w *world) {
			w.others()
			p := w.peer(office, "201", "a")
			p.dialogue("REGISTER", "right")
			for _, id := range []string{"plain", "hidden\xff"} {
				p.callID, p.toTag = id, "as1"
				p.send(p.request("INFO", p.nonce, "right"))
				w.pass(20 * time.Millisecond)
			}
			w.others().want()
		}},
		{"a phone that needs no password, and gives one", func(w *world) {
			w.others()
			w.noAuth = true
			p := w.peer(office, "201", "a")
			p.send(p.request("REGISTER", "never sent", "right"))
			w.pass(20 * time.Millisecond)
			p.callID = "\xff"
			p.send(p.request("REGISTER", "never sent", "right"))
			w.noAuth = false
			w.others().want()
		}},
		{"two wrong passwords with challenges of another Asterisk, and then the right one", func(w *world) {
			w.others()
			p := w.peer(office, "201", "a")
			for _, password := range []string{"old", "old", "right"} {
				p.send(p.request("REGISTER", "of another", password))
				w.pass(time.Second)
			}
			w.want()
		}},
		{"a provider whose calls are not for everybody", func(w *world) {
			w.others()
			w.noAuth = true
			for i := range 40 {
				p := w.peer("198.51.100.50", "provider", fmt.Sprint("call", i))
				if p.to = "100"; i%2 == 1 {
					p.to = "999"
				}
				p.send(p.request("INVITE", "", ""))
				w.pass(time.Second)
			}
			w.want()
		}},
		{"events that come late, but within the moment", func(w *world) {
			w.eventDelay = 300 * time.Millisecond
			w.others()
			w.peer(office, "201", "a").dialogue("REGISTER", "right")
			w.peer(office, "202", "b").dialogue("REGISTER", "old")
			w.want()
		}},
		{"events that come later than that", func(w *world) {
			w.eventDelay = 3 * time.Second
			w.others()
			for i := range 10 {
				w.peer(office, "201", fmt.Sprint("a", i)).dialogue("REGISTER", "right")
				w.peer(office, "202", fmt.Sprint("b", i)).dialogue("REGISTER", "old")
			}
			w.want()
		}},
		{"a sensor that comes late", func(w *world) {
			w.sensorDelay = 200 * time.Millisecond
			w.others()
			w.peer(office, "201", "a").dialogue("REGISTER", "right")
			w.peer(office, "202", "b").dialogue("REGISTER", "old")
			w.want()
		}},
		{"a tap that loses answers, or sees nothing", func(w *world) {
			w.others()
			w.loseAnswers = true
			w.peer(office, "201", "a").dialogue("REGISTER", "right")
			w.unseen = true
			w.peer(office, "202", "b").dialogue("REGISTER", "old")
			w.loseAnswers, w.unseen = false, false
			w.peer(office, "203", "c").dialogue("REGISTER", "right")
			w.want()
		}},
		{"tap and HEP see the same", func(w *world) {
			w.seenBy = []event.Sensor{event.ByTap, event.ByHEP}
			w.others()
			for i := range 10 {
				w.peer(office, "201", fmt.Sprint("a", i)).dialogue("REGISTER", "right")
				w.peer(office, "202", fmt.Sprint("b", i)).dialogue("REGISTER", "old")
				p := w.peer(office, "201", fmt.Sprint("c", i))
				p.to = "100"
				p.dialogue("INVITE", "right")
			}
			w.want()
		}},
		{"the manager's session is down while phones log in", func(w *world) {
			w.others()
			w.deaf = true
			w.w.Blind(w.now, pbxName, true)
			w.peer(office, "201", "a").dialogue("REGISTER", "right")
			w.pass(time.Second)
			w.deaf = false
			w.w.Blind(w.now, pbxName, false)
			w.others()
			w.want()
		}},
		{"events were given up", func(w *world) {
			w.others()
			w.filtered = func(event.Type) bool { return true }
			w.peer(office, "201", "a").dialogue("REGISTER", "right")
			w.w.FramesLost(w.now, pbxName)
			w.filtered = nil
			w.others().want()
		}},
		{"a manager's filter that keeps logins away", func(w *world) {
			w.filtered = func(t event.Type) bool { return t == event.SuccessfulAuth }
			w.others()
			for i := range 10 {
				w.peer(office, "201", fmt.Sprint("a", i)).dialogue("REGISTER", "right")
			}
			w.want()
		}},
		{"another server without a manager", func(w *world) {
			w.w.Blind(w.now, "another", false)
			w.noEvents = true
			for i := range 10 {
				w.peer(office, "201", fmt.Sprint("a", i)).dialogue("REGISTER", "right")
				w.peer(office, "202", fmt.Sprint("b", i)).dialogue("REGISTER", "old")
			}
			w.want()
		}},
		{"a phone that comes from another Asterisk, with the challenge of that", func(w *world) {
			w.others()
			p := w.peer(office, "201", "a")
			for i := range 5 {
				p.nonce = fmt.Sprintf("%d/%032x", w.now.Unix(), i)
				p.dialogue("REGISTER", "right")
				w.pass(time.Minute)
			}
			w.want()
		}},
	})
}

// TestAttackers is about those who hide.
func TestAttackers(t *testing.T) {
	t.Parallel()
	run(t, []scenario{
		{"guesses that events tell", func(w *world) {
			w.others()
			p := w.peer(bad, "201", "crack")
			for i := range 50 {
				p.dialogue("REGISTER", fmt.Sprint("guess", i))
			}
			w.want()
			for _, ev := range w.events {
				if ev.Type == event.ChallengeResponseFailed && !ev.Proven {
					w.t.Fatal("its challenge was seen sent, and the guess is not proven")
				}
			}
		}},
		{"guesses with a byte outside UTF-8 in the Call-ID", func(w *world) {
			w.others()
			p := w.peer(bad, "201", "a\xffb")
			for i := range 5 {
				p.dialogue("REGISTER", fmt.Sprint("guess", i))
			}
			w.want(event.SilentGuess, event.SilentGuess, event.SilentGuess, event.SilentGuess, event.SilentGuess)
			w.wantProven(true)
			if s := w.findings[0].Event.Session; s != `a\xffb` {
				w.t.Errorf("session %q", s)
			}
			if pbx := w.findings[0].PBX; pbx != pbxName {
				w.t.Errorf("PBX %q", pbx)
			}
			seen := map[string]bool{}
			for _, f := range w.findings {
				seen[f.Event.Response] = true
			}
			if len(seen) != 5 {
				w.t.Errorf("five guesses have %d marks", len(seen))
			}
		}},
		{"a guess with such a byte is found at once", func(w *world) {
			w.others()
			w.peer(bad, "201", "a\xffb").dialogue("REGISTER", "guess")
			if w.pass(100 * time.Millisecond); len(w.findings) != 1 {
				w.t.Errorf("%d findings", len(w.findings))
			}
		}},
		{"such a byte in a decoy in front", func(w *world) {
			w.others()
			p := w.peer(bad, "201", "plain")
			p.dialogue("REGISTER", "guess0")
			for i := range 3 {
				text := p.request("REGISTER", p.nonce, fmt.Sprint("guess", i))
				p.send(strings.Replace(text, "Authorization:",
					"Authorization: Digest nonce=\"x\xff\", response=\"y\"\r\nAuthorization:", 1))
				w.pass(20 * time.Millisecond)
			}
			w.want(event.SilentGuess, event.SilentGuess, event.SilentGuess)
		}},
		{"told and hidden guesses in one Call-ID, each sent five times", func(w *world) {
			w.others()
			p := w.peer(bad, "201", "plain")
			for i := range 3 {
				text := p.request("REGISTER", p.nonce, fmt.Sprint("told", i))
				for range 5 {
					p.send(text)
					w.pass(10 * time.Millisecond)
				}
				text = p.request("REGISTER", p.nonce, fmt.Sprint("hidden\xff", i))
				for range 5 {
					p.send(text)
					w.pass(10 * time.Millisecond)
				}
			}
			w.want(event.SilentGuess, event.SilentGuess, event.SilentGuess)
		}},
		{"a guess that nobody told, for no reason that is known", func(w *world) {
			w.others()
			w.filtered = func(event.Type) bool { return true }
			w.peer(bad, "201", "plain").dialogue("REGISTER", "guess")
			w.filtered = nil
			w.others().want(event.SilentGuess)
		}},
		{"the same, after a guess whose event was there before its answer was seen", func(w *world) {
			w.eventDelay, w.sensorDelay = time.Millisecond, 10*time.Millisecond
			w.others()
			p := w.peer(bad, "201", "plain")
			p.dialogue("REGISTER", "told")
			w.pass(time.Second)
			w.filtered = func(event.Type) bool { return true }
			p.dialogue("REGISTER", "untold")
			w.filtered = nil
			w.others().want(event.SilentGuess)
		}},
		{"a login that nobody told, for no reason that is known", func(w *world) {
			w.others()
			w.filtered = func(t event.Type) bool { return t == event.SuccessfulAuth }
			w.peer(bad, "201", "plain").dialogue("REGISTER", "right")
			w.filtered = nil
			w.others().want(event.SilentLogin)
		}},
		{"the same, while Asterisk tells nothing at all", func(w *world) {
			w.others()
			w.filtered = func(event.Type) bool { return true }
			w.peer(bad, "201", "plain").dialogue("REGISTER", "right")
			w.peer(bad, "201", "plain too").dialogue("REGISTER", "guess")
			w.want(event.ChallengeResponseFailed)
		}},
		// Events are about the last Call-ID, answers repeat the first (deploy/e2e/sip_test.go).
		{"a guess behind two Call-IDs", func(w *world) {
			w.others()
			w.peer(bad, "201", "a\r\nCall-ID: \xff").dialogue("REGISTER", "guess")
			w.want(event.SilentGuess)
		}},
		{"a login behind two Call-IDs", func(w *world) {
			w.others()
			w.peer(bad, "201", "a\r\ni: \xff").dialogue("REGISTER", "right")
			w.want(event.SilentLogin)
		}},
		{"a search for accounts behind two Call-IDs", func(w *world) {
			w.others()
			p := w.peer(bad, "300", "a\r\ni: \xff")
			p.send(p.request("REGISTER", "", ""))
			w.pass(time.Second)
			w.want(event.MalformedRequest)
		}},
		{"over TCP, where the kernel sends the answer again and again to somebody who is banned", func(w *world) {
			w.transport = event.TCP
			w.others()
			for _, password := range []string{"guess", "right"} {
				p := w.peer(bad, "201", "\xff"+password)
				p.dialogue("REGISTER", password)
				for _, pause := range []time.Duration{time.Second, 50 * time.Second, 2 * time.Minute,
					12 * time.Minute} {
					w.pass(pause)
					w.see(p, false, p.answer)
				}
			}
			w.want(event.SilentGuess, event.SilentLogin)
		}},
		{"over TCP, where the sensor did not see the request", func(w *world) {
			w.transport = event.TCP
			w.others()
			p := w.peer(bad, "201", "\xff")
			p.send(p.request("REGISTER", "", ""))
			w.pass(time.Minute)
			w.see(p, false, strings.Replace(strings.Replace(p.answer, "SIP/2.0 401", "SIP/2.0 200", 1), "CSeq: 1 ",
				"CSeq: 2 ", 1))
			w.want(event.MalformedRequest, event.SilentLogin)
		}},
		{"a hidden guess with a second CSeq", func(w *world) {
			w.others()
			p := w.peer(bad, "201", "\xff\r\nCSeq: 7 REGISTER")
			p.dialogue("REGISTER", "guess")
			w.want(event.SilentGuess)
		}},
		{"a hidden guess with a branch that Asterisk writes otherwise", func(w *world) {
			w.others()
			p := w.peer(bad, "201", "\xff")
			p.send(p.request("REGISTER", "", ""))
			w.pass(20 * time.Millisecond)
			p.send(strings.Replace(p.request("REGISTER", p.nonce, "guess"), "branch=z9", "branch=z:9", 1))
			w.want(event.SilentGuess)
		}},
		{"a hidden login", func(w *world) {
			w.others()
			w.peer(bad, "201", "a\xff").dialogue("REGISTER", "right")
			w.pass(time.Second)
			w.want(event.SilentLogin).wantProven(true)
		}},
		{"a hidden login whose challenge was got in the open", func(w *world) {
			w.others()
			p := w.peer(bad, "201", "open")
			p.send(p.request("REGISTER", "", ""))
			w.pass(20 * time.Millisecond)
			p.callID = "hidden\xff"
			p.dialogue("REGISTER", "right")
			w.want(event.SilentLogin)
		}},
		{"a hidden call with a stolen password", func(w *world) {
			w.others()
			for _, to := range []string{"100", "999"} {
				p := w.peer(bad, "201", to+"\xff")
				p.to = to
				p.dialogue("INVITE", "right")
			}
			w.want(event.SilentLogin, event.SilentLogin)
		}},
		{"a hidden REGISTER with a To tag", func(w *world) {
			w.others()
			p := w.peer(bad, "201", "a\xff")
			p.toTag = "x"
			p.dialogue("REGISTER", "right")
			w.want(event.SilentLogin)
		}},
		{"a hidden login while the manager's session is down says nothing", func(w *world) {
			w.others()
			w.w.Blind(w.now, pbxName, true)
			w.peer(bad, "201", "a\xff").dialogue("REGISTER", "right")
			w.want()
		}},
		{"a hidden login whose request came in fragments", func(w *world) {
			w.others()
			p := w.peer(bad, "201", "a\xff")
			p.send(p.request("REGISTER", "", ""))
			w.pass(20 * time.Millisecond)
			text := p.request("REGISTER", p.nonce, "right")
			w.unseen = true
			p.send(text)
			w.unseen = false
			var m sip.Message
			answer := strings.Replace(text, "REGISTER sip:201@pbx.example SIP/2.0", "SIP/2.0 200 OK", 1)
			if err := sip.Parse([]byte(answer), &m); err != nil {
				w.t.Fatal(err)
			}
			w.w.Message(w.now, witness.Sight{SeenBy: event.ByTap, Asterisk: asteriskAddr, Remote: p.addr,
				Transport: event.UDP}, &m)
			w.want(event.SilentLogin, event.MalformedRequest)
		}},
		{"a hidden search for accounts", func(w *world) {
			w.others()
			for i := range 3 {
				p := w.peer(bad, fmt.Sprint(i), fmt.Sprint("\xff", i))
				p.send(p.request("REGISTER", "", ""))
				w.pass(time.Second)
			}
			w.want(event.MalformedRequest, event.MalformedRequest, event.MalformedRequest)
		}},
		{"guesses while the manager's session is down", func(w *world) {
			w.others()
			w.deaf = true
			w.w.Blind(w.now, pbxName, true)
			w.peer(bad, "201", "a").dialogue("REGISTER", "guess")
			w.want(event.ChallengeResponseFailed)
		}},
		{"guesses before the first event", func(w *world) {
			w.w.Blind(w.now, pbxName, true)
			w.deaf = true
			w.peer(bad, "201", "a").dialogue("REGISTER", "guess")
			w.want(event.ChallengeResponseFailed)
		}},
		{"an event that comes after its attempt was told is a repetition", func(w *world) {
			w.others()
			w.w.Blind(w.now, pbxName, true)
			w.eventDelay = 2 * time.Second
			w.peer(bad, "201", "a").dialogue("REGISTER", "guess")
			w.want(event.ChallengeResponseFailed)
			n := 0
			for _, m := range w.matches {
				if m.Repeated {
					n++
				}
			}
			if n != 1 {
				w.t.Errorf("%d repetitions", n)
			}
		}},
		{"passwords tried with challenges that nobody sent, until one is right", func(w *world) {
			w.others()
			p := w.peer(bad, "201", "a")
			for i := range 5 {
				p.send(p.request("REGISTER", fmt.Sprintf("%d/%032x", w.now.Unix(), i), fmt.Sprint("guess", i)))
				w.pass(time.Second)
			}
			p.send(p.request("REGISTER", "invented", "right"))
			w.want(event.SilentLogin).wantProven(false)
		}},
		{"the same in the open, after the tap lost packets, is nobody's fault", func(w *world) {
			w.others()
			p := w.peer(bad, "201", "a")
			for i := range 5 {
				p.send(p.request("REGISTER", fmt.Sprintf("%d/%032x", w.now.Unix(), i), fmt.Sprint("guess", i)))
				w.pass(time.Second)
				w.w.PacketsLost(w.now)
			}
			p.send(p.request("REGISTER", fmt.Sprintf("%d/%032x", w.now.Unix(), 99), "right"))
			w.want()
		}},
		{"a guest searches for numbers", func(w *world) {
			w.others()
			w.noAuth = true
			for i := range 5 {
				p := w.peer(bad, "guest", fmt.Sprint("call", i))
				p.to = fmt.Sprint("00", i)
				text := p.request("INVITE", "", "")
				p.send(text)
				p.send(text)
				w.pass(time.Second)
			}
			w.want(event.Probing, event.Probing, event.Probing, event.Probing, event.Probing)
			if detail := w.findings[0].Event.Detail; detail != "000" {
				w.t.Errorf("detail %q", detail)
			}
		}},
		{"OPTIONS for many", func(w *world) {
			w.others()
			w.noAuth = true
			for i := range 4 {
				p := w.peer(bad, "scan", fmt.Sprint("options", i))
				p.to = fmt.Sprint(100 + i)
				p.send(p.request("OPTIONS", "", ""))
				w.pass(time.Second)
			}
			w.want(event.Probing)
		}},
		{"what Asterisk cannot read", func(w *world) {
			w.others()
			p := w.peer(bad, "201", "a")
			text := strings.Replace(p.request("REGISTER", "", ""), "CSeq: 1 REGISTER\r\n", "", 1)
			p.send(text)
			p.send(text)
			w.want(event.MalformedRequest)
		}},
		{"an account that is told not to exist", func(w *world) { // chan_sip with alwaysauthreject=no
			w.others()
			p := w.peer(bad, "300", "a")
			text := p.request("REGISTER", "", "")
			w.filtered = func(event.Type) bool { return true }
			w.see(p, true, text)
			w.see(p, false, strings.Replace(text, "REGISTER sip:300@pbx.example SIP/2.0", "SIP/2.0 404 Not Found", 1))
			w.filtered = nil
			w.others().want(event.InvalidAccountID)
		}},
	})
}

func TestSenderOfACallID(t *testing.T) {
	w := newWorld(t, witness.Config{})
	p := w.peer(bad, "201", "mine")
	p.dialogue("REGISTER", "guess")
	if a, ok := w.w.Sender("mine"); !ok || a.AddrPort != p.addr || a.Transport != event.UDP {
		t.Errorf("%v %v", a, ok)
	}
	w.peer(office, "201", "mine").dialogue("REGISTER", "guess")
	if a, ok := w.w.Sender("mine"); ok {
		t.Errorf("two sent it, and one is named: %v", a)
	}
	if _, ok := w.w.Sender("nobody's"); ok {
		t.Error("nobody sent that")
	}
}

func TestSignature(t *testing.T) {
	w := newWorld(t, witness.Config{Signature: func(m *sip.Message) (string, bool) {
		return "friendly", strings.Contains(string(m.UserAgent), "friendly")
	}})
	for i := range 5 {
		p := w.peer(bad, "100", fmt.Sprint(i))
		p.header = "User-Agent: friendly-scanner"
		p.send(p.request("OPTIONS", "", ""))
		w.pass(time.Second)
	}
	w.want(event.Scanner)
	if ev := w.findings[0].Event; ev.Detail != "friendly" || ev.Account != "100" || ev.Session != "0" {
		t.Errorf("%+v", ev)
	}
}

func TestForgedPacketsAreNotProven(t *testing.T) {
	w := newWorld(t, witness.Config{}).others()
	victim, own := w.peer(office, "201", "own"), w.peer(bad, "201", "own")
	victim.dialogue("REGISTER", "right")
	own.send(own.request("REGISTER", "", ""))
	w.pass(time.Second)
	for _, nonce := range []string{own.nonce, "invented", fmt.Sprintf("%d/%032x", w.now.Unix(), 1)} {
		forged := w.peer(office, "201", "forged")
		forged.send(forged.request("REGISTER", nonce, "guess"))
	}
	hidden := w.peer(office, "201", "forged\xff")
	hidden.send(hidden.request("REGISTER", own.nonce, "guess"))
	w.want(event.SilentGuess).wantProven(false)
	for _, ev := range w.events {
		if ev.Type == event.ChallengeResponseFailed && ev.Proven {
			t.Errorf("forged and proven: %+v", ev)
		}
	}
}
