package engine

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/policy"
	"github.com/ringwall/ringwall/pkg/security"
)

const (
	// attemptTTL is how long one dialogue is one attempt: Timer B and F of RFC 3261 section 17.1 end a transaction
	// after 64×T1 = 32 s, and an answer may be retransmitted for as long again.
	attemptTTL = 64 * second
	// forgedHostile is the part of the threshold that bytes which no phone sends are worth where they could be forged: a packet in
	// a customer's name must not cost more than a request for an unknown account does.
	forgedHostile = 0.4
	// slack forgives the rounding of points, which are kept in 32 bits.
	slack = 1e-3
)

// call is one event under judgement.
type call struct {
	*Engine
	rule   *rule // nil: the event is worth nothing
	addr   netip.Addr
	key    key
	pbx    uint8
	talk   uint64 // once dialogue was called
	ev     *security.Event
	src    *source // once source was called
	have   *source // what peek found
	peeked bool
	said   *dialogue // once heard was called
	asked  bool
	named  uint64 // once name was called
	proven bool
	points float64 // of the last charge
	score  float64 // after it
	scaled scaled  // of the last charge
	out    []ban.Decision
}

// judge begins the judgement of an event that an address sent, as an Asterisk says.
func (e *Engine) judge(ev *security.Event, from netip.Addr, pbx uint8, out []ban.Decision) call {
	return call{Engine: e, ev: ev, addr: from, key: e.keyOf(from), pbx: pbx, out: out,
		proven: ev.Remote.Transport.Proven() && ev.Service != security.SIP}
}

// dialogue is what is remembered of one attempt: a Call-ID of a source and the first request or answer in it, or
// another one in the same Call-ID.
type dialogue struct {
	credit float32 // points given that a wrong answer in the same dialogue does not earn again
	first  uint32  // mark of the first request or answer, 0 for none

	begun, last uint32 // of an answer: when it came first, and the latest time, in milliseconds around 2³²
	repeats     uint8  // of a request, or of an answer when a retransmission was due

	challenged bool // the first was a ChallengeSent for "<unknown>" alone
}

// source returns the source of the event, made if need be, or nil where there is no room.
func (c *call) source() *source {
	if c.src == nil {
		c.src = c.track(c.key, c.peek())
		c.peeked = false
	}
	return c.src
}

// peek returns the source of the event if there is one. It is looked up once.
func (c *call) peek() *source {
	switch {
	case c.src != nil:
		return c.src
	case !c.peeked:
		c.have, c.peeked = c.sources.get(c.key), true
	}
	return c.have
}

// done ends the judgement.
func (c *call) done() []ban.Decision {
	if c.src != nil {
		c.classify(c.src)
	}
	return c.out
}

// decide appends a decision about the event.
func (c *call) decide(a ban.Action, r ban.Reason, p netip.Prefix, d time.Duration, proven bool, detail string) {
	c.out = append(c.out, ban.Decision{
		Time: stamp(c.now), Action: a, Source: c.addr, Prefix: p, Reason: r, Points: c.points, Score: c.score,
		Account: bounded(c.ev.Account), Service: c.ev.Service, Transport: c.ev.Remote.Transport, Proven: proven,
		Duration: d, PBX: c.pbxName(c.pbx), Detail: detail,
	})
}

// bounded is a copy of a name from the wire, no longer than evidence keeps it.
func bounded(name string) string {
	if len(name) > nameBytes {
		return whole(name[:nameBytes]) + "…"
	}
	return strings.Clone(name)
}

// dialogue identifies the attempt: the source and the SessionID. AMI's is a pointer that the next connection uses again,
// so the port counts there too.
func (c *call) dialogue() uint64 {
	if c.talk == 0 {
		c.talk = c.dialogueOf(c.ev, c.key, c.pbx)
	}
	return c.talk
}

func (e *Engine) dialogueOf(ev *security.Event, from key, pbx uint8) uint64 {
	x := uint64(ev.Service)<<8 | uint64(pbx)
	if ev.Service == security.AMI {
		x |= uint64(ev.Remote.AddrPort.Port()) << 16
	}
	return e.id(forDialogue, from, e.mix(e.text(ev.Session), x))
}

// heard returns what is remembered of the attempt, or nil. It is looked up once.
func (c *call) heard() *dialogue {
	if !c.asked {
		c.said, c.asked = c.attempts.Get(c.now, c.dialogue()), true
	}
	return c.said
}

// name is the hash of the account's name.
func (c *call) name() uint64 {
	if c.named == 0 {
		c.named = c.text(c.ev.Account)
	}
	return c.named
}

