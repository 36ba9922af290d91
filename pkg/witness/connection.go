package witness

import (
	"strconv"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/httphead"
	"github.com/ringwall/ringwall/pkg/iax"
	"github.com/ringwall/ringwall/pkg/packet"
	"github.com/ringwall/ringwall/pkg/sip"
)

// connection is a call of IAX2, by who makes it and his number for it, or a TCP connection to Asterisk's HTTP server.
type connection struct {
	user   [maxAccount]byte
	length uint8

	credentials bool // the caller gave some, and had no answer
	token       bool // he sent a call token back, which was sent to his address (RFC 6315)

	// HTTP: which requests that have no answer brought credentials, the first one in the lowest bit.
	outstanding           uint8
	withCredentials       uint16
	asked, answered       uint32 // sequence numbers of the segments with the last request and answer
	wasAsked, isWebSocket bool
}

// maxOutstanding is how many requests may wait for an answer on one connection: Asterisk does one after the other.
const maxOutstanding = 16

func (c *connection) setUser(name []byte) { c.length = uint8(copy(c.user[:], name)) }

func (w *Witness) connectionOf(s *Sight, service event.Service, number uint16) *connection {
	key := w.of(forConnection, w.addrPort(s.Remote), w.combine(w.addrPort(s.Asterisk),
		uint64(service)<<16|uint64(number)))
	e, old := w.connections.put(w.now, key, 0)
	if old && w.now-e.at > second {
		w.connections.move(w.now, e, 0)
	}
	return &e.value
}

// iaxFrame takes a frame of IAX2 (RFC 5456).
func (w *Witness) iaxFrame(s *Sight, b []byte) {
	f := &w.frame
	if err := iax.Parse(b, f); err == iax.ErrNotSignalling {
		return
	}
	if s.ToAsterisk {
		w.iaxRequest(s, f)
	} else if f.Subclass == iax.CallToken {
		w.messages.put(w.now, w.tokenKey(s, f), 0)
	} else if f.RefusesLogin() || f.Accepts() {
		w.iaxAnswer(s, f)
	}
}

func (w *Witness) iaxRequest(s *Sight, f *iax.Frame) {
	switch f.Subclass {
	case iax.New, iax.RegReq, iax.RegRel, iax.AuthRep:
	default:
		return
	}
	c := w.connectionOf(s, event.IAX2, f.Source)
	if f.Username != nil {
		c.setUser(f.Username)
	}
	if f.Destination == 0 { // it begins the call, so that Asterisk looks at the token
		c.token = len(f.CallToken) > 0 && w.messages.get(w.now, w.tokenKey(s, f)) != nil
	}
	c.credentials = c.credentials || f.Response != nil
}

// tokenKey is of a token, and the address that it was sent to. An invented one is of no address.
func (w *Witness) tokenKey(s *Sight, f *iax.Frame) uint64 {
	return w.of(forToken, w.addr(s.Remote.Addr()), w.bytes(f.CallToken))
}

func (w *Witness) iaxAnswer(s *Sight, f *iax.Frame) {
	c := w.connectionOf(s, event.IAX2, f.Destination)
	if f.RefusesLogin() && c.credentials {
		w.findRefused(event.IAXRefused, event.IAX2, s, c, c.token)
	}
	c.credentials = false
}

func (w *Witness) findRefused(t event.Type, service event.Service, s *Sight, c *connection, proven bool) {
	l := &w.localAt(s.Asterisk).value
	ev := w.eventOf(t, s, l)
	ev.Service, ev.Account, ev.Proven = service, text(c.user[:c.length], maxAccount), proven
	ev.Session = s.Remote.String()
	ev.Response = strconv.FormatInt(w.now, 16) // tells attempts apart
	w.find(l, ev)
}

// httpSegment takes what a TCP connection to the HTTP server holds, as far as a segment begins with a head.
func (w *Witness) httpSegment(now time.Time, s *Sight, p *packet.Packet) {
	if len(p.Payload) == 0 {
		return
	}
	c := w.connectionOf(s, event.HTTP, 0)
	if c.isWebSocket {
		w.webSocket(now, s, p.Payload)
		return
	}
	h := &w.http
	if httphead.Parse(p.Payload, h) != nil || (h.Status == 0) != s.ToAsterisk {
		return
	}
	if s.ToAsterisk {
		if !s.isForgeable { // else somebody could have another's first step, without a password, look like a guess
			c.ask(h, p.Sequence)
		}
		return
	}
	if c.answered == p.Sequence || h.Status < 200 && h.Status != 101 {
		return // sent again, or not the end
	}
	c.answered = p.Sequence
	hadCredentials := c.withCredentials&1 != 0
	c.withCredentials >>= 1
	c.outstanding = max(c.outstanding, 1) - 1
	switch {
	case h.Status == 101:
		c.isWebSocket = h.WebSocket
	case h.Status == 401 && hadCredentials && !h.Stale:
		w.findRefused(event.HTTPRefused, event.HTTP, s, c, false)
	}
}

func (c *connection) ask(h *httphead.Head, sequence uint32) {
	if c.wasAsked && c.asked == sequence {
		return
	}
	c.wasAsked, c.asked = true, sequence
	if c.outstanding >= maxOutstanding {
		c.outstanding, c.withCredentials = 0, 0
	}
	if h.HasCredentials() && !h.Path.WritesSecurityEvents() {
		c.withCredentials |= 1 << c.outstanding
		c.setUser(h.Username())
	}
	c.outstanding++
}

// webSocket takes the frames that a segment begins with: each has a SIP message (RFC 7118 section 5).
func (w *Witness) webSocket(now time.Time, s *Sight, b []byte) {
	const maxMessage = 16 << 10
	if w.unmasked == nil {
		w.unmasked = make([]byte, maxMessage)
	}
	over := *s
	over.Transport = event.WS
	var f httphead.Frame
	for len(b) > 0 && httphead.ParseFrame(b, &f) == nil {
		if f.Opcode == httphead.Text || f.Opcode == httphead.Binary {
			message := f.Payload(w.unmasked)
			if f.Truncated {
				message = sip.WholeLines(message)
			}
			w.head(now, over, message)
		}
		b = b[f.Size:]
	}
}
