package engine

import (
	"net/netip"

	"github.com/ringwall/ringwall/pkg/security"
)

// maxOpen is how many requests of one source may wait for its login. A site whose phones all come back at once answers
// each challenge within a round trip; who leaves more than these open is not a site.
const maxOpen = 32

// pending is an event that counts only if no login answers it in time.
type pending struct {
	due, at   int64
	key       key
	addr      netip.AddrPort
	weight    float32
	bit       uint8 // of the sketch, for a known account
	known     bool
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
	if c.cfg.Challenges.AnswerWithin <= 0 || c.trusted(c.key) != nil {
		return
	}
	if _, ok := c.allow.covering(c.addr); ok {
		return
	}
	if c.ev.Account != unknown {
		if c.cfg.Challenges.Accounts <= 0 {
			return
		}
		id := c.hash("challenged", c.key[:], c.ev.Account)
		if c.attempts.seen(c.now, id) {
			return
		}
		c.wait(pending{bit: uint8(id % 64), known: true, weight: float32(c.cfg.Points.UnansweredChallenge)})
		return
	}
	// A request that no endpoint matches has an InvalidAccountID or a FailedACL before the challenge, which counts
	// already. Without one, endpoint_identifier_order has auth_username, and healthy phones look like this too.
	if c.attempts.get(c.now, c.hash("dialogue", c.dialogue())) != nil {
		return
	}
	if !c.once(c.hash("challenge", c.dialogue())) {
		return
	}
	s := c.track(c.key)
	if s == nil {
		return
	}
	w := c.cfg.Points.UnansweredChallenge
	if s.open >= maxOpen {
		c.credit(w)
		c.charge(w, UnansweredChallenge, noteUnanswered)
		c.classify(s)
		return
	}
	s.open++
	c.wait(pending{weight: float32(w)})
}

// hold keeps an InvalidAccountID back where the source has challenges open that came without one: there
// endpoint_identifier_order has auth_username, and several phones behind one address get InvalidAccountID while all is
// well (from the fifth request in five seconds; res_pjsip/pjsip_distributor.c).
func (c *call) hold(w float64) bool {
	s := c.sources.get(c.key)
	if s == nil || s.open == 0 || s.open >= maxOpen || c.trusted(c.key) != nil {
		return false
	}
	c.credit(w)
	s.open++
	c.wait(pending{weight: float32(w)})
	return true
}

// wait puts an event off until challenges.answer_within is over.
func (c *call) wait(p pending) {
	if len(c.pending)-c.first >= maxPending {
		c.limited["challenges"]++
		return
	}
	p.at, p.due = c.now, c.now+int64(c.cfg.Challenges.AnswerWithin)
	p.key, p.addr, p.pbx = c.key, c.ev.Remote.AddrPort, c.pbx
	p.typ, p.service, p.transport = c.ev.Type, c.ev.Service, c.ev.Remote.Transport
	p.length = uint8(min(len(c.ev.Account), nameBytes))
	copy(p.account[:], c.ev.Account)
	if c.first > 1024 && c.first > len(c.pending)/2 {
		c.pending = append(c.pending[:0], c.pending[c.first:]...)
		c.first = 0
	}
	c.pending = append(c.pending, p)
}

// unanswered judges up to n events whose time for an answer is over.
func (e *Engine) unanswered(out []Decision, n int) []Decision {
	for ; n > 0 && e.first < len(e.pending) && e.pending[e.first].due <= e.now; n-- {
		p := e.pending[e.first]
		e.first++
		out = e.settleChallenge(&p, out)
	}
	return out
}

func (e *Engine) settleChallenge(p *pending, out []Decision) []Decision {
	answered := e.trusted(p.key) != nil
	s := e.sources.get(p.key)
	if s != nil {
		s.decay(e.now, e)
		answered = answered || s.login >= p.at && s.login != 0
		if !p.known && s.open > 0 {
			s.open--
		}
	}
	if answered {
		return out
	}
	ev := security.Event{Type: p.typ, Service: p.service, Account: string(p.account[:p.length]),
		Remote: security.Address{AddrPort: p.addr, Transport: p.transport}}
	c := call{Engine: e, ev: &ev, addr: p.addr.Addr(), key: p.key, pbx: p.pbx, out: out,
		proven: p.transport.Proven() && p.service != security.SIP}
	switch {
	case p.known:
		c.enumerates(p)
	case p.typ == security.InvalidAccountID:
		c.charge(float64(p.weight), UnknownAccount, noteUnanswered)
	default:
		c.charge(float64(p.weight), UnansweredChallenge, noteUnanswered)
	}
	return c.out
}

// enumerates notes a known account whose challenge stayed unanswered, and charges the source once there are many.
func (c *call) enumerates(p *pending) {
	s := c.track(c.key)
	if s == nil {
		return
	}
	if c.now-s.sketched > 60*minute {
		s.challenged, s.sketched = 0, c.now
	}
	bit := uint64(1) << p.bit
	if s.challenged&bit != 0 {
		return
	}
	s.challenged |= bit
	if distinct(s.challenged) > c.cfg.Challenges.Accounts && c.now-c.started >= int64(c.cfg.Challenges.Warmup) {
		c.charge(float64(p.weight), UnansweredChallenge, noteEnumeration)
	}
}
