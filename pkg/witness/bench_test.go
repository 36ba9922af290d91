package witness_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/packet"
	"github.com/ringwall/ringwall/pkg/witness"
)

// pair is a request and its answer as packets, and the event that tells of them.
type pair struct {
	request, answer packet.Packet
	ev              event.Event
}

const padding = "User-Agent: Yealink SIP-T46U 108.86.0.90\r\nMax-Forwards: 70\r\nAllow: INVITE, INFO, PRACK, ACK, BYE, CANCEL\r\n" +
	"Contact: <sip:201@10.0.0.9:5060>\r\nExpires: 60\r\nContent-Length: 0\r\n\r\n"

// newPair makes packets of a phone's REGISTER. What numbers it has are put in place by set.
func newPair(remote netip.AddrPort, credentials string, status int) *pair {
	head := func(first string) string {
		return first + "\r\nVia: SIP/2.0/UDP 10.0.0.9:5060;branch=z9hG4bK########;rport\r\n" +
			"From: \"Phone\" <sip:201@pbx.example>;tag=1234567\r\nTo: \"Phone\" <sip:201@pbx.example>\r\n" +
			"Call-ID: ########-0123456789@10.0.0.9\r\nCSeq: 1 REGISTER\r\n"
	}
	request := head("REGISTER sip:pbx.example SIP/2.0") + credentials + padding
	answer := head(fmt.Sprintf("SIP/2.0 %d X", status))
	if status == 401 {
		answer += `WWW-Authenticate: Digest realm="asterisk",nonce="1800000000/0123456789abcdef01234567########",qop="auth"` + "\r\n"
	}
	answer += "Server: Asterisk PBX 22.10.1\r\nContent-Length: 0\r\n\r\n"
	p := &pair{
		request: packet.Packet{Source: remote, Destination: asteriskAddr, Protocol: packet.UDP, Payload: []byte(request)},
		answer:  packet.Packet{Source: asteriskAddr, Destination: remote, Protocol: packet.UDP, Payload: []byte(answer)},
		ev: event.Event{
			Service: event.PJSIP, Type: event.SuccessfulAuth, UsingPassword: true,
			Remote: event.Address{AddrPort: remote, Transport: event.UDP},
		},
	}
	p.request.PayloadSize, p.answer.PayloadSize = len(request), len(answer)
	return p
}

// places are where the numbers stand.
func places(b []byte) (at []int) {
	for i := 0; ; {
		n := strings.Index(string(b[i:]), "########")
		if n < 0 {
			return at
		}
		at = append(at, i+n)
		i += n + 8
	}
}

func put(b []byte, at []int, n uint32) {
	for _, i := range at {
		for k := range 8 {
			b[i+k] = "0123456789abcdef"[n>>(4*k)&15]
		}
	}
}

const answerOfPhone = `Authorization: Digest username="201",realm="asterisk",nonce="1800000000/0123456789abcdef01234567########",` +
	`uri="sip:pbx.example",response="0123456789abcdef0123456789abcdef",algorithm=MD5,cnonce="01234567",qop=auth,nc=00000001` + "\r\n"

// BenchmarkPackets is what a request and its answer cost, beside copying the bytes of both.
func BenchmarkPackets(b *testing.B) {
	remote := netip.MustParseAddrPort("198.51.100.10:5060")
	for _, c := range []struct {
		name, credentials string
		status            int
		told              event.Type
	}{
		{"challenge", "", 401, event.ChallengeSent},
		{"login", answerOfPhone, 200, event.SuccessfulAuth},
		{"guess", answerOfPhone, 401, event.ChallengeResponseFailed},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := witness.New(witness.Config{})
			p := newPair(remote, c.credentials, c.status)
			requestAt, answerAt := places(p.request.Payload), places(p.answer.Payload)
			now := time.Unix(1_800_000_000, 0)
			var out []witness.Finding
			b.ReportAllocs()
			n := uint32(0)
			for b.Loop() {
				n++
				put(p.request.Payload, requestAt, n)
				put(p.answer.Payload, answerAt, n)
				now = now.Add(500 * time.Microsecond) // 2,000 a second
				w.Packet(now, true, &p.request)
				w.Packet(now, false, &p.answer)
				if n%64 == 0 {
					out = w.Due(now, out[:0])
				}
			}
		})
	}
	b.Run("copy", func(b *testing.B) {
		p := newPair(remote, answerOfPhone, 200)
		dst := make([]byte, 4096)
		for b.Loop() {
			copy(dst, p.request.Payload)
			copy(dst, p.answer.Payload)
		}
	})
}

// BenchmarkEvents is what an event costs whose packets were seen.
func BenchmarkEvents(b *testing.B) {
	w := witness.New(witness.Config{})
	ev := newPair(netip.MustParseAddrPort("198.51.100.10:5060"), "", 200).ev
	ev.Session = "0123456789@10.0.0.9"
	b.ReportAllocs()
	for b.Loop() {
		w.Told(time.Unix(1_800_000_000, 0), pbxName, &ev)
	}
}
