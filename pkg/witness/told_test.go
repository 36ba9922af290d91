package witness_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/sip"
	"github.com/ringwall/ringwall/pkg/witness"
)

// TestChanSIP is about events whose address is the one of a Via header.
func TestChanSIP(t *testing.T) {
	t.Parallel()
	message := func(w *world, from netip.AddrPort, toAsterisk bool, text string) {
		var m sip.Message
		if err := sip.Parse([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
		w.w.Message(w.now, witness.Sight{
			SeenBy: event.ByTap, ToAsterisk: toAsterisk, Asterisk: asteriskAddr, Remote: from, Transport: event.UDP,
		}, &m)
	}
	told := func(w *world, from string, typ event.Type, challenge, response string) (event.Event, witness.Match) {
		ev := event.Event{
			Type: typ, Service: event.SIP, Session: "0x7f00", Challenge: challenge, Response: response,
			Remote: event.Address{AddrPort: netip.MustParseAddrPort(from + ":5060"), Transport: event.UDP},
		}
		m := w.w.Told(w.now, pbxName, &ev)
		return ev, m
	}
	// guesses has a challenge sent to a peer, which answers it.
	guesses := func(w *world, p *peer) {
		told(w, bad, event.ChallengeSent, "0", "")
		text := p.request("REGISTER", "", "")
		message(w, p.addr, true, text)
		answer := strings.Replace(text, "REGISTER sip:201@pbx.example SIP/2.0", "SIP/2.0 401 Unauthorized", 1)
		answer = strings.Replace(answer, "Content-Length", "WWW-Authenticate: Digest realm=\"asterisk\", "+
			"nonce=\"2cf2cae8\"\r\nContent-Length", 1)
		message(w, p.addr, false, answer)
		message(w, p.addr, true, p.request("REGISTER", "2cf2cae8", "guess"))
	}
	for name, c := range map[string]struct {
		told   string // the address that the event names
		proven bool
		sender string
	}{
		"the true sender":           {bad, true, ""},
		"another one, by maddr":     {"8.8.8.8", false, bad},
		"a phone's own, behind NAT": {"192.168.1.5", false, ""},
		"a carrier's, behind NAT":   {"100.64.1.5", false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, witness.Config{})
			guesses(w, w.peer(bad, "201", "a"))
			ev, m := told(w, c.told, event.InvalidPassword, "2cf2cae8", "guess")
			if !m.Seen || ev.Proven != c.proven {
				t.Errorf("%+v, proven: %v", m, ev.Proven)
			}
			if m.IsSenderProven != (c.sender != "") {
				t.Errorf("the sender is proven: %v", m.IsSenderProven)
			}
			if got := m.Sender.AddrPort; c.sender == "" && got.IsValid() || c.sender != "" && got.Addr().String() != c.sender {
				t.Errorf("sender %v", got)
			}
			ev, _ = told(w, c.told, event.ChallengeSent, "2cf2cae8", "")
			if ev.Proven {
				t.Error("that a challenge was sent somewhere says nothing of who asked for it")
			}
			w.want()
		})
	}
}

// chan_sip compares an answer to a challenge of before, too, says whether it was right by stale, and tells nobody.
func TestChanSIPOldChallenge(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		nonce, stale string
		typ          event.Type // of the event that comes for it
		loss         bool
		want         []event.Type
	}{
		"told":     {nonce: "n1", typ: event.InvalidPassword},
		"not told": {nonce: "n1", typ: event.ChallengeSent, want: []event.Type{event.ChallengeResponseFailed}},
		"invented": {nonce: "x", typ: event.ChallengeSent, want: []event.Type{event.ChallengeResponseFailed}},
		"right":    {nonce: "n1", stale: "true", typ: event.ChallengeSent},
		"an event is lost": {nonce: "n1", typ: event.ChallengeSent, loss: true,
			want: []event.Type{event.ChallengeResponseFailed}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, witness.Config{})
			p := w.peer(bad, "201", "a\xff")
			exchange := func(nonce, password, next, stale string, typ event.Type) {
				text := p.request("REGISTER", nonce, password)
				w.see(p, true, text)
				answer := strings.Replace(text, "REGISTER sip:201@pbx.example SIP/2.0", "SIP/2.0 401 Unauthorized", 1)
				answer = strings.Replace(answer, "Content-Length", "WWW-Authenticate: Digest realm=\"asterisk\", "+
					"nonce=\""+next+"\""+stale+"\r\nContent-Length", 1)
				w.see(p, false, answer)
				w.pass(50 * time.Millisecond)
				ev := event.Event{
					Type: typ, Service: event.SIP, Session: "0x7f00", Challenge: next,
					Remote: event.Address{AddrPort: p.addr, Transport: event.UDP},
				}
				if typ == event.InvalidPassword {
					ev.Challenge, ev.Response = nonce, password
				}
				w.w.Told(w.now, pbxName, &ev)
				w.pass(100 * time.Millisecond)
			}
			exchange("", "", "n1", "", event.ChallengeSent)
			if c.loss {
				w.w.FramesLost(w.now, pbxName)
			}
			stale := ""
			if c.stale != "" {
				stale = ", stale=" + c.stale
			}
			exchange(c.nonce, "guess", "n2", stale, c.typ)
			w.want(c.want...)
		})
	}
}

func TestTellsWhatIsSentAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, witness.Config{}).others()
	p := w.peer(bad, "201", "a")
	p.dialogue("REGISTER", "guess")
	p.send(p.last)
	w.pass(time.Second)
	p.dialogue("REGISTER", "another")
	w.pass(time.Second)
	var copies []bool
	for i, ev := range w.events {
		if ev.Type == event.ChallengeResponseFailed {
			copies = append(copies, w.matches[i].Copy)
		}
	}
	if fmt.Sprint(copies) != "[false true false]" {
		t.Errorf("copies: %v", copies)
	}
	w.want()
}

// TestToldInOtherWords has Asterisk tell an answer otherwise than it came: one event pays for one attempt.
func TestToldInOtherWords(t *testing.T) {
	t.Parallel()
	for _, typ := range []event.Type{event.ChallengeResponseFailed, event.ChallengeSent} {
		w := newWorld(t, witness.Config{}).others()
		p := w.peer(bad, "201", "a")
		w.filtered = func(t event.Type) bool { return t == event.ChallengeResponseFailed }
		p.dialogue("REGISTER", "one")
		ev := event.Event{
			Type: typ, Service: event.PJSIP, Session: "a", Challenge: "x", Response: "y",
			Remote: event.Address{AddrPort: p.addr, Transport: event.UDP},
		}
		w.w.Told(w.now, pbxName, &ev)
		w.pass(time.Second)
		p.dialogue("REGISTER", "two")
		w.others().want(event.SilentGuess)
	}
}
