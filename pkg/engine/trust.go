package engine

import (
	"math/bits"
	"slices"
)

const (
	maxGood  = 1024 // accounts remembered for one trusted source
	maxFails = 64   // failing accounts remembered for one trusted source
)

// trust is a source whose users logged in with a password. It is kept for storm.memory after the last login, as
// the memory of who is a customer.
type trust struct {
	key   key
	since int64
	until int64
	last  int64             // login
	timer int64             // the one timer that counts
	over  bool              // its end was reported
	lost  bool              // it ended early: only a login brings it back
	good  map[uint64]string // accounts that logged in from there, by hash
	fails map[uint64]*fail  // accounts that failed from there within trust.ttl
}

// fail is an account that fails at a trusted source.
type fail struct {
	pace
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

// trust returns the trust of the source of the event while it lasts.
func (c *call) trust() *trust {
	if s := c.peek(); s != nil {
		return c.trustOf(s)
	}
	return c.trusted(c.key) // the source itself may have been forgotten meanwhile
}

// trustOf returns the trust of a source while it lasts.
func (e *Engine) trustOf(s *source) *trust {
	if s.known {
		return e.trusted(s.key)
	}
	return nil
}

// knownGood says whether a source was trusted within storm.memory.
func (e *Engine) knownGood(k key) bool {
	t := e.trusts[k]
	return t != nil && e.now-t.last < int64(e.cfg.Storm.Memory)
}

// login judges a right password: trust for the source, unless it was guessed.
func (c *call) login() {
	if !c.ev.UsingPassword {
		return
	}
	c.proven = true // the nonce is bound to the source address: the answer came from there
	id := c.account()
	s := c.source()
	pair := c.id(forBreach, c.key, id)
	if c.guessed(id) {
		if c.breached.get(c.now, pair) == nil {
			*c.breached.put(c.now, pair) = c.key
		}
		c.record(s, 0, Login, noteBreach)
		c.decide(Breach, Guessed, c.prefixOf(c.key), 0, true,
			"a login right after guessing: change this account's password now")
		return
	}
	if c.breached.get(c.now, pair) != nil {
		return
	}
	if s != nil {
		more := c.sources.details(s)
		more.login, more.overflow, s.open = c.now, 0, 0
	}
	if m := c.cfg.Trust.Match; m != nil && !m.MatchString(c.ev.Account) {
		return
	}
	c.succeed(id)
	c.befriend(s, id)
	// Only forgeable evidence, or that against its neighbours, speaks against a source that has just proven itself.
	if s == nil || s.banned {
		if b := c.banOf(c.key); b != nil && !b.proven && !b.manual {
			c.release(b)
		}
	}
	if net, ok := c.networkOf(c.prefixOf(c.key)); ok {
		if b := c.bans[net]; b != nil && b.reason == Network && b.until > c.now {
			c.release(b)
		}
	}
}

// release ends a ban because of a login.
func (c *call) release(b *ban) {
	c.Engine.forget(b)
	if !b.observed {
		c.decide(Unban, Login, b.prefix, 0, true, "a user logged in from there with a password")
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
		if s != nil {
			s.known = true
		}
	}
	fresh := t.until <= c.now
	if fresh {
		t.since, t.over, t.lost, t.fails = c.now, false, false, nil
		if s != nil {
			c.sources.details(s).challenged = sketch{}
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
	t.until, t.over, t.lost = c.now, true, true
	c.decide(Untrust, reason, c.prefixOf(t.key), 0, true, detail)
}

// setTimer sets the timer that counts for a trust.
func (e *Engine) setTimer(t *trust, at int64) {
	t.timer = at
	e.timers.set(at, e.prefixOf(t.key), endOfTrust)
}

// trustOver handles the timer of a trust: first its end, later that of the memory of it.
func (e *Engine) trustOver(tm timer, out []Decision) []Decision {
	k, ok := e.keyOfPrefix(tm.prefix)
	t := e.trusts[k]
	if !ok || t == nil || t.timer != tm.at {
		return out
	}
	if t.until > e.now {
		e.setTimer(t, t.until)
		return out
	}
	if !t.over {
		t.over = true
		out = append(out, Decision{Time: stamp(e.now), Action: Untrust, Source: tm.prefix.Addr(), Prefix: tm.prefix,
			Reason: Expired, Proven: true})
	}
	s := e.sources.get(k)
	t.fails = nil
	if memory := t.last + int64(e.cfg.Storm.Memory); memory > e.now {
		e.setTimer(t, memory)
	} else {
		delete(e.trusts, k)
		if s != nil {
			s.known = false
		}
	}
	if s != nil {
		e.classify(s)
	}
	return out
}

// wrongPassword judges a wrong password of an account that exists, worth w points.
func (c *call) wrongPassword(w float64) {
	if t := c.trust(); t != nil {
		c.customerFails(t, c.account(), w)
	} else {
		c.strangerFails(c.account(), w)
	}
}

// customerFails judges a wrong password at a trusted source: an account that never worked there counts against the
// number of accounts, and any account that fails faster than a phone retries costs points.
func (c *call) customerFails(t *trust, id uint64, w float64) {
	_, here := t.good[id]
	f := c.failAt(t, id, !here)
	if f == nil { // so many accounts fail that there is no room: no phones
		c.charge(w, WrongPassword, noNote)
		return
	}
	f.proven = f.proven || c.proven
	if limit := c.cfg.Trust.Accounts; limit > 0 && f.foreign {
		foreign, proven := 0, 0
		for _, f := range t.fails {
			if f.foreign && f.proven {
				proven++
			}
			if f.foreign {
				foreign++
			}
		}
		switch {
		case foreign <= limit:
		case proven <= limit:
			c.tolerate(Accounts,
				"too many accounts fail from a trusted source, but the evidence could be forged: not banned")
		case c.stormy():
			c.tolerate(Storm, "too many accounts fail from a trusted source while many others do: "+stormText)
		default:
			c.distrust(t, Accounts, "too many accounts that never worked from there fail")
		}
		if foreign > limit {
			c.charge(w*f.release(), WrongPassword, noNote)
			return
		}
	}
	n := notePace
	if here {
		n = noteKnownHere
	}
	c.atPace(&f.pace, &f.pace, c.cfg.Misconfigured.Burst, n, w)
}

// strangerFails judges a wrong password from a source without trust.
func (c *call) strangerFails(id uint64, w float64) {
	s := c.source()
	if s == nil {
		return
	}
	perMinute, burst := c.cfg.Misconfigured.PerMinute, c.cfg.Misconfigured.Burst
	more := c.sources.details(s)
	pair := c.pair(id)
	more.failing.add(c.now, bitOf(c.ev.Account))
	many := bits.OnesCount64(more.failing.seen) > c.cfg.Misconfigured.Accounts
	more.pace.leak(c.now, perMinute)
	phone := pair.stubborn(c.now) && more.pace.phone(burst) && !many
	more.pace.add(c.now)
	pair.add(c.now)
	switch {
	case c.underAttack(id) && !phone:
		c.charge(max(w, c.cfg.Threshold-float64(s.score)), Distributed, noteTargeted)
	case many:
		c.charge(w*more.pace.release(), WrongPassword, noNote)
	case c.roams(id):
		c.atPace(&more.pace, pair, burst+c.cfg.Roaming.Guesses, noteRoaming, w)
	default:
		c.atPace(&more.pace, pair, burst, notePace, w)
	}
}

// pair is how one account fails from one source.
type pair struct {
	pace
	from key
}

// pair returns how one account fails from the source of the event, up to date.
func (c *call) pair(id uint64) *pace {
	id = c.id(forPair, c.key, id)
	p := c.pairs.get(c.now, id)
	if p == nil {
		p = c.pairs.put(c.now, id)
		p.at, p.from = c.now, c.key
	}
	p.leak(c.now, c.cfg.Misconfigured.PerMinute)
	return &p.pace
}

// atPace spares a phone and charges a guesser: once the pace shows a guesser, the guesses that were spared count too.
// The pace may be that of several accounts, of which one fails now.
func (c *call) atPace(p, one *pace, burst int, n note, w float64) {
	if p.phone(burst) {
		p.held = min(p.held+1, 250)
		if one.stubborn(c.now) {
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

// failAt counts one more guess of an account at a trusted source. It returns nil where too many accounts fail.
func (c *call) failAt(t *trust, id uint64, foreign bool) *fail {
	for id, f := range t.fails {
		if c.now-f.at >= int64(c.cfg.Trust.TTL) {
			delete(t.fails, id)
		}
	}
	f := t.fails[id]
	if f == nil {
		if len(t.fails) >= maxFails {
			return nil
		}
		if t.fails == nil {
			t.fails = make(map[uint64]*fail)
		}
		f = &fail{pace: pace{at: c.now}, foreign: foreign}
		t.fails[id] = f
	}
	f.leak(c.now, c.cfg.Misconfigured.PerMinute)
	f.add(c.now)
	return f
}

// guessed says whether the account of the event was guessed by the same source just before.
func (c *call) guessed(id uint64) bool {
	limit := c.cfg.Breach.Failures
	if limit <= 0 {
		return false
	}
	var p pace
	if t := c.trust(); t != nil {
		if f := t.fails[id]; f != nil {
			p = f.pace
		}
	} else if have := c.pairs.get(c.now, c.id(forPair, c.key, id)); have != nil {
		p = have.pace
	}
	p.leak(c.now, c.cfg.Misconfigured.PerMinute)
	return p.guessed(limit)
}

func (t *trust) accounts() []string {
	names := make([]string, 0, len(t.good))
	for _, name := range t.good {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
