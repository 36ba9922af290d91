package witness_test

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/packet"
	"github.com/ringwall/ringwall/pkg/sip"
	"github.com/ringwall/ringwall/pkg/witness"
)

// packets has the tap see what goes between two addresses.
type packets struct {
	w                *world
	remote, asterisk netip.AddrPort
	protocol         packet.Protocol
	sent, answered   uint32
}

func (p *packets) to(payload string) {
	p.packet(true, payload, p.sent)
	p.sent += uint32(len(payload))
}

func (p *packets) from(payload string) {
	p.packet(false, payload, p.answered)
	p.answered += uint32(len(payload))
}

func (p *packets) packet(toAsterisk bool, payload string, sequence uint32) {
	k := packet.Packet{
		Source: p.asterisk, Destination: p.remote, Protocol: p.protocol, Payload: []byte(payload), PayloadSize: len(payload),
		Sequence: sequence, Acknowledged: p.sent, Flags: packet.Acknowledge,
	}
	if toAsterisk {
		k.Source, k.Destination, k.Acknowledged = k.Destination, k.Source, p.answered
	}
	p.w.now = p.w.now.Add(time.Millisecond)
	p.w.w.Packet(p.w.now, toAsterisk, &k)
}

// open has the tap see the kernel's answer to an opening.
func (p *packets) open() *packets {
	p.w.w.Packet(p.w.now, false, &packet.Packet{Source: p.asterisk, Destination: p.remote, Protocol: p.protocol,
		Sequence: p.answered - 1, Acknowledged: p.sent, Flags: packet.Syn | packet.Acknowledge})
	return p
}

func (w *world) packets(protocol packet.Protocol, port uint16) *packets {
	return &packets{
		w: w, protocol: protocol, remote: netip.MustParseAddrPort(bad + ":4000"),
		asterisk: netip.AddrPortFrom(asteriskAddr.Addr(), port), sent: 1, answered: 0x12345678,
	}
}

// A segment of TCP that comes without a connection has an address that anybody may have written into it.
func TestForgedSegmentsProveNothing(t *testing.T) {
	t.Parallel()
	mark := func(m *sip.Message) (string, bool) { return "mark", string(m.UserAgent) == "friendly-scanner" }
	const options = "OPTIONS sip:100@pbx SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:1@h>;tag=1\r\n" +
		"To: <sip:100@pbx>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nUser-Agent: friendly-scanner\r\nContent-Length: 0\r\n\r\n"
	for name, c := range map[string]struct {
		before func(*packets)
		want   event.Transport
	}{
		"no connection":   {func(*packets) {}, event.NoTransport},
		"a connection":    {func(p *packets) { p.open() }, event.TCP},
		"a forged number": {func(p *packets) { p.open(); p.answered += 3 }, event.NoTransport},
		"a number before": {func(p *packets) { p.open(); p.answered -= 2 }, event.TCP}, // within what is on its way
		"one long before": {func(p *packets) { p.open(); p.answered -= 10_000 }, event.NoTransport},
		"another's connection": {func(p *packets) {
			p.open()
			p.remote = netip.AddrPortFrom(p.remote.Addr(), 4001)
		}, event.NoTransport},
		"the port anew": {func(p *packets) {
			p.open()
			p.answered += 1 << 31
			p.open()
		}, event.TCP},
		"an answer that was seen": {func(p *packets) { p.from("SIP/2.0 200 OK\r\n\r\n") }, event.TCP},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, witness.Config{Signature: mark})
			p := w.packets(packet.TCP, 5060)
			c.before(p)
			p.to(options)
			w.want(event.Scanner)
			if ev := w.findings[0].Event; ev.Remote.Transport != c.want || ev.Remote.AddrPort != p.remote {
				t.Errorf("%+v", ev)
			}
		})
	}
}

