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
	accountsPerTrust = 1024 // accounts remembered for one trusted source
	failuresPerTrust = 64   // failing accounts remembered for one trusted source
)

// trust is a source whose users logged in with a password. It is kept for storm.memory after the last login, as
// the memory of who is a customer.
type trust struct {
	key         sourceKey
	since       int64
	until       int64
	lastLogin   int64                        // login
	timerAt     int64                        // the one timer that counts
	endReported bool                         // its end was reported
	revoked     bool                         // it ended early: only a login brings it back
	accounts    map[uint64]string            // accounts that logged in from there, by hash
	failures    map[uint64]*customerFailures // the accounts that failed from there worst within trust.ttl

	stormPace     table.LeakyBucket // of evidence that a PBX which lost its passwords does not explain
	beyondStormAt int64             // when there was too much of it last, ns
}

// customerFailures is an account that fails at a trusted source.
type customerFailures struct {
	failures
	foreign bool // the account never logged in from there
}

// activeTrust returns the trust of a source while it lasts.
func (e *Engine) activeTrust(k sourceKey) *trust {
	if t := e.trusts[k]; t != nil && t.until > e.now {
		return t
	}
	return nil
}

// sourceTrust returns the trust of the source of the event while it lasts.
func (j *judgement) sourceTrust() *trust {
	if s := j.findSource(); s != nil {
		return j.engine.trustOf(s)
	}
	return j.engine.activeTrust(j.key) // the source itself may have been forgotten meanwhile
}

// trustOf returns the trust of a source while it lasts.
func (e *Engine) trustOf(s *source) *trust {
	if s.hasTrust {
		return e.activeTrust(s.key)
	}
	return nil
}

// isCustomer says whether a source was trusted within storm.memory, and did not lose its trust by failing.
func (e *Engine) isCustomer(k sourceKey) bool {
	t := e.trusts[k]
	return t != nil && !t.revoked && e.now-t.lastLogin < int64(e.policy.Storm.Memory)
}

// loggedInHere says whether an account logged in from the source of the event, which did not lose its trust since.
func (j *judgement) loggedInHere(id uint64) bool {
	t := j.engine.trusts[j.key]
	if t == nil || t.revoked {
		return false
	}
	_, ok := t.accounts[id]
	return ok
}

// judgeLogin judges a right password: trust for the source, unless it was guessed.
func (j *judgement) judgeLogin() {
	if !j.event.UsingPassword {
		return
	}
	j.proven = true // the nonce is bound to the source address: the answer came from there
	id := j.accountID()
	s := j.source()
	flow := j.loginFlow(id)
	known := j.engine.loginFlows.Get(j.now, flow) != nil // whoever guessed, it was not this phone
	if !known {
		guesses := j.recentFailures(id)
		if guesses != nil && guesses.showsGuessing(j.policy.Breach.Failures) {
			if j.judgeBreach(id, guesses, ban.ReasonGuessed, "a login right after guessing: change this account's password now") {
				return
			}
		} else if have := j.engine.guessedLogins.Get(j.now, j.hash(forBreach, id)); have != nil && have.until > j.now {
			return
		}
	}
	if s != nil {
		details := j.engine.sources.detailsOf(s)
		details.lastLogin, details.overflowPoints, s.openChallenges = j.now, 0, 0
	}
	if !known && j.loginMayBeGuessed(id) {
		j.record(s, 0, ban.ReasonLogin, notePossibleBreach)
		j.reportBreach(id, ban.ReasonDistributed,
			"this account is being guessed, and logged in from where it never was: perhaps a guess was right; no trust while it goes on")
		return
	}
	j.engine.loginFlows.Renew(j.now, flow)
	if m := j.policy.Trust.Match; m != nil && !m.MatchString(j.event.Account) {
		return
	}
	j.engine.recordLogin(id)
	j.grantTrust(s, id)
	// Only forgeable evidence, or that against its neighbours, speaks against a source that has just proven itself.
	if s == nil || s.banned {
		if b := j.engine.activeBanOf(j.key); b != nil && !b.proven && !b.manual {
			j.unbanAfterLogin(b)
		}
	}
	for _, net := range j.engine.networksOf(j.engine.prefixOf(j.key)) {
		if b := j.engine.bans[net]; b != nil && b.reason == ban.ReasonNetwork && b.until > j.now {
			j.unbanAfterLogin(b)
		}
	}
}

