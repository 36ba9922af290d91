package engine

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/ringwall/ringwall/pkg/ban"
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
	fails map[uint64]*fail  // the accounts that failed from there worst within trust.ttl

	rush   bucket // of evidence that a PBX which lost its passwords does not explain
	rushed int64  // when there was too much of it last, ns
}

// fail is an account that fails at a trusted source.
type fail struct {
	failures
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

// knownGood says whether a source was trusted within storm.memory, and did not lose its trust by failing.
func (e *Engine) knownGood(k key) bool {
	t := e.trusts[k]
	return t != nil && !t.lost && e.now-t.last < int64(e.cfg.Storm.Memory)
}

// worksHere says whether an account logged in from the source of the event, which did not lose its trust since.
func (c *call) worksHere(id uint64) bool {
	t := c.trusts[c.key]
	if t == nil || t.lost {
		return false
	}
	_, ok := t.good[id]
	return ok
}

// login judges a right password: trust for the source, unless it was guessed.
func (c *call) login() {
	if !c.ev.UsingPassword {
		return
	}
	c.proven = true // the nonce is bound to the source address: the answer came from there
	id := c.account()
	s := c.source()
	flow := c.flow(id)
	known := c.flows.Get(c.now, flow) != nil // whoever guessed, it was not this phone
	if !known {
		guesses := c.guesses(id)
		if guesses != nil && guesses.guessed(c.cfg.Breach.Failures) {
			if c.breach(id, guesses, ban.ReasonGuessed, "a login right after guessing: change this account's password now") {
				return
			}
		} else if have := c.breached.Get(c.now, c.id(forBreach, c.key, id)); have != nil && have.until > c.now {
			return
		}
	}
	if s != nil {
		more := s.details()
		more.login, more.overflow, s.open = c.now, 0, 0
	}
	if !known && c.mayBeGuessed(id) {
		c.record(s, 0, ban.ReasonLogin, notePossibleBreach)
		c.reportBreach(id, ban.ReasonDistributed,
			"this account is being guessed, and logged in from where it never was: perhaps a guess was right; no trust while it goes on")
		return
	}
	c.flows.Renew(c.now, flow)
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
	for _, net := range c.networksOf(c.prefixOf(c.key)) {
		if b := c.bans[net]; b != nil && b.reason == ban.ReasonNetwork && b.until > c.now {
			c.release(b)
		}
	}
}

// flow identifies from where exactly an account logs in: address, port and transport. Nobody else has the packets of it.
func (c *call) flow(account uint64) uint64 {
	to := uint64(c.ev.Remote.AddrPort.Port())<<8 | uint64(c.ev.Remote.Transport)
	return c.id(forFlow, c.flowKey(), c.mix(account, to))
}

// flowKey is the address of the event itself: a source of IPv6 is a network of many.
func (c *call) flowKey() key { return key(c.addr.As16()) }

// breach judges a login after guesses of its account from the same source, which are nil where the login itself is
// hostile. It returns whether the login earns nothing. Forged packets can make any login look guessed, so unproven
// guesses take nothing from an account that logged in from there before, and are remembered for ban.forgeable_max only.
func (c *call) breach(id uint64, guesses *failures, reason ban.Reason, detail string) (tainted bool) {
	c.record(c.source(), 0, ban.ReasonLogin, noteBreach)
	c.reportBreach(id, reason, detail)
	until := int64(math.MaxInt64)
	if guesses != nil && !guesses.proven {
		if c.worksHere(id) {
			guesses.pace = pace{at: c.now}
			return false
		}
		until = c.now + int64(c.cfg.Ban.ForgeableMax)
	}
	pair := c.id(forBreach, c.key, id)
	b := c.breached.Get(c.now, pair)
	if b == nil {
		b, _ = c.breached.Put(c.now, pair)
	}
	b.from, b.until = c.key, max(b.until, until)
	return true
}

// breached is a login after guessing. What logs in from there earns no trust until then, ns.
type breached struct {
	from  key
	until int64
}

// reportBreach reports a breach once an hour for each source and account.
func (c *call) reportBreach(id uint64, reason ban.Reason, detail string) {
	if !c.reports.Seen(c.now, c.id(forBreachTold, c.key, c.mix(id, uint64(reasonIndex(reason))))) {
		c.decide(ban.ActionBreach, reason, c.prefixOf(c.key), 0, true, detail)
	}
}

// release ends a ban because of a login.
func (c *call) release(b *activeBan) {
	c.Engine.forget(b)
	if !b.observed {
		c.decide(ban.ActionUnban, ban.ReasonLogin, b.prefix, 0, true, "a user logged in from there with a password")
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
		c.keepTrust(t)
		if s != nil {
			s.known = true
		}
	}
	fresh := t.until <= c.now
	if fresh {
		t.since, t.over, t.lost, t.fails = c.now, false, false, nil
		if s != nil {
			s.details().challenged = sketch{}
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
			c.record(s, 0, ban.ReasonLogin, noteLogin)
		}
		c.decide(ban.ActionTrust, ban.ReasonLogin, c.prefixOf(c.key), c.cfg.Trust.TTL, true, "")
	}
}

// distrust ends trust early.
func (c *call) distrust(t *trust, reason ban.Reason, detail string) {
	t.until, t.over, t.lost = c.now, true, true
	c.decide(ban.ActionUntrust, reason, c.prefixOf(t.key), 0, true, detail)
}

// keepTrust enters a trust in the books, and forgetTrust takes it out.
func (e *Engine) keepTrust(t *trust) {
	e.trusts[t.key] = t
	e.owners[ownerOf(t.key)]++
}

func (e *Engine) forgetTrust(k key) {
	delete(e.trusts, k)
	owner := ownerOf(k)
	if e.owners[owner]--; e.owners[owner] <= 0 {
		delete(e.owners, owner)
	}
}

// setTimer sets the timer that counts for a trust.
func (e *Engine) setTimer(t *trust, at int64) {
	t.timer = at
	e.timers.set(at, e.prefixOf(t.key), endOfTrust)
}

// trustOver handles the timer of a trust: first its end, later that of the memory of it.
func (e *Engine) trustOver(tm timer, out []ban.Decision) []ban.Decision {
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
		out = append(out, ban.Decision{Time: stamp(e.now), Action: ban.ActionUntrust, Source: tm.prefix.Addr(), Prefix: tm.prefix,
			Reason: ban.ReasonExpired, Proven: true})
	}
	s := e.sources.get(k)
	t.fails = nil
	if memory := t.last + int64(e.cfg.Storm.Memory); memory > e.now {
		e.setTimer(t, memory)
	} else {
		e.forgetTrust(k)
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
func (c *call) wrongPassword(w float64, r repeat) {
	if t := c.trust(); t != nil {
		c.customerFails(t, c.account(), w, r)
	} else {
		c.strangerFails(c.account(), w, r)
	}
}

// customerFails judges a wrong password at a trusted source: an account that never worked there counts against the
// number of accounts, and any account that fails faster than a phone retries costs points.
func (c *call) customerFails(t *trust, id uint64, w float64, r repeat) {
	_, here := t.good[id]
	f := c.failOf(t, id, !here)
	burst := c.cfg.Misconfigured.Burst
	if c.tolerates(&f.pace, &f.failures, r, burst) {
		return
	}
	f.proven = f.proven || c.proven
	c.accountGuessed(id)
	c.rushes(t, here, &f.failures)
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
			c.tolerate(ban.ReasonAccounts,
				"too many accounts fail from a trusted source, but the evidence could be forged: not banned")
			c.alarmGuessing(ban.ReasonAccounts, "a trusted source guesses the passwords of many accounts: it is not banned, since the "+
				"packets could be forged in a customer's name")
		default:
			t.rushed = c.now // no PBX loses the passwords of accounts that it never had there
			c.distrust(t, ban.ReasonAccounts, "too many accounts that never worked from there fail")
		}
		if foreign > limit {
			c.charge(w*f.release(r), ban.ReasonWrongPassword, noNote)
			return
		}
	}
	if here {
		c.mayBeStorm(t, id)
	}
	n := notePace
	if here {
		n = noteKnownHere
	}
	c.atPace(&f.pace, &f.failures, burst, n, w, r)
}