// Nobody's opened connections push out those that were used.
func TestForgedOpeningsLeaveConnections(t *testing.T) {
	t.Parallel()
	mark := func(m *sip.Message) (string, bool) { return "mark", true }
	w := newWorld(t, witness.Config{Signature: mark})
	p := w.packets(packet.TCP, 5060).open()
	p.to("\r\n\r\n")
	for i := range 20_000 {
		other := w.packets(packet.TCP, 5060)
		other.remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), 1)
		other.open()
	}
	p.to("OPTIONS sip:100@pbx SIP/2.0\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n")
	w.pass(time.Second)
	if len(w.findings) == 0 || w.findings[0].Event.Remote.Transport != event.TCP {
		t.Errorf("%+v", w.findings)
	}
}

func TestSegmentsCutAnywhere(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 7, 64, 333, 5000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, witness.Config{})
			w.transport, w.segments = event.TCP, size
			w.others()
			w.peer(office, "202", "phone").dialogue("REGISTER", "right")
			w.peer(office, "203", "old").dialogue("REGISTER", "old")
			p := w.peer(bad, "201", "a\xff")
			p.dialogue("REGISTER", "guess")
			p.dialogue("REGISTER", "right")
			w.want(event.SilentGuess, event.SilentLogin)
		})
	}
}

func TestKeepalivesAndGarbage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, witness.Config{})
	p := w.packets(packet.UDP, 5060)
	stun := "\x00\x01\x00\x00\x21\x12\xa4\x42" + strings.Repeat("x", 12)
	for _, payload := range []string{"", "\r\n\r\n", "\x00", "\x00\x00\x00\x00", stun, "jaK", "hello", strings.Repeat("\x00", 100),
		"\x80\x00" + strings.Repeat("voice", 30), "\x16\x03\x01\x02\x00\x01" + strings.Repeat("a ClientHello", 20),
		"\x16\xfe\xff" + strings.Repeat("DTLS", 20), strings.Repeat("\x80binary", 20)} {
		p.to(payload)
	}
	w.want()
	for range 50 {
		p.to("GET / HTTP/1.0\nsomething that is not SIP at all")
	}
	w.want(event.MalformedRequest)
	w.pass(time.Minute)
	p.to("EHLO somebody who looks for a server of another kind")
	w.want(event.MalformedRequest, event.MalformedRequest)
}

// Where Asterisk's SIP is, bytes that are of nothing a customer's device speaks are told of, once a minute.
func TestBinaryGarbage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, witness.Config{})
	p, rtp := w.packets(packet.UDP, asteriskAddr.Port()), w.packets(packet.UDP, 12000)
	garbage := strings.Repeat("\x01\x9c", 300)
	p.to(garbage) // nobody knows yet whether Asterisk is there
	w.want()
	w.others()
	rtp.to(garbage)
	long := strings.Repeat("\x9c\x00\xff", 40)
	for name, payload := range map[string]string{
		"line ends": "\r\n\r\n", "a zero byte": "\x00", "zero bytes": strings.Repeat("\x00", 100), "short": "jaK\x01\x9c",
		"STUN":            "\x00\x01\x00\x00\x21\x12\xa4\x42" + strings.Repeat("x", 12),
		"STUN of old":     "\x00\x01\x00\x78" + long[:16] + long,
		"ZRTP":            "\x10\x00\x12\x34ZRTP" + long,
		"DTLS":            "\x16\xfe\xff" + long,
		"TURN":            "\x40\x00\x00\x78" + long,
		"TURN, filled":    "\x40\x00\x00\x77" + long,
		"RTP":             "\x80\x08\x00\x01" + long,
		"RTCP":            "\x81\xc8\x00\x06" + long,
		"IAX2":            "\xff\xff\x00\x00\x00\x00\x00\x01\x00\x00\x06\x0d" + long,
		"T.38":            "\x12\x34\x06\xc0\x01\x02\x03\x04\x05\x00\x02" + long,
		"T.38 that mends": "\x12\x34\x02\xc0\x01\x80\x01\x03" + long,
	} {
		if p.to(payload); len(w.findings) > 0 {
			t.Errorf("%s: %+v", name, w.findings)
		}
	}
	w.want()
	for range 50 {
		p.to(garbage)
	}
	w.want(event.MalformedRequest)
	w.pass(time.Minute)
	p.to("\x16\x03\x01\x00\x9c" + long) // TLS, which nobody speaks over UDP
	w.want(event.MalformedRequest, event.MalformedRequest)
}

func TestPipelinedRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, witness.Config{}).others()
	p := w.peer(bad, "201", "plain")
	a := p.request("REGISTER", "x", "one")
	p.callID = "\xff"
	b := p.request("REGISTER", "x", "two")
	k := w.packets(packet.TCP, 5060).open()
	k.to(a + b)
	answer := func(text string) string {
		return strings.Replace(text, "REGISTER sip:201@pbx.example SIP/2.0", "SIP/2.0 401 Unauthorized", 1)
	}
	k.from(answer(a) + answer(b))
	w.others().want(event.SilentGuess, event.SilentGuess)
	for _, f := range w.findings {
		if f.Event.Remote.Transport != event.TCP || f.Event.Remote.AddrPort != k.remote {
			t.Errorf("%+v", f.Event)
		}
	}
}

// iaxFrame is a full frame of type IAX (RFC 5456 section 8.1).
func iaxFrame(source, destination uint16, subclass byte, elements ...string) string {
	head := []byte{0x80 | byte(source>>8), byte(source), byte(destination >> 8), byte(destination), 0, 0, 0, 1, 0, 0, 6, subclass}
	text := string(head)
	for i := 0; i < len(elements); i += 2 {
		text += elements[i] + string([]byte{byte(len(elements[i+1]))}) + elements[i+1]
	}
	return text
}