// loginFlow identifies from where exactly an account logs in: address, port and transport. Nobody else has the packets of it.
func (j *judgement) loginFlow(account uint64) uint64 {
	to := uint64(j.event.Remote.AddrPort.Port())<<8 | uint64(j.event.Remote.Transport)
	return j.engine.hash(forLoginFlow, j.addressKey(), j.engine.combine(account, to))
}

// addressKey is the address of the event itself: a source of IPv6 is a network of many.
func (j *judgement) addressKey() sourceKey { return sourceKey(j.addr.As16()) }

// judgeBreach judges a login after guesses of its account from the same source, which are nil where the login itself is
// hostile. It returns whether the login earns nothing. Forged packets can make any login look guessed, so unproven
// guesses take nothing from an account that logged in from there before, and are remembered for ban.forgeable_max only.
func (j *judgement) judgeBreach(id uint64, guesses *failures, reason ban.Reason, detail string) (tainted bool) {
	j.record(j.source(), 0, ban.ReasonLogin, noteBreach)
	j.reportBreach(id, reason, detail)
	until := int64(math.MaxInt64)
	if guesses != nil && !guesses.proven {
		if j.loggedInHere(id) {
			guesses.pace = pace{leakedAt: j.now}
			return false
		}
		until = j.now + int64(j.policy.Ban.ForgeableMax)
	}
	pair := j.hash(forBreach, id)
	b := j.engine.guessedLogins.Get(j.now, pair)
	if b == nil {
		b, _ = j.engine.guessedLogins.Put(j.now, pair)
	}
	b.from, b.until = j.key, max(b.until, until)
	return true
}

// guessedLogin is a login after guessing. What logs in from there earns no trust until then, ns.
type guessedLogin struct {
	from  sourceKey
	until int64
}

// reportBreach reports a breach once an hour for each source and account.
func (j *judgement) reportBreach(id uint64, reason ban.Reason, detail string) {
	if j.engine.firstReport(forBreachReport, j.key, j.engine.combine(id, uint64(reasonIndex(reason)))) {
		j.decide(ban.ActionBreach, reason, j.engine.prefixOf(j.key), 0, true, detail)
	}
}

// unbanAfterLogin ends a ban because of a login.
func (j *judgement) unbanAfterLogin(b *activeBan) {
	j.engine.removeBan(b)
	if !b.observed {
		j.decide(ban.ActionUnban, ban.ReasonLogin, b.prefix, 0, true, "a user logged in from there with a password")
	}
}

// grantTrust starts or prolongs trust.
func (j *judgement) grantTrust(s *source, id uint64) {
	t := j.engine.trusts[j.key]
	if t == nil {
		if len(j.engine.trusts) >= j.policy.MaxSources {
			j.engine.hitLimits["max_sources"]++
			return
		}
		t = &trust{key: j.key, accounts: make(map[uint64]string)}
		j.engine.addTrust(t)
		if s != nil {
			s.hasTrust = true
		}
	}
	fresh := t.until <= j.now
	if fresh {
		t.since, t.endReported, t.revoked, t.failures = j.now, false, false, nil
		if s != nil {
			j.engine.sources.detailsOf(s).challengedAccounts = table.Distinct{}
		}
		j.engine.setTrustTimer(t, j.now+int64(j.policy.Trust.TTL))
	}
	t.until, t.lastLogin = j.now+int64(j.policy.Trust.TTL), j.now
	if _, ok := t.accounts[id]; !ok && len(t.accounts) < accountsPerTrust {
		t.accounts[id] = truncateAccount(j.event.Account)
	}
	delete(t.failures, id)
	if fresh {
		if s != nil {
			j.score = float64(s.score)
			j.record(s, 0, ban.ReasonLogin, noteLogin)
		}
		j.decide(ban.ActionTrust, ban.ReasonLogin, j.engine.prefixOf(j.key), j.policy.Trust.TTL, true, "")
	}
}

