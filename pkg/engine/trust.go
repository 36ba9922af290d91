package engine

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine/internal/table"
)

const (
	maxGood  = 1024 // accounts remembered for one trusted source
	maxFails = 64   // failing accounts remembered for one trusted source
)

// trust is a source whose users logged in with a password. It is kept for storm.memory after the last login, as
// the memory of who is a customer.
type trust struct {
	key         key
	since       int64
	until       int64
	last        int64             // login
	timer       int64             // the one timer that counts
	endReported bool              // its end was reported
	revoked     bool              // it ended early: only a login brings it back
	accounts    map[uint64]string // accounts that logged in from there, by hash
	fails       map[uint64]*fail  // the accounts that failed from there worst within trust.ttl

	rush   table.LeakyBucket // of evidence that a PBX which lost its passwords does not explain
	rushed int64             // when there was too much of it last, ns
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
func (j *judgement) trust() *trust {
	if s := j.findSource(); s != nil {
		return j.engine.trustOf(s)
	}
	return j.engine.trusted(j.key) // the source itself may have been forgotten meanwhile
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
	return t != nil && !t.revoked && e.now-t.last < int64(e.cfg.Storm.Memory)
}

// worksHere says whether an account logged in from the source of the event, which did not lose its trust since.
func (j *judgement) worksHere(id uint64) bool {
	t := j.engine.trusts[j.key]
	if t == nil || t.revoked {
		return false
	}
	_, ok := t.accounts[id]
	return ok
}

// login judges a right password: trust for the source, unless it was guessed.
func (j *judgement) login() {
	if !j.event.UsingPassword {
		return
	}
	j.proven = true // the nonce is bound to the source address: the answer came from there
	id := j.account()
	s := j.source()
	flow := j.flow(id)
	known := j.engine.flows.Get(j.now, flow) != nil // whoever guessed, it was not this phone
	if !known {
		guesses := j.guesses(id)
		if guesses != nil && guesses.guessed(j.policy.Breach.Failures) {
			if j.breach(id, guesses, ban.ReasonGuessed, "a login right after guessing: change this account's password now") {
				return
			}
		} else if have := j.engine.breached.Get(j.now, j.hash(forBreach, id)); have != nil && have.until > j.now {
			return
		}
	}
	if s != nil {
		more := j.engine.sources.detailsOf(s)
		more.login, more.overflow, s.open = j.now, 0, 0
	}
	if !known && j.mayBeGuessed(id) {
		j.record(s, 0, ban.ReasonLogin, notePossibleBreach)
		j.reportBreach(id, ban.ReasonDistributed,
			"this account is being guessed, and logged in from where it never was: perhaps a guess was right; no trust while it goes on")
		return
	}
	j.engine.flows.Renew(j.now, flow)
	if m := j.policy.Trust.Match; m != nil && !m.MatchString(j.event.Account) {
		return
	}
	j.engine.recordLogin(id)
	j.grantTrust(s, id)
	// Only forgeable evidence, or that against its neighbours, speaks against a source that has just proven itself.
	if s == nil || s.banned {
		if b := j.engine.banOf(j.key); b != nil && !b.proven && !b.manual {
			j.unbanAfterLogin(b)
		}
	}
	for _, net := range j.engine.networksOf(j.engine.prefixOf(j.key)) {
		if b := j.engine.bans[net]; b != nil && b.reason == ban.ReasonNetwork && b.until > j.now {
			j.unbanAfterLogin(b)
		}
	}
}

// flow identifies from where exactly an account logs in: address, port and transport. Nobody else has the packets of it.
func (j *judgement) flow(account uint64) uint64 {
	to := uint64(j.event.Remote.AddrPort.Port())<<8 | uint64(j.event.Remote.Transport)
	return j.engine.id(forFlow, j.flowKey(), j.engine.mix(account, to))
}

// flowKey is the address of the event itself: a source of IPv6 is a network of many.
func (j *judgement) flowKey() key { return key(j.addr.As16()) }

// breach judges a login after guesses of its account from the same source, which are nil where the login itself is
// hostile. It returns whether the login earns nothing. Forged packets can make any login look guessed, so unproven
// guesses take nothing from an account that logged in from there before, and are remembered for ban.forgeable_max only.
func (j *judgement) breach(id uint64, guesses *failures, reason ban.Reason, detail string) (tainted bool) {
	j.record(j.source(), 0, ban.ReasonLogin, noteBreach)
	j.reportBreach(id, reason, detail)
	until := int64(math.MaxInt64)
	if guesses != nil && !guesses.proven {
		if j.worksHere(id) {
			guesses.pace = pace{at: j.now}
			return false
		}
		until = j.now + int64(j.policy.Ban.ForgeableMax)
	}
	pair := j.hash(forBreach, id)
	b := j.engine.breached.Get(j.now, pair)
	if b == nil {
		b, _ = j.engine.breached.Put(j.now, pair)
	}
	b.from, b.until = j.key, max(b.until, until)
	return true
}

// breached is a login after guessing. What logs in from there earns no trust until then, ns.
type breached struct {
	from  key
	until int64
}

// reportBreach reports a breach once an hour for each source and account.
func (j *judgement) reportBreach(id uint64, reason ban.Reason, detail string) {
	if j.engine.firstReport(forBreachTold, j.key, j.engine.mix(id, uint64(reasonIndex(reason)))) {
		j.decide(ban.ActionBreach, reason, j.engine.prefixOf(j.key), 0, true, detail)
	}
}

// unbanAfterLogin ends a ban because of a login.
func (j *judgement) unbanAfterLogin(b *activeBan) {
	j.engine.forget(b)
	if !b.observed {
		j.decide(ban.ActionUnban, ban.ReasonLogin, b.prefix, 0, true, "a user logged in from there with a password")
	}
}

// grantTrust starts or prolongs trust.
func (j *judgement) grantTrust(s *source, id uint64) {
	t := j.engine.trusts[j.key]
	if t == nil {
		if len(j.engine.trusts) >= j.policy.MaxSources {
			j.engine.limited["max_sources"]++
			return
		}
		t = &trust{key: j.key, accounts: make(map[uint64]string)}
		j.engine.keepTrust(t)
		if s != nil {
			s.known = true
		}
	}
	fresh := t.until <= j.now
	if fresh {
		t.since, t.endReported, t.revoked, t.fails = j.now, false, false, nil
		if s != nil {
			j.engine.sources.detailsOf(s).challenged = table.Distinct{}
		}
		j.engine.setTrustTimer(t, j.now+int64(j.policy.Trust.TTL))
	}
	t.until, t.last = j.now+int64(j.policy.Trust.TTL), j.now
	if _, ok := t.accounts[id]; !ok && len(t.accounts) < maxGood {
		t.accounts[id] = truncateAccount(j.event.Account)
	}
	delete(t.fails, id)
	if fresh {
		if s != nil {
			j.score = float64(s.score)
			j.record(s, 0, ban.ReasonLogin, noteLogin)
		}
		j.decide(ban.ActionTrust, ban.ReasonLogin, j.engine.prefixOf(j.key), j.policy.Trust.TTL, true, "")
	}
}

// distrust ends trust early.
func (j *judgement) distrust(t *trust, reason ban.Reason, detail string) {
	t.until, t.endReported, t.revoked = j.now, true, true
	j.decide(ban.ActionUntrust, reason, j.engine.prefixOf(t.key), 0, true, detail)
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

// setTrustTimer sets the timer that counts for a trust.
func (e *Engine) setTrustTimer(t *trust, at int64) {
	t.timer = at
	e.setTimer(at, e.prefixOf(t.key), endOfTrust)
}

// trustOver handles the timer of a trust: first its end, later that of the memory of it.
func (e *Engine) trustOver(tm timer, out []ban.Decision) []ban.Decision {
	k, ok := e.keyOfPrefix(tm.prefix)
	t := e.trusts[k]
	if !ok || t == nil || t.timer != tm.at {
		return out
	}
	if t.until > e.now {
		e.setTrustTimer(t, t.until)
		return out
	}
	if !t.endReported {
		t.endReported = true
		out = append(out, ban.Decision{Time: stamp(e.now), Action: ban.ActionUntrust, Source: tm.prefix.Addr(), Prefix: tm.prefix,
			Reason: ban.ReasonExpired, Proven: true})
	}
	s := e.sources.get(k)
	t.fails = nil
	if memory := t.last + int64(e.cfg.Storm.Memory); memory > e.now {
		e.setTrustTimer(t, memory)
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
func (j *judgement) wrongPassword(w float64, r repeat) {
	if t := j.trust(); t != nil {
		j.customerFails(t, j.account(), w, r)
	} else {
		j.strangerFails(j.account(), w, r)
	}
}

// customerFails judges a wrong password at a trusted source: an account that never worked there counts against the
// number of accounts, and any account that fails faster than a phone retries costs points.
func (j *judgement) customerFails(t *trust, id uint64, w float64, r repeat) {
	_, here := t.accounts[id]
	f := j.failOf(t, id, !here)
	burst := j.policy.Misconfigured.Burst
	if j.tolerates(&f.pace, &f.failures, r, burst) {
		return
	}
	f.proven = f.proven || j.proven
	j.accountGuessed(id)
	j.recordRush(t, here, &f.failures)
	if limit := j.policy.Trust.Accounts; limit > 0 && f.foreign {
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
			j.reportTolerated(ban.ReasonAccounts,
				"too many accounts fail from a trusted source, but the evidence could be forged: not banned")
			j.alarmGuessing(ban.ReasonAccounts, "a trusted source guesses the passwords of many accounts: it is not banned, since the "+
				"packets could be forged in a customer's name")
		default:
			t.rushed = j.now // no PBX loses the passwords of accounts that it never had there
			j.distrust(t, ban.ReasonAccounts, "too many accounts that never worked from there fail")
		}
		if foreign > limit {
			j.charge(w*f.takeUncharged(r), ban.ReasonWrongPassword, noNote)
			return
		}
	}
	if here {
		j.mayBeStorm(t, id)
	}
	n := notePace
	if here {
		n = noteKnownHere
	}
	j.chargeByPace(&f.pace, &f.failures, burst, n, w, r)
}

// tolerates counts the answer of the event in its paces, which may be one, and says whether it may be a retransmission,
// which costs nothing.
func (j *judgement) tolerates(p *pace, one *failures, r repeat, burst int) bool {
	if !r.copy {
		p.add(j.now)
		if p != &one.pace {
			one.add(j.now)
		}
		return false
	}
	if p.takesCopy(j.now, r, burst) {
		one.again = min(one.again+1, 1<<15)
		j.tellPersistence(one, "no faster than a phone retries")
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
func (j *judgement) strangerFails(id uint64, w float64, r repeat) {
	s := j.source()
	if s == nil {
		return
	}
	perMinute, burst := j.policy.Misconfigured.PerMinute, j.policy.Misconfigured.Burst
	more := j.engine.sources.detailsOf(s)
	pair := j.pair(id)
	here := j.worksHere(id)
	p, many := &more.pace, false
	p.leak(j.now, perMinute)
	if here {
		p = &pair.pace // an office that was closed for the weekend has as many phones as before
	} else {
		more.failing.Add(seconds(j.now), idleResetSeconds, j.accountNameHash(), j.engine.bitOf(j.event.Account))
		many = more.failing.AtLeast() > j.policy.Misconfigured.Accounts
	}
	stubborn := pair.keepsFailing(j.now) && p.isPhonePace(burst) && !many
	since := pair.since
	if j.tolerates(p, &pair.failures, r, burst) {
		return
	}
	pair.proven = pair.proven || j.proven
	attack := j.accountGuessed(id)
	if t := j.engine.trusts[j.key]; t != nil {
		if j.recordRush(t, here, &pair.failures); here {
			j.mayBeStorm(t, id)
		}
	}
	j.chargeWiderNetwork(w)
	old := stubborn && attack != nil && since < seconds(attack.suspectedAt)
	switch {
	case here: // whoever else guesses it
		j.chargeByPace(p, &pair.failures, burst, noteKnownHere, w, r)
	case attack != nil && attack.targeted > j.now && !stubborn:
		j.charge(max(w, j.policy.Threshold-float64(s.score)), ban.ReasonDistributed, noteTargeted)
	case attack != nil && attack.suspected > j.now && !old:
		// What was spared before stays so: that somebody is attacked makes nobody's mistakes of before guesses.
		j.charge(w*max(float64(p.copied), 1), ban.ReasonWrongPassword, noteSuspected)
		p.copied = 0
	case many:
		j.charge(w*p.takeUncharged(r), ban.ReasonWrongPassword, noNote)
	case j.engine.roams(id):
		j.chargeByPace(p, &pair.failures, burst+j.policy.Roaming.Guesses, noteRoaming, w, r)
	default:
		j.chargeByPace(p, &pair.failures, burst, notePace, w, r)
	}
}

// pair is how one account fails from one source.
type pair struct {
	failures
	from key
}

// pair returns how one account fails from the source of the event, up to date.
func (j *judgement) pair(id uint64) *pair {
	p, old := j.engine.pairs.Renew(j.now, j.hash(forPair, id))
	if !old {
		p.at, p.from = j.now, j.key
	}
	p.leak(j.now, j.policy.Misconfigured.PerMinute)
	return p
}

// slowGuesses is how many failures of one account from one source within an hour are more than a person or a phone that
// somebody looks after makes.
const slowGuesses = 20

// chargeByPace spares a phone and charges a guesser: once the pace shows a guesser, the guesses that were spared count too.
// The pace may be that of several accounts, of which one fails now.
func (j *judgement) chargeByPace(p *pace, one *failures, burst int, n note, w float64, r repeat) {
	if p.isPhonePace(burst) {
		p.uncharged = min(p.uncharged+1, 250)
		if one.keepsFailing(j.now) {
			j.misconfigured(ban.ReasonPace, "this account fails again and again, no faster than a phone retries: its password is wrong")
		}
		j.tellPersistence(one, "no faster than a phone retries")
		j.charge(0, ban.ReasonWrongPassword, n)
		return
	}
	if j.trust() != nil {
		j.tellPersistence(one, "from a trusted source")
	}
	if r.copy {
		j.charge(w*p.takeUncharged(r), ban.ReasonWrongPassword, noteCopies)
		return
	}
	if many := p.takeUncharged(r); many > 1 {
		j.charge(w*many, ban.ReasonWrongPassword, noteWithheld)
		return
	}
	j.charge(w, ban.ReasonWrongPassword, noNote)
}

// tellPersistence reports, once a day for each source and account, that an account fails too often to be overlooked. Copies
// of an answer count: with a decoy in front each may be a guess. An account that logged in from there is a phone to be mended:
// when a PBX loses its passwords, there is one for each.
func (j *judgement) tellPersistence(one *failures, how string) {
	n := int(one.total) + int(one.again)
	if n > slowGuesses && !j.worksHere(j.account()) && !j.engine.slow.Seen(j.now, j.hash(forGuessing, j.account())) {
		j.decide(ban.ActionGuessing, ban.ReasonPace, j.engine.prefixOf(j.key), 0, j.proven, fmt.Sprintf("%d failures of this account within an hour, %s: a phone that "+
			"nobody mends, or somebody who guesses; not banned", n, how))
	}
}

// alarmGuessing reports, once an hour for each source and reason, that passwords are guessed and nobody is banned for it.
func (j *judgement) alarmGuessing(reason ban.Reason, detail string) {
	if j.engine.firstReport(forGuessing, j.key, j.engine.text(string(reason))) {
		j.decide(ban.ActionGuessing, reason, j.engine.prefixOf(j.key), 0, j.proven, detail)
	}
}

// failOf returns how an account fails at a trusted source, up to date. Where so many fail that there is no room, the least
// bad of them goes to where strangers' are, so that it is known when it logs in after all.
func (j *judgement) failOf(t *trust, id uint64, foreign bool) *fail {
	for id, f := range t.fails {
		if j.now-f.at >= int64(j.policy.Trust.TTL) {
			delete(t.fails, id)
		}
	}
	f := t.fails[id]
	if f == nil {
		f = &fail{failures: failures{pace: pace{at: j.now}}, foreign: foreign}
		if have := j.engine.pairs.Get(j.now, j.hash(forPair, id)); have != nil {
			f.failures = have.failures
		}
		if len(t.fails) >= maxFails {
			j.dropFail(t)
		}
		if t.fails == nil {
			t.fails = make(map[uint64]*fail)
		}
		t.fails[id] = f
	}
	f.leak(j.now, j.policy.Misconfigured.PerMinute)
	return f
}

// dropFail makes room: it moves the failures of one account, that with the lowest peak and of those the one that failed
// first, to the window of pairs.
func (j *judgement) dropFail(t *trust) {
	var least uint64
	var have *fail
	for id, f := range t.fails {
		if have == nil || cmp.Or(cmp.Compare(f.peak, have.peak), cmp.Compare(f.at, have.at), cmp.Compare(id, least)) < 0 {
			least, have = id, f
		}
	}
	p := j.pair(least)
	p.failures = have.failures
	delete(t.fails, least)
}

// guesses returns how the account of the event failed at its source of late, up to date, or nil.
func (j *judgement) guesses(id uint64) *failures {
	var f *failures
	if t := j.trust(); t != nil && t.fails[id] != nil {
		f = &t.fails[id].failures
	} else if have := j.engine.pairs.Get(j.now, j.hash(forPair, id)); have != nil {
		f = &have.failures
	}
	if f != nil {
		f.leak(j.now, j.policy.Misconfigured.PerMinute)
	}
	return f
}

func (t *trust) accountNames() []string {
	names := make([]string, 0, len(t.accounts))
	for _, name := range t.accounts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
