package engine

import (
	"cmp"
	"fmt"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine/internal/table"
)

// customerFailures is how one account fails at one trusted source.
type customerFailures struct {
	failures
	foreign bool // the account never logged in from there

	// How fast it fails, in all and where that could not have been forged, and until when whoever is faster than any
	// device is known to be a guesser by that, in ns.
	fast, fastProven                 table.LeakyBucket
	guesserUntil, provenGuesserUntil int64
}

// failure is one failure of an account, which would cost points.
type failure struct {
	id     uint64 // of the account
	points float64
	reason ban.Reason
	again  repetition

	refusal string // what is reported if it goes on: that Asterisk refuses it for its set-up
}

// judgeWrongPassword judges a wrong password of an account that exists.
func (j *judgement) judgeWrongPassword(now failure) {
	if t := j.sourceTrust(); t != nil && j.engine.enforcesService(j.event) {
		j.judgeCustomerFailure(t, now)
	} else {
		j.judgeStrangerFailure(now)
	}
}

// judgeCustomerFailure judges a failure at a trusted source: too many accounts that never logged in from there end its
// trust, and any account that fails faster than a device retries costs points.
func (j *judgement) judgeCustomerFailure(t *trust, now failure) {
	id := now.id
	_, loggedInHere := t.accounts[id]
	isPassword := now.reason == ban.ReasonWrongPassword
	f := j.failuresOfCustomer(t, id, !loggedInHere)
	burst := j.policy.Misconfigured.Burst
	if j.sparesRetransmission(&f.pace, &f.failures, now.again, burst) {
		return
	}
	f.proven = f.proven || j.proven
	if f.noteGuesser(j.now, j.proven, j.customerPerMinute(true), burst); f.guesserUntil > j.now {
		burst = 0 // he is spared nothing
	}
	if isPassword {
		j.recordAccountFailure(id)
	}
	j.recordStormPace(t, loggedInHere, &f.failures)
	if limit := j.policy.Trust.Accounts; limit > 0 && f.foreign {
		foreign, proven := t.countForeignFailures()
		switch {
		case foreign <= limit:
		case j.isProxy(): // what comes through it is kept by account
			j.reportGuessing(ban.ReasonAccounts, "many accounts fail through a proxy that never worked there: "+
				"only the proxy knows who tries them")
		case proven <= limit:
			j.reportTolerated(ban.ReasonAccounts,
				"too many accounts fail from a trusted source, but the evidence could be forged: not banned")
			j.reportGuessing(ban.ReasonAccounts, "a trusted source tries many accounts: "+
				"it is not banned, since the packets could be forged in a customer's name")
			j.slowUnproven(j.serviceIsEnforced())
		default:
			t.beyondStormAt = j.now // no PBX loses the passwords of accounts that it never had there
			j.revokeTrust(t, ban.ReasonAccounts, "too many accounts that never worked from there fail")
		}
		if foreign > limit && !j.isProxy() {
			j.charge(now.points*f.takeUncharged(now.again), now.reason, noNote)
			return
		}
	}
	if loggedInHere {
		j.detectStorm(t, id)
	}
	n := notePace
	switch {
	case !isPassword:
		n = noteDevice
	case loggedInHere:
		n = noteKnownHere
	}
	j.chargeByPace(&f.pace, &f.failures, burst, n, now)
}

// noteGuesser counts a failure of an account at a trusted source, to find whoever is faster than any device. He loses
// his connection for it at once, and again when he comes back within slowAfterCuts: the others there do not, so that
// their mistakes and his are not to be weighed against each other, as policy.trust.tolerance does.
func (f *customerFailures) noteGuesser(now int64, proven bool, perMinute float64, burst int) {
	count := func(b *table.LeakyBucket, until *int64) {
		if b.Add(now, 1, perMinute) > float64(burst) || *until > now {
			*until = now + int64(slowAfterCuts)
		}
	}
	count(&f.fast, &f.guesserUntil)
	if proven {
		count(&f.fastProven, &f.provenGuesserUntil)
	}
}

// isGuesser says whether whoever tries the account of the event at a trusted source is faster than any device, and
// whether that is proven.
func (j *judgement) isGuesser(t *trust) (guesser, proven bool) {
	f := t.failures[j.accountID()]
	return f != nil && f.guesserUntil > j.now, f != nil && f.provenGuesserUntil > j.now
}

// countForeignFailures returns how many accounts fail at a source that never logged in from there, and how many of them
// do by evidence that could not be forged.
func (t *trust) countForeignFailures() (foreign, proven int) {
	for _, f := range t.failures {
		if f.foreign && f.proven {
			proven++
		}
		if f.foreign {
			foreign++
		}
	}
	return foreign, proven
}

