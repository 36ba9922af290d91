package witness

import (
	"bytes"
	"net/netip"
	"strconv"

	"github.com/ringwall/ringwall/pkg/sip"
)

// nonce is a challenge that Asterisk sent to an address. PJSIP makes it of the second, the address, a random number
// that nobody is told, and the realm (res_pjsip_authenticator_digest.c): whoever answers it received it there.
type nonce struct {
	issued    int64  // the time in it, of Asterisk's clock; 0: it has none
	toOptions bool   // it was sent to an OPTIONS
	local     uint64 // key in Witness.locals, of who sent it
	sentAt    int64
}

func (w *Witness) nonceKey(text uint64, to netip.Addr) uint64 {
	return w.of(forNonce, text, w.addr(to))
}

// noteChallenges remembers the challenges of an answer.
func (w *Witness) noteChallenges(s *Sight, m *sip.Message, options bool) {
	for _, c := range m.Challenges() {
		if len(c.Nonce) == 0 {
			continue
		}
		e, old := w.nonces.put(w.now, w.nonceKey(w.bytes(c.Nonce), s.Remote.Addr()), sentNonce)
		if !old {
			e.value.issued, e.value.local = issuedAt(c.Nonce), w.localAt(s.Asterisk).key
			e.value.sentAt = w.now
			if w.noncesSince == 0 {
				w.noncesSince = e.value.issued
			}
		}
		e.value.toOptions = e.value.toOptions || options
	}
}

// useNonce returns what is known of a challenge that an address answers, or nil: it was not sent there.
func (w *Witness) useNonce(text []byte, by netip.Addr) *nonce {
	e := w.nonces.get(w.now, w.nonceKey(w.bytes(text), by))
	if e == nil {
		return nil
	}
	if e.class != usedNonce || w.now-e.at > second {
		w.nonces.move(w.now, e, usedNonce)
	}
	return &e.value
}

// forgetNonce knows that challenges of that time may have been sent and are not known.
func (w *Witness) forgetNonce(e *entry[nonce]) {
	w.noncesSince = max(w.noncesSince, e.value.issued+1)
}

// isKnownTime says whether a challenge that has the time of this text in it is known if it was ever sent: not those of
// before, nor of another Asterisk that this one does not know.
func (w *Witness) isKnownTime(text []byte) bool {
	at := issuedAt(text)
	return at == 0 || w.noncesSince != 0 && at > w.noncesSince
}

// issuedAt is the time in one of PJSIP's challenges, seconds; 0 where it has none.
func issuedAt(text []byte) int64 {
	before, _, ok := bytes.Cut(text, []byte("/"))
	if !ok || len(before) > 12 {
		return 0
	}
	at, err := strconv.ParseInt(string(before), 10, 64)
	if err != nil {
		return 0
	}
	return max(at, 0)
}
