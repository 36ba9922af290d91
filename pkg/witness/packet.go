package witness

import (
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/packet"
	"github.com/ringwall/ringwall/pkg/sip"
)

// Packet takes a packet to Asterisk, or from it, as the tap saw it. It keeps nothing of it.
func (w *Witness) Packet(now time.Time, toAsterisk bool, p *packet.Packet) {
	w.advance(now)
	s := Sight{SeenBy: event.ByTap, ToAsterisk: toAsterisk, Asterisk: p.Source, Remote: p.Destination}
	if toAsterisk {
		s.Asterisk, s.Remote = p.Destination, p.Source
	}
	s.Asterisk, s.Remote = unmap(s.Asterisk), unmap(s.Remote)
	if p.Protocol == packet.TCP {
		if s.Transport = event.TCP; toAsterisk {
			s.isForgeable = !w.provesSender(&s, p)
		} else {
			w.noteSent(&s, p)
		}
	}
	switch port := s.Asterisk.Port(); {
	case p.Protocol == packet.UDP && slices.Contains(w.iaxPorts, port):
		s.Transport = event.UDP
		w.iaxFrame(&s, p.Payload)
	case p.Protocol == packet.UDP:
		s.Transport = event.UDP
		w.datagram(now, s, p)
	case p.Protocol == packet.TCP && slices.Contains(w.httpPorts, port):
		w.httpSegment(now, &s, p)
	case p.Protocol == packet.TCP:
		w.segment(now, s, p)
	}
}

// segment finds SIP messages in those of a connection.
func (w *Witness) segment(now time.Time, s Sight, p *packet.Packet) {
	w.seen, w.seenAt = s, now
	w.streams.Add(sip.Flow{Source: p.Source, Destination: p.Destination}, sip.Segment{
		Seq: p.Sequence, Payload: p.Payload, Length: p.PayloadSize,
		SYN: p.Flags&packet.Syn != 0, FIN: p.Flags&packet.Fin != 0, RST: p.Flags&packet.Reset != 0,
	})
}

// datagram reads a SIP message.
func (w *Witness) datagram(now time.Time, s Sight, p *packet.Packet) {
	b := p.Payload
	if !p.Whole() {
		b = sip.WholeLines(b)
	}
	w.head(now, s, b)
}

func (w *Witness) head(now time.Time, s Sight, b []byte) {
	switch err := sip.Parse(b, &w.message); {
	case err == nil:
		w.Message(now, s, &w.message)
	case err == sip.ErrNotSIP && s.ToAsterisk && s.Transport == event.UDP && len(b) >= minGarbage:
		w.garbage(s, b)
	}
}
