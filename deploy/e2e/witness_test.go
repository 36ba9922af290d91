package e2e

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/lab"
	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/nflog"
	"github.com/ringwall/ringwall/pkg/packet"
	"github.com/ringwall/ringwall/pkg/witness"
)

// senses are what Asterisk's events tell and the tap sees, and what is made of both.
type senses struct {
	t *testing.T
	l *lab.Lab

	mu       sync.Mutex
	witness  *witness.Witness
	events   []event.Event
	findings []witness.Finding
}

// useSenses has both look at a lab.
func useSenses(t *testing.T, l *lab.Lab) *senses {
	t.Helper()
	const group = 7
	s := &senses{t: t, l: l, witness: witness.New(witness.Config{})}
	table, err := firewall.Open(firewall.Config{
		UDPPorts: []uint16{5060, 4569}, TCPPorts: []uint16{5060, 5061, 8088}, NetNS: l.NetNS(lab.Server),
		Tap: firewall.Tap{Group: group, ExceptTCPPorts: []uint16{5061}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	if _, err := table.EnsureTable(); err != nil {
		t.Fatal(err)
	}
	if err := table.TapError(); err != nil {
		t.Skip("this kernel copies no packets: ", err)
	}
	reader, err := nflog.Open(nflog.Config{Group: group, NetNS: l.NetNS(lab.Server)})
	if err != nil {
		t.Fatal(err)
	}
	session := l.DialAMI(t, lab.Ringwall)
	ended, stop := make(chan error, 1), make(chan struct{})
	go func() {
		var p packet.Packet
		ended <- reader.Run(func(k *nflog.Packet) {
			if packet.Parse(k.Payload, &p) != nil {
				return
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.witness.Packet(time.Now(), string(k.Prefix) == firewall.TapRequest, &p)
		})
	}()
	told := make(chan struct{})
	go func() {
		defer close(told)
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			s.mu.Lock()
			for _, f := range session.DrainFrames() {
				var ev event.Event
				if event.Decode(string(f), &ev) == nil {
					s.witness.Told(time.Now(), "lab", &ev)
					s.events = append(s.events, ev)
				}
			}
			s.findings = s.witness.Due(time.Now(), s.findings)
			s.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-told
		_ = reader.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

// take waits for events and findings, each of a type so many times, and forgets what was told until then.
func (s *senses) take(told, want map[event.Type]int) (findings []witness.Finding, events []event.Event) {
	s.t.Helper()
	got, heard := map[event.Type]int{}, map[event.Type]int{}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		s.mu.Lock()
		clear(got)
		for _, f := range s.findings {
			got[f.Event.Type]++
		}
		clear(heard)
		for _, ev := range s.events {
			heard[ev.Type]++
		}
		missing := false
		for typ, n := range told {
			missing = missing || heard[typ] < n
		}
		if !missing && maps.Equal(got, want) && s.witness.Stats().Waiting == 0 || time.Now().After(end) {
			break
		}
		s.mu.Unlock()
	}
	findings, events = s.findings, s.events
	s.findings, s.events = nil, nil
	stats := s.witness.Stats()
	s.mu.Unlock()
	if !maps.Equal(got, want) {
		s.t.Errorf("found %v, want %v; told %v, want %v; %+v", got, want, heard, told, stats)
		for _, f := range findings {
			s.t.Logf("  %+v", f)
		}
		for _, ev := range events {
			s.t.Logf("  event %+v", ev)
		}
	}
	return findings, events
}

// attempts sends a request, and one for each password, all with one Call-ID.
func attempts(t *testing.T, a *lab.Agent, r lab.Request, passwords ...string) (code int) {
	t.Helper()
	r.CSeq = 1
	first, err := a.Exchange(r)
	if err != nil {
		t.Fatal(err)
	}
	challenge := first.Challenge()
	if challenge == nil {
		t.Fatalf("%d without a challenge", first.Code)
	}
	for _, p := range passwords {
		r.CSeq++
		method := r.Method
		if method == "" {
			method = "REGISTER"
		}
		r.Credentials = challenge.Answer(r.User, p, method, r.URI(a.Server()))
		answer, err := a.Exchange(r)
		if err != nil {
			t.Fatal(err)
		}
		code = answer.Code
	}
	return code
}

// What Asterisk tells nobody is found where a tap sees it, and what it tells is not found a second time.
func TestWhatAsteriskTellsNobody(t *testing.T) {
	l := lab.Start(t, lab.Options{Version: 22, HTTPAMI: true, Edit: forTheWire, Files: map[string]string{
		"extensions_ringwall.conf": example(t, "extensions_ringwall.conf"),
		"ari.conf":                 "[general]\nenabled = yes\n[known]\ntype = user\npassword = right\n",
		"websocket_client.conf":    "",
		"hep.conf":                 "",
		"iax.conf":                 "[general]\nbindport = 4569\n",
	}})
	s := useSenses(t, l)
	none := map[event.Type]int{}
	for _, transport := range []string{"udp", "tcp", "ws", "tls", "wss"} {
		o := lab.AgentOptions{Transport: transport}
		phone, attacker := l.Agent(t, lab.Phone, o), l.Agent(t, lab.Attacker, o)
		seen := transport != "tls" && transport != "wss"
		only := func(types map[event.Type]int) map[event.Type]int {
			if !seen {
				return none
			}
			return types
		}
		t.Run(transport, func(t *testing.T) {
			s.t = t
			for range 3 {
				if code, err := phone.Register("6001", lab.Password("6001")); err != nil || code != 200 {
					t.Fatal(code, err)
				}
			}
			if code, err := phone.Register("6002", "old"); err != nil || code != 401 {
				t.Fatal(code, err)
			}
			if _, err := phone.Invite("6001", lab.Password("6001"), "4711"); err != nil {
				t.Fatal(err)
			}
			s.take(map[event.Type]int{event.SuccessfulAuth: 4, event.ChallengeResponseFailed: 1}, none)

			if _, err := attacker.Guess("6001", "a", "b", "c"); err != nil {
				t.Fatal(err)
			}
			_, events := s.take(map[event.Type]int{event.ChallengeResponseFailed: 3}, none)
			for _, ev := range events {
				if ev.Type == event.ChallengeResponseFailed && ev.Proven != seen {
					t.Errorf("proven: %v: %+v", ev.Proven, ev)
				}
			}

			attempts(t, attacker, lab.Request{User: "6001", CallID: transport + "\xff1"}, "a", "b", "c")
			found, _ := s.take(none, only(map[event.Type]int{event.SilentGuess: 3}))
			for _, f := range found {
				if !f.Event.Proven || f.Event.Remote.AddrPort != attacker.Local() || f.PBX != "lab" || f.Event.Account != "6001" {
					t.Errorf("%+v", f)
				}
			}
			for _, method := range []string{"REGISTER", "INVITE"} {
				r := lab.Request{Method: method, User: "6001", To: "4711", CallID: transport + method + "\xff2"}
				if method == "REGISTER" {
					r.To = ""
				}
				attempts(t, attacker, r, lab.Password("6001"))
				s.take(none, only(map[event.Type]int{event.SilentLogin: 1}))
			}
		})
	}
	s.t = t
	attacker := l.Agent(t, lab.Attacker, lab.AgentOptions{})
	for i := range 3 {
		if r, err := attacker.Exchange(lab.Request{Method: "INVITE", User: "guest", To: fmt.Sprint("0097259", i)}); err != nil ||
			r.Code != 404 {
			t.Fatal(r, err)
		}
	}
	s.take(none, map[event.Type]int{event.Probing: 3})
	for _, breaks := range []string{"CSeq: 1 REGISTER\r\n", " SIP/2.0", "From"} {
		b := lab.Request{User: "6001", CallID: breaks[:3]}.Bytes("udp", attacker.Local(), attacker.Server())
		if err := attacker.Send([]byte(strings.Replace(string(b), breaks, "", 1))); err != nil {
			t.Fatal(err)
		}
	}
	s.take(none, map[event.Type]int{event.MalformedRequest: 3})
}
