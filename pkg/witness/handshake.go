package witness

import (
	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/packet"
)

// A segment of TCP reaches the tap before the kernel knows whether there is such a connection: anybody can send one in
// somebody else's name. So it proves nothing about its sender but where it acknowledges what Asterisk's side has sent,
// whose numbers begin where nobody can guess (RFC 9293 section 3.4.1): who knows them received them at his address.

// handshake is what Asterisk's side of a TCP connection sent last.
type handshake struct {
	next uint32 // the sequence number behind it, which the other side acknowledges
}

// Classes of handshakes. A flood of forged SYNs fills the first one only.
const (
	openedHandshake uint8 = iota
	provenHandshake
)

// maxUnacknowledged is how much of Asterisk's answers may be on its way while the other side goes on: little, since
// each byte more is a number more that a forger may guess.
const maxUnacknowledged = 4 << 10

func (w *Witness) handshakeKey(s *Sight) uint64 {
	return w.of(forHandshake, w.addrPort(s.Remote), w.addrPort(s.Asterisk))
}

// noteSent notes a segment of Asterisk's side.
func (w *Witness) noteSent(s *Sight, p *packet.Packet) {
	opens := p.Flags&packet.Syn != 0
	if !opens && p.PayloadSize == 0 {
		return
	}
	e, old := w.handshakes.put(w.now, w.handshakeKey(s), openedHandshake)
	next := p.Sequence + uint32(p.PayloadSize)
	if opens {
		next++
	}
	if !old || opens || int32(next-e.value.next) > 0 { // else it was sent again
		e.value.next = next
	}
}

// provesSender says whether who sent a segment received what was sent to its address.
func (w *Witness) provesSender(s *Sight, p *packet.Packet) bool {
	e := w.handshakes.get(w.now, w.handshakeKey(s))
	if e == nil || p.Flags&packet.Acknowledge == 0 || e.value.next-p.Acknowledged > maxUnacknowledged {
		return false
	}
	if e.class != provenHandshake || w.now-e.at > minute {
		w.handshakes.move(w.now, e, provenHandshake)
	}
	return true
}

// transportProven is the transport of an event's source: none where nothing shows that the source is not forged.
func (s *Sight) transportProven() event.Transport {
	if s.isForgeable {
		return event.NoTransport
	}
	return s.Transport
}
