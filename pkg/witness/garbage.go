package witness

import (
	"encoding/binary"
	"strconv"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
)

// minGarbage is how long something is at least that is not SIP and no keepalive either: phones send short ones of their
// own invention.
const minGarbage = 33

// isText says whether somebody wrote it for a server of text.
func isText(b []byte) bool {
	const looksAt = 128
	for _, c := range b[:min(len(b), looksAt)] {
		if c > '~' || c < ' ' && c != '\r' && c != '\n' && c != '\t' {
			return false
		}
	}
	return true
}

// isStray says whether these bytes are of another protocol that a customer's device, or a provider's, speaks with a
// PBX, so that they come here because somebody confused two ports, or had a port before.
func isStray(b []byte) bool {
	const (
		stunHeader  = 20                 // RFC 3489 11.1, without the magic cookie of RFC 5389
		turnHeader  = 4                  // RFC 5766 11.4
		iaxHeader   = 12                 // RFC 5456 8.1.1
		iaxTypes    = 12                 // RFC 5456 8.2
		zrtpCookie  = "\x5a\x52\x54\x50" // RFC 6189 5
		dtlsVersion = 0xfe               // RFC 6347 4.1
	)
	length := int(binary.BigEndian.Uint16(b[2:]))
	switch first := b[0]; { // RFC 7983 7
	case first < 4 && length == len(b)-stunHeader,
		first >= 16 && first < 20 && string(b[4:8]) == zrtpCookie,
		first >= 20 && first < 64 && b[1] == dtlsVersion,
		first >= 64 && first < 80 && length <= len(b)-turnHeader && len(b)-turnHeader-length < 4,
		first >= 128 && first < 192: // RTP and RTCP, RFC 3550 5.1
		return true
	case first >= 192: // a call of IAX2 has any number
		return b[10] > 0 && b[10] <= iaxTypes && len(b) >= iaxHeader
	}
	return isUDPTL(b)
}

// isUDPTL says whether it is a packet of fax (ITU-T T.38, annex D): a number, a primary packet with its length, and
// whether the others behind it repeat what came before, or mend it.
func isUDPTL(b []byte) bool {
	const mostPrimary = 127 // of which the length is one byte
	primary := int(b[2])
	if primary == 0 || primary > mostPrimary || 3+primary >= len(b) {
		return false
	}
	return b[3+primary]&0x7f == 0
}

// garbage tells of what is not SIP, once a minute for each source: a stray stream of voice is fifty packets a second.
// Bytes that are no text are told of where Asterisk's SIP is known to be: elsewhere they are voice and fax.
func (w *Witness) garbage(s Sight, b []byte) {
	l := &w.localAt(s.Asterisk).value
	if !isText(b) && (l.pbx == nil || isStray(b)) {
		return
	}
	e := w.source(s.Remote.Addr())
	if e.value.garbageAt != 0 && w.now-e.value.garbageAt < minute {
		return
	}
	e.value.garbageAt = w.now
	ev := w.eventOf(event.MalformedRequest, &s, l)
	ev.Response = strconv.FormatInt(w.now, 16) // another one than the last
	w.find(l, ev)
}