// tolerates counts the answer of the event in its paces, which may be one, and says whether it may be a retransmission,
// which costs nothing.
func (c *call) tolerates(p *pace, one *failures, r repeat, burst int) bool {
	if !r.copy {
		p.add(c.now)
		if p != &one.pace {
			one.add(c.now)
		}
		return false
	}
	if p.takesCopy(c.now, r, burst) {
		one.again = min(one.again+1, 1<<15)
		c.tellPersistence(one, "no faster than a phone retries")
		return true
	}
	p.addCopies(int(p.copied))
	if p != &one.pace {
		one.addCopies(int(p.copied))
		one.peak = max(one.peak, p.peak)
	}
	return false
}

// strangerFails judges a wrong password from a source without trust.
func (c *call) strangerFails(id uint64, w float64, r repeat) {
	s := c.source()
	if s == nil {
		return
	}
	perMinute, burst := c.cfg.Misconfigured.PerMinute, c.cfg.Misconfigured.Burst
	more := s.details()
	pair := c.pair(id)
	here := c.worksHere(id)
	p, many := &more.pace, false
	p.leak(c.now, perMinute)
	if here {
		p = &pair.pace // an office that was closed for the weekend has as many phones as before
	} else {
		more.failing.add(c.now, c.name(), c.bitOf(c.ev.Account))
		many = more.failing.count() > c.cfg.Misconfigured.Accounts
	}
	stubborn := pair.stubborn(c.now) && p.phone(burst) && !many
	since := pair.since
	if c.tolerates(p, &pair.failures, r, burst) {
		return
	}
	pair.proven = pair.proven || c.proven
	attack := c.accountGuessed(id)
	if t := c.trusts[c.key]; t != nil {
		if c.rushes(t, here, &pair.failures); here {
			c.mayBeStorm(t, id)
		}
	}
	c.widen(w)
	old := stubborn && attack != nil && since < seconds(attack.suspectedAt)
	switch {
	case here: // whoever else guesses it
		c.atPace(p, &pair.failures, burst, noteKnownHere, w, r)
	case attack != nil && attack.targeted > c.now && !stubborn:
		c.charge(max(w, c.cfg.Threshold-float64(s.score)), ban.ReasonDistributed, noteTargeted)
	case attack != nil && attack.suspected > c.now && !old:
		// What was spared before stays so: that somebody is attacked makes nobody's mistakes of before guesses.
		c.charge(w*max(float64(p.copied), 1), ban.ReasonWrongPassword, noteSuspected)
		p.copied = 0
	case many:
		c.charge(w*p.release(r), ban.ReasonWrongPassword, noNote)
	case c.roams(id):
		c.atPace(p, &pair.failures, burst+c.cfg.Roaming.Guesses, noteRoaming, w, r)
	default:
		c.atPace(p, &pair.failures, burst, notePace, w, r)
	}
}

