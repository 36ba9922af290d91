package e2e

import (
	"errors"
	"flag"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/lab"
	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/hep"
)

var update = flag.Bool("update", false, "write what Asterisk sent into the testdata of pkg; read the difference")

// What Asterisk really sends to those who listen beside its security events: with the examples' configuration, the
// decoders of pkg read it. With -update their recordings are made anew.
func TestTheWire(t *testing.T) {
	l := lab.Start(t, lab.Options{Version: 22, HTTPAMI: true, Edit: forTheWire, Files: map[string]string{
		"hep.conf":                 example(t, "hep.conf"),
		"extensions_ringwall.conf": example(t, "extensions_ringwall.conf"),
		"ari.conf":                 "[general]\nenabled = yes\n[known]\ntype = user\npassword = right\n",
		"websocket_client.conf":    "",
		"iax.conf": "[general]\nbindport = 4569\n" +
			"[known]\ntype = friend\nsecret = right\nhost = dynamic\ncontext = from-internal\n" +
			"[guest]\ntype = user\ncontext = from-outside\n",
	}})
	t.Run("dialplan", func(t *testing.T) { dialplanReports(t, l) })
	t.Run("HEP", func(t *testing.T) { hepPackets(t, l) })
	t.Run("IAX2", func(t *testing.T) { iaxFrames(t, l) })
	t.Run("HTTP", func(t *testing.T) { httpHeads(t, l) })
}

