package engine

import (
	"slices"

	"github.com/ringwall/ringwall/pkg/security"
)

const (
	maxGood  = 1024 // accounts remembered for one trusted source
	maxFails = 64   // failing accounts remembered for one trusted source
)

// trust is a source whose users logged in with a password. It is kept for storm.memory after trust has ended, as
// the memory of who is a customer.
type trust struct {
	key   key
	since int64
	until int64
	last  int64             // login; 0 after trust was lost
	timer int64             // the one timer that counts
	good  map[uint64]string // accounts that logged in from there, by hash
	fails map[uint64]*fail  // accounts that fail from there
}

// fail is an account that fails at a trusted source.
type fail struct {
	pace
	at      int64
	proven  bool // at least one guess could not have been forged
	foreign bool // the account never logged in from there
}

// trusted returns the trust of a source while it lasts.
func (e *Engine) trusted(k key) *trust {
	if t := e.trusts[k]; t != nil && t.until > e.now {
		return t
	}
	return nil
}

// knownGood says whether a source was trusted within storm.memory.
func (e *Engine) knownGood(k key) bool {
	t := e.trusts[k]
	return t != nil && t.last > 0 && e.now-t.last < int64(e.cfg.Storm.Memory)
}

// login judges a right password: trust for the source, unless it was guessed.
func (c *call) login() {
	if !c.ev.UsingPassword || c.ev.Service != security.PJSIP {
		return
	}
	c.proven = true // the nonce is bound to the source address: the answer came from there
	id := c.hash("account", []byte{c.pbx}, c.ev.Account)
	s := c.track(c.key)
	pair := c.hash("breach", c.key[:], c.ev.Account)
	if c.breach(s, id) {
		c.breached.seen(c.now, pair)
		c.record(s, 0, Login, noNote)
		c.decide(Breach, Guessed, c.prefixOf(c.key), 0, true,
			"a login right after guessing: change this account's password now")
		return
	}
	if c.breached.get(c.now, pair) != nil {
		return
	}
	if s != nil {
		s.login, s.open = c.now, 0
	}
	if m := c.cfg.Trust.Match; m != nil && !m.MatchString(c.ev.Account) {
		return
	}
	c.succeed(id)
	c.befriend(s, id)
	if b := c.banOf(c.key); b != nil && !b.proven && !b.manual {
		// Only forgeable evidence speaks against a source that has just proven itself.
		c.Engine.forget(b)
		if !b.observed {
			c.decide(Unban, Login, b.prefix, 0, true, "a user logged in from there with a password")
		}
	}
	if s != nil {
		c.classify(s)
	}
}

// befriend starts or prolongs trust.
func (c *call) befriend(s *source, id uint64) {
	t := c.trusts[c.key]
	if t == nil {
		if len(c.trusts) >= c.cfg.MaxSources {
			c.limited["max_sources"]++
			return
		}
		t = &trust{key: c.key, good: make(map[uint64]string)}
		c.trusts[c.key] = t
	}
	fresh := t.until <= c.now
	if fresh {
		t.since = c.now
		t.fails = nil
		if s != nil {
			s.challenged = 0
		}
		c.setTimer(t, c.now+int64(c.cfg.Trust.TTL))
	}
	t.until, t.last = c.now+int64(c.cfg.Trust.TTL), c.now
	if _, ok := t.good[id]; !ok && len(t.good) < maxGood {
		t.good[id] = bounded(c.ev.Account)
	}
	delete(t.fails, id)
	if fresh {
		if s != nil {
			c.score = float64(s.score)
			c.record(s, 0, Login, noteLogin)
		}
		c.decide(Trust, Login, c.prefixOf(c.key), c.cfg.Trust.TTL, true, "")
	}
}

// distrust ends trust early.
func (c *call) distrust(t *trust, reason Reason, detail string) {
	t.until = c.now
	t.last = 0
	c.decide(Untrust, reason, c.prefixOf(t.key), 0, true, detail)
}

// setTimer sets the timer that counts for a trust.
func (e *Engine) setTimer(t *trust, at int64) {
	t.timer = at
	e.timers.set(at, e.prefixOf(t.key), true)
}

// trustOver handles the timer of a trust.
func (e *Engine) trustOver(tm timer, out []Decision) []Decision {
	k, ok := e.keyOfPrefix(tm.prefix)
	t := e.trusts[k]
	if !ok || t == nil || t.timer != tm.at {
		return out
	}
	switch memory := t.last + int64(e.cfg.Storm.Memory); {
	case t.until > e.now:
		e.setTimer(t, t.until)
		return out
	case t.last == 0 || tm.at >= memory:
		delete(e.trusts, k)
	default:
		out = append(out, Decision{Time: stamp(e.now), Action: Untrust, Source: tm.prefix.Addr(), Prefix: tm.prefix,
			Reason: Expired, Proven: true})
		t.fails = nil
		e.setTimer(t, memory)
	}
	if s := e.sources.get(k); s != nil {
		e.classify(s)
	}
	return out
}