// sparesRetransmission counts the answer of the event: in the pace by which it is judged, and in that of its own
// account, which may be the same. It says whether the answer may be a retransmission, which costs nothing.
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
		j.reportPersistence(one, ban.ReasonWrongPassword, "no faster than a phone retries")
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
func (j *judgement) judgeStrangerFailure(now failure) {
	id, points, r := now.id, now.points, now.again
	s := j.source()
	if s == nil {
		return
	}
	perMinute, burst := j.policy.Misconfigured.PerMinute, j.policy.Misconfigured.Burst
	details := j.engine.sources.detailsOf(s)
	pair := j.failuresOfStranger(id)
	loggedInHere := j.loggedInHere(id) || j.hasObservedLogins()
	p, many := &details.pace, false
	p.drain(j.now, perMinute)
	if loggedInHere {
		p = &pair.pace // each on its own: after a weekend, a whole office of phones may fail at once
	} else {
		bit := j.engine.sketchBit(j.account)
		details.failingAccounts.Add(seconds(j.now), idleResetSeconds, j.accountNameHash(), bit)
		many = details.failingAccounts.AtLeast() > j.policy.Misconfigured.Accounts
	}
	slowPhone := pair.keepsFailing(j.now) && p.isPhonePace(burst) && !many
	since := pair.failingSince
	if j.sparesRetransmission(p, pair, r, burst) {
		return
	}
	pair.proven = pair.proven || j.proven
	attack := j.recordAccountFailure(id)
	if t := j.rememberedTrust(); t != nil {
		if j.recordStormPace(t, loggedInHere, pair); loggedInHere {
			j.detectStorm(t, id)
		}
	}
	j.chargeWiderNetworks(points)
	failedBefore := slowPhone && since < seconds(attack.suspectedSince)
	switch {
	case loggedInHere: // even where others guess the account
		j.chargeByPace(p, pair, burst, noteKnownHere, now)
	case attack.targetedUntil > j.now && !slowPhone:
		j.charge(max(points, j.policy.Threshold-float64(s.score)), ban.ReasonDistributed, noteTargeted)
	case attack.suspectedUntil > j.now && !failedBefore:
		// What was spared before stays spared: an attack on the account does not turn earlier mistakes into guesses.
		j.charge(points*max(float64(p.unchargedCopies), 1), ban.ReasonWrongPassword, noteSuspected)
		p.unchargedCopies = 0
	case many:
		j.charge(points*p.takeUncharged(r), ban.ReasonWrongPassword, noNote)
	case j.engine.loggedInLately(id):
		j.chargeByPace(p, pair, burst+j.policy.Roaming.Guesses, noteRoaming, now)
	default:
		j.chargeByPace(p, pair, burst, notePace, now)
	}
}

// failuresOfStranger returns how an account fails at the source of the event, up to date.
func (j *judgement) failuresOfStranger(id uint64) *failures {
	return j.failuresIn(j.engine.strangerFailures, id)
}

// slowGuesses is how many failures of one account from one source within an hour are more than a person or a phone that
// somebody looks after makes.
const slowGuesses = 20

// chargeByPace spares a device and charges a guesser: once the pace shows a guesser, the guesses that were spared count
// too. The pace may be that of several accounts, of which one fails now.
func (j *judgement) chargeByPace(p *pace, one *failures, burst int, n note, now failure) {
	if p.isPhonePace(burst) {
		j.sparePace(p, one, n, now)
		return
	}
	if j.sourceTrust() != nil {
		j.reportPersistence(one, now.reason, "from a trusted source")
	}
	if now.again.copy {
		j.charge(now.points*p.takeUncharged(now.again), now.reason, noteCopies)
		return
	}
	if many := p.takeUncharged(now.again); many > 1 {
		j.charge(now.points*many, now.reason, noteWithheld)
		return
	}
	j.charge(now.points, now.reason, noNote)
}

// sparePace charges nothing for a failure, and names the account where it goes on failing.
func (j *judgement) sparePace(p *pace, one *failures, n note, now failure) {
	p.uncharged = min(p.uncharged+1, 250)
	isStorm := j.engine.inStorm() && j.engine.sparedByStorm(j.key) // then nothing is wrong with the device
	switch {
	case !one.keepsFailing(j.now) || isStorm:
	case now.refusal != "":
		j.reportMisconfigured(ban.ReasonConfiguration, now.refusal)
	default:
		j.reportMisconfigured(ban.ReasonPace, misconfiguredText(now.reason))
	}
	j.reportPersistence(one, now.reason, "no faster than a phone retries")
	j.charge(0, now.reason, n)
}

