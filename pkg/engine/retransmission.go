package engine

import (
	"math"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
)

const (
	millisecond = int64(time.Millisecond)

	// maxRetransmissions is how often a request that gets no answer is sent again: 10 times in 32 s without INVITE, 6
	// times with it (RFC 3261 sections 17.1.1.2 and 17.1.2.2).
	maxRetransmissions = 10
	// transactionMillis is 64×T1, when timers B and F end a transaction (RFC 3261 section 17.1), in milliseconds.
	transactionMillis = 32_000
	// maxCopies is how many copies of a phone's answers may come when no retransmission is due, with one guess at the
	// same time: a network that held packets back delivers them at once.
	maxCopies = 4
)

// retransmissionGaps are the pauses before each retransmission: T1 doubles up to T2 (RFC 3261 section 17.1.2.2), in
// milliseconds. INVITE's grow on, so that they are no shorter.
var retransmissionGaps = [maxRetransmissions]uint32{500, 1000, 2000, 4000, 4000, 4000, 4000, 4000, 4000, 4000}

// burstMillis is how long a phone that retransmits one request does not retransmit another, in milliseconds: it has one
// under way at a time, and while no answer reaches it, it cannot know the challenge of another.
const burstMillis = 16_000

// maxConverted is how many of the retransmissions just before it are taken for guesses, too, when a copy comes that
// cannot be a retransmission.
const maxConverted = 3

// repetition says what an answer to a challenge has to do with those before. The zero value is a new answer: another
// guess.
type repetition struct {
	copy   bool // of an answer that came before
	due    bool // a retransmission of that may come now
	before int  // how many such came already
}

// classifyAnswer says whether the answer of the event is a copy of one before. Asterisk reports the first Authorization
// header of a request (res_pjsip/security_events.c) but checks the one of its realm, so that guesses with a decoy in
// front look like copies of one answer. A copy is one only over UDP, for the same account, within one transaction, with
// a challenge of Asterisk's own; what else looks the same is another guess.
func (j *judgement) classifyAnswer(hash uint64) repetition {
	overTCP := j.event.Remote.Transport.Proven() && j.event.Service != event.SIP
	if overTCP || j.event.Response == "" || j.event.Service == event.PJSIP && !looksIssued(j.event.Challenge) {
		return repetition{}
	}
	d, now := j.dialogueEntry(hash), milliseconds(j.now)
	mark := uint32(hash>>32) | 1
	if d.firstMark != mark || now-d.firstAnswerAt >= transactionMillis {
		d.firstMark, d.firstAnswerAt, d.lastAnswerAt, d.repeats = mark, now, now, 0
		return repetition{}
	}
	gap := now - d.lastAnswerAt
	d.lastAnswerAt = now
	// Half of the pause is enough: what delays one packet shortens the pause before the next.
	if int(d.repeats) < len(retransmissionGaps) && gap >= retransmissionGaps[d.repeats]/2 {
		d.repeats++
		return repetition{copy: true, due: true, before: int(d.repeats) - 1}
	}
	return repetition{copy: true}
}

// milliseconds is a time in the short form that dialogues and paces keep: it wraps around at 2³², after 49 days.
func milliseconds(ns int64) uint32 { return uint32(ns / millisecond) }

// looksIssued says whether a challenge has the form of those that PJSIP issues: a time, a slash and a hash, both in
// hexadecimal digits (res_pjsip_authenticator_digest.c). Whether it is one, only Asterisk knows.
func looksIssued(challenge string) bool {
	at, hash, ok := strings.Cut(challenge, "/")
	return ok && isHexadecimal(at) && isHexadecimal(hash)
}

// isHexadecimal says whether a text has hexadecimal digits alone.
func isHexadecimal(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return s != ""
}

// isRetransmission counts a copy, and says whether it may be a phone's retransmission. If not, it is a guess, and so
// are some just before it.
func (p *pace) isRetransmission(now int64, r repetition, burst int) bool {
	at := milliseconds(now)
	if at-p.resentAt > burstMillis {
		p.resentInBurst = 0
	}
	if r.due && p.resent < maxRetransmissions && int(p.resentInBurst) <= r.before {
		p.resent++
		p.resentInBurst++
		p.resentAt = at
		return true
	}
	n := 1 + min(int(p.resentInBurst), maxConverted)
	p.resentInBurst = 0
	p.copies += float32(n)
	p.unchargedCopies = uint8(min(int(p.unchargedCopies)+n, 250))
	return !p.tooManyCopies(burst)
}

// tooManyCopies says whether there are more copies than a network makes of a phone's answers.
func (p *pace) tooManyCopies(burst int) bool {
	return p.copies > 0 && float64(p.tokens+p.copies) > float64(max(burst, maxCopies)+1)
}

// addCopiesAsGuesses counts copies as the guesses that they are.
func (p *pace) addCopiesAsGuesses(n int) {
	p.guesses = uint8(min(int(p.guesses)+n, 250))
	p.total = uint16(min(int(p.total)+n, math.MaxInt16))
	p.peak = max(p.peak, p.tokens+p.copies)
}