// wrongPassword judges a wrong password of an account that exists, worth w points.
func (c *call) wrongPassword(w float64) {
	id := c.hash("account", []byte{c.pbx}, c.ev.Account)
	if t := c.trusted(c.key); t != nil {
		c.customerFails(t, id, w)
	} else {
		c.strangerFails(id, w)
	}
}

// customerFails judges a wrong password at a trusted source: an account that never worked there counts against the
// number of accounts, and any account that fails faster than a phone retries costs points.
func (c *call) customerFails(t *trust, id uint64, w float64) {
	_, here := t.good[id]
	f := c.failAt(t, id, !here)
	f.proven = f.proven || c.proven
	foreign, proven := 0, 0
	for _, f := range t.fails {
		if f.foreign {
			foreign++
			if f.proven {
				proven++
			}
		}
	}
	if limit := c.cfg.Trust.Accounts; limit > 0 && !here && foreign > limit {
		if proven > limit {
			c.distrust(t, Accounts, "too many accounts that never worked from there fail")
		} else if !c.reports.seen(c.now, c.hash("accounts", c.key[:])) {
			c.decide(Observe, Accounts, c.prefixOf(c.key), 0, false,
				"too many accounts fail from a trusted source, but the evidence could be forged: not banned")
		}
		c.charge(w*f.release(), WrongPassword, noNote)
		return
	}
	n := notePace
	if here {
		n = noteKnownHere
	}
	c.atPace(&f.pace, c.cfg.Misconfigured.Burst, n, w)
}

// strangerFails judges a wrong password from a source without trust.
func (c *call) strangerFails(id uint64, w float64) {
	s := c.track(c.key)
	if s == nil {
		return
	}
	if mark := uint32(id) | 1; s.failing != mark {
		s.many = s.failing != 0
		s.failing = mark
	}
	phone := s.pace.stubborn(c.now) && s.pace.phone(c.cfg.Misconfigured.Burst) && !s.many
	s.pace.add(c.now)
	burst := c.cfg.Misconfigured.Burst
	switch {
	case c.underAttack(id) && !phone:
		c.charge(max(w, c.cfg.Threshold-float64(s.score)), Distributed, noteTargeted)
		return
	case s.many:
		c.charge(w*s.pace.release(), WrongPassword, noNote)
		return
	case c.roams(id):
		burst += c.cfg.Roaming.Guesses
		c.atPace(&s.pace, burst, noteRoaming, w)
		return
	}
	c.atPace(&s.pace, burst, notePace, w)
}

// atPace spares a phone and charges a guesser: once the pace shows a guesser, the guesses that were spared count too.
func (c *call) atPace(p *pace, burst int, n note, w float64) {
	if p.phone(burst) {
		p.held = min(p.held+1, 250)
		if p.stubborn(c.now) {
			c.misconfigured(Pace, "this account fails again and again, no faster than a phone retries: its password is wrong")
		}
		c.charge(0, WrongPassword, n)
		return
	}
	if many := p.release(); many > 1 {
		c.charge(w*many, WrongPassword, noteWithheld)
		return
	}
	c.charge(w, WrongPassword, noNote)
}

// failAt counts one more guess of an account at a trusted source.
func (c *call) failAt(t *trust, id uint64, foreign bool) *fail {
	if t.fails == nil {
		t.fails = make(map[uint64]*fail)
	}
	f := t.fails[id]
	if f == nil {
		if len(t.fails) >= maxFails {
			t.forgetFails(c.now - int64(c.cfg.Trust.TTL))
		}
		f = &fail{at: c.now, foreign: foreign}
		if len(t.fails) < maxFails {
			t.fails[id] = f
		}
	}
	f.leak(c.now-f.at, c.cfg.Misconfigured.PerMinute)
	f.add(c.now)
	f.at = c.now
	return f
}

func (t *trust) forgetFails(before int64) {
	for id, p := range t.fails {
		if p.at < before {
			delete(t.fails, id)
		}
	}
}

// breach says whether a login of an account follows guessing of it by the same source.
func (c *call) breach(s *source, id uint64) bool {
	limit := c.cfg.Breach.Failures
	if limit <= 0 {
		return false
	}
	if t := c.trusted(c.key); t != nil {
		f := t.fails[id]
		if f == nil {
			return false
		}
		p := f.pace
		p.leak(c.now-f.at, c.cfg.Misconfigured.PerMinute)
		return int(p.guesses) >= limit
	}
	return s != nil && s.failing == uint32(id)|1 && int(s.pace.guesses) >= limit
}

func (t *trust) accounts() []string {
	names := make([]string, 0, len(t.good))
	for _, name := range t.good {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