// account identifies the account of the event. chan_sip's is another than PJSIP's of the same name.
func (c *call) account() uint64 { return c.accountID(c.name(), c.ev.Service, c.pbx) }

// accountID takes the hash of the name.
func (e *Engine) accountID(name uint64, service security.Service, pbx uint8) uint64 {
	return e.id(forAccount, key{}, e.mix(name, uint64(service)<<8|uint64(pbx)))
}

// hostile judges an event with bytes that no phone sends, whatever else it says. A login with such a Call-ID is nobody's
// phone either: its password is known to somebody who hides.
func (c *call) hostile() (over bool) {
	if c.rule.kind == login {
		if !c.ev.UsingPassword {
			return true
		}
		c.proven = true
		c.breach(c.account(), nil, ban.ReasonMalformed, "a login by a program that hides its requests: change this account's password now")
		return true
	}
	if c.source() == nil {
		return true
	}
	if !c.reports.Seen(c.now, c.id(forTampering, c.key, 0)) {
		c.decide(ban.ActionTampering, ban.ReasonMalformed, c.prefixOf(c.key), 0, c.proven,
			"control characters in a Call-ID or an answer, which no phone sends: a program that hides from log readers")
	}
	w := c.cfg.Threshold
	if !c.proven {
		w *= forgedHostile
	}
	c.charge(max(0, w), ban.ReasonMalformed, noteHostile)
	return false
}

// attempt judges a hostile request: once for each account in each dialogue.
func (c *call) attempt() {
	reason := c.rule.reason
	w := points(&c.cfg.Points, reason)
	if reason == ban.ReasonUnknownAccount && len(c.honey) > 0 && c.honey[c.ev.Account] {
		reason, w = ban.ReasonHoneypot, c.cfg.Points.Honeypot
	}
	if !c.once(c.mix(c.dialogue()^(uint64(forAttempt)<<8|uint64(reasonIndex(c.rule.reason))), c.name())) {
		return
	}
	c.credit(w)
	if reason == ban.ReasonUnknownAccount && c.hold(w) {
		return
	}
	c.charge(w, reason, noNote)
}

// guess judges a wrong answer to a challenge: each distinct answer once.
func (c *call) guess() {
	reason := c.rule.reason
	w := points(&c.cfg.Points, reason)
	if len(c.honey) > 0 && c.honey[c.ev.Account] {
		reason, w = ban.ReasonHoneypot, c.cfg.Points.Honeypot
	}
	id := c.mix(c.dialogue()^uint64(forGuess)<<8, c.mix(c.mix(c.text(c.ev.Challenge), c.text(c.ev.Response)), c.name()))
	var again repeat
	byPace := reason == ban.ReasonWrongPassword && c.enforces[c.ev.Service]
	if byPace {
		again = c.repeated(id)
	} else if !c.once(id) {
		return
	}
	if d := c.heard(); d != nil && d.credit > 0 && !again.copy {
		used := min(w, float64(d.credit))
		d.credit -= float32(used)
		if w -= used; w <= 0 {
			c.record(c.source(), 0, reason, noteCovered)
			return
		}
	}
	if !byPace {
		c.charge(w, reason, noNote)
		return
	}
	c.wrongPassword(w, again)
}

// once is true for the first of a request and its retransmissions.
func (c *call) once(id uint64) bool {
	mark := uint32(id>>32) | 1
	d := c.dialogueEntry(id)
	if d.first == 0 {
		d.first = mark
		return true
	}
	if d.repeats++; d.repeats > maxRetransmissions {
		d.repeats = 0
		return true
	}
	return false
}

// credit notes points that the dialogue has cost already.
func (c *call) credit(w float64) {
	if c.heard() == nil {
		c.said, _ = c.attempts.Put(c.now, c.dialogue())
	}
	c.said.credit += float32(w)
}

// enforced is whether evidence of the event's service is enforced.
func (c *call) enforced() bool { return c.cfg.Mode != policy.Observe && c.enforces[c.ev.Service] }

