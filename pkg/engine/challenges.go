package engine

import (
	"net/netip"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/security"
)

// maxOpen is how many requests of one source wait for its login one by one.
const maxOpen = 32

// pending is an event that counts only if no login answers it in time.
type pending struct {
	due, at   int64
	key       key
	addr      netip.AddrPort
	weight    float32
	known     bool // the account, to Asterisk
	pbx       uint8
	typ       security.Type
	service   security.Service
	transport security.Transport
	length    uint8
	account   [nameBytes]byte
}

// challenge judges a ChallengeSent. By itself it says nothing: every healthy phone gets one. Without a login after
// it, for "<unknown>" it is a request that no endpoint matches, and for many known accounts it is enumeration.
func (c *call) challenge() {
	if c.cfg.Challenges.AnswerWithin <= 0 {
		return
	}
	if c.ev.Account != unknown {
		if c.cfg.Challenges.Accounts <= 0 || c.trust() != nil || c.worksHere(c.account()) { // whose name is known there
			return
		}
		id := c.id(forChallenged, c.key, c.name())
		if !c.attempts.Seen(c.now, id) {
			c.wait(pending{known: true, weight: float32(c.cfg.Points.UnansweredChallenge)})
		}
		return
	}
	// A request that no endpoint matches has an InvalidAccountID or a FailedACL before the challenge, which counts
	// already. Without one, endpoint_identifier_order has auth_username, and healthy phones look like this too.
	if d := c.heard(); d != nil && !d.challenged || c.trust() != nil {
		return
	}
	if c.once(c.id(forChallenge, c.key, c.dialogue())) {
		if d := c.heard(); d != nil {
			d.challenged = true
		}
		c.hear(c.cfg.Points.UnansweredChallenge)
	}
}

// hold keeps an InvalidAccountID back where the source has challenges open that came without one: there
// endpoint_identifier_order has auth_username, and several phones behind one address get InvalidAccountID while all is
// well (from the fifth request in five seconds; res_pjsip/pjsip_distributor.c).
func (c *call) hold(w float64) bool {
	s := c.peek()
	if s == nil || s.open == 0 || c.trustOf(s) != nil {
		return false
	}
	c.hear(w)
	return true
}

// hear gives the source of the event time to log in before it costs w points. Beyond maxOpen of one source there is one
// sum of points, so that no source fills the queue.
func (c *call) hear(w float64) {
	s := c.source()
	if s == nil {
		return
	}
	if s.open >= maxOpen {
		s.details().overflow += float32(w)
		return
	}
	if c.wait(pending{weight: float32(w)}) {
		s.open++
	}
}

// wait puts an event off until challenges.answer_within is over, and says whether there was room.
func (c *call) wait(p pending) bool {
	if c.waiting.Len() >= maxPending {
		c.limited["challenges"]++
		return false
	}
	p.at, p.due = c.now, c.now+int64(c.cfg.Challenges.AnswerWithin)
	if last := c.waiting.Last(); last != nil {
		p.due = max(p.due, last.due) // answer_within was shortened meanwhile
	}
	p.key, p.addr, p.pbx = c.key, c.ev.Remote.AddrPort, c.pbx
	p.typ, p.service, p.transport = c.ev.Type, c.ev.Service, c.ev.Remote.Transport
	p.length = uint8(min(len(c.ev.Account), nameBytes))
	copy(p.account[:], c.ev.Account)
	c.waiting.Push(p)
	return true
}

// settleChallenge judges an event whose time for an answer is over.
func (e *Engine) settleChallenge(p *pending, out []ban.Decision) []ban.Decision {
	answered, overflow := e.trusted(p.key) != nil, float32(0)
	if s := e.sources.get(p.key); s != nil {
		more := s.details()
		answered = answered || more.login != 0 && more.login >= p.at
		if !p.known && s.open > 0 && more.login < p.at { // a login closes all that was open
			s.open--
			overflow, more.overflow = more.overflow, 0
		}
	}
	if answered {
		return out
	}
	ev := security.Event{Type: p.typ, Service: p.service, Account: string(p.account[:p.length]),
		Remote: security.Address{AddrPort: p.addr, Transport: p.transport}}
	c := e.judge(&ev, p.addr.Addr().Unmap(), p.pbx, out)
	switch {
	case p.known:
		c.enumerates(float64(p.weight), e.bitOf(ev.Account))
	case p.typ == security.InvalidAccountID:
		c.charge(float64(p.weight+overflow), ban.ReasonUnknownAccount, noteUnanswered)
	default:
		c.charge(float64(p.weight+overflow), ban.ReasonUnansweredChallenge, noteUnanswered)
	}
	return c.done()
}

// enumerates notes a known account whose challenge stayed unanswered, and charges the source once there are many.
func (c *call) enumerates(w float64, bit uint8) {
	s := c.source()
	if s == nil {
		return
	}
	challenged := &s.details().challenged
	if challenged.add(c.now, bit) && challenged.distinct() > c.cfg.Challenges.Accounts && c.now-c.started >= int64(c.cfg.Challenges.Warmup) {
		c.charge(w, ban.ReasonUnansweredChallenge, noteEnumeration)
	}
}