// pair is how one account fails from one source.
type pair struct {
	failures
	from key
}

// pair returns how one account fails from the source of the event, up to date.
func (c *call) pair(id uint64) *pair {
	p, old := c.pairs.Renew(c.now, c.id(forPair, c.key, id))
	if !old {
		p.at, p.from = c.now, c.key
	}
	p.leak(c.now, c.cfg.Misconfigured.PerMinute)
	return p
}

// slowGuesses is how many failures of one account from one source within an hour are more than a person or a phone that
// somebody looks after makes.
const slowGuesses = 20

// atPace spares a phone and charges a guesser: once the pace shows a guesser, the guesses that were spared count too.
// The pace may be that of several accounts, of which one fails now.
func (c *call) atPace(p *pace, one *failures, burst int, n note, w float64, r repeat) {
	if p.phone(burst) {
		p.held = min(p.held+1, 250)
		if one.stubborn(c.now) {
			c.misconfigured(ban.ReasonPace, "this account fails again and again, no faster than a phone retries: its password is wrong")
		}
		c.tellPersistence(one, "no faster than a phone retries")
		c.charge(0, ban.ReasonWrongPassword, n)
		return
	}
	if c.trust() != nil {
		c.tellPersistence(one, "from a trusted source")
	}
	if r.copy {
		c.charge(w*p.release(r), ban.ReasonWrongPassword, noteCopies)
		return
	}
	if many := p.release(r); many > 1 {
		c.charge(w*many, ban.ReasonWrongPassword, noteWithheld)
		return
	}
	c.charge(w, ban.ReasonWrongPassword, noNote)
}