// misconfiguredText says, for a person, what is wrong with an account that keeps failing no faster than a device does.
func misconfiguredText(reason ban.Reason) string {
	switch reason {
	case ban.ReasonUnknownAccount:
		return "this account does not exist, and a device, or a provider that Asterisk does not know, tries it " +
			"again and again, no faster than a phone retries"
	case ban.ReasonACL:
		return "the ACL of this account refuses it here again and again, no faster than a phone retries: " +
			"allow the address there, or mend the device"
	case ban.ReasonManager:
		return "this manager user fails again and again, no faster than a program retries: " +
			"its secret or its ACL is wrong"
	}
	return "this account fails again and again, no faster than a phone retries: its password is wrong"
}

// reportPersistence reports, once a day for each source and account, that an account fails too often to be overlooked.
// Copies of an answer count: with a decoy in front each may be a guess (see classifyAnswer). Of an account that logged
// in from there nothing is said: it is a phone to be mended, and when a PBX loses its passwords there is one for each.
// Nor is anything said where there is no password to guess. Whoever it is gets the slow lane.
func (j *judgement) reportPersistence(one *failures, reason ban.Reason, how string) {
	n := int(one.total) + int(one.sparedCopies)
	hasPassword := reason == ban.ReasonWrongPassword || reason == ban.ReasonManager
	if n <= slowGuesses && !j.isSlow() || j.loggedInHere(j.accountID()) {
		return
	}
	j.slowFailing()
	if n <= slowGuesses || !hasPassword || j.engine.slowGuessers.PutOnce(j.now, j.hash(forGuessing, j.accountID())) {
		return
	}
	j.appendDecision(ban.ActionGuessing, ban.ReasonPace, j.engine.prefixOf(j.key), 0, j.proven, fmt.Sprintf(
		"%d failures of this account within an hour, %s: a phone that nobody mends, or somebody who guesses; not "+
			"banned",
		n, how))
}

// reportGuessing reports, once an hour for each source and reason, that passwords are guessed and nobody is banned for
// it.
func (j *judgement) reportGuessing(reason ban.Reason, detail string) {
	if j.engine.firstReport(forGuessing, j.key, j.engine.hashText(string(reason))) {
		j.appendDecision(ban.ActionGuessing, reason, j.engine.prefixOf(j.key), 0, j.proven, detail)
	}
}

// failuresOfCustomer returns how an account fails at a trusted source, up to date. What was known of it before trust
// began is taken over.
func (j *judgement) failuresOfCustomer(t *trust, id uint64, foreign bool) *customerFailures {
	j.forgetOldFailures(t)
	f := t.failures[id]
	if f == nil {
		f = &customerFailures{failures: failures{pace: pace{leakedAt: j.now}}, foreign: foreign}
		if have := j.knownFailures(id); have != nil {
			f.failures = *have
		}
		if len(t.failures) >= failuresPerTrust {
			j.moveLeastFailures(t)
		}
		if t.failures == nil {
			t.failures = make(map[uint64]*customerFailures)
		}
		t.failures[id] = f
	}
	f.drain(j.now, j.customerPerMinute(!f.foreign))
	return f
}

// forgetOldFailures forgets how accounts failed at a trusted source that have not done so within trust.ttl.
func (j *judgement) forgetOldFailures(t *trust) {
	for id, f := range t.failures {
		if j.now-f.leakedAt >= int64(j.policy.Trust.TTL) {
			delete(t.failures, id)
		}
	}
}

// customerPerMinute is how often a device retries at a trusted source, in a minute. Of an account that logs in from
// there it is what the hastiest phone makes: a second device of it may have an old password, and whoever guesses what
// he has already gains nothing.
func (j *judgement) customerPerMinute(loggedInHere bool) float64 {
	if loggedInHere {
		return max(j.policy.Misconfigured.PerMinute, massPerMinute)
	}
	return j.policy.Misconfigured.PerMinute
}

// moveLeastFailures makes room among the failures at a trusted source: it moves those of one account, the one with the
// lowest peak and of those the one that failed first, to Engine.strangerFailures, so that they are known when it logs
// in after all.
func (j *judgement) moveLeastFailures(t *trust) {
	var least uint64
	var have *customerFailures
	for id, f := range t.failures {
		if have == nil || cmp.Or(cmp.Compare(f.peak, have.peak), cmp.Compare(f.leakedAt, have.leakedAt),
			cmp.Compare(id, least)) < 0 {
			least, have = id, f
		}
	}
	*j.failuresOfStranger(least) = have.failures
	delete(t.failures, least)
}

// recentFailures returns how the account of the event failed at its source of late, up to date, or nil.
func (j *judgement) recentFailures(id uint64) *failures {
	var f *failures
	perMinute := j.policy.Misconfigured.PerMinute
	if t := j.sourceTrust(); t != nil && t.failures[id] != nil {
		f = &t.failures[id].failures
		perMinute = j.customerPerMinute(!t.failures[id].foreign)
	} else {
		f = j.knownFailures(id)
	}
	if f != nil {
		f.drain(j.now, perMinute)
	}
	return f
}