// revokeTrust ends trust early.
func (j *judgement) revokeTrust(t *trust, reason ban.Reason, detail string) {
	t.until, t.endReported, t.revoked = j.now, true, true
	j.decide(ban.ActionUntrust, reason, j.engine.prefixOf(t.key), 0, true, detail)
}

// addTrust enters a trust in the books, and forgetTrust takes it out.
func (e *Engine) addTrust(t *trust) {
	e.trusts[t.key] = t
	e.trustsByOwner[ownerNetwork(t.key)]++
}

func (e *Engine) removeTrust(k sourceKey) {
	delete(e.trusts, k)
	owner := ownerNetwork(k)
	if e.trustsByOwner[owner]--; e.trustsByOwner[owner] <= 0 {
		delete(e.trustsByOwner, owner)
	}
}

// setTrustTimer sets the timer that counts for a trust.
func (e *Engine) setTrustTimer(t *trust, at int64) {
	t.timerAt = at
	e.setTimer(at, e.prefixOf(t.key), endOfTrust)
}

// endDueTrust handles the timer of a trust: first its end, later that of the memory of it.
func (e *Engine) endDueTrust(tm timer, out []ban.Decision) []ban.Decision {
	k, ok := e.keyOfPrefix(tm.prefix)
	t := e.trusts[k]
	if !ok || t == nil || t.timerAt != tm.at {
		return out
	}
	if t.until > e.now {
		e.setTrustTimer(t, t.until)
		return out
	}
	if !t.endReported {
		t.endReported = true
		out = append(out, ban.Decision{Time: utc(e.now), Action: ban.ActionUntrust, Source: tm.prefix.Addr(), Prefix: tm.prefix,
			Reason: ban.ReasonExpired, Proven: true})
	}
	s := e.sources.get(k)
	t.failures = nil
	if memory := t.lastLogin + int64(e.policy.Storm.Memory); memory > e.now {
		e.setTrustTimer(t, memory)
	} else {
		e.removeTrust(k)
		if s != nil {
			s.hasTrust = false
		}
	}
	if s != nil {
		e.classifySource(s)
	}
	return out
}

// judgeWrongPassword judges a wrong password of an account that exists, worth w points.
func (j *judgement) judgeWrongPassword(points float64, r repetition) {
	if t := j.sourceTrust(); t != nil {
		j.judgeCustomerFailure(t, j.accountID(), points, r)
	} else {
		j.judgeStrangerFailure(j.accountID(), points, r)
	}
}

// judgeCustomerFailure judges a wrong password at a trusted source: an account that never worked there counts against the
// number of accounts, and any account that fails faster than a phone retries costs points.
func (j *judgement) judgeCustomerFailure(t *trust, id uint64, points float64, r repetition) {
	_, here := t.accounts[id]
	f := j.failuresOfCustomer(t, id, !here)
	burst := j.policy.Misconfigured.Burst
	if j.sparesRetransmission(&f.pace, &f.failures, r, burst) {
		return
	}
	f.proven = f.proven || j.proven
	j.recordTargetFailure(id)
	j.recordStormPace(t, here, &f.failures)
	if limit := j.policy.Trust.Accounts; limit > 0 && f.foreign {
		foreign, proven := 0, 0
		for _, f := range t.failures {
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
			j.reportGuessing(ban.ReasonAccounts, "a trusted source guesses the passwords of many accounts: it is not banned, since the "+
				"packets could be forged in a customer's name")
		default:
			t.beyondStormAt = j.now // no PBX loses the passwords of accounts that it never had there
			j.revokeTrust(t, ban.ReasonAccounts, "too many accounts that never worked from there fail")
		}
		if foreign > limit {
			j.charge(points*f.takeUncharged(r), ban.ReasonWrongPassword, noNote)
			return
		}
	}
	if here {
		j.detectStorm(t, id)
	}
	n := notePace
	if here {
		n = noteKnownHere
	}
	j.chargeByPace(&f.pace, &f.failures, burst, n, points, r)
}

