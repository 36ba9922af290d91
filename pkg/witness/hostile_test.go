package witness_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/packet"
	"github.com/ringwall/ringwall/pkg/witness"
)

// TestAnyBytes has packets and events of few names come in any order, in floods that push out what they belong to: it
// does not fail, and what it tells can be told.
func TestAnyBytes(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(6, 7))
	w := newWorld(t, witness.Config{})
	anyOf := func(texts ...string) string { return texts[random.IntN(len(texts))] }
	for i := range 60_000 {
		w.now = w.now.Add(time.Duration(random.IntN(3_000_000)))
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(random.IntN(4))}), uint16(1+random.IntN(3)))
		id := anyOf("a", "b", "\xff", "a\x00b", fmt.Sprint("c", random.IntN(40_000)))
		credentials := anyOf("", "", "Authorization: Digest nonce=\"n\", response=\""+anyOf("1", "2", "\xff")+"\"\r\n")
		method := anyOf("REGISTER", "INVITE", "OPTIONS", "SUBSCRIBE", "ACK", "CANCEL")
		first, toAsterisk := method+" sip:1@x SIP/2.0", random.IntN(2) == 0
		if !toAsterisk {
			first = "SIP/2.0 " + anyOf("100", "180", "200", "401", "403", "404", "407", "500") + " X"
			credentials = anyOf("", "WWW-Authenticate: Digest nonce=\"n\""+anyOf("", ",stale=true")+"\r\n")
		}
		text := first + "\r\nVia: SIP/2.0/UDP x;branch=" + anyOf("1", "2") + "\r\nFrom: <sip:1@x>\r\nTo: <sip:2@x>" + anyOf("", ";tag=1") +
			"\r\nCall-ID: " + id + "\r\nCSeq: 1 " + method + "\r\n" + credentials + "\r\n"
		b := []byte(text)
		for range random.IntN(3) {
			b[random.IntN(len(b))] = byte(random.Uint32())
		}
		p := packet.Packet{
			Source: from, Destination: asteriskAddr, Protocol: []packet.Protocol{packet.UDP, packet.TCP}[random.IntN(2)],
			Payload: b[:len(b)-random.IntN(2)*random.IntN(len(b))], Sequence: random.Uint32N(100), Flags: packet.Acknowledge,
		}
		p.PayloadSize = len(p.Payload)
		if p.Destination = netip.AddrPortFrom(asteriskAddr.Addr(), []uint16{5060, 5060, 4569, 8088}[random.IntN(4)]); !toAsterisk {
			p.Source, p.Destination = p.Destination, p.Source
		}
		w.w.Packet(w.now, toAsterisk, &p)
		if random.IntN(2) == 0 {
			ev := event.Event{
				Type:    []event.Type{event.SuccessfulAuth, event.ChallengeSent, event.ChallengeResponseFailed}[random.IntN(3)],
				Service: []event.Service{event.PJSIP, event.PJSIP, event.SIP}[random.IntN(3)], Session: anyOf("a", "b", "c", id),
				Challenge: anyOf("n", ""), Response: anyOf("1", "2"), Remote: event.Address{AddrPort: from, Transport: event.UDP},
			}
			w.w.Told(w.now, pbxName, &ev)
		}
		switch random.IntN(500) {
		case 0:
			w.w.Blind(w.now, pbxName, random.IntN(2) == 0)
		case 1:
			w.w.PacketsLost(w.now)
		case 2:
			w.w.FramesLost(w.now, pbxName)
		}
		if i%100 == 0 {
			w.findings = w.w.Due(w.now, w.findings)
		}
	}
	types := map[event.Type]int{}
	for _, f := range w.findings {
		types[f.Event.Type]++
	}
	for _, typ := range []event.Type{event.SilentGuess, event.MalformedRequest} {
		if types[typ] == 0 {
			t.Errorf("no %v among %v", typ, types)
		}
	}
}