func TestIAX2(t *testing.T) {
	t.Parallel()
	const username, md5Result, cause, causeCode, callToken = "\x06", "\x10", "\x16", "\x2a", "\x36"
	refused := func(w *world, sent, returned string, times int) {
		p := w.packets(packet.UDP, 4569)
		token := []string{}
		if returned != "" {
			token = []string{callToken, returned}
		}
		for i := range times {
			n := uint16(i + 1)
			if sent != "" {
				p.to(iaxFrame(n, 0, 13, username, "trunk", callToken, ""))
				p.from(iaxFrame(1, n, 40, callToken, sent))
			}
			p.to(iaxFrame(n, 0, 13, append([]string{username, "trunk"}, token...)...))
			p.from(iaxFrame(9, n, 14, "\x0e", "\x00\x02"))
			p.to(iaxFrame(n, 9, 13, username, "trunk", md5Result, "00000000000000000000000000000000"))
			p.from(iaxFrame(9, n, 16, cause, "Registration Refused", causeCode, "\x1d"))
			p.from(iaxFrame(9, n, 16, cause, "Registration Refused", causeCode, "\x1d"))
		}
	}
	run(t, []scenario{
		{"a registration with a wrong password", func(w *world) {
			refused(w, "1234?abcdef", "1234?abcdef", 3)
			w.want(event.IAXRefused, event.IAXRefused, event.IAXRefused).wantProven(true)
			if ev := w.findings[0].Event; ev.Account != "trunk" || ev.Service != event.IAX2 || ev.SeenBy != event.ByTap {
				w.t.Errorf("%+v", ev)
			}
		}},
		{"without a call token it may be forged", func(w *world) {
			refused(w, "", "", 1)
			w.want(event.IAXRefused).wantProven(false)
		}},
		{"and so it may with one that was never sent", func(w *world) {
			refused(w, "", "1234?abcdef", 1)
			w.want(event.IAXRefused).wantProven(false)
		}},
		{"or with another", func(w *world) {
			refused(w, "1234?abcdef", "1234?abcdee", 1)
			w.want(event.IAXRefused).wantProven(false)
		}},
		{"a right one, and calls that are refused for their number", func(w *world) {
			p := w.packets(packet.UDP, 4569)
			p.to(iaxFrame(1, 0, 13, username, "trunk"))
			p.from(iaxFrame(9, 1, 14))
			p.to(iaxFrame(1, 9, 13, username, "trunk", md5Result, "00000000000000000000000000000000"))
			p.from(iaxFrame(9, 1, 15))
			p.to(iaxFrame(2, 0, 1, username, "trunk"))
			p.from(iaxFrame(9, 2, 8))
			p.to(iaxFrame(2, 9, 9, md5Result, "00000000000000000000000000000000"))
			p.from(iaxFrame(9, 2, 6, cause, "No such context/extension", causeCode, "\x03"))
			w.want()
		}},
	})
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	basic := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("admin:guess")) + "\r\n"
	const (
		unauthorized = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"Asterisk REST Interface\"\r\nContent-Length: 0\r\n\r\n"
		ok           = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	)
	get := func(path, header string) string { return "GET " + path + " HTTP/1.1\r\nHost: x\r\n" + header + "\r\n" }
	run(t, []scenario{
		{"ARI's password guessed", func(w *world) {
			p := w.packets(packet.TCP, 8088).open()
			for range 3 {
				p.to(get("/ari/channels", basic))
				p.from(unauthorized)
			}
			p.to(get("/ari/channels?api_key=admin:guess", ""))
			p.from(unauthorized)
			w.want(event.HTTPRefused, event.HTTPRefused, event.HTTPRefused, event.HTTPRefused)
			if ev := w.findings[0].Event; ev.Account != "admin" || ev.Service != event.HTTP || ev.Remote.Transport != event.TCP {
				w.t.Errorf("%+v", ev)
			}
		}},
		{"a browser asks without one first, and then has the right one", func(w *world) {
			p := w.packets(packet.TCP, 8088).open()
			p.to(get("/ari/channels", ""))
			p.from(unauthorized)
			p.to(get("/ari/channels", basic))
			p.from(ok)
			w.want()
		}},
		{"pipelined, and segments that come twice", func(w *world) {
			p := w.packets(packet.TCP, 8088).open()
			p.to(get("/ari/a", ""))
			p.to(get("/ari/b", basic))
			p.packet(true, get("/ari/b", basic), p.sent-uint32(len(get("/ari/b", basic))))
			p.from(unauthorized)
			p.from(unauthorized)
			p.packet(false, unauthorized, p.answered-uint32(len(unauthorized)))
			w.want(event.HTTPRefused)
		}},
		{"a forged guess between another's first step and its answer", func(w *world) {
			p := w.packets(packet.TCP, 8088).open()
			p.to(get("/ari/a", ""))
			forged := *p
			forged.answered -= 1 << 20
			forged.to(get("/ari/b", basic))
			p.from(unauthorized)
			p.from(unauthorized)
			w.want()
		}},
		{"SIP over a WebSocket", func(w *world) {
			w.others()
			p := w.packets(packet.TCP, 8088).open()
			p.to(get("/ws", "Upgrade: websocket\r\nConnection: Upgrade\r\n"))
			p.from("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
			text := w.peer(bad, "201", "\xff").request("REGISTER", "x", "guess")
			masked := []byte{0x81, 0x80 | 126, byte(len(text) >> 8), byte(len(text)), 1, 2, 3, 4}
			for i := range len(text) {
				masked = append(masked, text[i]^byte(i&3+1))
			}
			p.to(string(masked))
			answer := strings.Replace(text, "REGISTER sip:201@pbx.example SIP/2.0", "SIP/2.0 401 Unauthorized", 1)
			p.from(string([]byte{0x81, 126, byte(len(answer) >> 8), byte(len(answer))}) + answer)
			w.want(event.SilentGuess)
			if tr := w.findings[0].Event.Remote.Transport; tr != event.WS {
				w.t.Errorf("transport %v", tr)
			}
		}},
	})
}