// sparesRetransmission counts the answer of the event in its paces, which may be one, and says whether it may be a retransmission,
// which costs nothing.
func (j *judgement) sparesRetransmission(p *pace, one *failures, r repetition, burst int) bool {
	if !r.copy {
		p.addGuess(j.now)
		if p != &one.pace {
			one.addGuess(j.now)
		}
		return false
	}
	if p.isRetransmission(j.now, r, burst) {
		one.sparedCopies = min(one.sparedCopies+1, 1<<15)
		j.reportPersistence(one, "no faster than a phone retries")
		return true
	}
	p.addCopiesAsGuesses(int(p.unchargedCopies))
	if p != &one.pace {
		one.addCopiesAsGuesses(int(p.unchargedCopies))
		one.peak = max(one.peak, p.peak)
	}
	return false
}

// judgeStrangerFailure judges a wrong password from a source without trust.
func (j *judgement) judgeStrangerFailure(id uint64, points float64, r repetition) {
	s := j.source()
	if s == nil {
		return
	}
	perMinute, burst := j.policy.Misconfigured.PerMinute, j.policy.Misconfigured.Burst
	details := j.engine.sources.detailsOf(s)
	pair := j.failuresOfStranger(id)
	here := j.loggedInHere(id)
	p, many := &details.pace, false
	p.drain(j.now, perMinute)
	if here {
		p = &pair.pace // an office that was closed for the weekend has as many phones as before
	} else {
		details.failingAccounts.Add(seconds(j.now), idleResetSeconds, j.accountNameHash(), j.engine.sketchBit(j.event.Account))
		many = details.failingAccounts.AtLeast() > j.policy.Misconfigured.Accounts
	}
	stubborn := pair.keepsFailing(j.now) && p.isPhonePace(burst) && !many
	since := pair.failingSince
	if j.sparesRetransmission(p, &pair.failures, r, burst) {
		return
	}
	pair.proven = pair.proven || j.proven
	attack := j.recordTargetFailure(id)
	if t := j.engine.trusts[j.key]; t != nil {
		if j.recordStormPace(t, here, &pair.failures); here {
			j.detectStorm(t, id)
		}
	}
	j.chargeWiderNetworks(points)
	old := stubborn && attack != nil && since < seconds(attack.suspectedSince)
	switch {
	case here: // whoever else guesses it
		j.chargeByPace(p, &pair.failures, burst, noteKnownHere, points, r)
	case attack != nil && attack.targetedUntil > j.now && !stubborn:
		j.charge(max(points, j.policy.Threshold-float64(s.score)), ban.ReasonDistributed, noteTargeted)
	case attack != nil && attack.suspectedUntil > j.now && !old:
		// What was spared before stays so: that somebody is attacked makes nobody's mistakes of before guesses.
		j.charge(points*max(float64(p.unchargedCopies), 1), ban.ReasonWrongPassword, noteSuspected)
		p.unchargedCopies = 0
	case many:
		j.charge(points*p.takeUncharged(r), ban.ReasonWrongPassword, noNote)
	case j.engine.loggedInLately(id):
		j.chargeByPace(p, &pair.failures, burst+j.policy.Roaming.Guesses, noteRoaming, points, r)
	default:
		j.chargeByPace(p, &pair.failures, burst, notePace, points, r)
	}
}

// strangerFailures is how one account fails from one source.
type strangerFailures struct {
	failures
	from sourceKey
}

// failuresOfStranger returns how one account fails from the source of the event, up to date.
func (j *judgement) failuresOfStranger(id uint64) *strangerFailures {
	p, old := j.engine.strangerFailures.Renew(j.now, j.hash(forFailures, id))
	if !old {
		p.leakedAt, p.from = j.now, j.key
	}
	p.drain(j.now, j.policy.Misconfigured.PerMinute)
	return p
}

// slowGuesses is how many failures of one account from one source within an hour are more than a person or a phone that
// somebody looks after makes.
const slowGuesses = 20