// charge adds points to the source and bans it when they are enough.
func (c *call) charge(w float64, reason ban.Reason, n note) {
	s := c.source()
	if s == nil {
		return
	}
	enforce := c.enforced()
	if _, ok := c.allow.covering(c.addr); ok {
		c.allowedGuesses(s, w, reason)
		w, n = 0, noteAllowed
	} else if _, ok := c.Engine.protected.covering(c.addr); ok {
		n = noteProtected
	}
	if c.where != nil && w > 0 {
		w = c.weigh(w, reason)
	}
	s.attempts++
	s.observed += float32(w)
	if enforce {
		s.score += float32(w)
		if c.proven {
			s.proven += float32(w)
		}
	} else if n == noNote {
		n = noteObserved
	}
	b := c.record(s, w, reason, n)
	c.points, c.score = w, float64(s.observed)
	if enforce {
		c.score = float64(s.score)
	}
	if b != nil {
		b.attempts++
	}
	if w > 0 {
		c.tally()
		if reason != ban.ReasonWrongPassword && reason != ban.ReasonDistributed && c.trustOf(s) == nil { // passwords are counted already
			c.widen(w)
		}
		c.verdict(s, b, reason, enforce)
	}
}

// verdict compares the source's numbers with the threshold; b is its active ban, if there is one.
func (c *call) verdict(s *source, b *activeBan, reason ban.Reason, enforce bool) {
	limit := c.cfg.Threshold
	if t := c.trustOf(s); t != nil {
		limit *= c.cfg.Trust.Tolerance
		switch {
		case float64(s.observed) < limit-slack:
			return
		case float64(s.proven) < limit-slack:
			// Packets that can be forged must not take trust from a customer.
			c.tolerate(ban.ReasonTolerance,
				"a trusted source fails more than is tolerated, but the evidence could be forged: not banned")
			c.alarmGuessing(reason, "a trusted source guesses faster than any phone: it is not banned, since the packets could be "+
				"forged in a customer's name")
			return
		case c.stormy() && t.calm(c.now):
			c.tolerate(ban.ReasonStorm, "a trusted source fails more than is tolerated while many others do: "+stormText)
			return
		}
		c.distrust(t, ban.ReasonTolerance, "failed more than trust tolerates")
		limit = c.cfg.Threshold
	}
	proven := float64(s.proven) >= limit-slack
	switch {
	case enforce && float64(s.score) >= limit-slack:
		c.condemn(s, b, reason, true, proven)
	case float64(s.observed) >= limit-slack:
		c.condemn(s, b, reason, false, proven)
	}
}

// spare reports, once an hour for each source and reason, that a prefix is not banned.
func (c *call) spare(p netip.Prefix, reason ban.Reason, proven bool, detail string) {
	if !c.reports.Seen(c.now, c.id(forSpared, c.key, c.text(string(reason)))) {
		c.decide(ban.ActionObserve, reason, p, 0, proven, detail)
	}
}

// tolerate reports, once an hour, that a trusted source is not banned.
func (c *call) tolerate(reason ban.Reason, detail string) {
	c.spare(c.prefixOf(c.key), reason, c.proven, detail)
}

// allowedGuesses reports, once an hour, that a source guesses passwords that must not be banned: nobody else would tell.
func (c *call) allowedGuesses(s *source, w float64, reason ban.Reason) {
	if w > 0 && (reason == ban.ReasonWrongPassword || reason == ban.ReasonDistributed || reason == ban.ReasonManager || reason == ban.ReasonHoneypot || reason == ban.ReasonMalformed) {
		c.spare(c.prefixOf(c.key), ban.ReasonAllowed, c.proven, fmt.Sprintf(
			"the allow list covers it: never banned, but it guesses passwords (%s so far)", plural(int(s.attempts)+1, "attempt")))
	}
}

// misconfigured reports an error of set-up once an hour.
func (c *call) misconfigured(reason ban.Reason, detail string) {
	if !c.reports.Seen(c.now, c.id(forMisconfigured+purpose(reasonIndex(reason)), c.key, c.name())) {
		c.decide(ban.ActionMisconfigured, reason, c.prefixOf(c.key), 0, c.proven, detail)
	}
}

func configurationHint(ev *security.Event) string {
	switch ev.ACLName {
	case "registrar_attempt_exceeds_maximum_configured_contacts":
		return "more contacts than max_contacts of the AOR"
	case "registrar_attempt_without_configured_aors":
		return "the endpoint has no aors"
	case "registrar_invalid_contacts_provided":
		return "the phone sent an invalid Contact"
	case "registrar_invalid_uri_in_to_received":
		return "the phone sent an invalid To"
	case "peer_not_dynamic":
		return "the peer has no host=dynamic"
	}
	switch ev.Type {
	case security.RequestNotSupported:
		return "no such AOR for the endpoint"
	case security.RequestNotAllowed:
		return "a manager user lacks a privilege"
	case security.RequestBadFormat:
		return "a manager user sent an unknown action"
	case security.InvalidTransport:
		return "the peer may not use this transport"
	}
	return ev.Type.String()
}