func example(t *testing.T, name string) string {
	text, err := os.ReadFile("../../examples/asterisk/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// forTheWire has Asterisk take calls of guests, and adds the users that read what it says.
func forTheWire(file, content string) string {
	switch file {
	case "modules.conf":
		for _, module := range []string{"app_userevent", "func_channel", "res_pjsip_endpoint_identifier_anonymous", "res_hep",
			"res_hep_pjsip", "chan_iax2", "res_websocket_client", "res_stasis", "res_ari", "res_ari_model",
			"res_ari_asterisk"} {
			content += "load = " + module + ".so\n"
		}
	case "pjsip.conf":
		content += "\n[anonymous]\ntype = endpoint\ncontext = from-outside\ndisallow = all\nallow = ulaw\n"
	case "extensions.conf":
		content += "\n[from-outside]\nexten => 100,1,Answer()\n same => n,Hangup()\n" +
			"include => ringwall-honeypot-number\ninclude => ringwall-wrong-number\n" +
			"#include extensions_ringwall.conf\n"
	case "manager.conf":
		content += "\n[" + string(reader) + "]\nsecret = " + reader.Secret() + "\nread = security,user\nwrite = user\n"
	}
	return content
}

// reader is a manager user with the classes that the examples want.
const reader lab.User = "reader"

// patience is how long an answer is waited for, on a machine that has much else to do.
const patience = time.Minute

// writeRecording keeps what came by wire, where that is wanted.
func writeRecording(t *testing.T, path string, b []byte) {
	t.Helper()
	if !*update {
		return
	}
	path = filepath.Join("../../pkg", path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func dialplanReports(t *testing.T, l *lab.Lab) {
	session := l.DialAMI(t, reader)
	take := func() string {
		frame, err := session.TakeFrame(func(f lab.Frame) bool { return f.Event() == "UserEvent" })
		if err != nil {
			t.Fatal(err)
		}
		return string(frame)
	}
	for _, o := range []lab.AgentOptions{{Transport: "udp"}, {Transport: "tcp", IPv6: true}, {Transport: "tls"},
		{Transport: "wss"}} {
		o.Timeout = patience
		guest := l.Agent(t, lab.Attacker, o)
		for number, want := range map[string]event.Report{"00972599": event.WrongNumber, "+97259": event.WrongNumber,
			"nobody": event.WrongNumber, "9999": event.HoneypotNumber, "901197259": event.HoneypotNumber} {
			// No security event tells of the last one: its Call-ID is no UTF-8.
			r, err := guest.Exchange(lab.Request{Method: "INVITE", User: "guest", To: number,
				CallID: o.Transport + number + "\xff"})
			if err != nil || r.Code != 404 {
				t.Fatalf("%s: %v, %v", number, r, err)
			}
			frame := take()
			var ev event.Event
			if err := event.Decode(frame, &ev); err != nil || ev.Type != event.DialplanReport || ev.Report != want ||
				ev.Detail != number || ev.Service != event.PJSIP || ev.Remote.AddrPort != guest.Local() {
				t.Errorf("%s of %s: %+v, %v, of %q", number, guest.Local(), ev, err, frame)
			}
			name := o.Transport + "-" + want.String() + "-" + strings.TrimPrefix(number, "+") + ".ami"
			writeRecording(t, "asterisk/event/testdata/captures/dialplan/"+name, []byte(frame+"\r\n\r\n"))
		}
	}
	guest := l.Agent(t, lab.Attacker, lab.AgentOptions{Transport: "tcp", Timeout: patience})
	if r, err := guest.Exchange(lab.Request{Method: "INVITE", User: "guest", To: "100"}); err != nil || r.Code == 404 {
		t.Errorf("what guests may dial: %v, %v", r, err)
	}
	for name, c := range map[string]struct {
		from, to string // users of URIs, whose escapes pjproject takes back
		frames   int
	}{
		"number": {"guest", "0%0d%0aUserEvent%3a%20Ringwall%0d%0aAddress%3a%208.8.8.8%3a5%0d%0aReason%3a%20wrong-number", 1},
		"caller": {"a%0d%0aAddress%3a%208.8.8.8%3a5", "00972", 1},
		"cut": {"guest",
			"0%0d%0aUserEvent%3a%20Ringwall%0d%0aAddress%3a%208.8.8.8%3a5%0d%0aReason%3a%20wrong-number%0d%0a%0d%0a", 2},
	} {
		session.DrainFrames()
		if _, err := guest.Exchange(lab.Request{Method: "INVITE", User: c.from, To: c.to}); err != nil {
			t.Fatal(err)
		}
		var all string
		for range c.frames {
			frame, err := session.TakeFrame(func(f lab.Frame) bool { return strings.Contains(string(f), "Ringwall") })
			if err != nil {
				t.Fatal(err)
			}
			var ev event.Event
			if err := event.Decode(string(frame), &ev); !isTampering(err) {
				t.Errorf("%s: %+v, %v, of %q", name, ev, err, frame)
			}
			all += string(frame) + "\r\n\r\n"
		}
		writeRecording(t, "asterisk/event/testdata/captures/dialplan/forged-"+name+".ami", []byte(all))
	}
	if _, err := session.Action("UserEvent", "UserEvent", "Ringwall", "Address", "8.8.8.8", "Reason",
		"wrong-number"); err != nil {
		t.Fatal(err)
	}
	frame, ev := take(), event.Event{}
	if err := event.Decode(frame, &ev); !isTampering(err) {
		t.Errorf("the manager's action: %+v, %v", ev, err)
	}
	writeRecording(t, "asterisk/event/testdata/captures/dialplan/forged-action.ami", []byte(frame+"\r\n\r\n"))
}

func isTampering(err error) bool {
	_, ok := errors.AsType[*event.TamperError](err)
	return ok
}

// sight is one packet, as a listener hands it on.
type sight struct {
	source, destination netip.AddrPort
	protocol            hep.Protocol
	messages            []string
}

func hepPackets(t *testing.T, l *lab.Lab) {
	var (
		listener *hep.Listener
		homer    *net.UDPConn
	)
	err := l.Do(lab.Server, func() (err error) {
		if homer, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			return err
		}
		listener, err = hep.Open(hep.Config{Listen: netip.MustParseAddrPort("127.0.0.1:9061"),
			Password: "a-long-random-password", Forward: homer.LocalAddr().(*net.UDPAddr).AddrPort()})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	seen, ended := make(chan sight, 100), make(chan error)
	go func() {
		ended <- listener.Run(func(p *hep.Packet) {
			s := sight{source: p.Source, destination: p.Destination, protocol: p.Protocol}
			for m := range p.Messages() {
				s.messages = append(s.messages, string(m))
			}
			seen <- s
		})
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		_ = homer.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	buffer := make([]byte, 1<<16)
	// next is the next packet about what an agent sends and gets, kept as Homer has it. Calls of others may still be
	// answered again.
	next := func(of *lab.Agent, name string) sight {
		t.Helper()
		for {
			s := <-seen
			n, err := homer.Read(buffer)
			if err != nil {
				t.Fatal(err)
			}
			if s.source == of.Local() || s.destination == of.Local() {
				writeRecording(t, "hep/testdata/"+name+".hep", buffer[:n])
				return s
			}
		}
	}
	for _, o := range []lab.AgentOptions{{Transport: "udp"}, {Transport: "tcp"}, {Transport: "tcp", IPv6: true},
		{Transport: "tls"}, {Transport: "ws"}, {Transport: "wss"}} {
		o.Timeout = patience
		name, protocol := o.Transport, hep.TCP
		if o.IPv6 {
			name += "6"
		}
		if o.Transport == "udp" {
			protocol = hep.UDP
		}
		scanner := l.Agent(t, lab.Attacker, o)
		if r, err := scanner.Exchange(lab.Request{Method: "OPTIONS", User: "100", CallID: "no\xfftext"}); err != nil ||
			r.Code != 200 {
			t.Fatalf("%s: %v, %v", name, r, err)
		}
		request, answer := next(scanner, name+"-request"), next(scanner, name+"-answer")
		if request.source != scanner.Local() || answer.destination != scanner.Local() ||
			request.destination.Port() != answer.source.Port() || request.protocol != protocol {
			t.Errorf("%s: %+v, answered by %+v", name, request, answer)
		}
		if len(request.messages) != 1 || !strings.HasPrefix(request.messages[0], "OPTIONS ") ||
			!strings.Contains(request.messages[0], "no\xfftext") ||
			len(answer.messages) != 1 || !strings.HasPrefix(answer.messages[0], "SIP/2.0 200 ") {
			t.Errorf("%s: %q, answered by %q", name, request.messages, answer.messages)
		}
	}
	// Three in one segment: Asterisk sends what it read three times, each with another Call-ID.
	scanner := l.Agent(t, lab.Attacker, lab.AgentOptions{Transport: "tcp", Timeout: patience})
	if _, err := scanner.Exchange(lab.Request{Method: "OPTIONS", User: "first"}); err != nil {
		t.Fatal(err)
	}
	next(scanner, "tcp-request")
	next(scanner, "tcp-answer")
	to := l.SIPAddress(false)
	var all []byte
	for _, r := range []lab.Request{{User: "one", CallID: "pipe-1"},
		{User: "two", CallID: "pipe-2", Body: "Call-ID: pipe-1\r\n", Header: []string{"Content-Type: text/plain"}},
		{User: "three", CallID: "pipe-1", CSeq: 7}} {
		r.Method = "OPTIONS"
		all = append(all, r.Bytes("tcp", scanner.Local(), to)...)
	}
	if err := scanner.Send(all); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one three", "two", "one three"} {
		var users []string
		for users == nil { // passing over Asterisk's answers
			s := next(scanner, "tcp-pipelined")
			for _, m := range s.messages {
				if rest, ok := strings.CutPrefix(m, "OPTIONS sip:"); ok {
					user, _, _ := strings.Cut(rest, "@")
					users = append(users, user)
				}
			}
		}
		if got := strings.Join(users, " "); got != want {
			t.Errorf("the messages of %q, want of %q", got, want)
		}
	}
	if s := listener.Stats(); s.Lost+s.Malformed+s.Rejected != 0 || s.Forwarded != s.Received {
		t.Errorf("%+v", s)
	}
}