// chargeByPace spares a phone and charges a guesser: once the pace shows a guesser, the guesses that were spared count too.
// The pace may be that of several accounts, of which one fails now.
func (j *judgement) chargeByPace(p *pace, one *failures, burst int, n note, points float64, r repetition) {
	if p.isPhonePace(burst) {
		p.uncharged = min(p.uncharged+1, 250)
		if one.keepsFailing(j.now) {
			j.reportMisconfigured(ban.ReasonPace, "this account fails again and again, no faster than a phone retries: its password is wrong")
		}
		j.reportPersistence(one, "no faster than a phone retries")
		j.charge(0, ban.ReasonWrongPassword, n)
		return
	}
	if j.sourceTrust() != nil {
		j.reportPersistence(one, "from a trusted source")
	}
	if r.copy {
		j.charge(points*p.takeUncharged(r), ban.ReasonWrongPassword, noteCopies)
		return
	}
	if many := p.takeUncharged(r); many > 1 {
		j.charge(points*many, ban.ReasonWrongPassword, noteWithheld)
		return
	}
	j.charge(points, ban.ReasonWrongPassword, noNote)
}

// reportPersistence reports, once a day for each source and account, that an account fails too often to be overlooked. Copies
// of an answer count: with a decoy in front each may be a guess. An account that logged in from there is a phone to be mended:
// when a PBX loses its passwords, there is one for each.
func (j *judgement) reportPersistence(one *failures, how string) {
	n := int(one.total) + int(one.sparedCopies)
	if n > slowGuesses && !j.loggedInHere(j.accountID()) && !j.engine.slowGuessers.Seen(j.now, j.hash(forGuessing, j.accountID())) {
		j.decide(ban.ActionGuessing, ban.ReasonPace, j.engine.prefixOf(j.key), 0, j.proven, fmt.Sprintf("%d failures of this account within an hour, %s: a phone that "+
			"nobody mends, or somebody who guesses; not banned", n, how))
	}
}

// reportGuessing reports, once an hour for each source and reason, that passwords are guessed and nobody is banned for it.
func (j *judgement) reportGuessing(reason ban.Reason, detail string) {
	if j.engine.firstReport(forGuessing, j.key, j.engine.hashText(string(reason))) {
		j.decide(ban.ActionGuessing, reason, j.engine.prefixOf(j.key), 0, j.proven, detail)
	}
}

// failuresOfCustomer returns how an account fails at a trusted source, up to date. Where so many fail that there is no room, the least
// bad of them goes to where strangers' are, so that it is known when it logs in after all.
func (j *judgement) failuresOfCustomer(t *trust, id uint64, foreign bool) *customerFailures {
	for id, f := range t.failures {
		if j.now-f.leakedAt >= int64(j.policy.Trust.TTL) {
			delete(t.failures, id)
		}
	}
	f := t.failures[id]
	if f == nil {
		f = &customerFailures{failures: failures{pace: pace{leakedAt: j.now}}, foreign: foreign}
		if have := j.engine.strangerFailures.Get(j.now, j.hash(forFailures, id)); have != nil {
			f.failures = have.failures
		}
		if len(t.failures) >= failuresPerTrust {
			j.moveLeastFailures(t)
		}
		if t.failures == nil {
			t.failures = make(map[uint64]*customerFailures)
		}
		t.failures[id] = f
	}
	f.drain(j.now, j.policy.Misconfigured.PerMinute)
	return f
}

// moveLeastFailures makes room: it moves the failures of one account, that with the lowest peak and of those the one that failed
// first, to the window of pairs.
func (j *judgement) moveLeastFailures(t *trust) {
	var least uint64
	var have *customerFailures
	for id, f := range t.failures {
		if have == nil || cmp.Or(cmp.Compare(f.peak, have.peak), cmp.Compare(f.leakedAt, have.leakedAt), cmp.Compare(id, least)) < 0 {
			least, have = id, f
		}
	}
	p := j.failuresOfStranger(least)
	p.failures = have.failures
	delete(t.failures, least)
}

// recentFailures returns how the account of the event failed at its source of late, up to date, or nil.
func (j *judgement) recentFailures(id uint64) *failures {
	var f *failures
	if t := j.sourceTrust(); t != nil && t.failures[id] != nil {
		f = &t.failures[id].failures
	} else if have := j.engine.strangerFailures.Get(j.now, j.hash(forFailures, id)); have != nil {
		f = &have.failures
	}
	if f != nil {
		f.drain(j.now, j.policy.Misconfigured.PerMinute)
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