// tellPersistence reports, once a day for each source and account, that an account fails too often to be overlooked. Copies
// of an answer count: with a decoy in front each may be a guess. An account that logged in from there is a phone to be mended:
// when a PBX loses its passwords, there is one for each.
func (c *call) tellPersistence(one *failures, how string) {
	n := int(one.total) + int(one.again)
	if n > slowGuesses && !c.worksHere(c.account()) && !c.slow.Seen(c.now, c.id(forGuessing, c.key, c.account())) {
		c.decide(ban.ActionGuessing, ban.ReasonPace, c.prefixOf(c.key), 0, c.proven, fmt.Sprintf("%d failures of this account within an hour, %s: a phone that "+
			"nobody mends, or somebody who guesses; not banned", n, how))
	}
}

// alarmGuessing reports, once an hour for each source and reason, that passwords are guessed and nobody is banned for it.
func (c *call) alarmGuessing(reason ban.Reason, detail string) {
	if !c.reports.Seen(c.now, c.id(forGuessing, c.key, c.text(string(reason)))) {
		c.decide(ban.ActionGuessing, reason, c.prefixOf(c.key), 0, c.proven, detail)
	}
}

// failOf returns how an account fails at a trusted source, up to date. Where so many fail that there is no room, the least
// bad of them goes to where strangers' are, so that it is known when it logs in after all.
func (c *call) failOf(t *trust, id uint64, foreign bool) *fail {
	for id, f := range t.fails {
		if c.now-f.at >= int64(c.cfg.Trust.TTL) {
			delete(t.fails, id)
		}
	}
	f := t.fails[id]
	if f == nil {
		f = &fail{failures: failures{pace: pace{at: c.now}}, foreign: foreign}
		if have := c.pairs.Get(c.now, c.id(forPair, c.key, id)); have != nil {
			f.failures = have.failures
		}
		if len(t.fails) >= maxFails {
			c.dropFail(t)
		}
		if t.fails == nil {
			t.fails = make(map[uint64]*fail)
		}
		t.fails[id] = f
	}
	f.leak(c.now, c.cfg.Misconfigured.PerMinute)
	return f
}

// dropFail makes room: it moves the failures of one account, that with the lowest peak and of those the one that failed
// first, to the window of pairs.
func (c *call) dropFail(t *trust) {
	var least uint64
	var have *fail
	for id, f := range t.fails {
		if have == nil || cmp.Or(cmp.Compare(f.peak, have.peak), cmp.Compare(f.at, have.at), cmp.Compare(id, least)) < 0 {
			least, have = id, f
		}
	}
	p := c.pair(least)
	p.failures = have.failures
	delete(t.fails, least)
}

// guesses returns how the account of the event failed at its source of late, up to date, or nil.
func (c *call) guesses(id uint64) *failures {
	var f *failures
	if t := c.trust(); t != nil && t.fails[id] != nil {
		f = &t.fails[id].failures
	} else if have := c.pairs.Get(c.now, c.id(forPair, c.key, id)); have != nil {
		f = &have.failures
	}
	if f != nil {
		f.leak(c.now, c.cfg.Misconfigured.PerMinute)
	}
	return f
}

func (t *trust) accounts() []string {
	names := make([]string, 0, len(t.good))
	for _, name := range t.good {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
